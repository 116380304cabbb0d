"""Runs written by older versions open, are scored, exported and resumed; what can't be opened says why."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.recipes import RECIPES
from steersman.training.checkpoints import read_tensors
from steersman.training.fit import fit
from steersman.training.run import Run
from steersman.training.task import TaskSpec, task_of
from steersman.training.trainer import read_log

FIXTURES = Path(__file__).parents[1] / "fixtures" / "runs-0.1.0"
NAMES = ("echo", "chars", "translate")


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the runs of version 0.1.0, in the folder that their data is relative to."""
    shutil.copytree(FIXTURES, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_is_scored_by_the_task_that_it_had_no_name_for(old, name):
    run = Run.open(old / name)
    assert run.version == "0.1.0"
    scores = report_run(run)
    assert scores["task"] == {"echo": "Estimate", "chars": "PredictText", "translate": "TranslateText"}[name]
    assert np.isfinite(scores["value"])
    assert "not known: written by an older version" in (old / name / "report.html").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_an_old_run_written_anew_opens_as_the_same(old, name):
    run = Run.open(old / name)
    run.write()
    again = Run.open(old / name)
    assert (again.recipe, again.raw, again.data, again.version) == (run.recipe, run.raw, run.data, "0.1.0")
    assert json.loads((old / name / "config.json").read_text())["format"] == 2


def test_an_old_run_that_was_stopped_ends_as_the_older_version_ended_it(old):
    before = read_tensors(old / "echo" / "model.safetensors")
    losses = [row["loss"] for row in read_log(old / "echo")]
    run = Run.open(old / "echo")
    (old / "echo" / "model.safetensors").unlink()
    fit(run.name, run.recipe, run.folder, run.data, say=lambda text: None)
    assert [row["loss"] for row in read_log(old / "echo")] == pytest.approx(losses, rel=1e-4)
    for name, tensor in read_tensors(old / "echo" / "model.safetensors").items():
        torch.testing.assert_close(tensor, before[name], atol=1e-5, rtol=1e-4)


def test_an_old_run_is_exported(old):
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    main(["export", str(old / "echo"), "--out", str(old / "exported")])
    assert (old / "exported" / "step.onnx").is_file()


def test_an_old_translator_translates_as_it_did(old, monkeypatch, capsys):
    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one two\n")))
    main(["translate", str(old / "translate")])
    assert capsys.readouterr().out.count("\n") == 1


def edited(folder: Path, change) -> Path:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=99), "newer version"),
        (lambda c: c["recipe"]["core"].update(kind="GRUU"), "unknown kind 'GRUU'; did you mean"),
        (lambda c: c["recipe"].update(kind="Regression"), "expected Recipe"),
        (lambda c: c["recipe"]["core"].update(kind="Identity", hidden=None), "expected CoreSpec, found 'Identity'"),
        (lambda c: c["recipe"].pop("encoder"), "encoder"),
        (lambda c: c["recipe"].update(kind=[]), "recipe"),
        (lambda c: c["recipe"].update(kind="Translation", split=3), "expected"),
    ],
)
def test_a_config_that_says_something_else_is_one_sentence(old, change, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(edited(old / "echo", change))])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_recipe_without_a_task_has_the_usual_one_of_its_head():
    for name, task in (
        ("echo", "Estimate"),
        ("digits", "Classify"),
        ("chars", "PredictText"),
        ("translate", "SaySequence"),
    ):
        assert type(task_of(replace(RECIPES[name](()), task=None))).__name__ == task


def test_a_task_that_does_not_fit_the_head_is_refused_with_both_names():
    recipe = replace(RECIPES["echo"](()), task=RECIPES["digits"](()).task)
    with pytest.raises(UserError, match="task Classify scores what Classification says, not Regression"):
        task_of(recipe)
    with pytest.raises(UserError):
        task_of(replace(recipe, task=TaskSpec()))
