"""Clocks of logs as they come: rows out of order, and stamps so coarse that several rows share one."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

SHUFFLED = 0.05
"""Share of steps back in time from which rows are out of order; fewer mean that the clock was set."""
SHARED = 0.05
"""Share of rows with the stamp of the row before from which a clock is too coarse; fewer mean nothing."""
UNLIKE = 0.25
"""Share by which the number of rows to a stamp may differ from what the usual rate gives; one row always may."""
PAUSE_S = 1e4
"""Seconds between two runs."""
ODD = 0.1
"""Share of stamps that may differ by more: pauses, and rows that were lost."""


def ordered(time_s: np.ndarray, sessions: Sequence[object]) -> tuple[np.ndarray | None, str]:
    """Order (row,) of rows that were shuffled, each session by its clock, and what is said of it; else None, "".

    A clock that goes back now and then was set, and is left as it is.
    """
    same = np.array([a == b for a, b in pairwise(sessions)], bool)
    back = int(((np.diff(time_s) < 0) & same).sum())
    if back <= max(2, SHUFFLED * len(same)):
        return None, ""
    first = {session: place for place, session in reversed(list(enumerate(sessions)))}
    order = np.lexsort((time_s, np.array([first[session] for session in sessions])))
    return order, f"{back} rows stood behind later ones, so all were sorted by it"


def runs(time_s: np.ndarray, sessions: Sequence[object]) -> np.ndarray:
    """The clock of several runs as one that ascends, a long pause where another session begins or it was set back."""
    step = np.diff(time_s)
    other = np.array([a != b for a, b in pairwise(sessions)], bool) | (step < 0)
    return np.append(0.0, np.cumsum(np.where(other, PAUSE_S, step))) if other.any() else time_s


def coarse(time_s: np.ndarray) -> bool:
    """Whether more than a few rows share their stamp with another."""
    return len(time_s) - len(np.unique(time_s)) > SHARED * len(time_s)


def spread(time_s: np.ndarray) -> tuple[np.ndarray, str]:
    """An ascending clock of which rows share stamps, as one of a stamp each, and what is said of it.

    A stamp tells when its first row was taken, as of whole seconds; the rows up to the next stand evenly between. The
    first and the last stamp, whose rows may be fewer, have the usual rate. A clock whose stamps are hardly ever shared
    comes back as it is. ValueError where the stamps' numbers of rows don't fit a rate.
    """
    if not coarse(time_s):
        return time_s, ""
    stamps, counts = np.unique(time_s, return_counts=True)
    spans = np.diff(stamps)
    if not len(spans):
        raise ValueError(f"its clock stands still: all of {len(time_s)} stamps are {stamps[0]:.10g} s")
    # The rows of the first and the last stamp may be fewer.
    inner, between = (counts[1:-1], spans[1:]) if len(spans) > 1 else (counts[:1], spans)
    tick = float(np.median(between))
    rate = float(np.median(inner / between))
    due = rate * np.minimum(between, tick)
    even = np.abs(inner - due) <= np.maximum(1 + 1e-6, UNLIKE * due)
    if (~even).sum() > ODD * len(inner):
        raise ValueError(
            f"its clock is too coarse: from {inner.min()} to {inner.max()} frames share a stamp, "
            f"though the stamps lie {tick:.10g} s apart, so when each was taken can't be told"
        )
    rate = float(inner[even].sum() / np.minimum(between, tick)[even].sum())
    # Behind a pause, or where rows were lost, the usual rate goes on.
    step = spans / counts[:-1]
    step = np.append(np.where(step > (1 + UNLIKE) / rate, 1 / rate, step), min(tick / counts[-1], 1 / rate))
    place = np.arange(len(time_s)) - np.repeat(np.append(0, np.cumsum(counts)[:-1]), counts)
    found = np.repeat(stamps, counts) + place * np.repeat(step, counts)
    # A recording begins somewhere between two ticks of its clock.
    first, begins = int(counts[0]), min(float(spans[0]), tick)
    if first < rate * begins:
        found[:first] = stamps[0] + begins - (first - np.arange(first)) / rate
    usual = int(np.median(inner))
    return found, f"up to {counts.max()} frames share a stamp, usually {usual}: spread evenly between stamps"
