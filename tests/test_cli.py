"""The commands: what they print, and how they refuse what they can't do."""

import errno
import inspect
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from small import outcome, write_log

from steersman.__main__ import COMMANDS, main
from steersman.recipes import RECIPES
from steersman.training.run import FORMAT, Run, find, own_home
from steersman.training.trainer import read_log

ROOT = Path(__file__).resolve().parents[1]
SHORT = "--training.steps 6 --training.validate-every 3 --training.warmup 2"
OWN = """
from dataclasses import dataclass, replace
from steersman import RECIPES
from steersman.sources.source import SourceSpec
from steersman.sources.synthetic import Echo

@dataclass(frozen=True)
class Louder(SourceSpec):
    records: int = 12

    def read(self, watch=None):
        return Echo(self.records, steps=30).read()

def louder(data=()):
    '''An echo of one's own.'''
    return replace(RECIPES["echo"](), source=Louder())

def nothing(data=()):
    return None

def deaf():
    return louder()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run of echo, a run of one's own, a log of a camera and an empty folder in it."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "own.py").write_text(OWN)
    (folder / "broken.py").write_text("def broken(:\n")
    (folder / "empty").mkdir()
    write_log(folder / "log", num=1)
    before = Path.cwd()
    os.chdir(folder)
    for line in (f"train echo --run runs/echo {SHORT}", f"train own.py:louder --run runs/own {SHORT}"):
        main(shlex.split(line))
    shutil.copytree("runs/echo", "runs/half", ignore=lambda *a: ["model.safetensors"])
    for name, change in (("newer", lambda text: newer(text)), ("cut", lambda text: text[:70])):
        shutil.copytree("runs/echo", f"runs/{name}")
        config = Path(f"runs/{name}/config.json")
        config.write_text(change(config.read_text()))
    os.chdir(before)
    return folder


def newer(text: str) -> str:
    return json.dumps(json.loads(text) | {"format": FORMAT + 1})


@pytest.fixture
def steersman(place, monkeypatch, capfd):
    """Types a command in that folder: exit code, what stands on stdout, what on stderr."""
    monkeypatch.chdir(place)

    def run(line: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = 0
        try:
            main(shlex.split(line))
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out, err

    return run


def process(line: str, folder: Path, environment: Mapping[str, str] = MappingProxyType({}), **options):
    """The same in a process of its own, without a display."""
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    own = {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "steersman", *shlex.split(line)],
        cwd=folder,
        env=own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(running: subprocess.Popen) -> tuple[int, str, str]:
    out, err = running.communicate()
    return running.returncode, out, err


def refused(code: int, out: str, err: str, said: str) -> None:
    """One short message on stderr, and 2."""
    assert re.search(said, " ".join(re.sub("[│╭╰─╮╯]", " ", err).split())), err
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    message = err[err.find("steersman:") :] if "steersman:" in err else err
    assert len(message.splitlines()) < 15


BAD = [
    ("sample runs/none --temperature inf", "temperature must be a finite number"),
    ("sample runs/none --temperature nan", "temperature must be a finite number"),
    ("sample runs/none --seed 99999999999999999999999", "--seed must be at most 9223372036854775807, not 9{23}"),
    ("sample runs/none --seed -1", "--seed must be at least 0"),
    ("sample runs/none --length -1", "--length must be at least 0"),
    ("drive expert --seed -1", "--seed must be at least 0"),
    ("live runs/none --port 70000", "--port must be from 0 to 65535"),
    ("compare echo --minutes inf", "--minutes must be a finite number"),
    ("train echo --minutes nan", "--minutes must be at least 0"),
    ("train echo --training.seed 99999999999999999999999", "seed must be"),
    ("tain", "did you mean 'train'"),
    ("train", "needs a name first: steersman train steer"),
    ("train --core.hidden 3", "needs a name first"),
    ("train eco", "did you mean 'echo'"),
    ("recipes stear", "did you mean 'steer'"),
    ("recipes --all", "recipes takes one name"),
    ("completion", "steersman completion bash"),
    ("completion tcsh", "no completion for 'tcsh'"),
    ("record car-racin", "did you mean 'car-racing'"),
    ("record", "needs a name first"),
    ("train echo --core.hiden 3", "--core.hidden"),
    ("train echo --core.hidden many", "--core.hidden"),
    ("train echo --core.hidden 0", "hidden must be at least 1, not 0"),
    ("train echo --training.steps 0", "steps must be at least 1"),
    ("train echo --training.validate-every 0", "validate_every must be at least 1"),
    ("train echo --training.precision float16", "bfloat16"),
    ("train echo --batches.batch-size -2", "batch_size must be at least 1"),
    ("train echo --split.validation 2", "from 0 to 1"),
    ("train echo --split.validation 0.9 --split.test 0.9", "leave something to train on"),
    ("train echo --device abacus", "--device abacus.*auto, cpu or cuda"),
    ("train echo --data nowhere", "there is no .*nowhere; give the folder"),
    ("train echo --data empty", "no recording in .*empty"),
    ("train echo --data log", "--split.by time"),
    ("train echo --data log --split.by time --split.gap-s 0.1", "no stream 'x'; it has picture, steer"),
    ("train echo --run runs/echo --core.hidden 7", "another recipe"),
    ("train digits --run runs/echo", "is a run of echo, not of digits"),
    ("train echo --rounds 1", "--rounds needs"),
    ("train nowhere.py:it", "there is no Python file nowhere.py"),
    ("train own.py:lauder", "no function 'lauder'"),
    ("train own.py:nothing", "gives a NoneType, not a Recipe"),
    ("train own.py:deaf", "can't be called with the records"),
    ("train broken.py:broken", "can't be imported: SyntaxError"),
    ("evaluate", "Missing from steersman evaluate"),
    ("evaluate runs/echo --bezide runs/echo", "--beside"),
    ("evaluate nowhere", "there is no run nowhere"),
    ("evaluate empty", r"config\.json is missing"),
    ("evaluate runs/half", r"model\.safetensors is missing.*not a whole run"),
    ("evaluate runs/cut", r"config\.json can't be read"),
    ("evaluate runs/newer", "newer version of steersman; upgrade"),
    ("evaluate runs/echo --data empty", "no recording in .*empty"),
    ("evaluate runs/echo --beside nowhere", "there is no run nowhere"),
    ("evaluate runs/echo --import nowhere.py", "there is no Python file nowhere.py"),
    ("drive nowhere", "there is no run nowhere"),
    ("drive runs/echo", "can't drive: it learned in no world"),
    ("drive expert --tracks 0", "--tracks must be at least 1"),
    ("drive expert --world.max-steps 0", "max_steps must be at least 1"),
    ("drive expert --world.blackouts 1", "blackouts must be from 0"),
    ("record car-racing --episodes 0", "episodes must be at least 1"),
    ("record car-racing --seed -1", "seed must be at least 0"),
    ("record car-racing --driver nowhere", "there is no run nowhere"),
    ("record car-racing --folder log --episodes 1", "begun with another|another origin"),
]


@pytest.mark.parametrize(("line", "said"), BAD, ids=[line for line, _ in BAD])
def test_bad_input_gets_one_short_message_and_2(steersman, line, said):
    refused(*steersman(line), said)


def test_one_drive_of_the_simulator_is_too_few(steersman, tmp_path):
    pytest.importorskip("gymnasium")
    drives = tmp_path / "one"
    assert steersman(f"record car-racing --episodes 1 --max-steps 20 --folder {drives}")[0] == 0
    refused(*steersman(f"train steer --data {drives}"), "need a record each, found 1")


@pytest.mark.parametrize("name", [*COMMANDS, *(f"train {name}" for name in RECIPES), "record car-racing"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_helps_a_newcomer(steersman, name, flag):
    code, out, err = steersman(f"{name} {flag}")
    assert (code, err) == (0, "")
    assert f"usage: steersman {name.split()[0]}" in out
    assert "Args:" not in out
    if " " in name or name in ("evaluate", "drive", "quickstart"):
        assert len(re.findall(r"--[a-z]", out)) > 3


def test_without_a_command_there_is_an_overview(steersman):
    for line in ("", "--help", "help"):
        code, out, _ = steersman(line)
        assert code == 0
        assert all(name in out for name in COMMANDS)
    assert re.fullmatch(r"steersman \d+\.\d+\.\d+\n", steersman("--version")[1])
    assert steersman("-V") == steersman("--version")


def test_recipes_are_listed_and_shown(steersman):
    _, out, _ = steersman("recipes")
    assert all(name in out for name in RECIPES)
    for name in RECIPES:
        assert f"steersman train {name}" in steersman(f"recipes {name}")[1]


def test_the_help_of_a_recipe_stands_as_it_is_written(steersman):
    written = inspect.getdoc(RECIPES["steer"]) or ""
    assert len(written.splitlines()) > 4
    assert f"\n\n{written}\n\n" in steersman("train steer --help")[1]


def test_a_command_by_its_old_name_says_the_new_one(steersman):
    code, _, err = steersman("score --help")
    assert (code, err) == (0, "steersman: `score` is called `challenge` now\n")


def test_what_is_made_of_a_shipped_run_goes_below_runs(steersman):
    assert own_home(Run.open(find("steer")), "steer") == Path("runs/steer")
    assert own_home(Run.open(find("runs/echo")), "runs/echo") == Path("runs/echo")


def test_json_is_one_object_and_nothing_else(steersman):
    code, out, _ = steersman("evaluate runs/echo --json")
    scores = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert code == 0
    assert {"rmse", "mae", "baselines"} <= scores.keys()


def test_a_run_is_gone_on_with_as_it_was_begun(steersman, place):
    before = outcome(place / "runs" / "echo")
    assert steersman("train echo --run runs/echo")[0] == 0
    assert outcome(place / "runs" / "echo") == before
    log = len(read_log(place / "runs" / "echo"))
    assert log == 6


def test_a_run_is_begun_from_another_and_trained_longer_to_a_deadline(steersman, place):
    code, _, err = steersman("train echo --start runs/echo --run runs/later --training.seed 1 --training.steps 3")
    assert code == 0, err
    run, old = Run.open(place / "runs" / "later"), Run.open(place / "runs" / "echo")
    assert run.recipe.training.validate_every == old.recipe.training.validate_every == 3
    code, _, err = steersman("train echo --run runs/later --training.steps 100000 --minutes 0.001")
    assert code == 0, err
    assert re.search(r"the time is over: stopped at step \d+ of 100000", err)
    steps = [row["step"] for row in read_log(run.folder)]
    assert steps == list(range(1, len(steps) + 1))
    assert 3 < len(steps) < 100000
    for line, said in (
        ("train chars --start runs/echo", "runs/echo is a run of echo, not of chars; begin from a run of chars"),
        ("train echo --start runs/none", "there is no run runs/none"),
        ("train echo --start runs/echo --core.hidden 5 --run runs/other", "model.safetensors doesn't fit the model"),
        ("train echo --minutes -1", "--minutes must be at least 0"),
        ("train steer --minutes 1 --rounds 1", "--minutes would end a training before its rounds"),
    ):
        refused(*steersman(line), said)


def test_new_runs_get_folders_of_their_own(steersman, tmp_path, monkeypatch):
    for number in (1, 2):
        monkeypatch.chdir(tmp_path)
        code, out, _ = steersman(f"train echo {SHORT}")
        assert code == 0
        assert f"run: runs/echo-{number}\n" in out


def test_a_recipe_of_ones_own_goes_all_the_way(steersman, place):
    code, out, _ = steersman("evaluate runs/own --import own.py --json")
    assert code == 0
    assert json.loads(out)["rmse"] > 0
    assert steersman("--import own.py evaluate runs/own")[0] == 0
    assert steersman("evaluate runs/echo --beside runs/own --import own.py")[0] == 0
    assert steersman("train own.py:louder --run runs/own")[0] == 0
    assert (place / "runs" / "own" / "report.html").stat().st_size > 1000
    assert "own" not in sys.modules  # it may be called like a module that others need


def test_a_full_disk_while_training_is_a_short_message(steersman, monkeypatch, tmp_path):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(*steersman(f"train echo --run {tmp_path / 'run'} {SHORT}"), "the disk is full.*free some space")


def test_a_bug_shows_its_traceback_and_where_to_report_it(steersman, monkeypatch):
    monkeypatch.setattr("steersman.evaluation.command.report_run", lambda *a, **k: 1 / 0)
    code, out, err = steersman("evaluate runs/echo")
    assert (code, out) == (1, "")
    assert "ZeroDivisionError" in err
    assert "please report it" in err


FAULTY = """import statistics
from dataclasses import dataclass, replace
from steersman import RECIPES, SourceSpec
from steersman.nn.encoders import Identity

def _divided(by):
    return 1 / by

@dataclass(frozen=True)
class Faulty(SourceSpec):
    def read(self, watch=None):
        return [_divided(0)]  # line 12

@dataclass(frozen=True)
class Reaches(Identity):
    def build(self, raw):
        return statistics.mean([])  # line 17

def read(data=()):
    return replace(RECIPES["echo"](), source=Faulty())

def build(data=()):
    return replace(RECIPES["echo"](), encoder=Reaches())

def made(data=()):
    return {}["echo"]  # line 26

def typed(data=()):
    return 1 + "1"  # line 29

def old(data=()):
    return replace(RECIPES["echo"]().training, rate=3)  # line 32

def early(data=()):
    return replace(RECIPES["echo"](), source=Faulty)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("read", r"faulty\.py, line 7, in _divided: ZeroDivisionError: division by zero.*line 12, in read"),
        ("build", r"faulty\.py, line 17, in build: StatisticsError: mean requires"),
        ("made", r"faulty\.py, line 26, in made: KeyError: 'echo'"),
        ("typed", r"faulty\.py, line 29, in typed: TypeError: unsupported operand"),
        ("old", r"unexpected keyword argument 'rate' \(faulty\.py, line 32, in old\); fields of version 0\.1"),
        ("early", r"StepRecipe\.source: expected SourceSpec"),
    ],
)
def test_an_error_in_a_file_of_ones_own_is_told_with_its_line(steersman, tmp_path, name, said):
    (tmp_path / "faulty.py").write_text(FAULTY)
    code, out, err = steersman(f"train {tmp_path / 'faulty.py'}:{name} --run {tmp_path / 'run'}")
    refused(code, out, err, said)
    assert "bug in steersman" not in err


def test_a_file_of_ones_own_that_can_not_be_imported_is_told_with_the_line(steersman, tmp_path):
    (tmp_path / "late.py").write_text("a = 1\nb = a / 0\n")
    refused(*steersman(f"train {tmp_path / 'late.py'}:x"), r"late\.py can't be imported: ZeroDivisionError.*\(line 2\)")


def without(folder: Path, *modules: str) -> dict[str, str]:
    """An environment in which some modules are not installed."""
    for module in modules:
        (folder / "absent").mkdir(exist_ok=True)
        (folder / "absent" / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    return {"PYTHONPATH": str(folder / "absent")}


def test_the_package_trains_without_simulator_and_scikit_learn(tmp_path):
    environment = without(tmp_path, "gymnasium", "pygame", "Box2D", "sklearn", "tensorboard")
    code, out, err = finished(process(f"train echo {SHORT}", tmp_path, environment))
    assert code == 0, err
    assert "run: runs/echo-1" in out


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("gymnasium", "record car-racing", r'pip install "steersman\[sim\]"'),
        ("gymnasium", "drive expert --tracks 2 --workers 2", r'pip install "steersman\[sim\]"'),
        ("sklearn", "train digits", r'pip install "steersman\[digits\]"'),
    ],
)
def test_a_missing_extra_says_how_to_install_it(tmp_path, module, line, said):
    refused(*finished(process(line, tmp_path, without(tmp_path, module))), said)


def test_a_run_of_parts_of_ones_own_asks_for_their_file(place):
    refused(*finished(process("evaluate runs/own", place)), r"unknown kind 'Louder'.*--import path\.py")


def test_the_simulator_needs_no_display_and_its_json_is_alone_on_stdout(tmp_path):
    pytest.importorskip("gymnasium")
    line = "drive expert --tracks 2 --workers 2 --world.max-steps 20 --video drive.mp4 --json"
    code, out, err = finished(process(line, tmp_path))
    assert code == 0, err
    scores = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {"mean", "sd", "min", "scores", "laps", "seeds", "latency_ms"} <= scores.keys()
    assert scores["seeds"] == [2000, 2001]
    assert (tmp_path / "drive.mp4").stat().st_size > 1000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_run_to_go_on_with_and_say_how(place, steersman, number):
    for name in ("stopped", "whole"):
        shutil.rmtree(place / "runs" / name, ignore_errors=True)
    options = "--training.steps 90 --training.validate-every 40 --training.checkpoint-every 35"
    running = process(f"train echo {options} --run runs/stopped", place)
    log = place / "runs" / "stopped" / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 10:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(number)
    code, _, err = finished(running)
    assert code == 130
    assert "Traceback" not in err
    said = re.search(r"stopped at step (\d+) of 90; resume with: steersman (.*)", err)
    assert said, err
    assert 10 <= int(said[1]) < 90
    assert steersman(said[2])[0] == 0
    assert steersman(f"train echo {options} --run runs/whole")[0] == 0
    assert outcome(place / "runs" / "stopped") == outcome(place / "runs" / "whole")


def test_ctrl_c_while_importing_ends_in_one_line(tmp_path):
    # As NumPy does, whose compiled part can't be imported twice.
    swallows = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    [None for _ in range(1000)]
except KeyboardInterrupt:
    raise ImportError("cannot load module more than once per process")
"""
    (tmp_path / "tyro.py").write_text(swallows)
    running = process("train echo --help", tmp_path, {"PYTHONPATH": str(tmp_path)})
    assert finished(running) == (130, "", "stopped\n")


@pytest.mark.parametrize("line", ["recipes", "train echo --help"])
def test_a_pipe_that_breaks_ends_a_command_quietly(place, line):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as broken:
        command = [sys.executable, "-m", "steersman", *shlex.split(line)]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, cwd=place, env=buffered, stdout=broken, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


COMPLETED = {
    "co": {"convert", "compare", "completion", "compose"},
    "train steer-f": {"steer-frame", "steer-flow"},
    "train echo --core.": {"--core.hidden", "--core.reset"},
    "train echo --training.steps 5 --doctor": {"--doctor", "--doctor-every"},
    "record car": {"car-racing"},
    "challenge --j": {"--json"},
    "evaluate run": set(),  # bash goes on with files
}


def test_bash_completes_commands_names_and_options(place, tmp_path):
    shell = shutil.which("bash")
    if not shell:
        pytest.skip("no bash here")
    program = tmp_path / "steersman"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m steersman "$@"\n')
    program.chmod(0o755)
    script = ["source <(steersman completion bash)", "complete -p steersman"]
    for line in COMPLETED:
        words = ["steersman", *line.split(" ")]
        script.append(
            f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}; _steersman; echo ${{COMPREPLY[@]}}"
        )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", "\n".join(script)], cwd=place, env=environment, capture_output=True, text=True)
    known, *said = done.stdout.splitlines()
    assert known == "complete -o default -F _steersman steersman"
    assert {line: set(words.split()) for line, words in zip(COMPLETED, said, strict=True)} == COMPLETED, done.stderr


@pytest.mark.parametrize("moment", ["workers start", "workers drive"])
def test_ctrl_c_while_recording_says_how_to_go_on(tmp_path, moment):
    pytest.importorskip("gymnasium")
    line = "record car-racing --episodes 40 --max-steps 200 --folder drives"
    running = process(f"{line} --workers 2", tmp_path, start_new_session=True)
    ready = "drives/meta/steersman.json" if moment == "workers start" else "drives/meta/episodes/*/*.parquet"
    while not list(tmp_path.glob(ready)):
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    time.sleep(1)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    code, _, err = finished(running)
    assert code == 130
    assert "Traceback" not in err
    assert f"resume with: steersman {line} --workers 2" in err


def test_processes_of_torchrun_share_one_run(tmp_path):
    def torchrun(line: str) -> subprocess.CompletedProcess:
        launch = "-m torch.distributed.run --standalone --nproc-per-node 2 -m -- steersman"
        environment = os.environ | {"HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *shlex.split(launch), *shlex.split(line)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = torchrun(f"train echo {SHORT} --run runs/two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report: ") == 1
    assert len(read_log(tmp_path / "runs" / "two")) == 6


def test_processes_of_torchrun_must_name_their_folder(steersman, monkeypatch):
    monkeypatch.setattr("steersman.recipes.command.join_processes", lambda: (1, 2))
    refused(*steersman("train echo"), "torchrun.*--run FOLDER")


def test_a_warning_of_another_package_is_one_line(monkeypatch, capsys):
    def warned(arguments):
        warnings.warn("this\n  will go away", FutureWarning, stacklevel=1)

    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # Put back after this test.
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr("steersman.__main__._run", warned)
        main(["recipes"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("steersman: warning: this will go away (test_cli.py, line ")
