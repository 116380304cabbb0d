"""A run's folder may come from anybody: what is done with it stays in it, and no more is taken than it is worth."""

import json
import os
import resource
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import ROAD, fitted, small

from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.files import check_output, folder_written_whole, hidden_name, locked, write_file, written_whole
from steersman.training.checkpoints import Checkpoints
from steersman.training.fit import fit
from steersman.training.run import Run, load

QUIET = {"say": lambda text: None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fitted("steer", tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def precious(tmp_path) -> Path:
    """A folder of the user's that nobody may touch."""
    folder = tmp_path / "precious"
    (folder / "deeper").mkdir(parents=True)
    for name in ("film.mkv.part", "deeper/thesis.pdf.part", ".lock", "note.txt", "data.parquet"):
        (folder / name).write_text("precious")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def config(folder: Path, change) -> None:
    found = json.loads((folder / "config.json").read_text())
    change(found)
    (folder / "config.json").write_text(json.dumps(found))


# Temporary files


@pytest.mark.parametrize("name", ["metrics.json", "metrics.json.part", ".metrics.json.part", "metrics.json.tmp"])
def test_a_link_in_the_place_of_a_file_or_its_temporary_one_is_not_written_through(tmp_path, precious, name):
    before = content(precious)
    (tmp_path / name).symlink_to(precious / "note.txt")
    write_file(tmp_path / "metrics.json", b"new")
    assert (tmp_path / "metrics.json").read_bytes() == b"new"
    assert content(precious) == before


def test_temporary_names_can_not_be_foretold_and_what_a_kill_left_is_cleared_away(tmp_path):
    names = set()
    for _ in range(20):
        with written_whole(tmp_path / "a") as file:
            names.add(file.name)
    assert len(names) == 20
    (tmp_path / hidden_name("a")).write_bytes(b"half")
    (tmp_path / hidden_name("b")).write_bytes(b"of another file")
    (tmp_path / ".a.part").write_bytes(b"of somebody else")
    with written_whole(tmp_path / "a"), written_whole(tmp_path / "a"):  # Two at once leave each other alone.
        pass
    assert sorted(p.name.split(".")[1] for p in tmp_path.iterdir() if p.name != "a") == ["a", "b"]
    assert (tmp_path / ".a.part").exists()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fill(word: bytes, fail: bool = False) -> None:
        with folder_written_whole(tmp_path / "out") as place:
            write_file(place / "a", word)
            if fail:
                raise KeyError

    fill(b"first")
    with pytest.raises(KeyError):
        fill(b"second", fail=True)
    assert (tmp_path / "out" / "a").read_bytes() == b"first"
    (tmp_path / hidden_name("out")).mkdir()  # As a kill leaves it.
    fill(b"third")
    assert (tmp_path / "out" / "a").read_bytes() == b"third"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_written_over(tmp_path, kind):
    (os.mkdir if kind == "folder" else os.mkfifo)(tmp_path / "a")
    with pytest.raises(UserError, match="can't be written"):
        write_file(tmp_path / "a", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


# A run's folder


@pytest.mark.parametrize("name", ["metrics.json", "report.html", "config.json.part", "metrics.json.part"])
def test_looking_at_a_run_writes_through_no_link(run, precious, name):
    before = content(precious)
    (run.folder / name).unlink(missing_ok=True)
    (run.folder / name).symlink_to(precious / "note.txt")
    report_run(run)
    assert content(precious) == before


@pytest.mark.parametrize("name", ["log.jsonl", "model.safetensors", "checkpoints", "config.json"])
def test_training_on_writes_through_no_link(run, precious, name):
    """What is there is damaged then, or replaced; the other end of the link stays as it is."""
    before, path = content(precious), run.folder / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(precious if name == "checkpoints" else precious / "note.txt")
    if name != "checkpoints":
        shutil.rmtree(run.folder / "checkpoints" / "step-00000004")
    with nullcontext() if name == "model.safetensors" else pytest.raises(UserError, match=name):
        fit("steer", run.recipe, run.folder, **QUIET)
    assert content(precious) == before


def test_old_checkpoints_are_removed_in_their_own_folder_only(tmp_path, precious):
    (precious / "step-00000001").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(precious)
    with pytest.raises(UserError, match="a link that leads out"):
        Checkpoints(tmp_path / "run" / "checkpoints", keep=1).write(2, {"a": {"w": torch.zeros(1)}}, {})
    assert (precious / "step-00000001").is_dir()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "log.jsonl"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "link", "loop", "elsewhere"])
def test_a_file_of_a_run_that_is_none_is_refused_at_once(run, precious, name, kind):
    path = run.folder / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"zero": "/dev/zero", "link": precious / "note.txt", "loop": path}.get(kind, "/proc/self/mem"))
    with pytest.raises(UserError, match=name):
        report_run(Run.open(run.folder))


def test_a_link_within_a_run_is_followed(run):
    (run.folder / "model.safetensors").rename(run.folder / "best.safetensors")
    (run.folder / "model.safetensors").symlink_to("best.safetensors")
    assert load(run.folder).causal


# Sizes


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["recipe"]["core"].update(hidden=200_000),
        lambda c: c["recipe"]["core"].update(hidden=10**30),
        lambda c: c["recipe"]["encoder"].update(features=10**9),
        lambda c: c["recipe"]["encoder"].update(channels=[10**6] * 2),
        lambda c: c["recipe"]["encoder"].update(frames=10**9),
        lambda c: c["recipe"].update(core={"kind": "Window", "core": {"kind": "GRU", "hidden": 16}, "steps": 10**9}),
        lambda c: c["recipe"].update(core=nested("Zoneout", 900)),
    ],
)
def test_sizes_are_not_believed_before_the_file_of_weights_was_asked(run, change):
    config(run.folder, change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"doesn't fit|nested too deep|must be at most"):
        Run.open(run.folder).model()
    with pytest.raises(UserError, match=r"doesn't fit|nested too deep|must be at most"):  # Training on asks, too.
        fit("steer", Run.open(run.folder).recipe, run.folder, **QUIET)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # In kB.


@pytest.mark.parametrize("raw", [[2**19, 2**19, 3], [0, 4, 3], []])
def test_shapes_of_steps_are_not_believed_either(run, raw):
    config(run.folder, lambda c: c.update(raw=raw))
    with pytest.raises(UserError, match=r"doesn't fit|raw: expected"):
        Run.open(run.folder).model()


def nested(kind: str, levels: int) -> dict:
    core = {"kind": "GRU", "hidden": 4}
    for _ in range(levels):
        core = {"kind": kind, "core": core}
    return core


def test_parts_without_end_are_refused(run):
    config(run.folder, lambda c: c["recipe"].update(core=nested("Bidirectional", 30)))
    with pytest.raises(UserError, match="doesn't fit"):
        Run.open(run.folder).model()


def test_asking_the_file_changes_no_training(trained, tmp_path):
    """A run that is begun anew in its folder draws the numbers that it drew the first time."""
    shutil.copytree(trained.folder, tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints")
    fit("steer", trained.recipe, tmp_path / "again", **QUIET)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (trained.folder, tmp_path / "again")]
    assert weights[0] == weights[1]


# Two trainings


def test_the_second_training_in_a_folder_is_told(run):
    with locked(run.folder, "another training"), pytest.raises(UserError, match="another training goes on"):
        fit("steer", run.recipe, run.folder, **QUIET)
    fit("steer", run.recipe, run.folder, **QUIET)
    assert not (run.folder / ".lock").exists()


def test_a_lock_that_is_somebody_elses_is_left(run):
    (run.folder / ".lock").write_text("words")
    fit("steer", run.recipe, run.folder, **QUIET)
    assert (run.folder / ".lock").read_text() == "words"


@pytest.mark.parametrize("name", ["fit", "record"])
def test_a_lock_that_is_a_link_is_not_followed(tmp_path, precious, name):
    before = content(precious)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious / "note.txt")
    with pytest.raises(UserError, match="can't write into"), locked(tmp_path / "run", "busy" if name == "fit" else ""):
        pass
    assert content(precious) == before


def test_a_training_that_was_refused_leaves_no_folder(tmp_path):
    recipe = replace(small("steer"), source=replace(ROAD, records=1))
    with pytest.raises(UserError):
        fit("steer", recipe, tmp_path / "new" / "run", **QUIET)
    assert not (tmp_path / "new" / "run").exists()


# Outputs


def test_outputs_are_tried_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    for place, folder in (("a/b/c.html", False), ("a/b", True), ("file", False), (".", True)):
        check_output(tmp_path / place, folder)
    for place, folder in (("file/c.html", False), ("file/a/b", True), ("file", True), (".", False)):
        with pytest.raises(UserError, match="can't be written"):
            check_output(tmp_path / place, folder)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_may_only_be_read_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(UserError, match=r"may only be read.*with --out"):
        check_output(tmp_path / "a", otherwise="name one with --out")
