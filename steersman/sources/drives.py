"""How the frames of a driving log become Records: the faults met, and the cuts where its clock jumps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from steersman.errors import UserError
from steersman.records import Record, Stream

GAP_S = 1.0
"""A longer pause ends a record, so that no window crosses it."""
FAULTS_SHOWN = 20
FAULTS_SHARE = 0.05
"""Of the frames; a log with more is refused."""


@dataclass
class Faults:
    """Frames of a log that can't be used, each with its reason."""

    log: Path
    found: list[str] = field(default_factory=list)

    def add(self, where: str, what: object) -> None:
        self.found.append(f"{where}: {what}")

    def check(self, num_good: int) -> None:
        """UserError where no frame is left or more than 5 % are lost."""
        if num_good and len(self.found) <= FAULTS_SHARE * (num_good + len(self.found)):
            return
        first = f", the first: {self.found[0]}" if self.found else ""
        raise UserError(
            f"{self.log}: {len(self.found)} of {num_good + len(self.found)} frames can't be read{first}; "
            f"at most {FAULTS_SHARE:.0%} may be bad, so copy the log anew or leave it out"
        )

    def about(self) -> dict[str, Any]:
        return {"faults": self.found[:FAULTS_SHOWN], "num_faults": len(self.found)}


def stretches(time_s: np.ndarray, sessions: Sequence[object]) -> list[slice]:
    """The parts, each of one session, in which the clock neither skips over a second nor goes back."""
    step = np.diff(time_s)
    other = np.array([a != b for a, b in pairwise(sessions)], bool)
    cuts = [0, *(np.flatnonzero((step > GAP_S) | (step < 0) | other) + 1).tolist(), len(time_s)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def rate_hz(time_s: np.ndarray) -> float | None:
    """The usual rate of a clock, None where it never moves."""
    step = np.diff(time_s)
    return round(1 / float(np.median(step[step > 0])), 2) if (step > 0).any() else None


def records(
    log: Path,
    time_s: np.ndarray,
    sessions: Sequence[object],
    streams: Callable[[slice], dict[str, Any]],
    about: dict[str, Any],
) -> list[Record]:
    """A Record for each stretch of the log, its clock from zero; `streams` gives the values of one."""
    parts = stretches(time_s, sessions)
    digits = len(str(len(parts) - 1))
    found = []
    for number, part in enumerate(parts):
        clock = time_s[part] - time_s[part][0]
        name = log.resolve().name + (f"/{number:0{digits}d}" if len(parts) > 1 else "")
        values = {key: Stream(value, clock) for key, value in streams(part).items()}
        found.append(Record(name, values, about))
    return found


def number(value: object, low: float = -1e30, high: float = 1e30) -> float:
    """A plain number within bounds. ValueError says what it is instead."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]!r} is not a number from {low:g} to {high:g}")
    return float(value)
