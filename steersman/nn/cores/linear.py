"""Cores whose state goes on linearly: minGRU, minLSTM and the linear recurrent unit."""

from dataclasses import dataclass
from math import inf, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from .contract import Core, CoreSpec, State, _there


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


@dataclass(frozen=True)
class MinLSTM(CoreSpec):
    """An LSTM whose gates see the input alone and share out the state between them (Feng et al. 2024)."""

    hidden: int = 128
    """Units of the state."""
    forget_bias: float = 1.0
    """What the forget gate's bias starts at."""

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
        # f / (f + i) of two sigmoids, without dividing nought by nought.
        share = torch.sigmoid(F.softplus(-take) - F.softplus(-forget))
        y, h = kernels.scan(share, (1 - share) * kernels.twins.positive(candidate), state[0], lengths)
        return y, (h,)


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
        return torch.where(_there(lengths, x.shape[1]), y, 0.0), (last,)
