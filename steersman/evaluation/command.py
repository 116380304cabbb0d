"""Commands of this room."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT
from ..progress import bars
from ..training.run import Run, find, output_of
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
    out: str = ""
    """Folder of metrics.json and report.html; empty: the run's own, with --data below it."""
    json: bool = False
    """Print one JSON object and nothing else."""


def evaluate(arguments: list[str]) -> None:
    """score a run beside its baselines"""
    options = tyro.cli(Evaluate, args=arguments, prog="steersman evaluate")
    run = Run.open(find(options.run))
    on = Path("on", "-".join(Path(path).name for path in options.data)) if options.data else Path()
    folder = output_of(run, options.run, options.out, on)
    with bars() as watch:
        scores = report_run(run, options.data, [Run.open(find(other)) for other in options.beside], watch, folder)
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(score_table(scores))
    OUT.print(f"report: {folder / 'report.html'}")
