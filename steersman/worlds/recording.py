"""Drives recorded: of a world's expert, or of a model whose every state the expert labels."""

import hashlib
import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..config import from_json, to_json
from ..console import counted, say
from ..data.records import Record
from ..errors import UserError
from ..files import locked
from ..json_types import JsonMapping
from ..processes import in_parallel, num_cores, on_threads
from ..progress import Watch, silent
from ..sources import read
from ..sources.source import SourceSpec
from ..training.recipe import Recipe
from ..training.run import find
from .car_racing import CarRacing
from .rollout import EXPERT, lacking, named_policy
from .world import World, WorldSpec, expert_of

STRENGTHS = (0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0, 0.06, 0.12, 0.06, 0.12, 0.06, 0.06, 0.12, 0.0)
"""Noise on the controls of the recorded episodes, over and over."""


@on_threads(1)
def recorded_drive(spec: WorldSpec, name: str, task: tuple[int, float]) -> dict[str, np.ndarray]:
    """Streams of one episode: what was seen, what the expert would do, and what was done instead.

    A task is (seed, strength of the disturbance). A model acts as it pleases, undisturbed. Where actions arrive late,
    the expert's labels are of the moment when they do; its own drives are driven without delay, as one drives who knows
    what will be right.
    """
    seed, strength = task
    world = spec.build()
    expert = expert_of(world)
    act = None if name == EXPERT else named_policy(name, world)
    world.prompt = act is None
    observation, _ = world.reset(seed)
    disturbance = world.disturbance(np.random.default_rng((seed, 1)), strength)
    said, rows, seen, state, done = [], [], [], None, False
    while not (done or world.lost()):
        labels = expert.act(world)
        if act:
            prediction, state = act(observation, state)
            action = world.act(prediction)
        else:
            action = disturbance.apply(labels, world)
        said.append([labels[n] for n in spec.labels])
        rows.append([*action, *world.beside().values()])
        seen.append(observation)
        observation, _, terminated, truncated, _ = world.step(action)
        done = terminated or truncated
    kept = [(step, at) for step in range(len(rows)) if (at := world.arrival(step)) < len(rows)]
    columns = np.array([said[at] + rows[step] for step, at in kept], np.float32).T
    return {world.observation.name: np.stack([seen[step] for step, _ in kept])} | dict(
        zip(_numbers(world), columns, strict=True)
    )


def _numbers(world: World) -> tuple[str, ...]:
    """What is recorded of every state beside the observation; needs a world that was begun."""
    return (*world.spec.labels, *world.driven, *world.beside())


def record(
    spec: WorldSpec,
    folder: Path,
    episodes: int,
    seed: int,
    name: str = EXPERT,
    workers: int = 1,
    watch: Watch = silent,
) -> Path:
    """Records episodes `seed`, `seed + 1`, ... into a LeRobot dataset, or goes on where it was cut short.

    An episode is a pure function of its seed, so a resumed recording equals one never cut.
    """
    from ..sources import lerobot

    world = spec.build(render=False)
    named_policy(name, world)  # What can't act is found out before anything is written.
    about = {"world": to_json(spec), "driver": _identity(name), "expert": repr(expert_of(world)), "seed": seed}
    world.reset(seed)
    numbers: dict[str, lerobot.Kind] = dict.fromkeys(_numbers(world), ("float32", ()))
    streams = {world.observation.name: (world.observation.dtype, world.observation.shape)} | numbers
    with locked(folder):
        task, about = _as_begun(lerobot.begun_with(folder), spec, f"{spec.words.task} of {spec}", about)
        writer = lerobot.Writer(folder, world.rate_hz, streams, task, about)
        tasks = [(seed + i, STRENGTHS[i % len(STRENGTHS)]) for i in range(writer.num_episodes, episodes)]
        watch("recording", writer.num_episodes, episodes, f"into {folder}")
        for episode in in_parallel(partial(recorded_drive, spec, name), tasks, workers):
            writer.add(episode)
            watch("recording", writer.num_episodes, episodes, f"into {folder}")
    return folder


def _as_begun(begun: JsonMapping, spec: WorldSpec, task: str, about: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Task and `about` in the words of a recording that is the same in others.

    It was begun when its world had fewer options, or the expert drives, to whom some of them are nothing.
    """
    was = begun.get("about")
    world = was.get("world") if isinstance(was, dict) else None
    if isinstance(world, dict) and world != about["world"]:
        with suppress(UserError):
            found = from_json(world)
            if about["driver"] == EXPERT and type(found) is type(spec):
                found = replace(found, **{name: getattr(spec, name) for name in spec.models_only})
            if found == spec:
                return str(begun.get("task")), about | {"world": world}
    return task, about


def _identity(name: str) -> str:
    """A run is known by its weights: one trained on in the same folder is another driver."""
    if name == EXPERT:
        return name
    return f"{name} {hashlib.sha256((find(name) / 'model.safetensors').read_bytes()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Recorded(SourceSpec):
    """Drives of a world's expert, recorded when first asked for."""

    world: WorldSpec = CarRacing()
    episodes: int = 60
    seed: int = 100_000
    """Seed of the first episode; the rest count up from it."""
    folder: str = ""
    """Folder of the drives; empty: below `drives`, named after what they are."""

    costly: ClassVar[bool] = True
    BOUNDS = {"episodes": (1, math.inf), "seed": (0, math.inf)}

    def few(self, records: int) -> "Recorded":
        return replace(self, episodes=min(self.episodes, records))

    def read(self, watch: Watch = silent) -> list[Record]:
        told = False

        def tell(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal told
            if done < total and not told and watch is not silent:
                told = True
                say(
                    f"{counted(total - done, 'drive')} of the expert in {self.world.name} will be recorded into "
                    f"{self._place()} and kept, about one a second: the recipe has no other data (--data names some)"
                )
            watch(what, done, total, note)

        return read(self.record(watch=tell))[: self.episodes]

    def look(self, watch: Watch = silent) -> list[Record]:
        """As `read`; but in a folder that is named here nothing is recorded. UserError where drives are missing."""
        if not self.folder:
            return self.read(watch)
        from ..sources import lerobot

        folder = Path(self.folder)
        found = read(folder) if lerobot.detect(folder) else []
        if len(found) < self.episodes:
            raise UserError(
                f"{folder} holds {len(found)} of the {self.episodes} drives that this run was trained on; record them "
                f"first (steersman record {self.world.called} --folder {folder} --episodes {self.episodes} "
                f"--seed {self.seed}), or name other recordings with --data"
            )
        return found[: self.episodes]

    def record(self, name: str = EXPERT, workers: int = 0, watch: Watch = silent) -> Path:
        """The folder of the drives, after recording those that are missing."""
        return record(self.world, self._place(name), self.episodes, self.seed, name, workers or num_cores(), watch)

    def _place(self, name: str = EXPERT) -> Path:
        driven = "" if name == EXPERT else f"-{Path(name).name}"
        return Path(self.folder or f"drives/{self.world.name}{driven}-{self.seed}")


def own_drives(recipe: Recipe) -> Recorded | None:
    """The recorded drives that a recipe learns from, where its model predicts what acting in their world needs."""
    source = recipe.source
    return source if isinstance(source, Recorded) and not lacking(source.world, recipe.head) else None


def world_of(recipe: Recipe) -> WorldSpec | None:
    """The world that a model of this recipe acts in, if there is one."""
    drives = own_drives(recipe)
    return drives.world if drives else None
