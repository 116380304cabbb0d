"""Task of a forecast: every step ahead scored beside what needs no network."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...data.records import DATED, Record
from ...errors import UserError
from ...evaluation.outcome import Scored, Told, contract, run_name
from ...evaluation.page import Fact, Section, Table, figure
from ...evaluation.plots import Trace, prediction_over_truth
from ...evaluation.seasons import find_season
from ...evaluation.sections import percent
from ...evaluation.tasks import Estimate
from ...json_types import JsonObject
from ...nn.heads import tells_distribution
from ...nn.model import Model
from ...progress import Watch, silent
from ...training.material import Material
from ...training.recipe import INTERVAL, Recipe
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from .kinds import Forecast
from .rivals import NO_TREES, ROWS, Forecasted, came, rivals
from .series import shifted
from .summaries import has_scikit_learn


@dataclass(frozen=True)
class Forecasts(TaskSpec):
    """Forecasts, all steps ahead together; of several targets the errors are in deviations of each."""

    measure: ClassVar[str] = "rmse"
    heads = Estimate.heads
    columns: ClassVar[tuple[str, ...]] = ("rmse", "mae", "mase", "crps", "pinball", "coverage_80")

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if not isinstance(recipe, Forecast):
            raise UserError(f"task Forecasts scores recipes of forecasts, not a {type(recipe).__name__}")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        recipe = run.recipe
        assert isinstance(recipe, Forecast)
        truth, says = compared(run, material, beside, watch)
        rows = {name: truth.scores(said) for name, said in says.items()}
        scores = rows.pop("this run") | {"baselines": rows, "season": truth.season, "target": ", ".join(recipe.target)}
        scores |= {"data": material.name, "horizon": recipe.horizon, "steps": truth.num_steps}
        if not has_scikit_learn():
            scores["note"] = NO_TREES
        scores = contract(self, scores | self.more(run, material, truth, says, watch), self.columns)
        return Scored(scores, lambda: self._told(scores, truth, says["this run"]))

    def more(
        self, run: Run, material: Material, truth: "Truth", says: dict[str, Forecasted], watch: Watch = silent
    ) -> JsonObject:
        """Scores that an application adds."""
        return {}

    def more_sections(self, scores: Scores) -> list[Section]:
        """Sections of the page that an application adds."""
        return []

    def backtest(self, run: Run, folds: int, refit: bool, data: Sequence[str], watch: Watch = silent) -> Scored:
        from .backtest import backtest

        return backtest(self, run, folds, refit, data, watch)

    def traces(self, run: Run, material: Material, watch: Watch = silent) -> list[Trace]:
        own = forecasts(run, material, watch)
        truth = Truth(run.recipe, material.test, known_to(material), own.counts)
        return truth.traces(own)

    def _told(self, scores: Scores, truth: "Truth", said: Forecasted) -> Told:
        best = min(scores["baselines"], key=lambda name: scores["baselines"][name]["rmse"])
        off = figure(scores["baselines"][best]["rmse"])
        summary = (
            f"Over {scores['steps']:,} steps of {scores['data']} and {scores['horizon']} steps ahead its forecast of "
            f"{scores['target']} is off by {figure(scores['rmse'])} (RMSE); {best} is off by {off}."
        )
        bands = []
        if scores["crps"] is not None:
            covered = Fact("In the 80 % band", percent(scores["coverage_80"]), "of what came")
            bands = [covered, Fact("CRPS", figure(scores["crps"]), "lower is better")]
        facts = [
            Fact("RMSE", figure(scores["rmse"]), f"{best}: {off}"),
            Fact("Mean absolute error", figure(scores["mae"])),
            *bands,
            Fact("Season", f"{scores['season']} steps" if scores["season"] > 1 else "none found", "of one target"),
        ]
        names = ["this run", *scores["baselines"]]
        by = [scores["by_horizon"], *(row["by_horizon"] for row in scores["baselines"].values())]
        columns, rows = ["steps ahead", *names], [[h + 1, *(row[h] for row in by)] for h in range(scores["horizon"])]
        if scores["crps"] is not None:
            columns.insert(2, "in its 80 % band")
            for row, held in zip(rows, scores["coverage_by_horizon"], strict=True):
                row.insert(2, held)
        table = Table(columns, rows)
        about = {"last value", "drift", "seasonal naive"} & {*names}
        learned = f" Ridge regression and boosting learned from at most {ROWS:,} rows." if {*names} - about else ""
        return (
            summary,
            facts,
            [
                *self.more_sections(scores),
                Section("Steps ahead", f"RMSE by how far ahead it looks.{learned}", [table]),
                Section(
                    "Over time",
                    "What was said so many steps before, drawn over what came.",
                    [prediction_over_truth([t], f"{t.name}.", "forecast", "truth", "") for t in truth.traces(said)],
                ),
            ],
        )


def forecasts(run: Run, material: Material, watch: Watch = silent) -> Forecasted:
    """What a run says of the test records."""
    recipe, model = run.recipe, run.model()
    assert isinstance(recipe, Forecast)
    assert isinstance(model, Model)
    shown = recipe.examples(model, material.test, watch)
    said = Forecasted([], [], [], [])
    for record, example, raw in zip(material.test, shown, model.stream(shown), strict=True):
        point, bounds = recipe.forecasts(model, record, raw)
        said.point.append(point)
        said.bounds.append(bounds)
        said.counts.append(np.ones(len(example), bool) if example.weight is None else example.weight > 0)
        if tells_distribution(model.head):
            crps = model.head.crps(raw, torch.from_numpy(example.y))
            said.crps.append(crps.numpy().reshape(point.shape))
    return said


def known_to(material: Material) -> Sequence[Record]:
    """The records that a run learned from, or those that it is scored on where they are gone."""
    return material.known["train"] if material.known else material.test


def compared(
    run: Run, material: Material, beside: Sequence[Run] = (), watch: Watch = silent
) -> tuple["Truth", dict[str, Forecasted]]:
    """What came, and what is said of it: by `this run`, by others beside it and by their rivals."""
    recipe = run.recipe
    assert isinstance(recipe, Forecast)
    says = {"this run": forecasts(run, material, watch)}
    for other in beside:
        theirs = other.recipe
        if not isinstance(theirs, Forecast) or (theirs.target, theirs.horizon) != (recipe.target, recipe.horizon):
            raise UserError(f"{other.folder} forecasts something else: it can't stand beside")
        says[run_name(other)] = forecasts(other, material, watch)
    truth = Truth(recipe, material.test, known_to(material), says["this run"].counts)
    return truth, says | rivals(recipe, material.known, material.test, truth.season)


class Truth:
    """What came, at every step of the test records that is scored (step target ahead)."""

    def __init__(
        self, recipe: Recipe, records: Sequence[Record], known: Sequence[Record], counts: Sequence[np.ndarray]
    ):
        assert isinstance(recipe, Forecast)
        self.recipe, self.records, self.counts = recipe, records, counts
        first = [np.asarray(r[recipe.target[0]].values) for r in known]
        self.season = find_season(first)
        """Steps after which the first target repeats itself; 1: none was found."""
        self.scales = [
            float(np.nanstd(np.concatenate([np.asarray(r[name].values) for r in known]))) or 1.0
            for name in recipe.target
        ]
        self.values = [came(recipe, r) for r in records]

    def of(self, places: Sequence[int]) -> "Truth":
        """The same of some of the records."""
        part = copy(self)
        part.records, part.counts, part.values = (
            [each[i] for i in places] for each in (self.records, self.counts, self.values)
        )
        return part

    @property
    def num_steps(self) -> int:
        return int(sum(counts.sum() for counts in self.counts))

    @property
    def _unit(self) -> np.ndarray:
        """What an error is counted in (target 1): of several targets the deviation of each."""
        return np.array(self.scales if len(self.scales) > 1 else [1.0])[:, None]

    def scored(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """Values of all steps that are scored (step target ahead)."""
        return np.concatenate([v[c] for v, c in zip(values, self.counts, strict=True)])

    def scores(self, said: Forecasted) -> JsonObject:
        """RMSE and MAE over all steps ahead and targets, MASE (Hyndman & Koehler 2006), and RMSE by steps ahead; of a
        distribution also CRPS, the mean pinball loss of its bounds and its middle, and how much lies between them."""
        values = self.scored(self.values)
        left = (self.scored(said.point) - values) / self._unit
        season = max(1, self.season)
        naive = []
        for each in self.values:
            now = each[:, :, 0] / self._unit[:, 0]
            naive.append(np.abs(now[season:] - now[:-season]).ravel())
        together = np.concatenate(naive)
        step = float(np.nanmean(together)) if not np.isnan(together).all() else 0.0
        mae = float(np.abs(left).mean())
        found: JsonObject = {
            "rmse": float(np.sqrt(np.square(left).mean())),
            "mae": mae,
            "mase": mae / step if step > 0 else None,
            "crps": None,
            "pinball": None,
            "coverage_80": None,
            "by_horizon": np.sqrt(np.square(left).mean((0, 1))).tolist(),
        }
        if said.crps:
            low, high = (self.scored([bounds[i] for bounds in said.bounds]) for i in (0, 1))
            errors = np.stack([(values - bound) / self._unit for bound in (low, values + left * self._unit, high)], -1)
            levels = np.array((INTERVAL[0], 0.5, INTERVAL[1]))
            found |= {
                "crps": float((self.scored(said.crps) / self._unit).mean()),
                "pinball": float(np.maximum(levels * errors, (levels - 1) * errors).mean()),
                "coverage_80": float(((low <= values) & (values <= high)).mean()),
                "coverage_by_horizon": ((low <= values) & (values <= high)).mean((0, 1)).tolist(),
            }
        return found

    def traces(self, said: Forecasted, record: int | None = None) -> list[Trace]:
        """What was said one step before and all steps before, of the longest record or another."""
        return [self.trace(said, ahead, record) for ahead in dict.fromkeys((1, self.recipe.horizon))]

    def trace(self, said: "Forecasted", ahead: int, record: int | None = None) -> Trace:
        """A record's (the longest's) first target as said so many steps before, at the moments that it is said of."""
        if record is None:
            record = max(range(len(self.records)), key=lambda i: int(self.counts[i].sum()))
        counts = self.counts[record]
        about = self.records[record]
        clock = next(iter(about.streams.values())).time_s
        time_s = shifted(clock.astype(float), ahead)[counts]
        dated = about.about.get(DATED, False)
        name = f"{self.recipe.target[0]}, {ahead} step{'s' if ahead > 1 else ''} ahead"
        forecast, truth, *band = (
            values[counts, 0, ahead - 1]
            for values in (said.point[record], self.values[record], *(said.bounds[record] if said.bounds else ()))
        )
        time_s = time_s if dated else time_s - time_s[0]
        return Trace(name, time_s, forecast, truth, band=(band[0], band[1]) if band else None, dated=dated)
