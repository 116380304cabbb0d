"""The recurrences against their formulas, and the contract of states."""

import shutil
from dataclasses import fields
from math import pi

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from steersman.config import Spec
from steersman.errors import UserError
from steersman.nn import kernels
from steersman.nn.cores import (
    GRU,
    LRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    CfC,
    GRUCore,
    LSTMCore,
    Memoryless,
    MinGRU,
    MinLSTM,
    Pooled,
    Stack,
    Zoneout,
    detach,
    map_state,
    reset,
    reverse,
    state_tensors,
)

CAUSAL = [
    Memoryless(),
    RNN(5),
    RNN(5, nonlinearity="relu"),
    GRU(5),
    GRU(5, reset="before"),
    LSTM(5),
    LSTM(5, peepholes=True),
    LSTM(5, layer_norm=True),
    LSTM(5, projection=3),
    LSTM(5, longest=20),
    LSTM(5, peepholes=True, layer_norm=True, projection=3, longest=20),
    MGU(5),
    MinGRU(5),
    MinLSTM(5),
    LRU(5),
    LRU(5, out=4),
    CfC(5, backbone=6),
    CfC(5, backbone=6, elapsed=True),
    Zoneout(LSTM(5, projection=3)),
    Zoneout(GRU(5)),
    Zoneout(MGU(5)),
    Zoneout(CfC(4, backbone=5)),
    Pooled(GRU(5)),
    Pooled(Stack((LSTM(3), MinGRU(4))), inputs=True),
    Pooled(LSTM(5), ("mean",)),
    Stack((LSTM(5), GRU(4), Memoryless(), RNN(3)), dropout=0.5),
    Stack((LSTM(5), GRU(5), LRU(5)), dropout=0.5, locked=True, residual=True),
]
BOTH_WAYS = [
    Bidirectional(LSTM(5, projection=2)),
    Bidirectional(Stack((GRU(4), MinLSTM(3)))),
    Stack((Bidirectional(GRU(4)), LSTM(5), Bidirectional(LRU(2)))),
]
CORES = [*CAUSAL, *BOTH_WAYS]
CELLS = [spec for spec in CAUSAL if isinstance(spec, RNN | GRU | LSTM)]


def brief(value) -> str:
    """A spec with what is not as usual in it."""
    if not isinstance(value, Spec):
        return str(value)
    parts = [getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default]
    names = [f.name for f in fields(value) if isinstance(getattr(value, f.name), bool) and getattr(value, f.name)]
    inner = [
        brief(v) for part in parts if not isinstance(part, bool) for v in (part if isinstance(part, tuple) else (part,))
    ]
    return f"{type(value).__name__}({', '.join(inner + names)})"


def built(spec, features: int = 3):
    """In evaluation, with weights as they start."""
    torch.manual_seed(0)
    return spec.build(features).eval()


def shaken(spec, features: int = 3):
    """The same with all weights off their start: none are 0 or 1, or alike."""
    core = built(spec, features)
    with torch.no_grad():
        for weight in core.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return core


@pytest.fixture(params=["kernels", "reference"])
def few(request, monkeypatch):
    """The least steps for which the kernels are used: once from the first on, once never."""
    monkeypatch.setattr(kernels, "FEW", 0 if request.param == "kernels" else 10**9)


def assert_close(found, wanted):
    for a, b in zip(state_tensors(found), state_tensors(wanted), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", CAUSAL, ids=brief)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_steps_and_chunks_equal_the_whole(spec, data):
    core = shaken(spec)
    batch, time = data.draw(st.integers(1, 3), "batch"), data.draw(st.integers(1, 9), "time")
    steps = data.draw(st.integers(0, time), "steps")
    cuts = sorted(data.draw(st.sets(st.integers(0, time)), "cuts"))
    x, initial = torch.randn(batch, time, 3), map_state(torch.randn_like, core.initial(batch))
    with torch.no_grad():
        whole, last = core(x, initial)
        assert whole.shape == (batch, time, core.size)
        state, outs = initial, []
        for t in range(steps):
            y, state = core.step(x[:, t], state)
            outs.append(y.unsqueeze(1))
        for part in x[:, steps:].tensor_split([cut - steps for cut in cuts if cut > steps], 1):
            y, state = core(part, state)
            outs.append(y)
    assert_close((torch.cat(outs, 1), state), (whole, last))


@pytest.mark.parametrize("spec", CORES, ids=brief)
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=9), more=st.integers(0, 2), kernel=st.booleans())
def test_a_ragged_batch_is_each_row_alone(spec, lengths, more, kernel):
    core, few = shaken(spec), kernels.FEW
    x, initial = torch.randn(len(lengths), max(lengths) + more, 3), core.initial(len(lengths))
    initial = map_state(torch.randn_like, initial)
    try:
        kernels.FEW = 0 if kernel else 10**9
        with torch.no_grad():
            y, state = core(x, initial, torch.tensor(lengths))
            for i, length in enumerate(lengths):
                row = slice(i, i + 1)
                alone, last = core(x[row, :length], map_state(lambda t, row=row: t[row], initial))
                assert_close((y[row, :length], map_state(lambda t, row=row: t[row], state)), (alone, last))
                assert (y[i, length:] == 0).all()
                if length == 0:
                    assert all(
                        torch.equal(a[i], b[i]) for a, b in zip(*map(state_tensors, (state, initial)), strict=True)
                    )
    finally:
        kernels.FEW = few


@pytest.mark.parametrize("spec", CAUSAL, ids=brief)
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.integers(0, 8), min_size=1, max_size=5), chunk=st.integers(1, 5))
def test_a_ragged_batch_streams_too(spec, lengths, chunk):
    core, lengths = shaken(spec), torch.tensor(lengths)
    x = torch.randn(len(lengths), 8, 3)
    with torch.no_grad():
        whole, last = core(x, core.initial(len(lengths)), lengths)
        state, outs = core.initial(len(lengths)), []
        for start in range(0, 8, chunk):
            part = x[:, start : start + chunk]
            y, state = core(part, state, (lengths - start).clamp(0, part.shape[1]))
            outs.append(y)
    assert_close((torch.cat(outs, 1), state), (whole, last))


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_what_stands_beyond_the_end_of_a_row_reaches_no_gradient(spec, few):
    core, lengths = shaken(spec), torch.tensor([3, 0, 6, 1])
    x = torch.randn(4, 6, 3)
    beyond = (torch.arange(6) >= lengths.unsqueeze(1)).unsqueeze(2)
    found = []
    for padded in (x, torch.where(beyond, -7.0, x)):
        padded.requires_grad_()
        y, state = core(padded, core.initial(4), lengths)
        loss = y.sum() + sum(t.sum() for t in state_tensors(state))
        found.append(torch.autograd.grad(loss, [padded, *core.parameters()]))
        assert not found[-1][0].masked_select(beyond).any()
    assert_close(*found)


@pytest.mark.parametrize("spec", CORES, ids=brief)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernels", "reference"])
def test_what_stands_beyond_the_end_of_a_row_may_be_nan(spec, dtype, monkeypatch):
    monkeypatch.setattr(kernels, "FEW", 0)
    core, lengths = shaken(spec).to(dtype), torch.tensor([2, 0, 3, 1])
    x = torch.randn(4, 3, 3, dtype=dtype)
    beyond = (torch.arange(3) >= lengths.unsqueeze(1)).unsqueeze(2)
    found = []
    for padding in (0.0, torch.nan, -torch.inf):
        padded = torch.where(beyond, padding, x).requires_grad_()
        leaves = [padded, *core.parameters()]
        y, state = core(padded, core.initial(4), lengths)
        loss = sum(t.square().sum() for t in (y, *state_tensors(state)))
        plain = torch.autograd.grad(loss, leaves, retain_graph=True)
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad(sum(s.square().sum() for s in slopes), leaves, materialize_grads=True)
        assert not plain[0].masked_select(beyond).any()
        found.append((y, state, plain, slopes, second))
        assert_close(found[-1], found[0])


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_gradients_that_can_be_differentiated_count_every_path_once(spec, few):
    """First and second ones, where what a kernel is given was made from other things that it is given."""
    found = []
    for dtype in (torch.float32, torch.float64):
        core = shaken(spec).to(dtype)
        torch.manual_seed(1)
        x = torch.randn(3, 4, 3, dtype=torch.float64).to(dtype).requires_grad_()
        wide = torch.randn(3, 10, dtype=torch.float64).to(dtype)
        leaves = [x, *core.parameters()]
        # A state made from x, another carried on from it, and the output fed to the same weights again.
        state = map_state(lambda t, x=x, wide=wide: torch.tanh(x[:, 0] @ wide[:, : t.shape[1]]), core.initial(3))
        y, state = core(x, state, torch.tensor([4, 2, 3]))
        z, state = core(torch.sin(x) + y.mean(2, keepdim=True), state)
        loss = sum(t.square().sum() for t in (y, z, *state_tensors(state)))
        plain = torch.autograd.grad(loss, leaves, retain_graph=True)
        slopes = torch.autograd.grad(loss, leaves, create_graph=True)
        along = sum((s * torch.linspace(-1, 1, s.numel()).to(s).view_as(s)).sum() for s in slopes)
        found.append((plain, slopes, torch.autograd.grad(along, leaves, materialize_grads=True)))
    for single, double in zip(*found, strict=True):
        for a, b in zip(single, double, strict=True):
            assert (a - b).abs().max() < 2e-5 * (1 + b.abs().max())


@pytest.mark.parametrize("spec", BOTH_WAYS, ids=brief)
def test_what_reads_from_the_end_cannot_step_and_says_so(spec):
    core = built(spec)
    assert not core.causal
    with pytest.raises(ValueError, match="not causal: it reads a sequence from its end"):
        core.step(torch.randn(2, 3), core.initial(2))


@pytest.mark.parametrize("spec", CAUSAL, ids=brief)
def test_the_future_changes_nothing_of_the_past(spec, few):
    core = shaken(spec)
    assert core.causal
    x = torch.randn(2, 6, 3)
    with torch.no_grad():
        before = core(x, core.initial(2))[0]
        x[:, 4:] = 9.0
        torch.testing.assert_close(core(x, core.initial(2))[0][:, :4], before[:, :4], atol=1e-6, rtol=0)


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_states_have_the_batch_first_and_rows_do_not_mix(spec, few):
    core = shaken(spec)
    x = torch.randn(4, 6, 3)
    y, state = core(x, core.initial(4))
    assert all(len(t) == 4 for t in state_tensors(state))
    others = torch.randn(4, 6, 3)
    others[2] = x[2]
    z, other = core(others, core.initial(4))
    assert_close((z[2], map_state(lambda t: t[2], other)), (y[2], map_state(lambda t: t[2], state)))


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_no_rows_and_no_steps_are_fine(spec, few):
    core = shaken(spec)
    y, _ = core(torch.randn(0, 4, 3), core.initial(0))
    assert y.shape == (0, 4, core.size)
    y, state = core(torch.randn(2, 0, 3), core.initial(2))
    assert y.shape == (2, 0, core.size)
    assert_close(state, core.initial(2))


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_a_fresh_row_begins_anew_and_the_others_go_on(spec):
    core = built(spec)
    _, old = core(torch.randn(3, 6, 3), core.initial(3))
    fresh = torch.tensor([False, True, False])
    new = reset(old, core.initial(3), fresh)
    for a, b, zero in zip(*map(state_tensors, (new, old, core.initial(3))), strict=True):
        assert torch.equal(a[fresh], zero[fresh])
        assert torch.equal(a[~fresh], b[~fresh])


@pytest.mark.parametrize("spec", CORES, ids=brief)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_gradients_are_those_of_small_differences(spec, training):
    core = shaken(spec, 2).double().train(training)
    names, weights = zip(*core.named_parameters(), strict=True) if list(core.parameters()) else ((), ())
    lengths = torch.tensor([3, 1, 0])
    x = torch.randn(3, 3, 2, dtype=torch.float64, requires_grad=True)
    state = map_state(lambda t: torch.randn_like(t).requires_grad_(), core.initial(3))
    kept = state_tensors(state)

    def function(x, *tensors):
        torch.manual_seed(0)  # The same values are dropped each time.
        given = iter(tensors)
        state = map_state(lambda _: next(given), core.initial(3))
        y, after = functional_call(core, dict(zip(names, given, strict=True)), (x, state, lengths))
        return y, *state_tensors(after)

    assert torch.autograd.gradcheck(function, (x, *kept, *weights), fast_mode=isinstance(spec, Stack | Bidirectional))


def formula(core, step, sizes, x=None):
    """Outputs and last states of `step(x_t, *states) -> (y, *states)`, and those of the core, from random states."""
    x = torch.randn(2, 7, core.features) if x is None else x
    start = states = tuple(torch.randn(2, size) for size in sizes)
    outs = []
    for t in range(x.shape[1]):
        y, *states = step(x[:, t], *states)
        outs.append(y)
    found = core(x, map_state(torch.clone, start) if sizes else core.initial(2))
    assert_close(found, (torch.stack(outs, 1), tuple(states)))


def normalised(a, gain, bias=0.0):
    """Ba et al. 2016, equation 4: over the units, with the variance of all of them."""
    deviation = ((a - a.mean(1, keepdim=True)) ** 2).mean(1, keepdim=True) + 1e-5
    return gain * (a - a.mean(1, keepdim=True)) / deviation**0.5 + bias


def test_rnn_is_the_formula_of_its_paper(few):
    for spec, bend in ((RNN(4), torch.tanh), (RNN(4, nonlinearity="relu"), lambda a: a.clamp(min=0))):
        core = shaken(spec)
        w, u, b = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh

        def step(x, h, w=w, u=u, b=b, bend=bend):
            h = bend(x @ w.T + h @ u.T + b)
            return h, h

        formula(core, step, [4])


def test_lstm_is_the_formula_of_its_paper(few):
    core = shaken(LSTM(4))
    w, u, b = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh

    def step(x, h, c):
        i, f, g, o = (x @ w.T + h @ u.T + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h, h, c

    formula(core, step, [4, 4])


def test_peepholes_are_the_formula_of_their_paper(few):
    core = shaken(LSTM(4, peepholes=True))
    (wi, wf, wg, wo), (ui, uf, ug, uo) = core.weight_ih.split(4), core.weight_hh.split(4)
    bi, bf, bg, bo = (core.bias_ih + core.bias_hh).split(4)
    pi_, pf, po = core.peepholes

    def step(x, h, c):
        i = torch.sigmoid(x @ wi.T + h @ ui.T + pi_ * c + bi)
        f = torch.sigmoid(x @ wf.T + h @ uf.T + pf * c + bf)
        c = f * c + i * torch.tanh(x @ wg.T + h @ ug.T + bg)
        o = torch.sigmoid(x @ wo.T + h @ uo.T + po * c + bo)
        h = o * torch.tanh(c)
        return h, h, c

    formula(core, step, [4, 4])


def test_layer_norm_is_the_formula_of_its_paper(few):
    core = shaken(LSTM(4, layer_norm=True))
    w, u, b = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh

    def step(x, h, c):
        sums = normalised(h @ u.T, core.gain) + normalised(x @ w.T, core.input_gain) + b  # Equation 20.
        i, f, g, o = sums.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # 21
        h = o.sigmoid() * normalised(c, core.cell_gain, core.cell_bias).tanh()  # 22
        return h, h, c

    formula(core, step, [4, 4])


def test_projection_is_the_formula_of_its_paper(few):
    core = shaken(LSTM(6, projection=3))
    w, u, b = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh

    def step(x, r, c):
        i, f, g, o = (x @ w.T + r @ u.T + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        r = (o.sigmoid() * c.tanh()) @ core.projection.T
        return r, r, c

    formula(core, step, [3, 6])


def test_all_options_of_the_lstm_together_are_their_formulas_together(few):
    core = shaken(LSTM(6, projection=3, peepholes=True, layer_norm=True))
    w, u, b = core.weight_ih, core.weight_hh, core.bias_ih + core.bias_hh

    def step(x, r, c):
        i, f, g, o = (normalised(r @ u.T, core.gain) + normalised(x @ w.T, core.input_gain) + b).chunk(4, 1)
        i, f = (i + core.peepholes[0] * c).sigmoid(), (f + core.peepholes[1] * c).sigmoid()
        c = f * c + i * g.tanh()
        o = (o + core.peepholes[2] * c).sigmoid()
        r = (o * normalised(c, core.cell_gain, core.cell_bias).tanh()) @ core.projection.T
        return r, r, c

    formula(core, step, [3, 6])


def test_gru_is_the_formula_in_pytorchs_form(few):
    core = shaken(GRU(4))

    def step(x, h):
        a, c = x @ core.weight_ih.T + core.bias_ih, h @ core.weight_hh.T + core.bias_hh
        (r, z, n), (hr, hz, hn) = a.chunk(3, 1), c.chunk(3, 1)
        r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
        h = (1 - z) * (n + r * hn).tanh() + z * h
        return h, h

    formula(core, step, [4])


def test_gru_with_the_reset_before_is_the_formula_of_its_paper(few):
    core = shaken(GRU(4, reset="before"))
    (wr, wz, wn), (ur, uz, un) = core.weight_ih.split(4), core.weight_hh.split(4)
    br, bz, bn = (core.bias_ih + core.bias_hh).split(4)

    def step(x, h):
        r, z = torch.sigmoid(x @ wr.T + h @ ur.T + br), torch.sigmoid(x @ wz.T + h @ uz.T + bz)
        h = z * h + (1 - z) * torch.tanh(x @ wn.T + (r * h) @ un.T + bn)
        return h, h

    formula(core, step, [4])


def test_mgu_is_the_formula_of_its_paper(few):
    core = shaken(MGU(4))
    (wf, wh), (uf, uh) = core.weight_ih.split(4), core.weight_hh.split(4)
    bf, bh = (core.bias_ih + core.bias_hh).split(4)

    def step(x, h):
        f = torch.sigmoid(x @ wf.T + h @ uf.T + bf)
        h = (1 - f) * h + f * torch.tanh(x @ wh.T + (f * h) @ uh.T + bh)
        return h, h

    formula(core, step, [4])


def g(x):
    """Feng et al. 2024, appendix B: positive everywhere."""
    return torch.where(x >= 0, x + 0.5, x.sigmoid())


def test_min_gru_is_the_formula_of_its_paper(few):
    core = shaken(MinGRU(4))
    (wz, wh), (bz, bh) = core.linear.weight.split(4), core.linear.bias.split(4)

    def step(x, h):
        z = torch.sigmoid(x @ wz.T + bz)
        h = (1 - z) * h + z * g(x @ wh.T + bh)
        return h, h

    formula(core, step, [4])


def test_min_lstm_is_the_formula_of_its_paper(few):
    core = shaken(MinLSTM(4))
    (wf, wi, wh), (bf, bi, bh) = core.linear.weight.split(4), core.linear.bias.split(4)

    def step(x, h):
        f, i = torch.sigmoid(x @ wf.T + bf), torch.sigmoid(x @ wi.T + bi)
        h = f / (f + i) * h + i / (f + i) * g(x @ wh.T + bh)
        return h, h

    formula(core, step, [4])


def test_lru_is_the_formula_of_its_paper_in_complex_numbers(few):
    core = shaken(LRU(4, out=5))
    factor = torch.exp(torch.complex(-core.decay.exp(), core.phase.exp()))
    into, out_of = torch.complex(*core.into.split(4)), core.out_of.split(4, 1)
    out_of = torch.complex(out_of[0], -out_of[1])  # Re(C h) of conjugate parts is a plain product.

    def step(x, h):
        h = torch.complex(*h.chunk(2, 1))
        h = factor * h + core.scale.exp() * (x.to(into.dtype) @ into.T)
        y = (h @ out_of.T).real + x @ core.past.T
        return y, torch.cat((h.real, h.imag), 1)

    formula(core, step, [8])


@pytest.mark.parametrize("elapsed", [False, True])
def test_cfc_is_the_formula_of_its_paper(elapsed):
    core = shaken(CfC(4, backbone=5, elapsed=elapsed))
    head = core.heads.weight.split(4), core.heads.bias.split(4)

    def step(x, h):
        x, time = (x[:, :-1], x[:, -1:]) if elapsed else (x, 1.0)
        shared = 1.7159 * torch.tanh(0.666 * core.shared(torch.cat((x, h), 1)))  # LeCun's tanh, as in their code.
        a, b, rate, shift = (shared @ w.T + c for w, c in zip(*head, strict=True))
        gate = torch.sigmoid(rate * time + shift)
        h = torch.tanh(a) * (1 - gate) + gate * torch.tanh(b)
        return h, h

    formula(core, step, [4])


def test_cfc_gives_the_same_for_the_same_time_elapsed_and_other_for_other():
    core = shaken(CfC(4, backbone=5, elapsed=True))
    x = torch.randn(2, 6, 3)
    x[..., -1] = 1.0
    plain = CfC(4, backbone=5).build(2)
    plain.load_state_dict(core.state_dict())
    assert_close(plain(x[..., :-1], plain.initial(2)), core(x, core.initial(2)))
    slower = x.clone()
    slower[:, 3, -1] = 4.0
    a, b = core(x, core.initial(2))[0], core(slower, core.initial(2))[0]
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert (a[:, 3:] - b[:, 3:]).abs().amax((0, 2)).min() > 1e-4


def test_bidirectional_is_one_core_each_way(few):
    core = shaken(Bidirectional(GRU(4)))
    x = torch.randn(2, 6, 3)
    y, (ahead, back) = core(x, core.initial(2))
    forwards, last = core.forwards(x, core.forwards.initial(2))
    backwards, first = core.backwards(x.flip(1), core.backwards.initial(2))
    assert_close((y, ahead, back), (torch.cat((forwards, backwards.flip(1)), 2), last, first))


def test_reversing_turns_each_rows_own_steps():
    x = torch.arange(10.0).view(2, 5, 1)
    turned = reverse(x, torch.tensor([3, 0]))[..., 0]
    assert turned.tolist() == [[2, 1, 0, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize("core", [LSTM(5), GRU(5), MinGRU(5)], ids=brief)
def test_zoneout_keeps_units_of_the_step_before(core):
    zone, x = Zoneout(core, share=(0.3, 0.6)).build(3), torch.randn(200, 1, 3)
    start = map_state(torch.randn_like, zone.initial(200))
    _, moved = zone.core(x, start)
    torch.manual_seed(1)
    y, after = zone.train()(x, start)
    assert torch.equal(y[:, 0], after[0])
    for old, new, found, share in zip(start, moved, after, (0.3, 0.6), strict=False):
        kept = found == old
        assert (kept | (found == new)).all()
        assert abs(kept.float().mean() - share) < 0.06
    _, after = zone.eval()(x, start)
    for old, new, found, share in zip(start, moved, after, (0.3, 0.6), strict=False):
        torch.testing.assert_close(found, share * old + (1 - share) * new)


def test_zoneout_of_all_or_nothing():
    x = torch.randn(3, 6, 3)
    none, all_ = (shaken(Zoneout(LSTM(5), share=(share, share))).train() for share in (0.0, 1.0))
    lengths = torch.tensor([6, 2, 0])
    assert_close(none(x, none.initial(3), lengths), none.core(x, none.initial(3), lengths))
    state = map_state(torch.randn_like, all_.initial(3))
    y, after = all_(x, state, lengths)
    assert_close(after, state)
    assert torch.equal(y[0], state[0][:1].expand(6, 5))


@pytest.mark.parametrize("core", [Memoryless(), LRU(5), Stack((LSTM(5),)), Bidirectional(GRU(5))], ids=brief)
def test_zoneout_is_refused_around_what_has_no_state_that_is_its_output(core):
    with pytest.raises(UserError, match="Zoneout: needs a core whose output is its state"):
        Zoneout(core).build(3)


def test_zoneout_lets_nan_through_as_every_core_does():
    core, x = built(Zoneout(LSTM(5))), torch.randn(2, 4, 3)
    x[0, 1, 0] = torch.nan
    y, _ = core(x, core.initial(2))
    assert y[0, 1:].isnan().all()
    assert not y[0, 0].isnan().any()
    assert not y[1].isnan().any()


@pytest.mark.parametrize("spec", CELLS, ids=brief)
def test_recurrent_weights_start_orthogonal_and_biases_at_zero(spec):
    core = built(spec)
    for block in core.weight_hh.split(5):
        rows, columns = block.shape
        near = block @ block.T if rows <= columns else block.T @ block
        torch.testing.assert_close(near, torch.eye(min(rows, columns)), atol=1e-5, rtol=0)
    bound = 5**-0.5
    assert 0.8 * bound < core.weight_ih.abs().max() <= bound
    assert (core.bias_hh == 0).all()
    if not isinstance(spec, LSTM):
        assert (core.bias_ih == 0).all()


def test_the_forget_gate_starts_open():
    assert built(LSTM(4, forget_bias=1.5)).bias_ih.tolist() == [0] * 4 + [1.5] * 4 + [0] * 8
    assert built(LSTM(3)).bias_ih.tolist() == [0] * 3 + [1] * 3 + [0] * 6
    assert built(MinLSTM(3, forget_bias=2.0)).linear.bias[:3].tolist() == [2] * 3


def test_chrono_initialisation_spreads_the_time_a_gate_remembers():
    i, f, g, o = built(LSTM(600, longest=100)).bias_ih.split(600)
    assert torch.equal(i, -f)
    steps = f.exp()  # The time constant, about 1 / (1 - sigmoid(f)) = 1 + e^f, is uniform on 2 to longest.
    assert 1 <= steps.min() < 2
    assert 98 < steps.max() <= 99
    assert abs(steps.mean() - 50) < 3
    assert not g.any()
    assert not o.any()


def test_options_of_the_lstm_start_where_they_change_little():
    core = built(LSTM(6, peepholes=True, layer_norm=True, projection=3))
    assert not core.peepholes.any()
    for gain in (core.input_gain, core.gain, core.cell_gain):
        assert (gain == 1).all()
    assert not core.cell_bias.any()
    assert 0.8 * 6**-0.5 < core.projection.abs().max() <= 6**-0.5


def test_lru_starts_in_its_ring_of_the_unit_disk():
    core = built(LRU(3000, smallest=0.5, largest=0.9, most_phase_rad=pi / 2))
    size, angle = torch.exp(-core.decay.exp()), core.phase.exp()
    assert 0.5 <= size.min() < 0.51
    assert 0.89 < size.max() <= 0.9
    assert abs((size**2).mean() - (0.25 + 0.81) / 2) < 0.01  # Uniform on the ring's area.
    assert angle.min() >= 0
    assert pi / 2 - 0.01 < angle.max() <= pi / 2 + 1e-5
    torch.testing.assert_close(core.scale.exp(), (1 - size**2).sqrt(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", [MinGRU(5), MinLSTM(5)], ids=brief)
def test_linear_maps_start_as_torchs_do(spec):
    core = built(spec)
    torch.manual_seed(0)
    assert torch.equal(core.linear.weight, nn.Linear(3, len(core.linear.bias)).weight)


def test_a_stack_is_its_layers_one_upon_the_other():
    stack = built(Stack((LSTM(5), GRU(4))))
    x = torch.randn(2, 6, 3)
    y, (low, high) = stack(x, stack.initial(2))
    middle, first = stack.cores[0](x, stack.cores[0].initial(2))
    top, second = stack.cores[1](middle, stack.cores[1].initial(2))
    assert torch.equal(y, top)
    torch.testing.assert_close((low, high), (first, second))
    assert [type(core) for core in stack.cores] == [LSTMCore, GRUCore]


def test_dropout_is_between_layers_and_only_in_training():
    stack = Stack((GRU(64), Memoryless()), dropout=0.5).build(3)
    x = torch.randn(2, 6, 3)
    kept = stack.train()(x, stack.initial(2))[0]
    assert 0.3 < (kept == 0).float().mean() < 0.7
    assert (stack.eval()(x, stack.initial(2))[0] == 0).float().mean() < 0.01


def test_locked_dropout_drops_the_same_values_at_all_steps():
    for locked in (True, False):
        stack = Stack((Memoryless(), Memoryless()), dropout=0.5, locked=locked).build(64).train()
        dropped = stack(torch.ones(3, 6, 64), stack.initial(3))[0] == 0
        assert 0.3 < dropped.float().mean() < 0.7
        assert torch.equal(dropped, dropped[:, :1].expand(-1, 6, -1)) == locked
        assert not torch.equal(dropped[0], dropped[1])


def test_a_residual_layer_adds_to_what_it_is_given_where_it_is_as_wide():
    stack = shaken(Stack((GRU(4), GRU(4), RNN(2)), residual=True))
    x = torch.randn(2, 6, 3)
    low, middle, top = stack.cores
    a = low(x, low.initial(2))[0]
    b = a + middle(a, middle.initial(2))[0]
    torch.testing.assert_close(stack(x, stack.initial(2))[0], top(b, top.initial(2))[0])


def test_a_stack_is_causal_where_all_its_layers_are():
    assert built(Stack((LSTM(5), GRU(4)))).causal
    assert not built(Stack((LSTM(5), Bidirectional(GRU(4))))).causal


def test_a_stack_of_nothing_is_refused():
    with pytest.raises(UserError, match="Stack"):
        Stack(()).build(3)


def test_a_detached_state_has_the_same_values_and_no_graph():
    core = built(Stack((LSTM(5), GRU(4))))
    _, state = core(torch.randn(2, 6, 3), core.initial(2))
    for a, b in zip(state_tensors(detach(state)), state_tensors(state), strict=True):
        assert torch.equal(a, b)
        assert b.requires_grad
        assert not a.requires_grad


def test_map_state_keeps_the_shape_of_nested_states():
    state = (torch.ones(2), (), (torch.ones(1), (torch.ones(3),)))
    doubled = map_state(torch.add, state, state)
    assert [t.tolist() for t in state_tensors(doubled)] == [[2, 2], [2], [2, 2, 2]]
    assert doubled[1] == ()


@pytest.mark.parametrize("spec", CORES, ids=brief)
@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 3])], ids=["whole", "ragged"])
def test_under_autocast_the_state_stays_in_single_precision(spec, lengths):
    core = built(spec)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = core(torch.randn(2, 6, 3), core.initial(2), lengths)
        z, _ = core(torch.randn(2, 6, 3).bfloat16(), state, lengths)
    assert {t.dtype for t in state_tensors(state)} <= {torch.float32}
    assert y.isfinite().all()
    assert z.isfinite().all()


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_under_autocast_the_numbers_are_about_the_same(spec):
    core, x = shaken(spec), torch.randn(2, 6, 3)
    exact, _ = core(x, core.initial(2))
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = core(x, core.initial(2))
    torch.testing.assert_close(y.float(), exact, atol=0.1, rtol=0.1)


STATEFUL = [spec for spec in CORES if not isinstance(spec, Memoryless)]


@pytest.mark.parametrize("spec", CORES, ids=brief)
def test_inputs_of_another_shape_or_type_are_refused(spec):
    core = built(spec)
    for shape in ((2, 3), (2, 6, 4), (2, 6, 3, 1), (3,), ()):
        with pytest.raises(ValueError, match=r"x: expected \(batch, time, 3\), got \("):
            core(torch.zeros(shape), core.initial(2))
    for dtype in (torch.int64, torch.bool, torch.uint8, torch.complex64):
        with pytest.raises(ValueError, match=f"x: expected floating point, got {dtype}"):
            core(torch.zeros(2, 6, 3, dtype=dtype), core.initial(2))
    for x in (
        np.zeros((2, 6, 3), np.float32),
        [[[0.0] * 3] * 6] * 2,
        None,
        nn.utils.rnn.pack_sequence([torch.ones(1, 3)]),
    ):
        with pytest.raises(
            ValueError, match=rf"x: expected \(batch, time, 3\), got {type(x).__name__}, which is not a t"
        ):
            core(x, core.initial(2))


@pytest.mark.parametrize("spec", CORES, ids=brief)
@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        (torch.tensor([1, 2, 3]), r"lengths: expected 2 integers, got torch.int64 of shape \(3,\)"),
        (torch.tensor([[1], [2]]), r"lengths: expected 2 integers, got torch.int64 of shape \(2, 1\)"),
        (torch.tensor(3), r"lengths: expected 2 integers, got torch.int64 of shape \(\)"),
        (torch.tensor([1.0, 2.0]), "lengths: expected 2 integers, got torch.float32"),
        (torch.tensor([True, False]), "lengths: expected 2 integers, got torch.bool"),
        ([1, 2], "lengths: expected a tensor of 2 integers, got list"),
        (torch.tensor([1, 7]), "lengths: expected 0 to 6, got 1 to 7"),
        (torch.tensor([-1, 3]), "lengths: expected 0 to 6, got -1 to 3"),
    ],
    ids=str,
)
def test_lengths_of_another_count_type_or_range_are_refused(spec, lengths, said):
    core = built(spec)
    with pytest.raises(ValueError, match=said):
        core(torch.zeros(2, 6, 3), core.initial(2), lengths)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_lengths_may_be_any_integers(kind):
    core = built(LSTM(5))
    y, _ = core(torch.randn(2, 6, 3), core.initial(2), torch.tensor([2, 5], dtype=kind))
    assert (y.abs().sum(2) > 0).sum(1).tolist() == [2, 5]


@pytest.mark.parametrize("spec", STATEFUL, ids=brief)
def test_states_of_another_structure_or_shape_are_refused(spec):
    core, x = built(spec), torch.zeros(2, 6, 3)
    good = core.initial(2)
    for bad in (None, good[0], list(good), good[:-1], (*good, good[0]), ()):
        with pytest.raises(ValueError, match="state"):
            core(x, bad)
    for bad in (core.initial(3), core.initial(0), map_state(lambda t: t[0], good), map_state(lambda t: t[:, 1:], good)):
        with pytest.raises(ValueError, match=r"state(\[\d\])+: expected a tensor \(2, \d+\), got \("):
            core(x, bad)


@pytest.mark.parametrize("spec", STATEFUL, ids=brief)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_states_that_are_not_finite_are_refused(spec, bad):
    core = built(spec)
    for i in range(len(state_tensors(core.initial(2)))):
        state = core.initial(2)
        state_tensors(state)[i][1, -1] = bad
        with pytest.raises(ValueError, match=r"state(\[\d\])+: expected finite numbers, got NaN or infinity"):
            core(torch.zeros(2, 6, 3), state)
    state_tensors(state)[i][0, 0] = -bad
    with pytest.raises(ValueError, match="expected finite numbers"):
        core(torch.zeros(2, 6, 3), state)


def test_large_states_are_not_taken_for_infinite():
    core = built(LSTM(5))
    y, _ = core(torch.zeros(2, 6, 3), map_state(lambda t: torch.full_like(t, 3e38), core.initial(2)))
    assert y.isfinite().all()


@pytest.mark.parametrize("spec", STATEFUL, ids=brief)
def test_inputs_and_states_of_another_precision_than_the_weights_are_refused(spec):
    core, x = built(spec), torch.zeros(2, 6, 3)
    with pytest.raises(ValueError, match=r"x: expected torch.float32, as the weights are, got torch.float64"):
        core(x.double(), core.initial(2))
    with pytest.raises(ValueError, match=r"state.*: expected torch.float32, as the weights are, got torch.float64"):
        core(x, map_state(torch.Tensor.double, core.initial(2)))
    core(x, core.initial(2))
    core.double()
    y, _ = core(x.double(), core.initial(2))
    assert y.dtype == torch.float64
    with pytest.raises(ValueError, match=r"x: expected torch.float64, as the weights are, got torch.float32"):
        core(x, core.initial(2))


@pytest.mark.parametrize("spec", CAUSAL, ids=brief)
def test_a_step_of_another_shape_is_refused(spec):
    core = built(spec)
    for shape in ((2, 4), (2,), (2, 1, 3), ()):
        with pytest.raises(ValueError, match="x: expected"):
            core.step(torch.zeros(shape), core.initial(2))
    with pytest.raises(ValueError, match=r"x: expected \(batch, 3\), got ndarray, which is not a tensor"):
        core.step(np.zeros((2, 3), np.float32), core.initial(2))


def test_specs_out_of_bounds_are_refused():
    for make in (
        lambda: LSTM(0),
        lambda: LSTM(5, projection=-1),
        lambda: LRU(5, largest=1.5),
        lambda: CfC(5, backbone=0),
    ):
        with pytest.raises(UserError, match="must be"):
            make()


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is here")
def test_where_a_compiler_is_the_kernels_are_built():
    """An error in them must not pass for a machine without a compiler, on which their tests are left out."""
    assert "generic" in kernels.available()
