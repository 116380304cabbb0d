"""The commands."""

import importlib
import inspect
import itertools
import json
import re
import shlex
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from . import __version__
from .bench import bench_cores, core_table
from .challenge import score_submission, submission_table
from .compare import Comparison, chosen, comparison_table
from .config import did_you_mean
from .convert import convert
from .cores import NotFinite
from .decoding import Sampling
from .doctor import examine, patient_of
from .doctor.live import Live
from .doctor.selftest import selftest, selftest_table
from .doctor.visit import findings_table, report
from .drive import Recorded, drives, fit_rounds, num_cores
from .errors import UserError
from .evaluate import driving_scores
from .explain.circuits import circuit, draw, said, values
from .explain.gallery import draw_run, draw_run_saliency, gallery
from .explain.surface import draw_relu, draw_saddle, draw_surface
from .export import QUANTISED, export
from .generate import Speaker, written
from .inspect_log import inspect_log
from .inspect_report import inspection_table, write_inspection
from .live.limits import Limits
from .live.shows import Source
from .live.stage import staged
from .page import write_report
from .progress import bars, silent
from .quickstart import Quickstart
from .recipes import RECIPES
from .runs import Recipe, Run, find, join_processes, load, new_folder, own_file
from .scoring import drive_table, film, report_drives, report_run, score_table
from .sources.parallel import decoded, split
from .train import Interrupted
from .translation import Translator, recipe_of
from .translation_report import check_picture, picture_attention
from .worlds import WORLDS, CarRacing

OUT = Console(highlight=False, soft_wrap=True)
FIXED = (tyro.conf.AvoidSubcommands,)
"""The recipe fixes types; the command line changes values."""
OWN_HOSTS = ("127.0.0.1", "localhost", "::1")
ERR = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Train:
    """Every option of the recipe can be changed; what is said of it stands in the run's config.json."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: tuple[str, ...] = ()
    """Recordings to learn from: folders of any format that is known. None: the recipe's own source."""
    run: str = ""
    """Folder of the run; one that exists is gone on with. Empty: a new one below `runs`."""
    rounds: int = 0
    """Rounds of DAgger: the model drives, the expert labels, the data grows, training goes on."""
    device: str = "auto"
    """auto, cpu or cuda."""
    doctor: bool = False
    """Look at gradients, gates and updates while training, and say what is out of the ordinary."""
    doctor_every: int = 200
    """Steps between such looks."""
    watch: bool = False
    """Serve a page that shows the training, and the newest weights at a lap a minute."""
    watch_port: int = 0
    """Of that page; 0: any that is free."""
    open: bool = True
    """Open that page in a browser."""


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on its own test records, or on other data, beside its baselines; writes its report."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    data: tuple[str, ...] = ()
    """Recordings to score on instead, all of them."""
    beside: tuple[str, ...] = ()
    """Other runs to stand among the baselines, such as the single-frame model."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Compare:
    """Trains recipes on one split and prints their scores side by side; goes on where it was stopped."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Names, or patterns such as 'steer-*'."""
    data: tuple[str, ...] = ()
    """Recordings: folders of any format that is known."""
    seeds: int = 3
    """Trainings of each recipe, with the seeds from 0 on."""
    steps: int = 0
    """Of each training; 0: as each recipe has it."""
    minutes: float = 0.0
    """CPU minutes of each training, instead of steps."""
    folder: str = ""
    """Where the runs and the table go; empty: below `runs`, named after the data."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Doctor:
    """Looks for what went wrong in training, worst first; writes doctor.html into the run's folder."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
    """The folder of a run."""
    selftest: bool = False
    """Instead: train small models with planted faults, and healthy ones, and count what is found."""
    seed: int = 0
    """Of the self-test: another one draws other faults."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Record:
    """Records a world's expert as a LeRobot dataset; one that was cut short is gone on with."""

    world: Annotated[CarRacing, tyro.conf.arg(name="")]
    folder: str = ""
    """Where the drives go; empty: below `drives`, named after what they are."""
    episodes: int = 60
    """Drives in all."""
    seed: int = 100_000
    """Of the first track; the others follow."""
    driver: str = "expert"
    """expert, with disturbances that it has to recover from; or a run, whose every state the expert labels."""
    workers: int = 0
    """Processes; 0: one a core."""


@dataclass(frozen=True)
class Drive:
    """Drives tracks closed loop and scores them as the stock environment does."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, the name of a model that ships with the package (steer), or expert."""
    tracks: int = 10
    """How many."""
    seed: int = 2000
    """Of the first track; the others follow."""
    world: CarRacing = CarRacing()
    video: str = ""
    """Also film the first track to this file (mp4)."""
    report: str = ""
    """Also write a page to this file (html): each track's score, and where the car left the road."""
    workers: int = 0
    """Processes; 0: one a core."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Explain:
    """A formula, and a number for each of its names: steersman explain "(x + y) * z" x=-2 y=5 z=-4."""

    formula: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMULA")]
    """Of + - * / ^, brackets, max, min, exp, log, sigmoid, tanh, relu, power. Statements are divided by `;`, and
    `name = ...` names a wire; the sum of those without a name is differentiated."""
    given: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=NUMBER")] = ()
    """A number for each name."""
    out: str = ""
    """Draws the circuit into OUT.svg and OUT.png."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class ExplainRun:
    """Pictures of one record as a trained model reads it: unrolled over time, gates over time, or what moved it."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    sample: int = 0
    """Which of the run's test records, or of --data."""
    data: tuple[str, ...] = ()
    """Recordings to take the record from instead."""
    at: int = -1
    """The step whose prediction is explained; -1: an early one of a long record, the last of a short one."""
    steps: int = 0
    """Steps shown up to it; 0: 8 unrolled, 60 of gates, 24 of saliency."""
    saliency: bool = False
    """Integrated gradients instead: which inputs moved the prediction; of a drive also an mp4."""
    out: str = ""
    """Folder of the pictures; empty: below `explain`, named after the run."""


@dataclass(frozen=True)
class ExplainPicture:
    """Draws a picture of training from a real run."""

    out: str = "explain"
    """Folder of the picture."""


@dataclass(frozen=True)
class ExplainGallery:
    """Draws every kind of picture, with the driver that ships with the package on a drive that is recorded for it."""

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Where they go."""
    text: str = ""
    """A run of a model of text to picture, too."""


@dataclass(frozen=True)
class Sample:
    """Writes on where a prompt ends, printed as it is generated."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `chars` or `bytes`."""
    prompt: str = ""
    """What it goes on from; none: a new line."""
    length: int = 500
    """Characters, or bytes."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling(temperature=0.8)
    seed: int = 0
    """The same seed writes the same."""


@dataclass(frozen=True)
class Translate:
    """Translates standard input line by line: as many lines come out as go in."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `translate`."""
    beam: int = 5
    """Sequences kept at every step; 1: greedy."""
    power: float = 1.0
    """Of the length, by which a sequence's log-probability is divided; 0 favours short ones."""
    attention: str = ""
    """Also picture where it looked while it translated the first lines, in this file (.html or .png)."""


@dataclass(frozen=True)
class Export:
    """Writes one step of a model in ONNX, once it agreed with PyTorch, with a runner that needs neither."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    out: str = ""
    """Folder to write; an export that is there is replaced. Empty: `export` in the run's folder."""
    data: tuple[str, ...] = ()
    """Recordings to check, calibrate and score on instead of the run's own."""
    int8: bool = False
    """Also a file in int8, calibrated on training records, with what it loses on held-out ones."""


@dataclass(frozen=True)
class Serve:
    """Serves a model on this machine: a page to watch it on, and an API of steps for other programs."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    source: Annotated[Source, tyro.conf.arg(name="")] = Source()
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own lets others in who know the token."""
    port: int = 8765
    """0: any that is free."""
    origin: tuple[str, ...] = ()
    """Addresses by which it is reached through a proxy or a tunnel, such as https://car.example."""
    open: bool = True
    """Open the page in a browser."""
    recordings: str = ""
    """Where a person's drives in the simulator are kept; empty: below `drives`, named after the simulator."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class BenchCores:
    """Measures the recurrent cores against the peers that are installed: ratios of CPU time on one thread."""

    only: str = ""
    """Rows with this text in what they measure, their shape or their peer; empty: all."""
    quick: bool = False
    """Fewer repeats: a first look, with more spread."""
    json: bool = False
    """Print one JSON list of rows and nothing else."""


@dataclass(frozen=True)
class Inspect:
    """Says what a log is before anything learns from it: clocks, labels, pictures, lag and sign, what is wrong."""

    log: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """A recording, or a folder of recordings, of any format that is known."""
    page: str = ""
    """Also write a page to this file (html): pictures, the label over time, the lag."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Convert:
    """Writes a log of any format as a LeRobotDataset v3; one that was cut short is gone on with."""

    log: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """A recording, or a folder of recordings."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to write; it must not exist, and appears when it is whole."""
    task: str = "drive"
    """What is being done in it, in words, as LeRobot wants it said."""


@dataclass(frozen=True)
class Score:
    """Scores a submission to Udacity's Challenge 2: RMSE of all, public and private frames, beside baselines."""

    truth: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH.csv")]
    """Columns frame_id, steering_angle, public (1 or 0)."""
    submission: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUBMISSION.csv")]
    """Columns frame_id, steering_angle (radians at the wheel, positive = left), every frame once."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Recipes:
    """Lists the recipes, or shows one in full."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """A recipe to show."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 and one message on what the user can mend."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        ERR.print(f"[bold red]steersman:[/] {_escape(str(error))}")
        sys.exit(2)
    except NotFinite:
        ERR.print(
            "[bold red]steersman:[/] the model's state grows to NaN or infinity on these records; "
            "ask `steersman doctor` why, and train anew with a lower --training.rate or longer windows"
        )
        sys.exit(2)
    except (KeyboardInterrupt, Interrupted) as stop:
        ERR.print(_escape(str(stop) or "stopped"))
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:
        ERR.print_exception()
        ERR.print(
            f"This is a bug in steersman {__version__}: please report it with the lines above (see CONTRIBUTING.md)"
        )
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    arguments = _imported(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        OUT.print(_overview())
        return
    if arguments[0] in ("--version", "version"):
        OUT.print(f"steersman {__version__}")
        return
    command = COMMANDS.get(arguments[0])
    if command is None:
        known = ", ".join(COMMANDS)
        raise UserError(f"no command {arguments[0]!r}{did_you_mean(arguments[0], COMMANDS)}; there are {known}")
    command(arguments[1:])


def recipes(arguments: list[str]) -> None:
    """list the recipes"""
    name = tyro.cli(Recipes, args=arguments, prog="steersman recipes").name
    if name:
        OUT.print(_escape(inspect.getdoc(_recipe(name)) or name))
        return
    table = Table("recipe", "what it is", box=None)
    for known, make in RECIPES.items():
        table.add_row(known, (make.__doc__ or "").split("\n")[0])
    OUT.print(table)


def record(arguments: list[str]) -> None:
    """record drives of an expert in a simulator"""
    name, rest = _named("record", "WORLD", arguments, WORLDS)
    if name is None:
        return
    options = tyro.cli(Record, config=FIXED, default=Record(WORLDS[name]()), args=rest, prog=f"steersman record {name}")
    recorded = Recorded(options.world, options.episodes, options.seed, options.folder)
    try:
        with bars() as watch:
            folder = recorded.record(options.driver, options.workers, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; go on with: steersman record {shlex.join(arguments)}") from None
    OUT.print(f"{options.episodes} drives in {folder}")


def train(arguments: list[str]) -> None:
    """train a recipe"""
    name, rest = _named("train", "RECIPE", arguments, RECIPES, also=".py:")
    if name is None:
        return
    make = _recipe(name)
    folder = next(iter(_values(rest, "--run")), None)
    # A run that exists is gone on with as it was begun.
    begun = Run.open(Path(folder)) if folder and (Path(folder) / "config.json").exists() else None
    if begun and begun.name.rpartition(":")[2] != name.rpartition(":")[2]:
        raise UserError(f"{folder} is a run of {begun.name}, not of {name}; name another folder with --run")
    default = (
        Train(begun.recipe, begun.data, folder or "") if begun else Train(_made(name, make, _values(rest, "--data")))
    )
    text = f"{inspect.getdoc(make) or name}\n\n{Train.__doc__}"
    options = tyro.cli(
        Train, config=FIXED, default=default, args=rest, prog=f"steersman train {name}", description=text
    )
    rank, ranks = join_processes()
    if ranks > 1 and not options.run:
        raise UserError("processes share a folder; name it: torchrun ... -m -- steersman train ... --run FOLDER")
    if options.doctor_every < 1:
        raise UserError("--doctor-every must be at least 1")
    run = Path(options.run or new_folder(name))
    watching = nullcontext()
    if options.watch and not rank:
        found = partial(_watch_at, options.open)
        watching = _live_part("watching").watched(run, say, found, port=options.watch_port)
    with watching:
        _train(name, options, run, rank, arguments)


def _train(name: str, options: Train, run: Path, rank: int, arguments: list[str]) -> None:
    try:
        with bars() as watch:
            fit_rounds(
                name,
                options.recipe,
                run,
                options.data,
                options.device,
                options.rounds,
                say=(lambda text: None) if rank else say,
                watch=silent if rank else watch,
                look=Live(say, options.doctor_every) if options.doctor and not rank else None,
            )
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(arguments if options.run else [*arguments, "--run", str(run)])
        raise Interrupted(f"{str(stop) or 'stopped'}; go on with: steersman train {again}") from None
    if rank:
        return
    with bars() as watch:
        scores = report_run(Run.open(run), watch=watch)
    OUT.print(score_table(scores))
    OUT.print(f"run: {run}\nreport: {run / 'report.html'}")


def _watch_at(open: bool, address: str, once: str) -> None:
    say(f"watch: {address}")
    if open:
        webbrowser.open(once)


def _live_part(name: str) -> Any:
    """A module of what is live. UserError where what it needs is not installed."""
    try:
        return importlib.import_module(f".live.{name}", __package__)
    except ImportError as error:
        package = str(error.name).split(".")[0]
        raise UserError(f"{package} is not installed; run: pip install 'steersman[live]'") from None


def evaluate(arguments: list[str]) -> None:
    """score a run beside its baselines"""
    options = tyro.cli(Evaluate, args=arguments, prog="steersman evaluate")
    run = Run.open(find(options.run))
    # What ships with the package is left as it is.
    folder = run.folder if run.folder == Path(options.run) else Path("runs") / options.run
    if options.data:
        folder = folder / "on" / "-".join(Path(path).name for path in options.data)
    with bars() as watch:
        scores = report_run(run, options.data, [Run.open(find(other)) for other in options.beside], watch, folder)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(score_table(scores))
    OUT.print(f"report: {folder / 'report.html'}")


def compare(arguments: list[str]) -> None:
    """train recipes side by side"""
    options = tyro.cli(Compare, args=arguments, prog="steersman compare")
    if not options.data:
        raise UserError("compare needs recordings to train on: --data FOLDER")
    if options.seeds < 1 or options.steps < 0 or options.minutes < 0 or (options.steps and options.minutes):
        raise UserError("--seeds must be at least 1, --steps and --minutes not below 0, and only one of the two given")
    data = tuple(str(Path(path).resolve()) for path in options.data)
    folder = Path(options.folder or Path("runs") / "-".join(["compare", *(Path(path).name for path in data)]))
    comparison = Comparison(
        chosen(options.recipes, RECIPES, data), data, folder, options.seeds, options.steps, options.minutes
    )
    try:
        with bars() as watch:
            found = comparison.go(say, watch)
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(["steersman", "compare", *arguments])
        raise Interrupted(f"{str(stop) or 'stopped'}; go on with: {again}") from None
    if options.json:
        print(json.dumps(found))
    elif found["recipes"]:
        OUT.print(comparison_table(found))
        OUT.print(f"table: {folder / 'compare.md'}")
    if comparison.failed:
        name, why = next(iter(comparison.failed.items()))
        raise UserError(f"{len(comparison.failed)} trainings could not be made, the first: {name}: {why}")


def doctor(arguments: list[str]) -> None:
    """say what went wrong in training"""
    options = tyro.cli(Doctor, args=arguments, prog="steersman doctor")
    if options.selftest:
        _doctor_selftest(options)
        return
    if not options.run:
        raise UserError("doctor needs a run: steersman doctor RUN, or steersman doctor --selftest")
    run = Run.open(find(options.run))
    with bars() as watch:
        diagnosis = examine(patient_of(run, watch), watch)
    shipped = run.folder != Path(options.run)  # What ships with the package is left as it is.
    page = (Path("runs") / options.run if shipped else run.folder) / "doctor.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_report(page, report(f"{run.name}: {run.folder.name}, examined", diagnosis))
    if options.json:
        print(json.dumps(diagnosis.json() | {"page": str(page)}))
        return
    OUT.print(findings_table(diagnosis) if diagnosis.findings else "nothing out of the ordinary")
    for name, why in diagnosis.skipped.items():
        OUT.print(_escape(f"left out: {name}, for {why}"))
    OUT.print(f"page: {page}")


def _doctor_selftest(options: Doctor) -> None:
    with bars() as watch:
        scores = selftest(options.seed, watch)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(selftest_table(scores))


def drive(arguments: list[str]) -> None:
    """let a model drive tracks it never saw"""
    options = tyro.cli(Drive, args=arguments, prog="steersman drive")
    if options.tracks < 1 or options.seed < 0:
        raise UserError("--tracks must be at least 1, and --seed not below 0")
    seeds = range(options.seed, options.seed + options.tracks)
    with bars() as watch:
        episodes = []
        for episode in drives(options.world, options.run, seeds, options.workers or num_cores()):
            episodes.append(episode)
            watch("driving", len(episodes), options.tracks, f"score {episode['score']:.0f}")
        filmed = film(options.world, options.run, options.seed, Path(options.video), watch) if options.video else None
    if options.report:
        write_report(Path(options.report), report_drives(f"{options.run} drives", {options.run: episodes}, filmed))
    scores = driving_scores(episodes)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(drive_table({options.run: scores}))
    for name in ("video", "report"):
        if getattr(options, name):
            OUT.print(f"{name}: {getattr(options, name)}")


def sample(arguments: list[str]) -> None:
    """let a text model write"""
    options = tyro.cli(Sample, args=arguments, prog="steersman sample")
    if options.length < 0 or options.seed < 0:
        raise UserError("--length and --seed must not be below 0")
    speaker = Speaker(load(options.run))
    prompt = options.prompt or speaker.beginning()
    said = speaker.speak(prompt, options.length, options.sampling, options.seed)

    def write(text: bytes) -> None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    first = next(said, None)  # A prompt that can't be read is refused before anything is written.
    write(prompt.encode(errors="surrogateescape"))
    written(speaker, said if first is None else itertools.chain([first], said), write)
    write(b"\n")


def translate(arguments: list[str]) -> None:
    """translate standard input"""
    options = tyro.cli(Translate, args=arguments, prog="steersman translate")
    if options.beam < 1 or not 0 <= options.power <= 10:
        raise UserError("--beam must be at least 1, and --power from 0 to 10")
    if options.attention:
        check_picture(Path(options.attention))  # Before the work is done, not after it.
    run = Run.open(find(options.run))
    longest, model = recipe_of(run).longest, run.model()
    assert isinstance(model, Translator)
    given = decoded(sys.stdin.buffer.read(), "standard input")
    with bars() as watch:
        said = model.translate(split(given) if given else [], options.beam, options.power, longest, watch=watch)
    for one in said:
        print(" ".join(one.text.splitlines()))  # A line is a line, whatever the model says.
    if unknown := sum(one.unknown for one in said):
        say(f"{unknown} pieces of the text are not in the model's vocabulary")
    if options.attention:
        shown = picture_attention(Path(options.attention), model, said)
        say(f"attention: {options.attention} ({shown} of {len(said)} lines)")


def inspect_(arguments: list[str]) -> None:
    """say what a log holds, and what is wrong with it"""
    options = tyro.cli(Inspect, args=arguments, prog="steersman inspect")
    with bars() as watch:
        inspection = inspect_log(options.log, watch)
    if options.page:
        write_inspection(Path(options.page), inspection)
    if options.json:
        print(json.dumps(inspection.found))
        return
    for table in inspection_table(inspection.found):
        OUT.print(table, soft_wrap=False)
    for warning in inspection.found["warnings"]:
        OUT.print(f"[yellow]warning:[/] {_escape(warning)}")
    if options.page:
        OUT.print(f"page: {options.page}")


def convert_(arguments: list[str]) -> None:
    """write a log as a LeRobot dataset"""
    options = tyro.cli(Convert, args=arguments, prog="steersman convert")
    try:
        with bars() as watch:
            done = convert(options.log, options.out, options.task, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; go on with: steersman convert {shlex.join(arguments)}") from None
    for name, why in done.dropped.items():
        say(f"stream {name} was left out: {why}")
    if done.uneven:
        say(f"{done.uneven} records have another rate than {done.fps} Hz; their own clock is kept as label.time_s")
    OUT.print(_escape(f"{done.episodes} episodes, {done.frames} frames at {done.fps} Hz in {options.out}"))


def score(arguments: list[str]) -> None:
    """score a submission to Challenge 2"""
    options = tyro.cli(Score, args=arguments, prog="steersman score")
    scores = score_submission(Path(options.truth), Path(options.submission))
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(submission_table(Path(options.submission).name, scores))


def explain(arguments: list[str]) -> None:
    """show how gradients flow: in a formula, a run, or the lecture's pictures"""
    what = next((a for a in arguments if not a.startswith("-")), "")
    if not what and arguments and arguments[0] in ("-h", "--help"):
        OUT.print(_escape(EXPLAINED))
    elif what in EXPLAIN:
        rest = [a for i, a in enumerate(arguments) if i != arguments.index(what)]
        EXPLAIN[what](what, rest)
    elif (find(what) / "config.json").is_file() or Path(what).is_dir():
        _explain_run(arguments)
    elif PATH.fullmatch(what) and not any("=" in a for a in arguments):
        raise UserError(f"there is no run {what}; a formula needs a number for each name: x=1")
    else:
        _explain_formula(arguments)


PATH = re.compile(r"\.{0,2}/?[\w.-]+(/[\w.-]+)+/?")
EXPLAINED = """usage: steersman explain WHAT [OPTIONS]

WHAT is, in this order,
  surface, saddle, relu  a picture of training, from a real run: --out FOLDER
  gallery FOLDER         every kind of picture
  a run                  its folder, or steer, which ships: unrolled over time, gates, --saliency
  a formula              a circuit with values and gradients, and a number for each name: "(x + y) * z" x=-2 y=5 z=-4

steersman explain surface --help, and so on, says more of each; of a formula: steersman explain "x + y" --help"""


def _explain_picture(what: str, arguments: list[str]) -> None:
    options = tyro.cli(ExplainPicture, args=arguments, prog=f"steersman explain {what}")
    paint = {"surface": draw_surface, "saddle": draw_saddle, "relu": draw_relu}[what]
    OUT.print(f"picture: {paint(Path(options.out) / f'{what}.png')}")


def _explain_gallery(what: str, arguments: list[str]) -> None:
    options = tyro.cli(ExplainGallery, args=arguments, prog="steersman explain gallery")
    with bars() as watch:
        files = gallery(Path(options.out), Run.open(Path(options.text)) if options.text else None, watch)
    for file in files:
        OUT.print(f"picture: {file}")


EXPLAIN: dict[str, Callable[[str, list[str]], None]] = {
    **dict.fromkeys(("surface", "saddle", "relu"), _explain_picture),
    "gallery": _explain_gallery,
}


def _explain_run(arguments: list[str]) -> None:
    options = tyro.cli(ExplainRun, args=arguments, prog="steersman explain")
    run = Run.open(find(options.run))
    folder = Path(options.out or Path("explain") / Path(options.run).name)
    make = draw_run_saliency if options.saliency else draw_run
    with bars() as watch:
        lines = make(run, options.sample, options.data, options.at, options.steps, folder, watch)
    for line in lines:
        OUT.print(_escape(line))


def _explain_formula(arguments: list[str]) -> None:
    options = tyro.cli(Explain, args=arguments, prog="steersman explain")
    found = circuit(options.formula, values(options.given))
    files = draw(found, Path(options.out)) if options.out else []
    if options.json:
        print(json.dumps(found.json()))
        return
    for name, table in zip(("forwards", "backwards"), said(found), strict=True):
        OUT.print(f"[bold]{name}[/]")
        OUT.print(table)
    OUT.print(f"farthest from a finite difference: {found.error:.1e}")
    for file in files:
        OUT.print(f"picture: {file}")


def export_run(arguments: list[str]) -> None:
    """write one step of a model in ONNX"""
    options = tyro.cli(Export, args=arguments, prog="steersman export")
    run = Run.open(find(options.run))
    # What ships with the package is left as it is.
    home = run.folder if run.folder == Path(options.run) else Path("runs") / options.run
    with bars() as watch:
        done = export(run, Path(options.out or home / "export"), options.data, options.int8, watch)
    OUT.print(f"export: {done.folder}")
    OUT.print(f"greatest difference from PyTorch: {done.disagreement:.2g}")
    if done.error is not None and done.int8_error is not None:
        lost = 100 * (done.int8_error / done.error - 1) if done.error else 0.0
        kept = f", {' and '.join(done.floats)} kept in float32"
        OUT.print(
            f"{QUANTISED}: {done.measure} {done.int8_error:.4g} on held-out records, in float32 {done.error:.4g} "
            f"({lost:+.2f} %){kept}"
        )


def live(arguments: list[str]) -> None:
    """serve a model live, and a page to watch it on"""
    options = tyro.cli(Serve, args=arguments, prog="steersman live")
    serve, seat = _live_part("serve"), _live_part("seat")
    run = Run.open(find(options.run))
    listening = serve.bound(options.host, options.port)
    guard = serve.guarding(listening, options.host, options.origin)
    with bars() as watch:
        stage = staged(run, options.source, options.limits, say, watch)
    server = serve.prepared(stage, guard, options.limits)
    OUT.print(f"live: {serve.address(guard)}")
    for origin in guard.origins:
        OUT.print(f"also: {origin}/?token={guard.token}")
    if options.host not in OWN_HOSTS:
        say(f"{options.host} is not this machine alone: whoever knows the address with its token may watch and drive")
    if options.open:
        once = serve.address(guard, guard.ticket())
        threading.Thread(target=webbrowser.open, args=(once,), daemon=True).start()  # Some wait for their end.
    with seat.seated(stage, run, Path(options.recordings) if options.recordings else None, say):
        server.run(sockets=[listening])


def quickstart(arguments: list[str]) -> None:
    """record, train and drive: the whole way at once"""
    options = tyro.cli(Quickstart, args=arguments, prog="steersman quickstart")
    try:
        with bars() as watch:
            table, places = options.go(say, watch)
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(["steersman", "quickstart", *arguments])
        raise Interrupted(f"{str(stop) or 'stopped'}; go on with: {again}") from None
    OUT.print(table)
    for what, where in places.items():
        OUT.print(f"{what}: {where}")


def bench(arguments: list[str]) -> None:
    """measure the cores against their peers"""
    name, rest = _named("bench", "BENCHMARK", arguments, BENCHMARKS)
    if name is not None:
        BENCHMARKS[name](rest)


def _bench_cores(arguments: list[str]) -> None:
    options = tyro.cli(BenchCores, args=arguments, prog="steersman bench cores")
    with bars() as watch:
        rows, missing = bench_cores(options.only, options.quick, watch)
    if options.json:
        print(json.dumps([row.json() for row in rows]))
    else:
        # A file is as wide as the table.
        (OUT if OUT.is_terminal else Console(highlight=False, width=120)).print(core_table(rows))
    if missing:
        lacking = ", ".join(missing)
        (ERR if options.json else OUT).print(
            _escape(f'left out, as not installed: {lacking}; run: pip install "steersman[bench]"')
        )


BENCHMARKS: dict[str, Callable[[list[str]], None]] = {"cores": _bench_cores}

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "quickstart": quickstart,
    "recipes": recipes,
    "record": record,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "inspect": inspect_,
    "convert": convert_,
    "compare": compare,
    "explain": explain,
    "doctor": doctor,
    "drive": drive,
    "sample": sample,
    "translate": translate,
    "export": export_run,
    "live": live,
    "bench": bench,
}


def _overview() -> str:
    lines = [f"  {name:<12}{command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "steersman: recurrent networks that steer through time",
            "",
            *lines,
            "",
            "A run that is made of parts of your own needs their file: --import path.py, with any command.",
            "steersman COMMAND --help says more of each. Where to begin: steersman drive steer --video drive.mp4",
        ]
    )


def _named(
    command: str, what: str, arguments: list[str], known: Mapping[str, Any], also: str = "\0"
) -> tuple[str | None, list[str]]:
    """The name a command begins with and the rest; None after help was printed."""
    if arguments and arguments[0] in ("-h", "--help"):
        more = "; or path.py:function for one of your own" if also in ".py:" else ""
        OUT.print(f"usage: steersman {command} {what} [OPTIONS]\n\n{what} is one of: {', '.join(known)}{more}")
        OUT.print(f"steersman {command} {next(iter(known))} --help lists its options.")
        return None, []
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"{command} needs a name first: steersman {command} {next(iter(known))}; there are {', '.join(known)}"
        )
    name = arguments[0]
    if name not in known and also not in name:
        raise UserError(f"no {what.lower()} {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return name, arguments[1:]


def _recipe(name: str) -> Callable[[Sequence[str]], Recipe]:
    """A recipe of the package, or `path.py:function`."""
    if name in RECIPES:
        return RECIPES[name]
    path, _, function = name.rpartition(":")
    if not path.endswith(".py"):
        raise UserError(f"no recipe {name!r}{did_you_mean(name, RECIPES)}; there are {', '.join(RECIPES)}")
    module = own_file(path)
    if not callable(getattr(module, function, None)):
        raise UserError(f"{path} has no function {function!r}; name a recipe of your own as path.py:function")
    return getattr(module, function)


def _made(name: str, make: Callable[[Sequence[str]], Recipe], data: Sequence[str]) -> Recipe:
    if name in RECIPES:
        return make(data)
    try:
        recipe = make(data)
    except TypeError as error:
        raise UserError(f"{name} can't be called with the folders of the data: {error}") from error
    if not isinstance(recipe, Recipe):
        raise UserError(f"{name} gives a {type(recipe).__name__}, not a Recipe")
    return recipe


def _imported(arguments: list[str]) -> list[str]:
    """The arguments without `--import path.py`, which brings in parts of the user's own for any command."""
    rest, words = [], iter(arguments)
    for word in words:
        if word == "--import":
            own_file(next(words, ""))
        else:
            rest.append(word)
    return rest


def _values(arguments: list[str], name: str) -> list[str]:
    """The values of an option that has to be known before the others are read."""
    found: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == name:
            found += itertools.takewhile(lambda a: not a.startswith("--"), arguments[i + 1 :])
        elif argument.startswith(name + "="):
            found.append(argument.partition("=")[2])
    return found


def say(text: str) -> None:
    """A line for the user beside the bars."""
    ERR.print(_escape(text))


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


if __name__ == "__main__":
    main()
