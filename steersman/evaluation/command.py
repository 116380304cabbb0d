"""Commands of this room."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, parsed, say
from ..data.camera import CameraFaults
from ..errors import UserError
from ..progress import bars
from ..sources.selection import asked
from ..training.run import Run, find, output_of
from .outcome import score_table
from .predict import check_format, csv_lines, follow, predict, write_predictions
from .report import report_run
from .together import together


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on its own test records, or on other data, beside its baselines; writes its report."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    data: tuple[str, ...] = ()
    """Recordings to score on instead, all of them."""
    keep: str = ""
    """Seconds of each record to score on, such as 10:120,200:300; empty: all. Of one log alone: LOG?keep=10:120."""
    drop: str = ""
    """Seconds to leave out, in the same form."""
    records: str = ""
    """Records to score on, by their numbers from 0 or their names: 0,3:5 or 'tub/*'."""
    beside: tuple[str, ...] = ()
    """Other runs to stand among the baselines, such as the single-frame model."""
    together: Annotated[tuple[str, ...], tyro.conf.arg(name="with")] = ()
    """Other runs of the same question, by other seeds or cores, whose probabilities are averaged with this one's."""
    disturb: CameraFaults = CameraFaults()
    """Faults of the camera: the pictures are spoiled before they are seen."""
    video: str = ""
    """Also film the records to this file (mp4): the camera, and the prediction beside what was so."""
    out: str = ""
    """Folder of metrics.json and report.html; empty: the run's own, with --data below it."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Predict:
    """Says what a run makes of new data, which need not hold the answers: a row a step, or one a record."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run."""
    data: tuple[str, ...] = ()
    """Data to predict on."""
    out: str = ""
    """File to write: .csv, .parquet or .jsonl; empty: CSV on standard output."""
    follow: bool = False
    """Read rows of one series from standard input, CSV with a header or JSON lines, and answer each at once."""


def predict_(arguments: list[str]) -> None:
    """say what a run makes of new data"""
    options = parsed(Predict, arguments, "predict")
    if bool(options.data) == options.follow:
        raise UserError("give --data FILE, or rows on standard input with --follow")
    if options.out:
        check_format(Path(options.out))
    run = Run.open(find(options.run))
    if options.follow:
        answering = run.steps.row_by_row(run.model())
        follow(sys.stdin, answering, sys.stdout)
        return
    with bars() as watch:
        found = predict(run, options.data, watch)
    if options.out:
        write_predictions(Path(options.out), found)
        OUT.print(f"{len(found['time_s']):,} rows: {options.out}")
    else:
        sys.stdout.writelines(csv_lines(found))


def evaluate(arguments: list[str]) -> None:
    """score a run beside its baselines"""
    options = parsed(Evaluate, arguments, "evaluate")
    run = Run.open(find(options.run))
    data = asked(options.data, keep=options.keep, drop=options.drop, records=options.records)
    on = Path("on", "-".join(Path(path).name for path in data)) if options.data else Path()
    on = on / "-".join(["with", *(Path(other).name for other in options.together)]) if options.together else on
    spoiled = options.disturb.told()
    on = on / f"disturbed-{spoiled.replace(', ', '-').replace(' ', '-')}" if spoiled else on
    if trained := sorted({Path(path.partition("?")[0]).name for path in data if _same(path, run.data)}):
        say(f"{', '.join(trained)}: this run was trained on parts of it, so its score here says little of new data")
    folder = output_of(run, options.run, options.out, on)
    beside = [Run.open(find(other)) for other in options.beside]
    if options.together:
        run = together(run, [Run.open(find(other)) for other in options.together], on_own=not data)
    with bars() as watch:
        scores = report_run(
            run, data, beside, watch, folder, Path(options.video) if options.video else None, options.disturb
        )
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(score_table(scores))
    OUT.print(f"report: {folder / 'report.html'}")
    if options.video:
        OUT.print(f"film: {options.video}")


def _same(path: str, known: tuple[str, ...]) -> bool:
    """Whether a log is one of those that are known, whatever parts of it are asked for."""
    here = Path(path.partition("?")[0]).resolve()
    return any(here == Path(other.partition("?")[0]).resolve() for other in known)
