"""Models of numbers in one call of the kernels: the numbers of PyTorch, and a state that can be put back."""

import numpy as np
import pytest
import torch

from steersman.data.examples import Example
from steersman.errors import UserError
from steersman.export.session import NativeSession, Session, Stepping
from steersman.nn import kernels
from steersman.nn.cores import GRU, LRU, LSTM, MGU, RNN, CfC, Memoryless, MinGRU, MinLSTM, Stack, Zoneout, state_tensors
from steersman.nn.encoders import Identity
from steersman.nn.heads import Classification, Quantiles, Regression
from steersman.nn.model import Network

pytestmark = pytest.mark.skipif(kernels.native is None, reason="the kernels were not built")
CORES = (LSTM(16), GRU(20), RNN(8), MinGRU(16), MinLSTM(12), LRU(12), CfC(9), Stack((LSTM(5), GRU(7))))
CORES += (Zoneout(LSTM(6)),)


def made(core, head):
    torch.manual_seed(0)
    model = Network(Identity(), core, head).build((3,)).eval()
    model.encoder.fit(np.random.default_rng(1).normal(2, 3, (50, 3)))
    return model


@pytest.mark.parametrize("core", CORES, ids=lambda core: type(core).__name__)
def test_ten_thousand_carried_steps_say_what_pytorch_says(core):
    model, rows = made(core, Regression(("a", "b"))), np.random.default_rng(2).normal(2, 3, (10_000, 3))
    rows = rows.astype(np.float32)
    session = Stepping(model).session()
    assert isinstance(session, NativeSession)
    said = [list(session.step(row).values()) for row in rows]
    (raw,) = model.stream([Example("it", rows, np.zeros((len(rows), 2), np.float32), np.arange(len(rows)))], steps=5000)
    np.testing.assert_allclose(said, model.head.point(raw).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("core", CORES, ids=lambda core: type(core).__name__)
def test_a_state_is_the_models_own_and_can_be_put_back(core):
    model, rows = made(core, Classification(("kind",), classes=4)), np.random.default_rng(3).normal(size=(20, 3))
    stepping, state = Stepping(model), None
    first, second = stepping.session(), stepping.session()
    for row in rows:
        expected, state = model.step(row, state)
        assert first.step(row) == expected
    for mine, theirs in zip(first.state, state_tensors(state), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-5)
    second.state = first.state
    assert [first.step(row) for row in rows] == [second.step(row) for row in rows]
    first.reset()
    assert all(not part.any() for part in first.state)
    with pytest.raises(ValueError, match="another model"):
        first.state = [part[:, 1:] for part in second.state]


def test_rows_of_any_kind_are_taken_and_others_refused():
    session, row = Stepping(made(GRU(8), Regression(("a",)))).session(), np.array([1.0, 2.0, 3.0])
    wanted = session.step(row.astype(np.float32))
    for given in (row, row.tolist(), torch.tensor(row), np.repeat(row.astype(np.float32), 2)[::2], np.array([1, 2, 3])):
        session.reset()
        assert session.step(given) == wanted
    for wrong in (row[:2], row[None], ["a", "b", "c"]):
        with pytest.raises(UserError):
            session.step(wrong)


@pytest.mark.parametrize(("core", "head"), [(MGU(8), Regression(("a",))), (GRU(8), Quantiles(("a",)))])
def test_what_the_kernels_have_not_is_stepped_by_its_graph(core, head):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    assert isinstance(Stepping(made(core, head)).session(), Session)


def test_a_model_without_memory_is_stepped(tmp_path):
    model = made(Memoryless(), Regression(("a",)))
    session = Stepping(model).session()
    assert session.step(np.ones(3)) == pytest.approx(model.step(np.ones(3))[0], abs=1e-6)
