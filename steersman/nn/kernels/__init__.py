"""Recurrences over whole sequences: in C++ where the tensors are float32 on a CPU, else in PyTorch.

`inputs` are the projected inputs W x + b of every step, (batch time gates*hidden). Rows end at their `lengths`:
later outputs are 0 and the state that is given back is that of each row's own last step.
"""

from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from . import reference

try:
    from . import native  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # Built without a compiler: the reference give the same numbers.
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
    return all(t is None or (t.dtype is torch.float32 and t.is_cpu) for t in (inputs, *others))


def finite(x: Tensor) -> bool:
    """Whether all numbers are."""
    if native is not None and x.dtype is torch.float32 and x.is_cpu and x.is_contiguous():
        return native.finite(x)
    # By the sum, which is quick.
    return isfinite(float(x.detach().sum())) or bool(x.isfinite().all())


def dots() -> bool:
    """Whether this machine multiplies pairs of bfloat16 faster than floats."""
    return native is not None and native.dots()


def _given(x: Tensor, *weights: Tensor | None) -> tuple[Tensor, bool, bool]:
    """The input as the kernels take it, whether they do, and whether in halves.

    Under autocast to bfloat16 the factors of products are rounded to it where that is faster, and all else stays in
    float32.
    """
    if not torch.is_autocast_enabled(x.device.type):
        return x, usable(x, *weights), False
    if x.is_cpu and weights[0] is not None:
        x = x.to(weights[0].dtype)
    half = dots() and torch.get_autocast_dtype(x.device.type) == torch.bfloat16
    return x, usable(x, *weights), half


def cudnn_takes(x: Tensor, lengths: Tensor) -> bool:
    """Whether torch's own layers are the fastest there is: on a GPU, where all rows are full."""
    return x.device.type == "cuda" and bool((lengths == x.shape[1]).all())


def _torchs(layer: Callable[..., Any], x: Tensor, state: Any, weights: list[Tensor]) -> list[Tensor]:
    """What one of torch's layers gives; with gradients cuDNN has to be told that it trains."""
    y, *after = layer(x, state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    return [t.to(weights[0].dtype) for t in (y, *(h[0] for h in after))]


def linear(
    x: Float[Tensor, "batch time feature"], weight: Float[Tensor, "out feature"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "batch time out"]:
    """W x + b at every step, in the precision of the weights; faster than torch's on AMD's CPUs."""
    given, takes, half = _given(x, weight, bias)
    if not takes or not len(weight):
        return F.linear(given, weight, bias).to(weight.dtype)
    return _Linear.apply(given, weight, bias, half)


def lstm_layer(
    x: Float[Tensor, "batch time feature"],
    weight: Float[Tensor, "4*hidden feature"],
    bias: Float[Tensor, "4*hidden"],
    recurrent: Float[Tensor, "4*hidden out"],
    recurrent_bias: Float[Tensor, "4*hidden"],
    h: Float[Tensor, "batch out"],
    c: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    projection: Float[Tensor, "out hidden"] | None = None,
    peepholes: Float[Tensor, "3 hidden"] | None = None,
    normal: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, h and c. Gates in the order i f g o; `peepholes` of i, f, o (Gers & Schmidhuber 2000).

    `normal` is (gains of the normalised W x and U h (4*hidden), gain and bias of the normalised cell (hidden))
    (Ba et al. 2016, equations 20 to 22; the biases are added to their sum).
    """
    weights = weight, bias, recurrent, recurrent_bias
    options = () if projection is peepholes is normal is None else (projection, peepholes, *(normal or (None,) * 4))
    given, takes, half = _given(x, *weights, h, c, *options)
    if takes:
        return _Lstm.apply(given, *weights, h, c, lengths, epsilon, half, *options)
    if peepholes is None and normal is None and cudnn_takes(x, lengths):
        theirs = [weight, recurrent, bias, recurrent_bias, *(() if projection is None else (projection,))]
        y, h, c = _torchs(torch.lstm, given, (h[None], c[None]), theirs)
        return y, h, c
    return _lstm_twin(given, *weights, h, c, lengths, epsilon, half, *options)


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
    weights = weight, bias, recurrent, recurrent_bias
    given, takes, half = _given(x, *weights, h)
    if takes:
        return _Gru.apply(given, *weights, h, lengths, reset_after, half)
    if reset_after and cudnn_takes(x, lengths):
        y, h = _torchs(torch.gru, given, h[None], [weight, recurrent, bias, recurrent_bias])
        return y, h
    return _gru_twin(given, *weights, h, lengths, reset_after)


def rnn_layer(
    x: Float[Tensor, "batch time feature"],
    weight: Float[Tensor, "hidden feature"],
    bias: Float[Tensor, "hidden"],
    recurrent: Float[Tensor, "hidden hidden"],
    recurrent_bias: Float[Tensor, "hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    relu: bool = False,
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = tanh(W x + b + U h + c), or relu."""
    weights = weight, bias, recurrent, recurrent_bias
    given, takes, half = _given(x, *weights, h)
    if takes:
        return _Rnn.apply(given, *weights, h, lengths, relu, half)
    if cudnn_takes(x, lengths):
        layer = torch.rnn_relu if relu else torch.rnn_tanh
        y, h = _torchs(layer, given, h[None], [weight, recurrent, bias, recurrent_bias])
        return y, h
    return _rnn_twin(given, *weights, h, lengths, relu)


def scan(
    a: Float[Tensor, "batch time hidden"],
    b: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = a h + b, element by element."""
    if not usable(a, b, h):
        return reference.scan(a, b, h, lengths)
    return _Scan.apply(a, b, h, lengths, False)


def min_gru(
    gate: Float[Tensor, "batch time hidden"],
    candidate: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = (1 - z) h + z g(candidate), z = sigmoid(gate) (Feng et al. 2024, appendix B)."""
    if not usable(gate, candidate, h):
        return reference.min_gru(gate, candidate, h, lengths)
    return _Scan.apply(gate, candidate, h, lengths, True)


def rotate(
    rotation: Float[Tensor, "2 hidden"],
    inputs: Float[Tensor, "batch time 2*hidden"],
    h: Float[Tensor, "batch 2*hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = r h + input with a complex number r a unit: real parts first, then imaginary ones."""
    if not usable(inputs, rotation, h):
        return reference.rotate(rotation, inputs, h, lengths)
    return _Rotate.apply(rotation, inputs, h, lengths)


def _ready(*tensors: Tensor | None) -> list[Any]:
    """As the kernels take them: contiguous."""
    return [None if t is None else t.contiguous() for t in tensors]


def _differentiable(ctx: Any, twin: Callable[..., Any], given: tuple[Any, ...], *dy: Tensor | None) -> tuple[Any, ...]:
    """The way back through the twin, where it is to be differentiated itself (`create_graph`): the kernels can't be."""
    outputs = twin(*given)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    outputs, dy = zip(*((y, d) for y, d in zip(outputs, dy, strict=True) if d is not None), strict=True)
    wanted = [t for t, needed in zip(given, ctx.needs_input_grad, strict=True) if needed]
    found = iter(torch.autograd.grad(outputs, wanted, dy, create_graph=True, allow_unused=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)


def _call(kernel: Callable[..., None], *given: Any) -> None:
    """The kernel on as many threads as torch has."""
    kernel(*given, torch.get_num_threads())


def _flat(array: Any) -> Any:
    """Batch and time as one axis."""
    return array.reshape(-1, array.shape[-1])


def _empty(*shape: int) -> Tensor:
    """In memory that the kernels keep for the next call once the tensor is gone."""
    return torch.from_numpy(native.scratch(shape))


def _new(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _zeros(*like: Tensor | None) -> list[Any]:
    """Where the kernels add up gradients."""
    return [None if t is None else torch.zeros_like(t, memory_format=torch.contiguous_format) for t in like]


def _keep(ctx: Any, *tensors: Tensor | None) -> None:
    """For the way back, on which what has no gradient is None rather than zeros that would have to be made."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _above(y: Tensor, dy: Tensor | None, *last: Tensor | None) -> list[Any]:
    """Outputs and what comes back to them and to the last states, as the kernels take them."""
    return _ready(y, torch.zeros_like(y) if dy is None else dy, *last)


def _kept(ctx: Any, x: Tensor, numbers: int) -> Any:
    """Memory for what the way back needs, where there will be one; the kernels keep it for the next call."""
    return native.scratch((*x.shape[:2], numbers)) if any(ctx.needs_input_grad) else None


def _linear_twin(x: Tensor, weight: Tensor, bias: Tensor | None, *_: Any) -> Tensor:
    return F.linear(x, weight, bias).to(weight.dtype)


def _lstm_twin(
    x, weight, bias, recurrent, recurrent_bias, h, c, lengths, epsilon, half,
    projection=None, peepholes=None, input_gain=None, gain=None, cell_gain=None, cell_bias=None,
):  # fmt: skip
    bias = bias + recurrent_bias
    product = _linear_twin(x, weight, bias if gain is None else None)
    with torch.autocast(x.device.type, enabled=False):
        if gain is not None:
            product = F.layer_norm(product, bias.shape, input_gain, bias, epsilon)
        normal: Any = None if gain is None else (gain, cell_gain, cell_bias)
        return reference.lstm(product, recurrent, h, c, lengths, projection, peepholes, normal, epsilon)


def _gru_twin(x, weight, bias, recurrent, recurrent_bias, h, lengths, reset_after, *_):
    inputs = _linear_twin(x, weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        return reference.gru(inputs, recurrent, recurrent_bias, h, lengths, reset_after)


def _rnn_twin(x, weight, bias, recurrent, recurrent_bias, h, lengths, relu, *_):
    inputs = _linear_twin(x, weight, bias + recurrent_bias)
    with torch.autocast(x.device.type, enabled=False):
        return reference.rnn(inputs, recurrent, h, lengths, relu)


def _scan_twin(a, b, h, lengths, gated):
    return (reference.min_gru if gated else reference.scan)(a, b, h, lengths)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x, weight, bias)
        ctx.half = half
        x, weight, bias = _ready(x, weight, bias)
        y = _empty(*x.shape[:2], len(weight))
        _call(native.multiply_transposed, _flat(x), weight, bias, _flat(y), half)
        return y

    @staticmethod
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        given = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, _linear_twin, (*given, ctx.half), dy)
        x, weight, _ = _ready(*given)
        to_x, to_weight, to_bias, _ = ctx.needs_input_grad
        (dy,) = _ready(dy)
        dx = _empty(*x.shape) if to_x else None
        dweight = torch.empty_like(weight) if to_weight else None
        if dx is not None:
            _call(native.multiply_plain, _flat(dy), weight, _flat(dx), ctx.half)
        if dweight is not None:
            _call(native.multiply_turned, _flat(dy), _flat(x), dweight, ctx.half)
        return dx, dweight, _flat(dy).sum(0) if to_bias else None, None


NO_OPTIONS = (None,) * 6


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx, x, weight, bias, recurrent, recurrent_bias, h0, c0, lengths, epsilon, half, *options
    ):
        given = x, weight, bias, recurrent, recurrent_bias, h0, c0, lengths
        y, h, c = _empty(*x.shape[:2], h0.shape[1]), _new(h0), _new(c0)
        normal = bool(options) and options[3] is not None
        ctx.kept = _kept(ctx, x, native.lstm_kept(c0.shape[1], normal, half))
        _call(native.lstm_forward, *_ready(*given), *_ready(*options) or NO_OPTIONS, epsilon, y, h, c, ctx.kept, half)
        _keep(ctx, *given, *options, y)
        ctx.epsilon, ctx.half = epsilon, half
        return y, h, c

    @staticmethod
    def backward(ctx, dy, dh, dc):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        given, options = given[:8], given[8:]
        if torch.is_grad_enabled():
            return _differentiable(ctx, _lstm_twin, (*given, ctx.epsilon, ctx.half, *options), dy, dh, dc)
        x, weight, bias, recurrent, _, h0, c0, _ = given
        needs = ctx.needs_input_grad
        dx = _empty(*x.shape) if needs[0] else None
        dweight, dbias, drecurrent, *doptions = _zeros(weight, bias, recurrent, *options)
        dh0, dc0 = _new(h0) if needs[5] else None, _new(c0) if needs[6] else None
        _call(native.lstm_backward, *_ready(*given), *_ready(*options) or NO_OPTIONS, ctx.epsilon, ctx.kept,
            *_above(y, dy, dh, dc), dx, dweight, dbias, drecurrent, dh0, dc0, *doptions or NO_OPTIONS, ctx.half,
        )  # fmt: skip
        return dx, dweight, dbias, drecurrent, dbias, dh0, dc0, None, None, None, *doptions


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, recurrent, recurrent_bias, h0, lengths, reset_after, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        given = x, weight, bias, recurrent, recurrent_bias, h0, lengths
        y, h = _empty(*x.shape[:2], h0.shape[1]), _new(h0)
        ctx.kept = _kept(ctx, x, native.gru_kept(h0.shape[1], half))
        _call(native.gru_forward, *_ready(*given), reset_after, y, h, ctx.kept, half)
        _keep(ctx, *given, y)
        ctx.reset_after, ctx.half = reset_after, half
        return y, h

    @staticmethod
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, _gru_twin, (*given, ctx.reset_after, ctx.half), dy, dh)
        x, weight, bias, recurrent, recurrent_bias, h0, _ = given
        needs = ctx.needs_input_grad
        dx = _empty(*x.shape) if needs[0] else None
        dweight, dbias, drecurrent, drecurrent_bias = _zeros(weight, bias, recurrent, recurrent_bias)
        dh0 = _new(h0) if needs[5] else None
        _call(native.gru_backward, *_ready(*given), ctx.reset_after, ctx.kept, *_above(y, dy, dh),
            dx, dweight, dbias, drecurrent, drecurrent_bias, dh0, ctx.half,
        )  # fmt: skip
        return dx, dweight, dbias, drecurrent, drecurrent_bias, dh0, None, None, None


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, recurrent, recurrent_bias, h0, lengths, relu, half):  # pyright: ignore[reportIncompatibleMethodOverride]
        given = x, weight, bias, recurrent, recurrent_bias, h0, lengths
        y, h = _empty(*x.shape[:2], h0.shape[1]), _new(h0)
        _call(native.rnn_forward, *_ready(*given), relu, y, h, half)
        _keep(ctx, *given, y)
        ctx.relu, ctx.half = relu, half
        return y, h

    @staticmethod
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, _rnn_twin, (*given, ctx.relu, ctx.half), dy, dh)
        x, weight, bias, recurrent, _, h0, _ = given
        needs = ctx.needs_input_grad
        dx = _empty(*x.shape) if needs[0] else None
        dweight, dbias, drecurrent = _zeros(weight, bias, recurrent)
        dh0 = _new(h0) if needs[5] else None
        _call(native.rnn_backward, *_ready(*given), ctx.relu, *_above(y, dy, dh),
            dx, dweight, dbias, drecurrent, dh0, ctx.half,
        )  # fmt: skip
        return dx, dweight, dbias, drecurrent, dbias, dh0, None, None, None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, h0, lengths, gated):  # pyright: ignore[reportIncompatibleMethodOverride]
        given = a, b, h0, lengths
        y, h = _new(a), _new(h0)
        _call(native.scan_forward, *_ready(*given), gated, y, h)
        _keep(ctx, *given, y)
        ctx.gated = gated
        return y, h

    @staticmethod
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, _scan_twin, (*given, ctx.gated), dy, dh)
        a, b, h0, _ = given
        da, db, dh0 = _new(a), _new(b), _new(h0)
        _call(native.scan_backward, *_ready(*given), ctx.gated, *_above(y, dy, dh), da, db, dh0)
        return da, db, dh0, None, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rotation, inputs, h0, lengths):  # pyright: ignore[reportIncompatibleMethodOverride]
        given = rotation, inputs, h0, lengths
        y, h = _new(inputs), _new(h0)
        _call(native.rotate_forward, *_ready(*given), y, h)
        _keep(ctx, *given, y)
        return y, h

    @staticmethod
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable(ctx, reference.rotate, tuple(given), dy, dh)
        rotation, inputs, h0, _ = given
        (drotation,), dinputs, dh0 = _zeros(rotation), _new(inputs), _new(h0)
        _call(native.rotate_backward, *_ready(*given), *_above(y, dy, dh), drotation, dinputs, dh0)
        return drotation, dinputs, dh0, None
