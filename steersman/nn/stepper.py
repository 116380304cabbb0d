"""A trained core one step at a time: weights packed once, nothing allocated by a step, no torch needed to call it."""

from copy import deepcopy
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from . import kernels
from .cores import (
    CfCCore,
    Core,
    GRUCore,
    LRUCore,
    LSTMCore,
    MemorylessCore,
    MinGRUCore,
    MinLSTMCore,
    RNNCore,
    StackCore,
    ZoneoutCore,
    map_state,
    state_tensors,
)


class Stepper:
    """The streaming form of every causal core, as it is at evaluation.

    Weights are kept in float32, or in bfloat16 (half the memory to read, arithmetic in float32; biases stay as they
    are). `session()` begins another sequence with the same weights and a state of its own; a Stepper is itself a first
    one. Without the compiled kernels it steps through a copy of the core, with the same numbers.
    ValueError for a core that is not causal, remembers nothing, or is of a kind that is not in `steersman.nn.cores`.
    """

    def __init__(self, core: Core, weights: Literal["float32", "bfloat16"] = "float32"):
        if weights not in ("float32", "bfloat16"):
            raise ValueError(f"weights: expected float32 or bfloat16, got {weights!r}")
        if not core.causal:
            raise ValueError(f"{type(core).__name__} is not causal: it reads a sequence from its end, so it can't step")
        for part in core.modules():
            if isinstance(part, Core) and type(part) not in _LAYERS:
                raise ValueError(f"Stepper: {type(part).__name__} has no streaming form here; use core.step")
        if not state_tensors(core.initial(1)):
            raise ValueError("Stepper: a core without memory has nothing to step")
        self.core, self.weights = core, weights
        native, half = kernels.native, weights == "bfloat16"
        kept = _kept(core, half)
        self._begin = partial(native.Session, _layer(kept, half)) if native else partial(_TorchSession, kept)
        self._session = self.session()
        self.step = self._session.step
        """One step: `x` a contiguous float32 row; the row that comes back is overwritten by the next step."""
        self.reset = self._session.reset
        """Begins the sequence anew."""

    def session(self) -> Any:
        """Another sequence: `step(x)`, `reset()`, and its `state` as bytes, to be kept and put back."""
        return self._begin()


def _kept(core: Core, half: bool) -> Core:
    """A copy that later training does not change, in float32; what is kept in bfloat16 is rounded already."""
    copy = deepcopy(core).cpu().float().eval().requires_grad_(False)
    for name, p in copy.named_parameters():
        p.data = p.bfloat16().float() if half and name.rpartition(".")[2] in _PRODUCTS else p.contiguous()
    return copy


_PRODUCTS = ("weight_ih", "weight_hh", "projection", "weight", "into", "out_of", "past")
"""Names of the weights that take part in matrix products."""


def _layer(core: Any, half: bool) -> Any:
    return _LAYERS[type(core)](core, half)


def _rnn(core: RNNCore, half: bool) -> Any:
    relu = core.spec.nonlinearity == "relu"
    return kernels.native.rnn_layer(half, core.weight_ih, core.bias_ih + core.bias_hh, core.weight_hh, relu)


def _gru(core: GRUCore, half: bool) -> Any:
    after = core.spec.reset == "after"
    return kernels.native.gru_layer(half, core.weight_ih, core.bias_ih, core.weight_hh, core.bias_hh, after)


def _lstm(core: LSTMCore, half: bool) -> Any:
    weights = core.weight_ih, core.bias_ih + core.bias_hh, core.weight_hh
    options = core.input_gain, core.projection, core.peepholes, core.gain, core.cell_gain, core.cell_bias
    return kernels.native.lstm_layer(half, *weights, *options, core.EPSILON)


def _min_gru(core: MinGRUCore, half: bool) -> Any:
    return kernels.native.min_gru_layer(half, core.linear.weight, core.linear.bias)


def _min_lstm(core: MinLSTMCore, half: bool) -> Any:
    return kernels.native.min_lstm_layer(half, core.linear.weight, core.linear.bias)


def _lru(core: LRUCore, half: bool) -> Any:
    size, angle = torch.exp(-core.decay.exp()), core.phase.exp()
    rotation = torch.stack((size * angle.cos(), size * angle.sin()))
    return kernels.native.lru_layer(half, core.into, core.scale.exp(), rotation, core.out_of, core.past)


def _cfc(core: CfCCore, half: bool) -> Any:
    weights = core.shared.weight, core.shared.bias, core.heads.weight, core.heads.bias
    return kernels.native.cfc_layer(half, *weights, core.spec.elapsed)


def _memoryless(core: MemorylessCore, half: bool) -> Any:
    return kernels.native.memoryless_layer(core.features)


def _zoneout(core: ZoneoutCore, half: bool) -> Any:
    return kernels.native.zoneout_layer(_layer(core.core, half), core.share)


def _stack(core: StackCore, half: bool) -> Any:
    layers = []
    for part in core.cores:
        layer = _layer(part, half)
        adds = core.residual and layer.features == layer.out
        layers.append(kernels.native.residual_layer(layer) if adds else layer)
    return kernels.native.stack_layer(layers)


_LAYERS: dict[type, Any] = {
    RNNCore: _rnn,
    GRUCore: _gru,
    LSTMCore: _lstm,
    MinGRUCore: _min_gru,
    MinLSTMCore: _min_lstm,
    LRUCore: _lru,
    CfCCore: _cfc,
    MemorylessCore: _memoryless,
    ZoneoutCore: _zoneout,
    StackCore: _stack,
}
"""What packs the weights of each kind of core."""


class _TorchSession:
    """What a session is where the kernels were not built."""

    def __init__(self, core: Core):
        self._core = core
        self.reset()

    def reset(self) -> None:
        self._state = self._core.initial(1)

    @torch.inference_mode()
    def step(self, x: Float[np.ndarray, "feature"]) -> Float[np.ndarray, "hidden"]:
        if x.dtype != np.float32 or x.shape != (self._core.features,):
            raise ValueError(f"x: expected {self._core.features} float32 numbers in one contiguous row")
        y, self._state = self._core(torch.as_tensor(x)[None, None], self._state)
        return y[0, 0].numpy()

    @property
    def state(self) -> bytes:
        return b"".join(t.contiguous().numpy().tobytes() for t in state_tensors(self._state))

    @state.setter
    def state(self, value: bytes) -> None:
        sizes = [t.numel() for t in state_tensors(self._state)]
        if len(value) != 4 * sum(sizes):
            raise ValueError("state: of another core")
        parts = iter(torch.frombuffer(bytearray(value), dtype=torch.float32).split(sizes))
        self._state = map_state(lambda t: next(parts).view_as(t).clone(), self._state)
