"""Simulators a model drives in, closed loop: Gymnasium environments, each with its own expert.

The specs stand here, so that a recipe can name a world on a machine that has no simulator.
"""

import math
from dataclasses import dataclass
from typing import Any

from ..config import Spec


@dataclass(frozen=True)
class CarRacing(Spec):
    """Gymnasium's CarRacing-v3: tracks drawn from a seed, one lap each, scored as the stock environment does."""

    domain_randomize: bool = False
    """Draw new colours for road and grass in every episode."""
    blackouts: float = 0.0
    """Share of the time in which the picture is black, in spells of 10 to 25 steps."""
    max_steps: int = 1000
    """Steps of 1/50 s after which an episode ends."""

    BOUNDS = {"blackouts": (0, 0.9), "max_steps": (1, math.inf)}

    def build(self, render: bool = True) -> Any:
        """Without `render` the observation is all zeros and a step some ten times as fast."""
        from .car_racing import CarRacingWorld

        return CarRacingWorld(self, render)


WORLDS: dict[str, type[CarRacing]] = {"car-racing": CarRacing}
