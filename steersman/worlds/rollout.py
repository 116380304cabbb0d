"""Policy meets world: scored episodes."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import UserError
from ..json_types import JsonObject
from ..nn.cores import State
from ..nn.heads import HeadSpec
from ..nn.model import Model
from ..processes import in_parallel, on_threads
from ..training.run import Run, find, load
from .world import FactValue, Info, Labels, World, WorldSpec, expert_of

Policy = Callable[[np.ndarray, State], tuple[Labels, State]]
"""(observation, state) -> (named prediction, state); the first state is None."""
Look = Callable[[World, np.ndarray, Labels, Info], None]
"""What is told of every step before it is made: world, observation, prediction, info."""

EXPERT = "expert"


@dataclass(frozen=True)
class Episode:
    """One scored episode."""

    world: WorldSpec
    seed: int
    score: float
    """Sum of the rewards."""
    steps: int
    done_well: bool
    """Success as the world counts it: a lap was finished, a pole stands."""
    latency_ms: tuple[float, ...]
    """Latency from observation to prediction, a number a step."""
    facts: dict[str, FactValue]
    """The world's facts at the end."""
    extras: JsonObject
    """What this world alone tells of an episode."""
    finite: bool = True
    """Whether the policy always said numbers; where not, its episode ended there."""


def policy(model: Model, world: World) -> Policy:
    """A model as a policy of a world: its weights as they are in memory now."""

    def act(observation: np.ndarray, state: State) -> tuple[Labels, State]:
        prediction, state = model.step(observation, state)
        return world.done_by_model(prediction), state

    return act


def expert_policy(world: World) -> Policy:
    """The world's expert as a policy, which sees the world itself. UserError where there is none."""
    expert = expert_of(world)
    return lambda observation, state: (expert.act(world), state)


@on_threads(1)
def rollout(world: World, act: Policy, seed: int, look: Look | None = None) -> Episode:
    """One episode of a policy, from the world's reset to its end, or until it says what is no number.

    One step of a small network is quickest, and always the same, on one thread.
    """
    observation, info = world.reset(seed)
    state, done, latency_ms, finite = None, False, [], True
    while not done:
        began = time.perf_counter()
        prediction, state = act(observation, state)
        latency_ms.append((time.perf_counter() - began) * 1e3)
        if not (finite := bool(np.isfinite(list(prediction.values())).all())):
            break
        if look:
            look(world, observation, prediction, info)
        observation, _, terminated, truncated, info = world.step(world.act(prediction))
        done = terminated or truncated
    told = world.facts(), world.extras()
    well = world.done_well and finite
    return Episode(world.spec, seed, world.score, world.steps, well, tuple(latency_ms), *told, finite)


def named_policy(name: str, world: World) -> Policy:
    """The world's expert, or the model of a run as it is on the disk now. UserError where it can't act here."""
    if name == EXPERT:
        return expert_policy(world)
    folder = find(name)
    run = Run.open(folder)
    if missing := lacking(world.spec, run.recipe.head):
        raise UserError(f"{folder} can't drive: it doesn't predict {' and '.join(missing)}")
    if run.raw != world.observation.shape:
        shown = f"{world.spec.called} shows {world.observation.shape}"
        raise UserError(f"{folder} can't drive: it takes steps of shape {run.raw}, {shown}")
    model = load(folder)
    if model.no_step:
        raise UserError(f"{folder} can't drive: {model.no_step}")
    return policy(model, world)


def lacking(world: WorldSpec, head: HeadSpec) -> list[str]:
    """What acting in a world needs and a recipe's head does not predict."""
    return sorted(set(world.needs) - set(getattr(head, "targets", ())))


def drive(world: WorldSpec, name: str, seed: int, look: Look | None = None) -> Episode:
    """One scored episode of the expert, or of the model of a run."""
    made = world.build()
    return rollout(made, named_policy(name, made), seed, look)


def drives(world: WorldSpec, name: str, seeds: Iterable[int], workers: int = 1) -> Iterator[Episode]:
    """Scored episodes of the expert, or of the model of a run, in the order of the seeds."""
    named_policy(name, world.build(render=False))  # What can't act is found out here, not in a worker.
    return in_parallel(partial(drive, world, name), list(seeds), workers)
