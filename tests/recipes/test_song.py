"""Music: a run is scored by the step, and goes on with a piece."""

import json

import numpy as np
import pytest
from small import fitted

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.nn.decoding import Sampling
from steersman.recipes.song.compose import composed
from steersman.sources.scores import Note, read_music, write_midi
from steersman.sources.songs import Songs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fitted("song", tmp_path_factory.mktemp("run"))


def test_a_step_costs_what_all_its_symbols_cost(run):
    scores = report_run(run)
    model, records = run.model(), run.records()["test"]
    total = steps = 0.0
    for example in run.recipe.examples(model, records):
        raw = np.concatenate([part.double().numpy() for _, _, part in model.streamed([example])])
        labels = model.head.labels(example.y[:, 0])
        raw -= raw.max(1, keepdims=True)
        total -= float((raw[np.arange(len(raw)), labels] - np.log(np.exp(raw).sum(1))).sum())
        steps += int((example.y[:, 0] == ord("\n")).sum())
    assert scores["nats_a_step"] == pytest.approx(total / steps, rel=1e-4)
    assert scores["steps"] == steps
    assert "How it goes on" in (run.folder / "report.html").read_text()
    assert json.loads((run.folder / "metrics.json").read_text())["baselines"]["pairs"]["nats_a_step"] > 0


def test_it_goes_on_with_a_piece_and_writes_it(run, tmp_path, capsys):
    prime, out = tmp_path / "prime.mid", tmp_path / "out.mid"
    pitches = sorted({ord(c) - 32 for c in run.recipe.head.symbols if c != "\n"})[:3]
    prime.write_bytes(write_midi([Note(0.0, 4.0, pitch) for pitch in pitches]))
    options = ["compose", str(run.folder), "--prime", str(prime), "--steps", "5", "--out", str(out)]
    main(options)
    first = out.read_bytes()
    assert {note.pitch for note in read_music(out).notes if note.start == 0} == set(pitches)
    assert "4 were heard" in capsys.readouterr().out
    main(options)
    assert out.read_bytes() == first


def test_as_many_steps_are_said_as_were_asked_for(run):
    said = composed(run.model(), [], 7, Sampling(temperature=0.5), 3)
    assert len(said) <= 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "song.wav"], "written as MIDI"),
        (["--prime", "nothing.mid"], "can't be read"),
        (["--steps", "0"], "steps must be from 1"),
    ],
)
def test_what_cannot_be_composed_is_one_sentence(run, options, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compose", str(run.folder), *options])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_pitch_it_never_heard_and_a_run_of_text_are_refused(run, tmp_path, capsys):
    with pytest.raises(UserError, match="never heard pitch 1; it knows those from"):
        composed(run.model(), [(1,)], 1, Sampling(), 0)
    text = fitted("chars", tmp_path / "chars")
    with pytest.raises(SystemExit):
        main(["compose", str(text.folder)])
    assert "knows no music" in capsys.readouterr().err


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("steersman.sources.songs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"steersman\[music\]"):
        Songs().read()
