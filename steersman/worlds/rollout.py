"""Policy meets world: scored episodes."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..processes import in_parallel
from ..training.run import find, load

Driver = Callable[[np.ndarray, Any], tuple[dict[str, float], Any]]
"""(picture, state) -> (named prediction, state); the first state is None."""


EXPERT = "expert"


def driver(name: str, world: Any) -> Driver:
    """The world's expert, or the model of a run."""
    if name == EXPERT:
        expert = world.expert()
        return lambda picture, state: (expert.act(world), state)
    return _model(str(find(name))).step


@lru_cache(maxsize=2)
def _model(folder: str):
    model = load(folder)
    if missing := {"steer", "pace"} - set(model.head.targets):
        raise UserError(f"{folder} can't drive: it doesn't predict {' and '.join(sorted(missing))}")
    return model


@contextmanager
def _one_thread() -> Iterator[None]:
    """One step of a small network is quickest, and always the same, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@_one_thread()
def drive(config: Any, name: str, seed: int, watch: Callable[..., None] | None = None) -> dict[str, Any]:
    """One scored episode. `watch` is called with (world, picture, prediction, info, score) at every step."""
    world = config.build()
    act = driver(name, world)
    picture, info = world.reset(seed=seed)
    state, score, done, off = None, 0.0, False, [False]
    episode: dict[str, Any] = {"seed": seed, "off_road": [], "latency_ms": [], "path_m": []}
    while not done:
        began = time.perf_counter()
        prediction, state = act(picture, state)
        episode["latency_ms"].append((time.perf_counter() - began) * 1e3)
        if watch:
            watch(world, picture, prediction, info, score)
        picture, reward, terminated, truncated, info = world.step(world.controls(prediction))
        score, done = score + reward, terminated or truncated
        x_m, y_m = world.position_m.tolist()
        episode["path_m"].append((round(x_m, 2), round(y_m, 2)))
        if info["off_road"] and not off[-1]:
            episode["off_road"].append({"time_s": info["time_s"], "x_m": x_m, "y_m": y_m})
        off.append(info["off_road"])
    track = world.course.points_m.round(2).tolist()
    return episode | {"score": score, "steps": world.steps, "lap": info["lap"], "track_m": track}


def drives(config: Any, name: str, seeds: Iterable[int], workers: int = 1) -> Iterator[dict[str, Any]]:
    """Scored episodes of one driver, in the order of the seeds."""
    if name != EXPERT:
        _model(str(find(name)))  # A run that can't drive is found out here, not in a worker.
    return in_parallel(partial(drive, config, name), list(seeds), workers)
