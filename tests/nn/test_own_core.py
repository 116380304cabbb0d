"""A core in a file of the user's own is trained, streamed, exported and looked into, or refused with the reason."""

import re
import shlex

import numpy as np
import pytest
import torch

from steersman.__main__ import main
from steersman.nn.stepper import Stepper
from steersman.training.run import load

OWN = """
from dataclasses import dataclass, replace

import torch

from steersman import RECIPES
from steersman.nn.cores import LSTM, CoreSpec, LSTMCore


@dataclass(frozen=True)
class Mine(CoreSpec):
    hidden: int = 6

    def build(self, features):
        return MyCore(LSTM(self.hidden), features)


class MyCore(LSTMCore):
    pass


@dataclass(frozen=True)
class Leaky(CoreSpec):
    hidden: int = 6

    def build(self, features):
        return LeakyCore(LSTM(self.hidden), features)


class LeakyCore(LSTMCore):
    def run(self, x, state, lengths):
        return super().run(x, (state[0], 0.9 * state[1]), lengths)

    def step_gates(self, x, state):
        return {"leak": torch.full_like(state[1], 0.1)}

    def shares(self, gates):
        return None


def mine(data=()):
    '''Echo with a core of one's own.'''
    return replace(RECIPES["echo"](), core=Mine())


def leaky(data=()):
    '''Echo with a core that computes what no other does.'''
    return replace(RECIPES["echo"](), core=Leaky())
"""
SHORT = "--training.steps 4 --training.validate-every 2 --training.warmup 1 --source.records 12"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "own_core.py").write_text(OWN)
    return folder


@pytest.fixture
def steersman(place, monkeypatch, capfd):
    monkeypatch.chdir(place)

    def run(line: str) -> tuple[int, str]:
        capfd.readouterr()
        code = 0
        try:
            main(shlex.split(line))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, "".join(capfd.readouterr())

    return run


def stepped(folder) -> Stepper:
    """A run's core one step at a time, which agrees with the whole."""
    core = load(folder).core.eval()
    stepper, x = Stepper(core), torch.randn(20, core.features)
    found = np.stack([stepper.step(row).copy() for row in x.numpy()])
    with torch.no_grad():
        state, shown = core.initial(1), []
        for row in x:
            y, state = core.step(row[None], state)
            shown.append(y[0])
    np.testing.assert_allclose(found, torch.stack(shown), atol=2e-5)
    return stepper


def test_a_subclass_of_a_core_trains_streams_exports_and_shows_its_gates(steersman, place):
    code, said = steersman(f"train own_core.py:mine --run runs/mine --core.hidden 7 {SHORT}")
    assert code == 0, said
    assert load(place / "runs" / "mine").core.size == 7
    assert stepped(place / "runs" / "mine").compiled
    pytest.importorskip("onnxruntime")
    code, said = steersman("export runs/mine --import own_core.py")
    assert code == 0, said
    assert (place / "runs" / "mine" / "export" / "step.onnx").stat().st_size > 0
    code, said = steersman("explain runs/mine --out pictures --import own_core.py")
    assert code == 0, said
    assert (place / "pictures" / "gates.png").stat().st_size > 10_000


def test_a_subclass_that_computes_another_formula_streams_and_is_not_exported_as_its_parent(steersman, place):
    code, said = steersman(f"train own_core.py:leaky --run runs/leaky {SHORT}")
    assert code == 0, said
    assert not stepped(place / "runs" / "leaky").compiled
    code, said = steersman("explain runs/leaky --out leaky --import own_core.py")
    assert code == 0, said
    assert (place / "leaky" / "gates.png").exists()
    pytest.importorskip("onnxruntime")
    code, said = steersman("export runs/leaky --import own_core.py")
    assert code == 2
    assert re.search(r"LeakyCore can't be exported: its `run` is its own.*\n?.*register one for LeakyCore", said)
