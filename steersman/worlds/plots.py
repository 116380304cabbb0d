"""Plots of drives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.page import Key, Plot
from ..evaluation.plots import ALARM, DOTS, MARKER, MODEL, PAPER, RULE, colours_of, draw


@dataclass(frozen=True)
class Drive:
    """Where a drive went: centre line and path (point, xy) in metres; `off_road`: time_s, x_m, y_m."""

    name: str
    track_m: np.ndarray
    path_m: np.ndarray
    off_road: Sequence[Mapping[str, float]] = ()
    road_width_m: float = 40 / 3
    """Edge to edge; the default is CarRacing's."""


def scores_per_track(seeds: Sequence[int], scores: Mapping[str, Sequence[float]]) -> Plot:
    """A dot for each driver and track; tracks in order of the first driver's score."""
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
        axes.set_title("score on each track")
        axes.set_xlabel("track (seed)" if named else f"{len(order)} tracks, ordered by score")

    return draw(
        "Each column is one track, from the model's worst at the left to its best at the right; compare the "
        "drivers within a column.",
        paint,
        300,
        300,
        [Key(colour, name) for name, colour in series.items()],
    )


def track_map(drives: Sequence[Drive]) -> Plot:
    """One map a drive: the road, the path on it, a cross where it left the road."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        columns = min(len(drives), 3 if is_wide else 2)
        grid = drawing.subplots(-(-len(drives) // columns), columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, drive in zip(grid, drives, strict=False):
            _map(axes, drive)

    rows_wide, rows_narrow = -(-len(drives) // 3), -(-len(drives) // 2)
    return draw(
        "The road from above, the path that was driven, the start as a dot, and a cross wherever the car "
        "left the road.",
        paint,
        250 * rows_wide,
        185 * rows_narrow,
        [Key("rule", "road"), Key("model", "path"), Key("alarm", "left the road")],
    )


def _map(axes: Axes, drive: Drive) -> None:
    centre = np.concatenate([drive.track_m, drive.track_m[:2]])
    along = np.gradient(centre, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    road = np.concatenate([centre + across * drive.road_width_m / 2, (centre - across * drive.road_width_m / 2)[::-1]])
    axes.fill(*road.T, color=RULE, linewidth=0)
    axes.plot(*drive.path_m.T, color=MODEL, linewidth=1.4)
    axes.plot(*drive.path_m[0], "o", color=MODEL, markersize=6, markeredgecolor=PAPER)
    for place in drive.off_road:
        axes.plot(place["x_m"], place["y_m"], "x", color=ALARM, markersize=9, markeredgewidth=2.4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(drive.name, loc="center")
