"""Which panels a page has, by what a model says and by what is shown of it; nothing else decides that."""

from collections.abc import Mapping

from ..nn.heads import Head
from ..training.run import Run
from .shows import Show

TURNING = ("steer", "steering", "angle")
"""Words in the name of a target that turns a steering wheel."""


def panels(run: Run, head: Head, show: Show) -> tuple[str, ...]:
    """Their names, for a run whose model has this head, on this show.

    picture: what is seen. wheel: a target as a steering wheel. controls: what is done in a world. chart, classes,
    words: what is said, over time. training: how that goes.
    """
    asked = {
        "picture": all(show.size),
        "wheel": steering(head.targets) is not None,
        "controls": show.world is not None,
        "words" if head.symbols is not None else "classes" if head.classes else "chart": True,
        "training": show.source == "training",
    }
    return tuple(name for name, wanted in asked.items() if wanted)


def steering(targets: tuple[str, ...]) -> str | None:
    """The target that a steering wheel shows."""
    return next((name for word in TURNING for name in targets if word in name.split("_")), None)


def main_target(head: Head) -> str | None:
    """The target that is drawn over time: that of the wheel, or else the first that is a quantity."""
    return steering(head.targets) or next(iter(usual(head)), None)


def usual(head: Head) -> dict[str, list[float]]:
    """The usual range of each target; steering by its definition."""
    by_definition = {name: (-1.0, 1.0) for name in head.targets if name.endswith("steer")}
    found = head.usual() | by_definition
    return {name: [round(end, 3) for end in found[name]] for name in head.targets if name in found}


def controls(show: Show) -> Mapping[str, tuple[float, float]]:
    """What is done in the world that is shown: the lowest and the highest value of each control."""
    return {} if show.world is None else show.world.controls
