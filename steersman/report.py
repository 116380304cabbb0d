"""One HTML file a run: what its scores, its log and its drives say, in words, figures and plots."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .page import (
    DASH,
    MINUS,
    SPACE,
    Block,
    Coloured,
    Confusion,
    Fact,
    Pictures,
    Report,
    Section,
    Settings,
    Table,
    figure,
)
from .plots import (
    Drive,
    Trace,
    error_beside_baselines,
    error_by_curvature,
    lag_curve,
    loss_curves,
    prediction_over_truth,
    scores_per_track,
    track_map,
)
from .reading import Reading


def regression_report(
    title: str,
    scores: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    traces: Sequence[Trace] = (),
    others_by_curvature: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    pictures: Pictures | None = None,
) -> Report:
    """Of evaluate.regression_scores, the training log's rows and the run's config.

    `traces` carry the records' names; the longest is shown whole, and the worst moments from close by.
    """
    sections = regression_sections(scores, traces, others_by_curvature or {}, pictures)
    return Report(
        title,
        regression_summary(scores),
        regression_facts(scores),
        [*sections, *run_sections(log, config)],
    )


def driving_report(
    title: str,
    drivers: Mapping[str, Mapping[str, Any]],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
    picture: np.ndarray | None = None,
) -> Report:
    """Of evaluate.driving_scores by driver, the model first; `published` rows: driver, mean, sd, source."""
    sections = driving_sections(drivers, drives, traces, published)
    return Report(
        title,
        driving_summary(drivers),
        driving_facts(next(iter(drivers.values()))),
        [*sections, *run_sections(log, config)],
        picture,
    )


def classification_report(
    title: str,
    scores: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
) -> Report:
    """Of evaluate.classification_scores, the training log's rows and the run's config."""
    majority = scores["baselines"]["majority"]
    facts = [
        Fact(
            "Accuracy",
            percent(scores["accuracy"]),
            f"always the commonest class: {percent(majority['accuracy'])}",
        ),
        Fact("Nats a label", figure(scores["nats"]), f"training frequencies: {figure(majority['nats'])}"),
        Fact("Items", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]
    summary = (
        f"Of {scores['items']:,} items it never trained on the model names {percent(scores['accuracy'])} "
        f"rightly; always answering with the commonest class would get {percent(majority['accuracy'])}."
    )
    sections = classification_sections(scores, pictures)
    return Report(title, summary, facts, [*sections, *run_sections(log, config)])


def text_report(
    title: str,
    scores: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    reading: Reading | None = None,
) -> Report:
    """Of reading.text_scores, the training log's rows, the run's config and what the model did while it read."""
    pairs = scores["baselines"]["pairs"]
    facts = [
        Fact("Nats a symbol", f"{scores['nats']:.3f}", f"pairs of symbols: {pairs['nats']:.3f}"),
        Fact("Bits a symbol", f"{scores['bits']:.3f}", f"xz: {scores['baselines']['xz']['bits']:.3f}"),
        Fact("Foretold rightly", percent(scores["accuracy"]), f"pairs of symbols: {percent(pairs['accuracy'])}"),
        Fact("Symbols", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]
    summary = (
        f"Over {scores['items']:,} symbols that it never trained on, read in one pass with its state carried, "
        f"the model needs {scores['bits']:.3f} bits a symbol; the compressor xz, told the training text, needs "
        f"{scores['baselines']['xz']['bits']:.3f}."
    )
    if scores["unknown"]:
        summary += f" {scores['unknown']:,} of the symbols are none that it knows, and count as one."
    rows = {"this run": scores, **scores["baselines"]}
    order = sorted(rows, key=lambda name: rows[name]["nats"])
    columns = ("", "nats", "bits", "foretold rightly")
    table = [[name, *(rows[name][k] for k in ("nats", "bits", "accuracy"))] for name in order]
    beside = Section(
        "Beside the baselines",
        "Frequencies of symbols, and of pairs of them, in the training text, and a compressor that was told that text.",
        [Table(columns, table, strong=[order.index("this run")])],
    )
    sections = [beside, *(reading_sections(reading) if reading else ())]
    return Report(title, summary, facts, [*sections, *run_sections(log, config)])


def reading_sections(reading: Reading) -> list[Section]:
    """The passage by surprise, and by the cells that track something."""
    sections = [
        Section(
            "What surprised it",
            "The beginning of the text it was tested on. The deeper a character is coloured the less it was expected.",
            [Coloured(reading.characters, list(reading.nats / 6), "Nats a character; the deepest: 6 and more.")],
        )
    ]
    if reading.cells:
        shown = [
            Coloured(
                reading.characters,
                list(cell.values),
                f"Unit {cell.unit}: {cell.tracks}, correlation {cell.correlation:.2f}.".replace("-", MINUS),
            )
            for cell in reading.cells[:3]
        ]
        rows = [[cell.tracks, cell.unit, cell.correlation] for cell in reading.cells]
        text = (
            "Outputs of the core that go along with something a reader keeps in mind. Each unit was chosen on one half "
            "of a stretch of text; its correlation is that on the other half."
        )
        sections.append(Section("Cells", text, [Table(("tracks", "unit", "correlation"), rows), *shown]))
    return sections


def regression_summary(scores: Mapping[str, Any]) -> str:
    """The outcome in two sentences."""
    rivals = {n: row["rmse"] for n, row in scores["baselines"].items() if not n.startswith("persistence")}
    best = min(rivals, key=lambda name: rivals[name])
    lag, what = scores["best_lag_s"], scores.get("target", "prediction")
    timing = "in step with the truth" if lag == 0 else f"{abs(lag):.2g}{SPACE}s {'late' if lag > 0 else 'early'}"
    return (
        f"Over {scores['steps']:,} steps of {scores.get('data', 'records kept apart')} its {what} is off by "
        f"{figure(scores['rmse'])} (RMSE); the best of its rivals, {best}, is off by {figure(rivals[best])}. "
        f"The prediction comes {timing}."
    )


def regression_facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures at the top."""
    lag, zero = scores["best_lag_s"], scores["baselines"]["zero"]["rmse"]
    side = "in step" if lag == 0 else "the model reacts late" if lag > 0 else "the model anticipates"
    return [
        Fact("RMSE", figure(scores["rmse"]), f"always zero: {figure(zero)}"),
        Fact("Mean absolute error", figure(scores["mae"])),
        Fact("Variance explained", percent(scores["r2"]) if scores["r2"] is not None else DASH, "R²"),
        Fact("Best lag", f"{lag:.2f} s".replace("-", MINUS), side),
    ]


def driving_summary(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    """The outcome in two sentences; the first driver is the model."""
    (name, scores), *others = drivers.items()
    text = (
        f"On {scores['episodes']} tracks {name} scores {scores['mean']:.1f} on average "
        f"and finishes {scores['laps']} of them. Its worst track gives {scores['min']:.1f}."
    )
    if others:
        text += " Beside it: " + ", ".join(f"{n} {s['mean']:.1f}" for n, s in others) + "."
    return text


def driving_facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures at the top."""
    spread = f"± {scores['sd']:.1f} over tracks" if scores["sd"] is not None else ""
    latency = scores["latency_ms"]
    facts = [
        Fact("Mean score", f"{scores['mean']:.1f}", spread),
        Fact("Laps finished", f"{scores['laps']} of {scores['episodes']}".replace(" ", SPACE)),
        Fact("Worst track", f"{scores['min']:.1f}"),
    ]
    if latency:
        slowest = f"99 of 100 within {latency['p99']:.2g}{SPACE}ms"
        facts.append(Fact("Picture to action", f"{latency['median']:.2g} ms", slowest))
    return facts


def regression_sections(
    scores: Mapping[str, Any],
    traces: Sequence[Trace] = (),
    others_by_curvature: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    pictures: Pictures | None = None,
) -> list[Section]:
    """Open loop: baselines, prediction over time, error by size, lag, records."""
    curvature = {"model": scores["by_curvature"], **(others_by_curvature or {})}
    sections = [
        Section(
            "Beside the baselines",
            "A prediction is worth something only if it beats what needs no model. Persistence is told the "
            "true value of a moment ago, which the model is not; at short range it is hard to beat.",
            [error_beside_baselines(scores, "model")],
        )
    ]
    if traces:
        sections.append(_time_section(scores, traces))
    moments = _worst_section(scores, traces, pictures)
    return [
        *sections,
        Section(
            "Error by size",
            "Most of any drive is nearly straight, so one average hides the bends. Here the steps are sorted "
            "by the size of the true value: of steering, by how sharp the bend is.",
            [error_by_curvature(curvature)],
        ),
        Section(
            "Timing",
            "A camera sees the steering only once the car has turned, and a careless model learns to follow "
            "rather than to lead.",
            [lag_curve(scores["lag_curve"], scores["best_lag_s"])],
        ),
        moments,
        _records_section(scores),
    ]


def driving_sections(
    drivers: Mapping[str, Mapping[str, Any]],
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
) -> list[Section]:
    """Closed loop: the drivers, each track, where the car left the road, and how it steered."""
    tracks = next(iter(drivers.values()))["seeds"]
    same = {name: s["scores"] for name, s in drivers.items() if s["seeds"] == tracks}
    sections = [
        Section(
            "The drivers",
            "The model chooses every action from the picture alone and lives with what follows. The score is "
            "the world's own; a lap is finished when the whole road has been visited.",
            [_drivers_table(drivers, published)],
        ),
        Section(
            "Track by track",
            "A good mean can hide a driver that fails now and then. Look for columns where the model's dot "
            "lies far below the others.",
            [scores_per_track(tracks, same)],
        ),
    ]
    if drives:
        sections.append(Section("Where it drove", _off_road_text(drivers), [track_map(drives)]))
    if traces:
        text = "The model's choice beside the expert's choice for the same moment, while the model drives."
        shown = prediction_over_truth(
            traces, "Where the lines part, the expert would act otherwise.", "model", "expert"
        )
        sections.append(Section("How it steered", text, [shown]))
    return sections


def classification_sections(scores: Mapping[str, Any], pictures: Pictures | None = None) -> list[Section]:
    """Classes and what is taken for what."""
    columns = ("class", "items", "precision", "recall", "F1")
    rows = [[row[k] for k in ("name", "items", "precision", "recall", "f1")] for row in scores["classes"]]
    matrix = Confusion(scores["confusion"], scores["names"], "Items by true and by predicted class")
    return [
        Section(
            "What is taken for what",
            "Each row is a true class, each column a prediction. The diagonal is right; a strongly coloured "
            "cell elsewhere is a confusion worth looking at.",
            [matrix] if pictures is None else [matrix, pictures],
        ),
        Section(
            "Class by class",
            "Precision: of the items called so, how many are. Recall: of those that are, how many it finds.",
            [Table(columns, rows)],
        ),
    ]


def run_sections(log: Sequence[Mapping[str, float]], config: Mapping[str, Any] | None) -> list[Section]:
    """How it was trained and with what settings."""
    sections = []
    if log:
        text = "The training loss is the error on what the model learns from, validation on records kept apart."
        sections.append(Section("Training", text, [loss_curves(log)]))
    if config:
        sections.append(Section("Settings", "Everything needed to make this run again.", [Settings(config)]))
    return sections


def percent(share: float) -> str:
    """A share as a person reads it."""
    digits = 1 if abs(share) > 0.99 or abs(share) < 0.1 else 0
    return f"{100 * share:.{digits}f}{SPACE}%".replace("-", MINUS)


def _time_section(scores: Mapping[str, Any], traces: Sequence[Trace]) -> Section:
    longest = max(traces, key=lambda trace: len(trace.time_s))
    return Section(
        "Over time",
        "What the model says, drawn over what was so. Good: the thin line lies on the thick "
        "one. A line that is too flat plays safe; one that comes late follows.",
        [prediction_over_truth([longest], "The longest record, whole.", "model", "truth")],
    )


def _worst_section(scores: Mapping[str, Any], traces: Sequence[Trace], pictures: Pictures | None) -> Section:
    by_name = {trace.name: trace for trace in traces}
    near = [by_name[row["record"]].window(row["time_s"], 12) for row in scores["worst"][:3] if row["record"] in by_name]
    blocks: list[Block] = []
    if near:
        blocks.append(prediction_over_truth(near, "Twelve seconds around the three worst.", "model", "driver"))
    if pictures is not None:
        blocks.append(pictures)
    keys = ("record", "time_s", "prediction", "truth", "error")
    rows = [[row[key] for key in keys] for row in scores["worst"]]
    blocks.append(Table(("record", "time (s)", "prediction", "truth", "error"), rows))
    text = "The largest errors, at least a second apart: the place to start looking for what the model misses."
    return Section("Worst moments", text, blocks)


def _records_section(scores: Mapping[str, Any]) -> Section:
    keys = ("name", "steps", "rmse", "mae", "best_lag_s")
    rows = [[row[key] for key in keys] for row in sorted(scores["records"], key=lambda row: -row["rmse"])]
    text = "Every record kept for the test, worst first. Some records are simply harder than others."
    return Section("Records", text, [Table(("record", "steps", "RMSE", "MAE", "best lag (s)"), rows)])


def _drivers_table(drivers: Mapping[str, Mapping[str, Any]], published: Sequence[Sequence[Any]]) -> Table:
    rows = [
        [name, s["mean"], s["sd"], s["min"], f"{s['laps']} of {s['episodes']}", "measured here"]
        for name, s in drivers.items()
    ]
    rows += [[name, mean, sd, None, None, source] for name, mean, sd, source in published]
    return Table(("driver", "mean", "sd", "worst", "laps", "source"), rows, strong=[0])


def _off_road_text(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    count = len(next(iter(drivers.values()))["off_road"])
    if count == 0:
        return "The car never left the road."
    times = "once" if count == 1 else f"{count} times"
    return f"The car left the road {times} in all, over every track that was driven."
