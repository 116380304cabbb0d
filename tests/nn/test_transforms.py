"""Torch's own transforms through the cores: what follows or changes torch's operations must see all of them."""

from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from steersman.nn import kernels
from steersman.nn.cores import (
    GRU,
    LRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    CfC,
    MinGRU,
    MinLSTM,
    Stack,
    Window,
    Zoneout,
    map_state,
)

SPECS = [
    GRU(3),
    LSTM(3, projection=2, peepholes=True, layer_norm=True),
    MinGRU(3),
    MinLSTM(3),
    LRU(3),
    Zoneout(CfC(3, backbone=4)),
    Window(MGU(3), 2),
    Stack((Bidirectional(RNN(3)), LSTM(3))),
]
DEEP = Stack((MinGRU(3), GRU(3)), residual=True)
LENGTHS = torch.tensor([3, 1, 2])

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.func itself calls it.
every_core = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)


@pytest.fixture(autouse=True)
def _kernels_for_few_steps(monkeypatch):
    monkeypatch.setattr(kernels, "FEW", 0)


def ours(spec):
    """A core, its input, and its outputs as a function of the input."""
    torch.manual_seed(0)
    core = spec.build(2).eval()
    return core, torch.randn(3, 3, 2), lambda x: core(x, core.initial(len(x)), LENGTHS[: len(x)])[0]


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@every_core
def test_gradients_of_each_row_alone_under_vmap(spec):
    core, x, _ = ours(spec)
    weights = {name: p.detach() for name, p in core.named_parameters()}

    def loss(weights, row, length):
        return functional_call(core, weights, (row[None], core.initial(1), length[None]))[0].square().sum()

    found = vmap(grad(loss), (None, 0, 0))(weights, x, LENGTHS)
    for i, (row, length) in enumerate(zip(x, LENGTHS, strict=True)):
        y, _ = core(row[None], core.initial(1), length[None])
        for name, wanted in zip(weights, torch.autograd.grad(y.square().sum(), core.parameters()), strict=True):
            close(found[name][i], wanted)


@every_core
def test_jacobians_forwards_backwards_and_of_many_at_once(spec):
    _, x, function = ours(spec)
    wanted = torch.autograd.functional.jacobian(function, x)
    close(jacrev(function)(x), wanted)
    close(jacfwd(function)(x), wanted)
    close(torch.autograd.functional.jacobian(function, x, vectorize=True), wanted)
    along = torch.randn(3, 3, 2)
    tangent = torch.tensordot(wanted, along, 3)
    close(jvp(function, (x,), (along,))[1], tangent)
    with forward_ad.dual_level():
        close(forward_ad.unpack_dual(function(forward_ad.make_dual(x, along))).tangent, tangent)


@every_core
def test_hessians_by_torch_func_and_by_autograd(spec):
    _, x, function = ours(spec)
    found = hessian(lambda x: function(x).square().sum())(x[:1])
    close(torch.autograd.functional.hessian(lambda x: function(x).square().sum(), x[:1], vectorize=True), found)
    close(torch.autograd.functional.hessian(lambda x: function(x).square().sum(), x[:1]), found)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("spec", [DEEP], ids=["deep"])
def test_graphs_of_its_operations_give_the_same_for_other_inputs(spec):
    core, x, function = ours(spec)
    core.requires_grad_(False)
    other = torch.randn(3, 3, 2)
    wanted = function(other)
    graph: Any = make_fx(function)(x)
    traced: Any = torch.jit.trace(function, (x,), check_trace=False)
    close(graph(other), wanted)
    close(traced(other), wanted)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", [DEEP], ids=["deep"])
def test_an_exported_program_gives_the_same_for_other_inputs_and_batches(spec):
    core, x, _ = ours(spec)
    state = core.initial(3)
    batch = {0: torch.export.Dim.DYNAMIC}
    shapes = batch, map_state(lambda _: batch, state)
    program = torch.export.export(core, (x, state), dynamic_shapes=shapes).module()
    other = torch.randn(5, 3, 2)
    close(program(other, core.initial(5))[0], core(other, core.initial(5))[0])
