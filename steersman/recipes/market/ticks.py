"""Where an order book's price goes next: the recipe's kind, and its task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Self

import numpy as np

from ...data.examples import WEIGHT
from ...data.records import Record
from ...errors import UserError
from ...evaluation.metrics import confused
from ...evaluation.outcome import Scored, Told, contract, run_name
from ...evaluation.page import Confusion, Fact, Section, Table, figure
from ...json_types import JsonObject
from ...nn.heads import Classification, tells_classes
from ...progress import Watch, silent
from ...training.material import Material
from ...training.recipe import Parts, Recipe
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from .kinds import DIRECTION, Derived, lagged

NAMES = ("down", "flat", "up")
MIDDLE, ANSWER = "middle", "answer"
SPANS = (1, 5, 20, 100)
"""Events over which changes and trades are inputs."""
TRADES = (4, 5)
"""LOBSTER's kinds of events in which a standing order is executed."""
ROWS = 20_000
"""Events at most that rivals learn from, evenly taken."""


@dataclass(frozen=True, kw_only=True)
class Book(Derived):
    """Whether the mean price of the next events is above, below or about the present one, at every event."""

    events: int = 20
    """Events ahead over which the price is averaged; FI-2010's own answers know 10, 20, 30, 50 and 100."""
    flat: float = 0.0
    """Largest relative change that counts as none; 0: that of a third of the training part."""

    BOUNDS = {**Derived.BOUNDS, "events": (1, inf), "flat": (0, 1)}

    @property
    def hidden(self) -> tuple[str, ...]:
        return (MIDDLE, ANSWER)

    def derive(self, record: Record) -> dict[str, np.ndarray]:
        ask, ask_size, bid, bid_size = (
            np.asarray(record[f"{name}_1"].values, float) for name in ("ask", "ask_size", "bid", "bid_size")
        )
        middle, whole = (ask + bid) / 2, np.maximum(ask_size + bid_size, 1e-9)
        pressure = (bid_size - ask_size) / whole
        found = {MIDDLE: middle, "spread": ask - bid, "pressure": pressure}
        found |= {"leaning": pressure * (ask - bid), "log_size": np.log1p(np.abs(whole))}
        found |= {f"change_{n}": middle - _before(middle, n) for n in SPANS}
        clock = next(iter(record.streams.values())).time_s
        found["log_wait"] = np.log1p(1e3 * np.diff(clock, prepend=clock[0]))
        if "kind" in record.streams:
            kind, size, sign = (np.asarray(record[name].values, float) for name in ("kind", "size", "sign"))
            # A trade of a standing order to sell is a purchase.
            traded = np.concatenate(([0.0], np.cumsum(np.where(np.isin(kind, TRADES), -sign * np.sqrt(size), 0))))
            at = np.arange(1, len(kind) + 1)
            found |= {f"bought_{n}": traded[at] - traded[np.maximum(at - n, 0)] for n in SPANS}
        if f"label_{self.events}" in record.streams:
            words = np.asarray(record[f"label_{self.events}"].values)
            found[ANSWER] = np.array([NAMES.index(word) for word in words.tolist()], float)
        return found

    def change(self, record: Record) -> np.ndarray:
        """Relative change from the present price to the mean of the next (step); NaN where they are not all known."""
        middle = np.asarray(record[MIDDLE].values, float)
        total = np.concatenate(([0.0], np.cumsum(middle)))
        later = np.full(len(middle), np.nan)
        n = max(0, len(middle) - self.events)
        later[:n] = (total[self.events + 1 :] - total[1 : n + 1])[:n] / self.events
        return later / middle - 1

    def with_answers(self, parts: Parts) -> Self:
        flat = self.flat
        if not flat and ANSWER not in parts["train"][0].streams:
            flat = float(np.nanquantile(np.abs(np.concatenate([self.change(r) for r in parts["train"]])), 1 / 3))
        return replace(self, flat=flat, head=Classification(targets=(DIRECTION,), classes=3, names=NAMES))

    def answers_of(self, record: Record) -> np.ndarray:
        """The class at each event (step); NaN where it is not known."""
        if ANSWER in record.streams:
            return np.asarray(record[ANSWER].values, float)
        change = self.change(record)
        return np.where(np.isnan(change), np.nan, 1.0 + (change > self.flat) - (change < -self.flat))

    def answer_streams(self, record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
        answers = self.answers_of(record)
        return {DIRECTION: np.nan_to_num(answers).astype(np.float32)}, ~np.isnan(answers)


def _before(values: np.ndarray, steps: int) -> np.ndarray:
    """Values of so many steps before; the first before the first."""
    return np.concatenate((np.full(min(steps, len(values)), values[0]), values[: max(0, len(values) - steps)]))


@dataclass(frozen=True)
class Ticks(TaskSpec):
    """Classes of an order book's events: the mean over the classes of their F1, beside lines and trees on lags."""

    measure: ClassVar[str] = "macro_f1"
    higher_is_better: ClassVar[bool] = True
    heads = (Classification,)
    columns: ClassVar[tuple[str, ...]] = ("macro_f1", "accuracy")

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        if not isinstance(recipe, Book):
            raise UserError(f"task Ticks scores recipes of order books, not a {type(recipe).__name__}")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        recipe = run.recipe
        assert isinstance(recipe, Book)
        at = [counted(recipe, record) for record in material.test]
        truth = _joined([recipe.answers_of(record) for record in material.test], at)
        says = {"this run": _joined(_said(run, material.test, watch), at)}
        says |= {run_name(other): _joined(_said(other, material.test, watch), at) for other in beside}
        if material.known:
            says |= rivals(recipe, material.known["train"], material.test, at)
        rows = {name: f1_scores(confused(truth, said, len(NAMES))) for name, said in says.items()}
        scores = rows.pop("this run") | {"baselines": rows, "data": material.name, "items": len(truth)}
        scores = contract(self, scores | {"events": recipe.events, "flat": recipe.flat}, self.columns)
        return Scored(scores, lambda: _told(scores))


def counted(recipe: Book, record: Record) -> np.ndarray:
    """Which steps of a record are scored."""
    counts = np.asarray(record[WEIGHT].values) > 0 if WEIGHT in record.streams else np.ones(len(record), bool)
    return counts & ~np.isnan(recipe.answers_of(record))


def _joined(values: Sequence[np.ndarray], at: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([v[a] for v, a in zip(values, at, strict=True)]).astype(np.int64)


def _said(run: Run, records: Sequence[Record], watch: Watch) -> list[np.ndarray]:
    model = run.model()
    assert tells_classes(model.head)
    return [each.argmax(-1).numpy() for each in model.answers(run.recipe.examples(model, records, watch))]


def rivals(
    recipe: Book, known: Sequence[Record], test: Sequence[Record], at: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """What the commonest class, logistic regression and boosted trees (both scikit-learn's) say of all that counts."""
    places = [counted(recipe, record) for record in known]
    y = _joined([recipe.answers_of(record) for record in known], places)
    found = {"majority": np.full(sum(int(a.sum()) for a in at), np.bincount(y).argmax())}
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return found
    every = max(1, -(-len(y) // ROWS))
    x = np.concatenate([lagged(recipe, r)[p] for r, p in zip(known, places, strict=True)])[::every]
    shown = np.concatenate([lagged(recipe, r)[a] for r, a in zip(test, at, strict=True)])
    trees: dict[str, Any] = {"max_iter": 60, "early_stopping": False, "random_state": 0}
    models = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "boosting": HistGradientBoostingClassifier(**trees),
    }
    return found | {name: model.fit(x, y[::every]).predict(shown) for name, model in models.items()}


def f1_scores(confusion: np.ndarray) -> JsonObject:
    """Macro-F1 (the mean over the classes, 0 for one never said nor there) and accuracy of counts (true, said)."""
    both = confusion.sum(0) + confusion.sum(1)
    f1 = 2 * confusion.diagonal() / np.maximum(both, 1)
    accuracy = float(confusion.trace() / max(1, confusion.sum()))
    return {"macro_f1": float(f1.mean()), "accuracy": accuracy, "confusion": confusion.tolist()}


def _told(scores: Scores) -> Told:
    rows = {"this run": scores, **scores["baselines"]}
    order = sorted(rows, key=lambda name: -rows[name]["macro_f1"])
    best = max(scores["baselines"], key=lambda name: scores["baselines"][name]["macro_f1"], default="")
    beside = f"; {best} {figure(scores['baselines'][best]['macro_f1'])}" if best else ""
    summary = (
        f"Over {scores['items']:,} events its macro-F1 for the price of the next {scores['events']} is "
        f"{figure(scores['macro_f1'])}{beside}."
    )
    facts = [Fact("Macro-F1", figure(scores["macro_f1"]), beside.removeprefix("; "))]
    cells = [[name, rows[name]["macro_f1"], rows[name]["accuracy"]] for name in order]
    text = f"Flat is a relative change of at most {figure(scores['flat'])}. Rivals see five events."
    blocks = [
        Table(("", "macro-F1", "accuracy"), cells, strong=[order.index("this run")]),
        Confusion(scores["confusion"], NAMES, "Counts of events."),
    ]
    return summary, facts, [Section("Beside its rivals", text, blocks)]
