"""What a command writes and says: asked for a place before the work, shown as it is called."""

import json
import os
import shutil
import signal
import subprocess
import sys
from importlib import import_module, reload

import numpy as np
import pytest
from rich.table import Table
from small import fitted

from steersman.__main__ import main
from steersman.console import Plain, visible
from steersman.data import cache as caches
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.progress import bars
from steersman.training.checkpoints import Checkpoints
from steersman.training.fit import fit
from steersman.training.run import Run
from steersman.training.trainer import Progress, read_log

QUIET = {"say": lambda text: None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fitted("echo", tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.folder, tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    return tmp_path


def refused(words: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "evaluate run --out file/x",
        "evaluate run --out file",
        "doctor run --out file/x",
        "train echo --run file/x",
        "train echo --run file",
        "explain run --out file/x",
        "explain x*y x=1 y=2 --out file/x",
        "explain surface --out file/x",
        "explain gallery file/x",
        "export run --out file/x",
        "convert run file/x",
        "inspect run --page file/x.html",
        "inspect run --page run",
        "drive expert --video file/x.mp4",
        "drive expert --report file/x.html",
        "drive expert --video .",
        "compare echo --folder file/x",
        "translate run --attention file/x.png",
    ],
)
def test_a_place_that_can_not_be_written_to_is_refused_before_the_work(place, words, capsys, monkeypatch):
    for work in (
        "steersman.sources.read",
        "steersman.training.prepare.open_records",
        "steersman.training.run.Run.model",
    ):
        monkeypatch.setattr(work, lambda *_, **__: pytest.fail("it began to work"))
    said = refused(words.split(), capsys)
    assert "can't be written" in said
    assert (place / "file").read_text() == "mine"


@pytest.mark.parametrize(("command", "page"), [("evaluate", "report.html"), ("doctor", "doctor.html")])
def test_a_run_that_may_only_be_read_is_looked_at_elsewhere(place, command, page, capsys, monkeypatch):
    before, access = sorted(place.rglob("*")), os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "run" not in str(path) and access(path, mode))
    assert "--out" in refused([command, "run"], capsys)
    assert sorted(place.rglob("*")) == before
    main([command, "run", "--out", "elsewhere"])
    assert (place / "elsewhere" / page).is_file()
    assert not (place / "run" / page).exists()


def test_a_folder_is_shown_as_it_is_called(place, capsys):
    name = "we[/nope]ird :car: a\x1b[2Jb"
    (place / "we[").mkdir()
    (place / "run").rename(place / name)
    main(["evaluate", name])
    assert f"report: {visible(name)}/report.html" in capsys.readouterr().out
    assert visible(name) in refused(["evaluate", f"{name}/nowhere"], capsys)


@pytest.mark.parametrize("name", ["we[/nope]ird", "we\\[/nope]ird", "[bold]", ":car:", "[link=x]"])
def test_text_is_never_markup(name, capsys):
    Plain().print(name)
    table = Table(name, box=None)
    table.add_row(name)
    Plain().print(table)
    with bars() as watch:
        watch(name, 1, 1, name)
    shown = capsys.readouterr()
    assert shown.out.count(name) == 3
    assert shown.err.count(name) == 2


def test_nothing_that_is_said_steers_a_terminal(capsys):
    Plain().print("a\x1b]0;title\x07b", "\ud800", "two\nlines")
    assert capsys.readouterr().out == "a\\x1b]0;title\\x07b \\ud800 two\nlines\n"


# What a run tells of its training


ROW = '{"step": 1, "epoch": 0, "loss": 1.0, "rate": 0.1, "gradient_norm": 1.0, "seconds": 0.1}\n'


@pytest.mark.parametrize(
    "text",
    [
        "1\n[]\n",
        "{}\n{}\n",
        '{"step": "x", "loss": "y"}\n',
        '{"step": null, "loss": null}\n',
        '{"step": 1}\n5\n',
        ROW.replace("1.0", "NaN"),
        ROW.replace("1.0", "1e999"),
        ROW.replace('"step": 1', f'"step": {"9" * 400}'),
        ROW.replace("0.1", "Infinity"),
        ROW.replace('"seconds": 0.1', '"seconds": null'),
        "[" * 5000 + "\n" + ROW,
        "x\n" + ROW,
        "\udcff\n",
    ],
)
def test_a_log_that_is_damaged_is_refused_by_its_line(place, text):
    (place / "run" / "log.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"log\.jsonl"):
        report_run(Run.open(place / "run"))


@pytest.mark.parametrize("end", ["", '{"step": 2, "lo', "["])
def test_of_a_log_only_a_last_line_that_is_half_written_is_left_out(place, end):
    (place / "run" / "log.jsonl").write_text(ROW + end)
    assert [row["step"] for row in read_log(place / "run")] == [1]
    (place / "run" / "log.jsonl").unlink()
    assert read_log(place / "run") == []


@pytest.mark.parametrize(
    "state",
    [
        {"step": -5},
        {"step": "x"},
        {"step": True},
        {"step": 1.5},
        {"step": 10**30},
        {"epoch": None},
        {"dtype": "evil"},
        {"best": "low"},
        {"first": []},
        {"unknown": 1},
    ],
)
def test_a_state_that_no_trainer_wrote_is_refused(trained, place, state):
    path = place / "run" / "checkpoints" / "step-00000004" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | state))
    with pytest.raises(UserError, match=r"checkpoint 4 .* is damaged"):
        fit("echo", trained.recipe, place / "run", **QUIET)


@pytest.mark.parametrize("text", [b"", b"[" * 5000, b"[" * 5000 + b"]" * 5000, b"\xff\xfe{", b"null", b"\0" * 99])
@pytest.mark.parametrize("name", ["config.json", "checkpoints/step-00000004/state.json"])
def test_json_that_is_none_is_refused(trained, place, text, name):
    (place / "run" / name).write_bytes(text)
    with pytest.raises(UserError, match=r"config\.json|checkpoint 4"):
        fit("echo", trained.recipe, place / "run", **QUIET)


def test_what_a_trainer_writes_is_taken_back(place):
    _, state = Checkpoints(place / "run" / "checkpoints").read(4)
    assert vars(Progress(**state)) == state


# The cache


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(caches, "cache_folder", lambda: folder)
    monkeypatch.setattr("steersman.data.command.cache_folder", lambda: folder)
    return folder


def prepared(folder, num: int = 10) -> np.ndarray:
    pictures = np.random.default_rng(0).integers(0, 256, (num, 4, 4, 3), np.uint8)
    return caches.cached(pictures, lambda given: given[:, ::2], "k", folder)


PICKLED = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 60 + b"\n\x80\x04."


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"",
        lambda content: b"\0" * len(content),
        lambda content: PICKLED,
        lambda content: b"PK\x03\x04" + content,
        lambda content: content.replace(b"(10, ", b"(9, 2"),
        lambda content: content.replace(b"(10, ", b"(99,  "),
        lambda content: content.replace(b"|u1", b"|i1"),
    ],
)
def test_a_damaged_cache_is_made_anew_and_said(cache, damage, capsys):
    whole = prepared(cache).copy()
    (path,) = cache.glob("*.npy")
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(prepared(cache), whole)
    assert "damaged" in capsys.readouterr().err
    assert np.array_equal(prepared(cache), whole)
    assert not capsys.readouterr().err


def test_a_part_of_a_cache_that_is_a_link_is_not_followed(cache, tmp_path):
    prepared(cache)
    (path,) = cache.glob("*.npy")
    path.unlink()
    (tmp_path / "mine").write_text("precious")
    path.with_name(f"{path.name}.part").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="can't be written"):
        prepared(cache)
    assert (tmp_path / "mine").read_text() == "precious"
    prepared(cache)


def test_the_cache_is_found_measured_and_cleared(cache, capsys):
    prepared(cache)
    (cache / "mine.npy").write_bytes(b"x")
    main(["cache"])
    said = capsys.readouterr().out
    assert str(cache) in said
    assert "1 files" in said
    main(["cache", "--clear"])
    assert str(cache) in capsys.readouterr().out
    assert sorted(p.name for p in cache.iterdir()) == [".lock", "mine.npy"]
    main(["cache"])
    assert "0 files" in capsys.readouterr().out


def test_without_a_home_the_cache_is_this_process_own(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    folder = caches.cache_folder()
    assert folder == caches.cache_folder()
    assert (folder.parent.stat().st_mode & 0o777, folder.parent.stat().st_uid) == (0o700, os.getuid())


# Ctrl-C


INTERRUPTED = """
import os, signal, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Hook())
sys.argv[0] = "steersman"
from steersman.__main__ import main
main(["recipes"])
"""


@pytest.mark.parametrize("module", ["steersman.config", "steersman.plugins", "steersman.recipes.listing"])
def test_ctrl_c_while_a_command_starts_ends_it_quietly(module):
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


def test_a_program_that_imports_the_commands_keeps_its_own_ctrl_c():
    before = signal.getsignal(signal.SIGINT)
    reload(import_module("steersman.__main__"))
    assert signal.getsignal(signal.SIGINT) is before
