"""Task of glucose: a forecast that is judged as the clinic does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.records import last_known
from ...evaluation.page import Section, Table
from ...json_types import JsonObject
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from ...training.task import Scores
from ..series.rivals import Forecasted
from ..series.task import Forecasts, Truth, compared
from .clinical import ZONES, alarms, clarke, threshold_for

AHEAD_MIN = (30, 60)
"""Minutes ahead that are told of."""


@dataclass(frozen=True)
class GlucoseForecasts(Forecasts):
    """Forecasts of glucose in mg/dL: also zones of the Clarke error grid, and alarms before it is too low."""

    def more(
        self, run: Run, material: Material, truth: Truth, says: dict[str, Forecasted], watch: Watch = silent
    ) -> JsonObject:
        step_min = float(np.median(np.diff(_minutes(truth, 0))))
        steps = {minutes: round(minutes / step_min) for minutes in AHEAD_MIN}
        steps = {minutes: step for minutes, step in steps.items() if 1 <= step <= truth.recipe.horizon}
        rows = {
            name: {str(m): ahead_scores(truth, said, step) for m, step in steps.items()} for name, said in says.items()
        }
        found: JsonObject = {"minutes": rows, "alarms": {}}
        known = material.known
        if known and known["validation"]:
            before, earlier = compared(run, Material(run, known["validation"], "validation", known), (), watch)
            for name in says:
                if name in earlier:
                    threshold = threshold_for(lowest(before, earlier[name]))
                    found["alarms"][name] = vars(alarms(lowest(truth, says[name]), threshold))
        return found

    def more_sections(self, scores: Scores) -> list[Section]:
        names = ["this run", *(name for name in scores["minutes"] if name != "this run")]
        blocks = []
        for minutes in scores["minutes"]["this run"]:
            rows = [(name, scores["minutes"][name][minutes]) for name in names]
            cells = [[n, row["rmse"], row["coverage_80"], *(100 * row["zones"][z] for z in ZONES)] for n, row in rows]
            columns = ("", "RMSE (mg/dL)", "in the 80 % band", *(f"{zone} (%)" for zone in ZONES))
            blocks.append(Table(columns, cells, f"{minutes} minutes ahead.", [0]))
        told = [
            Section(
                "Error grid",
                "Zones of Clarke et al. 1987: A is within 20 %, B further off without harm, C would be treated "
                "needlessly, D is a danger not seen, E is taken for the opposite.",
                blocks,
            )
        ]
        if scores["alarms"]:
            keys = ("threshold", "recall", "false_a_day", "lows", "warned_min")
            table = Table(
                ("", "alarm below (mg/dL)", "lows foreseen", "false alarms a day", "lows", "minutes before"),
                [[name, *(row[key] for key in keys)] for name, row in scores["alarms"].items()],
            )
            told.append(
                Section(
                    "Alarms before a low",
                    "A low is a fall below 70 mg/dL after an hour above it. An alarm is raised where the lowest value "
                    "forecast is below a threshold, the highest with one false alarm a day on the validation part; it "
                    "is right where a low begins within the hour.",
                    [table],
                )
            )
        return told


def _minutes(truth: Truth, record: int) -> np.ndarray:
    return next(iter(truth.records[record].streams.values())).time_s / 60


def ahead_scores(truth: Truth, said: Forecasted, step: int) -> JsonObject:
    """Scores of one step ahead of the first target."""
    came, point, *bounds = (
        truth.scored(values)[:, 0, step - 1] for values in (truth.values, said.point, *zip(*said.bounds, strict=True))
    )
    zones = np.bincount(clarke(came, point), minlength=len(ZONES)) / len(came)
    return {
        "rmse": float(np.sqrt(np.mean(np.square(point - came)))),
        "coverage_80": float(np.mean((bounds[0] <= came) & (came <= bounds[1]))) if bounds else None,
        "zones": dict(zip(ZONES, zones.tolist(), strict=True)),
    }


def lowest(truth: Truth, said: Forecasted) -> Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Of each record the moments (minutes) that are scored, glucose then, and the lowest value forecast."""
    name, found = truth.recipe.target[0], []
    for place, (record, counts) in enumerate(zip(truth.records, truth.counts, strict=True)):
        now = last_known(np.asarray(record[name].values, float))
        found.append((_minutes(truth, place)[counts], now[counts], said.point[place][counts, 0].min(-1)))
    return found
