"""The recurrence: `(x, state, lengths) -> (y, state)`, and one step of the same.

A state is a tensor with the batch first, or a (nested) tuple of states; `()` for what remembers nothing.
Batches may be ragged, in any order: beyond a row's own length the output is 0, and the state that comes out is that
of its own last step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...config import Spec
from ...errors import NotFinite
from .. import kernels

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


class CoreSpec(Spec):
    """Spec of a core."""

    def build(self, features: int) -> Core:
        """The core for inputs of so many features."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


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
class Memoryless(CoreSpec):
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
