"""Metrics, always beside named baselines: pure functions from arrays to dicts that are ready for JSON.

Predictions and truths of a regression are lists with one array (time) a record, so that nothing is ever
shifted, lagged or held over the edge between two records."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..json_types import JsonObject

Scores = JsonObject
"""Plain numbers, strings, lists and dicts; None where a figure is not defined."""


MAX_LAG_S = 1.0


SMOOTHING = (1.0, 0.8, 0.6, 0.4, 0.2)
"""What the newest prediction counts in an exponential mean; 1: nothing is smoothed."""


def rmse(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean(np.square(_difference(prediction, truth)))))


def mae(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(_difference(prediction, truth))))


def r2(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Share of the truth's variance that is predicted; None where the truth never varies."""
    variance = float(np.var(np.asarray(truth, float)))
    return 1 - rmse(prediction, truth) ** 2 / variance if variance > 0 else None


def accuracy(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of labels that are right."""
    assert np.shape(prediction) == np.shape(truth)
    return float(np.mean(np.asarray(prediction) == np.asarray(truth)))


def best_lag(prediction: np.ndarray, truth: np.ndarray, max_lag: int) -> int:
    """Steps by which the prediction trails the truth: prediction[t] resembles truth[t - lag].

    The lag of lowest RMSE over the part where the two overlap, ties to the smallest; lags that would
    leave less than half the record are not tried. Negative: the prediction comes before the truth.
    """
    return _lowest(lag_curve([prediction], [truth], max_lag))


def lag_curve(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray], max_lag: int) -> list[JsonObject]:
    """RMSE over all records at each lag, rows {lag, rmse}.

    Every lag is judged on the same records, those at least two lags long, so that the rows compare.
    """
    max_lag = min(max_lag, max(map(len, truths)) // 2)
    pairs = [(p, t) for p, t in zip(predictions, truths, strict=True) if len(t) >= 2 * max_lag]
    return [
        {"lag": lag, "rmse": rmse(*_joined([_shifted(p, t, lag) for p, t in pairs]))}
        for lag in range(-max_lag, max_lag + 1)
    ]


def baselines(
    truths: Sequence[np.ndarray], train_mean: float | Sequence[float], persistence_steps: Sequence[int] = (1,)
) -> dict[str, list[np.ndarray]]:
    """What no model is needed for: `zero`, `mean` (of the training targets: one, or one a record) and persistence.

    `persistence` holds the true value of one step ago, `persistence_10` that of ten; the first steps of
    a record take the training mean.
    """
    means = np.broadcast_to(np.asarray(train_mean, float), len(truths)).tolist()
    found = {
        "zero": [np.zeros(len(truth)) for truth in truths],
        "mean": [np.full(len(truth), mean) for truth, mean in zip(truths, means, strict=True)],
    }
    for steps in persistence_steps:
        name = "persistence" if steps == 1 else f"persistence_{steps}"
        found[name] = [_held(np.asarray(truth, float), mean, steps) for truth, mean in zip(truths, means, strict=True)]
    return found


def by_size(prediction: np.ndarray, truth: np.ndarray, edges: Sequence[float]) -> list[JsonObject]:
    """Error by bin of |truth|. Rows {from, to, steps, rmse, mae}.

    A bin holds its lower edge but not its upper one; `to` is None where the last bin has no end.
    """
    size = np.abs(truth)
    rows = []
    for low, high in pairwise(edges):
        inside = (size >= low) & (size < high)
        row = {"from": float(low), "to": float(high) if np.isfinite(high) else None}
        rows.append(row | {"steps": int(inside.sum())} | _errors(prediction[inside], truth[inside]))
    return rows


def quantile_edges(truth: np.ndarray, bins: int = 5) -> tuple[float, ...]:
    """Bounds of |truth| between which as many values lie each, as far as they differ; the last has no end."""
    inner = np.unique(np.quantile(np.abs(truth), np.arange(1, bins) / bins))
    return (0.0, *(float(edge) for edge in inner if edge > 0), np.inf)


def smoothed(prediction: np.ndarray, newest: float) -> np.ndarray:
    """Exponential mean of the prediction, in which the newest value counts `newest`; it starts at the first value."""
    out = np.array(prediction, float)
    for step in range(1, len(out)):
        out[step] = newest * out[step] + (1 - newest) * out[step - 1]
    return out


def worst_moments(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    names: Sequence[str],
    rate_hz: float,
    num_moments: int = 5,
    apart_s: float = 1.0,
) -> list[JsonObject]:
    """The largest errors, at least `apart_s` from each other within a record, worst first.

    Rows {record, step, time_s, error, prediction, truth}; the error is prediction less truth and the
    time counts from the record's first step.
    """
    record = np.concatenate([np.full(len(truth), index) for index, truth in enumerate(truths)])
    step = np.concatenate([np.arange(len(truth)) for truth in truths])
    prediction, truth = _joined(list(zip(predictions, truths, strict=True)))
    left = np.abs(prediction - truth)
    rows = []
    while len(rows) < num_moments and left.max() >= 0:
        worst = int(left.argmax())
        rows.append(
            {
                "record": names[record[worst]],
                "step": int(step[worst]),
                "time_s": float(step[worst] / rate_hz),
                "error": float(prediction[worst] - truth[worst]),
                "prediction": float(prediction[worst]),
                "truth": float(truth[worst]),
            }
        )
        left[(record == record[worst]) & (np.abs(step - step[worst]) < apart_s * rate_hz)] = -1
    return rows


def regression_scores(
    predictions: Sequence[np.ndarray],
    truths: Sequence[np.ndarray],
    train_mean: float | Sequence[float],
    rate_hz: float,
    others: dict[str, Sequence[np.ndarray]] | None = None,
    names: Sequence[str] | None = None,
    persistence_steps: Sequence[int] = (1, 10),
    edges: Sequence[float] = (),
) -> Scores:
    """All that is said of one predicted quantity: errors, lag, baselines, bins, records, worst moments.

    `others` are predictions of other models, by record, to stand among the baselines.
    """
    names = list(names) if names is not None else [f"record {index}" for index in range(len(truths))]
    pairs = list(zip(predictions, truths, strict=True))
    prediction, truth = _joined(pairs)
    max_lag = round(MAX_LAG_S * rate_hz)
    lags = lag_curve(predictions, truths, max_lag)
    rivals = baselines(truths, train_mean, persistence_steps) | dict(others or {})
    return {
        "steps": len(truth),
        "rate_hz": float(rate_hz),
        **_errors(prediction, truth),
        "r2": r2(prediction, truth),
        "best_lag_steps": _lowest(lags),
        "best_lag_s": _lowest(lags) / rate_hz,
        "lag_curve": [row | {"lag_s": row["lag"] / rate_hz} for row in lags],
        "baselines": {name: _errors(np.concatenate(p), truth) for name, p in rivals.items()},
        "by_size": by_size(prediction, truth, edges or quantile_edges(truth)),
        "smoothed": [
            {"newest": newest, **_errors(*_joined([(smoothed(p, newest), t) for p, t in pairs]))}
            for newest in SMOOTHING
        ],
        "records": [
            {"name": name, "steps": len(t), **_errors(p, t), "best_lag_s": best_lag(p, t, max_lag) / rate_hz}
            for name, (p, t) in zip(names, pairs, strict=True)
        ],
        "worst": worst_moments(predictions, truths, names, rate_hz),
    }


def classification_scores(
    logits: np.ndarray,
    labels: np.ndarray,
    train_counts: np.ndarray,
    names: Sequence[str] | None = None,
) -> Scores:
    """Accuracy, nats a label, each class and the confusion matrix, beside majority and uniform guesses.

    `logits` are (item, class), `labels` (item,), `train_counts` how often the training data holds each
    class. Rows of `confusion` are the true class, columns the predicted one.
    """
    confusion = confused(labels, logits.argmax(1), len(train_counts))
    return guess_scores(confusion, _nats(logits, labels), train_counts, names)


def confused(labels: np.ndarray, guesses: np.ndarray, classes: int) -> np.ndarray:
    """How often each class (rows) was taken for each (columns)."""
    return np.bincount(labels.astype(np.int64) * classes + guesses, minlength=classes**2).reshape(classes, classes)


def guess_scores(
    confusion: np.ndarray, nats: float, train_counts: np.ndarray, names: Sequence[str] | None = None
) -> Scores:
    """The same of which class was taken for which, and the mean nats a label."""
    names = list(names) if names is not None else [str(index) for index in range(len(confusion))]
    labels = confusion.sum(1)
    return {
        "items": int(labels.sum()),
        "accuracy": float(confusion.trace() / labels.sum()),
        "nats": nats,
        "baselines": _class_baselines(labels, train_counts),
        "classes": _class_rows(confusion, names),
        "confusion": confusion.tolist(),
        "names": names,
    }


def _difference(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    assert np.shape(prediction) == np.shape(truth)
    return np.asarray(prediction, float) - np.asarray(truth, float)


def _errors(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    if len(truth) == 0:
        return {"rmse": None, "mae": None}
    return {"rmse": rmse(prediction, truth), "mae": mae(prediction, truth)}


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    predictions, truths = zip(*pairs, strict=True)
    return np.concatenate(predictions).astype(float), np.concatenate(truths).astype(float)


def _shifted(prediction: np.ndarray, truth: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """The overlap of prediction[t] with truth[t - lag]."""
    assert len(prediction) == len(truth)
    if lag < 0:
        return prediction[:lag], truth[-lag:]
    return prediction[lag:], truth[: len(truth) - lag]


def _lowest(curve: list[JsonObject]) -> int:
    return min(curve, key=lambda row: (row["rmse"], abs(row["lag"]), -row["lag"]))["lag"]


def _held(truth: np.ndarray, first: float, steps: int) -> np.ndarray:
    return np.concatenate([np.full(min(steps, len(truth)), float(first)), truth[:-steps]])


def _nats(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = np.asarray(logits, float)
    top = logits.max(1, keepdims=True)
    log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(1))
    return float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))


def _class_baselines(labels: np.ndarray, train_counts: np.ndarray) -> dict[str, dict[str, float]]:
    """The training data's frequencies as the prediction (one added to each count), and no idea at all.

    `labels` says how often each class is true.
    """
    num_classes, share = len(train_counts), labels / labels.sum()
    frequency = (np.asarray(train_counts, float) + 1) / (np.sum(train_counts) + num_classes)
    return {
        "majority": {
            "accuracy": float(share[np.argmax(train_counts)]),
            "nats": float(-share @ np.log(frequency)),
        },
        "uniform": {"accuracy": 1 / num_classes, "nats": float(np.log(num_classes))},
    }


def _class_rows(confusion: np.ndarray, names: Sequence[str]) -> list[JsonObject]:
    """Precision is None for a class never guessed, recall None for one that never occurs."""
    right, true, guessed = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return [
        {
            "name": name,
            "items": int(true[index]),
            "precision": float(right[index] / guessed[index]) if guessed[index] else None,
            "recall": float(right[index] / true[index]) if true[index] else None,
            "f1": float(2 * right[index] / both) if (both := true[index] + guessed[index]) else None,
        }
        for index, name in enumerate(names)
    ]
