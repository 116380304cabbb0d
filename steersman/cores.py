"""The recurrence: `(x, state, lengths) -> (y, state)`, and one step of the same.

A state is a tensor with the batch first, or a (nested) tuple of states; `()` for what remembers nothing.
Batches may be ragged, in any order: beyond a row's own length the output is 0, and the state that comes out is that
of its own last step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from . import kernels
from .config import Spec
from .errors import UserError

State = Any


def map_state(function: Callable[..., Tensor], *states: State) -> State:
    """`function` on every tensor of one state, or on the corresponding tensors of several."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))


def state_tensors(state: State) -> list[Tensor]:
    """Its tensors in order."""
    return [state] if isinstance(state, Tensor) else [t for part in state for t in state_tensors(part)]


def detach(state: State) -> State:
    """The same values, cut from the graph: where truncated backpropagation through time ends."""
    return map_state(Tensor.detach, state)


def reset(state: State, initial: State, fresh: Bool[Tensor, "batch"]) -> State:
    """Rows that are `fresh` begin anew; the others go on."""

    def choose(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(fresh.view(-1, *[1] * (old.ndim - 1)), new, old)

    return map_state(choose, state, initial)


class NotFinite(ValueError):
    """The state holds NaN or infinity: it grew beyond all bounds, or what was read did."""


class Core(nn.Module):
    """What every recurrence offers; the state goes in and comes out, never stays."""

    causal = True
    features: int
    """Features of its input."""
    size: int
    """Features of its output."""

    def initial(self, batch: int) -> State:
        raise AssertionError(f"{type(self).__name__} has no initial state")

    def forward(
        self,
        x: Float[Tensor, "batch time feature"],
        state: State,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Outputs and the state after each row's last step; `lengths` of the rows, by default all of `time`.

        ValueError where an argument has another shape or type than the core takes, or the state is not finite.
        """
        return self.run(x, state, self._checked(x, state, lengths))

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        """What `forward` does with arguments that are sound."""
        raise AssertionError(f"{type(self).__name__} has no run")

    def step(self, x: Float[Tensor, "batch feature"], state: State) -> tuple[Float[Tensor, "batch hidden"], State]:
        """One step of `forward`. ValueError where the core is not causal: it would need what is to come."""
        if not self.causal:
            raise ValueError(f"{type(self).__name__} is not causal: it reads a sequence from its end, so it can't step")
        if x.ndim != 2:
            raise ValueError(f"x: expected (batch, {self.features}), got {tuple(x.shape)}")
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state

    def _checked(self, x: Tensor, state: State, lengths: Tensor | None) -> Tensor:
        """The lengths, once all of it is sound."""
        if x.ndim != 3 or x.shape[2] != self.features:
            raise ValueError(f"x: expected (batch, time, {self.features}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ValueError(f"x: expected floating point, got {x.dtype}")
        batch, time = x.shape[:2]
        weight = next(iter(self._parameters.values()), None)
        if weight is None:  # A core of other cores; this way is far slower.
            weight = next(self.parameters(), x)
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x: expected {weight.dtype}, as the weights are, got {x.dtype}")
        if not hasattr(self, "_one_row"):
            self._one_row = self.initial(1)  # Only its shapes are looked at.
        _check_state(state, self._one_row, batch, weight.dtype)
        if lengths is None:
            return torch.full((batch,), time, dtype=torch.int64, device=x.device)
        if not isinstance(lengths, Tensor):
            raise ValueError(f"lengths: expected a tensor of {batch} integers, got {type(lengths).__name__}")
        if lengths.shape != (batch,) or lengths.dtype not in _INTEGERS:
            raise ValueError(f"lengths: expected {batch} integers, got {lengths.dtype} of shape {tuple(lengths.shape)}")
        if batch and (int(lengths.min()) < 0 or int(lengths.max()) > time):
            raise ValueError(f"lengths: expected 0 to {time}, got {int(lengths.min())} to {int(lengths.max())}")
        return lengths.to(x.device, torch.int64)


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _check_state(state: State, like: State, batch: int, dtype: torch.dtype, where: str = "state") -> None:
    """`like` is the state of one row."""
    if isinstance(like, Tensor):
        if not isinstance(state, Tensor) or state.shape != (batch, *like.shape[1:]):
            found = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(f"{where}: expected a tensor {(batch, *like.shape[1:])}, got {found}")
        if like.is_floating_point() and state.dtype != dtype:
            raise ValueError(f"{where}: expected {dtype}, as the weights are, got {state.dtype}")
        # On a GPU the look would wait for it.
        if state.is_cpu and not kernels.finite(state):
            raise NotFinite(f"{where}: expected finite numbers, got NaN or infinity")
        return
    if not isinstance(state, tuple) or len(state) != len(like):
        found = f"{len(state)} parts" if isinstance(state, tuple) else type(state).__name__
        raise ValueError(f"{where}: expected {len(like)} parts, got {found}")
    for i, (part, model) in enumerate(zip(state, like, strict=True)):
        _check_state(part, model, batch, dtype, f"{where}[{i}]")


def _there(lengths: Tensor, time: int) -> Bool[Tensor, "batch time 1"]:
    """Which steps are no padding."""
    return (torch.arange(time, device=lengths.device) < lengths.unsqueeze(1)).unsqueeze(2)


@dataclass(frozen=True)
class Memoryless(Spec):
    """No recurrence: every step on its own, one to one."""

    def build(self, features: int) -> "MemorylessCore":
        return MemorylessCore(features)


class MemorylessCore(Core):
    def __init__(self, features: int):
        super().__init__()
        self.features = self.size = features

    def initial(self, batch: int) -> State:
        return ()

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        return torch.where(_there(lengths, x.shape[1]), x, 0.0), state


class Cell(Core):
    """A core with weights for the input and for its own state, named as in torch's layers.

    Input weights start uniform within 1 / sqrt(hidden), recurrent ones orthogonal, gate by gate (Saxe et al. 2014),
    biases at 0.
    """

    def __init__(self, features: int, hidden: int, gates: int, out: int = 0):
        """`out` is the width of what goes round, where it is not `hidden`."""
        super().__init__()
        self.features, self.hidden, self.size = features, hidden, out or hidden
        bound = 1 / sqrt(hidden)
        self.weight_ih = nn.Parameter(torch.empty(gates * hidden, features).uniform_(-bound, bound))
        self.weight_hh = nn.Parameter(torch.empty(gates * hidden, self.size))
        self.bias_ih = nn.Parameter(torch.zeros(gates * hidden))
        self.bias_hh = nn.Parameter(torch.zeros(gates * hidden))
        with torch.no_grad():
            for block in self.weight_hh.split(hidden):
                block.copy_(nn.init.orthogonal_(torch.empty_like(block)))

    def zeros(self, batch: int, width: int) -> Tensor:
        return self.weight_hh.new_zeros(batch, width)

    def initial(self, batch: int) -> State:
        return (self.zeros(batch, self.size),)


@dataclass(frozen=True)
class RNN(Spec):
    """h = tanh(W x + U h + b) (Elman 1990), or relu (Le et al. 2015)."""

    hidden: int = 128
    """Units of the state."""
    nonlinearity: Literal["tanh", "relu"] = "tanh"

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "RNNCore":
        return RNNCore(self, features)


class RNNCore(Cell):
    def __init__(self, spec: RNN, features: int):
        super().__init__(features, spec.hidden, gates=1)
        self.spec = spec

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih, self.bias_ih, self.weight_hh, self.bias_hh
        y, h = kernels.rnn_layer(x, *weights, state[0], lengths, self.spec.nonlinearity == "relu")
        return y, (h,)


@dataclass(frozen=True)
class GRU(Spec):
    """Gated recurrent unit (Cho et al. 2014)."""

    hidden: int = 128
    """Units of the state."""
    reset: Literal["after", "before"] = "after"
    """Where the reset gate acts: after the recurrent product, as in PyTorch and cuDNN, or before, as in the paper."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "GRUCore":
        return GRUCore(self, features)


class GRUCore(Cell):
    def __init__(self, spec: GRU, features: int):
        super().__init__(features, spec.hidden, gates=3)
        self.spec = spec

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih, self.bias_ih, self.weight_hh, self.bias_hh
        y, h = kernels.gru_layer(x, *weights, state[0], lengths, self.spec.reset == "after")
        return y, (h,)


@dataclass(frozen=True)
class LSTM(Spec):
    """Long short-term memory with forget gates (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""

    hidden: int = 128
    """Units of the cell."""
    forget_bias: float = 1.0
    """What the forget gate's bias starts at: above zero it remembers at first (Jozefowicz et al. 2015)."""
    peepholes: bool = False
    """The gates see the cell (Gers & Schmidhuber 2000)."""
    layer_norm: bool = False
    """Gates and cell are normalised over the units (Ba et al. 2016, equations 20 to 22)."""
    projection: int = 0
    """Units of the output, where it is narrower than the cell (Sak et al. 2014); 0: as wide."""
    longest: int = 0
    """Chrono initialisation for dependencies of up to so many steps (Tallec & Ollivier 2018), in place of
    `forget_bias`; 0: none."""
    weight_dropout: float = 0.0
    """Share of the recurrent weights dropped while training, the same at all steps of a call (Merity et al. 2018)."""

    BOUNDS = {"hidden": (1, inf), "projection": (0, inf), "longest": (0, inf), "weight_dropout": (0, 1)}

    def build(self, features: int) -> "LSTMCore":
        return LSTMCore(self, features)


class LSTMCore(Cell):
    EPSILON = 1e-5

    def __init__(self, spec: LSTM, features: int):
        super().__init__(features, spec.hidden, gates=4, out=spec.projection)
        self.spec = spec
        hidden = spec.hidden
        self.projection = self.peepholes = self.input_gain = self.gain = self.cell_gain = self.cell_bias = None
        if spec.projection:
            bound = 1 / sqrt(hidden)
            self.projection = nn.Parameter(torch.empty(spec.projection, hidden).uniform_(-bound, bound))
        if spec.peepholes:
            self.peepholes = nn.Parameter(torch.zeros(3, hidden))
        if spec.layer_norm:
            self.input_gain, self.gain = (nn.Parameter(torch.ones(4 * hidden)) for _ in range(2))
            self.cell_gain, self.cell_bias = nn.Parameter(torch.ones(hidden)), nn.Parameter(torch.zeros(hidden))
        with torch.no_grad():
            i, f, _, _ = self.bias_ih.split(hidden)
            f.fill_(spec.forget_bias)
            if spec.longest:
                f.copy_(torch.empty(hidden).uniform_(1, max(2, spec.longest - 1)).log())
                i.copy_(-f)

    def initial(self, batch: int) -> State:
        return (self.zeros(batch, self.size), self.zeros(batch, self.hidden))

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        (h, c), normal = state, None
        if self.gain is not None:
            normal: Any = self.input_gain, self.gain, self.cell_gain, self.cell_bias
        recurrent = self.weight_hh
        if self.training and self.spec.weight_dropout:
            recurrent = F.dropout(recurrent, self.spec.weight_dropout)
        weights = self.weight_ih, self.bias_ih, recurrent, self.bias_hh
        options = self.projection, self.peepholes, normal, self.EPSILON
        y, h, c = kernels.lstm_layer(x, *weights, h, c, lengths, *options)
        return y, (h, c)


@dataclass(frozen=True)
class MinGRU(Spec):
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
class MinLSTM(Spec):
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
class LRU(Spec):
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


@dataclass(frozen=True)
class CfC(Spec):
    """Closed-form continuous-time cell (Hasani et al. 2022, equation 10): its gate turns with the time elapsed."""

    hidden: int = 64
    """Units of the state."""
    backbone: int = 128
    """Units of the layer that input and state share."""
    elapsed: bool = False
    """The last feature of the input is the time since the sample before; otherwise each step takes 1."""

    BOUNDS = {"hidden": (1, inf), "backbone": (1, inf)}

    def build(self, features: int) -> "CfCCore":
        return CfCCore(self, features)


class CfCCore(Core):
    def __init__(self, spec: CfC, features: int):
        super().__init__()
        self.spec, self.features, self.size = spec, features, spec.hidden
        self.shared = nn.Linear(features - spec.elapsed + spec.hidden, spec.backbone)
        self.heads = nn.Linear(spec.backbone, 4 * spec.hidden)

    def initial(self, batch: int) -> State:
        return (self.shared.weight.new_zeros(batch, self.size),)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        h, shown = state[0], []
        elapsed = x[..., -1:] if self.spec.elapsed else x.new_ones(*x.shape[:2], 1)
        x = x[..., :-1] if self.spec.elapsed else x
        from_x = F.linear(x, self.shared.weight[:, : x.shape[2]], self.shared.bias)
        for t in range(x.shape[1]):
            shared = from_x[:, t] + F.linear(h, self.shared.weight[:, x.shape[2] :])
            a, b, rate, shift = self.heads(1.7159 * torch.tanh(0.666 * shared)).chunk(4, 1)
            gate = torch.sigmoid(rate * elapsed[:, t] + shift)
            new = (torch.tanh(a) * (1 - gate) + torch.tanh(b) * gate).to(h.dtype)
            there = (lengths > t).unsqueeze(1)
            h = torch.where(there, new, h)
            shown.append(torch.where(there, new, 0.0))
        y = torch.stack(shown, 1) if shown else h.new_zeros(len(h), 0, self.size)
        return y, (h,)


@dataclass(frozen=True)
class Zoneout(Spec):
    """While training some units keep the state of the step before, at random (Krueger et al. 2017).

    Around a core whose output is the first tensor of its state: RNN, GRU, LSTM, MinGRU, MinLSTM, CfC.
    """

    core: Spec = LSTM()
    share: tuple[float, ...] = (0.05, 0.5)
    """Of units kept, for each tensor of the state; of an LSTM: output, cell."""

    BOUNDS = {"share": (0, 1)}

    def build(self, features: int) -> "ZoneoutCore":
        return ZoneoutCore(self.core.build(features), self.share)  # pyright: ignore[reportAttributeAccessIssue]


class ZoneoutCore(Core):
    def __init__(self, core: Core, share: tuple[float, ...]):
        super().__init__()
        self.core, self.share = core, share
        self.features, self.size, self.causal = core.features, core.size, core.causal
        parts = core.initial(1)
        shown = parts[0] if parts else None
        if not core.causal or not isinstance(shown, Tensor) or shown.shape != (1, core.size) or len(share) < len(parts):
            raise UserError("Zoneout: needs a core whose output is its state, and a share for each of its tensors")

    def initial(self, batch: int) -> State:
        return self.core.initial(batch)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        shown, one = [], torch.ones_like(lengths)
        for t in range(x.shape[1]):
            _, new = self.core.run(x[:, t : t + 1], state, one)
            there = (lengths > t).unsqueeze(1)
            new = tuple(self._kept(o, n, share) for o, n, share in zip(state, new, self.share, strict=False))
            state = tuple(torch.where(there, n, o) for o, n in zip(state, new, strict=True))
            shown.append(torch.where(there, new[0], 0.0))
        return torch.stack(shown, 1) if shown else x.new_zeros(len(x), 0, self.size), state

    def _kept(self, old: Tensor, new: Tensor, share: float) -> Tensor:
        if self.training:
            return torch.where(torch.rand_like(new) < share, old, new)
        return share * old + (1 - share) * new


@dataclass(frozen=True)
class Window(Spec):
    """A core that remembers the last steps only: it runs over them anew, from its first state, at every step."""

    core: Spec = LSTM()
    """What runs over them."""
    steps: int = 10
    """How many, the present one among them."""

    BOUNDS = {"steps": (1, inf)}

    def build(self, features: int) -> "WindowCore":
        return WindowCore(self, features)


class WindowCore(Core):
    def __init__(self, spec: Window, features: int):
        super().__init__()
        self.core: Core = spec.core.build(features)  # pyright: ignore[reportAttributeAccessIssue]
        if not self.core.causal:
            raise UserError(f"Window: {type(spec.core).__name__} is not causal; what it reads would change with time")
        self.steps, self.features, self.size = spec.steps, features, self.core.size

    def initial(self, batch: int) -> State:
        """The inputs of the steps before, and how many there were."""
        weight = next(self.parameters())
        return (weight.new_zeros(batch, self.steps - 1, self.features), weight.new_zeros(batch, 1))

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        past, known = state
        batch, time = x.shape[:2]
        line = torch.cat((past, x.to(past.dtype)), 1)
        # Near a beginning windows are shorter; each is cut from its first step on, and filled up behind its last.
        steps = torch.arange(time, device=x.device)
        begin = torch.maximum(past.shape[1] - known.long(), steps)
        places = begin.unsqueeze(2) + torch.arange(self.steps, device=x.device)
        sizes = past.shape[1] + 1 + steps - begin
        rows = torch.arange(batch, device=x.device).view(-1, 1, 1)
        windows = line[rows, places.clamp_max(line.shape[1] - 1)].flatten(0, 1)
        shown, _ = self.core(windows, self.core.initial(batch * time), sizes.flatten())
        last = shown[torch.arange(batch * time, device=x.device), sizes.flatten() - 1].unflatten(0, (batch, time))
        kept = lengths.view(-1, 1) + torch.arange(past.shape[1], device=x.device)
        state = (line[rows[:, 0], kept], (known + lengths.view(-1, 1)).clamp_max(past.shape[1]))
        return torch.where(_there(lengths, time), last, 0.0), state


@dataclass(frozen=True)
class Stack(Spec):
    """A deep core: each layer with its own weights, on what the one below gives out."""

    layers: tuple[Spec, ...] = (LSTM(), LSTM())
    """The cores, lowest first."""
    dropout: float = 0.0
    """Share of values dropped between layers while training."""
    locked: bool = False
    """The same values at all steps of a window (Gal & Ghahramani 2016)."""
    residual: bool = False
    """A layer adds to what it is given, where it is as wide (Wu et al. 2016)."""

    BOUNDS = {"dropout": (0, 1)}

    def build(self, features: int) -> "StackCore":
        if not self.layers:
            raise UserError("Stack: layers is empty; give it at least one core")
        cores, width = [], features
        for spec in self.layers:
            cores.append(spec.build(width))  # pyright: ignore[reportAttributeAccessIssue]
            width = cores[-1].size
        return StackCore(cores, self.dropout, self.locked, self.residual)


class StackCore(Core):
    def __init__(self, cores: list[Core], dropout: float = 0.0, locked: bool = False, residual: bool = False):
        super().__init__()
        self.cores = nn.ModuleList(cores)
        self.dropout, self.locked, self.residual = dropout, locked, residual
        self.features, self.size = cores[0].features, cores[-1].size
        self.causal = all(core.causal for core in cores)

    def initial(self, batch: int) -> State:
        return tuple(core.initial(batch) for core in self.cores)  # pyright: ignore[reportCallIssue]

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        after = []
        for depth, (core, before) in enumerate(zip(self.cores, state, strict=True)):
            given = self._dropped(x) if depth else x
            y, new = core(given, before, lengths)
            x = y + given if self.residual and y.shape == given.shape else y
            after.append(new)
        return torch.where(_there(lengths, x.shape[1]), x, 0.0) if self.residual else x, tuple(after)

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.locked:
            return F.dropout(x, self.dropout, self.training)
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout, self.training)


@dataclass(frozen=True)
class Bidirectional(Spec):
    """Two cores of one kind, one reading forwards and one backwards, their outputs side by side.

    Not causal: it needs the whole sequence (Schuster & Paliwal 1997).
    """

    core: Spec = LSTM()

    def build(self, features: int) -> "BidirectionalCore":
        return BidirectionalCore(*(self.core.build(features) for _ in range(2)))  # pyright: ignore[reportAttributeAccessIssue]


class BidirectionalCore(Core):
    causal = False

    def __init__(self, forwards: Core, backwards: Core):
        super().__init__()
        self.forwards, self.backwards = forwards, backwards
        self.features, self.size = forwards.features, forwards.size + backwards.size

    def initial(self, batch: int) -> State:
        return (self.forwards.initial(batch), self.backwards.initial(batch))

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        y, ahead = self.forwards(x, state[0], lengths)
        z, back = self.backwards(reverse(x, lengths), state[1], lengths)
        return torch.cat((y, reverse(z, lengths)), 2), (ahead, back)


def reverse(x: Float[Tensor, "batch time feature"], lengths: Int[Tensor, "batch"]) -> Tensor:
    """Each row's own steps in the opposite order; padding stays where it is."""
    time = torch.arange(x.shape[1], device=x.device)
    order = lengths.unsqueeze(1) - 1 - time
    return x.gather(1, torch.where(order >= 0, order, time).unsqueeze(2).expand_as(x))


_KINDS: dict[type, Any] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}


def from_torch(layer: nn.RNN | nn.GRU | nn.LSTM) -> Core:
    """The same core, with the same weights: all layers and directions; without a bias, biases of 0."""
    parts = []
    for depth in range(layer.num_layers):
        ways = [_cell_from(layer, f"l{depth}{way}") for way in ("", "_reverse")[: 1 + layer.bidirectional]]
        parts.append(BidirectionalCore(*ways) if layer.bidirectional else ways[0])
    core = parts[0] if len(parts) == 1 else StackCore(parts, layer.dropout)
    return core.train(layer.training)


def _cell_from(layer: nn.RNNBase, name: str) -> Cell:
    weight = getattr(layer, f"weight_ih_{name}")
    options: dict[str, Any] = {"hidden": layer.hidden_size}
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    if layer.proj_size:
        options["projection"] = layer.proj_size
    core = _KINDS[type(layer)](**options).build(weight.shape[1]).to(weight)
    with torch.no_grad():
        for ours, theirs in _TORCH_NAMES.items():
            parameter = getattr(core, ours, None)
            if parameter is not None:
                given = getattr(layer, f"{theirs}_{name}", None)
                parameter.zero_() if given is None else parameter.copy_(given)
    return core


_TORCH_NAMES = {
    "weight_ih": "weight_ih",
    "weight_hh": "weight_hh",
    "bias_ih": "bias_ih",
    "bias_hh": "bias_hh",
    "projection": "weight_hr",
}


def to_torch(core: Core) -> nn.RNN | nn.GRU | nn.LSTM:
    """torch's layer (batch first) with the same weights. ValueError where torch has no such layer."""
    layers = list(core.cores) if isinstance(core, StackCore) else [core]
    both = isinstance(layers[0], BidirectionalCore)
    rows = [[c.forwards, c.backwards] if isinstance(c, BidirectionalCore) else [c] for c in layers]
    first = rows[0][0]
    spec: Any = getattr(first, "spec", None)
    same = all(getattr(cell, "spec", None) == spec and len(row) == 1 + both for row in rows for cell in row)
    fancy = any(getattr(spec, name, False) for name in ("peepholes", "layer_norm", "weight_dropout"))
    plain = isinstance(spec, RNN | GRU | LSTM) and not fancy and getattr(spec, "reset", "after") == "after"
    deep = isinstance(core, StackCore)
    if not same or not plain or (deep and (core.residual or (core.locked and core.dropout))):
        raise ValueError(f"to_torch: torch has no layer like {spec or type(core).__name__} with these options")
    kind = next(torch_kind for torch_kind, ours in _KINDS.items() if isinstance(spec, ours))
    options: dict[str, Any] = {"nonlinearity": spec.nonlinearity} if isinstance(spec, RNN) else {}
    if isinstance(spec, LSTM):
        options["proj_size"] = spec.projection
    layer = kind(
        core.features, spec.hidden, len(layers), batch_first=True, bidirectional=both,
        dropout=core.dropout if deep else 0.0, **options,
    ).to(first.weight_ih)  # fmt: skip
    with torch.no_grad():
        for depth, row in enumerate(rows):
            for cell, way in zip(row, ("", "_reverse"), strict=False):
                for ours, theirs in _TORCH_NAMES.items():
                    if getattr(cell, ours, None) is not None:
                        getattr(layer, f"{theirs}_l{depth}{way}").copy_(getattr(cell, ours))
    return layer.train(core.training)
