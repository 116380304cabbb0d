"""Policy meets world: drives, recordings that any cut leaves whole, work shared by processes, DAgger."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium", reason="the simulator is an extra")

from steersman.errors import Interrupted, UserError
from steersman.export.folder import export
from steersman.nn.heads import Regression
from steersman.processes import in_parallel
from steersman.recipes import RECIPES
from steersman.sources import read
from steersman.training.fit import fit
from steersman.training.recipe import read_records
from steersman.training.run import Run
from steersman.worlds import CarRacing
from steersman.worlds.dagger import fit_rounds
from steersman.worlds.recording import Recorded, record, recorded_drive
from steersman.worlds.rollout import drive, drives

SHORT = CarRacing(max_steps=30)


class Cut(Exception):
    """What a test raises in the place of a `kill -9`."""


def cut(when):
    """A watch that cuts the work short."""

    def watch(what, done, total, note=""):
        if when(what, done, total):
            raise Cut

    return watch


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return record(SHORT, tmp_path_factory.mktemp("drives") / "whole", 4, seed=7)


def recipe(recording: Path, **training):
    """`steer`, small, on the recording."""
    found = RECIPES["steer"]()
    short = {"steps": 4, "warmup": 1, "validate_every": 2, "checkpoint_every": 2, "precision": "float32"} | training
    return replace(
        found,
        source=Recorded(SHORT, 4, seed=7, folder=str(recording)),
        encoder=replace(found.encoder, channels=(4, 8), kernels=(5, 3), strides=(4, 4), features=16),
        core=replace(found.core, hidden=8),
        batches=replace(found.batches, batch_size=4, window=8),
        training=replace(found.training, **short),
    )


@pytest.fixture(scope="module")
def run(recording, tmp_path_factory):
    return fit("steer", recipe(recording), tmp_path_factory.mktemp("runs") / "steer", say=lambda text: None)


def test_a_recorded_drive_is_a_pure_function_of_its_seed(recording):
    once, again = (recorded_drive(SHORT, "expert", (7, 0.12)) for _ in range(2))
    other = recorded_drive(SHORT, "expert", (8, 0.12))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["steer"], other["steer"])
    found = Recorded(SHORT, 1, seed=7, folder=str(recording)).read()[0]
    assert all(np.array_equal(np.asarray(found[name].values[:]), once[name]) for name in once)


def test_a_recording_gone_on_with_equals_one_never_cut(recording, tmp_path):
    for cut_at in (1, 3):
        with pytest.raises(Cut):
            record(SHORT, tmp_path / "cut", 4, seed=7, watch=cut(lambda what, done, total: done == cut_at))  # noqa: B023
    record(SHORT, tmp_path / "cut", 4, seed=7)
    assert contents(tmp_path / "cut") == contents(recording)


KILLED = """
import sys
from pathlib import Path
from steersman.worlds.recording import record
from steersman.worlds import CarRacing
if __name__ == "__main__":
    record(CarRacing(max_steps=200), Path(sys.argv[1]), 6, seed=7, workers=int(sys.argv[2]))
"""


def test_kill_9_while_recording_loses_no_whole_drive_and_leaves_no_worker_behind(tmp_path):
    script, folder = tmp_path / "killed.py", tmp_path / "killed"
    script.write_text(KILLED)
    process = subprocess.Popen([sys.executable, str(script), str(folder), "2"])
    while not list(folder.glob("data/*/*.parquet")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    for _ in range(100):
        if not any(alive(worker) for worker in workers):
            break
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)
    whole = record(CarRacing(max_steps=200), tmp_path / "whole", 6, seed=7)
    assert contents(folder).items() != contents(whole).items()
    record(CarRacing(max_steps=200), folder, 6, seed=7)
    assert contents(folder) == contents(whole)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in listed.stdout.split()]


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_recording_of_other_settings_is_not_gone_on_with(recording):
    with pytest.raises(UserError, match="begun with another about"):
        record(SHORT, recording, 5, seed=8)


def test_a_recording_begun_when_its_world_had_fewer_options_is_gone_on_with(recording, tmp_path):
    folder = shutil.copytree(recording, tmp_path / "older")
    file = folder / "meta" / "steersman.json"
    begun = json.loads(file.read_text())
    del begun["about"]["world"]["margin"]
    older = json.dumps(begun | {"task": "drive one lap of CarRacing(max_steps=30)"})
    file.write_text(older)
    before = len(read(folder))
    record(SHORT, folder, before + 1, seed=7)
    assert len(read(folder)) == before + 1
    assert json.loads(file.read_text()) == json.loads(older)
    with pytest.raises(UserError, match="begun with another task and another about"):
        record(replace(SHORT, blackouts=0.1), folder, before + 2, seed=7)


def test_what_concerns_models_alone_makes_no_other_recording_of_the_expert(recording, tmp_path):
    folder = shutil.copytree(recording, tmp_path / "drives")
    before = len(read(folder))
    record(replace(SHORT, margin=0.1), folder, before + 1, seed=7)
    assert len(read(folder)) == before + 1


def test_more_drives_are_recorded_only_when_asked_for(recording, tmp_path):
    few = Recorded(SHORT, 1, seed=7, folder=str(tmp_path / "few"))
    assert len(few.read()) == 1
    assert len(replace(few, episodes=2).read()) == 2
    assert len(few.read()) == 1
    assert len(list((tmp_path / "few" / "data").rglob("*.parquet"))) == 2


def test_what_will_be_recorded_is_told_before_and_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("steersman.worlds.recording.num_cores", lambda: 1)
    source, watch = Recorded(SHORT, 2, seed=7, folder=str(tmp_path / "few")), lambda *progress: None
    source.read(watch)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("2 drives of the expert in car-racing-30-steps will be recorded into")
    source.read(watch)
    assert capsys.readouterr().err == ""


def test_an_export_has_no_more_recorded_than_its_check_needs(run, tmp_path, monkeypatch):
    monkeypatch.setattr("steersman.worlds.recording.num_cores", lambda: 1)
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    monkeypatch.chdir(tmp_path)
    source = Recorded(SHORT, 40, seed=7)
    shipped = Run.open(run.folder)
    shipped = replace(shipped, recipe=replace(shipped.recipe, source=source))
    export(shipped, tmp_path / "out")
    assert len(list((tmp_path / "drives").glob("*/data/*/*.parquet"))) == 3


def test_labels_are_the_experts_and_what_was_driven_is_disturbed(recording):
    found = Recorded(SHORT, 4, seed=7, folder=str(recording)).read()
    assert set(CarRacing.labels) < set(found[0].streams)
    steer, driven = (np.asarray(found[0][name].values[:]) for name in ("steer", "driven_steer"))
    assert np.abs(steer - driven).max() > 0.01
    assert np.abs(driven).max() <= 1


def test_a_model_drives_and_the_expert_labels(run, tmp_path):
    folder = record(SHORT, tmp_path / "own", 2, seed=3, name=str(run.folder))
    again = record(SHORT, tmp_path / "again", 2, seed=3, name=str(run.folder), workers=2)
    assert contents(folder) == contents(again)
    found = Recorded(SHORT, 2, seed=3, folder=str(folder))
    assert len(read_records(run.recipe, [str(folder)])) == 2
    with pytest.raises(UserError, match="begun with another about"):
        found.read()  # as if the expert had driven


def test_a_scored_drive_is_a_pure_function_of_its_seed_in_any_process(run):
    here = [drive(SHORT, str(run.folder), seed) for seed in (5, 6)]
    there = list(drives(SHORT, str(run.folder), [5, 6], workers=2))
    for a, b in zip(here, there, strict=True):
        assert (a.seed, a.score, a.extras) == (b.seed, b.score, b.extras)
        assert len(a.latency_ms) == a.steps == 30


def test_a_drive_takes_one_thread_and_gives_the_others_back(run):
    torch.set_num_threads(2)
    try:
        seen = []
        drive(SHORT, str(run.folder), 5, look=lambda *step: seen.append(torch.get_num_threads()))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_drive_is_scored_by_the_sum_of_its_rewards():
    world, rewards = SHORT.build(), []
    world.reset(seed=5)
    expert = world.expert()
    for _ in range(30):
        rewards.append(world.step(world.act(expert.act(world)))[1])
    assert drive(SHORT, "expert", 5).score == sum(rewards)


def test_what_can_not_drive_is_refused_before_anything_is_driven(recording, tmp_path):
    found = replace(recipe(recording), head=Regression(("steer",)))
    blind = fit("steer", found, tmp_path / "blind", say=lambda text: None)
    with pytest.raises(UserError, match="doesn't predict pace"):
        drives(SHORT, str(blind.folder), [1])
    with pytest.raises(UserError, match="there is no run"):
        drives(SHORT, str(tmp_path / "nowhere"), [1])
    for name in (blind.folder, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"doesn't predict pace|there is no run"):
            record(SHORT, tmp_path / "drives", 1, seed=0, name=str(name))


def double(value: int) -> int:
    if value == 13:
        raise UserError("13 is unlucky")
    if value == 66:
        os._exit(1)
    time.sleep(0.05 * (value % 3))
    return 2 * value


def doubled_beside_threads(value: int) -> tuple[int, int]:
    return double(value), torch.get_num_threads()


def test_results_come_in_the_order_of_the_tasks_and_workers_compute_on_one_thread():
    assert list(in_parallel(double, [2, 1, 5], 1)) == [4, 2, 10]
    assert list(in_parallel(doubled_beside_threads, [2, 1, 0, 5, 4], 2)) == [(n, 1) for n in (4, 2, 0, 10, 8)]


def telling(value: int, watch) -> int:
    for done in range(value + 1):
        watch(f"work {value}", done, value, "on one thread")
    return double(value)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_workers_tell_while_they_work_arrives(workers):
    told = {}
    results = list(in_parallel(telling, [3, 1, 4], workers, lambda what, *rest: told.update({what: rest})))
    assert results == [6, 2, 8]
    assert told == {f"work {n}": (n, n, "on one thread") for n in (3, 1, 4)}


def asked_to_stop(value: int, watch) -> int:
    raise Interrupted("saved")


def test_a_worker_that_was_asked_to_stop_ends():
    with pytest.raises(UserError, match="a worker process died"):
        list(in_parallel(asked_to_stop, [1, 2], 2, lambda *told: None))


def test_what_goes_wrong_in_a_worker_is_told():
    with pytest.raises(UserError, match="13 is unlucky"):
        list(in_parallel(double, [1, 13, 2], 2))
    with pytest.raises(UserError, match="--workers 1"):
        list(in_parallel(double, [1, 66, 2], 2))


def test_who_stops_listening_leaves_no_worker_behind():
    results = in_parallel(double, list(range(12)), 2)
    next(results)
    workers = children(os.getpid())
    results.close()
    time.sleep(1)
    assert not [pid for pid in workers if alive(pid) and "resource_tracker" not in command(pid)]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode()
    except FileNotFoundError:
        return ""


def test_rounds_of_dagger_grow_the_data_and_a_cut_changes_nothing(recording, tmp_path, monkeypatch):
    monkeypatch.setattr("steersman.worlds.recording.num_cores", lambda: 1)
    whole, other = (
        partial(fit_rounds, "steer", recipe(recording, steps=6), tmp_path / name, (), "cpu", 2, 2, lambda text: None)
        for name in ("whole", "cut")
    )
    run = whole()
    assert Run.open(run.folder) == run
    assert run.recipe == recipe(recording, steps=6)
    assert [len(read_records(run.recipe, [extra])) for extra in run.extra] == [2, 2]
    with pytest.raises(Cut):
        other(watch=cut(lambda what, done, total: (what, done, total) == ("training", 1, 2)))  # in the second round
    weights = [(r.folder / "model.safetensors").read_bytes() for r in (run, other())]
    assert weights[0] == weights[1]
    with pytest.raises(UserError, match="same --rounds"):
        fit_rounds("steer", run.recipe, run.folder)


def test_rounds_need_a_simulator_and_a_driver(tmp_path, recording):
    start = partial(fit_rounds, "it", folder=tmp_path, rounds=1)
    with pytest.raises(UserError, match="--rounds needs"):
        start(recipe=RECIPES["echo"]())
    with pytest.raises(UserError, match="--rounds needs"):
        start(recipe=replace(recipe(recording), head=Regression(("steer",))))
