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
FALSE = 1e-3
"""Chance that the highest of all lines of noise is taken for a season."""
AROUND = 16
"""Frequencies on either side whose mean power a line is held against; the nearest two may be part of it."""
CYCLES = 8
"""Seasons that a series holds at least, where only its spectrum tells of them."""


def find_season(series: Sequence[np.ndarray]) -> int:
    """Steps after which a series repeats itself; 1: none is found.

    By the highest peak of its autocorrelation. What wanders (a random walk, red noise) has peaks, too. So a season also
    has to show in what is left when the part of each value that follows from the one before it is taken away, of
    averages over a twelfth of it. A season too weak for that is one by the highest line of its spectrum.
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
    line = _line(change)
    if not peaks:
        return line
    # Of peaks nearly as high the first: two days repeat, too.
    highest = max(correlation[lag] for lag in peaks)
    peak = next(lag for lag in peaks if correlation[lag] >= 0.9 * highest)
    # A line is told more exactly than a flat peak, where it says the same or that this is a multiple.
    as_high = 1 < line < len(correlation) and correlation[line] >= 0.9 * highest - 2 / len(change) ** 0.5
    return line if as_high and line < 1.5 * peak else peak


def _line(values: np.ndarray) -> int:
    """Period of the line that stands highest above the spectrum around it, by an F-test; 1: none stands out.

    Of anything without lines the quotient of one frequency's power and the mean of n around it has the F distribution
    of 2 and 2 n degrees (compare Thomson 1982). A true line shows in the autocorrelation, too.
    """
    before = _autocorrelation(values, 2)[-1]
    left = values[1:] - before * values[:-1]
    power = np.abs(np.fft.rfft(left - left.mean())[1:]) ** 2
    if len(power) <= 2 * AROUND:
        return 1
    weights = np.ones(2 * AROUND + 1)
    weights[AROUND - 2 : AROUND + 3] = 0
    weights /= (count := weights.sum())
    middle = np.convolve(np.pad(power, AROUND, mode="reflect"), weights, mode="valid")
    height = np.divide(power, middle, where=middle > 0, out=np.zeros(len(power)))
    height[: CYCLES - 1] = 0
    best = int(height.argmax())
    if count * np.log1p(height[best] / count) < np.log(len(power) / FALSE):
        return 1
    # The period lies between those of two frequencies.
    finer = (best + 1 + np.linspace(-0.5, 0.5, 11)) / len(left)
    waves = np.exp(-2j * np.pi * np.outer(finer, np.arange(len(left))))
    period = round(1 / finer[int(np.abs(waves @ left).argmax())])
    if not 2 <= period <= LONGEST_SEASON:
        return 1
    return period if _autocorrelation(left, period + 1)[-1] > 2 / len(left) ** 0.5 else 1


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
