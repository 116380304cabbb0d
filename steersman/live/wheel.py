"""Who holds the wheel: the model, until a person takes it, and again when they let go."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .limits import Refused
from .recorder import Recorder

HELD_S = 1.0
"""The model drives again this long after the last word of the hands."""
SURE_S = 0.3
"""Until then a word is taken for what the hands do now; what is held for longer is driven, but not learned from."""
PEDALS = {"steer": (-1.0, 1.0), "gas": (0.0, 1.0), "brake": (0.0, 1.0)}


@dataclass(frozen=True)
class Hands:
    """What the hands did last, and when."""

    time_s: float
    steer: float
    gas: float
    brake: float


class Wheel:
    """Any thread may take it or let it go; the stage asks it, step by step, for what is driven."""

    def __init__(self, recorder: Recorder | None = None, clock: Callable[[], float] = time.monotonic):
        self.recorder, self.clock = recorder, clock
        self.hands = "model"
        self._last: Hands | None = None

    def take(self, command: Mapping[str, Any]) -> None:
        """The page's `wheel`. Refused where a value is no finite number; beyond its range it is cut off."""
        given = {name: command.get(name, 0.0) for name in PEDALS}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
                raise Refused(f"{name} is not a finite number", "send numbers")
        held = {name: min(max(float(given[name]), low), high) for name, (low, high) in PEDALS.items()}
        self._last = Hands(self.clock(), **held)

    def release(self) -> None:
        """The model drives from the next step on."""
        self._last = None

    def begin(self, world: Any, name: str) -> None:
        """Nothing of the last track leads to this one."""
        self.end()

    def action(self, world: Any, picture: np.ndarray, prediction: dict[str, float]) -> np.ndarray:
        """Steer, gas and brake of the next step of a world, and its recording.

        A person's pedals go the way of the model's, so that what is driven is what can be learned: one at a time, and
        no more brake than the law for the pedals has.
        """
        hands = self._last  # Once: another thread may let go meanwhile.
        silent_s = self.clock() - hands.time_s if hands else HELD_S
        held = hands if silent_s < HELD_S else None
        self.hands = "person" if held else "model"
        action = world.controls(world.wish(held.steer, held.gas, held.brake) if held else prediction)
        if self.recorder:
            self.recorder.step(picture, world.labels(action), held is not None, silent_s <= SURE_S)
        return action

    def end(self) -> None:
        """The track ended, or was left."""
        if self.recorder:
            self.recorder.end()
