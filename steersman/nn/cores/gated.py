"""Cores with weights for their own state: the simple recurrent network, GRU and LSTM."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import kernels
from ..forms import Graph, native_form, onnx_form
from ..kernels.reference import advance, stacked
from .contract import Core, CoreSpec, State


class Cell(Core):
    """A core with weights for the input and for its own state, named as in torch's layers.

    Input weights start uniform within 1 / sqrt(hidden), recurrent ones orthogonal, gate by gate (Saxe et al. 2014),
    biases at 0.
    """

    STATE = ("h",)

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
    skips_padding = True

    def __init__(self, spec: RNN, features: int):
        super().__init__(features, spec.hidden, gates=1)
        self.spec, self.activation = spec, spec.nonlinearity

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih, self.bias_ih, self.weight_hh, self.bias_hh
        y, h = kernels.rnn_layer(x, *weights, state[0], lengths, self.spec.nonlinearity == "relu")
        return y, (h,)


@native_form(RNNCore)
def _rnn_layer(core: RNNCore, half: bool) -> object:
    relu = core.spec.nonlinearity == "relu"
    return kernels.native.rnn_layer(half, core.weight_ih, core.bias_ih + core.bias_hh, core.weight_hh, relu)


@onnx_form(RNNCore)
def _rnn_graph(graph: Graph, core: RNNCore, x: str, state: tuple) -> tuple[str, tuple]:
    new = graph.joined(x, state[0], core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh)
    h = graph.op("Tanh" if core.spec.nonlinearity == "tanh" else "Relu", new)
    return h, (h,)


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
    skips_padding = True

    def __init__(self, spec: GRU, features: int):
        super().__init__(features, spec.hidden, gates=3)
        self.spec = spec

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        weights = self.weight_ih, self.bias_ih, self.weight_hh, self.bias_hh
        y, h = kernels.gru_layer(x, *weights, state[0], lengths, self.spec.reset == "after")
        return y, (h,)

    def step_gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        h, two = state[0], 2 * self.hidden
        inputs, past = F.linear(x, self.weight_ih, self.bias_ih), F.linear(h, self.weight_hh, self.bias_hh)
        reset, update = torch.sigmoid(inputs[:, :two] + past[:, :two]).chunk(2, 1)
        if self.spec.reset == "after":
            past = reset * past[:, two:]
        else:
            past = F.linear(reset * h, self.weight_hh[two:], self.bias_hh[two:])
        return {"reset": reset, "update": update, "candidate": torch.tanh(inputs[:, two:] + past)}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return gates["update"], 1 - gates["update"]


@native_form(GRUCore)
def _gru_layer(core: GRUCore, half: bool) -> object:
    after = core.spec.reset == "after"
    return kernels.native.gru_layer(half, core.weight_ih, core.bias_ih, core.weight_hh, core.bias_hh, after)


@onnx_form(GRUCore)
def _gru_graph(graph: Graph, core: GRUCore, x: str, state: tuple) -> tuple[str, tuple]:
    h, two = state[0], 2 * core.hidden
    gates = graph.joined(x, h, core.weight_ih[:two], core.weight_hh[:two], core.bias_ih[:two] + core.bias_hh[:two])
    r, z = graph.split(graph.op("Sigmoid", gates), 2)
    new = graph.linear(x, core.weight_ih[two:], core.bias_ih[two:])
    weight, bias = core.weight_hh[two:], core.bias_hh[two:]
    if core.spec.reset == "after":
        past = graph.op("Mul", r, graph.linear(h, weight, bias))
    else:
        past = graph.linear(graph.op("Mul", r, h), weight, bias)
    h = graph.mix(z, h, graph.op("Tanh", graph.total(new, past)))
    return h, (h,)


@dataclass(frozen=True)
class MGU(CoreSpec):
    """Minimal gated unit (Zhou et al. 2016): h = (1 - f) h + f tanh(W x + U (f h) + b)."""

    hidden: int = 128
    """Units of the state."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, features: int) -> "MGUCore":
        return MGUCore(features, self.hidden)


class MGUCore(Cell):
    def __init__(self, features: int, hidden: int):
        super().__init__(features, hidden, gates=2)

    def run(self, x: Tensor, state: State, lengths: Tensor) -> tuple[Tensor, State]:
        h, shown = state[0], []
        inputs = kernels.linear(x, self.weight_ih, self.bias_ih + self.bias_hh)
        with torch.autocast(x.device.type, enabled=False):
            for t in range(x.shape[1]):
                forget, candidate = self._gated(inputs[:, t], h)
                h, y = advance(lengths, t, h + forget * (candidate - h), h)
                shown.append(y)
        return stacked(shown, h), (h,)

    def _gated(self, inputs: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Gate and candidate of one step, from W x + b of both."""
        (of_gate, of_candidate), (gate, candidate) = self.weight_hh.chunk(2), inputs.chunk(2, 1)
        forget = torch.sigmoid(gate + F.linear(h, of_gate))
        return forget, torch.tanh(candidate + F.linear(forget * h, of_candidate))

    def step_gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        inputs = F.linear(x, self.weight_ih, self.bias_ih + self.bias_hh)
        forget, candidate = self._gated(inputs, state[0])
        return {"forget": forget, "candidate": candidate}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return 1 - gates["forget"], gates["forget"]


@onnx_form(MGUCore)
def _mgu_graph(graph: Graph, core: MGUCore, x: str, state: tuple) -> tuple[str, tuple]:
    weights = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh
    (w, u, b), (wc, uc, bc) = zip(*(t.chunk(2) for t in weights), strict=True)
    forget = graph.op("Sigmoid", graph.joined(x, state[0], w, u, b))
    candidate = graph.op("Tanh", graph.joined(x, graph.op("Mul", forget, state[0]), wc, uc, bc))
    h = graph.mix(forget, candidate, state[0])
    return h, (h,)


@dataclass(frozen=True)
class LSTM(CoreSpec):
    """Long short-term memory with forget gates (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""

    hidden: int = 128
    """Units of the cell."""
    forget_bias: float = 1.0
    """First value of the forget gate's bias: above zero it remembers at first (Jozefowicz et al. 2015)."""
    peepholes: bool = False
    """Whether the gates see the cell (Gers & Schmidhuber 2000)."""
    layer_norm: bool = False
    """Whether gates and cell are normalised over the units (Ba et al. 2016, equations 20 to 22)."""
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
    skips_padding = True
    EPSILON = 1e-5
    STATE = ("h", "c")

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

    def step_gates(self, x: Tensor, state: State) -> dict[str, Tensor]:
        h, c = state
        inputs, past = F.linear(x, self.weight_ih), F.linear(h, self.weight_hh)
        if self.gain is not None:
            inputs = F.layer_norm(inputs, inputs.shape[1:], self.input_gain, None, self.EPSILON)
            past = F.layer_norm(past, past.shape[1:], self.gain, None, self.EPSILON)
        i, f, g, o = (inputs + past + self.bias_ih + self.bias_hh).chunk(4, 1)
        peep = self.peepholes
        if peep is not None:
            i, f = i + peep[0] * c, f + peep[1] * c
        i, f, g = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g)
        if peep is not None:
            o = o + peep[2] * (f * c + i * g)
        return {"input": i, "forget": f, "output": torch.sigmoid(o), "candidate": g}

    def shares(self, gates: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return gates["forget"], gates["input"]

    def memory(self, state: State) -> Tensor:
        """The cell."""
        return state[1]


@native_form(LSTMCore)
def _lstm_layer(core: LSTMCore, half: bool) -> object:
    weights = core.weight_ih, core.bias_ih + core.bias_hh, core.weight_hh
    options = core.input_gain, core.projection, core.peepholes, core.gain, core.cell_gain, core.cell_bias
    return kernels.native.lstm_layer(half, *weights, *options, core.EPSILON)


@onnx_form(LSTMCore)
def _lstm_graph(graph: Graph, core: LSTMCore, x: str, state: tuple) -> tuple[str, tuple]:
    (h, c), bias = state, core.bias_ih + core.bias_hh
    if core.gain is None:
        gates = graph.joined(x, h, core.weight_ih, core.weight_hh, bias)
    else:
        inputs = _layer_norm(graph, core, graph.linear(x, core.weight_ih), core.input_gain, bias)
        gates = graph.total(inputs, _layer_norm(graph, core, graph.linear(h, core.weight_hh), core.gain, None))
    i, f, g, o = graph.split(gates, 4)
    seen = core.peepholes
    if seen is not None:
        i, f = (graph.total(gate, graph.op("Mul", c, seen[k])) for k, gate in enumerate((i, f)))
    i, f = graph.op("Sigmoid", i), graph.op("Sigmoid", f)
    c = graph.total(graph.op("Mul", f, c), graph.op("Mul", i, graph.op("Tanh", g)))
    if seen is not None:
        o = graph.total(o, graph.op("Mul", c, seen[2]))
    cell = c if core.cell_gain is None else _layer_norm(graph, core, c, core.cell_gain, core.cell_bias)
    h = graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", cell))
    if core.projection is not None:
        h = graph.linear(h, core.projection)
    return h, (h, c)


def _layer_norm(graph: Graph, core: LSTMCore, x: str, gain: Tensor | None, bias: Tensor | None) -> str:
    assert gain is not None
    bias = torch.zeros_like(gain) if bias is None else bias
    return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=core.EPSILON)
