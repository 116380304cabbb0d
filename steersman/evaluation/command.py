"""Commands of this room."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT
from ..progress import bars
from ..training.run import Run, find, own_home
from .outcome import score_table
from .report import report_run


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on its own test records, or on other data, beside its baselines; writes its report."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    data: tuple[str, ...] = ()
    """Recordings to score on instead, all of them."""
    beside: tuple[str, ...] = ()
    """Other runs to stand among the baselines, such as the single-frame model."""
    video: str = ""
    """Also film the records to this file (mp4): the camera, and the prediction beside what was so."""
    json: bool = False
    """Print one JSON object and nothing else."""


def evaluate(arguments: list[str]) -> None:
    """score a run beside its baselines"""
    options = tyro.cli(Evaluate, args=arguments, prog="steersman evaluate")
    run = Run.open(find(options.run))
    folder = own_home(run, options.run)
    if options.data:
        folder = folder / "on" / "-".join(Path(path).name for path in options.data)
    beside = [Run.open(find(other)) for other in options.beside]
    with bars() as watch:
        scores = report_run(run, options.data, beside, watch, folder, Path(options.video) if options.video else None)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(score_table(scores))
    OUT.print(f"report: {folder / 'report.html'}")
    if options.video:
        OUT.print(f"film: {options.video}")
