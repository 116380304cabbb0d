"""Who holds the wheel: the model, until a person takes it, and again when they let go."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..json_types import JsonMapping
from ..worlds.world import World
from .limits import Refused
from .recorder import Recorder

HELD_S = 1.0
"""The model drives again this long after the last word of the hands."""
SURE_S = 0.3
"""Seconds that a word counts as what the hands do now; what is held longer is driven, but not learned from."""


@dataclass(frozen=True)
class Hands:
    """What the hands did last, and when."""

    time_s: float
    held: dict[str, float]
    """Each control's value."""


class Wheel:
    """Holder of the wheel: threads take it or let it go; the stage asks it, step by step, for what is driven."""

    def __init__(
        self,
        controls: Mapping[str, tuple[float, float]],
        recorder: Recorder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`controls` are the world's, from the lowest to the highest value of each."""
        self.controls, self.recorder, self.clock = controls, recorder, clock
        self.hands = "model"
        self._last: Hands | None = None

    def take(self, command: JsonMapping) -> None:
        """The page's `wheel`. Refused where a value is not a finite number; beyond its range it is cut off."""
        given = {name: command.get(name, 0.0) for name in self.controls}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
                raise Refused(f"{name} is not a finite number", "send numbers")
        held = {name: min(max(float(given[name]), low), high) for name, (low, high) in self.controls.items()}
        self._last = Hands(self.clock(), held)

    def release(self) -> None:
        """The model drives from the next step on."""
        self._last = None

    def begin(self, world: World, name: str) -> None:
        """Nothing of the last track leads to this one."""
        self.end()

    def action(self, world: World, observation: np.ndarray, prediction: dict[str, float]) -> np.ndarray:
        """What is driven in the next step of a world, and its recording."""
        last = self._last  # Once: another thread may let go meanwhile.
        silent_s = self.clock() - last.time_s if last else HELD_S
        hands = last if silent_s < HELD_S else None
        self.hands = "person" if hands else "model"
        action = world.by_hand(hands.held) if hands else world.act(world.done_by_model(prediction))
        if self.recorder:
            self.recorder.step(observation, world.labelled(action), hands is not None, silent_s <= SURE_S)
        return action

    def end(self) -> None:
        """The track ended, or was left."""
        if self.recorder:
            self.recorder.end()
