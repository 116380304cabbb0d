"""Scores and page of a run."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..config import to_json
from ..progress import Watch, silent
from ..training.checkpoints import write_json
from ..training.material import material
from ..training.run import Run
from ..training.task import Scores, task_of
from ..training.trainer import read_log
from .page import Report, Section, Table, write_report
from .sections import run_sections


def report_run(
    run: Run,
    data: Sequence[str] = (),
    beside: Sequence[Run] = (),
    watch: Watch = silent,
    folder: Path | None = None,
) -> Scores:
    """Scores a run, and writes metrics.json and report.html into its folder or another.

    `beside` are other runs, such as that of the single-step model, that stand among the baselines.
    """
    task = task_of(run.recipe)
    folder = folder or run.folder
    folder.mkdir(parents=True, exist_ok=True)
    given = material(run, data, watch)
    outcome = task.evaluate(run, given, beside, watch)
    write_json(folder / "metrics.json", outcome.scores)
    summary, facts, sections = outcome.told()
    title = f"{run.name}: {run.folder.name}" + (f" on {given.name}" if data else "")
    training = run_sections(read_log(run.folder), to_json(run.recipe))
    report = Report(title, summary, list(facts), [*sections, identity(run), *training])
    write_report(folder / "report.html", report)
    return outcome.scores


def identity(run: Run) -> Section:
    """What a run is: recipe, data, the command that makes it again, version, size, date and duration."""
    seconds = sum(row.get("seconds", 0.0) for row in read_log(run.folder))
    num_parameters = sum(p.numel() for p in run.model().parameters())
    rows: list[list[Any]] = [
        ["recipe", run.name],
        ["data", ", ".join(Path(path).name for path in run.data) or f"its own: {type(run.recipe.source).__name__}"],
        ["made again by", run.command or "a program of your own (steersman.fit)"],
        ["version", run.version],
        ["parameters", f"{num_parameters:,}"],
        ["begun", run.created or "not known: written by an older version"],
        ["trained for", str(timedelta(seconds=round(seconds))) + " (h:mm:ss)"],
    ]
    if run.extra:
        rows.insert(2, ["also trained on", ", ".join(Path(path).name for path in run.extra)])
    return Section("This run", "What it is, and how it was made.", [Table(("", ""), rows)])
