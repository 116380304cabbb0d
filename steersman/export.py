"""A run as a folder for other programs: one step in ONNX, a runner, and a file that was seen to agree with PyTorch."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from .cores import State, state_tensors
from .errors import UserError
from .files import disk_error, sync_folder, write_file
from .heads import ClassificationHead
from .model import Model
from .onnx_graph import PREPARED, after, check_steps, state_names, step_graph
from .progress import Watch, silent
from .records import Record
from .runs import Run, read_records

FORMAT = 1
"""Of the metadata in the file."""
STEPS, BATCHES, TOLERANCE = 200, (1, 3), 1e-4
"""What a file has to agree over before it is kept: so many carried steps, at each size of batch, to so much."""
CALIBRATION = 300
"""Steps of the training data that ranges are taken from."""
MOST_LOST = 0.02
"""Share of the error on validation records by which int8 may be worse before the recurrence stays in float32."""
MODEL, QUANTISED, RUNNER = "step.onnx", "step.int8.onnx", "run.py"


@dataclass(frozen=True)
class Exported:
    folder: Path
    disagreement: float
    """The greatest in any number over the steps it was checked on, as a share of the number where that exceeds 1."""
    error: float | None = None
    """In float32 on held-out records; None without int8."""
    int8_error: float | None = None
    measure: str = ""
    """What that error is."""
    floats: tuple[str, ...] = ()
    """The parts that stayed in float32."""


def runtime() -> Any:
    """onnxruntime, with onnx beside it. UserError where they are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; run: pip install 'steersman[export]'") from None
    return onnxruntime


def session(model: bytes, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU."""
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def export(run: Run, folder: Path, data: Sequence[str] = (), int8: bool = False, watch: Watch = silent) -> Exported:
    """Writes the folder, once its file agreed with PyTorch; an export that stood there before is replaced.

    Checked, calibrated and scored on the run's own records, or on other `data`. UserError where the model can't be
    stepped, or disagrees: then nothing is written.
    """
    runtime()
    if folder.exists() and not (folder / MODEL).is_file():
        raise UserError(f"{folder} is there already and is no export; name another folder with --out")
    model = run.model()
    check_steps(model)
    records = divided(run, data, watch)
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
    _write(folder, files)
    return Exported(folder, worst, **scores)


def divided(run: Run, data: Sequence[str], watch: Watch) -> dict[str, list[Record]]:
    """The run's records as it was trained on them; of other data all, for checking and for scoring alike."""
    if not data:
        return run.records(watch)
    records = read_records(run.recipe, data, watch)
    return {"train": records, "test": records}


def _describe(whole: Any, run: Run, model: Model, records: Sequence[Record]) -> None:
    """What a program has to know, each as JSON in the file's metadata."""
    head = model.head
    stream = records[0][run.recipe.inputs]
    period_s = float(np.median(np.diff(stream.time_s))) if len(stream) > 1 else 0.0
    about = {
        "format": FORMAT,
        "steersman": __version__,
        "recipe": run.name,
        "flavour": run.recipe.flavour,
        "input": run.recipe.inputs,
        "raw": run.raw,
        "targets": head.targets,
        "units": {name: unit(name) for name in head.targets},
        "rate_hz": round(1 / period_s, 6) if period_s else None,
        "classes": head.names() if isinstance(head, ClassificationHead) else None,
        "characters": getattr(getattr(model.encoder, "symbols", None), "characters", ""),
        "states": {name: after(name) for name in state_names(model.initial(1))},
    }
    for key, value in about.items():
        entry = whole.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)


UNITS = {
    "_mps": "metres a second",
    "_radps": "radians a second, positive to the left",
    "_rad": "radians, positive to the left",
    "_s": "seconds",
    "_m": "metres",
}


def unit(name: str) -> str:
    """Of a stream, as its name tells."""
    if name.endswith("steer"):
        return "fraction of full lock from -1 to 1, positive to the left"
    return next((what for ending, what in UNITS.items() if name.endswith(ending)), "as in the data")


def raw_steps(run: Run, records: Sequence[Record], batch: int, steps: int = STEPS) -> Iterator[np.ndarray]:
    """Raw steps (batch ...) of the records one after another, over and over; each row begins with another record."""
    rows = [_endless(run, records, len(records) * row // batch) for row in range(batch)]
    for _ in range(steps):
        yield np.stack([next(row) for row in rows])


def _endless(run: Run, records: Sequence[Record], first: int) -> Iterator[np.ndarray]:
    while True:
        for record in (*records[first:], *records[:first]):
            yield from raw_values(run, record)


def raw_values(run: Run, record: Record) -> Iterator[np.ndarray]:
    """The steps of a record as the graph takes them."""
    values = record[run.recipe.inputs].values
    for start in range(0, len(values), 64):  # Frames are decoded when asked for.
        for step in np.asarray(values[start : start + 64]):
            step = np.reshape(step, run.raw)
            yield step if step.dtype == np.uint8 and step.ndim == 3 else _wide(step)


def _wide(step: np.ndarray) -> np.ndarray:
    return step.astype(np.float32 if np.issubdtype(step.dtype, np.floating) else np.int64)


class Carried:
    """A graph with the state it carries."""

    def __init__(self, made: bytes, initial: State):
        self._session = session(made)
        self._raw, *states = self._session.get_inputs()
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._state = {s.name: t.numpy() for s, t in zip(states, state_tensors(initial), strict=True)}

    def inputs(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        kind = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}[self._raw.type]
        return {self._raw.name: raw.astype(kind, copy=False), **self._state}

    def step(self, raw: np.ndarray) -> dict[str, np.ndarray]:
        out = dict(zip(self._outputs, self._session.run(None, self.inputs(raw)), strict=True))
        self._state = {name: out[after(name)] for name in self._state}
        return out


@torch.inference_mode()
def disagreement(made: bytes, model: Model, raws: Iterator[np.ndarray]) -> float:
    """The greatest between the graph and PyTorch, each carrying its own state. UserError where it is too great."""
    worst, prepared, carried, state = 0.0, _prepared(made), None, None
    for number, raw in enumerate(raws):
        if carried is None:
            state = model.initial(len(raw))
            carried = Carried(made, state)
        x = model.encoder.prepare(torch.as_tensor(raw))
        out, state = model(x.unsqueeze(1), state)
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


def _quantised(made: bytes, run: Run, model: Model, records: Any, watch: Watch) -> tuple[bytes, dict[str, Any]]:
    """The file in int8 and what it loses; the recurrence stays in float32 where it loses too much on validation."""
    known = records.get("validation") or records["test"]
    floats: tuple[str, ...] = ("head",)
    watch("scoring", 0, 4)
    small = quantise(made, run, model, records["train"], floats)
    most = (1 + MOST_LOST) * _held_out(made, run, model, known)
    watch("scoring", 1, 4)
    if _held_out(small, run, model, known) > most:
        watch("scoring", 2, 4)
        floats = ("core", "head")
        small = quantise(made, run, model, records["train"], floats)
    error = _held_out(made, run, model, records["test"])
    watch("scoring", 3, 4)
    int8_error = _held_out(small, run, model, records["test"])
    watch("scoring", 4, 4)
    measure = "nats" if isinstance(model.head, ClassificationHead) else f"RMSE of {model.head.targets[0]}"
    return small, {"error": error, "int8_error": int8_error, "measure": measure, "floats": floats}


def quantise(made: bytes, run: Run, model: Model, records: Sequence[Record], floats: tuple[str, ...]) -> bytes:
    """Convolutions and products in int8, but those of the parts `floats`; ranges are those that training data shows.

    The head's is best among those: it is small, and its rounding goes straight into the prediction.
    """
    import onnx
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self):
            carried = Carried(made, model.initial(1))
            # From all records alike: each gives a stretch of its own, the state carried on.
            each = -(-CALIBRATION // len(records))
            rows = (raw for record in records[:CALIBRATION] for raw in islice(raw_values(run, record), each))
            self.rows = ((carried.inputs(raw[None]), carried.step(raw[None]))[0] for raw in rows)

        def get_next(self):  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self.rows, None)

    whole = onnx.load_from_string(made)
    left = [node.name for node in whole.graph.node if node.name.startswith(floats)]
    with tempfile.TemporaryDirectory() as place, _quiet():
        file = Path(place) / MODEL
        q.quantize_static(
            onnx.load_from_string(made), file, Reader(), op_types_to_quantize=["Conv", "Gemm"], nodes_to_exclude=left,
            per_channel=True, activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8,
        )  # fmt: skip
        small = onnx.load(file)
    del small.metadata_props[:]  # The quantiser adds a line of its own, which is no JSON.
    small.metadata_props.extend(whole.metadata_props)
    return small.SerializeToString()


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser warns of what would make no difference here: there is nothing to infer or to fuse."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _held_out(made: bytes, run: Run, model: Model, records: Sequence[Record]) -> float:
    """Error of a graph on records, each from a zero state: root of the mean square, or nats for classes."""
    total, count = 0.0, 0
    for example, record in zip(run.recipe.examples(model, records), records, strict=True):
        carried = Carried(made, model.initial(1))
        out = [carried.step(raw[None]) for raw in raw_values(run, record)]
        y = torch.from_numpy(np.atleast_2d(example.y))
        if isinstance(model.head, ClassificationHead):
            logits = torch.from_numpy(np.concatenate([o["logits"] for o in out[-len(y) :]]))
            labels = torch.from_numpy(model.head.labels(y.numpy())[:, 0])
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        else:
            said = torch.from_numpy(np.concatenate([o["prediction"] for o in out[-len(y) :]]))
            losses = ((said - y)[:, 0]) ** 2  # The first target is the one that is scored.
        total, count = total + losses.double().sum().item(), count + len(losses)
    mean = total / count
    return mean if isinstance(model.head, ClassificationHead) else mean**0.5


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """The whole folder or none of it."""
    part, old = (folder.with_name(f"{folder.name}.{what}") for what in ("part", "old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name, data in files.items():
            write_file(part / name, data)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
        sync_folder(folder.parent)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
