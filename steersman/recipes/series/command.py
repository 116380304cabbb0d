"""The command `backtest`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...console import OUT, parsed, values
from ...evaluation.report import write_outcome
from ...progress import bars
from ...sources.selection import asked
from ...training.run import Run, find, new_folder, output_of
from ...training.task import task_of
from .. import RECIPES
from ..command import train
from .backtest import score_table


@dataclass(frozen=True)
class Backtest:
    """Scores a forecast fold by fold over time, beside persistence, drift, season, ridge regression and boosting.

    Of a recipe a run is trained first, with the options of `steersman train RECIPE`."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_RECIPE")]
    """The folder of a run, or a recipe: a name, or path.py:function."""
    data: tuple[str, ...] = ()
    """Tables to walk through instead of the run's own."""
    folds: int = 5
    """Folds into which the steps that the split holds out are divided."""
    refit: bool = False
    """Train the recipe anew before each fold, on all that lies before it."""
    out: str = ""
    """Folder of metrics.json and report.html; empty: `backtest` in the run's own."""
    json: bool = False
    """Print one JSON object and nothing else."""

    BOUNDS = {"folds": (2, 20)}


OWN = {"--folds": True, "--refit": False, "--out": True, "--json": False}
"""Options that are not a training's, and whether a value follows."""


def backtest(arguments: list[str]) -> None:
    """walk a forecast forward over time, beside its rivals"""
    name = next(iter(arguments), "")
    if name in RECIPES or ".py:" in name:
        own, rest = _parted(arguments[1:])
        folder = next(iter(values(rest, "--run")), "") or str(new_folder(name))
        if not {"-h", "--help"} & {*rest}:
            parsed(Backtest, [folder, *own], "backtest")  # What is wrong with them is said before the training.
        train([name, *rest, *([] if "--run" in rest else ["--run", folder])])
        arguments = [folder, *own]
    options = parsed(Backtest, arguments, "backtest")
    run = Run.open(find(options.run))
    folder = output_of(run, options.run, options.out, Path("backtest"))
    with bars() as watch:
        data = asked(options.data) if options.data else ()
        outcome = task_of(run.recipe).backtest(run, options.folds, options.refit, data, watch)
        write_outcome(run, outcome, f"{run.name}: {run.folder.name}, walked forward", folder)
    if options.json:
        print(json.dumps(outcome.scores))
        return
    OUT.print(score_table(outcome.scores))
    OUT.print(f"report: {folder / 'report.html'}")


def _parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Options of `backtest`, and the others."""
    own: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        option = word.partition("=")[0]
        if option not in OWN:
            rest.append(word)
            continue
        own.append(word)
        if OWN[option] and "=" not in word:
            own += [value for value in [next(words, None)] if value is not None]
    return own, rest
