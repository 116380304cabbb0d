"""Recurrences over whole sequences: in C++ where the tensors are float32 on a CPU, else in PyTorch.

`inputs` are the projected inputs W x + b of every step, (batch time gates*hidden). Rows end at their `lengths`:
later outputs are 0 and the state that is given back is that of each row's own last step.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import twins

try:
    from . import native  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # Built without a compiler: the twins give the same numbers.
    native: Any = None


def available() -> list[str]:
    """Instruction sets the kernels can use here, slowest first; empty where they were not built."""
    return native.levels() if native else []


FEW = 8
"""Steps of all rows below which the kernels' packing of the weights costs more than it saves."""


def usable(inputs: Tensor, *others: Tensor | None) -> bool:
    """Whether the C++ kernels take these tensors, and are worth it for so few steps."""
    if native is None or len(inputs) * inputs.shape[1] < FEW or 0 in inputs.shape:
        return False
    given = [inputs, *(t for t in others if t is not None)]
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in given)


def dots() -> bool:
    """Whether this machine multiplies pairs of bfloat16 faster than floats."""
    return native is not None and native.dots()


def _given(x: Tensor, *weights: Tensor | None) -> tuple[Tensor, bool, bool]:
    """The input as the kernels take it, whether they do, and whether in halves.

    Under autocast to bfloat16 the factors of products are rounded to it where that is faster, and all else stays in
    float32.
    """
    asked = torch.is_autocast_enabled(x.device.type)
    if asked and x.device.type == "cpu" and weights[0] is not None:
        x = x.to(weights[0].dtype)
    half = asked and dots() and torch.get_autocast_dtype(x.device.type) == torch.bfloat16
    return x, usable(x, *weights), half


def linear(
    x: Float[Tensor, "batch time feature"], weight: Float[Tensor, "out feature"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "batch time out"]:
    """W x + b at every step, in the precision of the weights; faster than torch's on AMD's CPUs."""
    given, takes, half = _given(x, weight, bias)
    if not takes or not len(weight):
        return F.linear(given, weight, bias).to(weight.dtype)
    return _Linear.apply(given, weight, bias, half)


def lstm(
    inputs: Float[Tensor, "batch time 4*hidden"],
    recurrent: Float[Tensor, "4*hidden out"],
    h: Float[Tensor, "batch out"],
    c: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    projection: Float[Tensor, "out hidden"] | None = None,
    peepholes: Float[Tensor, "3 hidden"] | None = None,
    normal: tuple[Tensor, Tensor, Tensor] | None = None,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, h and c. Gates in the order i f g o; `peepholes` of i, f, o (Gers & Schmidhuber 2000).

    `normal` is (gain of the normalised U h (4*hidden), gain and bias of the normalised cell (hidden))
    (Ba et al. 2016, equations 20 to 22; the bias of U h is that of `inputs`).
    """
    given, takes, half = _given(inputs, recurrent, h, c, projection, peepholes, *(normal or ()))
    options = recurrent, h, c, lengths, projection, peepholes
    if takes:
        return _Lstm.apply(given, None, None, *options, *(normal or (None,) * 3), epsilon, half)
    with torch.autocast(inputs.device.type, enabled=False):
        return twins.lstm(inputs, *options, normal, epsilon)


def lstm_layer(
    x: Float[Tensor, "batch time feature"],
    weight: Float[Tensor, "4*hidden feature"],
    bias: Float[Tensor, "4*hidden"],
    recurrent: Float[Tensor, "4*hidden out"],
    h: Float[Tensor, "batch out"],
    c: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    projection: Float[Tensor, "out hidden"] | None = None,
    peepholes: Float[Tensor, "3 hidden"] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`lstm` of `linear(x, weight, bias)`; in the kernels the gradients of all weights come from one pass."""
    options = recurrent, h, c, lengths, projection, peepholes
    given, takes, half = _given(x, weight, bias, *options[:3], projection, peepholes)
    if not takes:
        return lstm(linear(x, weight, bias), *options)
    return _Lstm.apply(given, weight, bias, *options, None, None, None, 0.0, half)


def gru_layer(
    x: Float[Tensor, "batch time feature"],
    weight: Float[Tensor, "3*hidden feature"],
    bias: Float[Tensor, "3*hidden"],
    recurrent: Float[Tensor, "3*hidden hidden"],
    recurrent_bias: Float[Tensor, "3*hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    reset_after: bool = True,
) -> tuple[Tensor, Tensor]:
    """Outputs and h. Gates in the order r z n; the reset gate acts after the product (cuDNN) or before (Cho 2014)."""
    options = recurrent, recurrent_bias, h, lengths, reset_after
    given, takes, half = _given(x, weight, bias, recurrent, recurrent_bias, h)
    if takes:
        return _Gru.apply(given, weight, bias, *options, half)
    inputs = F.linear(given, weight, bias).to(weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return twins.gru(inputs, *options)


def rnn_layer(
    x: Float[Tensor, "batch time feature"],
    weight: Float[Tensor, "hidden feature"],
    bias: Float[Tensor, "hidden"],
    recurrent: Float[Tensor, "hidden hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    relu: bool = False,
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = tanh(W x + b + U h), or relu."""
    given, takes, half = _given(x, weight, bias, recurrent, h)
    if takes:
        return _Rnn.apply(given, weight, bias, recurrent, h, lengths, relu, half)
    inputs = F.linear(given, weight, bias).to(weight.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return twins.rnn(inputs, recurrent, h, lengths, relu)


def scan(
    a: Float[Tensor, "batch time hidden"],
    b: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = a h + b, element by element."""
    if not usable(a, b, h):
        return twins.scan(a, b, h, lengths)
    return _Scan.apply(a, b, h, lengths, False)


def min_gru(
    gate: Float[Tensor, "batch time hidden"],
    candidate: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = (1 - z) h + z g(candidate), z = sigmoid(gate) (Feng et al. 2024, appendix B)."""
    if not usable(gate, candidate, h):
        return twins.min_gru(gate, candidate, h, lengths)
    return _Scan.apply(gate, candidate, h, lengths, True)


def rotate(
    rotation: Float[Tensor, "2 hidden"],
    inputs: Float[Tensor, "batch time 2*hidden"],
    h: Float[Tensor, "batch 2*hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = r h + input with a complex number r a unit: real parts first, then imaginary ones."""
    if not usable(inputs, rotation, h):
        return twins.rotate(rotation, inputs, h, lengths)
    return _Rotate.apply(rotation, inputs, h, lengths)


def _ready(*tensors: Tensor | None) -> list[Any]:
    """As the kernels take them: without a graph, contiguous."""
    return [None if t is None else t.detach().contiguous() for t in tensors]


def _call(kernel: Callable[..., None], *given: Any) -> None:
    """The kernel on as many threads as torch has; it takes NumPy's arrays in a tenth of the time of torch's."""
    kernel(*[t.numpy() if isinstance(t, Tensor) else t for t in given], torch.get_num_threads())


def _flat(array: Any) -> Any:
    """Batch and time as one axis."""
    return array.reshape(-1, array.shape[-1])


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _projected(x: Tensor, weight: Tensor, bias: Tensor | None, half: bool) -> Any:
    """W x + b in memory that the kernels keep for the next call."""
    out = native.scratch((*x.shape[:2], len(weight)))
    _call(native.multiply_transposed, _flat(x), weight, bias, _flat(out), half)
    return out


def _input_gradient(d: Any, weight: Tensor, x: Tensor, half: bool) -> Tensor:
    dx = torch.empty_like(x)
    _call(native.multiply_plain, _flat(d), weight, _flat(dx), half)
    return dx


def _weight_gradient(d: Any, x: Any, half: bool) -> Tensor:
    """Sum over batch and time of the outer products."""
    out = _empty(d.shape[-1], x.shape[-1])
    _call(native.multiply_turned, _flat(d), _flat(x), out, half)
    return out


def _layer_gradients(
    d: Any, x: Tensor | None, y: Tensor, h0: Tensor, half: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Of input weights, recurrent weights and bias, from the gradient of the gates' sums."""
    gates = d.shape[2]
    dweight = None if x is None else _empty(gates, x.shape[2])
    drecurrent, dbias = _empty(gates, y.shape[2]), _empty(gates)
    _call(native.layer_gradients, d, x, y, h0, dweight, drecurrent, dbias, half)
    return dweight, drecurrent, dbias


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias = _ready(x, weight, bias)
        y = x.new_empty(*x.shape[:2], len(weight))
        _call(native.multiply_transposed, _flat(x), weight, bias, _flat(y), half)
        ctx.save_for_backward(x, weight)
        ctx.half = half
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        (dy,) = _ready(dy)
        dx = _input_gradient(dy, weight, x, ctx.half) if to_x else None
        dweight = _weight_gradient(dy, x, ctx.half) if to_weight else None
        return dx, dweight, _flat(dy).sum(0) if to_bias else None, None


class _Lstm(torch.autograd.Function):
    """Of the gates' sums, where there is no weight; else of a layer's input."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx, x, weight, bias, recurrent, h0, c0, lengths, projection, peepholes, gain, cell_gain, cell_bias, epsilon,
        half,
    ):  # fmt: skip
        x, weight, bias, h0, c0, lengths, recurrent, *options = _ready(
            x, weight, bias, h0, c0, lengths, recurrent, projection, peepholes, gain, cell_gain, cell_bias
        )
        batch, time, hidden = *x.shape[:2], c0.shape[1]
        inputs = x if weight is None else _projected(x, weight, bias, half)
        y, h, c = x.new_empty(batch, time, h0.shape[1]), torch.empty_like(h0), torch.empty_like(c0)
        ctx.gates = ctx.saved = None
        if any(ctx.needs_input_grad):
            ctx.gates = native.scratch(inputs.shape) if weight is None else inputs  # In place where they are our own.
            ctx.saved = native.scratch((batch, time, native.lstm_saved(hidden, gain is not None)))
        given = h0, c0, lengths, recurrent, *options
        _call(native.lstm_forward, inputs, *given, epsilon, y, h, c, ctx.gates, ctx.saved, half)
        ctx.save_for_backward(*given, y, x, weight)
        ctx.epsilon, ctx.half = epsilon, half
        return y, h, c

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh, dc):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y, x, weight = ctx.saved_tensors
        h0, c0, _, _, projection, peepholes, gain, cell_gain, cell_bias = given
        half, shape = ctx.half, ctx.gates.shape
        # What is given back is torch's, what is not comes from the kernels' own memory.
        dinputs: Any = _empty(*shape) if weight is None else native.scratch(shape)
        dproduct = None if gain is None else native.scratch(shape)
        dh0, dc0 = torch.empty_like(h0), torch.empty_like(c0)
        dprojected = None if projection is None else native.scratch(y.shape)
        cells = None if projection is None else native.scratch((*y.shape[:2], c0.shape[1]))
        extra = [None if t is None else torch.zeros_like(t) for t in (peepholes, gain, cell_gain, cell_bias)]
        _call(native.lstm_backward, ctx.gates, *given, ctx.epsilon, ctx.gates, ctx.saved, *_ready(dy, dh, dc),
            dinputs, dproduct, dprojected, cells, dh0, dc0, *extra, half,
        )  # fmt: skip
        dprojection = None if projection is None else _weight_gradient(dprojected, cells, half)
        d = dinputs if dproduct is None else dproduct
        dweight, drecurrent, dbias = _layer_gradients(d, None if weight is None else x, y, h0, half)
        dx = dinputs
        if weight is None:
            dbias = None
        else:
            dx = _input_gradient(dinputs, weight, x, half) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, drecurrent, dh0, dc0, None, dprojection, *extra, None, None


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, recurrent, recurrent_bias, h0, lengths, reset_after, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, h0, lengths, recurrent, recurrent_bias = _ready(
            x, weight, bias, h0, lengths, recurrent, recurrent_bias
        )
        ctx.inputs = _projected(x, weight, bias, half)
        y, h = x.new_empty(*x.shape[:2], h0.shape[1]), torch.empty_like(h0)
        ctx.saved = None
        if any(ctx.needs_input_grad):
            ctx.saved = native.scratch((*x.shape[:2], native.gru_saved(h0.shape[1])))
        given = h0, lengths, recurrent, recurrent_bias
        _call(native.gru_forward, ctx.inputs, *given, reset_after, y, h, ctx.saved, half)
        ctx.save_for_backward(*given, y, x, weight)
        ctx.reset_after, ctx.half = reset_after, half
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y, x, weight = ctx.saved_tensors
        h0, half, shape = given[0], ctx.half, ctx.inputs.shape
        dinputs, dproduct, dh0 = native.scratch(shape), native.scratch(shape), torch.empty_like(h0)
        dreset = None if ctx.reset_after else native.scratch(y.shape)
        _call(native.gru_backward, ctx.inputs, *given, ctx.reset_after, ctx.saved, y, *_ready(dy, dh),
            dinputs, dproduct, dreset, dh0, half,
        )  # fmt: skip
        _, drecurrent, drecurrent_bias = _layer_gradients(dproduct, None, y, h0, half)
        size = 2 * h0.shape[1]
        if dreset is not None:  # The candidate's product is with r h instead of h.
            drecurrent[size:] = _weight_gradient(np.ascontiguousarray(dproduct[..., size:]), dreset, half)
        dweight = _weight_gradient(dinputs, x, half)
        dbias = drecurrent_bias.clone()  # Only the candidate's product is multiplied by r before it is summed up.
        dbias[size:] = torch.from_numpy(_flat(dinputs)[:, size:].sum(0))
        dx = _input_gradient(dinputs, weight, x, half) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, drecurrent, drecurrent_bias, dh0, None, None, None


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, recurrent, h0, lengths, relu, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias, h0, lengths, recurrent = _ready(x, weight, bias, h0, lengths, recurrent)
        given = _projected(x, weight, bias, half), h0, lengths, recurrent
        y, h = x.new_empty(*x.shape[:2], h0.shape[1]), torch.empty_like(h0)
        _call(native.rnn_forward, *given, relu, y, h, half)
        ctx.save_for_backward(h0, lengths, recurrent, y, x, weight)
        ctx.relu, ctx.half = relu, half
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y, x, weight = ctx.saved_tensors
        h0, half = given[0], ctx.half
        dinputs, dh0 = native.scratch(y.shape), torch.empty_like(h0)
        _call(native.rnn_backward, y, *given, ctx.relu, y, *_ready(dy, dh), dinputs, dh0, half)
        dweight, drecurrent, dbias = _layer_gradients(dinputs, x, y, h0, half)
        dx = _input_gradient(dinputs, weight, x, half) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, drecurrent, dh0, None, None, None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, h0, lengths, gated):  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b, h0, lengths = given = _ready(a, b, h0, lengths)
        y, h = torch.empty_like(a), torch.empty_like(h0)
        _call(native.scan_forward, *given, gated, y, h)
        ctx.save_for_backward(*given, y)
        ctx.gated = gated
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        a, b, h0, _ = given
        da, db, dh0 = torch.empty_like(a), torch.empty_like(b), torch.empty_like(h0)
        _call(native.scan_backward, *given, ctx.gated, y, *_ready(dy, dh), da, db, dh0)
        return da, db, dh0, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rotation, inputs, h0, lengths):  # pyright: ignore[reportIncompatibleMethodOverride]
        rotation, inputs, h0, lengths = given = _ready(rotation, inputs, h0, lengths)
        y, h = torch.empty_like(inputs), torch.empty_like(h0)
        _call(native.rotate_forward, *given, y, h)
        ctx.save_for_backward(*given, y)
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        rotation, inputs, h0, _ = given
        drotation, dinputs, dh0 = torch.zeros_like(rotation), torch.empty_like(inputs), torch.empty_like(h0)
        _call(native.rotate_backward, *given, y, *_ready(dy, dh), dinputs, dh0, drotation)
        return drotation, dinputs, dh0, None
