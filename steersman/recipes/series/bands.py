"""Bands that grow where they miss too often, and shrink where they hold too much, while a series is gone through."""

import numpy as np
from jaxtyping import Float

from ...training.recipe import INTERVAL

MISSED = 1 - (INTERVAL[1] - INTERVAL[0])
"""Share of what comes that is to lie beyond a band."""
MOST = 2.0
"""Logarithm of the factor by which a band is made wider, or narrower, at most."""


class AdaptiveBands:
    """Adaptive conformal inference (Gibbs & Candes 2021), a factor of the band for each number that is forecast.

    State: the logarithm of each factor, and the forecasts whose moment has not come. Each value that comes is held
    against what was forecast of it: a miss lengthens the logarithm by `rate` times the share that is to be held, a hit
    shortens it by `rate` times the rest. Over a long stretch the share of misses is MISSED, whatever the series does.
    """

    def __init__(self, targets: int, horizon: int, rate: float):
        self.longer, self.shorter, self.step = rate * (1 - MISSED), rate * MISSED, 0
        self.log = np.zeros((targets, horizon, 1))
        self.due = np.full((horizon, horizon, targets, 2), np.nan)
        """Bands by the step that they are about (counted round and round) and by how long before they were said."""
        self.places = [(step + 1 + np.arange(horizon)) % horizon for step in range(horizon)]
        self.before = np.arange(horizon)

    def __call__(
        self,
        now: Float[np.ndarray, "target"],
        point: Float[np.ndarray, "target ahead"],
        bounds: Float[np.ndarray, "target ahead 2"],
    ) -> Float[np.ndarray, "target ahead 2"]:
        """The bounds of a step by what was learned up to it, the values that it brings (NaN: none) among that."""
        place, value = self.step % len(self.due), now[:, None]
        due = self.due[place].swapaxes(0, 1)
        low, high = due[..., 0], due[..., 1]
        change = np.where((value < low) | (value > high), self.longer, -self.shorter)
        if self.step < len(self.due) or (now != now).any():
            change[np.isnan(value - low)] = 0  # Nothing came, or nothing was said of it.
        self.log[..., 0] += change
        np.minimum(np.maximum(self.log, -MOST, out=self.log), MOST, out=self.log)
        middle = point[..., None]
        found = middle + np.exp(self.log) * (bounds - middle)
        self.due[self.places[place], self.before] = found.swapaxes(0, 1)
        self.step += 1
        return found
