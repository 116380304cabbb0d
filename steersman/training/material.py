"""Material: records that a run is scored on, and those that it knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.records import Record
from ..progress import Watch, silent
from .recipe import Parts, read_records
from .run import Run


@dataclass(frozen=True)
class Material:
    """What a run is scored on: its own test records, or all of other data."""

    run: Run
    test: list[Record]
    name: str
    """What the test records are, in words."""
    known: Parts | None
    """The run's own records; None where they are gone, or would have to be made anew just to score other data."""


def material(run: Run, data: Sequence[str] = (), watch: Watch = silent) -> Material:
    """The material of a run: its own records, or other data beside what is still there of them."""
    if not data:
        return Material(run, run.records(watch)["test"], "records kept apart from training", run.records(watch))
    found = read_records(run.recipe, data, watch)
    there = all(Path(path.partition("?")[0]).exists() or Path(path).exists() for path in run.data)
    again = run.parts is not None or bool(run.data) or not run.recipe.source.costly
    return Material(
        run, found, ", ".join(Path(path).name for path in data), run.records(watch) if there and again else None
    )
