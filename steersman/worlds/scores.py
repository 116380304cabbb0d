"""Closed-loop scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from ..evaluation.metrics import Scores


def driving_scores(episodes: Sequence[dict[str, Any]]) -> Scores:
    """Closed-loop scores over tracks; `sd` is of the sample, None for one track.

    An episode has `seed, score, steps, lap, off_road` (dicts of time_s, x_m, y_m) and `latency_ms` (a
    number each step, from picture to action).
    """
    score = np.array([episode["score"] for episode in episodes], float)
    latency_ms = np.concatenate([np.asarray(episode["latency_ms"], float) for episode in episodes])
    return {
        "episodes": len(episodes),
        "mean": float(score.mean()),
        "sd": float(score.std(ddof=1)) if len(score) > 1 else None,
        "min": float(score.min()),
        "max": float(score.max()),
        "median": float(np.median(score)),
        "laps": sum(bool(episode["lap"]) for episode in episodes),
        "seeds": [int(episode["seed"]) for episode in episodes],
        "scores": score.tolist(),
        "steps": [int(episode["steps"]) for episode in episodes],
        "off_road": [{"seed": int(e["seed"]), **place} for e in episodes for place in e["off_road"]],
        "latency_ms": _latency(latency_ms),
    }


def _latency(latency_ms: np.ndarray) -> dict[str, float] | None:
    if len(latency_ms) == 0:
        return None
    return {"median": float(np.median(latency_ms)), "p99": float(np.percentile(latency_ms, 99))}


def drive_table(drivers: Mapping[str, Scores], published: Sequence[tuple] = ()) -> Table:
    """Closed-loop scores, a row a driver."""
    table = Table("driver", "mean", "sd", "min", "laps", "ms a step", box=None)
    for name, s in drivers.items():
        sd = "" if s["sd"] is None else f"{s['sd']:.1f}"
        laps = f"{s['laps']} of {s['episodes']}"
        table.add_row(name, f"{s['mean']:.1f}", sd, f"{s['min']:.1f}", laps, f"{s['latency_ms']['median']:.2f}")
    for name, mean, sd, _ in published:
        table.add_row(f"{name} (published)", f"{mean:.1f}", "" if sd is None else f"{sd:.0f}", style="dim")
    return table
