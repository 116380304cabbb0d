"""Task of steering: a wheel is estimated, and its page speaks of bends, drivers and left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ...data.examples import Example
from ...data.inputs import Inputs
from ...errors import UserError
from ...evaluation.sections import Words
from ...evaluation.tasks import Estimate
from ...nn.model import Model
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from ...training.task import TaskSpec
from .rivals import motion_rivals

TURNING = ("steer", "steering", "angle")
"""Words in the name of the target that turns the wheel; the first that is there."""
EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, float("inf"))
"""Bounds of the steering, as a fraction of full lock, by which errors are sorted: the sharper the bend the larger."""


@dataclass(frozen=True)
class EstimateSteering(Estimate):
    """The wheel is estimated, as a fraction of full lock, positive to the left."""

    unit: str = "fraction of full lock, positive to the left"

    usual: ClassVar[bool] = False
    edges: ClassVar[tuple[float, ...]] = EDGES
    words: ClassVar[Words] = Words(
        truth="driver",
        up="left is up",
        zero="Zero always steers straight",
        sizes="Most of any drive is nearly straight, so one average hides the bends. Here the steps are sorted by the "
        "size of the true value: of steering, by how sharp the bend is.",
        bins="Small values fill most of a drive and are easy; the bins to the right are the bends.",
        timing="A camera sees the steering only once the car has turned, and a careless model learns to follow rather "
        "than to lead.",
    )

    def rivals(
        self, run: Run, model: Model, examples: Sequence[Example], material: Material, watch: Watch
    ) -> dict[str, list[np.ndarray]]:
        """Beside ridge regression on pixels that on the motion of the scene, and boosting on it: of camera logs."""
        found = super().rivals(run, model, examples, material, watch)
        if run.data and material.known is not None and found:
            known = {part: run.recipe.examples(model, material.known[part], watch) for part in ("train", "validation")}
            found |= motion_rivals(known["train"], known["validation"], examples, run.steps.inputs)
        return found

    def units(self, targets: Sequence[str]) -> dict[str, str]:
        found = TaskSpec.units(self, targets)
        turning = {name: f"{unit}, positive to the left" for name, unit in found.items() if unit.startswith("radians")}
        wheels = dict.fromkeys(self.ranges(targets), "fraction of full lock from -1 to 1, positive to the left")
        return found | turning | wheels

    def ranges(self, targets: Sequence[str]) -> dict[str, tuple[float, float]]:
        return dict.fromkeys((name for name in targets if name.endswith("steer")), (-1.0, 1.0))

    def panels(self, targets: Sequence[str]) -> dict[str, str]:
        turning = [name for word in TURNING for name in targets if word in name.split("_")]
        return {"wheel": turning[0]} if turning else {}

    def film(self, run: Run, material: Material, path: Path, watch: Watch = silent) -> None:
        """Films the records one after the other: the camera, what the model sees of it, its wheel and the driver's."""
        from ...explain.saliency import as_rgb
        from ...worlds.film import DriveVideo

        model: Model = run.model()
        stream = run.steps.inputs
        if len(material.test[0][stream].values.shape) != 4:
            raise UserError(f"there is no film of {stream!r}, which holds no pictures; leave out --video")
        examples = run.recipe.examples(model, material.test, watch)
        path.parent.mkdir(parents=True, exist_ok=True)
        period_s = float(np.median(np.concatenate([np.diff(e.time_s) for e in examples])))
        done, total = 0, sum(map(len, examples))
        with DriveVideo(path, 1 / period_s, truth_name="driver") as video:
            for record, example, said in zip(material.test, examples, model.predict(examples), strict=True):
                seen = example.x.streams[stream] if isinstance(example.x, Inputs) else example.x
                pictures = record[stream].values
                skipped = len(pictures) - len(example)  # Steps before all inputs are known.
                for t in range(len(example)):
                    # Its first number is the wheel, whatever it is called.
                    model_s, driver_s = (
                        dict(zip(("steer", *model.head.targets[1:]), numbers[t].tolist(), strict=True))
                        for numbers in (said, example.y)
                    )
                    info = {"time_s": float(example.time_s[t] - example.time_s[0])}
                    picture = np.asarray(pictures[skipped + t])[..., :3]
                    video.add(picture, as_rgb(np.asarray(seen[t])), model_s, driver_s, info)
                    done += 1
                    watch("filming", done, total)
