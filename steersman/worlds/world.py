"""What a simulator offers to models, to experts, to recordings and to pages; a new one is a file and a row in `WORLDS`.

A spec is light: it names a world on a machine that has no simulator. What it builds is the simulator.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ..config import Spec
from ..errors import UserError
from ..json_types import JsonObject

if TYPE_CHECKING:
    from ..evaluation.page import Section
    from .film import DriveVideo
    from .rollout import Episode

Labels = dict[str, float]
"""Numbers by name: what a model predicts, or what an expert says of a state."""
FactValue = float | str | bool
Info = JsonObject
"""What a step tells beside the observation, as Gymnasium does."""
Step = tuple[np.ndarray, float, bool, bool, Info]
"""A step as Gymnasium's: observation, reward, terminated, truncated, info."""


class Observation(NamedTuple):
    """What a model sees of a world: a stream's name, and dtype and shape of one step of it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Words:
    """Words for a world's episodes."""

    task: str = "act for one episode"
    """The task of a recording."""
    episode: str = "episode"
    """What is drawn from a seed; its plural ends with an s."""
    seen: str = "observation"
    """What a model sees."""
    chosen: str = "What it chose"
    """Heading of the model's first choice beside the expert's, over time."""
    successes: str = "successes"
    """Head of the column that counts the episodes done well."""
    title: str = "Done well"
    """The same as a title of its own."""
    succeeds: str = "does well in"
    """What the model does in them: `finishes` 7 of them."""
    rule: str = "how much is done well, the world says itself"
    """Rule of when an episode is done well, as half a sentence."""


class WorldSpec(Spec):
    """A world's choice and settings; a frozen dataclass with a field `max_steps`, after which an episode ends."""

    called: ClassVar[str]
    """The name on the command line, and of folders of drives."""
    needs: ClassVar[tuple[str, ...]]
    """What a model has to predict to act here; the first is drawn beside the expert's."""
    labels: ClassVar[tuple[str, ...]]
    """What the expert says of every state; the names in `needs` are among them."""
    words: ClassVar[Words] = Words()
    models_only: ClassVar[tuple[str, ...]] = ()
    """Fields that change what is done of a model's prediction alone: an expert's drives are the same by any of them."""
    still_step: ClassVar[int] = 250
    """The step of a film that is also kept as a picture."""

    max_steps: int

    @abstractmethod
    def build(self, render: bool = True) -> "World":
        """The simulator. Without `render` pictures may be all zeros, where that saves time."""

    @property
    def name(self) -> str:
        """What drives in it are called by: all of it that changes what is seen."""
        parts = [self.called]
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) != field.default:
                parts.append(f"{field.name.replace('_', '-')}-{value}")
        return "-".join(parts)

    def gauntlet(self) -> "Mapping[str, WorldSpec]":
        """This world under each disturbance that a driver should hold, by what it is called; itself first."""
        return {}

    def scores(self, episodes: "Sequence[Episode]") -> JsonObject:
        """What this world alone counts over episodes, beside the scores of all (JSON values)."""
        return {}

    def sections(self, episodes: "Sequence[Episode]") -> "list[Section]":
        """What this world alone shows on a page of the model's episodes."""
        from .report import closing_facts

        return [closing_facts(self.words, episodes)]


class Expert(Protocol):
    """A scripted policy that looks at the world itself: a pure function of its state now."""

    def act(self, world: Any) -> Labels:
        """What it says of the state, by the names of the spec's `labels`."""
        ...


class Disturber(Protocol):
    """What is done instead of the expert's wish, so that recoveries are in a recording."""

    def apply(self, labels: Mapping[str, float], world: Any) -> np.ndarray:
        """The action done in place of the labelled one."""
        ...


class World(ABC):
    """A simulator that a model acts in, closed loop; an episode is a pure function of its seed and the actions."""

    controls: Mapping[str, tuple[float, float]]
    """An action's numbers in their order: the lowest and the highest value of each."""
    rate_hz: float
    """Steps a second."""
    observation: Observation
    scene_size: tuple[int, int] = (420, 480)
    """Height and width of the picture for people, in which it looks well."""

    def __init__(self, spec: WorldSpec):
        self.spec = spec
        self.steps = 0
        """Steps since `reset`."""
        self.score = 0.0
        """Sum of the rewards since `reset`."""
        self.prompt = False
        """Whether actions are done at once, whatever the latency: so an expert is recorded."""

    @abstractmethod
    def reset(self, seed: int) -> tuple[np.ndarray, Info]:
        """Begins the episode of a seed: observation and info."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Step:
        """One step; an implementation counts `steps` and `score`."""

    @abstractmethod
    def scene(self, height: int, width: int) -> np.ndarray:
        """A picture for people (height width 3), uint8."""

    @property
    @abstractmethod
    def done_well(self) -> bool:
        """Whether by now the episode counts as done well: a lap was finished, a pole stands."""

    @abstractmethod
    def facts(self) -> dict[str, FactValue]:
        """What is known of the state, for people: units in the names; `score` is among them."""

    @property
    def time_s(self) -> float:
        """Time since `reset`."""
        return self.steps / self.rate_hz

    def arrival(self, step: int) -> int:
        """The step at which an action chosen at `step` of this episode is done."""
        return step

    @property
    def driven(self) -> tuple[str, ...]:
        """Names under which an action is recorded."""
        return tuple(f"driven_{name}" for name in self.controls)

    def render(self) -> np.ndarray:
        """A film's picture (row column 3), uint8."""
        return self.scene(*self.scene_size)

    def expert(self) -> Expert | None:
        """One that says what to do in any state, where there is one."""
        return None

    def act(self, prediction: Mapping[str, float]) -> np.ndarray:
        """The action of a prediction that has the names of the spec's `needs`."""
        return self.by_hand(prediction)

    def done_by_model(self, prediction: Labels) -> Labels:
        """What is done of a model's prediction, by the same names: a world may be more careful than its model."""
        return prediction

    def by_hand(self, held: Mapping[str, float]) -> np.ndarray:
        """The action of a person who holds each control at a value."""
        wished = [min(max(held[name], low), high) for name, (low, high) in self.controls.items()]
        return np.array(wished, np.float32)

    def labelled(self, action: np.ndarray) -> Labels:
        """What an expert that did this here would have said of it."""
        return dict(zip(self.controls, np.asarray(action, np.float32).tolist(), strict=True))

    def disturbance(self, rng: np.random.Generator, strength: float) -> Disturber:
        """One for an episode that has just begun."""
        return ControlNoise(rng, strength, self.spec.max_steps, len(self.controls))

    def lost(self) -> bool:
        """Whether a recording ends here, because nothing can be learned from what follows."""
        return False

    def beside(self) -> Labels:
        """What is recorded of a state beside observation, labels and action; the same names at every step."""
        return {}

    def extras(self) -> JsonObject:
        """What this world alone tells of the episode so far, for its page (JSON values)."""
        return {}

    def film(self, path: Path) -> "DriveVideo":
        """The film of an episode: the scene, what the model sees of it, and its controls beside the expert's."""
        from .film import Controls, DriveVideo

        return DriveVideo(path, self.rate_hz, dashboard=Controls(self.controls))


class ControlNoise:
    """Coloured noise on every control, drawn beforehand; a strength of 1 is the whole half of its range."""

    def __init__(self, rng: np.random.Generator, strength: float, num_steps: int, num_controls: int):
        self.noise = np.stack([coloured_noise(rng, strength, num_steps) for _ in range(num_controls)], -1)

    def apply(self, labels: Mapping[str, float], world: World) -> np.ndarray:
        low, high = np.array(list(world.controls.values())).T
        wished = world.act(labels) + self.noise[world.steps] * (high - low) / 2
        return np.clip(wished, low, high).astype(np.float32)


class Delay:
    """Actions on their way: each arrives some steps after it was sent, and the newest that arrived is done."""

    def __init__(self, latency: int, jitter: int, rng: np.random.Generator, num_steps: int, idle: np.ndarray):
        late = np.maximum(latency + rng.integers(-jitter, jitter, num_steps, endpoint=True), 0)
        self.arrivals = np.arange(num_steps) + late
        """Step at which what is sent at each step arrives."""
        self.sent: list[np.ndarray] = []
        self.idle = idle

    def arrived(self, step: int, action: np.ndarray) -> np.ndarray:
        """What is done at a step, at which `action` is sent: every step is asked for once, from 0."""
        self.sent.append(action)
        there = np.flatnonzero(self.arrivals[: step + 1] <= step)
        return self.sent[there[-1]] if len(there) else self.idle


def coloured_noise(rng: np.random.Generator, strength: float, num_steps: int) -> np.ndarray:
    """Noise that keeps nine tenths of itself from step to step."""
    noise = np.zeros(num_steps)
    for step in range(1, num_steps):
        noise[step] = 0.9 * noise[step - 1] + strength / 2 * rng.normal()
    return noise


def spells(
    rng: np.random.Generator,
    num_steps: int,
    rate: float,
    length: tuple[int, int],
    draw: Callable[[], float],
    quiet: float,
) -> np.ndarray:
    """A value drawn for every spell, `quiet` between; spells begin with probability `rate` a step."""
    values = np.full(num_steps, quiet)
    step = 0
    while rate > 0 and (step := step + rng.geometric(rate)) < num_steps:
        end = step + rng.integers(*length)
        values[step:end] = draw()
        step = end
    return values


def expert_of(world: World) -> Expert:
    """UserError where the world has none."""
    expert = world.expert()
    if expert is None:
        raise UserError(f"{world.spec.called} has no expert to drive or to label its states; use a world that has one")
    return expert
