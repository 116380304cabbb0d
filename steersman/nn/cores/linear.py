"""Cores whose state goes on linearly: minGRU, minLSTM and the linear recurrent unit."""

from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from ..forms import Graph, native_form, onnx_form
from ..kernels.reference import positive
from .contract import Core, CoreSpec, State, there


@dataclass(frozen=True)
class MinGRU(CoreSpec):
    """A GRU whose gate sees the input alone: h = (1 - z) h + z g(V x) (Feng et al. 2024)."""

    hidden: int = 128
    """Units of the state."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "MinGRUCore":
        return MinGRUCore(features, self.hidden)


class MinCore(Core):
    """Gates and candidate from the input alone, by one linear map that starts as torch's do."""

    STATE = ("h",)

    def __init__(self, features: int, hidden: int, parts: int):
        super().__init__()
        self.features, self.size = features, hidden
        self.linear = nn.Linear(features, parts * hidden)

    def initial(self, batch: int) -> State:
        return (self.linear.weight.new_zeros(batch, self.size),)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return kernels.linear(x, self.linear.weight, self.linear.bias).split(self.size, 2)


class MinGRUCore(MinCore):
    def __init__(self, features: int, hidden: int):
        super().__init__(features, hidden, parts=2)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        gate, candidate = self.parts(x)
        y, h = kernels.min_gru(gate, candidate, state[0], lengths)
        return y, (h,)

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        update, candidate = self.parts(x)
        return {"update": torch.sigmoid(update), "candidate": positive(candidate)}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return 1 - gates["update"], gates["update"]


@native_form(MinGRUCore)
def _min_gru_layer(core: MinGRUCore, half: bool) -> object:
    return kernels.native.min_gru_layer(half, core.linear.weight, core.linear.bias)


@onnx_form(MinGRUCore)
def _min_gru_graph(graph: Graph, core: MinGRUCore, x: str, state: tuple) -> tuple[str, tuple]:
    gate, candidate = graph.split(graph.linear(x, core.linear.weight, core.linear.bias), 2)
    h = graph.mix(graph.op("Sigmoid", gate), _positive(graph, candidate), state[0])
    return h, (h,)


@dataclass(frozen=True)
class MinLSTM(CoreSpec):
    """An LSTM whose gates see the input alone and share out the state between them (Feng et al. 2024)."""

    hidden: int = 128
    """Units of the state."""
    forget_bias: float = 1.0
    """First value of the forget gate's bias."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "MinLSTMCore":
        return MinLSTMCore(features, self.hidden, self.forget_bias)


class MinLSTMCore(MinCore):
    def __init__(self, features: int, hidden: int, forget_bias: float):
        super().__init__(features, hidden, parts=3)
        with torch.no_grad():
            self.linear.bias[:hidden] = forget_bias

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        forget, take, candidate = self.parts(x)
        share = _share(forget, take)
        y, h = kernels.scan(share, (1 - share) * positive(candidate), state[0], lengths)
        return y, (h,)

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """Gates as they are used: divided by their sum."""
        forget, take, candidate = self.parts(x)
        share = _share(forget, take)
        return {"input": 1 - share, "forget": share, "candidate": positive(candidate)}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return gates["forget"], gates["input"]


def _share(forget: Tensor, take: Tensor) -> Tensor:
    """f / (f + i) of two sigmoids, without dividing zero by zero."""
    return torch.sigmoid(F.softplus(-take) - F.softplus(-forget))


@native_form(MinLSTMCore)
def _min_lstm_layer(core: MinLSTMCore, half: bool) -> object:
    return kernels.native.min_lstm_layer(half, core.linear.weight, core.linear.bias)


@onnx_form(MinLSTMCore)
def _min_lstm_graph(graph: Graph, core: MinLSTMCore, x: str, state: tuple) -> tuple[str, tuple]:
    forget, take, candidate = graph.split(graph.linear(x, core.linear.weight, core.linear.bias), 3)
    take, forget = (graph.op("Softplus", graph.op("Neg", gate)) for gate in (take, forget))
    share = graph.op("Sigmoid", graph.op("Sub", take, forget))
    h = graph.mix(share, state[0], _positive(graph, candidate))
    return h, (h,)


def _positive(graph: Graph, x: str) -> str:
    above = graph.op("GreaterOrEqual", x, np.float32(0))
    return graph.op("Where", above, graph.op("Add", x, np.float32(0.5)), graph.op("Sigmoid", x))


@dataclass(frozen=True)
class LRU(CoreSpec):
    """Linear recurrent unit: h = lambda h + gamma B x with a complex diagonal lambda, y = Re(C h) + D x.

    Orvieto et al. 2023; lambda starts in a ring of the unit disk (their lemma 3.2), gamma at sqrt(1 - |lambda|^2).
    """

    hidden: int = 128
    """Complex units of the state."""
    out: int = 0
    """Units of the output; 0: as many as `hidden`."""
    smallest: float = 0.9
    """Least |lambda| at the start."""
    largest: float = 0.999
    """Greatest |lambda| at the start."""
    most_phase_rad: float = 6.283185307179586
    """Greatest phase at the start."""

    BOUNDS = {"hidden": (1, inf), "out": (0, inf), "smallest": (0, 1), "largest": (0, 1), "most_phase_rad": (0, 7)}

    def build(self, features: int) -> "LRUCore":
        return LRUCore(self, features)


class LRUCore(Core):
    STATE = ("h",)

    def __init__(self, spec: LRU, features: int):
        super().__init__()
        self.features, self.hidden, self.size = features, spec.hidden, spec.out or spec.hidden
        u, v = torch.rand(2, spec.hidden)
        low, high = spec.smallest**2, spec.largest**2
        self.decay = nn.Parameter((-0.5 * (u * (high - low) + low).log()).log())
        self.phase = nn.Parameter((spec.most_phase_rad * v).clamp_min(1e-8).log())
        self.scale = nn.Parameter(0.5 * (-torch.expm1(-2 * self.decay.detach().exp())).log())
        self.into = nn.Parameter(torch.randn(2 * spec.hidden, features) / sqrt(2 * features))
        self.out_of = nn.Parameter(torch.randn(self.size, 2 * spec.hidden) / sqrt(spec.hidden))
        self.past = nn.Parameter(torch.randn(self.size, features) / sqrt(features))

    def initial(self, batch: int) -> State:
        return (self.into.new_zeros(batch, 2 * self.hidden),)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        """The state is real parts, then imaginary ones."""
        drive = F.linear(x, self.into * self.scale.exp().repeat(2).unsqueeze(1)).to(self.into.dtype)
        size, angle = torch.exp(-self.decay.exp()), self.phase.exp()
        rotation = torch.stack((size * angle.cos(), size * angle.sin()))
        with torch.autocast(x.device.type, enabled=False):
            h, last = kernels.rotate(rotation, drive, state[0], lengths)
        y = F.linear(h, self.out_of) + F.linear(x, self.past)
        return torch.where(there(lengths, x.shape[1]), y, 0.0), (last,)


@native_form(LRUCore)
def _lru_layer(core: LRUCore, half: bool) -> object:
    size, angle = torch.exp(-core.decay.exp()), core.phase.exp()
    rotation = torch.stack((size * angle.cos(), size * angle.sin()))
    return kernels.native.lru_layer(half, core.into, core.scale.exp(), rotation, core.out_of, core.past)


@onnx_form(LRUCore)
def _lru_graph(graph: Graph, core: LRUCore, x: str, state: tuple) -> tuple[str, tuple]:
    drive = graph.linear(x, core.into * core.scale.exp().repeat(2).unsqueeze(1))
    size, angle = torch.exp(-core.decay.exp()), core.phase.exp()
    real, imaginary = size * angle.cos(), size * angle.sin()
    a, b = graph.split(state[0], 2)
    along = graph.op("Mul", state[0], torch.cat((real, real)))
    across = graph.op("Mul", graph.op("Concat", b, a, axis=1), torch.cat((-imaginary, imaginary)))
    h = graph.total(along, across, drive)
    return graph.joined(x, h, core.past, core.out_of), (h,)
