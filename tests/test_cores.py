"""The recurrences against their formulas, and the contract of states."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.cores import (
    GRU,
    LSTM,
    RNN,
    GRUCore,
    LSTMCore,
    Memoryless,
    Stack,
    detach,
    map_state,
    reset,
    state_tensors,
)
from steersman.errors import UserError

CORES = [Memoryless(), RNN(5), GRU(5), LSTM(5), Stack((LSTM(5), GRU(4), Memoryless(), RNN(3)), dropout=0.5)]


def built(spec, features: int = 3):
    torch.manual_seed(0)
    return spec.build(features).eval()


@pytest.mark.parametrize("spec", CORES)
@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 3), time=st.integers(1, 9), cut=st.integers(0, 9))
def test_steps_and_chunks_equal_the_whole(spec, batch, time, cut):
    core = built(spec)
    x = torch.randn(batch, time, 3)
    whole, last = core(x, core.initial(batch))
    assert whole.shape == (batch, time, core.size)
    state, outs = core.initial(batch), []
    for t in range(min(cut, time)):
        y, state = core.step(x[:, t], state)
        outs.append(y.unsqueeze(1))
    if cut < time:
        y, state = core(x[:, cut:], state)
        outs.append(y)
    torch.testing.assert_close(torch.cat(outs, 1), whole, atol=1e-6, rtol=1e-5)
    for a, b in zip(state_tensors(state), state_tensors(last), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spec", CORES)
def test_states_have_the_batch_first_and_rows_do_not_mix(spec):
    core = built(spec)
    x = torch.randn(4, 6, 3)
    y, state = core(x, core.initial(4))
    assert all(len(t) == 4 for t in state_tensors(state))
    alone, _ = core(x[2:3], core.initial(1))
    torch.testing.assert_close(alone, y[2:3], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("spec", CORES)
def test_a_fresh_row_begins_anew_and_the_others_go_on(spec):
    core = built(spec)
    _, old = core(torch.randn(3, 6, 3), core.initial(3))
    fresh = torch.tensor([False, True, False])
    new = reset(old, core.initial(3), fresh)
    for a, b, zero in zip(*map(state_tensors, (new, old, core.initial(3))), strict=True):
        assert torch.equal(a[fresh], zero[fresh])
        assert torch.equal(a[~fresh], b[~fresh])


def test_lstm_is_the_formula_of_its_paper():
    core = built(LSTM(4, forget_bias=1.5))
    w, u, b = (getattr(core, n) for n in ("weight_ih", "weight_hh", "bias_ih"))
    x = torch.randn(2, 7, 3)
    h = c = torch.zeros(2, 4)
    outs = []
    for t in range(7):
        i, f, g, o = (x[:, t] @ w.T + h @ u.T + b).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outs.append(h)
    y, (last_h, last_c) = core(x, core.initial(2))
    torch.testing.assert_close(y, torch.stack(outs, 1))
    torch.testing.assert_close((last_h, last_c), (h, c))
    assert b.tolist() == [0] * 4 + [1.5] * 4 + [0] * 8


def test_gru_is_the_formula_in_pytorchs_form():
    core = built(GRU(4))
    w, u = (getattr(core, n) for n in ("weight_ih", "weight_hh"))
    x, h = torch.randn(2, 5, 3), torch.zeros(2, 4)
    for t in range(5):
        (r, z, n), (hr, hz, hn) = (x[:, t] @ w.T).chunk(3, 1), (h @ u.T).chunk(3, 1)
        r, z = (r + hr).sigmoid(), (z + hz).sigmoid()
        h = (1 - z) * (n + r * hn).tanh() + z * h
    torch.testing.assert_close(core(x, core.initial(2))[1][0], h)


@pytest.mark.parametrize("spec", [RNN(6), GRU(6), LSTM(6)])
def test_recurrent_weights_start_orthogonal(spec):
    for block in built(spec).weight_hh.split(6):
        torch.testing.assert_close(block @ block.T, torch.eye(6), atol=1e-5, rtol=0)


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


@pytest.mark.parametrize("spec", [RNN(5), GRU(5), LSTM(5)])
def test_under_autocast_the_state_stays_in_single_precision(spec):
    core = built(spec)
    with torch.autocast("cpu", torch.bfloat16):
        y, state = core(torch.randn(2, 6, 3), core.initial(2))
        core(torch.randn(2, 6, 3), state)
    assert {t.dtype for t in state_tensors(state)} == {torch.float32}
    assert y.isfinite().all()
