"""Steering from a camera: one picture, four pictures, or one picture a step and a memory.

In the simulator a model learns the expert's wheel and pace; on a log of a real camera, the wheel.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..cores import LSTM, Memoryless
from ..data import Lanes, Light, Mirror, Shift, Split
from ..drive import LABELS, Recorded
from ..encoders import Conv, Picture, RoadTexture
from ..heads import Regression
from ..runs import Recipe
from ..sources import read
from ..train import Training

EYE = Conv(channels=(16, 32, 48), kernels=(5, 3, 3), strides=(2, 2, 2), features=128, pixels=RoadTexture())


def steer(data: Sequence[str] = ()) -> Recipe:
    """CNN + LSTM that steers from one picture a step.

    Command: `steersman train steer`, then `steersman drive RUN`; or `steersman train steer --data LOG`
    Data:    60 drives of the scripted expert in CarRacing, recorded when first asked for; or camera logs
    Time:    about four minutes on two cores, of which one records
    Score:   933 on tracks never seen (the expert 934)
    """
    return _simulated() if not data or _has_labels(data) else _logged()


def steer_frame(data: Sequence[str] = ()) -> Recipe:
    """The same CNN on each picture alone: what there is without a memory.

    Command: `steersman train steer-frame`
    Data:    as for `steer`
    Time:    as for `steer`
    Score:   283 on tracks never seen
    """
    return replace(steer(data), core=Memoryless(), skip=False)


def steer_stack(data: Sequence[str] = ()) -> Recipe:
    """The same CNN on the last four pictures at once.

    Command: `steersman train steer-stack`
    Data:    as for `steer`
    Time:    about five minutes on two cores
    Score:   934 on tracks never seen, 611 where the picture goes black now and then (`steer`: 903)
    """
    recipe = steer_frame(data)
    assert isinstance(recipe.encoder, Conv)
    return replace(recipe, encoder=replace(recipe.encoder, frames=4))


def _simulated() -> Recipe:
    return Recipe(
        source=Recorded(),
        encoder=EYE,
        core=LSTM(128),
        head=Regression(LABELS, weights=(3.0, 3.0, 0.5, 0.5, 1.0, 1.0, 1.0)),
        skip=True,
        batches=Lanes(rows=32, steps=32),
        augment=(Mirror(negate=("steer", "yaw_radps")),),
        split=Split(validation=0.07, test=0.07),
        training=Training(steps=3500),
    )


def _logged() -> Recipe:
    """For a few minutes of real driving: a smaller memory, more dropout, the later part of each drive held out."""
    return Recipe(
        source=Recorded(),
        encoder=replace(EYE, features=64, dropout=0.3, pixels=Picture(height=48, width=64, top=0.25)),
        core=LSTM(64),
        head=Regression(("steer",)),
        batches=Lanes(rows=16, steps=32),
        augment=(Mirror(), Light(), Shift()),
        split=Split(by="time", validation=0.15, test=0.2),
        training=Training(steps=800, rate=1e-3, decay=0.1, validate_every=100),
    )


def _has_labels(data: Sequence[str]) -> bool:
    """Whether these are recordings of a simulator, labelled by its expert."""
    return all(name in read(Path(data[0]))[0].streams for name in LABELS)
