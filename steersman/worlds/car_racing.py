"""Gymnasium's CarRacing-v3, as a recipe names it and a page tells of it; the simulator is `car_racing_world`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..json_types import JsonObject
from .world import Words, World, WorldSpec

if TYPE_CHECKING:
    from ..evaluation.page import Section
    from .rollout import Episode


@dataclass(frozen=True)
class CarRacing(WorldSpec):
    """Gymnasium's CarRacing-v3: tracks drawn from a seed, one lap each, scored as the stock environment does."""

    domain_randomize: bool = False
    """Draw new colours for road and grass in every episode."""
    blackouts: float = 0.0
    """Share of the time in which the picture is black, in spells of 10 to 25 steps."""
    margin: float = 0.03
    """Share of the target speed that a model stays below; the expert, who sees the road itself, keeps to its own.

    A model is less exact than its teacher, and what it errs by takes it off the road where the tyres already hold all
    they can.
    """
    max_steps: int = 1000
    """Steps of 1/50 s after which an episode ends."""

    BOUNDS = {"blackouts": (0, 0.9), "margin": (0, 0.5), "max_steps": (1, math.inf)}
    models_only = ("margin",)
    called = "car-racing"
    needs = ("steer", "pace")
    labels = ("steer", "pace", "gas", "brake", "target_speed_mps", "speed_mps", "yaw_radps")
    words = Words(
        task="drive one lap",
        episode="track",
        seen="picture",
        chosen="How it steered",
        successes="laps",
        title="Laps finished",
        succeeds="finishes",
        rule="a lap is finished when the whole road has been visited",
    )

    def build(self, render: bool = True) -> World:
        """The world; without `render` the observation is all zeros and a step some ten times as fast."""
        from .car_racing_world import CarRacingWorld

        return CarRacingWorld(self, render)

    @property
    def name(self) -> str:
        colours = "-colours" * self.domain_randomize
        blackouts = f"-blackouts-{self.blackouts:g}" if self.blackouts else ""
        short = f"-{self.max_steps}-steps" if self.max_steps != CarRacing.max_steps else ""
        return f"{self.called}{colours}{blackouts}{short}"

    def scores(self, episodes: "Sequence[Episode]") -> JsonObject:
        places = [{"seed": e.seed, **place} for e in episodes for place in e.extras["off_road"]]
        return {"laps": sum(e.done_well for e in episodes), "off_road": places}

    def sections(self, episodes: "Sequence[Episode]") -> "list[Section]":
        from .car_racing_map import where_it_drove

        return [where_it_drove(episodes)]
