"""The one prepared pipeline: what is learned from is what is examined, and data is read once."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import small, write_log, write_text

import steersman.sources as sources
from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.doctor import patient_of
from steersman.errors import UserError
from steersman.recipes.steer.labels import Balance, Lag, SideCameras
from steersman.sources import read
from steersman.training import fit as fitting
from steersman.training.checkpoints import write_tensors
from steersman.training.prepare import prepare
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


KINDS = {
    "float64": lambda values: values.astype(float),
    "bool": lambda values: values > 0,
    "object": lambda values: values.astype(object),
    "list": np.ndarray.tolist,
    "tensor": torch.from_numpy,
    "uint16": lambda values: (100 * values + 1000).astype(np.uint16),
    "of another byte order": lambda values: values.astype(">f8"),
    "read backwards": lambda values: values[::-1],
    "not writeable": lambda values: np.frombuffer(values.tobytes(), np.float32).reshape(values.shape),
}


def series(change=np.array, y_change=None, clock=None, number: int = 0, steps: int = 9) -> Record:
    rng, time_s = np.random.default_rng(number), np.arange(float(steps)) if clock is None else clock
    x = rng.normal(size=(steps, 2)).astype(np.float32)
    values = {"x": change(x), "y": (y_change or change)(np.ascontiguousarray(x[:, 0]))}
    return Record(f"r{number}", {name: Stream(value, time_s[: len(value)]) for name, value in values.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_series_of_any_type_of_number_are_learned_from(kind):
    change = KINDS[kind]
    recipe, given = small("echo"), [series(change, number=i) for i in range(3)]
    made = prepare(recipe, {"train": given, "validation": given[:1], "test": given[:1]})
    plain = np.asarray(change(series().streams["x"].values), np.float32)
    np.testing.assert_allclose(made.examples["train"][0].x, plain)
    assert made.validate is not None
    assert np.isfinite(made.validate(made.model))
    (batch,) = made.batches.epoch(0)
    total, weight = made.model.loss(batch, made.model(batch, made.model.initial(len(batch.fresh)))[0])
    assert torch.isfinite(total / weight)
    steps = [made.model.step(step)[0]["y"] for step in (change(plain)[0], plain[0], plain[0].tolist())]
    assert kind in ("bool", "uint16") or steps[1] == pytest.approx(steps[2])
    assert all(map(np.isfinite, steps))


def test_a_clock_may_be_a_list_or_hold_moments():
    for clock in ([0.0, 0.5], np.array(["2024-01-01T00:00:00.0", "2024-01-01T00:00:00.5"], "datetime64[ms]")):
        assert np.diff(Stream([1, 2], clock).time_s) == 0.5


BAD = {
    "x': expected numbers, found <U1": series(lambda values: np.full(values.shape, "a"), np.array, number=7),
    "y': expected numbers, found <U1": series(np.array, lambda values: np.full(values.shape, "a"), number=7),
    "x': expected numbers, found others": series(lambda v: np.full(v.shape, "?", object), np.array, number=7),
    "x': expected numbers, found complex64": series(lambda values: values * 1j, np.array, number=7),
    "'y' is empty": series(np.array, lambda values: values[:0], number=7),
    r"steps of shape \(1,\); the others, and the model, \(2,\)": series(lambda v: v[:, :1], np.array, number=7),
    "the target at step 0 is not a finite number": series(np.array, lambda values: values * np.nan, number=7),
}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("said", BAD)
def test_a_record_that_can_not_be_learned_from_or_scored_is_refused_before_training(said, part):
    parts = {name: [series(number=i)] for i, name in enumerate(("train", "validation", "test"))}
    parts[part].append(BAD[said])
    with pytest.raises(UserError, match=f"record 'r7'.*{said}"):
        prepare(small("echo"), parts)


def test_pictures_that_are_no_bytes_are_refused():
    recipe = small("steer")
    given = [
        replace(r, streams=r.streams | {"picture": Stream(np.asarray(r["picture"].values) / 255, r["picture"].time_s)})
        for r in recipe.source.read()[:2]
    ]
    with pytest.raises(UserError, match="expected pictures of whole numbers from 0 to 255, found float64"):
        prepare(recipe, {"train": given, "validation": []})


def test_values_that_make_no_array_are_refused():
    for values in ([[1.0], [2.0, 3.0]], np.float32(3)):
        with pytest.raises(UserError, match="a stream's values"):
            Stream(values, np.arange(2.0))
