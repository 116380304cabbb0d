"""Seasons: after how many steps a series repeats itself."""

from collections.abc import Sequence

import numpy as np

from ..data.records import last_known

LONGEST_SEASON = 800
"""Steps of the longest season that is looked for."""


LOOKED_AT = 200_000
"""Last steps of a series among which it is looked for."""
LEAST = 0.2
"""Autocorrelation of a season."""
PARTS = 12
"""Parts of a season that a series is averaged over before it is told from noise that merely wanders."""
SURE = 4.0
"""Standard errors of the autocorrelation of noise that a season's exceeds; hundreds of lags are looked at."""


def find_season(series: Sequence[np.ndarray]) -> int:
    """Steps after which a series repeats itself, by the highest peak of its autocorrelation; 1: none is found.

    What wanders (a random walk, red noise) has peaks, too. So a season also has to show in what is left when the part
    of each value that follows from the one before it is taken away, of averages over a twelfth of it.
    """
    values = max(series, key=len)[-LOOKED_AT:].astype(float)
    values = last_known(values)[np.argmax(~np.isnan(values)) :]
    if len(values) < 16:
        return 1
    clock = np.arange(len(values)) - (len(values) - 1) / 2
    change = values - values.mean() - clock * (clock @ values) / (clock @ clock)
    correlation = _autocorrelation(change, min(len(change) // 2, LONGEST_SEASON))
    least = max(LEAST, SURE / len(change) ** 0.5)
    peaks = [
        lag
        for lag in range(2, len(correlation) - 1)
        if correlation[lag - 1] <= correlation[lag] >= correlation[lag + 1]
        and correlation[lag] > LEAST
        and correlation[lag] - correlation[:lag].min() > least
        and _repeats(change, lag)
    ]
    if not peaks:
        return 1
    # Of peaks nearly as high the first: two days repeat, too.
    highest = max(correlation[lag] for lag in peaks)
    return next(lag for lag in peaks if correlation[lag] >= 0.9 * highest)


def _repeats(values: np.ndarray, lag: int) -> bool:
    size = max(1, lag // PARTS)
    parts = values[: len(values) // size * size].reshape(-1, size).mean(1)
    at = round(lag / size)
    before = _autocorrelation(parts, 2)
    left = parts[1:] - before[-1] * parts[:-1]
    return bool(_autocorrelation(left, at + 2)[max(2, at - 1) :].max(initial=0) > SURE / len(left) ** 0.5)


def _autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Of so many lags from 0 on; zeros where the values are all the same."""
    values = values - values.mean()
    spectrum = np.fft.rfft(values, 1 << (2 * len(values) - 1).bit_length())
    found = np.fft.irfft(spectrum * np.conj(spectrum))[:lags]
    return found / found[0] if found[0] > 0 else np.zeros(lags)
