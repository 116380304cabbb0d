"""Ridge regression on pixels: what a straight line from the picture to the answer already explains."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..data.examples import Example
from ..data.inputs import Inputs
from ..data.records import last_known

HEIGHT, WIDTH = 24, 48
"""Pictures are averaged down to at most this, in grey."""
STEPS = 20_000
"""Steps of training at most, evenly taken."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties in times the inputs' mean variance; the one with the lowest error on the validation records is kept."""


def ridge(
    train: Sequence[Example], validation: Sequence[Example], shown: Sequence[Example], number: int = 0
) -> list[np.ndarray]:
    """One number of the targets of each shown example, by the closed form; trained and chosen on the other two.

    Examples with an answer a step only; inputs are as the model's encoder prepares them.
    """
    every = max(1, sum(map(len, train)) // STEPS)
    (x, y), (held_x, held_y) = (
        (_features(part, every), np.concatenate([e.y[::every, number] for e in part])) for part in (train, validation)
    )
    fitted = closed_form(x, y, held_x, held_y)
    return [fitted(_features([e], 1)) for e in shown]


def closed_form(
    x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray, penalties: Sequence[float] = PENALTIES
) -> Callable[[np.ndarray], np.ndarray]:
    """Ridge regression of y (row, or row number) on x (row feature), the penalty chosen on what is held out."""
    mean, middle = x.mean(0), y.mean(0, dtype=np.float64)
    x = x - mean
    # One decomposition serves all penalties.
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    projected = vectors.T @ (x.T @ (y - middle)) / len(x)
    scale = max(float(values.mean()), 1e-12)
    values = values.clip(0).reshape(-1, *[1] * (y.ndim - 1))
    weights = [vectors @ (projected / (values + penalty * scale)) for penalty in penalties]
    best = min(weights, key=lambda w: float(np.mean(((held_x - mean) @ w + middle - held_y) ** 2)))
    return lambda x: (x - mean) @ best + middle


def _features(examples: Sequence[Example], every: int) -> np.ndarray:
    """(steps, features): pictures averaged to a coarse grid, numbers as they are; of several inputs all of them."""
    return np.concatenate([_steps(e.x, every) for e in examples]).astype(np.float64)


def _steps(x: Any, every: int) -> np.ndarray:
    if isinstance(x, Inputs):
        return np.concatenate([_coarse(_carried(values)[::every]) for values in x.spread()], 1)
    return _coarse(np.asarray(x[::every]))


def _carried(x: np.ndarray) -> np.ndarray:
    """Numbers that were not measured as they last were; 0 before."""
    if x.dtype.kind != "f" or not np.isnan(x).any():
        return x
    return np.nan_to_num(last_known(x))


def _coarse(x: np.ndarray) -> np.ndarray:
    if x.ndim != 4:
        return x.reshape(len(x), -1)
    if x.shape[3] == 3:
        x = x.mean(3, keepdims=True, dtype=np.float32)
    time, height, width, channels = x.shape
    rows, columns = -(-height // HEIGHT), -(-width // WIDTH)
    x = x[:, : height // rows * rows, : width // columns * columns].astype(np.float32) / 255
    return x.reshape(time, height // rows, rows, width // columns, columns, channels).mean((2, 4)).reshape(time, -1)
