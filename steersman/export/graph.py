"""One step of a model as an ONNX graph: a raw step and the state in, the prediction and the new state out.

Written operator by operator, with no tracer: nothing of it depends on what was traced before, and every part says in
a few lines what it computes.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..nn.cores import (
    CfCCore,
    Core,
    GRUCore,
    LRUCore,
    LSTMCore,
    MemorylessCore,
    MinGRUCore,
    MinLSTMCore,
    RNNCore,
    StackCore,
    State,
    ZoneoutCore,
    map_state,
    state_tensors,
)
from ..nn.encoders import EmbeddingEncoder, IdentityEncoder
from ..nn.heads import ClassificationHead, NextSymbolHead, RegressionHead
from ..nn.model import Model, SequenceModel
from ..nn.pictures import ConvEncoder, Picture, RoadTexture

OPSET, IR = 18, 9
"""What onnxruntime 1.20 reads, and those after it."""
PREPARED = "prepared"
"""The tensor after all that has no weights: integers, where the raw step is a picture or a text."""


class Graph:
    """Nodes and constants as they are added; a value is known by its name, a tensor becomes a constant."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.part = ""
        """What the names of nodes begin with."""

    def op(self, kind: str, *inputs: Any, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """The name of what it gives, or a list of them where it gives several."""
        from onnx import helper

        own = f"{self.part}/{kind}_{len(self.nodes)}"
        out = [name or own] if outputs == 1 else [f"{own}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.known(v) for v in inputs], out, own, **attributes))
        return out[0] if outputs == 1 else out

    def known(self, value: Any) -> str:
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = f"{self.part}/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def total(self, first: str, *others: str) -> str:
        for other in others:
            first = self.op("Add", first, other)
        return first

    def linear(self, x: str, weight: Tensor, *bias: Any) -> str:
        return self.op("Gemm", x, weight, *bias, transB=1)

    def joined(self, x: str, h: str, weight: Tensor, recurrent: Tensor, bias: Any = None) -> str:
        """W x + U h + b as one product."""
        both = self.op("Concat", x, h, axis=1)
        return self.linear(both, torch.cat((weight, recurrent), 1), *(() if bias is None else (bias,)))

    def split(self, x: str, parts: int) -> list[str]:
        return self.op("Split", x, outputs=parts, axis=1, num_outputs=parts)

    def floats(self, x: str) -> str:
        return self.op("Cast", x, to=1)

    def mix(self, share: Any, one: str, other: str) -> str:
        """share * one + (1 - share) * other."""
        return self.total(other, self.op("Mul", share, self.op("Sub", one, other)))


def step_graph(model: Model) -> Any:
    """The ONNX model. UserError where the model can't be stepped or has a part without a form here."""
    from onnx import checker, helper

    check_steps(model)
    graph = Graph()
    raw = helper.make_tensor_value_info(*_input(model))
    before = model.initial(1)
    names = state_names(before)
    state = _named(before, iter(names))
    graph.part = "encoder"
    feature, encoder_state = _form(_ENCODERS, model.encoder)(graph, model.encoder, raw.name, state[0])
    graph.part = "core"
    y, core_state = _form(_CORES, model.core)(graph, model.core, feature, state[1])
    graph.part = "head"
    shown = graph.op("Concat", y, feature, axis=1) if model.skip else y
    outputs = _form(_HEADS, model.head)(graph, model.head, shown)
    infos = []
    for name, old, new in zip(names, state_tensors(before), _flat((encoder_state, core_state)), strict=True):
        graph.op("Identity", new, name=after(name))
        infos.append((name, 2 if old.dtype == torch.uint8 else 1, ["batch", *old.shape[1:]]))
    made = helper.make_graph(
        graph.nodes,
        "step",
        [raw, *(helper.make_tensor_value_info(*info) for info in infos)],
        [
            *(helper.make_tensor_value_info(*info) for info in outputs),
            *(helper.make_tensor_value_info(after(name), *rest) for name, *rest in infos),
        ],
        graph.constants,
    )
    imports = [helper.make_opsetid("", OPSET)]
    whole = helper.make_model(made, opset_imports=imports, ir_version=IR, producer_name="steersman")
    checker.check_model(whole)
    return whole


def check_steps(model: SequenceModel) -> None:
    """UserError where a model has no step of its own."""
    if model.no_step:
        raise UserError(f"this model can't be exported: {model.no_step}")
    if model.feedback:
        raise UserError("this model can't be exported: that it is fed its own last prediction has no form in ONNX here")


def state_names(state: State) -> list[str]:
    """`state_0`, `state_1`, ... in the order of the model's own state: the encoder's, then the core's, lowest first."""
    return [f"state_{i}" for i in range(len(state_tensors(state)))]


def after(name: str) -> str:
    """The output that is fed back into the input of this name."""
    return f"next_{name}"


def _named(state: State, names: Any) -> Any:
    return map_state(lambda _: next(names), state)  # pyright: ignore[reportArgumentType]


def _flat(state: Any) -> Iterable[str]:
    return [state] if isinstance(state, str) else [name for part in state for name in _flat(part)]


def _form(forms: dict[type, Any], part: nn.Module) -> Any:
    if type(part) not in forms:
        known = ", ".join(kind.__name__ for kind in forms)
        raise UserError(f"{type(part).__name__} can't be exported: it has no form in ONNX here; there are {known}")
    return forms[type(part)]


def _input(model: Model) -> tuple[str, int, list[Any]]:
    """Name, type (ONNX's number of it) and shape."""
    if isinstance(model.encoder, ConvEncoder):
        return "frame", 2, ["batch", *model.encoder.raw]
    if isinstance(model.encoder, EmbeddingEncoder):
        return "token", 7, ["batch", 1]
    return "features", 1, ["batch", *model.encoder.raw]


# Encoders: (graph, encoder, raw step, state) -> (feature, state)


def _identity(graph: Graph, encoder: IdentityEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    return graph.op("Div", graph.op("Sub", raw, encoder.mean), encoder.deviation), ()


def _embedding(graph: Graph, encoder: EmbeddingEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    """A code point's class is the place of the one that it equals, counted from 1; 0 where there is none."""
    classes = raw
    if encoder.symbols.characters:
        num = len(encoder.symbols)
        same = graph.op("Equal", raw, encoder.symbols.codes(np.arange(1, num))[None])
        places = graph.op("Mul", graph.op("Cast", same, to=7), np.arange(1, num)[None])
        classes = graph.op("ReduceSum", places, np.array([1]), name=PREPARED, keepdims=1)
    return graph.op("Gather", encoder.vectors.weight, graph.op("Squeeze", classes, np.array([1]))), ()


def _conv(graph: Graph, encoder: ConvEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    """The normaliser is part of the first convolution's weights, for no picture is padded."""
    picture = _form(_PIXELS, encoder.spec.pixels)(graph, encoder, raw)  # pyright: ignore[reportArgumentType]
    spec, (height, width, channels) = encoder.spec, encoder.picture
    if state:
        line = graph.op("Concat", state[0], graph.op("Unsqueeze", picture, np.array([1])), axis=1)
        state = (_cut(graph, line, 1, 1, encoder.past + 1),)
        seen = graph.floats(_cut(graph, line, 1, encoder.past + 1 - spec.frames, encoder.past + 1))
        if spec.differences:
            seen = graph.op("Sub", _cut(graph, seen, 1, 1, spec.frames), _cut(graph, seen, 1, 0, spec.frames - 1))
        planes = graph.op("Transpose", seen, perm=[0, 1, 4, 2, 3])
        planes = graph.op("Reshape", planes, np.array([0, (spec.frames - spec.differences) * channels, height, width]))
    else:
        line, planes = "", graph.floats(graph.op("Transpose", picture, perm=[0, 3, 1, 2]))
    y = planes
    for depth, layer in enumerate(encoder.convolutions):
        if isinstance(layer, nn.Conv2d):
            weight, bias = _normalised(encoder, layer) if depth == 0 else (layer.weight, layer.bias)
            y = graph.op("Conv", y, weight, bias, strides=list(layer.stride), kernel_shape=list(layer.kernel_size))
        else:
            y = graph.op("Relu", y)
    y = graph.op("Relu", graph.linear(graph.op("Flatten", y), encoder.dense.weight, encoder.dense.bias))
    return graph.op("Concat", y, _motion(graph, encoder, line), axis=1) if spec.motion else y, state


def _cut(graph: Graph, x: str, axis: int, start: int, stop: int) -> str:
    return graph.op("Slice", x, np.array([start]), np.array([stop]), np.array([axis]))


def _normalised(encoder: ConvEncoder, layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    times = encoder.spec.frames - encoder.spec.differences
    mean, deviation = (t.double().repeat(times)[:, None, None] for t in (encoder.mean, encoder.deviation))
    weight = layer.weight.double() / deviation
    bias = layer.bias.double() - (0 if encoder.spec.differences else (weight * mean).sum((1, 2, 3)))
    return weight.float(), bias.float()


def _motion(graph: Graph, encoder: ConvEncoder, line: str) -> str:
    """`Motion.shifts` of the last picture."""
    motion, (height, width, _) = encoder.spec.motion, encoder.picture
    assert motion is not None
    bands, reach = height // motion.rows, min(motion.furthest, (width - 1) // 4)

    def mean(x: str, axis: int, keep: int = 1) -> str:
        return graph.op("ReduceMean", x, np.array([axis]), keepdims=keep)

    near = _cut(graph, _cut(graph, line, 1, encoder.past - 1, encoder.past + 1), 2, 0, bands * motion.rows)
    profile = graph.op("Reshape", mean(graph.floats(near), -1, 0), np.array([0, 2, bands, motion.rows, width]))
    profile = mean(profile, 3, 0)
    profile = graph.op("Sub", profile, mean(profile, -1))
    size = graph.op("Sqrt", mean(graph.op("Mul", profile, profile), -1))
    profile = graph.op("Div", profile, graph.op("Add", size, np.float32(3)))
    before, now = (graph.op("Squeeze", _cut(graph, profile, 1, i, i + 1), np.array([1])) for i in (0, 1))
    middle, costs = _cut(graph, now, 2, reach, width - reach), []
    for d in range(2 * reach + 1):
        apart = graph.op("Sub", _cut(graph, before, 2, d, d + width - 2 * reach), middle)
        costs.append(mean(graph.op("Mul", apart, apart), -1))
    scores = graph.op("Mul", graph.op("Concat", *costs, axis=2), np.float32(-motion.sharpness))
    places = (np.arange(-reach, reach + 1) / motion.UNIT).astype(np.float32)[:, None]
    shifts = graph.op("MatMul", graph.op("Softmax", scores, axis=2), places)
    return graph.op("Squeeze", shifts, np.array([2]))


def _picture(graph: Graph, encoder: ConvEncoder, raw: str) -> str:
    """Sums over areas are whole numbers, exact in whatever order; then divided as PyTorch divides them."""
    pixels: Any = encoder.spec.pixels
    height, width, channels = encoder.raw
    first, last = round(pixels.top * height), height - round(pixels.bottom * height)
    x = raw
    if last - first < height:
        x = graph.op("Slice", x, np.array([first]), np.array([last]), np.array([1]))
    if (last - first, width) == (pixels.height, pixels.width):
        return graph.op("Identity", x, name=PREPARED)
    rows, columns = _areas(last - first, pixels.height), _areas(width, pixels.width)
    x = graph.op("Reshape", graph.floats(x), np.array([0, last - first, width * channels]))
    x = graph.op("Reshape", graph.op("MatMul", rows, x), np.array([0, pixels.height, width, channels]))
    x = graph.op("MatMul", columns, x)
    for areas, shape in ((rows, (-1, 1, 1)), (columns, (-1, 1))):
        x = graph.op("Div", x, areas.sum(1).reshape(shape))
    return graph.op("Cast", graph.op("Round", x), to=2, name=PREPARED)


def _areas(many: int, few: int) -> np.ndarray:
    """Which pixels of a line each of the `few` is the mean of, as in torch's adaptive pooling: ones (few many)."""
    i, place = np.arange(few)[:, None], np.arange(many)
    return ((place >= i * many // few) & (place < -(-(i + 1) * many // few))).astype(np.float32)


def _road_texture(graph: Graph, encoder: ConvEncoder, raw: str) -> str:
    height, width, _ = encoder.picture
    ends = np.array([2 * height, 2 * width, 2])
    x = graph.floats(graph.op("Slice", raw, np.zeros(3, int), ends, np.array([1, 2, 3])))
    x = graph.op("Reshape", x, np.array([0, height, 2, width, 2, 2]))
    x = graph.op("ReduceMean", x, np.array([2, 4]), keepdims=0)
    red, green = graph.op("Split", x, outputs=2, axis=3, num_outputs=2)
    texture = red
    for kind, number in (("Sub", 102.0), ("Mul", 12.0), ("Add", 90.0)):
        texture = graph.op(kind, texture, np.float32(number))
    texture = graph.op("Clip", texture, np.float32(0), np.float32(255))
    return graph.op("Cast", graph.op("Round", graph.op("Concat", green, texture, axis=3)), to=2, name=PREPARED)


_PIXELS: dict[type, Any] = {Picture: _picture, RoadTexture: _road_texture}
_ENCODERS: dict[type, Any] = {IdentityEncoder: _identity, EmbeddingEncoder: _embedding, ConvEncoder: _conv}


# Cores: (graph, core, input, state) -> (output, state)


def _memoryless(graph: Graph, core: MemorylessCore, x: str, state: tuple) -> tuple[str, tuple]:
    return x, ()


def _rnn(graph: Graph, core: RNNCore, x: str, state: tuple) -> tuple[str, tuple]:
    new = graph.joined(x, state[0], core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh)
    h = graph.op("Tanh" if core.spec.nonlinearity == "tanh" else "Relu", new)
    return h, (h,)


def _gru(graph: Graph, core: GRUCore, x: str, state: tuple) -> tuple[str, tuple]:
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


def _lstm(graph: Graph, core: LSTMCore, x: str, state: tuple) -> tuple[str, tuple]:
    (h, c), bias = state, core.bias_ih + core.bias_hh
    if core.gain is None:
        gates = graph.joined(x, h, core.weight_ih, core.weight_hh, bias)
    else:
        inputs = _layer_norm(graph, graph.linear(x, core.weight_ih), core.input_gain, bias)
        gates = graph.total(inputs, _layer_norm(graph, graph.linear(h, core.weight_hh), core.gain, None))
    i, f, g, o = graph.split(gates, 4)
    seen = core.peepholes
    if seen is not None:
        i, f = (graph.total(gate, graph.op("Mul", c, seen[k])) for k, gate in enumerate((i, f)))
    i, f = graph.op("Sigmoid", i), graph.op("Sigmoid", f)
    c = graph.total(graph.op("Mul", f, c), graph.op("Mul", i, graph.op("Tanh", g)))
    if seen is not None:
        o = graph.total(o, graph.op("Mul", c, seen[2]))
    cell = c if core.cell_gain is None else _layer_norm(graph, c, core.cell_gain, core.cell_bias)
    h = graph.op("Mul", graph.op("Sigmoid", o), graph.op("Tanh", cell))
    if core.projection is not None:
        h = graph.linear(h, core.projection)
    return h, (h, c)


def _layer_norm(graph: Graph, x: str, gain: Any, bias: Any) -> str:
    bias = torch.zeros_like(gain) if bias is None else bias
    return graph.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=LSTMCore.EPSILON)


def _min_gru(graph: Graph, core: MinGRUCore, x: str, state: tuple) -> tuple[str, tuple]:
    gate, candidate = graph.split(graph.linear(x, core.linear.weight, core.linear.bias), 2)
    h = graph.mix(graph.op("Sigmoid", gate), _positive(graph, candidate), state[0])
    return h, (h,)


def _min_lstm(graph: Graph, core: MinLSTMCore, x: str, state: tuple) -> tuple[str, tuple]:
    forget, take, candidate = graph.split(graph.linear(x, core.linear.weight, core.linear.bias), 3)
    take, forget = (graph.op("Softplus", graph.op("Neg", gate)) for gate in (take, forget))
    share = graph.op("Sigmoid", graph.op("Sub", take, forget))
    h = graph.mix(share, state[0], _positive(graph, candidate))
    return h, (h,)


def _positive(graph: Graph, x: str) -> str:
    above = graph.op("GreaterOrEqual", x, np.float32(0))
    return graph.op("Where", above, graph.op("Add", x, np.float32(0.5)), graph.op("Sigmoid", x))


def _lru(graph: Graph, core: LRUCore, x: str, state: tuple) -> tuple[str, tuple]:
    drive = graph.linear(x, core.into * core.scale.exp().repeat(2).unsqueeze(1))
    size, angle = torch.exp(-core.decay.exp()), core.phase.exp()
    real, imaginary = size * angle.cos(), size * angle.sin()
    a, b = graph.split(state[0], 2)
    along = graph.op("Mul", state[0], torch.cat((real, real)))
    across = graph.op("Mul", graph.op("Concat", b, a, axis=1), torch.cat((-imaginary, imaginary)))
    h = graph.total(along, across, drive)
    return graph.joined(x, h, core.past, core.out_of), (h,)


def _cfc(graph: Graph, core: CfCCore, x: str, state: tuple) -> tuple[str, tuple]:
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


def _zoneout(graph: Graph, core: ZoneoutCore, x: str, state: tuple) -> tuple[str, tuple]:
    _, new = _form(_CORES, core.core)(graph, core.core, x, state)
    shares = zip(state, new, core.share, strict=False)
    kept = tuple(graph.mix(np.float32(share), old, fresh) for old, fresh, share in shares)
    return kept[0], kept


def _stack(graph: Graph, core: StackCore, x: str, state: tuple) -> tuple[str, tuple]:
    states = []
    layers: Any = core.cores
    for layer, before in zip(layers, state, strict=True):
        y, new = _form(_CORES, layer)(graph, layer, x, before)
        x = graph.total(y, x) if core.residual and layer.features == layer.size else y
        states.append(new)
    return x, tuple(states)


_CORES: dict[type[Core], Any] = {
    MemorylessCore: _memoryless,
    RNNCore: _rnn,
    GRUCore: _gru,
    LSTMCore: _lstm,
    MinGRUCore: _min_gru,
    MinLSTMCore: _min_lstm,
    LRUCore: _lru,
    CfCCore: _cfc,
    ZoneoutCore: _zoneout,
    StackCore: _stack,
}


# Heads: (graph, head, feature) -> outputs as (name, type, shape)


def _regression(graph: Graph, head: RegressionHead, feature: str) -> list[tuple]:
    scaled = graph.op("Mul", graph.linear(feature, head.linear.weight, head.linear.bias), head.deviation)
    graph.op("Add", scaled, head.mean, name="prediction")
    return [("prediction", 1, ["batch", len(head.targets)])]


def _classification(graph: Graph, head: Any, feature: str) -> list[tuple]:
    graph.op("Gemm", feature, head.linear.weight, head.linear.bias, transB=1, name="logits")
    if head.symbols is not None:
        graph.op("Gather", head.table, graph.op("ArgMax", "logits", axis=1), name="prediction")
    else:
        graph.op("ArgMax", "logits", axis=1, name="prediction")
    return [("prediction", 7, ["batch", 1]), ("logits", 1, ["batch", head.classes])]


_HEADS: dict[type, Any] = {
    RegressionHead: _regression,
    ClassificationHead: _classification,
    NextSymbolHead: _classification,
}
