"""Recurrences over whole sequences: in C++ where the tensors are float32 on a CPU, else in PyTorch.

`inputs` are the projected inputs W x + b of every step, (batch time gates*hidden). Rows end at their `lengths`:
later outputs are 0 and the state that is given back is that of each row's own last step.
"""

from collections.abc import Callable
from typing import Any

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
    if native is None or len(inputs) * inputs.shape[1] < FEW:
        return False
    given = [inputs, *(t for t in others if t is not None)]
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in given)


def linear(
    x: Float[Tensor, "batch time feature"], weight: Float[Tensor, "out feature"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "batch time out"]:
    """W x + b at every step; about twice as fast as torch's on AMD's CPUs, whose MKL it is slow on."""
    if not usable(x, weight, bias) or torch.is_autocast_enabled(x.device.type) or 0 in (*x.shape, len(weight)):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


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
    if not usable(inputs, recurrent, h, c, projection, peepholes, *(normal or ())):
        return twins.lstm(inputs, recurrent, h, c, lengths, projection, peepholes, normal, epsilon)
    given = recurrent, h, c, lengths, projection, peepholes, *(normal or (None,) * 3), epsilon
    return _Lstm.apply(inputs, None, None, *given)


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
    half = torch.is_autocast_enabled(x.device.type)
    if half or not usable(x, weight, bias, recurrent, h, c, projection, peepholes) or 0 in x.shape:
        inputs = linear(x, weight, bias).to(weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return lstm(inputs, recurrent, h, c, lengths, projection, peepholes)
    return _Lstm.apply(x, weight, bias, recurrent, h, c, lengths, projection, peepholes, None, None, None, 0.0)


def gru(
    inputs: Float[Tensor, "batch time 3*hidden"],
    recurrent: Float[Tensor, "3*hidden hidden"],
    bias: Float[Tensor, "3*hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    reset_after: bool = True,
) -> tuple[Tensor, Tensor]:
    """Outputs and h. Gates in the order r z n; the reset gate acts after the product (cuDNN) or before (Cho 2014)."""
    if not usable(inputs, recurrent, bias, h):
        return twins.gru(inputs, recurrent, bias, h, lengths, reset_after)
    return _Gru.apply(inputs, recurrent, bias, h, lengths, reset_after)


def rnn(
    inputs: Float[Tensor, "batch time hidden"],
    recurrent: Float[Tensor, "hidden hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
    relu: bool = False,
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = tanh(inputs + U h), or relu."""
    if not usable(inputs, recurrent, h):
        return twins.rnn(inputs, recurrent, h, lengths, relu)
    return _Rnn.apply(inputs, recurrent, h, lengths, relu)


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


def _product(a: Tensor, b: Tensor, turned: bool) -> Tensor:
    """a^T b, or a b, of matrices."""
    out = a.new_empty(a.shape[1 if turned else 0], b.shape[1])
    multiply = native.multiply_turned if turned else native.multiply_plain
    _call(multiply, a.contiguous(), b.contiguous(), out)
    return out


def _weight_gradient(gradient: Tensor, states: Tensor) -> Tensor:
    """Sum over batch and time of the outer products."""
    return _product(gradient.flatten(0, 1), states.flatten(0, 1), turned=True)


def _layer_gradients(d: Tensor, x: Tensor, y: Tensor, h0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of input weights, recurrent weights and bias, from the gradient of the gates' sums."""
    gates = d.shape[2]
    dweight, drecurrent, dbias = d.new_empty(gates, x.shape[2]), d.new_empty(gates, y.shape[2]), d.new_empty(gates)
    _call(native.layer_gradients, d, x, y, h0, dweight, drecurrent, dbias)
    return dweight, drecurrent, dbias


def _before(h0: Tensor, y: Tensor) -> Tensor:
    """The state before each step."""
    past = torch.empty_like(y)
    past[:, :1], past[:, 1:] = h0.unsqueeze(1), y[:, :-1]
    return past


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias = _ready(x, weight, bias)
        y = x.new_empty(*x.shape[:2], len(weight))
        _call(native.multiply_transposed, x.flatten(0, 1), weight, bias, y.flatten(0, 1))
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad
        flat = dy.flatten(0, 1)
        dx = _product(flat, weight, turned=False).view_as(x) if to_x else None
        return dx, _weight_gradient(dy, x) if to_weight else None, flat.sum(0) if to_bias else None


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx, x, weight, bias, recurrent, h0, c0, lengths, projection, peepholes, gain, cell_gain, cell_bias, epsilon
    ):
        x, weight, bias, h0, c0, lengths, recurrent, *options = _ready(
            x, weight, bias, h0, c0, lengths, recurrent, projection, peepholes, gain, cell_gain, cell_bias
        )
        batch, time, hidden = *x.shape[:2], c0.shape[1]
        inputs = x
        if weight is not None:
            inputs = x.new_empty(batch, time, 4 * hidden)
            _call(native.multiply_transposed, x.flatten(0, 1), weight, bias, inputs.flatten(0, 1))
        y, h, c = x.new_empty(batch, time, h0.shape[1]), torch.empty_like(h0), torch.empty_like(c0)
        gates = saved = None
        if any(ctx.needs_input_grad):
            gates = inputs if weight is not None else torch.empty_like(inputs)  # In place where they are our own.
            saved = x.new_empty(batch, time, native.lstm_saved(hidden, gain is not None))
        given = inputs, h0, c0, lengths, recurrent, *options
        _call(native.lstm_forward, *given, epsilon, y, h, c, gates, saved)
        ctx.save_for_backward(*given, gates, saved, y, x, weight)
        ctx.epsilon = epsilon
        return y, h, c

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh, dc):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, gates, saved, y, x, weight = ctx.saved_tensors
        inputs, h0, c0, _, _, projection, peepholes, gain, cell_gain, cell_bias = given
        dinputs, dh0, dc0 = torch.empty_like(inputs), torch.empty_like(h0), torch.empty_like(c0)
        dproduct = None if gain is None else torch.empty_like(inputs)
        dprojected: Any = None
        cells: Any = None
        if projection is not None:
            dprojected, cells = torch.empty_like(y), y.new_empty(*y.shape[:2], c0.shape[1])
        extra = [None if t is None else torch.zeros_like(t) for t in (peepholes, gain, cell_gain, cell_bias)]
        _call(native.lstm_backward, *given, ctx.epsilon, gates, saved, *_ready(dy, dh, dc),
            dinputs, dproduct, dprojected, cells, dh0, dc0, *extra,
        )  # fmt: skip
        dprojection = None if projection is None else _weight_gradient(dprojected, cells)
        if weight is None:
            drecurrent = _weight_gradient(dinputs if dproduct is None else dproduct, _before(h0, y))
            return dinputs, None, None, drecurrent, dh0, dc0, None, dprojection, *extra, None
        dweight, drecurrent, dbias = _layer_gradients(dinputs, x, y, h0)
        dx = _product(dinputs.flatten(0, 1), weight, turned=False).view_as(x) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, drecurrent, dh0, dc0, None, dprojection, *extra, None


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, recurrent, bias, h0, lengths, reset_after):  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, h0, lengths, recurrent, bias = given = _ready(inputs, h0, lengths, recurrent, bias)
        y, h = inputs.new_empty(*inputs.shape[:2], h0.shape[1]), torch.empty_like(h0)
        saved = None
        if any(ctx.needs_input_grad):
            saved = inputs.new_empty(*inputs.shape[:2], native.gru_saved(h0.shape[1]))
        _call(native.gru_forward, *given, reset_after, y, h, saved)
        ctx.save_for_backward(*given, saved, y)
        ctx.reset_after = reset_after
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, saved, y = ctx.saved_tensors
        inputs, h0 = given[:2]
        dinputs, dproduct, dh0 = torch.empty_like(inputs), torch.empty_like(inputs), torch.empty_like(h0)
        dreset = None if ctx.reset_after else torch.empty_like(y)
        _call(native.gru_backward, *given, ctx.reset_after, saved, y, *_ready(dy, dh),
            dinputs, dproduct, dreset, dh0,
        )  # fmt: skip
        past = _before(h0, y)
        if dreset is None:
            drecurrent = _weight_gradient(dproduct, past)
        else:
            size = 2 * h0.shape[1]
            parts = _weight_gradient(dproduct[..., :size], past), _weight_gradient(dproduct[..., size:], dreset)
            drecurrent = torch.cat(parts)
        return dinputs, drecurrent, dproduct.sum((0, 1)), dh0, None, None


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, recurrent, h0, lengths, relu):  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, h0, lengths, recurrent = given = _ready(inputs, h0, lengths, recurrent)
        y, h = torch.empty_like(inputs), torch.empty_like(h0)
        _call(native.rnn_forward, *given, relu, y, h)
        ctx.save_for_backward(*given, y)
        ctx.relu = relu
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx, dy, dh):  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, y = ctx.saved_tensors
        h0 = given[1]
        dinputs, dh0 = torch.empty_like(y), torch.empty_like(h0)
        _call(native.rnn_backward, *given, ctx.relu, y, *_ready(dy, dh), dinputs, dh0)
        return dinputs, _weight_gradient(dinputs, _before(h0, y)), dh0, None, None


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
