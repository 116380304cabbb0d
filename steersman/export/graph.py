"""One step of a model as an ONNX graph: a raw step and the state in, the prediction and the new state out.

Written operator by operator, with no tracer: nothing of it depends on what was traced before, and every part says in
a few lines what it computes.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from ..nn.cores import State, map_state, state_tensors
from ..nn.encoders import EmbeddingEncoder, IdentityEncoder, reads_symbols
from ..nn.foreground import ForegroundEncoder
from ..nn.forms import Graph, onnx_form
from ..nn.heads import ClassificationHead, NextSymbolHead, RegressionHead, tells_symbols
from ..nn.model import Model, SequenceModel
from ..nn.pictures import ConvEncoder, Picture, PictureEncoder, RoadTexture, Texture

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET, IR = 18, 9
"""What onnxruntime 1.20 reads, and those after it."""
PREPARED = "prepared"
"""The tensor after all that has no weights: integers, where the raw step is a picture or a text."""


def step_graph(model: Model) -> "ModelProto":
    """The ONNX model. UserError where the model can't be stepped or has a part without a form here."""
    from onnx import checker, helper

    check_steps(model)
    graph = Graph()
    raw = helper.make_tensor_value_info(*_input(model))
    before = model.initial(1)
    names = state_names(before)
    state = _named(before, iter(names))
    graph.part = "encoder"
    feature, encoder_state = onnx_form.of(model.encoder)(graph, model.encoder, raw.name, state[0])
    graph.part = "core"
    y, core_state = onnx_form.of(model.core)(graph, model.core, feature, state[1])
    if type(model) in onnx_form.known:
        encoder_state = onnx_form.of(model)(graph, model, y, encoder_state)
    graph.part = "head"
    shown = graph.op("Concat", y, feature, axis=1) if model.skip else y
    outputs = onnx_form.of(model.head)(graph, model.head, shown)
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
    if model.inputs:
        names = ", ".join(model.inputs)
        raise UserError(
            f"this model can't be exported: it takes several inputs ({names}), which have no form in ONNX here"
        )
    if model.feedback:
        raise UserError("this model can't be exported: that it is fed its own last prediction has no form in ONNX here")


def state_names(state: State) -> list[str]:
    """`state_0`, `state_1`, ... in the order of the model's own state: the encoder's, then the core's, lowest first."""
    return [f"state_{i}" for i in range(len(state_tensors(state)))]


def after(name: str) -> str:
    """The output that is fed back into the input of this name."""
    return f"next_{name}"


def _named(state: State, names: Iterator[str]) -> State:
    return map_state(lambda _: next(names), state)


def _flat(state: State) -> Iterable[str]:
    return [state] if isinstance(state, str) else [name for part in state for name in _flat(part)]


def _input(model: Model) -> tuple[str, int, list[int | str]]:
    """Name, type (ONNX's number of it) and shape."""
    if isinstance(model.encoder, PictureEncoder):
        return "frame", 2, ["batch", *model.encoder.raw]
    if reads_symbols(model.encoder):
        return "token", 7, ["batch", 1]
    return "features", 1, ["batch", *model.encoder.raw]


# Encoders: (graph, encoder, raw step, state) -> (feature, state)


@onnx_form(IdentityEncoder)
def _identity(graph: Graph, encoder: IdentityEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    return graph.op("Div", graph.op("Sub", raw, encoder.mean), encoder.deviation), ()


@onnx_form(EmbeddingEncoder)
def _embedding(graph: Graph, encoder: EmbeddingEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    """A code point's class is the place of the one that it equals, counted from 1; 0 where there is none."""
    classes = raw
    if encoder.symbols.characters:
        num = len(encoder.symbols)
        same = graph.op("Equal", raw, encoder.symbols.codes(np.arange(1, num))[None])
        places = graph.op("Mul", graph.op("Cast", same, to=7), np.arange(1, num)[None])
        classes = graph.op("ReduceSum", places, np.array([1]), name=PREPARED, keepdims=1)
    return graph.op("Gather", encoder.vectors.weight, graph.op("Squeeze", classes, np.array([1]))), ()


@onnx_form(ConvEncoder)
def _conv(graph: Graph, encoder: ConvEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    """The normaliser is part of the first convolution's weights, for no picture is padded."""
    picture = onnx_form.of(encoder.spec.pixels)(graph, encoder, raw)
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
            assert bias is not None
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


@onnx_form(Picture)
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


@onnx_form(ForegroundEncoder)
def _foreground(graph: Graph, encoder: ForegroundEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    picture = graph.floats(onnx_form.of(encoder.spec.pixels)(graph, encoder, raw))
    apart = graph.op("Abs", graph.op("Sub", picture, encoder.background))
    apart = graph.op("Unsqueeze", graph.op("ReduceMax", apart, np.array([3]), keepdims=0), np.array([1]))
    smooth = graph.op("AveragePool", apart, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)
    there = graph.op("Sigmoid", graph.op("Sub", smooth, np.float32(encoder.spec.threshold)))
    rows = graph.op("Div", graph.op("ReduceMean", there, np.array([3]), keepdims=0), encoder.sizes())
    people = graph.op("ReduceMean", rows, np.array([2]), keepdims=0)
    return graph.op("Div", graph.op("Sub", people, encoder.mean), encoder.deviation), state


@onnx_form(RoadTexture)
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


@onnx_form(Texture)
def _texture(graph: Graph, encoder: ConvEncoder, raw: str) -> str:
    height, width, _ = encoder.picture
    x = graph.floats(graph.op("Slice", raw, np.zeros(2, int), np.array([2 * height, 2 * width]), np.array([1, 2])))
    x = graph.op("Reshape", x, np.array([0, height, 2, width, 2, 3]))
    x = graph.op("ReduceSum", x, np.array([2, 4]), keepdims=0)
    grey = graph.op("Transpose", graph.op("ReduceSum", x, np.array([3]), keepdims=1), perm=[0, 3, 1, 2])
    wide = graph.op("Pad", grey, np.array([0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
    around = graph.op("Conv", wide, np.ones((1, 1, 5, 5), np.float32), kernel_shape=[5, 5])
    fine = graph.op("Sub", graph.op("Mul", grey, np.float32(25)), around)
    fine = graph.op("Add", graph.op("Mul", fine, np.float32(encoder.spec.pixels.scale)), np.float32(128))
    fine = graph.op("Transpose", graph.op("Clip", fine, np.float32(0), np.float32(255)), perm=[0, 2, 3, 1])
    seen = graph.op("Concat", graph.op("Div", x, np.float32(4)), fine, axis=3)
    return graph.op("Cast", graph.op("Round", seen), to=2, name=PREPARED)


# Heads: (graph, head, feature) -> outputs as (name, type, shape)


@onnx_form(RegressionHead)
def _regression(graph: Graph, head: RegressionHead, feature: str) -> list[tuple]:
    scaled = graph.op("Mul", graph.linear(feature, head.linear.weight, head.linear.bias), head.deviation)
    graph.op("Add", scaled, head.mean, name="prediction")
    return [("prediction", 1, ["batch", len(head.targets)])]


@onnx_form(ClassificationHead, NextSymbolHead)
def _classification(graph: Graph, head: ClassificationHead, feature: str) -> list[tuple]:
    graph.op("Gemm", feature, head.linear.weight, head.linear.bias, transB=1, name="logits")
    if tells_symbols(head):
        graph.op("Gather", head.table, graph.op("ArgMax", "logits", axis=1), name="prediction")
    else:
        graph.op("ArgMax", "logits", axis=1, name="prediction")
    return [("prediction", 7, ["batch", 1]), ("logits", 1, ["batch", head.classes])]
