"""Sounds told apart: classes, speakers, voices, the page."""

import re
from base64 import b64decode
from dataclasses import replace

import numpy as np
import pytest
import torch

from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.evaluation.page import wav
from steersman.evaluation.predict import predict
from steersman.evaluation.report import report_run
from steersman.nn.sounds import MuLaw
from steersman.recipes.listen.recipes import listen
from steersman.recipes.listen.task import LOGISTIC, logistic, summary
from steersman.recipes.listen.voices import Voices
from steersman.sources.sound import Sounds
from steersman.sources.synthetic import Vowels
from steersman.training.fit import fit
from steersman.training.prepare import divide, prepare


def record(name: str, seconds: float = 0.05, **told) -> Record:
    values = np.random.default_rng(0).normal(0, 0.1, int(8000 * seconds)).astype(np.float32)
    return Record(name, {"sound": Stream(values, np.arange(len(values)) / 8000)}, told)


def quick(recipe, steps: int = 2):
    return replace(recipe, training=replace(recipe.training, steps=steps, validate_every=steps))


def test_no_two_parts_share_a_speaker():
    recipe = listen()
    parts = divide(recipe)
    who = {part: {r.about["speaker"] for r in records} for part, records in parts.items()}
    assert all(who.values())
    assert sum(map(len, who.values())) == Vowels().speakers == len(set().union(*who.values()))
    named = replace(recipe, test_speakers=("speaker 3",), validation_speakers=("speaker 1", "speaker 2"))
    who = {part: {r.about["speaker"] for r in records} for part, records in divide(named).items()}
    assert (who["test"], who["validation"]) == ({"speaker 3"}, {"speaker 1", "speaker 2"})
    none = replace(named, validation_speakers=(), split=replace(named.split, validation=0))
    assert not divide(none)["validation"]
    with pytest.raises(UserError, match="no speaker 'speaker 33'; did you mean 'speaker 3'"):
        divide(replace(named, test_speakers=("speaker 33",)))


def test_without_speakers_sounds_are_divided_one_by_one_and_that_is_said():
    said, records = [], [record(f"{i}", word="ab"[i % 2]) for i in range(20)]
    parts = divide(listen(records), records=records, say=said.append)
    assert {part: len(found) for part, found in parts.items()} == {"train": 12, "validation": 4, "test": 4}
    assert "no speaker" in said[-1]
    with pytest.raises(UserError, match="There are: none"):
        divide(replace(listen(records), test_speakers=("anna",)), records=records)


def test_classes_are_learned_by_name():
    records = [record(f"{i}", digit=str(i % 12), folder="all") for i in range(24)]
    recipe = listen(records).adapt({"train": records})
    assert (recipe.label, recipe.classes) == ("digit", tuple(map(str, range(12))))
    assert recipe.head.classes == 12
    assert recipe.seen(records[11])["label"].values.tolist() == [11]
    with pytest.raises(UserError, match="class '13'; this model knows 0, 1"):
        recipe.seen(record("new", digit="13"))
    with pytest.raises(UserError, match="which no sound of the training part is"):
        listen(records).adapt({"train": records[:11], "validation": [], "test": records[11:]})
    with pytest.raises(UserError, match="nothing to tell apart"):
        listen(records).adapt({"train": records[:1]})
    with pytest.raises(UserError, match="does not tell its word; it tells digit, folder"):
        replace(listen(records), label="word").adapt({"train": records})
    with pytest.raises(UserError, match="what tells the class"):
        listen(records).adapt({"train": [record("a")]})


def test_a_sound_shorter_than_a_step_is_one():
    recipe = listen()
    length = recipe.encoder.samples(8000)
    for seconds, steps in ((0.001, 1), (2.5 * length / 8000, 2)):
        found = recipe.seen(record("a", seconds), answers=False)["sound"].values
        assert found.shape == (steps, length)


def test_voices_are_faster_or_slower_louder_or_softer_later_and_noisy():
    x = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000).astype(np.float32).reshape(-1, 80)
    y, rng = np.zeros(1, np.float32), np.random.default_rng(0)
    seen = [Voices(shift=0, noise_db=(60, 60)).apply(x, y, (), rng)[0].reshape(-1) for _ in range(20)]
    for sound in seen:  # An octave is never reached, and what is longer is lower.
        hz = np.abs(np.fft.rfft(sound)).argmax() * 8000 / len(sound)
        assert hz * len(sound) == pytest.approx(500 * 8000, rel=0.02)
    lengths, levels = [len(s) for s in seen], [20 * np.log10(s.std() / x.std()) for s in seen]
    assert min(lengths) < 7500 < 8500 < max(lengths)
    assert -15.1 < min(levels) < -5 < 5 < max(levels) < 15.1
    (noisy, _) = Voices(0, 0, (20, 20), 0).apply(x, y, (), rng)
    noise = noisy.reshape(-1)[:7920] - x.reshape(-1)[:7920]
    assert 20 * np.log10(x.std() / noise.std()) == pytest.approx(20, abs=0.5)
    assert {len(Voices(0, 0, (60, 60), 1).apply(x, y, (), rng)[0]) for _ in range(20)} == {101, 102}
    shares = []
    for _ in range(20):
        tilted = Voices(0, 0, (200, 200), 0, tilt=0.9).apply(x, y, (), rng)[0].reshape(-1)[:7920]
        own, before = x.reshape(-1)[1:7920], x.reshape(-1)[:7919]
        shares.append((tilted[1:] - own) @ before / (before @ before))
        np.testing.assert_allclose(tilted[1:], own + shares[-1] * before, atol=1e-4)
    assert -0.9 < min(shares) < -0.4 < 0.4 < max(shares) < 0.9
    silent, _ = Voices().apply(np.zeros((5, 80), np.float32), y, (), rng)
    assert not silent.any()


def test_a_batch_takes_the_length_of_what_is_augmented():
    recipe = replace(listen(), augment=(Voices(shift=20),))
    prepared = prepare(recipe, divide(recipe))
    (batch, *_), other = prepared.batches.epoch(0), prepared.batches.epoch(1)[0]
    assert batch.x.shape[1] == int(batch.lengths.max())
    assert torch.equal(batch.mask.sum(1).long(), batch.lengths)
    assert not torch.equal(batch.lengths.sort().values, other.lengths.sort().values)


def test_raw_samples_are_read_in_mu_law():
    recipe = replace(listen(), encoder=MuLaw(), source=Vowels(records=20))
    prepared = prepare(quick(recipe), divide(recipe))
    assert prepared.model.encoder.size == 128
    assert summary(recipe, prepared.records["train"][0]).shape == (2 * recipe.spectrogram.size,)


def test_the_page_shows_what_can_be_heard(tmp_path):
    recipe = quick(replace(listen(), source=Vowels(records=80)))
    run = fit("listen", recipe, tmp_path / "run", say=lambda text: None)
    scores = report_run(run)
    assert set(scores["baselines"]) == {"majority", "uniform", LOGISTIC}
    test = run.records()["test"]
    found = logistic(recipe, run.records()["train"], test)
    assert found is not None
    said = np.array(recipe.classes)[found.argmax(1)]
    assert scores["baselines"][LOGISTIC]["accuracy"] == np.mean(said == [r.about["word"] for r in test])
    html = (run.folder / "report.html").read_text()
    assert "<h2>Speaker by speaker</h2>" in html
    assert html.count("<audio controls") == html.count("data:audio/wav;base64,") > 2
    assert re.search(
        r"_\d+: said [aeiou] \(\d+\xa0%\), (rightly|was [aeiou])\. 0\.\d\d s to the right, 100 to 4000 Hz", html
    )


def test_a_folder_of_sounds_is_learned_and_predicted(tmp_path):
    for vowel in Vowels(records=40).read():
        place = tmp_path / "sounds" / vowel.about["word"] / f"{vowel.name}_{vowel.about['speaker'][-1]}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b64decode(wav(np.asarray(vowel["sound"].values), 8000).partition(",")[2]))
    recipe = quick(replace(listen([vowel]), source=Sounds(pattern="{name}_{number}_{speaker}")))
    run = fit("listen", recipe, tmp_path / "run", (str(tmp_path / "sounds"),), say=lambda text: None)
    assert run.recipe.classes == ("a", "e", "i", "o", "u")
    said = predict(run, (str(tmp_path / "sounds" / "a"),))
    assert len(said["record"]) == 8
    np.testing.assert_allclose(sum(said[f"p({name})"] for name in "aeiou"), 1, atol=1e-5)
