"""A forecast walked forward over time, fold by fold, beside what needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.table import Table as Printed

from ...data.records import Record
from ...data.splits import unsaid
from ...errors import UserError
from ...evaluation.outcome import Scored, Told, best_first, contract
from ...evaluation.page import DASH, Fact, Section, Table, figure
from ...evaluation.plots import prediction_over_truth
from ...evaluation.sections import percent
from ...json_types import JsonObject
from ...progress import Watch, silent
from ...training.fit import fit
from ...training.material import Material
from ...training.recipe import Parts, read_records
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from .kinds import Forecast
from .rivals import NO_TREES, ROWS, Forecasted
from .summaries import has_scikit_learn
from .task import Truth, compared

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120, 2.110, 2.101, 2.093)  # fmt: skip
"""The 97.5 % quantile of Student's t with 1, 2, ... degrees of freedom."""
MOST_FOLDS = len(T_975) + 1
WORST = 10
"""Series that are told of."""
COLUMNS = ("rmse", "mae", "mase", "crps", "pinball", "coverage_80")


@dataclass(frozen=True)
class Fold:
    """A stretch of time in which forecasts are made: what came and what was said, and the series of each record."""

    truth: Truth
    says: dict[str, Forecasted]
    series: list[str]


def backtest(
    task: TaskSpec, run: Run, folds: int = 5, refit: bool = False, data: Sequence[str] = (), watch: Watch = silent
) -> Scored:
    """Scores of a run in each of so many folds, or with `refit` of its recipe trained anew before each of them.

    The folds divide the steps that the recipe's split holds out at the end of each series, by the step at which a
    forecast is made. What learns sees nothing of its fold: the run and its rivals what the run was trained on, with
    `refit` all that lies before the fold. UserError where there are too few steps, or where the run was not divided by
    time.
    """
    recipe = run.recipe
    assert isinstance(recipe, Forecast)
    if not 2 <= folds <= MOST_FOLDS:
        raise UserError(f"{folds} folds: give 2 to {MOST_FOLDS}")
    if not refit and recipe.split.by != "time":
        raise UserError(f"{run.folder} holds out whole series, not what comes later; walk forward with --refit")
    records = read_records(recipe, data or run.data, watch, look=True)
    each = folds_of(recipe, records, folds)
    walked = _trained_anew(run, each, watch) if refit else _as_it_is(run, each, watch)
    rows = {name: [fold.truth.scores(fold.says[name]) for fold in walked] for name in walked[0].says}
    scores = _summed(rows)
    best = best_first({name: row["rmse"] for name, row in scores.items() if name != "this run"}, False)[0]
    apart = [b["rmse"] - own["rmse"] for own, b in zip(rows["this run"], rows[best], strict=True)]
    found = scores.pop("this run") | {
        "baselines": scores,
        "folds": folds,
        "refit": refit,
        "steps": sum(fold.truth.num_steps for fold in walked),
        "horizon": recipe.horizon,
        "season": walked[0].truth.season,
        "target": ", ".join(recipe.target),
        "best": best,
        "ahead_of_best": {"mean": float(np.mean(apart)), "interval": interval(apart)},
        "series": _by_series(walked, best),
    }
    if not has_scikit_learn():
        found["note"] = NO_TREES
    found = contract(task, found, COLUMNS)
    return Scored(found, lambda: _told(found, walked))


def folds_of(recipe: Forecast, records: Sequence[Record], folds: int) -> list[Parts]:
    """Training, validation and test part of each fold."""
    split, found = recipe.split, []
    for fold in range(folds):
        parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
        for record in records:
            steps = len(record)
            begin, end = round(steps * (1 - split.test)), steps - recipe.horizon
            start, stop = (begin + round((end - begin) * at / folds) for at in (fold, fold + 1))
            middle = round(start * (1 - split.validation / (1 - split.test)))
            if stop <= start or middle < 2 + recipe.horizon:
                continue
            parts["train"].append(recipe.part(record, "train", 0, middle))
            if start - middle > recipe.horizon:
                parts["validation"].append(recipe.part(record, "validation", middle, start))
            parts["test"].append(recipe.part(record, f"fold {fold + 1}", start, stop, recipe.horizon))
        if not parts["test"]:
            raise UserError(
                f"what is held out is too short for {folds} folds of forecasts {recipe.horizon} steps ahead; lower "
                "--folds or raise --split.test"
            )
        found.append(parts)
    return found


def _as_it_is(run: Run, each: Sequence[Parts], watch: Watch) -> list[Fold]:
    """All folds said by the run, and by rivals that learned from what it learned from."""
    test = [record for parts in each for record in parts["test"]]
    truth, says = compared(run, Material(run, test, "folds", run.records(watch)), (), watch)
    walked, start = [], 0
    for parts in each:
        places = range(start, start + len(parts["test"]))
        start = places.stop
        walked.append(_fold(truth.of(places), {name: said.of(places) for name, said in says.items()}))
    return walked


def _trained_anew(run: Run, each: Sequence[Parts], watch: Watch) -> list[Fold]:
    walked = []
    for number, parts in enumerate(each):
        watch("folds", number, len(each))
        with TemporaryDirectory() as folder:
            fresh = fit(run.name, run.recipe, Path(folder), say=unsaid, watch=watch, parts=parts)
            walked.append(_fold(*compared(fresh, Material(fresh, parts["test"], "fold", parts), (), watch)))
    watch("folds", len(each), len(each))
    return walked


def _fold(truth: Truth, says: dict[str, Forecasted]) -> Fold:
    return Fold(truth, says, [record.name.rpartition("[")[0] for record in truth.records])


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean over folds, by Student's t, as if folds were independent."""
    return T_975[len(values) - 2] * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None


def _summed(rows: dict[str, list[JsonObject]]) -> dict[str, JsonObject]:
    """Each score's mean over the folds, and `intervals`; None where a fold lacks it."""
    found = {}
    for name, each in rows.items():
        by = {column: [row[column] for row in each] for column in COLUMNS}
        whole = {column: values for column, values in by.items() if None not in values}
        found[name] = {column: float(np.mean(whole[column])) if column in whole else None for column in COLUMNS}
        found[name]["intervals"] = {column: interval(values) for column, values in whole.items()}
        found[name]["by_fold"] = by["rmse"]
        found[name]["by_horizon"] = np.sqrt(np.mean(np.square([row["by_horizon"] for row in each]), 0)).tolist()
    return found


def _by_series(walked: Sequence[Fold], best: str) -> list[JsonObject]:
    """RMSE of each series over all folds, the worst first, beside the best rival's."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    for fold in walked:
        for place, name in enumerate(fold.series):
            truth = fold.truth.of([place])
            if truth.num_steps:
                own, theirs = (truth.scores(fold.says[who].of([place]))["rmse"] for who in ("this run", best))
                found.setdefault(name, []).append((own, theirs, truth.num_steps))
    rows = []
    for name, each in found.items():
        own, theirs, steps = np.array(each).T
        rows.append({"name": name, "steps": int(steps.sum())})
        rows[-1] |= {
            key: float(np.sqrt(np.average(np.square(values), weights=steps)))
            for key, values in (("rmse", own), ("best_rmse", theirs))
        }
    return sorted(rows, key=lambda row: -row["rmse"])


def _ordered(scores: Scores) -> dict[str, JsonObject]:
    rows = {"this run": scores, **scores["baselines"]}
    return {name: rows[name] for name in best_first({n: row["rmse"] for n, row in rows.items()}, False)}


def _cells(row: JsonObject) -> list[str]:
    """Means with half their intervals."""
    cells = []
    for column in COLUMNS:
        around = row["intervals"].get(column)
        mean = row[column]
        cells.append(DASH if mean is None else f"{figure(mean)} ± {figure(around)}")
    return cells


def verdict(scores: Scores) -> str:
    """Which is better, in a sentence, and how sure that is."""
    apart, best = scores["ahead_of_best"], scores["best"]
    off = f"{figure(abs(apart['mean']))} ± {figure(apart['interval'])}"
    if abs(apart["mean"]) <= apart["interval"]:
        return f"It and {best} can't be told apart: its RMSE is {off} {'lower' if apart['mean'] > 0 else 'higher'}."
    whose = f"It is better than {best}" if apart["mean"] > 0 else f"{best[0].upper()}{best[1:]} is better"
    return f"{whose}, by {off} RMSE."


def score_table(scores: Scores) -> Printed:
    """Every forecast's mean over the folds with its interval, best first."""
    words = f"{verdict(scores)} ± : 95 % interval of the mean over {scores['folds']} folds, by Student's t."
    note = f"{words} {scores.get('note', '')}".strip()
    table = Printed("", *COLUMNS, box=None, caption=note, caption_justify="left")
    for name, row in _ordered(scores).items():
        table.add_row(name, *_cells(row), style="bold" if name == "this run" else None)
    return table


def _told(scores: Scores, walked: Sequence[Fold]) -> Told:
    how = "trained anew before each of" if scores["refit"] else "as it is, over"
    summary = (
        f"{verdict(scores)} Walked forward {how} {scores['folds']} folds: {scores['steps']:,} steps at which "
        f"{scores['target']} was forecast up to {scores['horizon']} steps ahead."
    )
    best = scores["baselines"][scores["best"]]
    facts = [Fact("RMSE", figure(scores["rmse"]), f"{scores['best']}: {figure(best['rmse'])}")]
    if scores["coverage_80"] is not None:
        facts.append(Fact("In the 80 % band", percent(scores["coverage_80"]), "of what came"))
        facts.append(Fact("CRPS", figure(scores["crps"]), f"{scores['best']}: {figure(best['crps'])}"))
    rows = _ordered(scores)
    strong = [list(rows).index("this run")]
    table = Table(("", *COLUMNS), [[name, *_cells(row)] for name, row in rows.items()], strong=strong)
    by_fold = Table(
        ("", *(f"fold {n + 1}" for n in range(scores["folds"]))),
        [[name, *row["by_fold"]] for name, row in rows.items()],
        "RMSE in each fold.",
        strong,
    )
    ahead = Table(
        ("steps ahead", *rows),
        [[h + 1, *(row["by_horizon"][h] for row in rows.values())] for h in range(scores["horizon"])],
    )
    series = [[row[key] for key in ("name", "steps", "rmse", "best_rmse")] for row in scores["series"][:WORST]]
    worst = scores["series"][0]["name"]
    drawn = [
        fold.truth.traces(fold.says["this run"], fold.series.index(worst))[-1]
        for fold in (walked[0], walked[-1])
        if worst in fold.series
    ]
    sections = [
        Section(
            "Beside its rivals",
            "Means over the folds, ± half of their 95 % interval by Student's t. Drift goes on along the line from the "
            "first value it is shown to the last; ridge regression and boosting (scikit-learn's) see lags and learned "
            f"from at most {ROWS:,} rows. The bands of all rivals are the quantiles of their errors on the validation "
            "part.",
            [table, by_fold],
        ),
        Section("Steps ahead", "RMSE by how far ahead is looked.", [ahead]),
        Section(
            "Worst series",
            "RMSE of each series over all folds, the worst first.",
            [Table(("series", "steps", "this run", scores["best"]), series)],
        ),
        Section(
            "Over time",
            f"{worst}, in the first fold and the last: what was said so many steps before, drawn over what came.",
            [prediction_over_truth([trace], f"{trace.name}.", "forecast") for trace in drawn],
        ),
    ]
    return summary, facts, sections
