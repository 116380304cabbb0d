"""Commands of this room."""

import json
import shlex
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ..config import did_you_mean
from ..console import OUT, changed, named
from ..errors import Interrupted, UserError
from ..evaluation.page import write_report
from ..files import check_output
from ..processes import num_cores
from ..progress import bars
from ..training.run import Run, find
from . import WORLDS
from .car_racing import CarRacing
from .gauntlet import gauntlet_report, gauntlet_scores, gauntlet_table, run_gauntlet
from .recording import Recorded
from .report import film, report_drives
from .rollout import EXPERT, drives
from .scores import drive_table, driving_scores
from .world import WorldSpec

MOST_WORKERS = 1000


@dataclass(frozen=True)
class Record:
    """Records a world's expert as a LeRobot dataset; one that was cut short is resumed."""

    world: Annotated[WorldSpec, tyro.conf.arg(name="")]
    folder: str = ""
    """Folder of the drives; empty: below `drives`, named after what they are."""
    episodes: int = 60
    """Number of drives in all."""
    seed: int = 100_000
    """Seed of the first episode; the rest count up from it."""
    driver: str = "expert"
    """Who drives: expert, with disturbances to recover from; or a run, whose every state the expert labels."""
    workers: int = 0
    """Number of processes; 0: one a core."""

    BOUNDS = {"episodes": (1, inf), "workers": (0, MOST_WORKERS)}


@dataclass(frozen=True)
class Drive:
    """Lets a model act closed loop in the world that it learned in, and scores it as that world does."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, the name of a model that ships with the package (steer), or expert."""
    world: WorldSpec
    """World of the run, with its settings; --world NAME (car-racing, pendulum) takes another, or the expert's."""
    tracks: int = 10
    """Episodes, each begun from a seed of its own; in CarRacing a track."""
    seed: int = 2000
    """Seed of the first episode; the rest count up from it."""
    gauntlet: bool = False
    """Drive under every disturbance that the world knows, beside the expert: one table, and with --report a page."""
    beside: tuple[str, ...] = ()
    """Other runs to put through the gauntlet."""
    video: str = ""
    """Also film the first episode to this file (mp4)."""
    report: str = ""
    """Also write a page to this file (html): each episode's score, and what the world tells of it."""
    workers: int = 0
    """Number of processes; 0: one a core."""
    json: bool = False
    """Print one JSON object and nothing else."""

    BOUNDS = {"tracks": (1, inf), "workers": (0, MOST_WORKERS)}


def record(arguments: list[str]) -> None:
    """record drives of an expert in a simulator"""
    name, rest = named("record", "WORLD", arguments, WORLDS)
    if name is None:
        return
    options = changed(Record(WORLDS[name]()), rest, f"record {name}", Record.__doc__ or "")
    recorded = Recorded(options.world, options.episodes, options.seed, options.folder)
    try:
        with bars() as watch:
            folder = recorded.record(options.driver, options.workers, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; resume with: steersman record {shlex.join(arguments)}") from None
    OUT.print(f"{options.episodes} drives in {folder}")


def drive(arguments: list[str]) -> None:
    """let a model act in its world, closed loop, and score it"""
    world, arguments = _world(arguments)
    options = changed(Drive(tyro.MISSING, world), arguments, "drive", Drive.__doc__ or "")
    seeds, world = range(options.seed, options.seed + options.tracks), options.world
    for output in filter(None, (options.video, options.report)):
        check_output(Path(output))
    if options.beside and not options.gauntlet:
        raise UserError("--beside names runs for the gauntlet; add --gauntlet")
    if options.gauntlet:
        _gauntlet(options, seeds)
        return
    with bars() as watch:
        episodes = []
        for episode in drives(world, options.run, seeds, options.workers or num_cores()):
            episodes.append(episode)
            watch("driving", len(episodes), options.tracks, f"score {episode.score:.0f}")
        filmed = film(world, options.run, options.seed, Path(options.video), watch) if options.video else None
    if options.report:
        write_report(Path(options.report), report_drives(f"{options.run} drives", {options.run: episodes}, filmed))
    scores = driving_scores(episodes)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(drive_table({options.run: scores}, world.words))
    for name in ("video", "report"):
        if getattr(options, name):
            OUT.print(f"{name}: {getattr(options, name)}")


def _gauntlet(options: Drive, seeds: range) -> None:
    names = tuple(dict.fromkeys((options.run, EXPERT, *options.beside)))
    if options.video:
        raise UserError("--video films one episode; leave out --gauntlet, and name the disturbance instead")
    with bars() as watch:
        rows = run_gauntlet(options.world, names, seeds, options.workers or num_cores(), watch)
    if options.report:
        write_report(Path(options.report), gauntlet_report(f"{options.run} runs the gauntlet", rows))
    scores = gauntlet_scores(rows)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(gauntlet_table(scores, options.world.words))
    if options.report:
        OUT.print(f"report: {options.report}")


def _world(arguments: list[str]) -> tuple[WorldSpec, list[str]]:
    """The world that is named by --world, or that of the run; and the arguments without that name."""
    before = ["", *arguments[:-1]]
    for i, (last, argument) in enumerate(zip(before, arguments, strict=True)):
        if last == "--world" or argument.startswith("--world="):
            name = argument.removeprefix("--world=")
            if name not in WORLDS:
                raise UserError(f"no world {name!r}{did_you_mean(name, WORLDS)}; there are {', '.join(WORLDS)}")
            return WORLDS[name](), arguments[: i - (last == "--world")] + arguments[i + 1 :]
    pairs = zip(before, arguments, strict=True)
    # A word that is no option's value is the run.
    words = (
        a for last, a in pairs if a[:1] != "-" and (last[:2] != "--" or last in ("--json", "--no-json") or "=" in last)
    )
    run = next(words, EXPERT)
    return (CarRacing() if run == EXPERT or {"-h", "--help"} & set(arguments) else _own_world(run)), arguments


def _own_world(name: str) -> WorldSpec:
    """The world that a run learned in. UserError where there is none."""
    run = Run.open(find(name))
    source = run.recipe.source
    if isinstance(source, Recorded):
        return source.world
    raise UserError(
        f"{run.folder} can't drive: it learned in no world, from {type(source).__name__}; "
        f"drive a run of a recipe that learns in one of {', '.join(WORLDS)}"
    )
