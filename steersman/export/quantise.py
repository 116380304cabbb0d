"""Graphs in int8, and what that loses."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ..data.records import Record
from ..json_types import JsonObject
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..progress import Watch
from ..training.recipe import Parts
from ..training.run import Run
from .runtime import MODEL, Carried, raw_values

CALIBRATION = 300
"""Steps of the training data that ranges are taken from."""


MOST_LOST = 0.02
"""Share of the error on validation records by which int8 may be worse before the recurrence stays in float32."""


def _quantised(made: bytes, run: Run, model: Model, records: Parts, watch: Watch) -> tuple[bytes, JsonObject]:
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
    measure = "nats" if model.head.classes else f"RMSE of {model.head.targets[0]}"
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
    del small.metadata_props[:]  # The quantiser adds a line of its own, which is not JSON.
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
    total, count, head = 0.0, 0, model.head
    for example, record in zip(run.recipe.examples(model, records), records, strict=True):
        carried = Carried(made, model.initial(1))
        out = [carried.step(raw[None]) for raw in raw_values(run, record)]
        y = torch.from_numpy(np.atleast_2d(example.y))
        if tells_classes(head):
            logits = torch.from_numpy(np.concatenate([o["logits"] for o in out[-len(y) :]]))
            labels = torch.from_numpy(head.labels(y.numpy())[:, 0]).long()
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        else:
            said = torch.from_numpy(np.concatenate([o["prediction"] for o in out[-len(y) :]]))
            losses = ((said - y)[:, 0]) ** 2  # The first target is the one that is scored.
        total, count = total + losses.double().sum().item(), count + len(losses)
    mean = total / count
    return mean if model.head.classes else mean**0.5
