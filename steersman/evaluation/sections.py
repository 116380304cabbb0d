"""Sections of a run's page: what its scores and its log say, in words, figures and plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..json_types import JsonMapping
from .page import (
    DASH,
    MINUS,
    SPACE,
    Block,
    Confusion,
    Fact,
    Pictures,
    Section,
    Settings,
    Table,
    figure,
)
from .plots import (
    Trace,
    error_beside_baselines,
    error_by_size,
    lag_curve,
    loss_curves,
    prediction_over_truth,
    ranking_plot,
)


@dataclass(frozen=True)
class Words:
    """What the page of an estimate says in its application's own words."""

    truth: str = "truth"
    """Who or what the true value comes from."""
    up: str = ""
    """What upwards means in a plot over time."""
    zero: str = "Zero always says 0"
    sizes: str = "One average hides where the errors are. Here the steps are sorted by the size of the true value."
    bins: str = "Small values lie to the left, large ones to the right."
    timing: str = "A careless model learns to follow rather than to foretell: it repeats what was, a little late."


def regression_summary(scores: JsonMapping) -> str:
    """The outcome in two sentences."""
    rivals = {n: row["rmse"] for n, row in scores["baselines"].items() if not n.startswith("persistence")}
    best = min(rivals, key=lambda name: rivals[name])
    lag, what = scores["best_lag_s"], scores.get("target", "prediction")
    timing = "in step with the truth" if lag == 0 else f"{abs(lag):.2g}{SPACE}s {'late' if lag > 0 else 'early'}"
    return (
        f"Over {scores['steps']:,} steps of {scores.get('data', 'records kept apart')} its {what} is off by "
        f"{figure(scores['rmse'])} (RMSE); the best of its baselines, {best}, is off by {figure(rivals[best])}. "
    ) + ("" if scores.get("once") else f"The prediction comes {timing}.")


def regression_facts(scores: JsonMapping) -> list[Fact]:
    """The figures at the top."""
    lag, zero = scores["best_lag_s"], scores["baselines"]["zero"]["rmse"]
    side = "in step" if lag == 0 else "the model reacts late" if lag > 0 else "the model anticipates"
    timing = [] if scores.get("once") else [Fact("Best lag", f"{lag:.2f} s".replace("-", MINUS), side)]
    return [
        Fact("RMSE", figure(scores["rmse"]), f"always zero: {figure(zero)}"),
        Fact("Mean absolute error", figure(scores["mae"])),
        Fact("Variance explained", percent(scores["r2"]) if scores["r2"] is not None else DASH, "R²"),
        *timing,
    ]


NEAR_S = 12.0
"""Seconds that are drawn around a worst moment."""
PERSISTENCE = (
    "Persistence is told the true value of a moment ago, which the model is not; at short range it is hard to beat."
)


def regression_sections(
    scores: JsonMapping,
    traces: Sequence[Trace] = (),
    others_by_size: Mapping[str, Sequence[JsonMapping]] | None = None,
    pictures: Pictures | None = None,
    words: Words = Words(),
) -> list[Section]:
    """Open loop: baselines, prediction over time, error by size, lag, records."""
    sizes = {"model": scores["by_size"], **(others_by_size or {})}
    sections = [
        Section(
            "Beside the baselines",
            "A prediction is worth something only if it beats what needs no model."
            + (" " + PERSISTENCE if "persistence" in scores["baselines"] else ""),
            [error_beside_baselines(scores, "model", words.zero)],
        )
    ]
    if traces:
        sections.append(_time_section(scores, traces, words))
    moments = _worst_section(scores, traces, pictures, words)
    timing = Section("Timing", words.timing, [lag_curve(scores["lag_curve"], scores["best_lag_s"])])
    return [
        *sections,
        Section(
            "Error by size",
            words.sizes,
            [error_by_size(sizes, words.bins)],
        ),
        *([] if scores.get("once") else [timing]),
        moments,
        _records_section(scores),
    ]


def classification_summary(scores: JsonMapping) -> str:
    """The outcome in a sentence."""
    majority = scores["baselines"]["majority"]
    return (
        f"Of {scores['items']:,} items it never trained on the model names {percent(scores['accuracy'])} "
        f"rightly; always answering with the commonest class would get {percent(majority['accuracy'])}."
    )


def classification_facts(scores: JsonMapping) -> list[Fact]:
    """The figures at the top."""
    majority = scores["baselines"]["majority"]
    return [
        Fact(
            "Accuracy",
            percent(scores["accuracy"]),
            f"always the commonest class: {percent(majority['accuracy'])}",
        ),
        Fact("Nats a label", figure(scores["nats"]), f"training frequencies: {figure(majority['nats'])}"),
        Fact("Items", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]


def classification_sections(scores: JsonMapping, pictures: Pictures | None = None) -> list[Section]:
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


def ranking_section(scores: JsonMapping) -> Section:
    """How well one of two classes is found."""
    positive = scores["positive"]
    share = next(row["items"] for row in scores["classes"] if row["name"] == positive) / scores["items"]
    figures = ("auroc", "average_precision", "min_se_ppv", "brier")
    rows = [["this run", *(scores[name] for name in figures)]]
    rows += [[name, *(row.get(column) for column in figures)] for name, row in scores["baselines"].items()]
    rows.sort(key=lambda row: -(row[1] or 0))
    return Section(
        f"Finding {positive}",
        f"{percent(share)} of the items are {positive}. AUROC: how often one of them is given a higher chance than one "
        "of the others; guessing has a half. Average precision: of those called, how many are right, on average over "
        "all that are found. Min(Se, +P): the smaller of what is found and what is right of those called, where the "
        "two are best (on these very items). Brier: mean squared error of the chance, the lower the better.",
        [
            Table(("", "AUROC", "average precision", "min(Se, +P)", "Brier"), rows),
            ranking_plot(scores["curves"], share),
        ],
    )


def run_sections(log: Sequence[Mapping[str, float]], config: JsonMapping | None) -> list[Section]:
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


def _time_section(scores: JsonMapping, traces: Sequence[Trace], words: Words) -> Section:
    longest = max(traces, key=lambda trace: len(trace.time_s))
    return Section(
        "Over time",
        "What the model says, drawn over what was so. Good: the thin line lies on the thick "
        "one. A line that is too flat plays safe; one that comes late follows.",
        [prediction_over_truth([longest], "The longest record, whole.", "model", "truth", words.up)],
    )


def _worst_section(scores: JsonMapping, traces: Sequence[Trace], pictures: Pictures | None, words: Words) -> Section:
    by_name = {trace.name: trace for trace in traces}
    near = _around_worst([row for row in scores["worst"] if row["record"] in by_name], by_name)
    blocks: list[Block] = []
    if near:
        said = f"{NEAR_S:.0f} seconds around each, marked; what lies closer together shares a picture."
        blocks.append(prediction_over_truth(near, said, "model", words.truth, words.up))
    if pictures is not None:
        blocks.append(pictures)
    keys = ("record", "time_s", "prediction", "truth", "error")
    rows = [[row[key] for key in keys] for row in scores["worst"]]
    blocks.append(Table(("record", "time (s)", "prediction", "truth", "error"), rows))
    text = "The largest errors, at least a second apart: the place to start looking for what the model misses."
    return Section("Worst moments", text, blocks)


def _around_worst(rows: Sequence[JsonMapping], traces: Mapping[str, Trace]) -> list[Trace]:
    """The worst three stretches of which none shows what another does, with all worst moments marked."""
    found: list[tuple[str, float]] = []
    for row in rows:
        if all(name != row["record"] or abs(row["time_s"] - time_s) >= NEAR_S for name, time_s in found):
            found.append((row["record"], row["time_s"]))
    marks = {name: [row["time_s"] for row in rows if row["record"] == name] for name, _ in found}
    return [traces[name].window(time_s, NEAR_S, marks[name]) for name, time_s in found[:3]]


def _records_section(scores: JsonMapping) -> Section:
    keys = ("name", "steps", "rmse", "mae", "best_lag_s")
    rows = [[row[key] for key in keys] for row in sorted(scores["records"], key=lambda row: -row["rmse"])]
    text = "Every record kept for the test, worst first. Some records are simply harder than others."
    return Section("Records", text, [Table(("record", "steps", "RMSE", "MAE", "best lag (s)"), rows)])
