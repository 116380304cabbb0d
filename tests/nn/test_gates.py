"""The gates that a core says it has, against formulas written anew; and its state from what it keeps and writes."""

import pytest
import torch

from steersman.nn.cores import (
    GRU,
    LRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    CfC,
    Core,
    LSTMCore,
    Memoryless,
    MinGRU,
    MinLSTM,
    Stack,
    Window,
    Zoneout,
    map_state,
    state_tensors,
)

LSTMS = [
    LSTM(5, peepholes=peepholes, layer_norm=layer_norm, projection=projection)
    for peepholes in (False, True)
    for layer_norm in (False, True)
    for projection in (0, 3)
]
GATED = [*LSTMS, GRU(5), GRU(5, reset="before"), MGU(5), MinGRU(5), MinLSTM(5), CfC(5, 6), CfC(5, 6, elapsed=True)]
CARRIED = [spec for spec in GATED if not isinstance(spec, CfC)]


def made(spec) -> Core:
    torch.manual_seed(0)
    core = spec.build(3).double().eval()
    for p in core.parameters():
        p.data += 0.5 * torch.randn_like(p)
    return core


def begun(core: Core) -> tuple:
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    return x, map_state(torch.randn_like, core.initial(2))


def normal(a, gain):
    return gain * (a - a.mean(1, keepdim=True)) / (a.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def written(core, x, state) -> dict[str, torch.Tensor]:
    """The gates of a step by the papers' formulas."""
    spec = getattr(core, "spec", None)
    sigmoid, tanh = torch.sigmoid, torch.tanh
    if isinstance(spec, LSTM):
        h, c = state
        w, u = x @ core.weight_ih.T, h @ core.weight_hh.T
        if spec.layer_norm:
            w, u = normal(w, core.input_gain), normal(u, core.gain)
        i, f, g, o = (w + u + core.bias_ih + core.bias_hh).split(5, 1)
        peep = core.peepholes if spec.peepholes else torch.zeros(3, 5).double()
        i, f, g = sigmoid(i + peep[0] * c), sigmoid(f + peep[1] * c), tanh(g)
        return {"input": i, "forget": f, "output": sigmoid(o + peep[2] * (f * c + i * g)), "candidate": g}
    h = state[0]
    if isinstance(spec, GRU):
        (wr, wz, wn), (ur, uz, un) = core.weight_ih.split(5), core.weight_hh.split(5)
        (br, bz, bn), (cr, cz, cn) = core.bias_ih.split(5), core.bias_hh.split(5)
        r, z = sigmoid(x @ wr.T + h @ ur.T + br + cr), sigmoid(x @ wz.T + h @ uz.T + bz + cz)
        past = r * (h @ un.T + cn) if spec.reset == "after" else (r * h) @ un.T + cn
        return {"reset": r, "update": z, "candidate": tanh(x @ wn.T + bn + past)}
    if isinstance(spec, CfC):
        time = x[:, -1:] if spec.elapsed else 1.0
        x = x[:, :-1] if spec.elapsed else x
        shared = 1.7159 * tanh(0.666 * core.shared(torch.cat((x, h), 1)))
        rate, shift = (shared @ core.heads.weight.T + core.heads.bias).split(5, 1)[2:]
        return {"time": sigmoid(rate * time + shift)}
    if hasattr(core, "linear"):
        *gates, new = core.linear(x).split(5, 1)
        new = torch.where(new >= 0, new + 0.5, sigmoid(new))
        if len(gates) == 1:
            return {"update": sigmoid(gates[0]), "candidate": new}
        f, i = map(sigmoid, gates)
        return {"forget": f / (f + i), "input": i / (f + i), "candidate": new}
    (wf, wh), (uf, uh), (bf, bh) = core.weight_ih.split(5), core.weight_hh.split(5), core.bias_ih.split(5)
    f = sigmoid(x @ wf.T + h @ uf.T + bf + core.bias_hh[:5])
    return {"forget": f, "candidate": tanh(x @ wh.T + (f * h) @ uh.T + bh + core.bias_hh[5:])}


def assert_gates(core, x, state):
    found = core.gates(x, state)
    for t in range(x.shape[1]):
        wanted = written(core, x[:, t], state)
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name][:, t], value)
        _, state = core.step(x[:, t], state)
    return found


@torch.no_grad()
@pytest.mark.parametrize("spec", GATED, ids=str)
def test_gates_are_those_of_the_formula_at_every_step(spec):
    core = made(spec)
    assert_gates(core, *begun(core))
    assert all(
        value.shape[:2] == (2, 0) for value in core.gates(torch.zeros(2, 0, 3).double(), begun(core)[1]).values()
    )


@torch.no_grad()
@pytest.mark.parametrize("spec", [*CARRIED, Zoneout(LSTM(5)), Zoneout(MGU(5)), Zoneout(MinLSTM(5))], ids=str)
def test_what_is_carried_is_what_is_kept_and_what_is_written(spec):
    core = made(spec)
    x, state = begun(core)
    gates = core.gates(x, state)
    kept, written = core.shares(gates)
    for t in range(x.shape[1]):
        before = core.memory(state)
        _, state = core.step(x[:, t], state)
        after = kept[:, t] * before + written[:, t] * gates["candidate"][:, t]
        torch.testing.assert_close(core.memory(state), after)


@torch.no_grad()
def test_gates_of_deep_and_bidirectional_cores_are_those_of_their_parts():
    core = made(Stack((GRU(3), Bidirectional(LSTM(2)), MGU(4)), residual=True))
    x, state = begun(core)
    low, both, top = core.cores
    y = low(x, state[0])[0] + x
    found = core.gates(x, state)
    torch.testing.assert_close(found["layer 1 update"], low.gates(x, state[0])["update"])
    back = both.backwards.gates(y.flip(1), state[1][1])["forget"].flip(1)
    torch.testing.assert_close(found["layer 2 backwards forget"], back)
    z = both(y, state[1])[0]
    torch.testing.assert_close(found["layer 3 forget"], top.gates(z, state[2])["forget"])
    assert len(found) == 3 + 2 * 4 + 2


@pytest.mark.parametrize("spec", [Memoryless(), RNN(5), LRU(5), Window(LSTM(5), 3), Zoneout(RNN(5), (0.5,))], ids=str)
def test_a_core_without_gates_has_none(spec):
    core = made(spec)
    assert core.gates(torch.zeros(2, 4, 3).double(), core.initial(2)) == {}


@pytest.mark.parametrize("spec", [*GATED, Memoryless(), RNN(5), LRU(5), Window(LSTM(5), 3), Bidirectional(LSTM(3)),
    Zoneout(LSTM(5)), Stack((LSTM(4), Memoryless(), Bidirectional(GRU(3))))], ids=str)  # fmt: skip
def test_every_tensor_of_a_state_has_a_name(spec):
    core = made(spec)
    assert len(core.state_names) == len(state_tensors(core.initial(1)))
    assert core.remembers == (not isinstance(spec, Memoryless))
    assert "state" not in core.state_names


def test_gates_of_ones_own_core_are_from_the_state_before_each_step():
    class Own(LSTMCore):
        def step_gates(self, x, state):
            return {"seen": state[1].sigmoid()}

    core = Own(LSTM(4), 3).double()
    x, state = begun(core)
    found = core.gates(x, state)
    assert list(found) == ["seen"]
    torch.testing.assert_close(found["seen"][:, 2], core(x[:, :2], state)[1][1].sigmoid())
