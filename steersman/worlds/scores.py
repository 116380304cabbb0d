"""Closed-loop scores."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from ..evaluation.metrics import Scores
from .rollout import Episode
from .world import Words


def driving_scores(episodes: Sequence[Episode]) -> Scores:
    """Scores over episodes of one world, with what that world counts itself; `sd` is of the sample, None for one."""
    score = np.array([episode.score for episode in episodes], float)
    latency_ms = np.concatenate([np.asarray(episode.latency_ms, float) for episode in episodes])
    return {
        "episodes": len(episodes),
        "mean": float(score.mean()),
        "sd": float(score.std(ddof=1)) if len(score) > 1 else None,
        "min": float(score.min()),
        "max": float(score.max()),
        "median": float(np.median(score)),
        "successes": sum(episode.done_well for episode in episodes),
        "not_finite": sum(not episode.finite for episode in episodes),
        "seeds": [episode.seed for episode in episodes],
        "scores": score.tolist(),
        "steps": [episode.steps for episode in episodes],
        **episodes[0].world.scores(episodes),
        "latency_ms": _latency(latency_ms),
    }


def _latency(latency_ms: np.ndarray) -> dict[str, float] | None:
    if len(latency_ms) == 0:
        return None
    return {"median": float(np.median(latency_ms)), "p99": float(np.percentile(latency_ms, 99))}


def drive_table(policies: Mapping[str, Scores], words: Words, published: Sequence[tuple] = ()) -> Table:
    """Closed-loop scores, a row a policy."""
    table = Table("driver", "mean", "sd", "min", words.successes, "ms a step", box=None)
    for name, s in policies.items():
        sd = "" if s["sd"] is None else f"{s['sd']:.1f}"
        successes = f"{s['successes']} of {s['episodes']}"
        table.add_row(name, f"{s['mean']:.1f}", sd, f"{s['min']:.1f}", successes, f"{s['latency_ms']['median']:.2f}")
    for name, mean, sd, _ in published:
        table.add_row(f"{name} (published)", f"{mean:.1f}", "" if sd is None else f"{sd:.0f}", style="dim")
    return table
