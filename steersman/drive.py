"""Policy meets world: drives that are scored, recorded, or driven by the model and labelled by the expert."""

import hashlib
import itertools
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .config import Spec, to_json
from .errors import UserError
from .progress import Watch, silent
from .records import Record
from .runs import OWN, Recipe, Run, find, fit, join_processes, load, own_file
from .sources import lerobot, read
from .sources.frames import locked
from .train import Look
from .worlds import CarRacing

Driver = Callable[[np.ndarray, Any], tuple[dict[str, float], Any]]
"""(picture, state) -> (named prediction, state); the first state is None."""

STRENGTHS = (0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0, 0.06, 0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0)
"""Steering noise of the recorded episodes, over and over."""
LABELS = ("steer", "pace", "gas", "brake", "target_speed_mps", "speed_mps", "yaw_radps")
"""What the expert says of every state."""
DRIVEN = ("driven_steer", "driven_gas", "driven_brake")
"""What was done, which differs by the disturbance, or is the model's."""
LOST_M = 20.0
"""A recording ends this far off the centre line: nothing can be learned there."""
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


@_one_thread()
def recorded_drive(config: Any, name: str, task: tuple[int, float]) -> dict[str, np.ndarray]:
    """Streams of one episode: what was seen, what the expert would do, and what was done instead.

    A task is (seed, strength of the disturbance). A model drives as it pleases, undisturbed.
    """
    seed, strength = task
    world = config.build()
    expert = world.expert()
    learner = None if name == EXPERT else driver(name, world)
    picture, info = world.reset(seed=seed)
    disturbance = world.disturbance(np.random.default_rng((seed, 1)), strength)
    rows, pictures, state, done = [], [], None, False
    while not done and abs(info["offset_m"]) < LOST_M:
        labels = expert.act(world)
        if learner:
            prediction, state = learner(picture, state)
            action = world.controls(prediction)
        else:
            action = disturbance.apply(labels, world)
        rows.append([*(labels[n] for n in LABELS), *action, info["offset_m"], info["blind"]])
        pictures.append(picture)
        picture, _, terminated, truncated, info = world.step(action)
        done = terminated or truncated
    columns = np.array(rows, np.float32).T
    return {"picture": np.stack(pictures)} | dict(zip((*LABELS, *DRIVEN, "offset_m", "blind"), columns, strict=True))


def record(
    config: Any,
    folder: Path,
    episodes: int,
    seed: int,
    name: str = EXPERT,
    workers: int = 1,
    watch: Watch = silent,
) -> Path:
    """Records episodes `seed`, `seed + 1`, ... into a LeRobot dataset, or goes on where it was cut short.

    An episode is a pure function of its seed, so a recording gone on with equals one never cut.
    """
    if name != EXPERT:
        _model(str(find(name)))  # A run that can't drive is found out before anything is written.
    world = config.build(render=False)
    about = {"world": to_json(config), "driver": _identity(name), "expert": repr(world.expert()), "seed": seed}
    scalars: dict[str, lerobot.Kind] = dict.fromkeys((*LABELS, *DRIVEN, "offset_m", "blind"), ("float32", ()))
    streams = {"picture": ("uint8", world.observation_space.shape)} | scalars
    with locked(folder):
        writer = lerobot.Writer(folder, world.metadata["render_fps"], streams, f"drive one lap of {config}", about)
        tasks = [(seed + i, STRENGTHS[i % len(STRENGTHS)]) for i in range(writer.num_episodes, episodes)]
        watch("recording", writer.num_episodes, episodes)
        for episode in in_parallel(partial(recorded_drive, config, name), tasks, workers):
            writer.add(episode)
            watch("recording", writer.num_episodes, episodes)
    return folder


def _identity(name: str) -> str:
    """A run is known by its weights: one trained on in the same folder is another driver."""
    if name == EXPERT:
        return name
    return f"{name} {hashlib.sha256((find(name) / 'model.safetensors').read_bytes()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Recorded(Spec):
    """Drives of a world's expert, recorded when first asked for."""

    world: CarRacing = CarRacing()
    episodes: int = 60
    seed: int = 100_000
    """Of the first track; the others follow."""
    folder: str = ""
    """Where they are kept; empty: below `drives`, named after what they are."""

    BOUNDS = {"episodes": (1, math.inf), "seed": (0, math.inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return read(self.record(watch=watch))[: self.episodes]

    def record(self, name: str = EXPERT, workers: int = 0, watch: Watch = silent) -> Path:
        """The folder of the drives, after recording those that are missing."""
        folder = Path(self.folder or f"drives/{self._name(name)}")
        return record(self.world, folder, self.episodes, self.seed, name, workers or num_cores(), watch)

    def _name(self, name: str) -> str:
        driven = "" if name == EXPERT else f"-{Path(name).name}"
        return f"{world_name(self.world)}{driven}-{self.seed}"


def world_name(world: CarRacing) -> str:
    """What drives in it are called by: all of it that changes what is seen."""
    colours = "-colours" * world.domain_randomize
    blackouts = f"-blackouts-{world.blackouts:g}" if world.blackouts else ""
    short = f"-{world.max_steps}-steps" if world.max_steps != CarRacing.max_steps else ""
    return f"car-racing{colours}{blackouts}{short}"


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(function: Callable[[Any], Any], tasks: list, workers: int) -> Iterator[Any]:
    """Results in the order of the tasks, from so many processes, each on one thread."""
    if workers <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, start_worker, (tuple(OWN),))
    waiting, running = iter(tasks), deque()
    try:
        with _deaf():
            # A few tasks ahead of the reader and no more: a recorded drive is 24 MB.
            running.extend(pool.submit(function, task) for task in itertools.islice(waiting, 2 * workers))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, task) for task in itertools.islice(waiting, 1))
    except BrokenProcessPool:
        raise UserError(
            "a worker process died: perhaps for want of memory (try --workers 1), or because a script of your own "
            'starts work at its top level (put that under `if __name__ == "__main__":`)'
        ) from None
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here never hear Ctrl-C, which is their parent's to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start_worker(files: Sequence[str]) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for file in files:
        own_file(file)


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def fit_rounds(
    name: str,
    recipe: Recipe,
    folder: Path,
    data: Sequence[str] = (),
    device: str = "auto",
    rounds: int = 0,
    episodes: int = 10,
    say: Callable[[str], None] = print,
    watch: Watch = silent,
    look: Look | None = None,
) -> Run:
    """Trains, then `rounds` times: the model drives, the expert labels, training goes on (DAgger, Ross et al. 2011).

    Rounds go on at a quarter of the rate for a third of the steps; each is a run of its own below `folder`.
    """
    if rounds == 0 and (folder / "rounds").exists():
        raise UserError(f"{folder} is trained in rounds; go on with the same --rounds")
    if rounds == 0:
        return fit(name, recipe, folder, data, device, say=say, watch=watch, look=look)
    if not isinstance(recipe.source, Recorded) or not {"steer", "pace"} <= set(getattr(recipe.head, "targets", ())):
        raise UserError(f"--rounds needs a recipe that learns to drive in a simulator; {name} on this data does not")
    if join_processes()[1] > 1:
        raise UserError("--rounds drives in workers of its own; run it without torchrun")
    later = replace(recipe.training, rate=recipe.training.rate / 4, steps=max(1, recipe.training.steps // 3))
    parts = [folder / "rounds" / str(i) for i in range(rounds + 1)]
    run = fit(name, recipe, parts[0], data, device, say=say, watch=watch, look=look)
    extra: list[str] = []
    for i in range(1, rounds + 1):
        own = replace(
            recipe.source,
            seed=recipe.source.seed + 10_000 * i,
            episodes=episodes,
            folder=f"{parts[i]}-drives",
        )
        say(f"round {i}: {run.folder} drives {episodes} tracks, the expert labels them")
        extra.append(str(own.record(str(run.folder), watch=watch)))
        tuned = replace(recipe, training=later)
        run = fit(name, tuned, parts[i], data, device, run.folder, extra, say, watch, look)
    return replace(run, recipe=recipe, rounds=rounds).adopted(folder)
