"""Plots of episodes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..evaluation.page import Key, Plot
from ..evaluation.plots import DOTS, MARKER, PAPER, colours_of, draw


def scores_per_episode(seeds: Sequence[int], scores: Mapping[str, Sequence[float]], called: str) -> Plot:
    """A dot for each policy and episode, in order of the first policy's score; `called` is what an episode is."""
    order = np.argsort(next(iter(scores.values())), kind="stable")
    series = colours_of(scores)

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        for name, colour in reversed(series.items()):
            value = np.asarray(scores[name], float)[order]
            size = 8 if len(order) <= (40 if is_wide else 16) else 5
            style = {
                "color": MARKER[colour],
                "markersize": size,
                "markeredgecolor": PAPER,
                "markeredgewidth": 1,
            }
            axes.plot(range(len(order)), value, DOTS[colour], **style, clip_on=False)
        axes.margins(x=0.03, y=0.08)
        named = len(order) <= (20 if is_wide else 10)
        ticks = range(len(order)) if named else []
        axes.set_xticks(ticks, [str(seeds[i]) for i in order] if named else [], rotation=0 if is_wide else 60)
        axes.tick_params(axis="x", length=0)
        axes.set_title(f"score on each {called}")
        axes.set_xlabel(f"{called} (seed)" if named else f"{len(order)} {called}s, ordered by score")

    return draw(
        f"Each column is one {called}, from the model's worst at the left to its best at the right; compare the "
        "drivers within a column.",
        paint,
        300,
        300,
        [Key(colour, name) for name, colour in series.items()],
    )
