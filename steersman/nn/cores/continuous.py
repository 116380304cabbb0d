"""Cores in continuous time: closed-form continuous-time cells."""

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from ..forms import Graph, native_form, onnx_form
from ..kernels.reference import advance, stacked
from .contract import Core, CoreSpec, State


@dataclass(frozen=True)
class CfC(CoreSpec):
    """Closed-form continuous-time cell (Hasani et al. 2022, equation 10): its gate turns with the time elapsed."""

    hidden: int = 64
    """Units of the state."""
    backbone: int = 128
    """Units of the layer that input and state share."""
    elapsed: bool = False
    """Whether the last feature of the input is the time since the sample before; otherwise each step takes 1."""

    BOUNDS = {"hidden": (1, inf), "backbone": (1, inf)}

    def build(self, features: int) -> "CfCCore":
        return CfCCore(self, features)


class CfCCore(Core):
    STATE = ("h",)

    def __init__(self, spec: CfC, features: int):
        super().__init__()
        self.spec, self.features, self.size = spec, features, spec.hidden
        self.shared = nn.Linear(features - spec.elapsed + spec.hidden, spec.backbone)
        self.heads = nn.Linear(spec.backbone, 4 * spec.hidden)

    def initial(self, batch: int) -> State:
        return (self.shared.weight.new_zeros(batch, self.size),)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        h, shown = state[0], []
        x, elapsed = self._timed(x)
        from_x = F.linear(x, self.shared.weight[:, : x.shape[2]], self.shared.bias)
        for t in range(x.shape[1]):
            first, second, gate = self._turned(from_x[:, t], h, elapsed[:, t])
            h, y = advance(lengths, t, (first * (1 - gate) + second * gate).to(h.dtype), h)
            shown.append(y)
        return stacked(shown, h), (h,)

    def step_gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """How far the time that has passed has turned from the first head to the second."""
        x, elapsed = self._timed(x)
        from_x = F.linear(x, self.shared.weight[:, : x.shape[1]], self.shared.bias)
        return {"time": self._turned(from_x, state[0], elapsed)[2]}

    def _timed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features and the time elapsed."""
        if self.spec.elapsed:
            return x[..., :-1], x[..., -1:]
        return x, x.new_ones(*x.shape[:-1], 1)

    def _turned(self, from_x: Tensor, h: Tensor, elapsed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The two heads and the gate between them."""
        shared = from_x + F.linear(h, self.shared.weight[:, -self.size :])
        first, second, rate, shift = self.heads(1.7159 * torch.tanh(0.666 * shared)).chunk(4, 1)
        return torch.tanh(first), torch.tanh(second), torch.sigmoid(rate * elapsed + shift)


@native_form(CfCCore)
def _cfc_layer(core: CfCCore, half: bool) -> object:
    weights = core.shared.weight, core.shared.bias, core.heads.weight, core.heads.bias
    return kernels.native.cfc_layer(half, *weights, core.spec.elapsed)


@onnx_form(CfCCore)
def _cfc_graph(graph: Graph, core: CfCCore, x: str, state: tuple) -> tuple[str, tuple]:
    width = core.features - core.spec.elapsed
    elapsed = None
    if core.spec.elapsed:
        elapsed = graph.op("Slice", x, np.array([width]), np.array([core.features]), np.array([1]))
        x = graph.op("Slice", x, np.array([0]), np.array([width]), np.array([1]))
    shared = graph.linear(graph.op("Concat", x, state[0], axis=1), core.shared.weight, core.shared.bias)
    shared = graph.op("Mul", graph.op("Tanh", graph.op("Mul", shared, np.float32(0.666))), np.float32(1.7159))
    a, b, rate, shift = graph.split(graph.linear(shared, core.heads.weight, core.heads.bias), 4)
    gate = graph.op("Sigmoid", graph.total(rate if elapsed is None else graph.op("Mul", rate, elapsed), shift))
    h = graph.mix(gate, graph.op("Tanh", b), graph.op("Tanh", a))
    return h, (h,)
