"""How far the scene moves sideways from picture to picture, and how long after the wheel it does.

When a car turns left the scene moves right, so the motion resembles a steering angle that is positive = left; by how
many frames it trails the label is the lag between the two. No model is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BANDS, COLUMNS = 4, 160
"""The whole picture is averaged to so many rows and to at most so many columns."""
HORIZON = (0.4, 0.5, 0.2, 0.8)
"""Top, bottom, left, right of what lies far ahead, where a fast car's own motion hardly shows: in full detail."""
REACH = 16
"""Columns by which the scene may move between two pictures, of each window's own."""
WINDOWS = ("whole", "horizon")
MAX_LAG_S = 1.0
FLAT = 0.01
"""Lags whose correlation is so close to the best are as good."""
FEWEST = 50
"""Steps below which a record tells no lag."""
CLEAR = 0.3
"""Correlation from which a lag is believed."""


class Motion:
    """Fed pictures in order, it tells by how many columns each has moved since the one before; right is positive."""

    def __init__(self):
        self.last: list[np.ndarray] | None = None

    def add(self, pictures: np.ndarray) -> np.ndarray:
        """(time height width 3) uint8 to (time, window): columns; NaN for the first picture of all."""
        windows = [_whole(pictures), _horizon(pictures)]
        before = self.last or [np.full_like(window[:1], np.nan) for window in windows]
        self.last = [window[-1:] for window in windows]
        return np.stack([_moved(np.concatenate([b, w])) for b, w in zip(before, windows, strict=True)], -1)


@dataclass(frozen=True)
class Lag:
    """What the motion tells of the label: the lag of highest correlation, and the lags that are as good."""

    frames: int
    seconds: float
    least_s: float
    most_s: float
    correlation: float
    """Correlation at that lag: above zero where the label is positive = left."""
    window: str
    curve: list[dict[str, float]]
    """Rows {lag_s, correlation}."""


def find_lag(motions: Sequence[np.ndarray], labels: Sequence[np.ndarray], rates_hz: Sequence[float]) -> Lag | None:
    """The lag in records of (time, window) motions and (time,) labels; None where neither window tells anything.

    A step's motion is that to the next picture. Records count by their length; their lags are compared in seconds.
    """
    rate_hz = float(np.median(rates_hz)) if len(rates_hz) else 0.0
    lags = np.arange(-round(MAX_LAG_S * rate_hz), round(MAX_LAG_S * rate_hz) + 1)
    found = []
    for index, window in enumerate(WINDOWS):
        total, weight = np.zeros(len(lags)), 0
        for motion, label, rate in zip(motions, labels, rates_hz, strict=True):
            curve = _correlations(motion[1:, index], label[:-1], round(MAX_LAG_S * rate))
            if curve is not None:
                own_s = np.arange(len(curve)) - len(curve) // 2
                total += len(label) * np.interp(lags / rate_hz, own_s / rate, curve)
                weight += len(label)
        if weight:
            found.append((window, total / weight))
    if not found:
        return None
    window, curve = max(found, key=lambda pair: np.abs(pair[1]).max())
    best = int(np.abs(curve).argmax())
    if abs(curve[best]) < CLEAR:
        return None
    good = lags[np.abs(curve) >= abs(curve[best]) - FLAT] / rate_hz
    rows = [{"lag_s": float(s / rate_hz), "correlation": float(r)} for s, r in zip(lags, curve, strict=True)]
    best_s, least_s, most_s = float(lags[best] / rate_hz), float(good.min()), float(good.max())
    return Lag(int(lags[best]), best_s, least_s, most_s, float(curve[best]), window, rows)


def _whole(pictures: np.ndarray) -> np.ndarray:
    """(time, band, column) mean brightness."""
    green = pictures[..., 1].astype(np.float32)
    time, height, width = green.shape
    bands, step = min(BANDS, height), -(-width // COLUMNS)
    green = green[:, : height // bands * bands, : width // step * step]
    return green.reshape(time, bands, height // bands, width // step, step).mean((2, 4))


def _horizon(pictures: np.ndarray) -> np.ndarray:
    height, width = pictures.shape[1:3]
    top, bottom, left, right = (round(s * n) for s, n in zip(HORIZON, (height, height, width, width), strict=True))
    return pictures[:, top : max(bottom, top + 1), left:right, 1].astype(np.float32)


def _moved(rows: np.ndarray) -> np.ndarray:
    """(time, row, column) to (time - 1,): the shift of highest correlation, between columns by a parabola."""
    reach = min(REACH, rows.shape[2] // 4)
    width = rows.shape[2] - 2 * reach
    if reach < 2:
        return np.full(len(rows) - 1, np.nan)
    before, scores = _centred(rows[:-1, :, reach : reach + width]), []
    for shift in range(-reach, reach + 1):
        after = _centred(rows[1:, :, reach + shift : reach + shift + width])
        scores.append(np.einsum("trc,trc->t", before, after))
    score = np.nan_to_num(np.stack(scores, -1))
    best = score[:, 1:-1].argmax(1) + 1
    low, top, high = (score[np.arange(len(score)), best + side] for side in (-1, 0, 1))
    bend = low - 2 * top + high
    between = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, 1), 0).clip(-0.5, 0.5)
    # Pictures without any pattern have moved by nothing that could be seen.
    return np.where(np.isnan(rows[:-1, 0, 0]), np.nan, np.where(top > 0, best - reach + between, 0))


def _centred(rows: np.ndarray) -> np.ndarray:
    """Each band without its mean, each picture of length one."""
    rows = rows - rows.mean(2, keepdims=True)
    return rows / (np.sqrt(np.square(rows).sum((1, 2), keepdims=True)) + 1e-6)


def _correlations(motion: np.ndarray, label: np.ndarray, most: int) -> np.ndarray | None:
    """Correlations of motion[t + lag] with label[t], lag from -most to most; None where one of them never varies."""
    good = np.isfinite(motion) & np.isfinite(label)
    if good.sum() < max(FEWEST, 4 * most):
        return None
    motion, label = (np.where(good, v - v[good].mean(), 0) for v in (motion, label))
    if label.std() < 1e-6 or motion.std() < 1e-6:
        return None
    found = []
    for lag in range(-most, most + 1):
        x, y = motion[max(lag, 0) : len(motion) + min(lag, 0)], label[max(-lag, 0) : len(label) - max(lag, 0)]
        spread = x.std() * y.std()
        found.append(float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 1e-12 else 0.0)
    return np.array(found)
