"""Outcome of a scoring: plain scores, and what a page tells of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from ..errors import NotFinite, UserError
from ..json_types import JsonObject
from ..training.material import Material
from ..training.run import Run
from ..training.task import Scores, TaskSpec, task_of
from .page import Fact, Section

Told = tuple[str, Sequence[Fact], Sequence[Section]]
"""Summary, figures and sections of a page."""


@dataclass(frozen=True)
class Scored:
    """Scores, and a function that tells of them only where a page is wanted."""

    scores: Scores
    tell: Callable[[], Told]

    def told(self) -> Told:
        return self.tell()


def contract(task: TaskSpec, scores: Scores, columns: Sequence[str]) -> Scores:
    """Scores with what every reader of them relies on. NotFinite where one of them is no number."""
    if not all(math.isfinite(scores[name]) for name in columns if scores.get(name) is not None):
        raise NotFinite("a score is NaN or infinite")
    return {
        "task": type(task).__name__,
        "measure": task.measure,
        "value": scores[task.measure],
        "higher_is_better": task.higher_is_better,
        "columns": list(columns),
        **scores,
    }


def scores_beside(task: TaskSpec, columns: Sequence[str], others: Sequence[Run], material: Material) -> JsonObject:
    """Rows of other runs on the same records, by name. UserError where one is scored by another measure."""
    rows = {}
    for other in others:
        found = task_beside(task, other).evaluate(other, material, ()).scores
        rows[run_name(other)] = {name: found.get(name) for name in columns}
    return rows


def task_beside(task: TaskSpec, other: Run) -> TaskSpec:
    """The task of another run. UserError where it is scored by another measure."""
    theirs = task_of(other.recipe)
    if theirs.measure != task.measure:
        raise UserError(
            f"{other.folder} is scored by {theirs.measure}, this run by {task.measure}: it can't stand beside"
        )
    return theirs


def run_name(run: Run) -> str:
    """How a run is called in a table."""
    return f"{run.name} ({run.folder.name})"


def best_first(rows: Mapping[str, float | None], higher_is_better: bool) -> list[str]:
    """Names by their score; those without one come last."""
    sign = -1 if higher_is_better else 1
    return sorted(rows, key=lambda name: (rows[name] is None, sign * (rows[name] or 0.0)))


def score_table(scores: Scores) -> Table:
    """A run's score and its baselines, best first."""
    columns = scores["columns"]
    note = {"caption": scores["note"], "caption_justify": "left"} if "note" in scores else {}
    table = Table("", *columns, box=None, **note)
    for name, row in ranked(scores):
        style = "bold" if name == "this run" else None
        table.add_row(name.replace("_", " "), *(_figure(row[c]) for c in columns), style=style)
    return table


def ranked(scores: Scores) -> list[tuple[str, Scores]]:
    """A run's scores and those of its baselines, each with its name, best first."""
    rows = {"this run": scores, **scores["baselines"]}
    values = {name: row[scores["measure"]] for name, row in rows.items()}
    return [(name, rows[name]) for name in best_first(values, scores["higher_is_better"])]


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:z.2f}" if abs(value) >= 10 else f"{value:z.4f}"
