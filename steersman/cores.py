"""The recurrence: `(x, state) -> (y, state)`, and one step of the same.

A state is a tensor with the batch first, or a (nested) tuple of states; `()` for what remembers nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

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


class Core(nn.Module):
    """What every recurrence offers; the state goes in and comes out, never stays."""

    causal = True
    size: int
    """Features of its output."""

    def initial(self, batch: int) -> State:
        raise AssertionError(f"{type(self).__name__} has no initial state")

    def forward(
        self, x: Float[Tensor, "batch time feature"], state: State
    ) -> tuple[Float[Tensor, "batch time hidden"], State]:
        raise AssertionError(f"{type(self).__name__} has no forward")

    def step(self, x: Float[Tensor, "batch feature"], state: State) -> tuple[Float[Tensor, "batch hidden"], State]:
        """One step of `forward`."""
        y, state = self(x.unsqueeze(1), state)
        return y[:, 0], state


@dataclass(frozen=True)
class Memoryless(Spec):
    """No recurrence: every step on its own, one to one."""

    def build(self, features: int) -> "MemorylessCore":
        return MemorylessCore(features)


class MemorylessCore(Core):
    def __init__(self, features: int):
        super().__init__()
        self.size = features

    def initial(self, batch: int) -> State:
        return ()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return x, state


@dataclass(frozen=True)
class RNN(Spec):
    """h = tanh(W x + U h + b) (Elman 1990)."""

    hidden: int = 128
    """Units of the state."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "TorchCore":
        return TorchCore(nn.RNN(features, self.hidden, batch_first=True))


@dataclass(frozen=True)
class GRU(Spec):
    """Gated recurrent unit (Cho et al. 2014) in PyTorch's form: the reset gate acts after the product."""

    hidden: int = 128
    """Units of the state."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "TorchCore":
        return TorchCore(nn.GRU(features, self.hidden, batch_first=True))


@dataclass(frozen=True)
class LSTM(Spec):
    """Long short-term memory with forget gates (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""

    hidden: int = 128
    """Units of the state."""
    forget_bias: float = 1.0
    """What the forget gate's bias starts at: above zero it remembers at first (Jozefowicz et al. 2015)."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "TorchCore":
        core = TorchCore(nn.LSTM(features, self.hidden, batch_first=True))
        with torch.no_grad():
            core.parameter("bias_ih_l0")[self.hidden : 2 * self.hidden] = self.forget_bias
        return core


class TorchCore(Core):
    """One layer of torch's RNN, GRU or LSTM; recurrent weights start orthogonal (Saxe et al. 2014)."""

    def __init__(self, layer: nn.RNNBase):
        super().__init__()
        self.layer = layer
        self.size = layer.hidden_size
        with torch.no_grad():
            for block in self.parameter("weight_hh_l0").split(self.size):
                block.copy_(nn.init.orthogonal_(torch.empty_like(block)))
            self.parameter("bias_ih_l0").zero_()
            self.parameter("bias_hh_l0").zero_()

    def parameter(self, name: str) -> Tensor:
        """A weight or bias of the layer, by torch's name for it."""
        return self.layer.get_parameter(name)

    def initial(self, batch: int) -> State:
        zeros = self.parameter("weight_hh_l0").new_zeros(batch, self.size)
        return (zeros, zeros.clone()) if isinstance(self.layer, nn.LSTM) else (zeros,)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = tuple(s.unsqueeze(0) for s in state)
        y, h = self.layer(x, h if isinstance(self.layer, nn.LSTM) else h[0])
        h = h if isinstance(self.layer, nn.LSTM) else (h,)
        # States are kept in single precision: under autocast the layer gives them back in bfloat16.
        return y, tuple(s.squeeze(0).to(x0.dtype) for s, x0 in zip(h, state, strict=True))


@dataclass(frozen=True)
class Stack(Spec):
    """A deep core: each layer with its own weights, on what the one below gives out."""

    layers: tuple[Spec, ...] = (LSTM(), LSTM())
    """The cores, lowest first."""
    dropout: float = 0.0
    """Share of values dropped between layers while training."""

    BOUNDS = {"dropout": (0, 1)}

    def build(self, features: int) -> "StackCore":
        if not self.layers:
            raise UserError("Stack: layers is empty; give it at least one core")
        cores = []
        for spec in self.layers:
            cores.append(spec.build(features))  # pyright: ignore[reportAttributeAccessIssue]
            features = cores[-1].size
        return StackCore(cores, self.dropout)


class StackCore(Core):
    def __init__(self, cores: list[Core], dropout: float):
        super().__init__()
        self.cores = nn.ModuleList(cores)
        self.dropout = nn.Dropout(dropout)
        self.size = cores[-1].size
        self.causal = all(core.causal for core in cores)

    def initial(self, batch: int) -> State:
        return tuple(core.initial(batch) for core in self.cores)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        after = []
        for depth, (core, before) in enumerate(zip(self.cores, state, strict=True)):
            x, new = core(x if depth == 0 else self.dropout(x), before)
            after.append(new)
        return x, tuple(after)
