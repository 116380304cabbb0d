"""From a run to its scores and its page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from ..config import to_json
from ..data.records import Record
from ..progress import Watch, silent
from ..recipes.text.reading import read_along
from ..recipes.text.report import text_report
from ..recipes.translate.recipe import Translation
from ..recipes.translate.report import report_translation
from ..training.checkpoints import write_json
from ..training.run import Run
from ..training.trainer import read_log
from .metrics import Scores
from .page import Pictures, write_report
from .plots import Trace
from .sections import classification_report, regression_report
from .sequences import bleu_table
from .tasks import _alone, score


def report_run(
    run: Run,
    data: Sequence[str] = (),
    beside: Sequence[Run] = (),
    watch: Watch = silent,
    folder: Path | None = None,
) -> Scores:
    """Scores a run, and writes metrics.json and report.html into its folder or another."""
    if isinstance(run.recipe, Translation):
        _alone(beside)
        return report_translation(run, data, watch, folder)
    folder = folder or run.folder
    folder.mkdir(parents=True, exist_ok=True)
    scores, records, shown, predicted = score(run, data, beside, watch)
    log, settings = read_log(run.folder), to_json(run.recipe)
    title = f"{run.name}: {run.folder.name}" + (f" on {scores['data']}" if data else "")
    if "bits" in scores:
        reading = read_along(run.model(), shown[0], torch.from_numpy(predicted[0]))
        told = text_report(title, scores, log, settings, reading)
    elif "confusion" in scores:
        told = classification_report(title, scores, log, settings)
    else:
        # A record with one answer has nothing to draw over time.
        lines = [(e, p) for e, p in zip(shown, predicted, strict=True) if e.y.ndim == 2]
        traces = [Trace(e.name, e.time_s - e.time_s[0], p, e.y[:, 0]) for e, p in lines]
        pictures = _worst_pictures(scores, records, run.recipe.inputs)
        told = regression_report(title, scores, log, settings, traces, scores["others"], pictures)
    write_json(folder / "metrics.json", scores)
    write_report(folder / "report.html", told)
    return scores


def _worst_pictures(scores: Scores, records: Sequence[Record], inputs: str) -> Pictures | None:
    streams = {record.name: record[inputs] for record in records}
    if len(next(iter(streams.values())).values.shape) != 4:
        return None
    # By time, not by step: steps whose picture can't be decoded are left out of what was seen.
    moments = [(streams[w["record"]], w["time_s"]) for w in scores["worst"]]
    seen = [np.asarray(s.values[int(np.argmin(np.abs(s.time_s - s.time_s[0] - t)))]) for s, t in moments]
    said = [
        f"{w['record']}, {w['time_s']:.1f} s: said {w['prediction']:.2f}, was {w['truth']:.2f}" for w in scores["worst"]
    ]
    return Pictures(seen, said)


def score_table(scores: Mapping[str, Any]) -> Table:
    """A run's score and its baselines, best first."""
    if "bleu" in scores:
        return bleu_table(scores)
    columns = (
        ("rmse", "mae")
        if "rmse" in scores
        else ("nats", "bits", "accuracy")
        if "bits" in scores
        else ("accuracy", "nats")
    )
    table = Table("", *columns, box=None)
    rows = {"this run": scores, **scores["baselines"]}
    # The first column is what counts; of accuracy more is better.
    best_first = sorted(rows, key=lambda name: rows[name][columns[0]] * (-1 if columns[0] == "accuracy" else 1))
    for name in best_first:
        style = "bold" if name == "this run" else None
        table.add_row(name.replace("_", " "), *(_shown(rows[name][c]) for c in columns), style=style)
    return table


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
