"""Drives recorded: of a world's expert, or of a model whose every state the expert labels."""

import hashlib
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..config import to_json
from ..data.cache import locked
from ..data.records import Record
from ..processes import in_parallel, num_cores
from ..progress import Watch, silent
from ..sources import read
from ..sources.source import SourceSpec
from ..training.run import find
from . import CarRacing
from .rollout import EXPERT, _model, _one_thread, driver

STRENGTHS = (0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0, 0.06, 0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0)
"""Steering noise of the recorded episodes, over and over."""


LABELS = ("steer", "pace", "gas", "brake", "target_speed_mps", "speed_mps", "yaw_radps")
"""What the expert says of every state."""


DRIVEN = ("driven_steer", "driven_gas", "driven_brake")
"""What was done, which differs by the disturbance, or is the model's."""


LOST_M = 20.0
"""A recording ends this far off the centre line: nothing can be learned there."""


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
    from ..sources import lerobot

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
class Recorded(SourceSpec):
    """Drives of a world's expert, recorded when first asked for."""

    world: CarRacing = CarRacing()
    episodes: int = 60
    seed: int = 100_000
    """Of the first track; the others follow."""
    folder: str = ""
    """Where they are kept; empty: below `drives`, named after what they are."""

    costly: ClassVar[bool] = True
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
