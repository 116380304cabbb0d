"""A trained core one step at a time: weights packed once, nothing allocated by a step, no torch needed to call it."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float

from . import kernels
from .cores import Core, map_state, state_tensors
from .forms import NoForm, native_form, overridden, row_form
from .model import Model


class Session(Protocol):
    """A sequence that is stepped through."""

    @property
    def state(self) -> bytes: ...
    @state.setter
    def state(self, value: bytes) -> None: ...
    def step(self, x: Float[np.ndarray, "feature"]) -> Float[np.ndarray, "hidden"]: ...
    def reset(self) -> None: ...


class Stepper:
    """The streaming form of every causal core, as it is at evaluation.

    Weights are kept in float32, or in bfloat16 (half the memory to read, arithmetic in float32; biases stay as they
    are). `session()` begins another sequence with the same weights and a state of its own; a Stepper is itself a first
    one. A core that has no compiled form (`forms.native_form`), and all cores where the kernels were not built, step
    in PyTorch through a copy of the core. ValueError for a core that is not causal or remembers nothing.
    """

    def __init__(self, core: Core, weights: Literal["float32", "bfloat16"] = "float32"):
        if weights not in ("float32", "bfloat16"):
            raise ValueError(f"weights: expected float32 or bfloat16, got {weights!r}")
        if not core.causal:
            raise ValueError(f"{type(core).__name__} is not causal: it reads a sequence from its end, so it can't step")
        if not core.remembers:
            raise ValueError("Stepper: a core without memory has nothing to step")
        self.core, self.weights = core, weights
        half = weights == "bfloat16"
        kept = _kept(core, half)
        layer = _compiled(kept, half) if kernels.native else None
        self.compiled = layer is not None
        """Whether steps are the kernels', not PyTorch's."""
        self._begin = partial(kernels.native.Session, layer) if self.compiled else partial(_TorchSession, kept)
        self._session = self.session()
        self.step = self._session.step
        """One step: `x` a contiguous float32 row; the row that comes back is overwritten by the next step."""
        self.reset = self._session.reset
        """Begins the sequence anew."""

    def session(self) -> Session:
        """Another sequence: `step(x)`, `reset()`, and its `state` as bytes, to be kept and put back."""
        return self._begin()


def whole_layer(model: Model) -> object | None:
    """Encoder, core and head of a model of numbers as one layer of the kernels; None where there is no such form."""
    if kernels.native is None or model.skip or not model.causal or overridden(type(model), Model):
        return None
    try:
        encoder, head = (native_form.of(part)(part) for part in (model.encoder, model.head))
    except NoForm:
        return None
    core = _compiled(_kept(model.core, False), False) if model.core.remembers else None
    return core and kernels.native.stack_layer([encoder, core, head])


class RowStepper:
    """A model of numbers a row at a time without PyTorch, for any number of sequences with the same weights.

    NoForm where its encoder has no form in NumPy, or it does more with a step than encode it and run its core.
    """

    def __init__(self, model: Model):
        if changed := overridden(type(model), Model):
            raise NoForm(f"{type(model).__name__} can't be stepped without PyTorch: its `{changed[0]}` is its own")
        self._encoder, self._skip, self._form = model.encoder, model.skip, row_form.of(model.encoder)
        self._form(model.encoder)  # Of a part that has none it is known now.
        self._stepper = Stepper(model.core)

    def session(self) -> Callable[[Any, float], Float[np.ndarray, "feature"]]:
        """Another sequence: `step(row, elapsed_s)` gives what the head reads, overwritten by the next step.

        A row is an array of float32, NaN where a number is missing; of several inputs a dict of them.
        """
        encode, core, skip = self._form(self._encoder), self._stepper.session(), self._skip
        x = np.zeros(self._encoder.size, np.float32)

        def step(row: Any, elapsed_s: float) -> np.ndarray:
            encode(row, elapsed_s, x)
            y = core.step(x)
            return np.concatenate((y, x)) if skip else y

        return step


def _kept(core: Core, half: bool) -> Core:
    """A copy that later training does not change, in float32; what is kept in bfloat16 is rounded already."""
    copy = deepcopy(core).cpu().float().eval().requires_grad_(False)
    for name, p in copy.named_parameters():
        p.data = p.bfloat16().float() if half and name.rpartition(".")[2] in _PRODUCTS else p.contiguous()
    return copy


_PRODUCTS = ("weight_ih", "weight_hh", "projection", "weight", "into", "out_of", "past")
"""Names of the weights that take part in matrix products."""


def _compiled(core: Core, half: bool) -> object:
    """A layer of the kernels, or None where the core, or one inside it, has no such form."""
    try:
        return native_form.of(core)(core, half)
    except NoForm:
        return None


class _TorchSession:
    """A session of a core without a compiled form."""

    def __init__(self, core: Core):
        self._core = core
        self.reset()

    def reset(self) -> None:
        self._state = self._core.initial(1)

    @torch.inference_mode()
    def step(self, x: Float[np.ndarray, "feature"]) -> Float[np.ndarray, "hidden"]:
        if x.dtype != np.float32 or x.shape != (self._core.features,):
            raise ValueError(f"x: expected {self._core.features} float32 numbers in one contiguous row")
        y, self._state = self._core.step(torch.as_tensor(x)[None], self._state)
        return y[0].numpy()

    @property
    def state(self) -> bytes:
        return b"".join(t.contiguous().numpy().tobytes() for t in state_tensors(self._state))

    @state.setter
    def state(self, value: bytes) -> None:
        parts, begin = [], 0
        for t in state_tensors(self._state):
            end = begin + t.nbytes
            parts.append(np.frombuffer(value[begin:end].ljust(t.nbytes, b"\0"), t.numpy().dtype).reshape(t.shape))
            begin = end
        if len(value) != begin:
            raise ValueError("state: of another core")
        rows = iter(parts)
        self._state = map_state(lambda _: torch.tensor(next(rows)), self._state)
