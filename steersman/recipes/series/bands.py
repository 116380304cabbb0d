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
        self.rate, self.step = rate, 0
        self.log = np.zeros((horizon, targets))
        self.made = np.full((horizon, targets, horizon, 2), np.nan)
        """Bands as they were said so many steps ago; the step's number tells the place."""
        self.ahead = np.arange(1, horizon + 1)

    def __call__(
        self,
        now: Float[np.ndarray, "target"],
        point: Float[np.ndarray, "target ahead"],
        bounds: Float[np.ndarray, "target ahead 2"],
    ) -> Float[np.ndarray, "target ahead 2"]:
        """The bounds of a step by what was learned up to it, the values that it brings (NaN: none) among that."""
        horizon = len(self.ahead)
        due = self.made[(self.step - self.ahead) % horizon, :, self.ahead - 1]
        missed = (now < due[..., 0]) | (now > due[..., 1])
        told = ~np.isnan(now - due[..., 0])
        self.log = (self.log + self.rate * told * (missed - MISSED)).clip(-MOST, MOST)
        middle = point[..., None]
        found = middle + np.exp(self.log.T)[..., None] * (bounds - middle)
        self.made[self.step % horizon] = found
        self.step += 1
        return found
