"""Task of a forecast: every step ahead scored beside what needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...data.records import last_known
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
from ...training.recipe import Recipe
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from .kinds import Forecast
from .series import shifted


@dataclass(frozen=True)
class Forecasts(TaskSpec):
    """Forecasts, all steps ahead together; of several targets the errors are in deviations of each."""

    measure: ClassVar[str] = "rmse"
    heads = Estimate.heads
    columns: ClassVar[tuple[str, ...]] = ("rmse", "mae", "mase")

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if not isinstance(recipe, Forecast):
            raise UserError(f"task Forecasts scores recipes of forecasts, not a {type(recipe).__name__}")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        recipe = run.recipe
        assert isinstance(recipe, Forecast)
        known = material.known or {}
        own = forecasts(run, material, watch)
        truth = Truth(recipe, material, own.counts)
        says = {"this run": own.point}
        for other in beside:
            theirs = other.recipe
            if not isinstance(theirs, Forecast) or (theirs.target, theirs.horizon) != (recipe.target, recipe.horizon):
                raise UserError(f"{other.folder} forecasts something else: it can't stand beside")
            says[run_name(other)] = forecasts(other, material, watch).point
        season = find_season([np.asarray(r[recipe.target[0]].values) for r in known.get("train", material.test)])
        says["last value"] = truth.held(1)
        if season > 1:
            says["seasonal naive"] = truth.held(season)
        rows = {name: truth.errors(said, season) for name, said in says.items()}
        scores = rows.pop("this run") | {"baselines": rows, "season": season, "target": ", ".join(recipe.target)}
        scores |= {"data": material.name, "horizon": recipe.horizon, "steps": truth.num_steps}
        if own.crps:
            scores |= {"coverage_80": truth.coverage(own.bounds), "crps": truth.mean(own.crps)}
        scores = contract(self, scores, self.columns)
        return Scored(scores, lambda: self._told(scores, truth, says["this run"]))

    def _told(self, scores: Scores, truth: "Truth", said: Sequence[np.ndarray]) -> Told:
        best = min(scores["baselines"], key=lambda name: scores["baselines"][name]["rmse"])
        off = figure(scores["baselines"][best]["rmse"])
        summary = (
            f"Over {scores['steps']:,} steps of {scores['data']} and {scores['horizon']} steps ahead its forecast of "
            f"{scores['target']} is off by {figure(scores['rmse'])} (RMSE); {best} is off by {off}."
        )
        bands = []
        if "crps" in scores:
            covered = Fact("In the 80 % band", percent(scores["coverage_80"]), "of what came")
            bands = [covered, Fact("CRPS", figure(scores["crps"]), "lower is better")]
        facts = [
            Fact("RMSE", figure(scores["rmse"]), f"{best}: {off}"),
            Fact("Mean absolute error", figure(scores["mae"])),
            *bands,
            Fact("Season", f"{scores['season']} steps" if scores["season"] > 1 else "none found", "by autocorrelation"),
        ]
        names = ["this run", *scores["baselines"]]
        by = [scores["by_horizon"], *(row["by_horizon"] for row in scores["baselines"].values())]
        table = Table(("steps ahead", *names), [[h + 1, *(row[h] for row in by)] for h in range(scores["horizon"])])
        traces = [truth.trace(said, ahead) for ahead in dict.fromkeys((1, scores["horizon"]))]
        return (
            summary,
            facts,
            [
                Section("Steps ahead", "RMSE by how far ahead it looks.", [table]),
                Section(
                    "Over time",
                    "What was said so many steps before, drawn over what came.",
                    [prediction_over_truth([t], f"{t.name}.", "forecast", "truth", "") for t in traces],
                ),
            ],
        )


@dataclass(frozen=True)
class Forecasted:
    """What a run says at every step of the test records, in the units of its targets (step target ahead)."""

    point: list[np.ndarray]
    bounds: list[list[np.ndarray]]
    """Of each record those of INTERVAL; none where the head says no distribution."""
    crps: list[np.ndarray]
    """Of each record, where the head says a distribution."""
    counts: list[np.ndarray]
    """Which steps of each record are scored (step)."""


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


class Truth:
    """What came, at every step of the test records that is scored (step target ahead)."""

    def __init__(self, recipe: Forecast, material: Material, counts: Sequence[np.ndarray]):
        self.recipe, self.records, self.counts = recipe, material.test, counts
        known = material.known["train"] if material.known else material.test
        self.scales = [
            float(np.nanstd(np.concatenate([np.asarray(r[name].values) for r in known]))) or 1.0
            for name in recipe.target
        ]
        self.values = [
            np.stack([self._later(np.asarray(r[name].values, float)) for name in recipe.target], 1)
            for r in self.records
        ]

    def _later(self, values: np.ndarray) -> np.ndarray:
        return np.stack([shifted(values, ahead) for ahead in range(1, self.recipe.horizon + 1)], 1)

    @property
    def num_steps(self) -> int:
        return int(sum(counts.sum() for counts in self.counts))

    def held(self, season: int) -> list[np.ndarray]:
        """The last known value of so many steps before the one that is asked for, or of whole seasons before it."""
        found = []
        for record in self.records:
            each = []
            for name in self.recipe.target:
                values = last_known(np.asarray(record[name].values, float))
                back = [season * -(-ahead // season) - ahead for ahead in range(1, self.recipe.horizon + 1)]
                before = [
                    np.concatenate((np.full(min(b, len(values)), np.nan), values[: len(values) - b])) for b in back
                ]
                each.append(np.stack([np.where(np.isnan(b), values, b) for b in before], 1))
            found.append(np.stack(each, 1))
        return found

    def coverage(self, bounds: Sequence[Sequence[np.ndarray]]) -> float:
        """Share of what came that lies between two bounds."""
        pairs = zip(bounds, self.values, self.counts, strict=True)
        return float(np.concatenate([((low <= v) & (v <= high))[c].ravel() for (low, high), v, c in pairs]).mean())

    def mean(self, costs: Sequence[np.ndarray]) -> float:
        """Mean over all steps that are scored; of several targets in deviations of each."""
        found = np.concatenate([cost[counts] for cost, counts in zip(costs, self.counts, strict=True)])
        return float((found / (np.array(self.scales)[:, None] if len(self.scales) > 1 else 1.0)).mean())

    def errors(self, said: Sequence[np.ndarray], season: int) -> JsonObject:
        """RMSE and MAE over all steps ahead and targets, MASE (Hyndman & Koehler 2006), and RMSE by steps ahead."""
        left = np.concatenate([(s - v)[c] for s, v, c in zip(said, self.values, self.counts, strict=True)])
        if len(self.scales) > 1:
            left = left / np.array(self.scales)[:, None]
        naive = []
        for values in self.values:
            now = values[:, :, 0] / (np.array(self.scales) if len(self.scales) > 1 else 1.0)
            naive.append(np.abs(now[max(1, season) :] - now[: -max(1, season)]).ravel())
        step = float(np.nanmean(np.concatenate(naive))) if sum(map(len, naive)) else float("nan")
        mae = float(np.abs(left).mean())
        return {
            "rmse": float(np.sqrt(np.square(left).mean())),
            "mae": mae,
            "mase": mae / step if step > 0 else None,
            "by_horizon": np.sqrt(np.square(left).mean((0, 1))).tolist(),
        }

    def trace(self, said: Sequence[np.ndarray], ahead: int) -> Trace:
        """The longest record's first target, as said so many steps before."""
        longest = max(range(len(said)), key=lambda i: int(self.counts[i].sum()))
        counts = self.counts[longest]
        time_s = next(iter(self.records[longest].streams.values())).time_s[counts]
        name = f"{self.recipe.target[0]}, {ahead} steps ahead"
        forecast, truth = (values[longest][counts, 0, ahead - 1] for values in (said, self.values))
        return Trace(name, time_s - time_s[0], forecast, truth)
