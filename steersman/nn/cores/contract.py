"""The recurrence: `(x, state, lengths) -> (y, state)`, and one step of the same.

A state is a tensor with the batch first, or a (nested) tuple of states; `()` for what remembers nothing.
Batches may be ragged, in any order: beyond a row's own length the output is 0, and the state that comes out is that
of its own last step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...config import Spec
from ...errors import NotFinite
from .. import kernels
from ..forms import Graph, native_form, onnx_form
from ..kernels.reference import sound, there

State = Any


def map_state(function: Callable[..., object], *states: State) -> State:
    """`function` on every tensor of one state, or on the corresponding tensors of several."""
    if isinstance(states[0], Tensor):
        return function(*states)
    return tuple(map_state(function, *parts) for parts in zip(*states, strict=True))


def state_tensors(state: State) -> list[Tensor]:
    """Tensors of the state in order."""
    return [state] if isinstance(state, Tensor) else [t for part in state for t in state_tensors(part)]


def detach(state: State) -> State:
    """The same values, cut from the graph: where truncated backpropagation through time ends."""
    return map_state(Tensor.detach, state)


def reset(state: State, initial: State, fresh: Bool[Tensor, "batch"]) -> State:
    """Rows that are `fresh` begin anew; the others go on."""

    def choose(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(fresh.view(-1, *[1] * (old.ndim - 1)), new, old)

    return map_state(choose, state, initial)


class Part(NamedTuple):
    """A core inside a core, and its share of the state."""

    core: "Core"
    state: State
    adds: bool = False
    """Whether its input is added to its output."""
    backwards: bool = False
    """Whether it reads from the end."""


class Core(nn.Module):
    """What every recurrence offers; the state goes in and comes out, never stays.

    A core of one's own defines `initial` and `run`. It may add `STATE`, and gates by `step_gates` and `shares`,
    which `explain` and the doctor look at; its forms as an ONNX graph and as compiled steps are registered by
    `onnx_form` and `native_form`. A subclass that computes what its parent does has the parent's forms.
    """

    causal = True
    features: int
    """Features of its input."""
    size: int
    """Features of its output."""
    activation = ""
    """tanh or relu where the output is nothing but that of a sum."""

    skips_padding = False
    """Whether `run` reads nothing beyond a row's length; otherwise its input is 0 there, whatever it was."""

    STATE: tuple[str, ...] = ()
    """Names of the state's tensors, as its formula has them."""

    @property
    def state_names(self) -> tuple[str, ...]:
        """`STATE`, and of a core that names none, `state` for each of its tensors."""
        return self.STATE or ("state",) * len(state_tensors(self.initial(1)))

    @property
    def remembers(self) -> bool:
        """Whether anything goes from one step to the next."""
        return bool(self.state_names)

    def initial(self, batch: int) -> State:
        raise AssertionError(f"{type(self).__name__} has no initial state")

    def forward(
        self,
        x: Float[Tensor, "batch time feature"],
        state: State,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        """Outputs and the state after each row's last step; `lengths` of the rows, by default all of `time`.

        What lies beyond a row's length may be anything, NaN too. ValueError where an argument has another shape or type
        than the core takes, or the state is not finite.
        """
        x, lengths = self._checked(x, state, lengths)
        return self.run(x, state, lengths)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        """What `forward` does with arguments that are sound."""
        raise AssertionError(f"{type(self).__name__} has no run")

    def step(self, x: Float[Tensor, "batch feature"], state: State) -> tuple[Float[Tensor, "batch hidden"], State]:
        """One step of `forward`. ValueError where the core is not causal: it would need what is to come."""
        if not self.causal:
            raise ValueError(f"{type(self).__name__} is not causal: it reads a sequence from its end, so it can't step")
        if not isinstance(x, Tensor) or x.ndim != 2:
            raise ValueError(f"x: expected (batch, {self.features}), got {_found(x)}")
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state

    def gates(self, x: Float[Tensor, "batch time feature"], state: State) -> dict[str, Tensor]:
        """Every gate's values (batch time unit) by name, from the state before the first step; empty without gates.

        Gates go from 0 to 1. Beside them stands `candidate`, what may be written, where the core has one.
        """
        if type(self).step_gates is Core.step_gates:
            return {}
        found = self.step_gates(x.flatten(0, 1), self._states_before(x, state))
        return {name: value.unflatten(0, x.shape[:2]) for name, value in found.items()}

    def step_gates(self, x: Float[Tensor, "batch feature"], state: State) -> dict[str, Tensor]:
        """Gates (batch unit) of one step, from the state before it."""
        return {}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Shares kept and written where `memory` is kept * memory + written * candidate; None where it is not.

        Gates that say one of the two are named `forget`, `input` or `update`.
        """
        return None

    def memory(self, state: State) -> Float[Tensor, "batch unit"]:
        """What is carried: all of the state, unless one tensor of it only shows another."""
        parts = [part.flatten(1) for part in state_tensors(state)]
        return torch.cat(parts, 1) if parts else torch.zeros(1, 0)

    def layers(self, state: State) -> list[Part]:
        """Cores one upon the other, the lowest first; of one that is not deep, itself."""
        return [Part(self, state)]

    def directions(self, state: State) -> list[Part]:
        """Cores side by side on the same input; of one that reads one way, itself."""
        return [Part(self, state)]

    def fed(self, x: Float[Tensor, "batch time feature"], state: State) -> Iterator[tuple[Part, Tensor]]:
        """Each of its layers with what it is given."""
        layers = self.layers(state)
        for depth, layer in enumerate(layers):
            yield layer, x
            if depth + 1 < len(layers):
                y, _ = layer.core(x, layer.state)
                x = y + x if layer.adds else y

    def _states_before(self, x: Tensor, state: State) -> State:
        """The state before every step (batch*time ...)."""
        held, time = [state], x.shape[1]
        for t in range(time - 1):
            held.append(self.step(x[:, t], held[-1])[1])
        return map_state(lambda *steps: torch.stack(steps, 1)[:, :time].flatten(0, 1), *held)

    def _checked(self, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Input and lengths that `run` can do with, once all of it is sound."""
        if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[2] != self.features:
            raise ValueError(f"x: expected (batch, time, {self.features}), got {_found(x)}")
        if not x.is_floating_point():
            raise ValueError(f"x: expected floating point, got {x.dtype}")
        batch, time = x.shape[:2]
        weight = next(iter(self._parameters.values()), None)
        if weight is None:  # A core of other cores; this way is far slower.
            weight = next(self.parameters(), x)
        if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
            raise ValueError(f"x: expected {weight.dtype}, as the weights are, got {x.dtype}")
        _check_state(state, _rows_of(self), batch, weight.dtype)
        if lengths is None:
            return x, torch.full((batch,), time, dtype=torch.int64, device=x.device)
        if not isinstance(lengths, Tensor):
            raise ValueError(f"lengths: expected a tensor of {batch} integers, got {type(lengths).__name__}")
        if lengths.shape != (batch,) or lengths.dtype not in _INTEGERS:
            raise ValueError(f"lengths: expected {batch} integers, got {lengths.dtype} of shape {tuple(lengths.shape)}")
        least, most = (0, time) if kernels.watched() or not batch else (int(lengths.min()), int(lengths.max()))
        if least < 0 or most > time:
            raise ValueError(f"lengths: expected 0 to {time}, got {least} to {most}")
        lengths = lengths.to(x.device, torch.int64)
        return x if self.skips_padding or least == time else sound(x, lengths), lengths


class CoreSpec(Spec):
    """Spec of a core."""

    def build(self, features: int) -> Core:
        """The core for inputs of so many features."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


class _Row(NamedTuple):
    """What a row of a state's tensor looks like."""

    shape: tuple[int, ...]
    floating: bool


Rows = _Row | tuple["Rows", ...]
"""A nested tuple of them, as the state is one of tensors."""


def _rows(state: State) -> Rows:
    """The same nested tuple as a state, of rows."""
    if isinstance(state, Tensor):
        return _Row(tuple(state.shape[1:]), state.is_floating_point())
    return tuple(map(_rows, state))


_ROWS: WeakKeyDictionary[Core, Rows] = WeakKeyDictionary()
"""First state's rows by core, for to make a first state at every call would take long beside a step."""


def _rows_of(core: Core) -> Rows:
    if torch.compiler.is_compiling():  # Compiled code would depend on what else is kept.
        return _rows(core.initial(1))
    if core not in _ROWS:
        _ROWS[core] = _rows(core.initial(1))
    return _ROWS[core]


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _found(x: object) -> str:
    """What came in place of a tensor of some shape."""
    return str(tuple(x.shape)) if isinstance(x, Tensor) else f"{type(x).__name__}, which is not a tensor"


def _check_state(state: State, rows: Rows, batch: int, dtype: torch.dtype, where: str = "state") -> None:
    if isinstance(rows, _Row):
        shape = (batch, *rows.shape)
        if not isinstance(state, Tensor) or state.shape != shape:
            found = tuple(state.shape) if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(f"{where}: expected a tensor {shape}, got {found}")
        if rows.floating and state.dtype != dtype:
            raise ValueError(f"{where}: expected {dtype}, as the weights are, got {state.dtype}")
        # On a GPU the look would wait for it.
        if state.is_cpu and not kernels.finite(state):
            raise NotFinite(f"{where}: expected finite numbers, got NaN or infinity")
        return
    if not isinstance(state, tuple) or len(state) != len(rows):
        found = f"{len(state)} parts" if isinstance(state, tuple) else type(state).__name__
        raise ValueError(f"{where}: expected {len(rows)} parts, got {found}")
    for i, (part, row) in enumerate(zip(state, rows, strict=True)):
        _check_state(part, row, batch, dtype, f"{where}[{i}]")


@dataclass(frozen=True)
class Memoryless(CoreSpec):
    """No recurrence: every step on its own, one to one."""

    def build(self, features: int) -> "MemorylessCore":
        return MemorylessCore(features)


class MemorylessCore(Core):
    skips_padding = True

    def __init__(self, features: int):
        super().__init__()
        self.features = self.size = features

    def initial(self, batch: int) -> State:
        return ()

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        return torch.where(there(lengths, x.shape[1]), x, 0.0), state


@native_form(MemorylessCore)
def _memoryless_layer(core: MemorylessCore, half: bool) -> object:
    return kernels.native.memoryless_layer(core.features)


@onnx_form(MemorylessCore)
def _memoryless_graph(graph: Graph, core: MemorylessCore, x: str, state: tuple) -> tuple[str, tuple]:
    return x, ()
