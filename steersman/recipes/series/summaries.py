"""Whole series as a row of summaries, and what classifiers without a memory make of them."""

from collections.abc import Sequence

import numpy as np

from ...data.records import Record
from ...errors import UserError
from .kinds import Labelled
from .series import STATIC, VALUES

SUMMARIES = ("last", "first", "lowest", "highest", "mean", "deviation", "count", "slope an hour", "hours since")
HOUR_S = 3600.0


def has_scikit_learn() -> bool:
    """Whether scikit-learn is installed."""
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def summaries(recipe: Labelled, records: Sequence[Record]) -> np.ndarray:
    """SUMMARIES of each input, one beside the other, and what is true of the whole series (record feature).

    NaN where nothing was measured.
    """
    return np.stack([_summary(recipe.seen(record, answers=False)) for record in records])


def _summary(seen: Record) -> np.ndarray:
    hours = seen[VALUES].time_s / HOUR_S
    rows = [_column(column, hours) for column in np.asarray(seen[VALUES].values, float).T]
    once = [np.asarray(seen[STATIC].values, float)[0]] if STATIC in seen.streams else []
    return np.concatenate([*rows, *once])


def _column(column: np.ndarray, hours: np.ndarray) -> np.ndarray:
    known = ~np.isnan(column)
    values, at = column[known], hours[known]
    if not len(values):
        return np.array([np.nan] * 6 + [0, np.nan, np.nan])
    spread = np.square(at - at.mean()).sum()
    slope = float((at - at.mean()) @ values / spread) if spread > 0 else np.nan
    extremes = values.min(), values.max()
    return np.array(
        [values[-1], values[0], *extremes, values.mean(), values.std(), len(values), slope, hours[-1] - at[-1]]
    )


def boosting(x: np.ndarray, labels: np.ndarray, seed: int = 0):
    """Gradient boosting of trees that was fitted to summaries. UserError where scikit-learn is not installed."""
    _needed()
    from sklearn.ensemble import HistGradientBoostingClassifier

    fitted = HistGradientBoostingClassifier(
        learning_rate=0.04, max_iter=250, max_leaf_nodes=12, min_samples_leaf=20, l2_regularization=5.0,
        max_features=0.3, random_state=seed,
    )  # fmt: skip
    return fitted.fit(x, labels)


def logistic(x: np.ndarray, labels: np.ndarray):
    """Logistic regression on standardised summaries, a gap filled with the mean. UserError as `boosting`."""
    _needed()
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    ranks = QuantileTransformer(n_quantiles=min(100, len(x)), output_distribution="normal")
    return make_pipeline(ranks, SimpleImputer(), LogisticRegression(C=0.003, max_iter=500)).fit(x, labels)


def _needed() -> None:
    if not has_scikit_learn():
        raise UserError("boosting and logistic regression need scikit-learn: pip install 'steersman[digits]'")
