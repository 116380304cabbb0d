"""Scores and page of a run."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..config import to_json
from ..data.camera import CameraFaults, disturbed
from ..progress import Watch, silent
from ..training.checkpoints import write_json
from ..training.material import Material, material
from ..training.run import Run
from ..training.task import Outcome, Scores, task_of
from ..training.trainer import read_log
from .page import Report, Section, Table, write_report
from .sections import run_sections


def report_run(
    run: Run,
    data: Sequence[str] = (),
    beside: Sequence[Run] = (),
    watch: Watch = silent,
    folder: Path | None = None,
    video: Path | None = None,
    faults: CameraFaults | None = None,
) -> Scores:
    """Scores a run, and writes metrics.json and report.html into its folder or another, and a film where one is asked.

    `beside` are other runs, such as that of the single-step model, that stand among the baselines. With `faults` the
    pictures are those of a camera that has them. UserError where there are no pictures.
    """
    given, outcome = evaluate_run(run, data, beside, watch, faults)
    title = f"{run.name}: {run.folder.name}" + (f" on {given.name}" if data else "")
    write_outcome(run, outcome, title, folder or run.folder)
    if video:
        task_of(run.recipe).film(run, given, video, watch)
    return outcome.scores


def evaluate_run(
    run: Run,
    data: Sequence[str] = (),
    beside: Sequence[Run] = (),
    watch: Watch = silent,
    faults: CameraFaults | None = None,
) -> tuple[Material, Outcome]:
    """What a run is scored on, and what it scored."""
    task = task_of(run.recipe)
    given = material(run, data, watch)
    if faults is not None and (what := faults.told()):
        test = disturbed(given.test, run.steps.inputs, faults)
        given = replace(given, test=test, name=f"{given.name}, the camera disturbed ({what})")
    return given, task.evaluate(run, given, beside, watch)


def write_outcome(run: Run, outcome: Outcome, title: str, folder: Path) -> None:
    """Writes metrics.json and report.html into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", outcome.scores)
    summary, facts, _ = outcome.told()
    write_report(folder / "report.html", Report(title, summary, list(facts), told_sections(run, outcome)))


def told_sections(run: Run, outcome: Outcome) -> list[Section]:
    """What a page tells of a run: its scores, what it is, and how it was trained."""
    training = run_sections(read_log(run.folder), to_json(run.recipe))
    return [*outcome.told()[2], identity(run), *training]


def _unknown(run: Run, otherwise: str) -> str:
    return "not known: written by an older version" if run.version == "0.1.0" else otherwise


def identity(run: Run) -> Section:
    """What a run is: recipe, data, the command that makes it again, version, size, date and duration."""
    seconds = sum(row.get("seconds", 0.0) for row in read_log(run.folder))
    num_parameters = sum(p.numel() for p in run.model().parameters())
    rows: list[list[Any]] = [
        ["recipe", run.name],
        ["data", ", ".join(Path(path).name for path in run.data) or f"its own: {type(run.recipe.source).__name__}"],
        ["made again by", run.command or _unknown(run, "a program of your own (steersman.fit)")],
        ["version", run.version],
        ["parameters", f"{num_parameters:,}"],
        ["begun", run.created or _unknown(run, "not known")],
        ["trained for", str(timedelta(seconds=round(seconds))) + " (h:mm:ss)"],
    ]
    if run.extra:
        rows.insert(2, ["also trained on", ", ".join(Path(path).name for path in run.extra)])
    return Section("This run", "What it is, and how it was made.", [Table(("", ""), rows)])
