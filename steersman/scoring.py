"""From a run to its scores, its report and its film."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from .checkpoints import write_json
from .config import to_json
from .data import Example
from .drive import drive
from .errors import UserError
from .evaluate import Scores, by_curvature, classification_scores, driving_scores, regression_scores
from .heads import ClassificationHead, NextSymbolHead, RegressionHead
from .model import Model
from .page import Pictures, Report, write_report
from .plots import Drive, Trace
from .progress import Watch, silent
from .reading import judged, labels_of, read_along, text_scores
from .records import Record
from .report import classification_report, driving_report, regression_report, text_report
from .ridge import ridge
from .runs import Run, read_records
from .train import read_log
from .translation import Translation, bleu_table
from .translation_report import report_translation

Film = tuple[Trace, np.ndarray | None]
STILL_STEP = 250
"""The step of a film that is also kept as a picture."""


def score(
    run: Run, data: Sequence[str] = (), beside: Sequence[Run] = (), watch: Watch = silent
) -> tuple[Scores, list[Record], list[Example], list[np.ndarray]]:
    """Scores on the run's own test records or on all of other data; the records, and what was seen and said.

    `beside` are runs of the same target, such as the single-frame model, that stand among the baselines.
    """
    model = run.model()
    records = read_records(run.recipe, data, watch) if data else run.records(watch)["test"]
    shown = run.recipe.examples(model, records, watch)
    kept = "records kept apart from training" if not data else ", ".join(Path(path).name for path in data)
    if isinstance(model.head, ClassificationHead):
        _alone(beside)
        counts, names = model.head.counts.numpy(), model.head.names()
        if not isinstance(model.head, NextSymbolHead):
            last = slice(-1, None) if model.flavour == "many-to-one" else slice(None)
            labels = model.head.labels(np.concatenate([e.y.reshape(-1) for e in shown]))
            logits = np.concatenate([part[last].numpy() for part in model.stream(shown)])
            return classification_scores(logits, labels, counts, names) | {"data": kept}, records, shown, [logits]
        confusion, nats, passage = judged(model, shown)
        train = run.recipe.examples(model, run.records(watch)["train"], watch)
        labels, known = ([labels_of(model.head, e.y) for e in part] for part in (shown, train))
        scores = text_scores(confusion, nats, labels, counts, model.head.names(), known)
        return scores | {"data": kept}, records, shown, [passage.numpy()]
    predicted = _scored(model.predict(shown))
    others: dict[str, Sequence[np.ndarray]] = {
        _name(other): _beside(other, model.head.targets[0], records) for other in beside
    }
    if (line := _ridge(run, model, shown, bool(data), watch)) is not None:
        others["ridge"] = line
    rate_hz = 1 / float(np.median(np.concatenate([np.diff(e.time_s) for e in shown])))
    assert isinstance(model.head, RegressionHead)
    mean, names = float(model.head.mean[0]), [e.name for e in shown]
    truths = _scored([np.atleast_2d(e.y) for e in shown])
    scores = regression_scores(predicted, truths, mean, rate_hz, others, names)
    curves = {name: by_curvature(np.concatenate(o), np.concatenate(truths)) for name, o in others.items()}
    return scores | {"target": model.head.targets[0], "data": kept, "others": curves}, records, shown, predicted


def _alone(beside: Sequence[Run]) -> None:
    if beside:
        raise UserError("--beside is for runs that predict a number; classes and texts stand beside baselines alone")


def _scored(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first target: the one that is scored."""
    return [v[:, 0] for v in values]


def _beside(run: Run, target: str, records: Sequence[Record]) -> list[np.ndarray]:
    model = run.model()
    if model.head.targets[0] != target:
        raise UserError(f"{run.folder} predicts {model.head.targets[0]}, not {target}: it can't stand beside")
    return _scored(model.predict(run.recipe.examples(model, records)))


def _ridge(run: Run, model: Model, shown: Sequence[Example], foreign: bool, watch: Watch) -> list[np.ndarray] | None:
    """Ridge regression on what the run was trained on; None where an answer is for a whole record, or that is gone."""
    # A simulator's drives are not recorded anew just to score other data.
    if model.flavour != "many-to-many" or (foreign and not run.data) or not all(Path(p).exists() for p in run.data):
        return None
    parts = run.records(watch)
    train, validation = (run.recipe.examples(model, parts[part], watch) for part in ("train", "validation"))
    return ridge(train, validation, shown)


def _name(run: Run) -> str:
    return f"{run.name} ({run.folder.name})"


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


def report_drives(
    title: str,
    episodes: Mapping[str, Sequence[dict[str, Any]]],
    filmed: Film | None = None,
    published: Sequence[Sequence[Any]] = (),
) -> Report:
    """The page on closed-loop drives, by driver; the first one's tracks are shown, and what was filmed of it."""
    driven = [
        Drive(f"track {e['seed']}", np.array(e["track_m"]), np.array(e["path_m"]), e["off_road"])
        for e in next(iter(episodes.values()))
    ]
    scores = {name: driving_scores(list(part)) for name, part in episodes.items()}
    traces, picture = ([filmed[0]], filmed[1]) if filmed else ([], None)
    return driving_report(title, scores, drives=driven, traces=traces, published=published, picture=picture)


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


def film(config: Any, name: str, seed: int, path: Path, watch: Watch = silent) -> Film:
    """One track to an mp4: the picture, the wheel the driver chose and beside it the expert's choice.

    Gives the two wheels over time, and a frame of the film.
    """
    from .video import DriveVideo

    rows: list[tuple[float, float, float, bool]] = []
    still: list[np.ndarray] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with DriveVideo(path) as video:

        def frame(world, picture, prediction, info, total: float) -> None:
            truth = world.expert().act(world)
            video.add(world.render(), picture, prediction, truth, info | {"score": total})
            rows.append((info["time_s"], prediction["steer"], truth["steer"], info["blind"]))
            if world.steps == STILL_STEP:
                still.append(video.frame())
            watch("filming", world.steps, config.max_steps)

        drive(config, name, seed, frame)
    time_s, prediction, truth, blind = np.array(rows).T
    picture = still[0] if still else None
    return Trace(f"track {seed}", time_s, prediction, truth, blind.astype(bool)), picture


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


def drive_table(drivers: Mapping[str, Scores], published: Sequence[tuple] = ()) -> Table:
    """Closed-loop scores, a row a driver."""
    table = Table("driver", "mean", "sd", "min", "laps", "ms a step", box=None)
    for name, s in drivers.items():
        sd = "" if s["sd"] is None else f"{s['sd']:.1f}"
        laps = f"{s['laps']} of {s['episodes']}"
        table.add_row(name, f"{s['mean']:.1f}", sd, f"{s['min']:.1f}", laps, f"{s['latency_ms']['median']:.2f}")
    for name, mean, sd, _ in published:
        table.add_row(f"{name} (published)", f"{mean:.1f}", "" if sd is None else f"{sd:.0f}", style="dim")
    return table
