"""Commands of this room."""

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table
from rich.text import Text

from ..console import OUT, counted, parsed, say
from ..errors import Interrupted, UserError
from ..files import check_output
from ..json_types import JsonMapping
from ..progress import bars
from ..sources import are_tables, selection
from ..sources.selection import asked


@dataclass(frozen=True)
class Inspect:
    """Says what a log, or a table, is before anything learns from it: clocks, labels, columns, what is wrong."""

    log: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="LOG...")]
    """Recordings, or tables, or folders of either; patterns in quotes; @FILE, a list of logs."""
    keep: str = ""
    """Seconds of each record to look at, such as 10:120,200:300; empty: all. Of one log alone: LOG?keep=10:120."""
    drop: str = ""
    """Seconds to leave out, in the same form."""
    records: str = ""
    """Records to look at, by their numbers from 0 or their names: 0,3:5 or 'tub/*'."""
    target: str = ""
    """Column of a table that is to be learned: the others are looked at for what gives it away."""
    series: str = ""
    """Column of a table that says which series a row belongs to; empty: found where times repeat."""
    time: str = ""
    """Column of a table that tells the time; empty: found by name and kind."""
    page: str = ""
    """Also write a page to this file (html): pictures, the label over time, the lag; of a table its columns."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Convert:
    """Writes a log of any format as a LeRobotDataset v3; one that was cut short is resumed."""

    log: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LOG")]
    """A recording, or a folder of recordings; or a pattern in quotes, or @FILE, a list of logs."""
    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder to write; it must not exist, and appears when it is whole."""
    keep: str = ""
    """Seconds of each record to write, such as 10:120,200:300; empty: all. Of one log alone: LOG?keep=10:120."""
    drop: str = ""
    """Seconds to leave out, in the same form."""
    records: str = ""
    """Records to write, by their numbers from 0 or their names: 0,3:5 or 'tub/*'."""
    task: str = "drive"
    """Task of the recording in words, which LeRobot asks for."""


@dataclass(frozen=True)
class Challenge:
    """Scores a submission to Udacity's Challenge 2: RMSE of all, public and private frames, beside baselines."""

    truth: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TRUTH.csv")]
    """Columns frame_id, steering_angle, public (1 or 0)."""
    submission: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUBMISSION.csv")]
    """Columns frame_id, steering_angle (radians at the wheel, positive = left), every frame once."""
    json: bool = False
    """Print one JSON object and nothing else."""


def inspect_(arguments: list[str]) -> None:
    """say what a log holds, and what is wrong with it"""
    options = parsed(Inspect, arguments, "inspect")
    from .inspect import inspect_log
    from .page import inspection_table, write_inspection

    if options.page:
        check_output(Path(options.page))
    if are_tables(options.log):
        _inspect_tables(options)
        return
    for name in ("target", "series", "time"):
        if getattr(options, name):
            raise UserError(f"--{name} names a column of a table, and {options.log[0]} is none; leave it out")
    with bars() as watch:
        logs = asked(options.log, keep=options.keep, drop=options.drop, records=options.records)
        inspection = inspect_log(logs, watch)
    if options.page:
        write_inspection(Path(options.page), inspection)
    _print(inspection_table, inspection.found, options)


def _inspect_tables(options: Inspect) -> None:
    from .table_page import column_tables, write_table_page
    from .tables import inspect_tables

    for name in selection.NAMES:
        if getattr(options, name):
            raise UserError(f"--{name} chooses from recordings, and {options.log[0]} is a table; leave it out")
    with bars() as watch:
        inspection = inspect_tables(options.log, options.target, options.series, options.time, watch)
    if options.page:
        write_table_page(Path(options.page), inspection)
    _print(column_tables, inspection.found, options)


def _print(tables: Callable[[JsonMapping], Sequence[Table]], found: JsonMapping, options: Inspect) -> None:
    if options.json:
        print(json.dumps(found))
        return
    for table in tables(found):
        OUT.print(table, soft_wrap=False)
    for warning in found["warnings"]:
        OUT.print(Text("warning:", "yellow"), warning)
    for question in found.get("questions", ()):
        OUT.print(Text("question:", "yellow"), question)
    if options.page:
        OUT.print(f"page: {options.page}")


def convert_(arguments: list[str]) -> None:
    """write a log as a LeRobot dataset"""
    options = parsed(Convert, arguments, "convert")
    from .convert import convert

    try:
        with bars() as watch:
            (log,) = asked([options.log], keep=options.keep, drop=options.drop, records=options.records)
            done = convert(log, options.out, options.task, watch)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; resume with: steersman convert {shlex.join(arguments)}") from None
    for name, why in done.dropped.items():
        say(f"stream {name} was left out: {why}")
    if done.uneven:
        say(
            f"of another rate than {done.fps} Hz: {counted(done.uneven, 'record')}, whose clock is kept as label.time_s"
        )
    what = f"{counted(done.episodes, 'episode')}, {counted(done.frames, 'frame')}"
    OUT.print(f"{what} at {done.fps} Hz in {options.out}")


def challenge(arguments: list[str]) -> None:
    """score a submission to Udacity's Challenge 2"""
    options = parsed(Challenge, arguments, "challenge")
    from .challenge import score_submission, submission_table

    scores = score_submission(Path(options.truth), Path(options.submission))
    if options.json:
        print(json.dumps(scores))
        return
    OUT.print(submission_table(Path(options.submission).name, scores))
