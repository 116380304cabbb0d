"""Task of a direction: how often it is right, and what is left of that after costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ...data.examples import WEIGHT
from ...data.records import Record
from ...errors import UserError
from ...evaluation.outcome import Scored, Told, contract, run_name
from ...evaluation.page import Fact, Section, Table, figure
from ...json_types import JsonObject
from ...nn.heads import Classification, tells_classes
from ...progress import Watch, silent
from ...training.material import Material
from ...training.recipe import Recipe
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from .kinds import Market, lagged, next_return
from .trading import COST, YEAR, after_costs, block_bootstrap


@dataclass(frozen=True)
class Directions(TaskSpec):
    """The direction of the next day: nats, the share that is right, and a year's return of following it after costs."""

    measure: ClassVar[str] = "nats"
    heads = (Classification,)
    columns: ClassVar[tuple[str, ...]] = ("nats", "accuracy", "return_a_year")

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if not isinstance(recipe, Market):
            raise UserError(f"task Directions scores recipes of prices, not a {type(recipe).__name__}")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        recipe = run.recipe
        assert isinstance(recipe, Market)
        says = {"this run": chances(run, material.test, watch)}
        says |= {run_name(other): chances(other, material.test, watch) for other in beside}
        says |= rivals(recipe, material.known["train"] if material.known else (), material.test)
        days = [Days(record) for record in material.test]
        rows = {name: scored(days, said) for name, said in says.items()}
        scores: JsonObject = rows.pop("this run") | {"baselines": rows, "data": material.name}
        scores = contract(self, scores | {"days": int(sum(d.counts.sum() for d in days))}, self.columns)
        return Scored(scores, lambda: _told(scores))


class Days:
    """Days of a record that are scored: what each returned until the next."""

    def __init__(self, record: Record):
        later = next_return(record)
        weight = np.asarray(record[WEIGHT].values) if WEIGHT in record.streams else np.ones(len(later))
        self.counts = (weight > 0) & ~np.isnan(later)
        self.returns = later[self.counts]
        self.time_s = next(iter(record.streams.values())).time_s[self.counts]


def chances(run: Run, records: Sequence[Record], watch: Watch = silent) -> list[np.ndarray]:
    """The chance that a run gives to up, of each record (step)."""
    model = run.model()
    assert tells_classes(model.head)
    raws = model.answers(run.recipe.examples(model, records, watch))
    with torch.no_grad():
        return [model.head.probabilities(raw.double()).numpy()[:, 1] for raw in raws]


def rivals(recipe: Market, known: Sequence[Record], test: Sequence[Record]) -> dict[str, list[np.ndarray]]:
    """The training part's share of days that went up, of all; logistic regression (scikit-learn's) on five days."""
    if not known:
        return {}
    seen = [(Days(record), record) for record in known]
    up = np.concatenate([days.returns > 0 for days, _ in seen])
    share = (up.sum() + 1) / (len(up) + 2)
    found = {"majority": [np.full(len(record), share) for record in test]}
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return found
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    model.fit(np.concatenate([lagged(recipe, record)[days.counts] for days, record in seen]), up)
    said = [model.predict_proba(lagged(recipe, record))[:, 1] for record in test]
    return found | {"logistic regression": said}


def scored(days: Sequence[Days], said: Sequence[np.ndarray]) -> JsonObject:
    """Scores over all days, the means with their 95 % intervals by the block bootstrap.

    Of several series the mean of each day is taken first: they rise and fall together.
    """
    pairs = [(d, p[d.counts]) for d, p in zip(days, said, strict=True)]
    kept = np.concatenate([after_costs(np.where(p > 0.5, 1.0, -1.0), d.returns) for d, p in pairs])
    p, up = np.concatenate([p for _, p in pairs]), np.concatenate([d.returns > 0 for d, _ in pairs])
    when = np.unique(np.concatenate([d.time_s for d, _ in pairs]), return_inverse=True)[1]

    def by_day(values: np.ndarray) -> np.ndarray:
        return np.bincount(when, values) / np.bincount(when)

    right, followed = by_day(((p > 0.5) == up).astype(float)), by_day(kept)
    return {
        "nats": float(-np.log(np.maximum(np.where(up, p, 1 - p), 1e-12)).mean()),
        "accuracy": float(right.mean()),
        "accuracy_interval": list(block_bootstrap(right)),
        "return_a_year": YEAR * float(followed.mean()),
        "return_interval": [YEAR * bound for bound in block_bootstrap(followed)],
    }


def _percent(share: float) -> str:
    return f"{100 * share:z.1f} %"


def verdict(scores: JsonObject) -> str:
    """What the interval says."""
    low, high = scores["accuracy_interval"]
    often = scores["baselines"]["majority"]["accuracy"] if "majority" in scores["baselines"] else 0.5
    most = max(often, 0.5)
    between = f"between {_percent(low)} and {_percent(high)} (95 % interval)"
    if low > most:
        return f"It is right {between}, more often than always saying the commoner direction: {_percent(most)}."
    return (
        f"As far as can be told it can't foretell the direction: it is right {between}, always saying the commoner one "
        f"{_percent(most)}."
    )


def _told(scores: Scores) -> Told:
    rows = {"this run": scores, **scores["baselines"]}
    cells = []
    for name, row in rows.items():
        spans = [" to ".join(f"{100 * bound:.1f}" for bound in row[key]) for key in SPANS_OF]
        cells.append([name, row["nats"], 100 * row["accuracy"], spans[0], 100 * row["return_a_year"], spans[1]])
    facts = [
        Fact("Right", _percent(scores["accuracy"]), "of the days"),
        Fact("Nats a day", figure(scores["nats"]), f"of a coin: {np.log(2):.3f}"),
        Fact("A year, after costs", _percent(scores["return_a_year"]), "of following it"),
    ]
    text = (
        "Followed: long where up is likelier, else short, each day anew; turning the whole position over costs "
        f"{COST * 1e4:g} basis points. Intervals are of 95 %, by a bootstrap of blocks of 20 days."
    )
    columns = ("", "nats", "right (%)", "95 %", "a year (%)", "95 %")
    return verdict(scores), facts, [Section("Beside its rivals", text, [Table(columns, cells, strong=[0])])]


SPANS_OF = ("accuracy_interval", "return_interval")
