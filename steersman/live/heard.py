"""A microphone's sound cut into words: what is louder than the room, with a little of what came before it."""

from collections import deque
from math import inf

import numpy as np

ABOVE_DB = 10.0
"""A word is so much louder than the room."""
LEAST_DB = -55.0
"""A word is louder than this, a sample at full scale being 0."""
RISE_DB_S = 3.0
"""By so much a second the room may become louder; softer it is at once."""
BEFORE_S, QUIET_S, LONGEST_S = 0.05, 0.25, 3.0
"""What a word begins before it is loud, the quiet that ends it, and the longest one."""


class Words:
    """Which steps of a stream are of a word; the quiet within one comes when it goes on, that after it never."""

    def __init__(self, rate_hz: float):
        """`rate_hz`: steps a second."""
        self._rise = RISE_DB_S / rate_hz
        self._quiet, self._longest = max(1, round(QUIET_S * rate_hz)), round(LONGEST_S * rate_hz)
        self._before: deque[np.ndarray] = deque(maxlen=max(1, round(BEFORE_S * rate_hz)))
        self._room_db = inf
        self._held: list[np.ndarray] = []
        self._steps = 0

    def hear(self, step: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """The steps of words that this one brings, and whether each is the first of its word."""
        level_db = 10 * np.log10(np.square(step, dtype=np.float64).mean() + 1e-12)
        self._room_db = max(min(level_db, self._room_db + self._rise), LEAST_DB - ABOVE_DB)
        loud = level_db > self._room_db + ABOVE_DB
        if not self._steps:
            if not loud:
                self._before.append(step)
                return []
            found = [*self._before, step]
            self._before.clear()
            self._steps = len(found)
            return [(one, place == 0) for place, one in enumerate(found)]
        self._held.append(step)
        found = self._held if loud else []
        self._steps += 1
        if len(self._held) >= self._quiet or self._steps >= self._longest:
            self._before.extend([] if loud else self._held)
            self._held, self._steps = [], 0
        elif loud:
            self._held = []
        return [(one, False) for one in found]
