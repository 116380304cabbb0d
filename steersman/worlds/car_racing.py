"""Gymnasium's CarRacing-v3, as a recipe names it and a page tells of it; the simulator is `car_racing_world`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.camera import CameraFaults
from ..errors import UserError
from ..json_types import JsonObject
from .world import Words, World, WorldSpec

if TYPE_CHECKING:
    from ..evaluation.page import Section
    from .rollout import Episode

MOST = CameraFaults(30.0, 2.0, 1.5, 1.6, 0.5, 1.5, 2.0, 0.3, 0.2)
"""The strongest of a mix: noise, light, contrast, gamma, drift, blur, shake, lost pictures, blackouts."""

GAUNTLET: dict[str, dict[str, Any]] = {
    "clear": {},
    "noise of sd 10": {"noise": 10.0},
    "noise of sd 30": {"noise": 30.0},
    "2 steps late": {"latency": 2},
    "4 steps late": {"latency": 4},
    "light x 0.5": {"light": 0.5},
    "light x 0.7": {"light": 0.7},
    "light x 1.3": {"light": 1.3},
    "gamma 0.6": {"gamma": 0.6},
    "gamma 1.6": {"gamma": 1.6},
    "light drifts by 0.4": {"drift": 0.4},
    "blackouts 0.2": {"blackouts": 0.2},
    "pictures lost 0.3": {"drop": 0.3},
    "blur of 1.5 pixels": {"blur": 1.5},
    "shaken by 2 pixels": {"shake": 2.0},
    "new colours": {"domain_randomize": True},
    "friction 0.7": {"friction": 0.7},
    "all at half": {
        **{"noise": 15.0, "light": 0.75, "drift": 0.2, "blur": 0.75, "shake": 1.0, "drop": 0.15, "blackouts": 0.1},
        **{"latency": 2, "friction": 0.85, "domain_randomize": True},
    },
}
"""Conditions of the gauntlet, and what they change."""


@dataclass(frozen=True)
class CarRacing(CameraFaults, WorldSpec):
    """Gymnasium's CarRacing-v3: tracks drawn from a seed, one lap each, scored as the stock environment does."""

    domain_randomize: bool = False
    """Draw new colours for road and grass in every episode."""
    friction: float = 1.0
    """Factor of the road's friction; the grass has 0.6 of the stock road's."""
    latency: int = 0
    """Steps from an action to its being done; an expert is recorded saying what will be right by then."""
    jitter: int = 0
    """Steps by which the latency of each action may be longer or shorter."""
    mixed: float = 0.0
    """Strength of a mix of all disturbances, drawn anew for every episode in the place of those named; 1: full."""
    margin: float = 0.03
    """Share of the target speed that a model stays below; the expert, who sees the road itself, keeps to its own.

    A model is less exact than its teacher, and what it errs by takes it off the road where the tyres already hold all
    they can.
    """
    max_steps: int = 1000
    """Steps of 1/50 s after which an episode ends."""

    BOUNDS = {
        **CameraFaults.BOUNDS,
        "friction": (0.6, 2),
        **dict.fromkeys(("latency", "jitter"), (0, math.inf)),
        "mixed": (0, 1),
        "margin": (0, 0.5),
        "max_steps": (1, math.inf),
    }
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

    def __post_init__(self):
        super().__post_init__()
        if self.latency + self.jitter >= self.max_steps:
            raise UserError(
                f"latency {self.latency} + jitter {self.jitter} outlast an episode of {self.max_steps}; lower them"
            )

    @property
    def name(self) -> str:
        colours = "-colours" * self.domain_randomize
        blackouts = f"-blackouts-{self.blackouts:g}" if self.blackouts else ""
        others = [
            f"-{field.name}-{value:g}"
            for field in fields(self)
            if field.name not in ("domain_randomize", "blackouts", "max_steps", *self.models_only)
            and (value := getattr(self, field.name)) != field.default
        ]
        short = f"-{self.max_steps}-steps" if self.max_steps != CarRacing.max_steps else ""
        return f"{self.called}{colours}{blackouts}{''.join(others)}{short}"

    def drawn(self, rng: np.random.Generator) -> "CarRacing":
        """What an episode is disturbed by: of a mix each part with a probability of one half, up to its strength."""
        if not self.mixed:
            return self

        def upto(most: float) -> float:
            return float(most * self.mixed * rng.random() * (rng.random() < 0.5))

        def about_1(most: float) -> float:
            return float(np.exp(upto(np.log(most)) * rng.choice((-1, 1))))

        return replace(
            self,
            mixed=0.0,
            noise=upto(MOST.noise),
            light=about_1(MOST.light),
            contrast=about_1(MOST.contrast),
            gamma=about_1(MOST.gamma),
            drift=upto(MOST.drift),
            blur=upto(MOST.blur),
            shake=upto(MOST.shake),
            drop=upto(MOST.drop),
            blackouts=upto(MOST.blackouts),
            latency=round(upto(4)),
            jitter=0,
            friction=1 - upto(0.3),
            domain_randomize=bool(rng.random() < self.mixed / 2),
        )

    def gauntlet(self) -> dict[str, "CarRacing"]:
        return {name: replace(self, mixed=0.0, **disturbed) for name, disturbed in GAUNTLET.items()}

    def scores(self, episodes: "Sequence[Episode]") -> JsonObject:
        places = [{"seed": e.seed, **place} for e in episodes for place in e.extras["off_road"]]
        return {"laps": sum(e.done_well for e in episodes), "off_road": places}

    def sections(self, episodes: "Sequence[Episode]") -> "list[Section]":
        from .car_racing_map import where_it_drove

        return [where_it_drove(episodes)]
