"""Graphs at work: onnxruntime, and the state that a graph carries."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..data.records import Record
from ..errors import UserError
from ..nn.cores import State, state_tensors
from ..training.run import Run
from .graph import after

STEPS, BATCHES, TOLERANCE = 200, (1, 3), 1e-4
"""What a file has to agree over before it is kept: so many carried steps, at each size of batch, to so much."""
MODEL, QUANTISED, RUNNER = "step.onnx", "step.int8.onnx", "run.py"


def runtime() -> ModuleType:
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
    name, shape = run.steps.inputs, run.raw
    values = run.steps.seen(record, answers=False)[name].values
    shape = shape[name] if isinstance(shape, dict) else shape
    for start in range(0, len(values), 64):  # Frames are decoded when asked for.
        for step in np.asarray(values[start : start + 64]):
            step = np.reshape(step, shape)
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
