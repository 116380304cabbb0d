"""What forecasts of glucose are judged by in the clinic: the Clarke error grid, and alarms of hypoglycaemia.

Pure functions of arrays, in mg/dL and minutes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ZONES = "ABCDE"
LOW = 70.0
"""mg/dL below which glucose is too low (level 1 of the international consensus, Battelino et al. 2019)."""
APART_MIN = 60.0
"""Minutes before a low in which an alarm counts as right, and for which an alarm goes on."""


def clarke(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Zone (0 is A, 4 is E) of each pair in the error grid of Clarke et al. 1987 (Diabetes Care 10:622).

    A: within 20 %, or both too low; B: further off, without harm; C: would be treated needlessly; D: a danger that is
    not seen; E: taken for the opposite.
    """
    truth, said = np.asarray(truth, float), np.asarray(said, float)
    zones = np.ones(truth.shape, int)
    zones[(said >= truth + 110) & (truth >= 70) & (truth <= 290)] = 2
    zones[(truth >= 130) & (truth <= 180) & (said <= 7 / 5 * truth - 182)] = 2
    zones[(truth >= 240) & (said >= 70) & (said <= 180)] = 3
    zones[(truth <= 70) & (said >= 70) & (said <= 180) & (said > 1.2 * truth)] = 3
    zones[((truth >= 180) & (said <= 70)) | ((truth <= 70) & (said >= 180))] = 4
    zones[((truth <= 70) & (said <= 70)) | (np.abs(said - truth) <= 0.2 * truth)] = 0
    return zones


@dataclass(frozen=True)
class Alarms:
    """How alarms do at one threshold."""

    threshold: float
    recall: float | None
    """Share of the lows that an alarm came before; None where there was none."""
    false_a_day: float
    lows: int
    warned_min: float | None
    """Median minutes from the alarm to the low; None where no low was foreseen."""


def onsets(time_min: np.ndarray, glucose: np.ndarray) -> np.ndarray:
    """Moments (minutes) at which glucose falls below LOW, having been above it for APART_MIN."""
    low = np.flatnonzero(glucose < LOW)
    if not len(low):
        return np.zeros(0)
    first = np.concatenate(([True], np.diff(time_min[low]) > APART_MIN))
    return time_min[low][first]


def alarms(
    series: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float, least_min: float = 0.0
) -> Alarms:
    """Alarms where the lowest value that is forecast is below a threshold while glucose itself is not below LOW.

    Each of `series` is (moment in minutes, glucose now, lowest value forecast). An alarm goes on for APART_MIN, and is
    right where a low begins within it (more than `least_min` later).
    """
    lows = right = wrong = 0
    warned: list[float] = []
    days = 0.0
    for time_min, glucose, forecast in series:
        began = onsets(time_min, glucose)
        raised = time_min[(forecast < threshold) & (glucose >= LOW)]
        lows += len(began)
        days += float(np.minimum(np.diff(time_min), APART_MIN).sum()) / 1440
        for low in began:
            before = raised[(raised >= low - APART_MIN) & (raised < low - least_min)]
            right += len(before) > 0
            warned += [float(low - before[0])] if len(before) else []
        last = -np.inf
        for moment in raised:
            if moment - last >= APART_MIN:
                last = moment
                wrong += not ((began > moment) & (began <= moment + APART_MIN)).any()
    recall = right / lows if lows else None
    return Alarms(threshold, recall, wrong / max(days, 1e-9), lows, float(np.median(warned)) if warned else None)


def threshold_for(series: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], false_a_day: float = 1.0) -> float:
    """The highest threshold with no more false alarms a day."""
    tried = np.arange(50.0, 151.0)
    fit = [level for level in tried if alarms(series, level).false_a_day <= false_a_day]
    return float(max(fit, default=tried[0]))
