"""Recurrences over whole sequences: in C++ where the tensors are float32 on a CPU, else in PyTorch.

`inputs` are the projected inputs W x + b of every step, (batch time gates*hidden). Rows end at their `lengths`:
later outputs are 0, the state that is given back is that of each row's own last step, and what is given beyond them is
never read: it may be NaN.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from . import reference


def _compiled() -> Any:
    """The module of the kernels; None where there was no compiler: the reference gives the same numbers."""
    try:
        return import_module(f"{__name__}.native")
    except ImportError:
        return None


native = _compiled()


def available() -> list[str]:
    """Instruction sets the kernels can use here, slowest first; empty where they were not built."""
    return native.levels() if native else []


FEW = 8
"""Steps of all rows below which the kernels' packing of the weights costs more than it saves."""


def usable(inputs: Tensor, *others: Tensor | None) -> bool:
    """Whether the C++ kernels take these tensors, and are worth it for so few steps."""
    if native is None or watched() or len(inputs) * inputs.shape[1] < FEW or 0 in inputs.shape:
        return False
    return all(t is None or (t.dtype is torch.float32 and t.is_cpu and _plain(t)) for t in (inputs, *others))


_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)  # torch 2.6 has the second alone.


def watched() -> bool:
    """Whether something follows or changes torch's own operations, which the kernels would hide from it.

    torch.func and vmap, derivatives forwards, torch.export, torch.jit.trace, and any TorchDispatchMode.
    """
    return (
        _is_exporting()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def _plain(t: Any) -> bool:
    """Whether its operations are torch's own, and not those of a subclass (`FakeTensor`)."""
    return type(t).__torch_dispatch__ is _OWN


_OWN = vars(Tensor)["__torch_dispatch__"]


def finite(x: Tensor) -> bool:
    """Whether all numbers are; it is taken to be so where values can't be looked at."""
    if watched() or not _plain(x):
        return True
    if native is not None and x.dtype is torch.float32 and x.is_cpu and x.is_contiguous():
        return native.finite(x)
    # By the sum, which is quick.
    return isfinite(float(x.detach().sum())) or bool(x.isfinite().all())


def dots() -> bool:
    """Whether this machine multiplies pairs of bfloat16 faster than floats."""
    return native is not None and native.dots()


def _dispatch(x: Tensor, *weights: Tensor | None) -> tuple[Tensor, bool, bool]:
    """The input in its precision, whether the kernels take it, and whether in halves.

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
    return x.device.type == "cuda" and not watched() and bool((lengths == x.shape[1]).all())


def _torchs(layer: Callable[..., tuple], x: Tensor, state: object, weights: list[Tensor]) -> list[Tensor]:
    """What one of torch's layers gives; with gradients cuDNN has to be told that it trains."""
    y, *after = layer(x, state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    return [t.to(weights[0].dtype) for t in (y, *(h[0] for h in after))]


def linear(
    x: Float[Tensor, "batch time feature"], weight: Float[Tensor, "out feature"], bias: Float[Tensor, "out"] | None
) -> Float[Tensor, "batch time out"]:
    """W x + b at every step, in the precision of the weights; faster than torch's on AMD's CPUs."""
    x, takes, half = _dispatch(x, weight, bias)
    operation = _Linear(half)
    if not takes or not len(weight):
        return operation.reference((x, weight, bias))[0]
    return _Differentiable.apply(operation, x, weight, bias)[0]


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
    options = projection, peepholes, *(normal or (None,) * 4)
    x, takes, half = _dispatch(x, weight, bias, recurrent, recurrent_bias, h, c, *options)
    lasting: Tensor | None = lengths
    if takes and x.shape[1] == 1 and torch.is_grad_enabled():  # To pack the weights costs more than one step.
        takes, lasting = False, None if bool(lengths.all()) else lengths
    given = x, weight, bias, recurrent, recurrent_bias, h, c, lasting, *options
    if takes:
        return _Differentiable.apply(_Lstm(epsilon, half), *given)
    if peepholes is None and normal is None and cudnn_takes(x, lengths):
        theirs = [weight, recurrent, bias, recurrent_bias, *(() if projection is None else (projection,))]
        y, h, c = _torchs(torch.lstm, x, (h[None], c[None]), theirs)
        return y, h, c
    return _Lstm(epsilon, half).reference(given)


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
    x, takes, half = _dispatch(x, weight, bias, recurrent, recurrent_bias, h)
    given = x, weight, bias, recurrent, recurrent_bias, h, lengths
    if takes:
        return _Differentiable.apply(_Gru(reset_after, half), *given)
    if reset_after and cudnn_takes(x, lengths):
        y, h = _torchs(torch.gru, x, h[None], [weight, recurrent, bias, recurrent_bias])
        return y, h
    return _Gru(reset_after, half).reference(given)


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
    x, takes, half = _dispatch(x, weight, bias, recurrent, recurrent_bias, h)
    given = x, weight, bias, recurrent, recurrent_bias, h, lengths
    if takes:
        return _Differentiable.apply(_Rnn(relu, half), *given)
    if cudnn_takes(x, lengths):
        layer = torch.rnn_relu if relu else torch.rnn_tanh
        y, h = _torchs(layer, x, h[None], [weight, recurrent, bias, recurrent_bias])
        return y, h
    return _Rnn(relu, half).reference(given)


def scan(
    a: Float[Tensor, "batch time hidden"],
    b: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = a h + b, element by element."""
    if not usable(a, b, h):
        return _Scan(False).reference((a, b, h, lengths))
    return _Differentiable.apply(_Scan(False), a, b, h, lengths)


def min_gru(
    gate: Float[Tensor, "batch time hidden"],
    candidate: Float[Tensor, "batch time hidden"],
    h: Float[Tensor, "batch hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = (1 - z) h + z g(candidate), z = sigmoid(gate) (Feng et al. 2024, appendix B)."""
    if not usable(gate, candidate, h):
        return _Scan(True).reference((gate, candidate, h, lengths))
    return _Differentiable.apply(_Scan(True), gate, candidate, h, lengths)


def rotate(
    rotation: Float[Tensor, "2 hidden"],
    inputs: Float[Tensor, "batch time 2*hidden"],
    h: Float[Tensor, "batch 2*hidden"],
    lengths: Int[Tensor, "batch"],
) -> tuple[Tensor, Tensor]:
    """Outputs and h of h = r h + input with a complex number r a unit: real parts first, then imaginary ones."""
    if not usable(inputs, rotation, h):
        return _Rotate().reference((rotation, inputs, h, lengths))
    return _Differentiable.apply(_Rotate(), rotation, inputs, h, lengths)


Tensors = Sequence[Any]
"""Tensors; None where there is none."""


class _Operation(ABC):
    """A kernel, its way back, and the same in PyTorch; each is given the tensors that it was called with."""

    keeps_output = True
    """Whether the way back needs the outputs."""

    @abstractmethod
    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        """Outputs, and memory for the way back where there will be one."""

    @abstractmethod
    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        """A gradient, or None, for each of what was given; outputs come with their gradients, those of all steps first.

        `needs` says for which of them one is needed.
        """

    @abstractmethod
    def formula(self, given: Tensors) -> tuple[Tensor, ...]:
        """The outputs in PyTorch."""

    def reference(self, given: Tensors) -> Any:
        """The outputs by the formula, to which what lies beyond a row's length is 0: 0 times NaN would be NaN."""
        lengths = next((t for t in given if t is not None and not t.is_floating_point()), None)
        if lengths is None:
            return self.formula(given)
        return self.formula([t if t is None or t.ndim < 3 else reference.sound(t, lengths) for t in given])


class _Differentiable(torch.autograd.Function):
    """An operation that autograd knows."""

    @staticmethod
    def forward(ctx: Any, operation: _Operation, *given: Tensor | None) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # What has no gradient is None rather than zeros that would have to be made.
        outputs, ctx.memory = operation.forward(_contiguous(*given), any(ctx.needs_input_grad))
        ctx.operation = operation
        ctx.save_for_backward(*given, outputs[0] if operation.keeps_output else None)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        *given, y = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled() or watched() or any(map(_batched, gradients)):
            return None, *_through_reference(ctx.operation, given, needs, gradients)
        first, *last = gradients
        if first is None:
            assert y is not None
            first = torch.zeros_like(y)
        outputs = _contiguous(y, first, *last)
        return None, *ctx.operation.backward(_contiguous(*given), needs, ctx.memory, outputs)


def _through_reference(operation: _Operation, given: Tensors, needs: Sequence[bool], gradients: Tensors) -> Tensors:
    """The way back where it is to be differentiated itself (`create_graph`), or runs under vmap: the kernels can't.

    Gradients are taken of each tensor as it is given here: one that was made from another would count in both.
    """
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        own = [t.view_as(t) if needed else t for t, needed in zip(given, needs, strict=True)]
        pairs = [(y, d) for y, d in zip(operation.reference(own), gradients, strict=True) if d is not None]
    wanted = [t for t, needed in zip(own, needs, strict=True) if needed]
    outputs, gradients = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, gradients, create_graph=again, allow_unused=True))
    return [next(found) if needed else None for needed in needs]


def _batched(gradient: Tensor | None) -> bool:
    """Whether it holds those of several ways back at once (`is_grads_batched`)."""
    return gradient is not None and is_legacy_batchedtensor(gradient)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def _call(kernel: Callable[..., None], *given: object) -> None:
    """The kernel on as many threads as torch has."""
    kernel(*given, torch.get_num_threads())


def _rows(array: Any) -> Any:
    """Batch and time as one axis."""
    return array.reshape(-1, array.shape[-1])


def _scratch(*shape: int) -> Tensor:
    """A tensor in memory that the kernels keep for the next call once the tensor is gone."""
    return torch.from_numpy(native.scratch(shape))


def _memory(trains: bool, x: Tensor, numbers: int) -> object:
    """Memory for what each step keeps for the way back, where there will be one."""
    return native.scratch((*x.shape[:2], numbers)) if trains else None


def _empty_like(t: Tensor, needed: bool = True) -> Any:
    return torch.empty_like(t, memory_format=torch.contiguous_format) if needed else None


def _zeros_like(*tensors: Tensor | None) -> list[Any]:
    """Zeros to which the kernels add gradients."""
    return [None if t is None else torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]


@dataclass
class _Linear(_Operation):
    half: bool
    keeps_output = False

    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        x, weight, bias = given
        y = _scratch(*x.shape[:2], len(weight))
        _call(native.multiply_transposed, _rows(x), weight, bias, _rows(y), self.half)
        return (y,), None

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        (x, weight, _), (_, dy) = given, outputs
        dx, dweight = _scratch(*x.shape) if needs[0] else None, _empty_like(weight, needs[1])
        if dx is not None:
            _call(native.multiply_plain, _rows(dy), weight, _rows(dx), self.half)
        if dweight is not None:
            _call(native.multiply_turned, _rows(dy), _rows(x), dweight, self.half)
        return dx, dweight, _rows(dy).sum(0) if needs[2] else None

    def formula(self, given: Tensors) -> tuple[Tensor]:
        x, weight, bias = given
        return (F.linear(x, weight, bias).to(weight.dtype),)


@dataclass
class _Lstm(_Operation):
    epsilon: float
    half: bool

    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        x, h0, c0, gain = given[0], given[5], given[6], given[11]
        y, h, c = _scratch(*x.shape[:2], h0.shape[1]), _empty_like(h0), _empty_like(c0)
        memory = _memory(trains, x, native.lstm_kept(c0.shape[1], gain is not None, self.half))
        _call(native.lstm_forward, *given, self.epsilon, y, h, c, memory, self.half)
        return (y, h, c), memory

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        x, weight, bias, recurrent, _, h0, c0, _, *options = given
        dx = _scratch(*x.shape) if needs[0] else None
        dweight, dbias, drecurrent, *doptions = _zeros_like(weight, bias, recurrent, *options)
        dh0, dc0 = _empty_like(h0, needs[5]), _empty_like(c0, needs[6])
        gradients = dx, dweight, dbias, drecurrent, dh0, dc0, *doptions
        _call(native.lstm_backward, *given, self.epsilon, memory, *outputs, *gradients, self.half)
        return dx, dweight, dbias, drecurrent, dbias, dh0, dc0, None, *doptions

    def formula(self, given: Tensors) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, bias, recurrent, recurrent_bias, h, c, lengths, projection, peepholes, input_gain, *normal = given
        bias = bias + recurrent_bias
        inputs = F.linear(x, weight, bias if input_gain is None else None).to(weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            if input_gain is not None:
                inputs = F.layer_norm(inputs, bias.shape, input_gain, bias, self.epsilon)
            options = projection, peepholes, None if input_gain is None else tuple(normal)
            return reference.lstm(inputs, recurrent, h, c, lengths, *options, self.epsilon)


@dataclass
class _Gru(_Operation):
    reset_after: bool
    half: bool

    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        x, h0 = given[0], given[5]
        y, h = _scratch(*x.shape[:2], h0.shape[1]), _empty_like(h0)
        memory = _memory(trains, x, native.gru_kept(h0.shape[1], self.half))
        _call(native.gru_forward, *given, self.reset_after, y, h, memory, self.half)
        return (y, h), memory

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        x, *weights, h0, _ = given
        dx, dh0 = _scratch(*x.shape) if needs[0] else None, _empty_like(h0, needs[5])
        gradients = dx, *_zeros_like(*weights), dh0
        _call(native.gru_backward, *given, self.reset_after, memory, *outputs, *gradients, self.half)
        return *gradients, None

    def formula(self, given: Tensors) -> tuple[Tensor, Tensor]:
        x, weight, bias, recurrent, recurrent_bias, h, lengths = given
        inputs = F.linear(x, weight, bias).to(weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return reference.gru(inputs, recurrent, recurrent_bias, h, lengths, self.reset_after)


@dataclass
class _Rnn(_Operation):
    relu: bool
    half: bool

    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        x, h0 = given[0], given[5]
        y, h = _scratch(*x.shape[:2], h0.shape[1]), _empty_like(h0)
        _call(native.rnn_forward, *given, self.relu, y, h, self.half)
        return (y, h), None

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        x, weight, bias, recurrent, _, h0, _ = given
        dx, dh0 = _scratch(*x.shape) if needs[0] else None, _empty_like(h0, needs[5])
        dweight, dbias, drecurrent = _zeros_like(weight, bias, recurrent)
        gradients = dx, dweight, dbias, drecurrent, dh0
        _call(native.rnn_backward, *given, self.relu, *outputs, *gradients, self.half)
        return dx, dweight, dbias, drecurrent, dbias, dh0, None

    def formula(self, given: Tensors) -> tuple[Tensor, Tensor]:
        x, weight, bias, recurrent, recurrent_bias, h, lengths = given
        inputs = F.linear(x, weight, bias + recurrent_bias).to(weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return reference.rnn(inputs, recurrent, h, lengths, self.relu)


@dataclass
class _Scan(_Operation):
    gated: bool

    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        a, _, h0, _ = given
        y, h = _empty_like(a), _empty_like(h0)
        _call(native.scan_forward, *given, self.gated, y, h)
        return (y, h), None

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        gradients = [_empty_like(t) for t in given[:3]]
        _call(native.scan_backward, *given, self.gated, *outputs, *gradients)
        return *gradients, None

    def formula(self, given: Tensors) -> tuple[Tensor, Tensor]:
        a, b, h, lengths = given
        return (reference.min_gru if self.gated else reference.scan)(a, b, h, lengths)


@dataclass
class _Rotate(_Operation):
    def forward(self, given: Tensors, trains: bool) -> tuple[tuple[Tensor, ...], object]:
        _, inputs, h0, _ = given
        y, h = _empty_like(inputs), _empty_like(h0)
        _call(native.rotate_forward, *given, y, h)
        return (y, h), None

    def backward(self, given: Tensors, needs: Sequence[bool], memory: object, outputs: Tensors) -> Tensors:
        rotation, inputs, h0, _ = given
        gradients = *_zeros_like(rotation), _empty_like(inputs), _empty_like(h0)
        _call(native.rotate_backward, *given, *outputs, *gradients)
        return *gradients, None

    def formula(self, given: Tensors) -> tuple[Tensor, Tensor]:
        rotation, inputs, h, lengths = given
        return reference.rotate(rotation, inputs, h, lengths)
