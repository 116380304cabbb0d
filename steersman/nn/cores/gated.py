"""Cores with weights for their own state: the simple recurrent network, GRU and LSTM."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from .contract import Core, CoreSpec, State


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
class RNN(CoreSpec):
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
class GRU(CoreSpec):
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
class LSTM(CoreSpec):
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
