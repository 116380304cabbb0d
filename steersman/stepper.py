"""A trained core one step at a time: weights packed once, nothing allocated by a step, no torch needed to call it."""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from . import kernels
from .cores import Core, GRUCore, LSTMCore, MemorylessCore, RNNCore, StackCore, map_state, state_tensors


class Stepper:
    """The streaming form of RNN, GRU, LSTM with any of its options, and stacks of them.

    Weights are kept in float32, or in bfloat16 (half the memory to read, arithmetic in float32). `session()` begins
    another sequence with the same weights and a state of its own; a Stepper is itself a first one. Without the
    compiled kernels it steps through the core, with the same numbers.
    ValueError for a core that is not causal or has no such form.
    """

    def __init__(self, core: Core, weights: Literal["float32", "bfloat16"] = "float32"):
        if weights not in ("float32", "bfloat16"):
            raise ValueError(f"weights: expected float32 or bfloat16, got {weights!r}")
        if not core.causal:
            raise ValueError(f"{type(core).__name__} is not causal: it reads a sequence from its end, so it can't step")
        self.core, self.weights = core, weights
        layers = list(core.cores) if isinstance(core, StackCore) else [core]
        if isinstance(core, StackCore) and core.residual:
            raise ValueError("Stepper: a residual stack has no streaming form here; use core.step")
        self._layers = [layer for layer in layers if not isinstance(layer, MemorylessCore)]
        for layer in self._layers:
            if not isinstance(layer, RNNCore | GRUCore | LSTMCore):
                raise ValueError(f"Stepper: {type(layer).__name__} has no streaming form here; use core.step")
        if not self._layers:
            raise ValueError("Stepper: a core without memory has nothing to step")
        self._steps = self._packed() if kernels.native else None
        self._session = self.session()
        self.step = self._session.step
        """One step: `x` a contiguous float32 row; the row that comes back is overwritten by the next step."""
        self.reset = self._session.reset
        """Begins the sequence anew."""

    def session(self) -> Any:
        """Another sequence: `step(x)`, `reset()`, and its `state` as bytes, to be kept and put back."""
        return kernels.native.Session(self._steps) if self._steps else _TorchSession(self.core, self.weights)

    @torch.no_grad()
    def _packed(self) -> Any:
        steps = kernels.native.Steps(self.weights == "bfloat16")
        for core in self._layers:
            given = {name: p.detach().float().cpu().contiguous() for name, p in core.named_parameters()}
            both = given["bias_ih"] + given["bias_hh"]
            if isinstance(core, RNNCore):
                relu = core.spec.nonlinearity == "relu"
                steps.add_rnn(given["weight_ih"], both, given["weight_hh"], relu)
            elif isinstance(core, GRUCore):
                after = core.spec.reset == "after"
                steps.add_gru(given["weight_ih"], given["bias_ih"], given["weight_hh"], given["bias_hh"], after)
            else:
                names = ("input_gain", "projection", "peepholes", "gain", "cell_gain", "cell_bias")
                options = [given.get(name) for name in names]
                steps.add_lstm(given["weight_ih"], both, given["weight_hh"], *options, LSTMCore.EPSILON)
        return steps


class _TorchSession:
    """What a session is where the kernels were not built."""

    def __init__(self, core: Core, weights: str):
        # Rounded as the kernels round them; the arithmetic stays in float32.
        products = ("weight_ih", "weight_hh", "projection")
        kept = {}
        for name, p in core.named_parameters():
            half = weights == "bfloat16" and name.rpartition(".")[2] in products
            kept[name] = (p.detach().bfloat16() if half else p.detach()).float()
        self._core, self._weights = core, kept
        self.reset()

    def reset(self) -> None:
        self._state = map_state(torch.Tensor.float, self._core.initial(1))

    @torch.inference_mode()
    def step(self, x: Float[np.ndarray, "feature"]) -> Float[np.ndarray, "hidden"]:
        if x.dtype != np.float32 or x.shape != (self._core.features,):
            raise ValueError(f"x: expected {self._core.features} float32 numbers in one contiguous row")
        given = torch.as_tensor(x)[None, None]
        y, self._state = torch.func.functional_call(self._core, self._weights, (given, self._state))
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
