"""Linear probes: how much of the target inputs at given lags tell, on records kept apart."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..data.inputs import Inputs
from .findings import Patient, Skipped

MOST = 20_000
"""Steps that a probe looks at."""

Rows = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, list[int]]]


def regression_rows(patient: Patient) -> Rows:
    """Inputs (step feature), the first target, and the records' lengths, by split. Skipped where none is a number."""
    model = patient.sequence_model()
    if model.head.classes:
        raise Skipped("the targets are classes: linear probes of lags are for numbers")
    if model.flavour == "many-to-one":
        raise Skipped("a record has one answer: there is no target over time")
    x, y, lengths = {}, {}, {}
    for part in ("train", "validation"):
        taken, total = [], 0
        for example in patient.shown[part]:
            taken.append(example)
            total += len(example)
            if total >= MOST:
                break
        x[part] = np.nan_to_num(np.concatenate([flat(e.x) for e in taken]))
        y[part] = np.concatenate([e.y[:, 0] for e in taken]).astype(float)
        lengths[part] = [len(e) for e in taken]
    return x, y, lengths


def flat(x: np.ndarray | Inputs) -> np.ndarray:
    """Inputs as a few numbers a step; pictures as the means of coarse cells; of several inputs all of them."""
    if isinstance(x, Inputs):
        return np.concatenate([flat(values) for values in x.spread()], 1)
    if x.ndim == 2:
        return x.astype(float)
    x = x[..., None] if x.ndim == 3 else x  # Grey.
    steps, height, width, channels = x.shape
    rows, columns = min(4, height), min(6, width)
    cut = x[:, : height // rows * rows, : width // columns * columns].astype(np.float32)
    cells = cut.reshape(steps, rows, height // rows, columns, width // columns, channels).mean((2, 4, 5))
    return cells.reshape(steps, -1).astype(float)


def lagged(x, y, lengths, lags: Iterable[int], skip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs at t - lag for all lags, and the target at t, of train then validation, but for `skip` at both ends.

    Skipped where no record is that long.
    """
    out = []
    for part in ("train", "validation"):
        rows, targets, start = [], [], 0
        for length in lengths[part]:
            if length > 2 * skip:
                at = np.arange(start + skip, start + length - skip)
                rows.append(np.concatenate([x[part][at - lag] for lag in lags], 1))
                targets.append(y[part][at])
            start += length
        if not rows:
            raise Skipped(f"no record is longer than {2 * skip} steps, which this look needs")
        out += [np.concatenate(rows), np.concatenate(targets)]
    return tuple(out)


def fitted(x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray) -> float:
    """Variance explained on held-out steps by ridge regression; at least 0."""
    mean, deviation = x.mean(0), x.std(0) + 1e-9
    x, held_x = (x - mean) / deviation, (held_x - mean) / deviation
    weights = np.linalg.solve(x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1]), x.T @ (y - y.mean()))
    return explained(held_x @ weights + y.mean(), held_y)


def explained(prediction: np.ndarray, truth: np.ndarray) -> float:
    spread = float(np.var(truth))
    return max(0.0, 1 - float(np.mean((prediction - truth) ** 2)) / spread) if spread > 0 else 0.0


def single(x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray) -> tuple[int, float]:
    """The feature that tells most of the target by a line through it alone, and how much, on held-out steps."""
    mean, spread = x.mean(0), x.var(0) + 1e-12
    slope = ((x - mean) * (y - y.mean())[:, None]).mean(0) / spread
    lines = (held_x - mean) * slope + y.mean()
    said: Sequence[float] = [explained(line, held_y) for line in lines.T]
    best = int(np.argmax(said))
    return best, said[best]
