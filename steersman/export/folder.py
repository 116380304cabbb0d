"""A run as a folder for other programs: one step in ONNX, a runner, and a file that was seen to agree with PyTorch."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.records import Record
from ..errors import UserError
from ..files import check_output, folder_written_whole, write_file
from ..nn.cores import state_tensors
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.recipe import Parts, read_records
from ..training.run import Run
from ..training.task import task_of
from ..version import __version__
from .graph import PREPARED, after, check_steps, state_names, step_graph
from .quantise import _quantised
from .runtime import BATCHES, MODEL, QUANTISED, RUNNER, TOLERANCE, Carried, raw_steps, runtime, session

if TYPE_CHECKING:
    from onnx import ModelProto

FORMAT = 1
"""Version of the metadata in the file."""


@dataclass(frozen=True)
class Exported:
    folder: Path
    disagreement: float
    """The greatest difference in any number over the steps checked, as a share of the number where that exceeds 1."""
    error: float | None = None
    """Error in float32 on held-out records; None without int8."""
    int8_error: float | None = None
    measure: str = ""
    """Name of that error's measure."""
    floats: tuple[str, ...] = ()
    """The parts that stayed in float32."""


def export(run: Run, folder: Path, data: Sequence[str] = (), int8: bool = False, watch: Watch = silent) -> Exported:
    """Writes the folder, once its file agreed with PyTorch; an export that stood there before is replaced.

    Checked, calibrated and scored on the run's own records, or on other `data`. UserError where the model can't be
    stepped, or disagrees: then nothing is written.
    """
    runtime()
    if folder.exists():
        _check_export(folder)
    check_output(folder, folder=True, otherwise="name another folder with --out")
    model = run.model()
    check_steps(model)
    records = divided(run, data, watch, scored=int8)
    whole = step_graph(model)
    _describe(whole, run, model, records["train"])
    made = whole.SerializeToString()
    worst = 0.0
    for batch in BATCHES:
        watch("comparing with PyTorch", batch, max(BATCHES))
        worst = max(worst, disagreement(made, model, raw_steps(run, records["train"], batch)))
    files, scores = {MODEL: made, RUNNER: (Path(__file__).parent / "run_exported.py").read_bytes()}, {}
    if int8:
        files[QUANTISED], scores = _quantised(made, run, model, records, watch)
    with folder_written_whole(folder) as place:
        for name, content in files.items():
            write_file(place / name, content)
    return Exported(folder, worst, **scores)


def _check_export(folder: Path) -> None:
    """UserError where what stands there is more than an export, or none: it would be lost."""
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder} exists already and is not an export; name another folder with --out")
    own = {MODEL, QUANTISED, RUNNER, "__pycache__"}
    if others := sorted(path.name for path in folder.iterdir() if path.name not in own):
        raise UserError(f"{folder} holds more than an export ({others[0]}); name another folder with --out")


def divided(run: Run, data: Sequence[str], watch: Watch, scored: bool = True) -> Parts:
    """The run's records as it was trained on them; of other data all, for checking and for scoring alike.

    Where nothing is `scored` and records are costly, no more are made than a check needs.
    """
    source = run.recipe.source
    if not data and not run.data and not scored and source.costly and run.parts is None:
        records = read_records(replace(run.recipe, source=source.few(max(BATCHES))), (), watch, look=True)
        return {"train": records, "test": records}
    if not data:
        return run.records(watch)
    records = read_records(run.recipe, data, watch)
    return {"train": records, "test": records}


def _describe(whole: "ModelProto", run: Run, model: Model, records: Sequence[Record]) -> None:
    """What a program has to know, each as JSON in the file's metadata."""
    head = model.head
    recipe = run.steps
    stream = recipe.seen(records[0])[recipe.inputs]
    period_s = float(np.median(np.diff(stream.time_s))) if len(stream) > 1 else 0.0
    about = {
        "format": FORMAT,
        "steersman": __version__,
        "recipe": run.name,
        "flavour": recipe.flavour,
        "input": recipe.inputs,
        "raw": model.encoder.raw,
        "targets": head.targets,
        "units": task_of(run.recipe).units(head.targets),
        "rate_hz": round(1 / period_s, 6) if period_s else None,
        "classes": head.names() if tells_classes(head) else None,
        "characters": model.encoder.symbols.characters if model.encoder.symbols else "",
        "states": {name: after(name) for name in state_names(model.initial(1))},
    }
    for key, value in about.items():
        entry = whole.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)


@torch.inference_mode()
def disagreement(made: bytes, model: Model, raws: Iterator[np.ndarray]) -> float:
    """The greatest between the graph and PyTorch, each carrying its own state. UserError where it is too great."""
    worst, prepared, carried, state = 0.0, _prepared(made), None, None
    for number, raw in enumerate(raws):
        if carried is None:
            state = model.initial(len(raw))
            carried = Carried(made, state)
        x = model.encoder.prepare(torch.as_tensor(raw))
        out, state = model.run(x.unsqueeze(1), state)
        found = carried.step(raw)
        where = f"at step {number} of a batch of {len(raw)}"
        if prepared is not None:
            (got,) = prepared.run(None, {prepared.get_inputs()[0].name: raw})
            if wrong := int((got != x.numpy()).sum()):
                raise UserError(f"not exported: {where}, {wrong} prepared numbers differ from PyTorch's")
        expected = {name: t for name, t in zip(map(after, state_names(state)), state_tensors(state), strict=True)}
        if "logits" in found:
            expected["logits"] = out[:, 0]
            if not np.array_equal(found["prediction"], model.head.point(torch.from_numpy(found["logits"])).numpy()):
                raise UserError(f"not exported: {where}, the prediction is not that of its logits")
        else:
            expected["prediction"] = model.head.point(out)[:, 0]
            expected |= {name: t[:, 0] for name, t in model.head.parameters_of(out).items()}
        for name, tensor in expected.items():
            theirs = tensor.double().numpy()
            apart = np.abs(found[name] - theirs) / np.maximum(1, np.abs(theirs))
            worst = max(worst, float(apart.max(initial=0)))
            if not (apart <= TOLERANCE).all():  # NaN too.
                raise UserError(
                    f"not exported: {where}, {name} differs from PyTorch's by {apart.max():.3g}, "
                    f"more than {TOLERANCE:g}"
                )
    return worst


def _prepared(made: bytes) -> Any:
    """The part of the graph without weights, by itself; None where it has none."""
    import onnx
    from onnx.utils import Extractor

    whole = onnx.load_from_string(made)
    if not any(PREPARED in node.output for node in whole.graph.node):
        return None
    whole = onnx.shape_inference.infer_shapes(whole)
    return session(Extractor(whole).extract_model([whole.graph.input[0].name], [PREPARED]).SerializeToString())
