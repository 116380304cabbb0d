"""The one prepared pipeline: what is learned from is what is examined, and data is read once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small import small, write_log, write_text

import steersman.sources as sources
from steersman.__main__ import main
from steersman.doctor import patient_of
from steersman.recipes.steer.labels import Balance, Lag, SideCameras
from steersman.sources import read
from steersman.training import fit as fitting
from steersman.training.checkpoints import write_tensors
from steersman.training.run import Run


class Spy:
    """What training was given."""

    def __init__(self, model, batches, training, folder, validate=None, *rest):
        Spy.batches = batches

    def run(self):
        """Nothing is trained."""


def test_the_doctor_sees_the_steps_targets_and_weights_that_training_saw(tmp_path, monkeypatch):
    three = [
        replace(record, streams=record.streams | {f"picture_{side}": record["picture"] for side in ("left", "right")})
        for record in read(write_log(tmp_path / "log", num=3, steps=240))
    ]
    log = str(tmp_path / "log")
    recipe = small("steer", (log,))
    recipe = replace(recipe, lag=Lag(0.5), balance=Balance(1.0), sides=SideCameras(0.1))
    monkeypatch.setattr(sources, "read", lambda path: [replace(r, name=f"{path}/{r.name}") for r in three])
    monkeypatch.setattr(fitting, "Trainer", Spy)
    run = fitting.fit("steer", recipe, tmp_path / "run", (log,), extra=(log,), say=lambda text: None)
    write_tensors(run.folder / "model.safetensors", run.recipe.load_skeleton(run.raw, run.folder).state_dict())
    patient = patient_of(Run.open(run.folder))
    learned, seen = Spy.batches.examples, patient.shown["train"]
    assert len(learned) == len(seen) > 3 * 3
    for a, b, w, v in zip(learned, seen, Spy.batches.weights, patient.batches.weights, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.x, b.x)
        np.testing.assert_array_equal(a.y, b.y)
        np.testing.assert_array_equal(w, v)


@pytest.fixture
def readings(monkeypatch):
    """How often each reader was asked for each log."""
    counted = Counter()
    for name, reader in sources.READERS.items():

        def counting(path, *given, reader=reader, was=reader.read, name=name):
            counted[f"{name} {path.name}"] += 1
            return was(path, *given)

        monkeypatch.setattr(reader, "read", counting)
    return counted


def test_a_log_is_read_once_from_start_to_report(readings, tmp_path, monkeypatch, capsys):
    log = write_log(tmp_path / "log", num=3, steps=80)
    monkeypatch.chdir(tmp_path)
    small_steps = "--training.steps 2 --training.validate-every 1 --training.precision float32 --split.gap-s 0.5"
    main(["train", "steer", "--data", str(log), "--run", "run", *small_steps.split()])
    assert dict(readings) == {"lerobot log": 1}
    assert (tmp_path / "run" / "report.html").is_file()
    main(["train", "steer", "--data", str(log), "--run", "run", *small_steps.split()])
    assert dict(readings) == {"lerobot log": 2}


def test_help_reads_no_data(readings, tmp_path, monkeypatch, capsys):
    log = write_log(tmp_path / "log", num=1)
    monkeypatch.setattr("steersman.sources.text.text_record", lambda *a: pytest.fail("a text was read"))
    for name, data in (("steer", str(log)), ("steer", ""), ("chars", str(tmp_path / "none.txt")), ("chars", "")):
        with pytest.raises(SystemExit) as stop:
            main(["train", name, *(["--data", data] if data else []), "--help"])
        assert stop.value.code == 0
    assert not readings


def test_an_alphabet_is_that_of_the_split_that_was_asked_for(tmp_path, monkeypatch, capsys):
    text = write_text(tmp_path / "a.txt", 2000)
    text.write_text(text.read_text() + "Z" * 100)
    monkeypatch.chdir(tmp_path)
    few = "--training.steps 1 --training.precision float32 --core.hidden 4 --split.validation 0 --split.test 0.01"
    main(["train", "chars", "--data", str(text), "--run", "run", *few.split()])
    assert "Z" in Run.open(tmp_path / "run").recipe.head.symbols
