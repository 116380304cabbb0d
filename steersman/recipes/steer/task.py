"""Task of steering: a wheel is estimated, and its page speaks of bends, drivers and left."""

from dataclasses import dataclass
from typing import ClassVar

from ...evaluation.sections import Words
from ...evaluation.tasks import Estimate

EDGES = (0.0, 0.05, 0.1, 0.2, 0.4, float("inf"))
"""Bounds of the steering, as a fraction of full lock, by which errors are sorted: the sharper the bend the larger."""


@dataclass(frozen=True)
class EstimateSteering(Estimate):
    """The wheel is estimated, as a fraction of full lock, positive to the left."""

    unit: str = "fraction of full lock, positive to the left"

    usual: ClassVar[bool] = False
    edges: ClassVar[tuple[float, ...]] = EDGES
    words: ClassVar[Words] = Words(
        truth="driver",
        up="left is up",
        zero="Zero always steers straight",
        sizes="Most of any drive is nearly straight, so one average hides the bends. Here the steps are sorted by the "
        "size of the true value: of steering, by how sharp the bend is.",
        bins="Small values fill most of a drive and are easy; the bins to the right are the bends.",
        timing="A camera sees the steering only once the car has turned, and a careless model learns to follow rather "
        "than to lead.",
    )
