"""What a forecast stands beside: persistence, drift and season; ridge regression and boosted trees on lags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ...data.examples import WEIGHT
from ...data.records import Record, last_known
from ...errors import UserError
from ...evaluation.ridge import closed_form
from ...training.recipe import INTERVAL, Parts
from .kinds import PENALTIES, ROWS, Forecast
from .series import shifted
from .summaries import has_scikit_learn

T = TypeVar("T")
LAGS = 24
"""Values before the last one that ridge regression and boosting see of each target."""
TREES = 150
"""Trees at most of boosting; as many are kept as do best on the validation part."""
LEVELS = (np.arange(99) + 0.5) / 99
"""Levels of the quantiles of errors that stand for their distribution."""
NO_TREES = "without boosting on lags, for which scikit-learn is not installed: pip install scikit-learn"


@dataclass(frozen=True)
class Forecasted:
    """What is said at every step of some records, in the units of the targets (step target ahead)."""

    point: list[np.ndarray]
    bounds: list[list[np.ndarray]]
    """Of each record those of INTERVAL; none where no distribution is said."""
    crps: list[np.ndarray]
    """Of each record, where a distribution is said."""
    counts: list[np.ndarray]
    """Which steps of each record are scored (step)."""

    def of(self, places: Sequence[int]) -> "Forecasted":
        """The same of some of the records."""

        def picked(part: list[T]) -> list[T]:
            return [part[i] for i in places] if part else []

        return Forecasted(picked(self.point), picked(self.bounds), picked(self.crps), picked(self.counts))


Points = Callable[[Record], np.ndarray]
"""What a rival says of a record (step target ahead)."""


def rivals(
    recipe: Forecast, known: Parts | None, test: Sequence[Record], season: int, rows: int = ROWS
) -> dict[str, Forecasted]:
    """What each rival says of the test records; without `known` parts to learn from, only those that learn nothing.

    Their bands are quantiles of their own errors on the validation part, by target and step ahead.
    """
    said: dict[str, Points] = {"last value": lambda record: held(recipe, record, 1)}
    said["drift"] = lambda record: drift(recipe, record)
    if season > 1:
        said["seasonal naive"] = lambda record: held(recipe, record, season)
    if known and known["validation"]:
        lagged = Lagged(recipe, season, known["train"], known["validation"])
        said["ridge on lags"] = lagged.ridge()
        if has_scikit_learn():
            said["boosting on lags"] = lagged.boosting(rows)
    return {name: _sure(recipe, points, known["validation"] if known else (), test) for name, points in said.items()}


def came(recipe: Forecast, record: Record) -> np.ndarray:
    """What came (step target ahead); NaN where it is not known."""
    return np.stack([_ahead(recipe, np.asarray(record[name].values, float)) for name in recipe.target], 1)


def counted(recipe: Forecast, record: Record) -> np.ndarray:
    """The steps of a record (step) that are scored: those that are not only read, and of which all is known."""
    counts = np.asarray(record[WEIGHT].values) > 0 if WEIGHT in record.streams else np.ones(len(record), bool)
    return counts & ~np.isnan(came(recipe, record)).any((1, 2)) & ~np.isnan(_now(recipe, record)).any(1)


def held(recipe: Forecast, record: Record, season: int) -> np.ndarray:
    """The last known value of so many steps before the one that is asked for, or of whole seasons before it."""
    each = []
    for values in _now(recipe, record).T:
        back = [season * -(-ahead // season) - ahead for ahead in range(1, recipe.horizon + 1)]
        before = [np.concatenate((np.full(min(b, len(values)), np.nan), values[: len(values) - b])) for b in back]
        each.append(np.stack([np.where(np.isnan(b), values, b) for b in before], 1))
    return np.stack(each, 1)


def drift(recipe: Forecast, record: Record) -> np.ndarray:
    """The straight line through the first and the last value that a record shows (Hyndman & Athanasopoulos 2021)."""
    now = _now(recipe, record)
    first = np.array([values[np.argmax(~np.isnan(values))] for values in now.T])
    slope = (now - first) / np.maximum(np.arange(len(now)), 1)[:, None]
    return now[:, :, None] + slope[:, :, None] * np.arange(1, recipe.horizon + 1)


class Lagged:
    """Rows of lags: what a target was before, one season before each step asked for, and what else is known."""

    def __init__(self, recipe: Forecast, season: int, train: Sequence[Record], validation: Sequence[Record]):
        self.recipe, self.season, self.parts = recipe, season, (train, validation)
        self.others = [name for name in recipe.columns if name not in (*recipe.target, *recipe.static)]

    def features(self, record: Record) -> tuple[np.ndarray, np.ndarray]:
        """Features of all steps ahead (step feature), and of each of them (step ahead feature); NaN where unknown."""
        now, found = _now(self.recipe, record), []
        for values in now.T:
            lags = [np.concatenate((np.full(min(n, len(now)), np.nan), values[: len(now) - n])) for n in range(1, LAGS)]
            before = np.concatenate((np.full(min(self.season, len(now)), np.nan), values))[: len(now)]
            found += [values, *(lag - values for lag in lags), before - values]
        found += [last_known(np.asarray(record[name].values, float)) for name in (*self.others, *self.recipe.static)]
        own = held(self.recipe, record, self.season) - now[:, :, None]
        later = [_ahead(self.recipe, np.asarray(record[name].values, float))[:, None] for name in self.recipe.ahead]
        return np.stack(found, 1), np.concatenate([own, *later], 1).transpose(0, 2, 1)

    def _rows(self, records: Sequence[Record], most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both kinds of features and the changes that came (row target ahead), of evenly taken steps."""
        total = sum(int(counted(self.recipe, record).sum()) for record in records)
        every, found = max(1, -(-total // most)), []
        for record in records:
            at = np.flatnonzero(counted(self.recipe, record))[::every]
            base = _now(self.recipe, record)[:, :, None]
            found.append((*(x[at] for x in self.features(record)), (came(self.recipe, record) - base)[at]))
        shared, own, y = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return shared, own, y

    def ridge(self) -> Points:
        """Ridge regression of all steps ahead on all features, its penalty chosen on the validation part."""
        (shared, own, y), (held_shared, held_own, held_y) = (self._rows(part, ROWS) for part in self.parts)
        x = _side_by_side(shared, own)
        middle, scale = np.nan_to_num(np.nanmean(x, 0)), np.nanstd(x, 0)
        scale = np.where(scale > 0, scale, 1)

        def standard(x: np.ndarray) -> np.ndarray:
            return np.nan_to_num((x - middle) / scale)

        flat = y.reshape(len(y), -1), held_y.reshape(len(held_y), -1)
        held_x = standard(_side_by_side(held_shared, held_own))
        fitted = closed_form(standard(x), flat[0], held_x, flat[1], PENALTIES)

        def say(record: Record) -> np.ndarray:
            now = _now(self.recipe, record)
            said = fitted(standard(_side_by_side(*self.features(record))))
            return said.reshape(len(now), now.shape[1], -1) + now[:, :, None]

        return say

    def boosting(self, rows: int) -> Points:
        """Boosted trees (scikit-learn's), a model a target, that are told how far ahead to look."""
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError:
            raise UserError(NO_TREES) from None
        each = -(-rows // self.recipe.horizon)
        (x, y), (held_x, held_y) = (
            (_stacked(shared, own), y) for shared, own, y in (self._rows(part, each) for part in self.parts)
        )
        models = []
        for target in range(y.shape[1]):
            options: dict[str, Any] = {"max_iter": TREES, "early_stopping": False, "random_state": 0}
            model = HistGradientBoostingRegressor(**options)
            model.fit(x, y[:, target].ravel())
            truth = held_y[:, target].ravel()
            errors = [float(np.square(said - truth).mean()) for said in model.staged_predict(held_x)]
            models.append((model, int(np.argmin(errors))))

        def say(record: Record) -> np.ndarray:
            now, rows = _now(self.recipe, record), _stacked(*self.features(record))
            said = [next(islice(m.staged_predict(rows), n, None)).reshape(len(now), -1) for m, n in models]
            return np.stack(said, 1) + now[:, :, None]

        return say


def _side_by_side(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A row a step: what is true of all steps ahead, and of each of them."""
    return np.concatenate((shared, own.reshape(len(own), -1)), 1)


def _stacked(shared: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A row a step ahead: how far ahead it is, what is true of all, and of itself."""
    steps, horizon, _ = own.shape
    ahead = np.tile(np.arange(1.0, horizon + 1), steps)[:, None]
    return np.concatenate((ahead, np.repeat(shared, horizon, 0), own.reshape(steps * horizon, -1)), 1)


def _now(recipe: Forecast, record: Record) -> np.ndarray:
    """The last known value of each target (step target)."""
    return np.stack([last_known(np.asarray(record[name].values, float)) for name in recipe.target], 1)


def _ahead(recipe: Forecast, values: np.ndarray) -> np.ndarray:
    return np.stack([shifted(values, ahead) for ahead in range(1, recipe.horizon + 1)], 1)


def _sure(recipe: Forecast, points: Points, validation: Sequence[Record], test: Sequence[Record]) -> Forecasted:
    """What a rival says of the test records, with the distribution of its errors on the validation part around it."""
    said = Forecasted([points(r) for r in test], [], [], [counted(recipe, r) for r in test])
    left = [(came(recipe, r) - points(r))[counted(recipe, r)] for r in validation]
    if not sum(map(len, left)):
        return said
    errors = np.quantile(np.concatenate(left), LEVELS, axis=0)  # (level target ahead)
    low, high = np.quantile(np.concatenate(left), INTERVAL, axis=0)
    apart = np.abs(errors[:, None] - errors[None]).mean((0, 1)) / 2
    for record, point in zip(test, said.point, strict=True):
        off = came(recipe, record) - point
        said.bounds.append([point + low, point + high])
        said.crps.append(sum(np.abs(off - error) for error in errors) / len(errors) - apart)
    return said
