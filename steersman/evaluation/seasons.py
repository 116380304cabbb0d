"""Seasons: after how many steps a series repeats itself."""

from collections.abc import Sequence

import numpy as np

from ..data.records import last_known

LONGEST_SEASON = 800
"""Steps of the longest season that is looked for."""


def find_season(series: Sequence[np.ndarray]) -> int:
    """Steps after which a series repeats itself, by the highest peak of its autocorrelation; 1: none is found."""
    values = max(series, key=len).astype(float)
    values = last_known(values)[np.argmax(~np.isnan(values)) :]
    if len(values) < 16:
        return 1
    change = values - np.linspace(values[0], values[-1], len(values))
    change -= change.mean()
    size = 1 << (2 * len(change) - 1).bit_length()
    spectrum = np.fft.rfft(change, size)
    correlation = np.fft.irfft(spectrum * np.conj(spectrum), size)[: min(len(change) // 2, LONGEST_SEASON)]
    if correlation[0] <= 0:
        return 1
    correlation /= correlation[0]
    peaks = [
        lag
        for lag in range(2, len(correlation) - 1)
        if correlation[lag] > 0.2 and correlation[lag - 1] <= correlation[lag] >= correlation[lag + 1]
    ]
    if not peaks:
        return 1
    # Of peaks nearly as high the first: two days repeat, too.
    highest = max(correlation[lag] for lag in peaks)
    return next(lag for lag in peaks if correlation[lag] >= 0.9 * highest)
