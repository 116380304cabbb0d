"""Commands of this room."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, changed, named
from ..errors import Interrupted, UserError
from ..evaluation.page import write_report
from ..processes import num_cores
from ..progress import bars
from . import WORLDS, CarRacing
from .recording import Recorded
from .report import film, report_drives
from .rollout import drives
from .scores import drive_table, driving_scores


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
        raise Interrupted(f"stopped; go on with: steersman record {shlex.join(arguments)}") from None
    OUT.print(f"{options.episodes} drives in {folder}")


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
