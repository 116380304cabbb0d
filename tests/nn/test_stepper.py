"""The streaming form of cores against the cores themselves."""

import numpy as np
import pytest
import torch

from steersman.data.inputs import Inputs
from steersman.nn import kernels
from steersman.nn.cores import (
    GRU,
    LRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    CfC,
    LSTMCore,
    Memoryless,
    MinGRU,
    MinLSTM,
    Stack,
    StackCore,
    Window,
    Zoneout,
)
from steersman.nn.encoders import Identity, Joined, Observed, Part
from steersman.nn.forms import NoForm, row_form
from steersman.nn.heads import Classification, Quantiles, Regression, calibrates, tells_classes, tells_distribution
from steersman.nn.model import Network
from steersman.nn.stepper import RowStepper, Stepper

SPECS = [
    RNN(7),
    RNN(16, "relu"),
    GRU(5),
    GRU(33, "before"),
    LSTM(7),
    LSTM(16, peepholes=True),
    LSTM(20, layer_norm=True),
    LSTM(9, projection=4),
    LSTM(33, layer_norm=True, peepholes=True, projection=7),
    MGU(7),
    MinGRU(7),
    MinGRU(32),
    MinLSTM(5),
    MinLSTM(33),
    LRU(16),
    LRU(9, out=5),
    LRU(33, smallest=0.0),
    CfC(7, backbone=9),
    CfC(33, backbone=20),
    CfC(5, backbone=33, elapsed=True),
    Zoneout(RNN(7), (0.5,)),
    Zoneout(GRU(5, "before"), (0.3, 0.9)),
    Zoneout(LSTM(9, layer_norm=True, projection=4), (0.05, 0.5)),
    Zoneout(MinGRU(5), (1.0,)),
    Zoneout(MinLSTM(17), (0.2,)),
    Zoneout(LRU(5, out=10), (0.5,)),
    Zoneout(CfC(7, elapsed=True), (0.3,)),
    Zoneout(Zoneout(LSTM(5), (0.1, 0.2)), (0.3, 0.4)),
    Window(GRU(5), 4),
    Zoneout(MGU(5), (0.3,)),
    Stack((LSTM(6), MGU(5))),
    Stack((LSTM(64), Memoryless(), GRU(5), RNN(3))),
    Stack((Memoryless(), CfC(17), LRU(3), MinLSTM(20))),
    Stack((GRU(6), Memoryless(), MinGRU(6), LSTM(5), LRU(5)), residual=True),
    Stack(
        (Memoryless(), Stack((LRU(6), LRU(6)), residual=True), Zoneout(LSTM(6)), Stack((RNN(3), CfC(6)))),
        residual=True,
    ),
    Stack((Stack((Stack((GRU(5),)),)), Stack((Memoryless(),)))),
]
PRODUCTS = ("weight_ih", "weight_hh", "projection", "weight", "into", "out_of", "past")


@pytest.fixture(params=[*kernels.available(), "torch"])
def level(request, monkeypatch):
    """Every instruction set, and PyTorch where nothing was built."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "native", None)
        yield request.param
        return
    before = kernels.native.level()
    kernels.native.choose(request.param)
    yield request.param
    kernels.native.choose(before)


class Same(LSTMCore):
    """A core of one's own that computes what its parent does."""

    STATE = ("y", "cell")

    def step_gates(self, x, state):
        return {}


class Other(LSTMCore):
    """One that does not: its cell leaks."""

    def run(self, x, state, lengths):
        shown = []
        for t in range(x.shape[1]):
            y, (h, c) = super().run(x[:, t : t + 1], state, lengths.clamp(t, t + 1) - t)
            state = (h, 0.5 * c)
            shown.append(y)
        return torch.cat(shown, 1), state


class Begun(LSTMCore):
    """One whose first state is not zero."""

    def initial(self, batch):
        return tuple(t + 0.5 for t in super().initial(batch))


def made(spec, features: int = 6):
    torch.manual_seed(0)
    core = spec.build(features).eval()
    with torch.no_grad():
        for p in core.parameters():
            p += 0.1 * torch.randn_like(p)
    return core, torch.randn(30, features)


def walked(step, x):
    return np.stack([step(row).copy() for row in x.numpy()])


@pytest.mark.parametrize("spec", SPECS)
def test_steps_equal_the_whole(spec, level):
    core, x = made(spec)
    whole, _ = core(x[None], core.initial(1))
    np.testing.assert_allclose(walked(Stepper(core).step, x), whole[0].detach(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "compiled"), [(Same, True), (Other, False), (Begun, False)])
@pytest.mark.parametrize("deep", [False, True])
def test_a_core_of_ones_own_is_compiled_only_where_it_computes_what_its_parent_does(kind, compiled, deep, level):
    core, x = kind(LSTM(5), 6).eval(), torch.randn(30, 6)
    core = StackCore([GRU(6).build(6), core]).eval() if deep else core
    stepper = Stepper(core)
    assert stepper.compiled == (compiled and level != "torch")
    whole, _ = core(x[None], core.initial(1))
    np.testing.assert_allclose(walked(stepper.step, x), whole[0].detach(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_half_weights_are_the_cores_rounded(spec, level):
    core, x = made(spec)
    found = walked(Stepper(core, "bfloat16").step, x)
    with torch.no_grad():
        for name, p in core.named_parameters():
            if name.rpartition(".")[2] in PRODUCTS:
                p.copy_(p.bfloat16())
    whole, _ = core(x[None], core.initial(1))
    np.testing.assert_allclose(found, whole[0].detach(), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_sessions_do_not_mix_and_a_state_can_be_put_back(spec, level):
    core, x = made(spec)
    first = Stepper(core)
    second = first.session()
    alone = walked(first.session().step, x)
    for t, row in enumerate(x.numpy()):
        if t == 10:
            kept = second.state
        np.testing.assert_array_equal(first.step(row), alone[t])
        np.testing.assert_array_equal(second.step(row), alone[t])
    second.state = kept
    np.testing.assert_array_equal(second.step(x[10].numpy()), alone[10])
    first.reset()
    np.testing.assert_array_equal(first.step(x[0].numpy()), alone[0])
    with pytest.raises(ValueError, match="state"):
        second.state = kept[:-4]


@pytest.mark.parametrize("spec", [Zoneout(LSTM(5)), Stack((MinGRU(6), GRU(6)), dropout=0.5, residual=True)])
def test_steps_are_those_of_evaluation_in_single_precision(spec, level):
    core, x = made(spec)
    whole, _ = core(x[None], core.initial(1))
    core.train().double()
    np.testing.assert_allclose(walked(Stepper(core).step, x), whole[0].detach(), atol=2e-5, rtol=1e-5)
    assert core.training


def test_later_training_changes_nothing(level):
    core, x = made(GRU(5))
    stepper = Stepper(core)
    before = walked(stepper.step, x)
    with torch.no_grad():
        for p in core.parameters():
            p.zero_()
    stepper.reset()
    np.testing.assert_array_equal(walked(stepper.step, x), before)
    np.testing.assert_array_equal(walked(stepper.session().step, x), before)


def test_gates_beyond_all_bounds(level):
    core, x = made(MinLSTM(5))
    with torch.no_grad():
        core.linear.weight *= 300
    whole, _ = core(x[None], core.initial(1))
    assert core.linear(x).min() < -400
    np.testing.assert_allclose(walked(Stepper(core).step, x), whole[0].detach(), atol=2e-5, rtol=1e-5)


def test_what_can_not_be_stepped_is_refused(level):
    step = Stepper(made(LSTM(4))[0]).step
    good = np.zeros(6, np.float32)
    for bad in (good[:5], good.astype(np.float64), np.zeros((1, 6), np.float32)):
        with pytest.raises(ValueError, match="expected 6 float32"):
            step(bad)
    step(good)
    with pytest.raises(ValueError, match="not causal"):
        Stepper(made(Bidirectional(LSTM(4)))[0])
    with pytest.raises(ValueError, match="not causal"):
        Stepper(made(Stack((LSTM(4), Bidirectional(LSTM(4)))))[0])
    for spec in (Memoryless(), Stack((Memoryless(), Stack((Memoryless(),))), residual=True)):
        with pytest.raises(ValueError, match="without memory"):
            Stepper(made(spec)[0])
    with pytest.raises(ValueError, match="float16"):
        Stepper(made(LSTM(4))[0], "float16")


WRONG = {
    "min_gru_layer: bias": lambda n: n.min_gru_layer(False, zeros(6, 4), zeros(5)),
    "min_gru_layer: input": lambda n: n.min_gru_layer(False, zeros(5, 4), zeros(6)),
    "min_lstm_layer: bias": lambda n: n.min_lstm_layer(False, zeros(4, 4), zeros(4)),
    "min_lstm_layer: input": lambda n: n.min_lstm_layer(False, zeros(5, 4), zeros(6)),
    "lru_layer: input": lambda n: lru(n, input=zeros(5, 4)),
    "lru_layer: scale": lambda n: lru(n, scale=zeros(3, 1)),
    "lru_layer: factor": lambda n: lru(n, factor=zeros(3)),
    "lru_layer: out_of": lambda n: lru(n, out_of=zeros(2, 5)),
    "lru_layer: past": lambda n: lru(n, past=zeros(2, 3)),
    "cfc_layer: input": lambda n: cfc(n, input=zeros(4, 7)),
    "cfc_layer: input, not as wide": lambda n: cfc(n, input=zeros(5, 1)),
    "cfc_layer: heads": lambda n: cfc(n, heads=zeros(8, 4)),
    "cfc_layer: heads_bias": lambda n: cfc(n, heads_bias=zeros(7)),
    "memoryless_layer: features": lambda n: n.memoryless_layer(-1),
    "zoneout_layer: layer": lambda n: n.zoneout_layer(n.memoryless_layer(3), [0.5]),
    "zoneout_layer: shares": lambda n: n.zoneout_layer(n.min_gru_layer(False, zeros(6, 4), zeros(6)), []),
    "residual_layer: layer": lambda n: n.residual_layer(n.min_gru_layer(False, zeros(6, 4), zeros(6))),
    "stack_layer: layers": lambda n: n.stack_layer([]),
    "stack_layer: layers, none": lambda n: n.stack_layer([None]),
    "stack_layer: layers, one gives 3": lambda n: n.stack_layer([n.memoryless_layer(3), n.memoryless_layer(4)]),
    "Session: layer": lambda n: n.Session(n.memoryless_layer(3)),
}


def zeros(*shape):
    return np.zeros(shape, np.float32)


def lru(native, **other):
    good = {"input": zeros(6, 4), "scale": zeros(3), "factor": zeros(2, 3), "out_of": zeros(2, 6), "past": zeros(2, 4)}
    return native.lru_layer(False, *(good | other).values())


def cfc(native, **other):
    good = {"input": zeros(5, 6), "bias": zeros(5), "heads": zeros(8, 5), "heads_bias": zeros(8)}
    return native.cfc_layer(False, *(good | other).values(), True)


@pytest.mark.skipif(not kernels.native, reason="no kernels were built")
@pytest.mark.parametrize("what", WRONG)
def test_sizes_are_checked_before_memory_is_touched(what):
    lru(kernels.native), cfc(kernels.native)
    with pytest.raises(ValueError, match=what.partition(": ")[2].replace(", ", ".*")):
        WRONG[what](kernels.native)


@pytest.mark.parametrize("spec", [MinGRU(7), MinLSTM(7), MinLSTM(16)], ids=str)
@pytest.mark.parametrize("value", [1e38, -1e38, 1e9, -1e9, 30.0, -30.0])
def test_a_step_keeps_to_huge_inputs_too(spec, value):
    """Small shares of what is huge count: what remains of a gate that is almost shut must be exact."""
    torch.manual_seed(1)
    core = spec.build(6).eval()
    with torch.no_grad():
        x = torch.full((1, 4, 6), value)
        x[:, 2:] /= 7
        whole = core.double()(x.double(), core.initial(1))[0]
        session = Stepper(core.float()).session()
        found = np.stack([session.step(row).copy() for row in x[0].numpy()])
    np.testing.assert_allclose(found, whole[0].numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        Quantiles(("a", "b"), levels=(0.05, 0.3, 0.6, 0.95)),
        Quantiles(("a", "b")),
        Regression(("a", "b")),
        Classification(("a",), 3),
    ],
)
def test_a_head_reads_a_row_in_numpy_as_it_does_in_torch(spec):
    torch.manual_seed(0)
    head, levels = spec.build(5), (0.01, 0.1, 0.9)
    if hasattr(head, "mean"):
        head.fit(np.random.default_rng(0).normal(3, 2, (50, 2)))
    if calibrates(head):
        head.stretch.copy_(torch.tensor([0.5, 3.0]))
    feature = torch.randn(5) * 3
    raw = head(feature)
    if tells_classes(head):
        expected, levels = head.probabilities(raw), ()
    elif tells_distribution(head):
        expected = torch.cat((head.point(raw)[:, None], head.quantiles(raw, levels)), 1)
    else:
        expected = head.point(raw)[:, None]
    found = row_form.of(head)(head, levels)(feature.numpy())
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fill", ["decay", "last", "mean"])
@pytest.mark.parametrize("skip", [False, True])
def test_rows_with_gaps_step_in_numpy_as_the_whole_does_in_torch(fill, skip):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    values = np.where(rng.random((60, 3)) < 0.4, np.nan, rng.normal(size=(60, 3))).astype(np.float32)
    elapsed = rng.exponential(2, (60, 1)).astype(np.float32)
    encoder = Joined((Part("v", Observed(fill)), Part("age", Observed(fill), once=True)))
    model = Network(encoder, GRU(6), Regression(("y",)), skip=skip).build({"v": (3,), "age": (1,), "elapsed_s": (1,)})
    model.encoder.encoders[0].fit(np.concatenate((values, elapsed), 1))
    age = np.array([0.5], np.float32)
    streams = {"v": torch.from_numpy(values)[None], "elapsed_s": torch.from_numpy(elapsed)[None]}
    with torch.no_grad():
        whole, _ = model.run(Inputs(streams, {"age": torch.from_numpy(age)[None]}), model.initial())
    session, read = RowStepper(model).session(), row_form.of(model.head)(model.head, ())
    found = [read(session({"v": v, "age": age}, float(e[0])))[0, 0] for v, e in zip(values, elapsed, strict=True)]
    np.testing.assert_allclose(found, model.head.point(whole)[0, :, 0], atol=1e-5)


def test_a_model_that_does_more_than_encode_and_step_is_not_stepped_in_numpy():
    feedback = Network(Identity(), GRU(4), Regression(("y",)), feedback=True).build((2,))
    with pytest.raises(NoForm, match="FeedbackModel can't be stepped"):
        RowStepper(feedback)
