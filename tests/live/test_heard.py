"""Sound of a page's microphone: cut into words, each answered as the recording of it."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from small import fitted, small

pytest.importorskip("uvicorn", reason="the extra `live` is not installed")
from steersman.data.records import Record
from steersman.errors import UserError
from steersman.live.heard import Words
from steersman.live.limits import Limits, Refused
from steersman.live.shows import Heard, Source, logged
from steersman.live.stage import Stage, staged
from steersman.training.fit import fit

RNG = np.random.default_rng(0)


def room(steps: int) -> np.ndarray:
    return RNG.normal(0, 0.001, (steps, 80)).astype(np.float32)


def loud(steps: int) -> np.ndarray:
    return RNG.normal(0, 0.1, (steps, 80)).astype(np.float32)


def cut(steps: np.ndarray) -> list[int]:
    """The number of steps of each word, at 100 steps a second."""
    words, found = Words(100), []
    for step in steps:
        for _, first in words.hear(step):
            if first:
                found.append(0)
            found[-1] += 1
    return found


def test_words_are_parted_by_quiet_and_not_by_a_short_stop():
    speech = [room(100), loud(30), room(60), loud(20), room(15), loud(10), room(60)]
    assert cut(np.concatenate(speech)) == [30 + 5, 20 + 15 + 10 + 5]


def test_a_word_begins_with_what_came_before_it_and_ends_with_its_last_loud_step():
    steps, words = np.concatenate((room(100), loud(10), room(40))), Words(100)
    heard = [step for each in steps for step, _ in words.hear(each)]
    np.testing.assert_array_equal(heard, steps[95:110])


def test_no_room_is_a_word():
    assert cut(room(300)) == cut(np.zeros((300, 80), np.float32)) == []
    louder = room(900) * np.linspace(1, 10, 900, dtype=np.float32)[:, None]  # 20 dB in 9 s.
    assert cut(louder) == []


def test_what_goes_on_is_a_word_of_three_seconds():
    assert cut(np.concatenate((room(50), loud(450), room(50))))[0] == 300


def sent(sound: np.ndarray, hz: int = 8000) -> bytes:
    return struct.pack("<I", hz) + (sound.reshape(-1) * 32767).astype("<i2").tobytes()


def test_sound_comes_in_messages_of_any_length_and_what_is_none_is_refused():
    show, steps = Heard(80, 8000), np.concatenate((room(100), loud(10), room(30)))
    flat = steps.reshape(-1)
    shots = []
    for place in range(0, len(flat), 333):
        show.offer(sent(flat[place : place + 333]))
        while shot := show.shot():
            shots.append(shot)
    assert [shot.first for shot in shots] == [True] + [False] * 14
    assert {shot.record for shot in shots} == {"word 1"}
    np.testing.assert_allclose([shot.raw for shot in shots], steps[95:110], atol=1e-4)
    with pytest.raises(Refused, match="sound of 44100 samples a second came; send 8000"):
        show.offer(sent(room(1), 44100))
    for wrong in (b"", b"abc", sent(room(1)) + b"x"):
        with pytest.raises(Refused, match="this is no sound"):
            show.offer(wrong)
    show.offer(sent(room(300)))
    assert show.dropped == 100


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = small("listen")
    recipe = replace(recipe, training=replace(recipe.training, steps=4, warmup=1, validate_every=4))
    return fit("listen", recipe, tmp_path_factory.mktemp("listen") / "run", say=lambda text: None)


def test_each_word_is_answered_as_a_recording_of_it(run):
    model = run.model()
    length = model.encoder.raw[0]
    assert model.encoder.sound_hz == 8000
    stage = staged(run, Source(microphone=True), Limits(), say=lambda text: None)
    show = stage.show
    assert isinstance(stage, Stage)
    assert isinstance(show, Heard)
    assert "microphone" in stage.panels
    viewer = stage.subscribe(lambda: None)
    words = [RNG.normal(0, 0.1, (12, length)).astype(np.float32) for _ in range(2)]
    quiet = [RNG.normal(0, 0.001, (40, length)).astype(np.float32) for _ in range(3)]
    heard = np.concatenate((quiet[0], words[0], quiet[1], words[1], quiet[2]))
    told = []
    for part in np.array_split(heard.reshape(-1), 9):
        show.offer(sent(part))
        while show._said or show._came.is_set():
            stage._step()
            if (message := viewer.take()[1]) is not None:
                told.append(json.loads(message[4 : 4 + struct.unpack("<I", message[:4])[0]]))
    last = {moment["record"]: moment for moment in told}
    assert list(last) == ["word 1", "word 2"]
    begun = len(quiet[0]) - 3
    raw = np.round(heard[begun : len(quiet[0]) + 12] * 32767) / 2**15
    said, state = model.step(raw[0].astype(np.float32))
    for step in raw[1:].astype(np.float32):
        said, state = model.step(step, state)
    (target,) = model.head.targets
    assert last["word 1"]["said"][target] == said.said[target]
    assert last["word 1"]["time_s"] == pytest.approx((len(raw) - 1) * length / 8000, abs=1e-3)


def test_a_microphone_is_refused_where_no_sound_is_read(run, tmp_path):
    with pytest.raises(UserError, match="are four sources; give one"):
        Source(microphone=True, webcam=True).show(run, run.model(), Limits())
    recipe = small("echo")
    recipe = replace(recipe, training=replace(recipe.training, steps=2, warmup=1, validate_every=2))
    echo = fit("echo", recipe, tmp_path / "echo", say=lambda text: None)
    with pytest.raises(UserError, match=r"takes steps of shape .*, no sound"):
        Source(microphone=True).show(echo, echo.model(), Limits())


@pytest.mark.parametrize("name", ["listen", "glance"])
def test_a_log_of_named_classes_shows_each_record_as_the_model_sees_it(run, name, tmp_path):
    run = run if name == "listen" else fitted(name, tmp_path)
    model = run.model()
    show = Source().show(run, model, Limits())
    record, raw = run.records()["test"][0], model.encoder.raw
    seen = run.steps.seen(record)
    (target,) = model.head.targets
    assert show.size == (raw if name == "glance" else (0, 0))
    for step, values in enumerate(np.asarray(seen[run.steps.inputs].values)):
        shot = show.shot()
        assert (shot.first, shot.record) == (step == 0, record.name)
        assert shot.truth == {target: float(seen[target].values[0])}
        np.testing.assert_array_equal(shot.raw, values)
        show.advance(None)
    assert show.shot().first
    bare = Record("bare", {run.steps.inputs: record[run.steps.inputs]})
    assert logged(run, model, [bare]).shot().truth is None
    stage = staged(run, Source(), Limits(), say=lambda text: None)
    viewer = stage.subscribe(lambda: None)
    stage._step()
    assert (b"\x89PNG" in viewer.take()[1]) == (name == "glance")
