"""Which panels a page has, by the task, what its model says and what is shown of it; nothing else decides that."""

from collections.abc import Mapping

from ..nn.heads import Head
from ..training.task import TaskSpec
from .shows import Show


def panels(task: TaskSpec, head: Head, show: Show) -> tuple[str, ...]:
    """Their names, for a task whose model has this head, on this show.

    picture: what is seen. Then those of the task, as a steering wheel. controls: what is done in a world.
    microphone: what is heard. chart, classes, words: what is said, over time. training: how that goes.
    """
    asked = {
        "picture": all(show.size),
        **dict.fromkeys(task.panels(head.targets), True),
        "controls": show.world is not None,
        "microphone": show.source == "microphone",
        "words" if head.symbols is not None else "classes" if head.classes else "chart": True,
        "training": show.source == "training",
    }
    return tuple(name for name, wanted in asked.items() if wanted)


def main_target(task: TaskSpec, head: Head) -> str | None:
    """The target that is drawn over time: that of the task's panel, or else the first that is a quantity."""
    return next(iter((*task.panels(head.targets).values(), *usual(task, head))), None)


def usual(task: TaskSpec, head: Head) -> dict[str, list[float]]:
    """The usual range of each target; where it has one, by its definition."""
    found = head.usual() | task.ranges(head.targets)
    return {name: [round(end, 3) for end in found[name]] for name in head.targets if name in found}


def controls(show: Show) -> Mapping[str, tuple[float, float]]:
    """What is done in the world that is shown: the lowest and the highest value of each control."""
    return {} if show.world is None else show.world.controls
