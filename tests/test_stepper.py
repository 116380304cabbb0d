"""The streaming form of cores against the cores themselves."""

import numpy as np
import pytest
import torch

from steersman import kernels
from steersman.cores import GRU, LSTM, RNN, Bidirectional, CfC, Memoryless, Stack
from steersman.stepper import Stepper

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
    Stack((LSTM(64), Memoryless(), GRU(5), RNN(3))),
]


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


@pytest.mark.parametrize("spec", SPECS)
def test_half_weights_are_the_cores_rounded(spec, level):
    core, x = made(spec)
    found = walked(Stepper(core, "bfloat16").step, x)
    with torch.no_grad():
        for name, p in core.named_parameters():
            if name.rpartition(".")[2] in ("weight_ih", "weight_hh", "projection"):
                p.copy_(p.bfloat16())
    whole, _ = core(x[None], core.initial(1))
    np.testing.assert_allclose(found, whole[0].detach(), atol=5e-5, rtol=1e-4)


def test_sessions_do_not_mix_and_a_state_can_be_put_back(level):
    core, x = made(Stack((LSTM(8), GRU(5))))
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


def test_what_can_not_be_stepped_is_refused(level):
    step = Stepper(made(LSTM(4))[0]).step
    good = np.zeros(6, np.float32)
    for bad in (good[:5], good.astype(np.float64), np.zeros((1, 6), np.float32)):
        with pytest.raises(ValueError, match="expected 6 float32"):
            step(bad)
    step(good)
    with pytest.raises(ValueError, match="not causal"):
        Stepper(made(Bidirectional(LSTM(4)))[0])
    with pytest.raises(ValueError, match="CfC"):
        Stepper(made(CfC(4))[0])
    with pytest.raises(ValueError, match="without memory"):
        Stepper(made(Memoryless())[0])
    with pytest.raises(ValueError, match="residual"):
        Stepper(made(Stack((LSTM(6), LSTM(6)), residual=True))[0])
    with pytest.raises(ValueError, match="float16"):
        Stepper(made(LSTM(4))[0], "float16")
