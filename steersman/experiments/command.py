"""Commands of this room."""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ..console import ERR, OUT, Plain, named, parsed, say
from ..errors import Interrupted, UserError
from ..files import check_output
from ..nn.bench import bench_cores, core_table
from ..progress import bars
from ..recipes import RECIPES
from .compare import Comparison, chosen, comparison_table
from .quickstart import Quickstart


@dataclass(frozen=True)
class Compare:
    """Trains recipes on one split and prints their scores side by side; resumes where it was stopped."""

    recipes: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """Names of recipes, or patterns such as 'steer-*'."""
    data: tuple[str, ...] = ()
    """Data that all of them learn from; none: the recipes' own source."""
    seeds: int = 3
    """Trainings of each recipe, with the seeds from 0 on."""
    steps: int = 0
    """Steps of each training; 0: as each recipe has it."""
    minutes: float = 0.0
    """CPU minutes of each training, instead of steps."""
    folder: str = ""
    """Folder of the runs and the table; empty: below `runs`, named after the data."""
    json: bool = False
    """Print one JSON object and nothing else."""

    BOUNDS = {"seeds": (1, 10_000), "steps": (0, inf), "minutes": (0, inf)}


@dataclass(frozen=True)
class BenchCores:
    """Measures the recurrent cores against the peers that are installed: ratios of CPU time on one thread."""

    only: str = ""
    """Rows with this text in what they measure, their shape or their peer; empty: all."""
    quick: bool = False
    """Repeat less: a first look, with more spread."""
    json: bool = False
    """Print one JSON list of rows and nothing else."""


def compare(arguments: list[str]) -> None:
    """train recipes side by side"""
    options = parsed(Compare, arguments, "compare")
    if options.steps and options.minutes:
        raise UserError("--steps and --minutes both say how long to train; give one of the two")
    data = tuple(str(Path(path).resolve()) for path in options.data)
    folder = Path(
        options.folder or Path("runs") / "-".join(["compare", *(Path(path).name for path in data or options.recipes)])
    )
    check_output(folder, folder=True, otherwise="name another folder with --folder")
    with bars() as watch:
        recipes, records = chosen(options.recipes, RECIPES, data, watch)
    comparison = Comparison(recipes, data, folder, options.seeds, options.steps, options.minutes, records)
    try:
        with bars() as watch:
            found = comparison.go(say, watch)
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(["steersman", "compare", *arguments])
        raise Interrupted(f"{str(stop) or 'stopped'}; resume with: {again}") from None
    if options.json:
        print(json.dumps(found))
    elif found["recipes"]:
        OUT.print(comparison_table(found))
        OUT.print(f"table: {folder / 'compare.md'}")
    if comparison.failed:
        name, why = next(iter(comparison.failed.items()))
        raise UserError(f"{len(comparison.failed)} trainings could not be made, the first: {name}: {why}")


def quickstart(arguments: list[str]) -> None:
    """record, train and drive: the whole way at once"""
    options = parsed(Quickstart, arguments, "quickstart")
    try:
        with bars() as watch:
            table, places = options.go(say, watch)
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(["steersman", "quickstart", *arguments])
        raise Interrupted(f"{str(stop) or 'stopped'}; resume with: {again}") from None
    OUT.print(table)
    for what, where in places.items():
        OUT.print(f"{what}: {where}")


def bench(arguments: list[str]) -> None:
    """measure the cores against their peers"""
    name, rest = named("bench", "BENCHMARK", arguments, BENCHMARKS)
    if name is not None:
        BENCHMARKS[name](rest)


def _bench_cores(arguments: list[str]) -> None:
    options = parsed(BenchCores, arguments, "bench cores")
    with bars() as watch:
        rows, missing = bench_cores(options.only, options.quick, watch)
    if options.json:
        print(json.dumps([row.json() for row in rows]))
    else:
        # A file is as wide as the table.
        (OUT if OUT.is_terminal else Plain(soft_wrap=False, width=120)).print(core_table(rows))
    if missing:
        lacking = ", ".join(missing)
        (ERR if options.json else OUT).print(
            f'left out, as not installed: {lacking}; run: pip install "steersman[bench]"'
        )


BENCHMARKS: dict[str, Callable[[list[str]], None]] = {"cores": _bench_cores}
