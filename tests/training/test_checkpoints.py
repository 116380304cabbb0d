"""What is on the disk is whole or not there, and what is not whole is refused in words."""

import errno
import json
import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Killed, deep, outcome, small, trainer

from steersman.errors import UserError
from steersman.files import hidden_name, write_file
from steersman.nn.cores import GRU, CoreSpec, StackCore
from steersman.training.checkpoints import (
    Checkpoints,
    load_optimiser,
    load_weights,
    optimiser_tensors,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from steersman.training.fit import fit
from steersman.training.run import FORMAT, Run, load

SHORT = {"steps": 12, "warmup": 2, "checkpoint_every": 4, "validate_every": 6}


class FullDisk:
    """Lets so many flushes through, then the disk is full."""

    def __init__(self, monkeypatch, after: int, kind: int = errno.ENOSPC):
        self.left, self.real, self.kind = after, os.fsync, kind
        monkeypatch.setattr(os, "fsync", self)

    def __call__(self, handle: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(self.kind, os.strerror(self.kind))
        self.real(handle)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})
    FullDisk(monkeypatch, 0)
    with pytest.raises(UserError, match=r"disk is full.*a\.json"):
        write_json(tmp_path / "a.json", {"new": 2})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_can_not_be_written_is_named(tmp_path, monkeypatch):
    FullDisk(monkeypatch, 0, errno.EACCES)
    with pytest.raises(UserError, match="can't be written"):
        write_file(tmp_path / "a", b"")
    FullDisk(monkeypatch, 0, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        write_file(tmp_path / "a", b"")


@pytest.mark.parametrize("flushes", range(0, 30, 3))
def test_a_full_disk_stops_training_and_the_old_checkpoint_stays_good(tmp_path, monkeypatch, flushes):
    trainer(small("steer"), tmp_path / "whole", **SHORT).run()
    with monkeypatch.context() as patch:
        FullDisk(patch, flushes)
        with pytest.raises(UserError, match="disk is full"):
            trainer(small("steer"), tmp_path / "full", **SHORT).run()
    trainer(small("steer"), tmp_path / "full", **SHORT).run()
    assert outcome(tmp_path / "full") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("moves", range(1, 26, 4))
def test_a_cut_between_any_two_moves_of_files_leaves_whole_checkpoints(tmp_path, monkeypatch, moves):
    replace, left = os.replace, [moves]

    def cut(source, target):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut)
        with pytest.raises(Killed):
            trainer(small("steer"), tmp_path / "cut", **SHORT).run()
    checkpoints = Checkpoints(tmp_path / "cut" / "checkpoints")
    assert all(len(checkpoints.read(step)[0]) == 4 for step in checkpoints.steps())
    trainer(small("steer"), tmp_path / "cut", **SHORT).run()
    trainer(small("steer"), tmp_path / "whole", **SHORT).run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 700 kB that is full of nothing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system needs more rights than there are")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_leaves_the_old_checkpoint_good(tiny_disk, tmp_path):
    trainer(small("steer"), tmp_path / "whole", **SHORT).run()
    with pytest.raises(Killed):
        trainer(small("steer"), tiny_disk / "run", 6, **SHORT).run()
    filler = tiny_disk / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"0" * 1024)
    with pytest.raises(UserError, match="disk is full"):
        trainer(small("steer"), tiny_disk / "run", **SHORT).run()
    filler.unlink()
    trainer(small("steer"), tiny_disk / "run", **SHORT).run()
    assert outcome(tiny_disk / "run") == outcome(tmp_path / "whole")


def test_a_log_that_can_not_grow_is_a_full_disk_too(tmp_path, monkeypatch):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    made = trainer(small("steer"), tmp_path, **SHORT)
    monkeypatch.setattr(
        "steersman.training.trainer.appended", lambda path: os.fdopen(os.open("/dev/full", os.O_WRONLY), "a")
    )
    with pytest.raises(UserError, match=r"disk is full.*log\.jsonl"):
        made.run()


def test_the_last_two_checkpoints_are_kept_and_half_written_ones_do_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 5, 20, 100):
        checkpoints.write(step, {"model": {"w": torch.full((2,), float(step))}}, {"step": step})
    for name in ("tmp-130", hidden_name("step"), "step-garbage", "step-²", "step-٣", f"step-{'9' * 20}", "step-7"):
        (tmp_path / name).mkdir()
    assert checkpoints.steps() == [20, 100]
    tensors, state = checkpoints.read(100)
    assert tensors["model"]["w"].tolist() == [100, 100]
    assert state == {"step": 100}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.text("ab.0", min_size=1, max_size=4), st.integers(0, 3)), max_size=4))
def test_tensors_of_any_name_and_kind_come_back(named):
    import tempfile

    dtypes = [torch.float32, torch.bfloat16, torch.uint8, torch.int64]
    tensors = {name: (torch.arange(6).view(2, 3) % 5).to(dtypes[kind]) for name, kind in named}
    with tempfile.TemporaryDirectory() as folder:
        write_tensors(Path(folder) / "t.safetensors", {n: t.T for n, t in tensors.items()})
        found = read_tensors(Path(folder) / "t.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[n], t.T) and found[n].dtype == t.dtype for n, t in tensors.items())


def test_the_state_of_an_optimiser_comes_back():
    torch.manual_seed(0)
    nets = [torch.nn.Linear(3, 2) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    first, second = (torch.optim.AdamW(net.parameters(), lr=0.1) for net in nets)
    for _ in range(3):
        nets[0](torch.randn(4, 3)).sum().backward()
        first.step()
    nets[1].load_state_dict(nets[0].state_dict())
    load_optimiser(second, {n: t.clone() for n, t in optimiser_tensors(first).items()})
    for net, optimiser in zip(nets, (first, second), strict=True):
        optimiser.zero_grad()
        net(torch.ones(4, 3)).sum().backward()
        optimiser.step()
    assert torch.equal(nets[0].weight, nets[1].weight)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A whole run whose training is not over."""
    recipe = small("steer")
    recipe = replace(recipe, training=replace(recipe.training, **SHORT))
    folder = tmp_path_factory.mktemp("trained") / "run"
    return fit("steer", recipe, folder, say=lambda text: None)


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "run")
    return replace(trained, folder=tmp_path / "run")


def test_a_run_that_is_whole_is_opened(run):
    assert Run.open(run.folder) == run
    assert load(str(run.folder)).causal


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "garbage", "folder"])
def test_a_damaged_run_is_refused_in_words(run, name, damage):
    path = run.folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "garbage": b"\xff\x00{" * 99}[damage])
    with pytest.raises(UserError, match=name):
        load(run.folder)


def config(run) -> dict:
    return json.loads((run.folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c | {"format": FORMAT + 1}, "newer version.*upgrade"),
        (lambda c: c | {"format": "one"}, "not the config of a run"),
        (lambda c: [c], "not the config of a run"),
        (lambda c: c | {"recipe": c["recipe"]["encoder"]}, "recipe: expected Recipe"),
        (lambda c: c | {"recipe": None}, "recipe: expected Recipe"),
        (lambda c: {k: v for k, v in c.items() if k != "raw"}, "raw: expected"),
        (lambda c: {k: v for k, v in c.items() if k != "name"}, "name: expected"),
        (lambda c: c | {"raw": 7}, r"config\.json: raw: expected"),
        (lambda c: c | {"raw": ["a", "b", "c"]}, r"raw\[0\]: expected int"),
        (lambda c: c | {"data": [7]}, r"data\[0\]: expected str"),
        (lambda c: c | {"recipe": c["recipe"] | {"core": {"kind": "MyCore"}}}, "unknown kind 'MyCore'.*--import"),
        (lambda c: c | {"recipe": c["recipe"] | {"core": {"kind": "LSTM", "hidden": 5}}}, "doesn't fit"),
        (lambda c: c | {"recipe": c["recipe"] | {"training": {"kind": "LSTM"}}}, "expected Training"),
        (lambda c: c | {"raw": [84, 96, 3]}, "doesn't fit"),
        (lambda c: c | {"recipe": c["recipe"] | {"core": {"kind": "Conv"}}}, "core: expected CoreSpec, found 'Conv'"),
        (
            lambda c: c | {"recipe": c["recipe"] | {"encoder": {"kind": "LSTM"}}},
            "encoder: expected EncoderSpec, found 'LSTM'",
        ),
        (lambda c: c | {"recipe": c["recipe"] | {"head": {"kind": "GRU"}}}, "head: expected HeadSpec, found 'GRU'"),
        (lambda c: c | {"recipe": c["recipe"] | {"core": {"kind": "Split"}}}, "core: expected CoreSpec, found 'Split'"),
    ],
)
def test_a_config_that_is_not_what_was_written_is_refused_in_words(run, change, said):
    (run.folder / "config.json").write_text(json.dumps(change(config(run))))
    with pytest.raises(UserError, match=said):
        load(run.folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no run"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"config\.json is missing"):
        load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no run"):
        load(tmp_path / "file")


def test_weights_of_another_network_are_refused(tmp_path):
    write_tensors(tmp_path / "w.safetensors", {"weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="doesn't fit"):
        load_weights(torch.nn.Linear(3, 2), tmp_path / "w.safetensors")


FILES = ("model.safetensors", "optimiser.safetensors", "lanes.safetensors", "generator.safetensors", "state.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "half", "other"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_taken_when_it_is_removed(tmp_path, name, damage):
    with pytest.raises(Killed):
        trainer(deep(), tmp_path / "a", 10, **SHORT).run()
    last = tmp_path / "a" / "checkpoints" / "step-00000008"
    path = last / name
    content = path.read_bytes()
    path.unlink()
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
    if damage == "other":
        write_json(path, {"no such field": 1}) if name == "state.json" else write_tensors(path, {"z": torch.zeros(1)})
    with pytest.raises(UserError, match=r"checkpoint 8 .* is damaged.*one before"):
        trainer(deep(), tmp_path / "a", **SHORT).run()
    shutil.rmtree(last)
    trainer(deep(), tmp_path / "a", **SHORT).run()
    trainer(deep(), tmp_path / "b", **SHORT).run()
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


def test_a_run_goes_on_only_with_its_own_recipe_and_data(run):
    changed = replace(run.recipe, training=replace(run.recipe.training, learning_rate=0.5))
    with pytest.raises(UserError, match="another recipe"):
        fit("steer", changed, run.folder)


def test_nothing_in_a_run_is_pickled(run):
    kinds = {path.suffix for path in run.folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".jsonl", ".safetensors"}


@dataclass(frozen=True)
class TwiceTheSame(CoreSpec):
    """One core as both layers of a deep one."""

    def build(self, features: int) -> StackCore:
        layer = GRU(features).build(features)
        return StackCore([layer, layer])


def test_a_run_with_tied_weights_is_kept_resumed_and_opened(tmp_path):
    recipe = replace(small("echo"), core=TwiceTheSame())
    recipe = replace(recipe, training=replace(recipe.training, **SHORT, ema_decay=0.9))
    trainer(recipe, tmp_path / "whole").run()
    with pytest.raises(Killed):
        trainer(recipe, tmp_path / "cut", 7).run()
    trainer(recipe, tmp_path / "cut").run()
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    model = recipe.build((4,))
    load_weights(model, tmp_path / "cut" / "model.safetensors")
    assert isinstance(model.core, StackCore)
    assert model.core.cores[0] is model.core.cores[1]


def test_tensors_that_share_memory_are_written_each_whole(tmp_path):
    one = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": one, "b": one, "part": one[1], "turned": one.T, "none": one[:0], "wide": one[:1].expand(4, 3)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
