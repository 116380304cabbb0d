"""The kernels against their reference in double precision, on every instruction set; and what they refuse."""

from contextlib import contextmanager, suppress
from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.nn import kernels
from steersman.nn.kernels import native, reference

pytestmark = pytest.mark.skipif(native is None, reason="the kernels are not built")

LEVELS = kernels.available()
OPTIONS = ("projection", "peepholes", "normal")
LSTMS = [
    " ".join(("lstm_layer", *(o for o, on in zip(OPTIONS, flags, strict=True) if on)))
    for flags in product((0, 1), repeat=3)
]
OTHERS = ["gru_layer after", "gru_layer before", "rnn_layer tanh", "rnn_layer relu"]
CASES = ["linear", "linear bias", *LSTMS, *OTHERS, "scan", "min_gru", "rotate"]
SIZES = [(1, 1, 1), (3, 5, 7), (8, 9, 16), (13, 6, 20), (7, 3, 33), (0, 4, 3), (2, 0, 5)]
"""Batch, time, hidden."""


def twin(case: str):
    """The function in plain PyTorch."""
    name = case.split()[0]
    if name == "linear":
        return linear_twin
    if not name.endswith("_layer"):
        return getattr(reference, name)
    if "normal" in case:
        return normal_twin
    recur = getattr(reference, name.removesuffix("_layer"))
    if name == "gru_layer":
        return lambda x, weight, bias, *others: recur(torch.nn.functional.linear(x, weight, bias), *others)

    def both(x, weight, bias, recurrent, recurrent_bias, *others):
        return recur(torch.nn.functional.linear(x, weight, bias + recurrent_bias), recurrent, *others)

    return both


def linear_twin(x, weight, bias):
    return (torch.nn.functional.linear(x, weight, bias),)


def normal_twin(x, weight, bias, recurrent, recurrent_bias, h, c, lengths, projection, peepholes, normal):
    inputs = torch.nn.functional.layer_norm(x @ weight.t(), bias.shape, normal[0], bias + recurrent_bias, 1e-5)
    return reference.lstm(inputs, recurrent, h, c, lengths, projection, peepholes, normal[1:])


def kernel(case: str):
    """The same in C++, where it can."""
    if case.startswith("linear"):
        return lambda *given: (kernels.linear(*given),)
    return getattr(kernels, case.split()[0])


@contextmanager
def chosen(level: str, threads: int = 1):
    """The kernels of one instruction set, however few the steps."""
    before = native.level(), torch.get_num_threads(), kernels.FEW
    native.choose(level)
    torch.set_num_threads(threads)
    kernels.FEW = 0
    try:
        yield
    finally:
        native.choose(before[0])
        torch.set_num_threads(before[1])
        kernels.FEW = before[2]


def arguments(case: str, batch: int, time: int, hidden: int, lengths=None) -> tuple:
    """What a function of `kernels` is given; lengths with 0, 1 and the whole time among them, unsorted."""
    name, *options = case.split()
    draw = torch.Generator().manual_seed(batch + 10 * time + 100 * hidden)

    def r(*shape):
        return torch.randn(shape, generator=draw)

    if lengths is None:
        lengths = torch.randint(0, time + 1, (batch,), generator=draw)
        lengths[:3] = torch.tensor([1, 0, time])[:batch].clamp_max(time)
    if name == "lstm_layer":
        out = max(1, hidden // 2) if "projection" in options else hidden
        return (
            r(batch, time, hidden + 2), r(4 * hidden, hidden + 2) / 3, r(4 * hidden),
            r(4 * hidden, out) / 3, r(4 * hidden), r(batch, out), r(batch, hidden), lengths,
            r(out, hidden) if "projection" in options else None,
            r(3, hidden) if "peepholes" in options else None,
            (r(4 * hidden), r(4 * hidden), r(hidden), r(hidden)) if "normal" in options else None,
        )  # fmt: skip
    if name == "linear":
        return r(batch, time, hidden + 2), r(2 * hidden + 1, hidden + 2), r(2 * hidden + 1) if options else None
    if name in ("gru_layer", "rnn_layer"):
        rows = 3 * hidden if name == "gru_layer" else hidden
        given = r(batch, time, hidden + 2), r(rows, hidden + 2) / 3, r(rows), r(rows, hidden) / 3, r(rows)
        return *given, r(batch, hidden), lengths, options in (["after"], ["relu"])
    if name == "rotate":
        return r(2, hidden) / 2, r(batch, time, 2 * hidden), r(batch, 2 * hidden), lengths
    return r(batch, time, hidden), r(batch, time, hidden), r(batch, hidden), lengths


def changed(given, function):
    """`function` on every float tensor of the arguments."""
    if isinstance(given, tuple):
        return tuple(changed(part, function) for part in given)
    return function(given) if isinstance(given, torch.Tensor) and given.is_floating_point() else given


def results(function, given) -> list[torch.Tensor]:
    """Outputs, final states and the gradients of all float arguments, whatever weighs the outputs."""
    leaves = []

    def leaf(tensor):
        leaves.append(tensor.detach().requires_grad_())
        return leaves[-1]

    outputs = function(*changed(given, leaf))
    draw = torch.Generator().manual_seed(1)
    loss = sum((o * torch.randn(o.shape, generator=draw).to(o)).sum() for o in outputs)
    return [o.detach() for o in outputs] + list(torch.autograd.grad(loss, leaves, materialize_grads=True))


@cache
def expected(case, size):
    return results(twin(case), changed(arguments(case, *size), torch.Tensor.double))


def assert_same(found, wanted, what="", tolerance=2e-5):
    """To 2e-5 of the largest number; the reference in single precision is as far from those in double."""
    assert len(found) == len(wanted)
    for i, (a, b) in enumerate(zip(found, wanted, strict=True)):
        assert a.dtype == torch.float32
        assert a.shape == b.shape
        if a.numel():
            error = (a - b).abs().max() / (1 + b.abs().max())
            assert error < tolerance, f"{what} result {i}: error {error:.1e}"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_equal_the_reference(case, level, threads):
    with chosen(level, threads):
        for size in SIZES:
            found = results(kernel(case), arguments(case, *size))
            assert_same(found, expected(case, size), f"{case} {size}:")


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_size_and_any_lengths_equal_the_reference(data):
    case, level = data.draw(st.sampled_from(CASES), "case"), data.draw(st.sampled_from(LEVELS), "level")
    time, hidden = data.draw(st.integers(0, 7), "time"), data.draw(st.integers(1, 40), "hidden")
    lengths = torch.tensor(data.draw(st.lists(st.integers(0, time), max_size=15), "lengths"), dtype=torch.int64)
    given = arguments(case, len(lengths), time, hidden, lengths)
    with chosen(level, data.draw(st.integers(1, 3), "threads")):
        found = results(kernel(case), given)
    # To normalise two or three units is to divide by what may be next to nothing.
    tolerance = 2e-4 if "normal" in case and hidden < 4 else 2e-5
    assert_same(found, results(twin(case), changed(given, torch.Tensor.double)), tolerance=tolerance)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_the_kernels_run_in_single_precision_and_the_reference_in_double(case, level):
    def how(given):
        y, *_ = kernel(case)(*changed(given, lambda t: t.requires_grad_()))
        return isinstance(y.grad_fn, torch.autograd.function.BackwardCFunction)

    given = arguments(case, 3, 5, 7)
    with chosen(level):
        assert how(given)
        assert not how(changed(given, lambda t: t.detach().double()))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_strides_and_the_need_of_gradients_change_nothing(case, level):
    given, function = arguments(case, 5, 6, 7), kernel(case)
    strided = changed(given, lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0))
    with chosen(level):
        plain = function(*given)
        for a, b in zip(results(function, strided), results(function, given), strict=True):
            assert torch.equal(a, b)
        for a, b in zip(plain, results(function, given), strict=False):
            assert torch.equal(a, b)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_one_output_alone_equal_the_reference(case, level):
    for which in range(len(kernel(case)(*arguments(case, 4, 6, 9)))):

        def one(function, given, which=which):
            leaves = [t.detach().requires_grad_() for t in given[:2]]
            return torch.autograd.grad(function(*leaves, *given[2:])[which].sum(), leaves)

        given = arguments(case, 4, 6, 9)
        with chosen(level):
            found = one(kernel(case), given)
        assert_same(found, one(twin(case), changed(given, torch.Tensor.double)))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_nan_goes_in_and_nan_comes_out(case, level):
    for which, bad in spoilt(case, torch.nan):
        with chosen(level):
            found = kernel(case)(*bad)
        for a, b in zip(found, twin(case)(*bad), strict=True):
            assert torch.equal(a.isnan(), b.isnan()), which
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4, equal_nan=True)
        assert found[0][0].isnan().any()
        assert not found[0][1:].isnan().any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sign", [1, -1])
def test_infinite_inputs_give_what_the_reference_gives(case, level, sign):
    for which, bad in spoilt(case, sign * torch.inf):
        if which < 3:  # Of states infinity is refused.
            with chosen(level):
                found = kernel(case)(*bad)
            for a, b in zip(found, twin(case)(*bad), strict=True):
                assert torch.equal(a.isfinite(), b.isfinite()), which
                torch.testing.assert_close(a[a.isfinite()], b[b.isfinite()], atol=1e-4, rtol=1e-4)


def spoilt(case: str, value: float):
    """Arguments in which every gate of some units of the first row has this value: of inputs or of a state.

    There are rows for several tiles, so that one that is over leaves nothing to those that come after it.
    """
    sound = arguments(case, 26, 6, 7, torch.tensor([6, 6, 3, 6] * 7)[:26])
    places = [i for i, t in enumerate(sound) if isinstance(t, torch.Tensor) and len(t) == 26 and t.is_floating_point()]
    for order, i in enumerate(places):
        bad = sound[i].clone()
        bad[0, ..., order % 3 :: 5] = value
        yield (order if bad.ndim == 3 else 3 + order), (*sound[:i], bad, *sound[i + 1 :])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("case", CASES)
def test_a_nan_that_comes_back_stays_in_its_row(case, level):
    def way_back(weight: float) -> torch.Tensor:
        given = arguments(case, 26, 6, 7, torch.tensor([6, 6, 3, 6] * 7)[:26])
        x = given[1 if case == "rotate" else 0].requires_grad_()
        y, *_ = kernel(case)(*given)
        scale = torch.ones(len(y), 1, 1)
        scale[0] = weight
        return torch.autograd.grad(y, x, scale.expand_as(y) / 2)[0]

    with chosen(level):
        assert way_back(torch.nan)[0].isnan().any()
        assert torch.equal(way_back(torch.nan)[1:], way_back(1.0)[1:])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "case", ["lstm_layer", "lstm_layer normal", "gru_layer after", "gru_layer before", "rnn_layer tanh"]
)
def test_long_rows_in_many_chunks_equal_the_reference(case, level):
    """And what is kept goes past the caches."""
    size = 13, 180, 33
    wide = changed(arguments(case, *size), lambda t: t / 3 if t.ndim == 2 and len(t) > size[0] else t)
    with chosen(level):
        found = results(kernel(case), wide)
    assert_same(found, results(twin(case), changed(wide, torch.Tensor.double)), tolerance=1e-4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("hidden", [5, 16, 17, 33])
def test_a_huge_input_is_normalised(hidden, level):
    given = arguments("lstm_layer normal", 26, 6, hidden, torch.full((26,), 6))
    given[0][0, 0, 0] = 1e25
    with chosen(level):
        found = kernel("lstm_layer normal")(*given)
    assert all(t.isfinite().all() for t in found)


@pytest.mark.parametrize("level", LEVELS)
def test_large_values_saturate(level):
    given = changed(arguments("lstm_layer", 3, 8, 9), lambda t: 1e6 * t)
    with chosen(level):
        found = results(kernels.lstm_layer, given)
    assert all(t.isfinite().all() for t in found)
    assert_same(found[:1], twin("lstm_layer")(*changed(given, torch.Tensor.double))[:1])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("huge", [1e37, 3e38])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_gate_that_is_shut_lets_nothing_through_however_huge(level, huge, sign):
    """A sigmoid that ended at 1e-38 would let through a share of it that counts."""
    shut, open_ = torch.full((3, 4, 7), -huge), torch.full((3, 4, 7), huge)
    h, lengths = sign * torch.full((3, 7), huge), torch.tensor([4, 2, 1])
    x, weight, nothing = torch.ones(3, 4, 1), torch.zeros(28, 1), torch.zeros(28, 7)
    bias = torch.cat([torch.full((7,), b) for b in (0.0, -huge, 0.0, 100.0)])
    with chosen(level):
        y, last, *slopes = results(kernels.min_gru, (shut, open_, torch.zeros(3, 7), lengths))
        assert not y.any()
        assert not last.any()
        assert huge > 1e37 or not slopes[0].any()
        forgotten = kernels.lstm_layer(x, weight, bias, nothing, torch.zeros(28), torch.zeros(3, 7), h, lengths)
        assert not forgotten[2].any()
        r, z, n = torch.full((7,), 100.0), torch.full((7,), -huge), torch.zeros(7)
        gates = torch.cat((r, z, n))
        y, last = kernels.gru_layer(x, weight[:21], gates, nothing[:21], torch.zeros(21), h, lengths)
        assert not last.any()
        shut_first = torch.cat((torch.full((7,), -huge), torch.full((7,), -100.0), n))
        recurrent = torch.cat((nothing[:14], torch.eye(7)))
        for after in (True, False):
            y, _ = kernels.gru_layer(x, weight[:21], shut_first, recurrent, torch.zeros(21), h, lengths, after)
            assert not y.any()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(1, 1, 1), (7, 5, 3), (13, 300, 33), (70, 700, 130), (300, 20, 600)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_products_of_matrices_equal_torchs(level, size, threads, half):
    rows, depth, columns = size
    draw = torch.Generator().manual_seed(rows)
    a, b = torch.randn(rows, depth, generator=draw), torch.randn(depth, columns, generator=draw)
    bias, out = torch.randn(columns, generator=draw), torch.full((rows, columns), torch.nan)
    factors = [t.bfloat16().double() if half else t.double() for t in (a, b)]
    wanted = factors[0] @ factors[1]
    with chosen(level):
        native.multiply_plain(a, b, out, half, threads)
        assert_same([out], [wanted])
        native.multiply_turned(a.t().contiguous(), b, out, half, threads)
        assert_same([out], [wanted])
        native.multiply_transposed(a, b.t().contiguous(), bias, out, half, threads)
        assert_same([out], [wanted + bias])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.startswith(("scan", "min_gru", "rotate", "rnn_layer relu"))]
)
def test_under_autocast_only_the_factors_of_products_are_rounded(case, level, monkeypatch):
    monkeypatch.setattr(kernels, "dots", lambda: True)
    whole, rounded = expected(case, (7, 3, 33)), []
    with chosen(level), torch.autocast("cpu", torch.bfloat16):
        rounded = results(kernel(case), arguments(case, 7, 3, 33))
    assert all(t.dtype == torch.float32 for t in rounded)
    apart = [float((a - b).abs().max() / (1 + b.abs().max())) for a, b in zip(rounded, whole, strict=True)]
    assert 1e-5 < max(apart) < 6e-2


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3.4e38])
def test_what_can_not_be_rounded_stays_what_it_is(level, value):
    out = torch.empty(2, 1)
    with chosen(level):
        native.multiply_plain(torch.tensor([[value, 0.0, 0.0], [0.0, 0.0, value]]), torch.ones(3, 1), out, True, 1)
    torch.testing.assert_close(out, torch.tensor([[value]] * 2).bfloat16().float(), equal_nan=True)


def test_memory_given_back_is_used_again():
    first = native.scratch((3, 1000))
    first[:] = 7
    address = first.ctypes.data
    assert native.scratch((3, 1000)).ctypes.data != address
    del first
    assert native.scratch((3, 1000)).ctypes.data == address


CUDNN = ["lstm_layer", "lstm_layer projection", "gru_layer after", "rnn_layer tanh", "rnn_layer relu"]


@pytest.mark.parametrize("case", CUDNN)
def test_torchs_own_layers_give_the_same_where_they_are_asked(case, monkeypatch):
    given = changed(arguments(case, 4, 5, 6, torch.full((4,), 5)), torch.Tensor.double)
    wanted = results(twin(case), given)
    monkeypatch.setattr(kernels, "cudnn_takes", lambda x, lengths: True)
    monkeypatch.setattr(reference, case.split()[0].removesuffix("_layer"), None)  # not used
    for a, b in zip(results(kernel(case), given), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def on_gpu(given):
    if isinstance(given, tuple):
        return tuple(on_gpu(part) for part in given)
    return given.cuda() if isinstance(given, torch.Tensor) else given


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("full", [True, False])
def test_a_gpu_gives_the_same(case, full):
    given = changed(arguments(case, 4, 5, 6, torch.full((4,), 5) if full else None), torch.Tensor.double)
    wanted = results(twin(case), given)
    for a, b in zip(results(kernel(case), on_gpu(given)), wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=1e-9, rtol=1e-9)


def test_an_unknown_instruction_set_is_refused():
    before = native.level()
    with pytest.raises(ValueError, match="sse9"):
        native.choose("sse9")
    assert native.level() == before


# What the raw functions take: names and shapes of arrays, or values. Letters: Batch Time Features Hidden Out Saved.
LSTM_GIVEN = ("x B T F", "weight 4H F", "bias 4H", "recurrent 4H O", "recurrent_bias 4H", "h0 B O", "c0 B H",
              "lengths B", "projection O H", "peepholes 3 H", "input_gain 4H", "gain 4H", "cell_gain H", "cell_bias H",
              1e-5)  # fmt: skip
GRU_GIVEN = ("x B T F", "weight 3H F", "bias 3H", "recurrent 3H H", "recurrent_bias 3H", "h0 B H", "lengths B", False)
RNN_GIVEN = ("x B T F", "weight H F", "bias H", "recurrent H H", "recurrent_bias H", "h0 B H", "lengths B", True)
SCAN_GIVEN = ("a B T H", "b B T H", "h0 B H", "lengths B", True)
ROTATE_GIVEN = ("factor 2 H", "inputs B T 2H", "h0 B 2H", "lengths B")
SIGNATURES = {
    "lstm_forward": (*LSTM_GIVEN, "y B T O", "h B O", "c B H", "kept B T S"),
    "lstm_backward": (*LSTM_GIVEN, "kept B T S", "y B T O", "dy B T O", "dh B O", "dc B H", "dx B T F", "dweight 4H F",
                      "dbias 4H", "drecurrent 4H O", "dh0 B O", "dc0 B H", "dprojection O H", "dpeepholes 3 H",
                      "dinput_gain 4H", "dgain 4H", "dcell_gain H", "dcell_bias H"),
    "gru_forward": (*GRU_GIVEN, "y B T H", "h B H", "kept B T S"),
    "gru_backward": (*GRU_GIVEN, "kept B T S", "y B T H", "dy B T H", "dh B H", "dx B T F", "dweight 3H F", "dbias 3H",
                     "drecurrent 3H H", "drecurrent_bias 3H", "dh0 B H"),
    "rnn_forward": (*RNN_GIVEN, "y B T H", "h B H"),
    "rnn_backward": (*RNN_GIVEN, "y B T H", "dy B T H", "dh B H", "dx B T F", "dweight H F", "dbias H",
                     "drecurrent H H", "dh0 B H"),
    "scan_forward": (*SCAN_GIVEN, "y B T H", "h B H"),
    "scan_backward": (*SCAN_GIVEN, "y B T H", "dy B T H", "dh B H", "da B T H", "db B T H", "dh0 B H"),
    "rotate_forward": (*ROTATE_GIVEN, "y B T 2H", "h B 2H"),
    "rotate_backward": (*ROTATE_GIVEN, "y B T 2H", "dy B T 2H", "dh B 2H", "dfactor 2 H", "dinputs B T 2H",
                        "dh0 B 2H"),
    "multiply_transposed": ("a B F", "b H F", "bias H", "out B H"),
    "multiply_plain": ("a B F", "b F H", "out B H"),
    "multiply_turned": ("a F B", "b F H", "out B H"),
}  # fmt: skip


HALF = False
"""Whether factors are rounded."""


def raw(function: str, **sizes: int) -> dict:
    """Arguments of a raw function by name, sound and of these sizes."""
    half = not function.startswith(("scan", "rotate")) and HALF
    kept = native.lstm_kept(sizes["H"], True, half) if "lstm" in function else native.gru_kept(sizes["H"], half)
    sizes, found = sizes | {"S": kept}, {}
    for i, what in enumerate(SIGNATURES[function]):
        if not isinstance(what, str):
            found[str(i)] = what
            continue
        name, *axes = what.split()
        shape = [int(a[:-1] or 1) * sizes[a[-1]] if a[-1].isalpha() else int(a) for a in axes]
        found[name] = torch.full(shape, sizes["T"]) if name == "lengths" else torch.zeros(shape)
    return found


def call(function: str, given: dict, threads: int = 1):
    half = () if function.startswith(("scan", "rotate")) else (HALF,)
    return getattr(native, function)(*given.values(), *half, threads)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives_are_those_of_the_twin(case):
    """A Hessian-vector product: the kernels hand over to the twin where a gradient is to be differentiated."""
    given = arguments(case, 3, 5, 7)

    def products(function, given):
        leaves = []

        def leaf(tensor):
            leaves.append(tensor.detach().requires_grad_())
            return leaves[-1]

        loss = sum(o.square().sum() for o in function(*changed(given, leaf)))
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        along = sum((s * torch.linspace(-1, 1, s.numel()).to(s).view_as(s)).sum() for s in slopes)
        return torch.autograd.grad(along, leaves, materialize_grads=True)

    wanted = products(twin(case), changed(given, torch.Tensor.double))
    for a, b in zip(products(kernel(case), given), wanted, strict=True):
        assert (a - b).abs().max() / (1 + b.abs().max()) < 1e-4


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("linear")])
def test_each_output_alone_gives_the_gradients_of_the_twin(case):
    """What is not asked for has no gradient: not zeros, but none at all."""
    given = arguments(case, 3, 5, 7)

    def gradients(function, given, number):
        leaves = []

        def leaf(tensor):
            leaves.append(tensor.detach().requires_grad_(len(leaves) == 0))  # Of the first argument alone.
            return leaves[-1]

        outputs = function(*changed(given, leaf))
        return torch.autograd.grad(outputs[number].square().sum(), leaves[:1])[0]

    for number in range(3 if case.startswith("lstm") else 2):
        found = gradients(kernel(case), given, number)
        wanted = gradients(twin(case), changed(given, torch.Tensor.double), number)
        assert_same([found], [wanted.float()])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_not_finite_is_found(value, dtype):
    x = torch.full((3, 4), 3e38, dtype=dtype)
    assert kernels.finite(x)
    assert kernels.finite(x[:0])
    x[1, 2] = value
    assert not kernels.finite(x)
    assert not kernels.finite(x.t())


few, shapes = st.integers(0, 5), st.lists(st.integers(0, 9), max_size=4)


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_wrong_shape_is_a_value_error_that_names_it(data):
    global HALF
    HALF = data.draw(st.booleans(), "half")
    function, level = data.draw(st.sampled_from([*SIGNATURES]), "function"), data.draw(st.sampled_from(LEVELS), "level")
    with chosen(level):
        given = raw(function, F=data.draw(st.integers(1, 5), "F"), **{axis: data.draw(few, axis) for axis in "BTHO"})
        call(function, given, data.draw(st.integers(-1, 9), "threads"))
        arrays = [name for name, value in given.items() if isinstance(value, torch.Tensor)]
        name = data.draw(st.sampled_from(arrays), "which")
        shape = tuple(data.draw(shapes.filter(lambda s: tuple(s) != given[name].shape), "shape"))
        given[name] = torch.zeros(shape, dtype=given[name].dtype)
        with pytest.raises(ValueError, match="^(" + "|".join(arrays) + "): "):
            call(function, given)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_shapes_at_all_crash_the_interpreter(data):
    global HALF
    HALF = data.draw(st.booleans(), "half")
    function = data.draw(st.sampled_from([*SIGNATURES]), "function")
    sizes = {axis: data.draw(few, axis) for axis in "BTFHO"}
    given = raw(function, **sizes)
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            other = raw(function, **(sizes | {data.draw(st.sampled_from("BTFHO")): data.draw(few)}))[name]
            given[name] = data.draw(st.sampled_from([value, value, other]), name)
    with suppress(ValueError):
        call(function, given)


@pytest.mark.parametrize("function", [f for f in SIGNATURES if f.endswith("ward")])
@pytest.mark.parametrize("length", [-1, 6, 2**40])
def test_lengths_beyond_the_time_are_refused(function, length):
    given = raw(function, B=3, T=5, F=2, H=4, O=4)
    given["lengths"][1] = length
    with pytest.raises(ValueError, match=f"lengths: expected 0 to 5, got {length}"):
        call(function, given)


@pytest.mark.parametrize("function", ["lstm_forward", "lstm_backward"])
def test_what_is_needed_and_not_there_is_refused(function):
    given = raw(function, B=3, T=5, F=2, H=4, O=3)
    needed = {
        "lstm_forward": ["projection", "input_gain", "gain", "cell_gain", "cell_bias"],
        "lstm_backward": ["dprojection", "dpeepholes", "dinput_gain", "dgain", "dcell_gain", "dcell_bias"],
    }
    for name in needed[function]:
        with pytest.raises(ValueError, match=r"missing|all or none|both or neither|no projection"):
            call(function, given | {name: None})
