"""The person at the wheel: who drives, a recording that nothing destroys, learning from it, watching a training."""

import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import built, outcome, small

from steersman.data.batches import Batches, Lanes
from steersman.data.examples import WEIGHT
from steersman.data.records import Stream
from steersman.errors import UserError
from steersman.files import write_file
from steersman.live import journal
from steersman.live.journal import Journal
from steersman.live.learner import Learner, Learning
from steersman.live.limits import Refused
from steersman.live.recorder import LEAD_S, TAIL_S, Recorder
from steersman.live.wheel import HELD_S, SURE_S, Wheel
from steersman.nn.cores import GRU, Bidirectional
from steersman.recipes.steer.recipes import steer
from steersman.sources import lerobot, read
from steersman.sources.synthetic import Road
from steersman.training.checkpoints import Checkpoints
from steersman.training.fit import fit
from steersman.training.run import load
from steersman.training.trainer import read_log
from steersman.worlds import CarRacing
from steersman.worlds.recording import Recorded
from steersman.worlds.rollout import drive
from steersman.worlds.world import Observation

KINDS: dict[str, lerobot.Kind] = {"picture": ("uint8", (2, 3, 3)), "steer": ("float32", ()), "hands": ("uint8", ())}
RATE_HZ = 10.0
WORLD = CarRacing(max_steps=60)
SEEN = Observation("picture", "uint8", (2, 3, 3))
CONTROLS = {"steer": (-1.0, 1.0), "gas": (0.0, 1.0), "brake": (0.0, 1.0)}


def rows(num: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {"picture": rng.integers(0, 256, (2, 3, 3), np.uint8), "steer": np.float32(rng.normal()), "hands": i % 2}
        for i in range(num)
    ]


def write_journal(path: Path, num: int) -> bytes:
    written = Journal(path, KINDS)
    for row in rows(num):
        written.append(row)
    written.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A journal of four rows: its bytes, and where each row begins and ends."""
    path = tmp_path_factory.mktemp("journal") / f"one{journal.SUFFIX}"
    ends = [len(write_journal(path.with_name(f"{num}{journal.SUFFIX}"), num)) for num in range(4)]
    return write_journal(path, 4), ends


def check_rows(streams, num: int) -> None:
    assert {name: len(values) for name, values in streams.items()} == dict.fromkeys(KINDS, num)
    for i, row in enumerate(rows(num)):
        assert all(np.array_equal(streams[name][i], row[name]) for name in KINDS)


def test_a_journal_comes_back_as_it_was_written(written, tmp_path):
    path = tmp_path / f"one{journal.SUFFIX}"
    path.write_bytes(written[0])
    streams, lost = journal.read(path)
    check_rows(streams, 4)
    assert lost == 0
    assert lerobot.kinds(streams) == KINDS


def test_a_journal_cut_at_every_byte_of_its_last_row_keeps_the_others(written, tmp_path):
    data, ends = written
    path = tmp_path / f"cut{journal.SUFFIX}"
    for end in range(ends[3], len(data)):
        path.write_bytes(data[:end])
        streams, lost = journal.read(path)
        check_rows(streams, 3)
        assert lost == end - ends[3]


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_flipped_bits_never_change_a_row_that_is_kept(written, tmp_path_factory, data):
    original, ends = written
    flipped = bytearray(original)
    places = data.draw(st.lists(st.integers(0, 8 * len(original) - 1), min_size=1, max_size=4, unique=True))
    for place in places:
        flipped[place // 8] ^= 1 << place % 8
    path = tmp_path_factory.getbasetemp() / f"flipped{journal.SUFFIX}"
    path.write_bytes(flipped)
    first = min(places) // 8
    if first < ends[0]:
        with pytest.raises(UserError, match="damaged from its beginning"):
            journal.read(path)
        return
    streams, lost = journal.read(path)
    whole = sum(first >= end for end in ends[1:])
    check_rows(streams, whole)
    assert lost == len(original) - ends[whole]


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_what_is_no_journal_is_told_so(tmp_path_factory, junk):
    path = tmp_path_factory.getbasetemp() / f"junk{journal.SUFFIX}"
    path.write_bytes(junk)
    with pytest.raises(UserError, match="not a journal"):
        journal.read(path)


def test_a_journal_names_only_streams_of_numbers(tmp_path):
    path = tmp_path / f"evil{journal.SUFFIX}"
    for kind in (("object", ()), ("float32", (-1,)), ("float32", (2**40,)), ("no", ()), ("float32", 3)):
        path.unlink(missing_ok=True)
        Journal(path, {"x": kind}).close()  # pyright: ignore[reportArgumentType]
        with pytest.raises(UserError, match="not a journal"):
            journal.read(path)


class Page:
    """Listens to what a page would be told."""

    def __init__(self):
        self.events: list[dict] = []

    def __call__(self, event: dict) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[dict]:
        return [event for event in self.events if event["type"] == kind]


def recorder(folder: Path, page: Page | None = None) -> Recorder:
    return Recorder(folder, WORLD, RATE_HZ, SEEN, page or Page(), say=lambda text: None)


def seen(step: int) -> np.ndarray:
    return np.full((2, 3, 3), step % 256, np.uint8)


def labelled(step: int) -> dict[str, float]:
    return {name: step + place / 10 for place, name in enumerate(CarRacing.labels)}


def steps(made: Recorder, first: int, last: int, person: bool) -> None:
    for step in range(first, last):
        made.step(seen(step), labelled(step), person, person)


def test_a_drive_holds_a_lead_what_the_person_did_and_a_tail(tmp_path):
    page = Page()
    made = recorder(tmp_path, page)
    lead, tail = round(LEAD_S * RATE_HZ), round(TAIL_S * RATE_HZ)
    steps(made, 0, 30, False)
    steps(made, 30, 40, True)
    steps(made, 40, 45, False)  # Hands that come back soon go on with the same drive.
    steps(made, 45, 50, True)
    steps(made, 50, 50 + tail + 5, False)
    made.close()
    (record,) = read(tmp_path)
    first, last = 30 - lead, 50 + tail
    assert np.asarray(record["steer"].values).tolist() == list(range(first, last))
    assert np.array_equal(record["picture"].values[:], [seen(step) for step in range(first, last)])
    hands = [30 <= step < 40 or 45 <= step < 50 for step in range(first, last)]
    assert np.asarray(record["hands"].values).tolist() == hands
    assert np.asarray(record[WEIGHT].values).tolist() == hands
    assert record.about["rate_hz"] == RATE_HZ
    assert page.events == [{"type": "recorded", "drives": 1}]
    assert not list(tmp_path.glob(f"*{journal.SUFFIX}"))


def test_a_long_drive_goes_on_in_another_whose_lead_teaches_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("steersman.live.recorder.MOST_STEPS", 25)
    made = recorder(tmp_path)
    steps(made, 0, 60, True)
    made.close()
    taught = [np.asarray(r["steer"].values)[np.asarray(r[WEIGHT].values) > 0] for r in read(tmp_path)]
    assert np.concatenate(taught).tolist() == list(range(60))


def test_another_track_is_another_drive(tmp_path):
    made = recorder(tmp_path)
    steps(made, 0, 5, True)
    made.end()
    steps(made, 5, 8, True)
    made.close()
    assert [np.asarray(r["steer"].values).tolist() for r in read(tmp_path)] == [[0, 1, 2, 3, 4], [5, 6, 7]]


KILLED = """
import sys, time
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from test_live_wheel import recorder, steps
made = recorder(Path(sys.argv[1]))
for step in range(10**9):
    steps(made, step, step + 1, True)
    print(step, flush=True)
"""


def test_kill_9_while_a_person_drives_loses_no_step_that_was_made(tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), *map(str, Path(__file__).parents[:2])]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [int(process.stdout.readline()) for _ in range(20)]
    assert not journal.left_behind(tmp_path)  # It is being written.
    process.kill()
    said += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    assert not list(tmp_path.glob("data/*/*.parquet"))
    page = Page()
    made = recorder(tmp_path, page)
    made.close()
    (record,) = read(tmp_path)
    found = np.asarray(record["steer"].values)
    assert found.tolist() == list(range(len(found)))
    assert len(found) - 1 >= said[-1]
    assert made.num_drives == 1
    assert not list(tmp_path.glob(f"*{journal.SUFFIX}"))


def test_kill_9_of_the_server_keeps_a_drive_up_to_what_its_page_saw_last(serve, taught, tmp_path):
    command = f"live {taught[0].folder} --no-open --port 0 --recordings {tmp_path / 'hands'}"
    process = subprocess.Popen(
        [sys.executable, "-m", "steersman", *command.split()], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    address = process.stdout.readline().removeprefix("live: ").strip()
    with Watching(address) as page:

        def held() -> list[dict]:
            """Of the track that is being driven."""
            return [m for m in page.moments if m["hands"] == "person" and m["record"] == page.moments[-1]["record"]]

        while len(held()) < 15:
            page.send(type="wheel", steer=0.5, gas=0.5, brake=0)
            seen = len(page.moments)
            page.until(lambda seen=seen: len(page.moments) > seen)
        process.kill()
    process.wait()
    assert len(list((tmp_path / "hands").glob(f"*{journal.SUFFIX}"))) >= 1
    Recorder(tmp_path / "hands", WORLD, 50.0, CAMERA, Page(), say=lambda text: None).close()
    last = read(tmp_path / "hands")[-1]
    persons = np.flatnonzero(np.asarray(last["hands"].values))
    assert len(persons) >= held()[-1]["n"] - held()[0]["n"] + 1
    assert set(np.asarray(last["steer"].values)[persons].tolist()) == {0.5}


def test_a_cut_between_keeping_a_drive_and_removing_its_journal_keeps_it_once(tmp_path, monkeypatch):
    made = recorder(tmp_path)
    steps(made, 0, 5, True)
    monkeypatch.setattr(Path, "unlink", lambda *args, **named: None)
    made.close()
    monkeypatch.undo()
    assert list(tmp_path.glob(f"*{journal.SUFFIX}"))
    recorder(tmp_path).close()
    assert len(read(tmp_path)) == 1
    assert not list(tmp_path.glob(f"*{journal.SUFFIX}"))


def test_what_can_not_be_kept_is_told_and_never_thrown_away(tmp_path):
    said: list[str] = []
    tmp_path.joinpath(f"junk{journal.SUFFIX}").write_bytes(b"junk")
    cut = tmp_path / f"cut{journal.SUFFIX}"
    made = Journal(cut, recorder(tmp_path / "other").kinds)
    made.append({"picture": seen(0), **labelled(0), "hands": 1, WEIGHT: 1})
    made.close()
    cut.write_bytes(cut.read_bytes() + b"xyz")
    page = Page()
    Recorder(tmp_path, WORLD, RATE_HZ, SEEN, page, said.append).close()
    assert len(read(tmp_path)) == 1
    assert any("3 bytes at the end of cut" in line for line in said)
    assert any("junk" in line for line in said)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == [".lock", "cut.damaged", "junk.journal"]
    assert len(page.of("error")) == 2
    assert str(tmp_path) not in str(page.events)


def test_a_folder_of_something_else_is_refused_before_anybody_drives(tmp_path):
    Recorder(tmp_path / "other", WORLD, RATE_HZ, SEEN._replace(shape=(4, 4, 3)), Page(), say=lambda text: None).close()
    recorder(tmp_path / "none").close()
    assert not list(tmp_path.iterdir())  # Where nobody drove there is no folder.
    (tmp_path / "file").touch()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "x.parquet").touch()
    for name in ("file", "strange"):
        with pytest.raises(UserError, match=name):
            recorder(tmp_path / name)


def forbidden(*_, **__):
    raise PermissionError("no")


def test_a_journal_that_can_not_be_removed_stops_no_recorder(tmp_path, monkeypatch):
    said: list[str] = []
    made = Recorder(tmp_path, WORLD, RATE_HZ, SEEN, Page(), said.append)
    steps(made, 0, 5, True)
    kept = made._add
    with monkeypatch.context() as broken:
        broken.setattr(made, "_add", lambda *args: (kept(*args), broken.setattr(Path, "unlink", forbidden)))
        made.end()
        while not said:
            time.sleep(0.01)
    steps(made, 5, 9, True)
    made.close()
    assert "is not among the recordings yet" in said[0]
    assert [len(record) for record in read(tmp_path)] == [5, 4]


def test_a_disk_that_is_full_is_told_once_and_stops_no_show(tmp_path, monkeypatch):
    page = Page()
    made = recorder(tmp_path, page)
    steps(made, 0, 4, True)
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", lambda self, row: (_ for _ in ()).throw(OSError(28, "full")))
        steps(made, 4, 9, True)
    steps(made, 9, 10, False)
    steps(made, 10, 12, True)
    made.close()
    assert len(page.of("error")) == 1
    taught = [np.asarray(r["steer"].values)[np.asarray(r[WEIGHT].values) > 0].tolist() for r in read(tmp_path)]
    assert taught == [[0, 1, 2, 3], [10, 11]]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("gymnasium", reason="the simulator is an extra")
    made = WORLD.build(render=False)
    made.reset(seed=5)
    return made


PICTURE = np.zeros((84, 96, 3), np.uint8)
CAMERA = SEEN._replace(shape=PICTURE.shape)
MODEL = {"steer": 0.25, "pace": 0.5}


def test_the_hands_drive_until_they_let_go_or_fall_silent(world):
    clock = Clock()
    wheel = Wheel(CONTROLS, clock=clock)
    model = world.act(MODEL)
    assert np.array_equal(wheel.action(world, PICTURE, MODEL), model)
    wheel.take({"type": "wheel", "steer": -1, "gas": 0.5, "brake": 0})
    assert wheel.action(world, PICTURE, MODEL).tolist() == [-1, 0.5, 0]
    assert wheel.hands == "person"
    clock.now += HELD_S * 0.99
    wheel.action(world, PICTURE, MODEL)
    assert wheel.hands == "person"
    clock.now += HELD_S * 0.02
    assert np.array_equal(wheel.action(world, PICTURE, MODEL), model)
    assert wheel.hands == "model"
    wheel.take({"steer": 1})
    wheel.release()
    assert np.array_equal(wheel.action(world, PICTURE, MODEL), model)


@given(st.fixed_dictionaries({}, optional={name: st.floats() | st.integers() for name in ("steer", "gas", "brake")}))
@settings(deadline=None)
def test_what_hands_do_is_finite_and_in_range_or_refused(world, command):
    wheel = Wheel(CONTROLS, clock=Clock())
    if all(abs(value) <= sys.float_info.max for value in command.values()):
        wheel.take(command)
        action = wheel.action(world, PICTURE, MODEL)
        assert np.isfinite(action).all()
        assert all(low <= value <= high for value, (low, high) in zip(action, CONTROLS.values(), strict=True))
        assert not (action[1] and action[2])
    else:
        with pytest.raises(Refused, match="finite"):
            wheel.take(command)
        assert np.array_equal(wheel.action(world, PICTURE, MODEL), world.act(MODEL))


@pytest.mark.parametrize("value", [None, "1", [1], {}, True])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(Refused, match="gas is not a finite number"):
        Wheel(CONTROLS).take({"steer": 0, "gas": value})


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.47), st.booleans())
@settings(deadline=None)
def test_what_is_driven_is_what_is_learned(world, steer, gas, brake, braking):
    """Labels of a person's step give back the very pedals, by the way that a model's go."""
    gas, brake = (0.0, brake) if braking else (gas, 0.0)
    action = world.by_hand({"steer": steer, "gas": gas, "brake": brake})
    assert np.allclose(action, [steer, gas, brake], atol=1e-6)
    labels = world.labelled(action)
    assert set(labels) == set(CarRacing.labels)
    assert np.allclose(world.act(labels), action, atol=1e-6)


def test_what_is_held_without_a_word_is_driven_but_not_learned_from(world, tmp_path):
    clock = Clock()
    made = Recorder(tmp_path, WORLD, 50, CAMERA, Page(), say=lambda text: None)
    wheel = Wheel(CONTROLS, made, clock)
    wheel.take({"steer": 0.5})
    for _ in range(4):
        wheel.action(world, PICTURE, MODEL)
        clock.now += SURE_S * 0.45
    made.close()
    (record,) = read(tmp_path)
    assert np.asarray(record["hands"].values).tolist() == [1, 1, 1, 1]
    assert np.asarray(record[WEIGHT].values).tolist() == [1, 1, 1, 0]
    assert np.asarray(record["steer"].values).tolist() == [0.5] * 4


def test_steps_count_in_the_loss_what_their_record_says():
    recipe = small("steer")
    model, _ = built(recipe)
    (record,) = Road(records=1, steps=20).read()
    weight = (np.arange(len(record)) % 3).astype(np.float32)
    weighted = replace(record, streams={**record.streams, WEIGHT: Stream(weight, record["picture"].time_s)})
    plain, shown = recipe.examples(model, [record, weighted])
    assert plain.weight is None
    masks = [b.mask for b in Batches(Lanes(batch_size=1, window=len(record)), [plain, shown], ("steer",)).epoch(0)]
    assert sorted(float(mask.sum()) for mask in masks) == sorted([len(record), weight.sum()])
    (raw,) = model.stream([shown])
    losses = model.head.loss(raw[None], torch.from_numpy(shown.y)[None])[0].double().detach()
    expected = float((losses * torch.from_numpy(weight)).sum() / weight.sum())
    assert model.held_out_loss([shown]) == pytest.approx(expected, rel=1e-9)
    assert model.held_out_loss([plain]) == pytest.approx(float(losses.mean()), rel=1e-9)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A small driver, and a recording of a person who always steers to the left."""
    pytest.importorskip("gymnasium", reason="the simulator is an extra")
    below = tmp_path_factory.mktemp("taught")
    found = steer()
    recipe = replace(
        found,
        source=Recorded(WORLD, 4, seed=7, folder=str(below / "expert")),
        encoder=replace(found.encoder, channels=(4, 8), kernels=(5, 3), strides=(4, 4), features=16),
        core=replace(found.core, hidden=8),
        batches=replace(found.batches, batch_size=4, window=8),
        augment=(),
        training=replace(found.training, steps=4, warmup=1, validate_every=2, precision="float32"),
    )
    run = fit("steer", recipe, below / "runs" / "steer", say=lambda text: None)
    made = WORLD.build()
    recording = Recorder(below / "hands", WORLD, 50, CAMERA, Page(), say=lambda text: None)
    wheel = Wheel(made.controls, recording)
    picture, _ = made.reset(seed=3)
    for step in range(WORLD.max_steps):
        if step >= 20:
            wheel.take({"steer": 1, "gas": 0.1})
        picture, *_ = made.step(wheel.action(made, picture, MODEL))
    recording.close()
    return run, below / "hands"


LEARNING = Learning(steps=60, rate=4.0, share=0.5, nice=0)


def learner(taught, below: Path, page: Page, swapped: list, said: list[str], **options) -> Learner:
    run, recordings = taught
    swap = lambda model, version: swapped.append((model, version))  # noqa: E731
    return Learner(run, recordings, page, swap, said.append, below, **{"learning": LEARNING} | options)


def finished(made: Learner) -> None:
    assert made._thread is not None
    made._thread.join(60)
    assert not made.busy


def persons_error(model, recordings: Path) -> float:
    """Of the steering where the person drove."""
    (shown,) = steer().examples(model, read(recordings))
    (predicted,) = model.predict([shown])
    assert shown.weight is not None
    return float(np.abs(predicted[:, 0] - shown.y[:, 0])[shown.weight > 0].mean())


def test_learning_leaves_a_run_that_drives_more_like_the_person(taught, tmp_path):
    page, swapped, said = Page(), [], []
    made = learner(taught, tmp_path, page, swapped, said)
    before = (taught[0].folder / "model.safetensors").read_bytes()
    made.start()
    with pytest.raises(Refused, match="already"):
        made.start()
    finished(made)
    ((model, version),) = swapped
    assert version == 2
    assert made.run.folder == tmp_path / "steer-by-hand-1"
    loaded = load(made.run.folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert persons_error(loaded, taught[1]) < 0.7 * persons_error(taught[0].model(), taught[1])
    assert (taught[0].folder / "model.safetensors").read_bytes() == before
    assert any("learning from 40 steps driven by hand, 3 times beside 120 others: 50 %" in line for line in said), said
    last = page.of("learning")[-1]
    assert (last["step"], last["steps"]) == (60, 60)
    assert last["loss"] > 0
    assert drive(WORLD, str(made.run.folder), 3).steps == WORLD.max_steps
    made.start()  # The next one starts from these weights.
    finished(made)
    assert [v for _, v in swapped] == [2, 3]
    assert made.run.extra.count(str(taught[1])) == 3
    assert not page.of("error")


def test_a_learning_that_fails_is_told_and_changes_nothing(taught, tmp_path):
    page, swapped, said = Page(), [], []
    run, recordings = taught
    gone = replace(run, folder=tmp_path / "gone")
    made = Learner(gone, recordings, page, lambda *new: swapped.append(new), said.append, tmp_path)
    made.start()
    finished(made)
    assert (swapped, made.run, made.version) == ([], gone, 1)
    assert page.events == [
        {"type": "error", "error": "learning failed, nothing changed", "do": "see the server's terminal"}
    ]
    assert any("there is no run" in line for line in said)
    assert not list(tmp_path.iterdir())


def test_a_killed_learner_is_told_and_a_stopped_one_is_not(taught, tmp_path):
    page, swapped, said = Page(), [], []
    made = learner(taught, tmp_path, page, swapped, said, learning=replace(LEARNING, steps=100_000))
    made.start()
    while not any(event["loss"] for event in page.of("learning")):
        assert made.busy
        time.sleep(0.01)
    os.kill(made._process.pid, signal.SIGKILL)
    finished(made)
    assert any("ended with code -9" in line for line in said)
    assert len(page.of("error")) == 1
    made.start()
    while not page.events[-1].get("loss"):
        assert made.busy
        time.sleep(0.01)
    made.stop()
    assert len(page.of("error")) == 1
    assert swapped == []
    assert not list(tmp_path.iterdir())


def test_nothing_to_learn_from_is_refused(taught, tmp_path):
    made = Learner(taught[0], tmp_path / "none", Page(), lambda *new: None)
    with pytest.raises(Refused, match="no drive to learn from"):
        made.start()


def test_where_no_run_can_be_made_learning_is_refused_without_a_path(taught, tmp_path):
    (tmp_path / "runs").write_text("a file")
    said: list[str] = []
    made = learner(taught, tmp_path / "runs", Page(), [], said)
    with pytest.raises(Refused, match="no place for a new run; see"):
        made.start()
    assert str(tmp_path) in said[0]
    assert not made.busy
    made.stop()


def test_a_learning_that_has_just_begun_is_stopped_as_well(taught, tmp_path):
    made = learner(taught, tmp_path, Page(), [], [], learning=replace(LEARNING, steps=100_000))
    made.start()
    made.stop()
    assert not made.busy
    assert not list(tmp_path.iterdir())


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0.01, 0.99))
def test_the_mix_is_no_more_than_asked_for(own, persons, share):
    times = Learning(share=share).times(own, persons)
    assert 1 <= times <= Learning.most
    if 1 < times < Learning.most:
        assert times * persons / (times * persons + own) == pytest.approx(share, abs=persons / (persons + own))


@pytest.fixture(scope="module")
def serve():
    for needed in ("onnxruntime", "starlette", "uvicorn", "websockets"):
        pytest.importorskip(needed)
    from steersman.live import serve

    return serve


class Watching(Page):
    """A page on its stage: what it hears, held against the tables."""

    def __init__(self, address: str):
        super().__init__()
        self.address, self.moments = address, []

    def __enter__(self):
        from websockets.sync.client import connect

        where = self.address.replace("http", "ws").replace("/?", "/api/stage?")
        self._connection = connect(where, proxy=None, compression=None, close_timeout=1)
        self.socket = self._connection.__enter__()
        return self

    def __exit__(self, *_):
        self._connection.__exit__(None, None, None)

    def send(self, **message) -> None:
        self.socket.send(json.dumps(message))

    def until(self, there) -> None:
        from steersman.live import api

        while not there():
            message = self.socket.recv(60)
            if isinstance(message, bytes):
                (length,) = struct.unpack("<I", message[:4])
                self.moments.append(json.loads(message[4 : 4 + length]))
            else:
                self.events.append(json.loads(message))
                assert api.check(self.events[-1], api.FROM_STAGE[self.events[-1]["type"]]) is None


def test_a_page_takes_the_wheel_is_recorded_and_teaches_while_the_stream_goes_on(serve, taught, tmp_path, monkeypatch):
    """The whole way through a server: every step of the show is counted, none is missing while weights are swapped."""
    from steersman.live.limits import Limits
    from steersman.live.seat import seated
    from steersman.live.shows import Source
    from steersman.live.stage import staged

    monkeypatch.chdir(tmp_path)
    run, said = taught[0], []
    stage = staged(run, Source(), Limits(), said.append)
    with ExitStack() as open:
        open.enter_context(seated(stage, run, None, said.append, LEARNING))
        live = open.enter_context(serve.running(stage))
        page = open.enter_context(Watching(serve.address(live.guard)))
        moments = page.moments
        page.until(lambda: len(moments) > 10)
        assert (page.events[0]["wheel"], page.events[0]["recorded"]) == (True, 0)
        assert moments[-1]["hands"] == "model"
        while not page.of("recorded"):
            page.send(type="wheel", steer=0.75, gas=0.25, brake=0)
            seen = len(moments) + 4
            page.until(lambda seen=seen: len(moments) > seen)
        held = [m["driven"] for m in moments if m["hands"] == "person"]
        assert held
        assert all(d == {"steer": 0.75, "gas": 0.25, "brake": 0} for d in held)
        page.send(type="release")
        page.send(type="learn")
        page.until(lambda: page.of("swapped"))
        last = len(moments)
        page.until(lambda: len(moments) > last + 5)
    assert page.of("learning")
    assert not page.of("error"), said
    assert {m["version"] for m in moments[last + 1 :]} == {2}  # one may have been on its way at the swap
    numbers = [m["n"] for m in moments]
    missed = moments[-1]["dropped"]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] - numbers[0] + 1 == len(numbers) + missed
    assert load(tmp_path / "runs" / "steer-by-hand-1").head.targets == CarRacing.labels
    (folder,) = (tmp_path / "drives").iterdir()
    assert folder.name == "car-racing-60-steps-by-hand"
    assert all(np.asarray(r[WEIGHT].values).any() for r in read(folder))


def test_other_weights_go_on_from_the_state_of_the_old_ones(taught):
    pytest.importorskip("onnxruntime")
    from steersman.export.session import Stepping

    run, _ = taught
    first, second = Stepping(run.model()), Stepping(run.model())
    (record, *_) = run.recipe.source.read()
    pictures = np.asarray(record["picture"].values[:20])
    for picture in pictures[:10]:
        first.step(picture)
    session = second.session()
    session.state = first._first.state
    for picture in pictures[10:]:
        assert session.step(picture) == first.step(picture)


def test_a_training_that_is_watched_gives_the_same_bits(serve, tmp_path):
    """The page sees losses, gradients and newer weights while the training waits for it, and changes nothing of it."""
    from steersman.live.watching import watched

    recipe = small("steer")
    short = {"steps": 20, "warmup": 2, "validate_every": 5, "checkpoint_every": 5}
    recipe = replace(recipe, training=replace(recipe.training, **short))
    fit("steer", recipe, tmp_path / "plain", say=lambda text: None)
    addresses, said, pages = queue.SimpleQueue(), [], []

    def look(trainer, batch):
        if trainer.at.step == 7:
            pages.append(Watching(addresses.get(timeout=120)).__enter__())
            pages[0].until(lambda: len(pages[0].moments) > 5 and pages[0].of("training"))
        if trainer.at.step == 12:
            pages[0].until(lambda: pages[0].of("swapped"))
        if trainer.at.step == 18:
            pages.append(Watching(pages[0].address).__enter__())
            pages[1].until(lambda: any(event["step"] >= 15 for event in pages[1].of("training")))
        return {}

    with watched(tmp_path / "watched", said.append, lambda where, _: addresses.put(where), lap_s=0.1):
        fit("steer", recipe, tmp_path / "watched", say=lambda text: None, look=look)
        first, later = pages
        first.until(lambda: any(event["step"] == 20 for event in first.of("training")))
    first.until(lambda: first.of("goodbye"))
    assert outcome(tmp_path / "watched") == outcome(tmp_path / "plain")
    assert (first.events[0]["source"], first.events[0]["wheel"]) == ("training", False)
    assert first.of("swapped")[0]["version"] == 10
    rows = {row["step"]: row for row in read_log(tmp_path / "watched")}
    for event in first.of("training") + later.of("training"):
        row = rows[event["step"]]
        assert (event["loss"], event["validation"], event["steps"]) == (row["loss"], row.get("validation"), 20)
        assert event["lag"][0] == 1
        assert len(event["lag"]) > 4
    assert {5, 10, 15} <= {event["step"] for event in later.of("training") if event["validation"]}
    assert not said


def test_a_model_that_can_not_be_shown_is_trained_all_the_same(serve, tmp_path):
    from steersman.live.watching import watched

    recipe = replace(small("steer"), core=Bidirectional(GRU(4)))
    recipe = replace(recipe, training=replace(recipe.training, steps=2))
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    with watched(tmp_path / "run", said.put, lambda *_: None):
        run = fit("steer", recipe, tmp_path / "run", say=lambda text: None)
        told = said.get(timeout=120)
    assert told.startswith("--watch: ")
    assert "not causal" in told
    assert told.endswith("; training goes on")
    run.model()


def test_ctrl_c_ends_a_watched_training_with_its_checkpoint_and_its_page(serve, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = f"train echo --run run --watch --watch-port {port} --no-open"
    command += " --training.steps 1000000 --training.validate-every 1000000"
    process = subprocess.Popen(
        [sys.executable, "-m", "steersman", *command.split()],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"BROWSER": f"{sys.executable} {tmp_path / 'none.py'}", "HOME": str(tmp_path)},
    )
    assert process.stderr is not None
    where = next(line.split()[1] for line in process.stderr if line.startswith("watch: "))
    assert f":{port}/" in where
    with Watching(where) as page:
        page.until(lambda: len(page.of("training")) > 1)
        process.send_signal(signal.SIGINT)
        page.until(lambda: page.of("goodbye"))
    said = process.stderr.read()
    assert process.wait() == 130
    assert "resume with: steersman train echo --run run --watch" in said
    assert "none.py" not in said
    last = read_log(tmp_path / "run")[-1]["step"]
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == last


def test_what_goes_wrong_beside_a_training_is_said_once_and_ends_nothing(serve, monkeypatch):
    from steersman.live import watching

    failures = iter([ValueError("odd"), ValueError("odd"), UserError("gone"), OSError("full"), KeyboardInterrupt()])
    follower = object.__new__(watching.Follower)
    follower.stage, said = SimpleNamespace(say=lambda text: said.append(text)), []
    monkeypatch.setattr(watching, "POLL_S", 0)
    monkeypatch.setattr(follower, "look", lambda: (_ for _ in ()).throw(next(failures)), raising=False)
    with pytest.raises(KeyboardInterrupt):
        follower.follow()
    assert said == ["ValueError: odd", "OSError: full"]


def test_a_log_that_grows_is_read_once_and_anew_when_it_was_written_anew(serve, tmp_path):
    from steersman.live.watching import Log

    path = tmp_path / "log.jsonl"
    log = Log(path)
    assert log.news() == []
    with open(path, "w") as file:
        for text, expected in (('{"step": 1}\n{"st', [1]), ('ep": 2}', []), ("\n", [2]), ('{"step": 3}\n', [3])):
            file.write(text)
            file.flush()
            assert [row["step"] for row in log.news()] == expected
    write_file(path, b'{"step": 1}\n{"step": 2}\n' * 5)
    assert len(log.news()) == len(log.rows) == 10


def test_a_lap_stands_when_it_is_over_until_the_next_is_due(serve):
    from steersman.live.shows import Simulated
    from steersman.live.watching import Lap

    show = Lap(Simulated(CarRacing(max_steps=3), ("steer",), 5))
    for track in ("track 5", "track 6"):
        shots = []
        while (shot := show.shot()) is not None:
            shots.append((shot.record, shot.first))
            show.advance(np.zeros(3, np.float32))
        assert shots == [(track, True), (track, False), (track, False)]
        assert show.shot() is None
        show.restart()
    assert show.shot() is not None


def test_a_lap_that_somebody_watches_is_driven_to_its_end_before_newer_weights_come(serve, taught):
    from steersman.live.stage import Stage
    from steersman.live.watching import Follower, Lap, newest_weights, shown, weights

    run, _ = taught
    assert newest_weights(run.folder) == (run, 4)
    held = run.records()["validation"]
    first = weights(run, 0)
    show = Lap(shown(run, first, held))
    stage = Stage("steer", "steer", first, show)
    stage.version = 0
    follower = Follower(run.folder, stage, show, run, run.recipe.examples(first, held), 0.0)
    viewer = stage.subscribe(lambda: None)
    follower.look()
    assert stage.version == 0
    stage.unsubscribe(viewer)
    follower.look()
    assert stage.version == 4
    stage.version, show.stands = 0, True
    stage.subscribe(lambda: None)
    follower.look()
    assert stage.version == 4
    trained = weights(run, 4).state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in stage.model.state_dict().items())
