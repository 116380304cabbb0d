"""How well a number ranks what is so above what is not: ROC, precision and recall, and what they come to.

Pure functions of a score an item, the higher the likelier, and of which items are positive (item,). What is not
defined, because all items are positive or none is, is None.
"""

import numpy as np

from ..json_types import JsonObject


def cuts(said: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every score that occurs, the highest first, and how many positives and negatives reach it."""
    order = np.argsort(-said, kind="stable")
    said, positive = said[order], positive[order].astype(bool)
    ends = np.append(np.flatnonzero(np.diff(said)), len(said) - 1)
    return said[ends], np.cumsum(positive)[ends], np.cumsum(~positive)[ends]


def auroc(said: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive ranks above a negative; one that ties counts half."""
    _, hits, alarms = cuts(said, positive)
    if not hits[-1] or not alarms[-1]:
        return None
    found, false = np.append(0, hits) / hits[-1], np.append(0, alarms) / alarms[-1]
    return float((np.diff(false) * (found[1:] + found[:-1])).sum() / 2)


def average_precision(said: np.ndarray, positive: np.ndarray) -> float | None:
    """Mean of the precisions at each cut, by how much recall rises there."""
    _, hits, alarms = cuts(said, positive)
    if not hits[-1]:
        return None
    return float((np.diff(hits / hits[-1], prepend=0) * hits / (hits + alarms)).sum())


def min_se_ppv(said: np.ndarray, positive: np.ndarray, threshold: float | None = None) -> float | None:
    """The smaller of sensitivity and precision (Challenge 2012, event 1) at a threshold; None: at the best one."""
    levels, hits, alarms = cuts(said, positive)
    if not hits[-1]:
        return None
    smaller = hits / np.maximum(hits[-1], hits + alarms)
    if threshold is None:
        return float(smaller.max())
    reached = int((levels >= threshold).sum())
    return float(smaller[reached - 1]) if reached else 0.0


def best_threshold(said: np.ndarray, positive: np.ndarray) -> float:
    """The lowest score that is called positive where `min_se_ppv` is largest."""
    levels, hits, alarms = cuts(said, positive)
    return float(levels[np.argmax(hits / np.maximum(hits[-1], hits + alarms))])


def brier(said: np.ndarray, positive: np.ndarray) -> float:
    """Mean squared error of probabilities (Brier 1950)."""
    return float(np.mean(np.square(said - positive)))


def two_class_scores(said: np.ndarray, positive: np.ndarray) -> JsonObject:
    """All of the above, of probabilities."""
    return {
        "auroc": auroc(said, positive),
        "average_precision": average_precision(said, positive),
        "min_se_ppv": min_se_ppv(said, positive),
        "brier": brier(said, positive),
    }


def macro_auroc(said: np.ndarray, labels: np.ndarray) -> float | None:
    """Mean over the classes that occur of the AUROC of each against the rest; `said` (item, class)."""
    each = [auroc(said[:, number], labels == number) for number in range(said.shape[1])]
    known = [value for value in each if value is not None]
    return float(np.mean(known)) if known else None


MOST_POINTS = 400


def ranking_curves(said: np.ndarray, positive: np.ndarray) -> list[JsonObject]:
    """Points of both curves, rows {threshold, recall, false_alarms, precision}, some hundreds at most."""
    levels, hits, alarms = cuts(said, positive)
    kept = np.unique(np.linspace(0, len(levels) - 1, min(len(levels), MOST_POINTS)).astype(int))
    columns = (levels, hits / max(hits[-1], 1), alarms / max(alarms[-1], 1), hits / (hits + alarms))
    names = ("threshold", "recall", "false_alarms", "precision")
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*(c[kept] for c in columns), strict=True)]


def blend_weight(said: np.ndarray, other: np.ndarray, positive: np.ndarray) -> float:
    """The share of `said` in a mean with `other` that ranks best, in twentieths; of equals the nearest to a half."""
    shares = np.arange(21) / 20
    found = [auroc(share * said + (1 - share) * other, positive) or 0.0 for share in shares]
    best = np.flatnonzero(np.isclose(found, max(found), rtol=0, atol=1e-12))
    return float(shares[best[np.argmin(np.abs(shares[best] - 0.5))]])


def auroc_interval(said: np.ndarray, positive: np.ndarray, draws: int = 500, seed: int = 0) -> tuple[float, float]:
    """Bounds of the middle 95 % of the AUROC over items drawn anew with replacement (Efron 1979)."""
    rng = np.random.default_rng(seed)
    places = (rng.integers(0, len(said), len(said)) for _ in range(draws))
    found = [value for at in places if (value := auroc(said[at], positive[at])) is not None]
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
