"""Cores made of other cores: zoneout, windows, pooling, stacks and both directions."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from .. import kernels
from ..forms import Graph, native_form, onnx_form
from ..kernels.reference import advance, stacked
from .contract import Core, CoreSpec, Part, State, there
from .gated import GRU, LSTM


@dataclass(frozen=True)
class Zoneout(CoreSpec):
    """A core of which, while training, random units keep the state of the step before (Krueger et al. 2017).

    It is around a core whose output is the first tensor of its state: RNN, GRU, LSTM, MinGRU, MinLSTM, CfC.
    """

    core: CoreSpec = LSTM()
    share: tuple[float, ...] = (0.05, 0.5)
    """Share of units kept, for each tensor of the state; of an LSTM: output, cell."""

    BOUNDS = {"share": (0, 1)}

    def build(self, features: int) -> "ZoneoutCore":
        return ZoneoutCore(self.core.build(features), self.share)


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
            new = tuple(self._kept(o, n, share) for o, n, share in zip(state, new, self.share, strict=False))
            rows = [advance(lengths, t, n, o) for o, n in zip(state, new, strict=True)]
            state = tuple(h for h, _ in rows)
            shown.append(rows[0][1])
        return stacked(shown, state[0]), state

    def _kept(self, old: Tensor, new: Tensor, share: float) -> Tensor:
        if self.training:
            return torch.where(torch.rand_like(new) < share, old, new)
        return share * old + (1 - share) * new

    @property
    def state_names(self) -> tuple[str, ...]:
        return self.core.state_names

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """The inner core's, each step from a state that zoneout has mixed."""
        found = self.core.gates(x.flatten(0, 1).unsqueeze(1), self._states_before(x, state))
        return {name: value[:, 0].unflatten(0, x.shape[:2]) for name, value in found.items()}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        inner = self.core.shares(gates)
        if inner is None:
            return None
        parts = tuple(torch.tensor([[share]]) for share, _ in zip(self.share, self.state_names, strict=False))
        stays = self.core.memory(parts).to(inner[0])
        return stays + (1 - stays) * inner[0], (1 - stays) * inner[1]

    def memory(self, state: State) -> Tensor:
        return self.core.memory(state)


@native_form(ZoneoutCore)
def _zoneout_layer(core: ZoneoutCore, half: bool) -> object:
    return kernels.native.zoneout_layer(native_form.of(core.core)(core.core, half), core.share)


@onnx_form(ZoneoutCore)
def _zoneout_graph(graph: Graph, core: ZoneoutCore, x: str, state: tuple) -> tuple[str, tuple]:
    _, new = onnx_form.of(core.core)(graph, core.core, x, state)
    shares = zip(state, new, core.share, strict=False)
    kept = tuple(graph.mix(np.float32(share), old, fresh) for old, fresh, share in shares)
    return kept[0], kept


@dataclass(frozen=True)
class Window(CoreSpec):
    """A core that remembers the last steps only: it runs over them anew, from its first state, at every step."""

    core: CoreSpec = LSTM()
    """Core that runs over them."""
    steps: int = 10
    """Steps of the window, the present one among them."""

    BOUNDS = {"steps": (1, inf)}

    def build(self, features: int) -> "WindowCore":
        return WindowCore(self, features)


class WindowCore(Core):
    STATE = ("past", "known")

    def __init__(self, spec: Window, features: int):
        super().__init__()
        self.core = spec.core.build(features)
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
        return torch.where(there(lengths, time), last, 0.0), state


@dataclass(frozen=True)
class Pooled(CoreSpec):
    """A core's output beside what it was so far: no single step decides what a sequence is of."""

    core: CoreSpec = GRU()
    """Core that is pooled."""
    parts: tuple[Literal["last", "mean", "max"], ...] = ("last", "mean", "max")
    """What is given out, side by side: the output of the step, the mean and the maximum of all up to it."""
    inputs: bool = False
    """Whether the core's input is pooled, too."""
    dropout: float = 0.0
    """Share of the values dropped while training."""

    BOUNDS = {"dropout": (0, 1)}

    def build(self, features: int) -> "PooledCore":
        return PooledCore(self, features)


class PooledCore(Core):
    LOWEST = -6e4
    """Maximum of what was not said yet: below all that is, and finite in half precision."""

    def __init__(self, spec: Pooled, features: int):
        super().__init__()
        self.core = spec.core.build(features)
        if not spec.parts:
            raise UserError("Pooled: parts is empty; name last, mean or max")
        if not self.core.causal:
            raise UserError(f"Pooled: {type(spec.core).__name__} is not causal; what was said so far would change")
        self.parts, self.inputs, self.dropout, self.features = spec.parts, spec.inputs, spec.dropout, features
        self.pooled = self.core.size + features * spec.inputs
        self.size = len(spec.parts) * self.pooled

    def initial(self, batch: int) -> State:
        """The core's state, the steps so far, the mean and the maximum over them."""
        zeros = next(self.parameters()).new_zeros(batch, self.pooled)
        return (self.core.initial(batch), zeros.new_zeros(batch, 1), zeros, zeros + self.LOWEST)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        inner, count, mean, peak = state
        y, inner = self.core(x, inner, lengths)  # 0 beyond a row's length.
        y, time, own = torch.cat((y, x), -1) if self.inputs else y, x.shape[1], lengths.view(-1, 1)
        # In double precision: a long chunk must not differ from short ones.
        total = (mean.double() * count).unsqueeze(1) + y.double().cumsum(1)
        steps = count.unsqueeze(1) + torch.arange(1, time + 1, device=y.device).view(1, -1, 1)
        peaks = torch.cat((peak.to(y.dtype).unsqueeze(1), y), 1).cummax(1).values[:, 1:]
        found = {"last": y, "mean": (total / steps).to(y.dtype), "max": peaks}
        pooled = torch.where(there(lengths, time), torch.cat([found[part] for part in self.parts], -1), 0.0)
        rows = torch.arange(len(y), device=y.device)
        pairs = ((mean, found["mean"]), (peak, peaks))
        after = (torch.cat((old.unsqueeze(1), values.to(old.dtype)), 1)[rows, lengths] for old, values in pairs)
        return F.dropout(pooled, self.dropout, self.training), (inner, count + own, *after)

    @property
    def state_names(self) -> tuple[str, ...]:
        return (*self.core.state_names, "steps", "mean", "max")

    def memory(self, state: State) -> Tensor:
        """That of the core: what was pooled has no gates."""
        return self.core.memory(state[0])

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        return self.core.gates(x, state[0])

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        return self.core.shares(gates)


@onnx_form(PooledCore)
def _pooled_graph(graph: Graph, core: PooledCore, x: str, state: tuple) -> tuple[str, tuple]:
    inner, count, mean, peak = state
    y, inner = onnx_form.of(core.core)(graph, core.core, x, inner)
    y = graph.op("Concat", y, x, axis=1) if core.inputs else y
    after = graph.op("Add", count, np.float32(1))
    mean = graph.op("Div", graph.total(graph.op("Mul", mean, count), y), after)
    peak = graph.op("Max", peak, y)
    found = {"last": y, "mean": mean, "max": peak}
    shown = [found[part] for part in core.parts]
    return graph.op("Concat", *shown, axis=1) if len(shown) > 1 else shown[0], (inner, after, mean, peak)


@dataclass(frozen=True)
class Stack(CoreSpec):
    """A deep core: each layer with its own weights, on what the one below gives out."""

    layers: tuple[CoreSpec, ...] = (LSTM(), LSTM())
    """Cores, lowest first."""
    dropout: float = 0.0
    """Share of values dropped between layers while training."""
    locked: bool = False
    """Whether dropout takes the same values at all steps of a window (Gal & Ghahramani 2016)."""
    residual: bool = False
    """Whether a layer adds its output to its input, where it is as wide (Wu et al. 2016)."""

    BOUNDS = {"dropout": (0, 1)}

    def build(self, features: int) -> "StackCore":
        if not self.layers:
            raise UserError("Stack: layers is empty; give it at least one core")
        cores, width = [], features
        for spec in self.layers:
            cores.append(spec.build(width))
            width = cores[-1].size
        return StackCore(cores, self.dropout, self.locked, self.residual)


class StackCore(Core):
    skips_padding = True  # Its cores see to it.

    def __init__(self, cores: list[Core], dropout: float = 0.0, locked: bool = False, residual: bool = False):
        super().__init__()
        self.cores = nn.ModuleList(cores)
        self.dropout, self.locked, self.residual = dropout, locked, residual
        self.features, self.size = cores[0].features, cores[-1].size
        self.causal = all(core.causal for core in cores)

    def initial(self, batch: int) -> State:
        return tuple(core.initial(batch) for core in self._cores())

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        after = []
        for depth, (core, before) in enumerate(zip(self._cores(), state, strict=True)):
            given = self._dropped(x) if depth else x
            y, new = core(given, before, lengths)
            x = y + given if self.residual and y.shape == given.shape else y
            after.append(new)
        return torch.where(there(lengths, x.shape[1]), x, 0.0) if self.residual else x, tuple(after)

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.locked:
            return F.dropout(x, self.dropout, self.training)
        return x * F.dropout(x.new_ones(len(x), 1, x.shape[2]), self.dropout, self.training)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(f"{i + 1}.{name}" for i, core in enumerate(self._cores()) for name in core.state_names)

    def layers(self, state: State) -> list[Part]:
        rows = zip(self._cores(), state, strict=True)
        return [Part(core, own, self.residual and core.features == core.size) for core, own in rows]

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """Gates of all layers: `layer 1 forget`."""
        found = enumerate(layer.core.gates(given, layer.state) for layer, given in self.fed(x, state))
        return {f"layer {i + 1} {name}": value for i, gates in found for name, value in gates.items()}

    def _cores(self) -> Iterator[Core]:
        return cast(Iterator[Core], iter(self.cores))


@native_form(StackCore)
def _stack_layer(core: StackCore, half: bool) -> object:
    layers = []
    for part in core.layers(core.initial(1)):
        layer = native_form.of(part.core)(part.core, half)
        layers.append(kernels.native.residual_layer(layer) if part.adds else layer)
    return kernels.native.stack_layer(layers)


@onnx_form(StackCore)
def _stack_graph(graph: Graph, core: StackCore, x: str, state: tuple) -> tuple[str, tuple]:
    states = []
    for part in core.layers(state):
        y, new = onnx_form.of(part.core)(graph, part.core, x, part.state)
        x = graph.total(y, x) if part.adds else y
        states.append(new)
    return x, tuple(states)


@dataclass(frozen=True)
class Bidirectional(CoreSpec):
    """Two cores of one kind, one reading forwards and one backwards, their outputs side by side.

    Not causal: it needs the whole sequence (Schuster & Paliwal 1997).
    """

    core: CoreSpec = LSTM()

    def build(self, features: int) -> "BidirectionalCore":
        return BidirectionalCore(*(self.core.build(features) for _ in range(2)))


class BidirectionalCore(Core):
    causal = False
    skips_padding = True  # Its cores see to it.

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

    @property
    def state_names(self) -> tuple[str, ...]:
        ways = ("forwards", self.forwards), ("backwards", self.backwards)
        return tuple(f"{way}.{name}" for way, core in ways for name in core.state_names)

    def directions(self, state: State) -> list[Part]:
        return [Part(self.forwards, state[0]), Part(self.backwards, state[1], backwards=True)]

    def gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """Gates of both directions: `forwards forget`."""
        ahead, back = self.forwards.gates(x, state[0]), self.backwards.gates(x.flip(1), state[1])
        return {f"forwards {name}": value for name, value in ahead.items()} | {
            f"backwards {name}": value.flip(1) for name, value in back.items()
        }


def reverse(x: Float[Tensor, "batch time feature"], lengths: Int[Tensor, "batch"]) -> Tensor:
    """Each row's own steps in the opposite order; padding stays where it is."""
    time = torch.arange(x.shape[1], device=x.device)
    order = lengths.unsqueeze(1) - 1 - time
    return x.gather(1, torch.where(order >= 0, order, time).unsqueeze(2).expand_as(x))
