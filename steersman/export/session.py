"""A model live, one raw step at a time: the weights once, any number of sequences, each with a state of its own."""

from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..nn import kernels
from ..nn.cores import state_tensors
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..nn.stepper import whole_layer
from .graph import after, state_names, step_graph
from .runtime import runtime, session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class Stepping:
    """A model of numbers in the kernels, any other as the graph that `steersman export` writes, its memory bound once.

    A Stepping is itself a first sequence. `made` is a file of an export, such as the one in int8, which is stepped as
    it is. UserError where the model can't be stepped, or needs onnxruntime and that is not installed.
    """

    def __init__(self, model: Model, made: bytes | None = None, threads: int = 1):
        self.model = model
        layer = None if made else whole_layer(model)
        if layer is not None:
            self._begin = partial(NativeSession, model, layer)
        else:
            ort = runtime()
            graph = session(made or step_graph(model).SerializeToString(), threads)
            self._begin = partial(Session, model, graph, ort)
        self._first = self.session()
        self.step, self.reset = self._first.step, self._first.reset

    def session(self) -> "Session | NativeSession":
        """Another sequence, from its beginning. Sessions may step at the same time, each in its own thread."""
        return self._begin()


class NativeSession:
    """One sequence of a model of numbers, each step a single call of the kernels."""

    def __init__(self, model: Model, layer: object):
        self._model, self._session = model, kernels.native.Session(layer)
        self._step, self.reset = self._session.step, self._session.reset
        self._shape, self._targets = model.encoder.raw, model.head.targets
        self._tells_classes = tells_classes(model.head)
        self._tensors = [t.numpy() for t in state_tensors(model.initial(1))]
        self._places = self._session.places()

    @property
    def state(self) -> list[np.ndarray]:
        """State to keep and put back: this model's, or that of one of the same form with other weights."""
        floats = np.frombuffer(self._session.state, np.float32)
        pairs = zip(self._places, self._tensors, strict=True)
        return [floats[at : at + t.size].reshape(t.shape).copy() for at, t in pairs]

    @state.setter
    def state(self, value: list[np.ndarray]) -> None:
        floats = np.frombuffer(self._session.state, np.float32).copy()
        for at, mine, given in zip(self._places, self._tensors, value, strict=True):
            check_state(mine, given)
            floats[at : at + mine.size] = given.ravel()
        self._session.state = floats.tobytes()

    def step(self, frame: np.ndarray | Tensor) -> dict[str, float]:
        """The prediction by name, for one raw step. UserError where that is not what the model takes."""
        if type(frame) is np.ndarray and frame.dtype == np.float32 and frame.shape == self._shape:
            row = np.ascontiguousarray(frame)
        else:
            row = self._model.checked(frame).astype(np.float32)
        said = self._step(row)
        return dict(zip(self._targets, [int(said.argmax())] if self._tells_classes else said.tolist(), strict=True))


def check_state(mine: np.ndarray, given: np.ndarray) -> None:
    """ValueError where one part of a state is not of the shape of another."""
    if mine.shape != given.shape:
        raise ValueError(f"state: expected {mine.shape}, got {given.shape}: it is of another model")


class Session:
    """One sequence. Its state is written to and fro between two pieces of memory, so that a step allocates nothing."""

    def __init__(self, model: Model, graph: "InferenceSession", ort: ModuleType):
        self._model, self._graph = model, graph
        initial = model.initial(1)
        names, self._initial = state_names(initial), [t.numpy() for t in state_tensors(initial)]
        self._states = [[t.copy() for t in self._initial] for _ in range(2)]
        self._raw, *_ = graph.get_inputs()
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
        self._x = np.zeros((1, *model.encoder.raw), kinds[self._raw.type])
        prediction = graph.get_outputs()[0]
        self._y = np.zeros((1, len(model.head.targets)), kinds[prediction.type])
        kept = ort.OrtValue.ortvalue_from_numpy
        self._bound = []
        for old, new in (self._states, self._states[::-1]):
            bound = graph.io_binding()
            bound.bind_ortvalue_input(self._raw.name, kept(self._x))
            bound.bind_ortvalue_output(prediction.name, kept(self._y))
            for name, before, now in zip(names, old, new, strict=True):
                bound.bind_ortvalue_input(name, kept(before))
                bound.bind_ortvalue_output(after(name), kept(now))
            self._bound.append(bound)
        self._now = 0

    def reset(self) -> None:
        """Begins the sequence anew."""
        self.state = self._initial

    @property
    def state(self) -> list[np.ndarray]:
        """State to keep and put back: this model's, or that of one of the same form with other weights."""
        return [array.copy() for array in self._states[self._now]]

    @state.setter
    def state(self, value: list[np.ndarray]) -> None:
        for mine, given in zip(self._states[self._now], value, strict=True):
            check_state(mine, given)
            mine[:] = given

    def step(self, frame: np.ndarray | Tensor) -> dict[str, float]:
        """The prediction by name, for one raw step. UserError where that is not what the model takes."""
        self._x[0] = self._model.checked(frame)
        self._graph.run_with_iobinding(self._bound[self._now])
        self._now = 1 - self._now
        return dict(zip(self._model.head.targets, self._y[0].tolist(), strict=True))
