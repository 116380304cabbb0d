"""Maps of where CarRacing's tracks were driven, from above."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.page import Key, Plot, Section
from ..evaluation.plots import ALARM, MODEL, PAPER, RULE, draw
from .rollout import Episode


@dataclass(frozen=True)
class Drive:
    """The way of a drive: centre line and path (point, xy) in metres; `off_road`: time_s, x_m, y_m."""

    name: str
    track_m: np.ndarray
    path_m: np.ndarray
    off_road: Sequence[Mapping[str, float]] = ()
    road_width_m: float = 40 / 3
    """Edge to edge; the default is CarRacing's."""


def where_it_drove(episodes: Sequence[Episode]) -> Section:
    """A map of every track, and how often the car left the road."""
    drives = [
        Drive(f"track {e.seed}", np.array(e.extras["track_m"]), np.array(e.extras["path_m"]), e.extras["off_road"])
        for e in episodes
    ]
    return Section("Where it drove", _off_road_text(sum(len(d.off_road) for d in drives)), [track_map(drives)])


def _off_road_text(count: int) -> str:
    if count == 0:
        return "The car never left the road."
    times = "once" if count == 1 else f"{count} times"
    return f"The car left the road {times} in all, over every track that was driven."


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
