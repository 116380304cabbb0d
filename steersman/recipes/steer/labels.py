"""The recipe for steering from a log: what may be done to the labels and cameras before they are learned from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import numpy as np

from ...config import Spec
from ...data.batches import Batches
from ...data.examples import WEIGHT, Example
from ...data.records import Record, Stream, Values
from ...data.splits import View
from ...errors import UserError
from ...nn.model import Model
from ...training.recipe import StepRecipe

ROUNDING_S = 1e-6
"""Moments closer than this are one."""


@dataclass(frozen=True)
class Lag(Spec):
    """Targets of another moment than the picture's, in training; scores stay those of the wheel at that moment."""

    seconds: float = 0.0
    """Seconds from the picture to its target (below 0: back); a camera that shows the wheel late wants it below 0."""

    BOUNDS = {"seconds": (-5, 5)}

    def shifted(self, record: Record, inputs: str, targets: Sequence[str]) -> Record:
        """The record's inputs at the moments that have such a target, and the targets there."""
        clock = record[inputs].time_s
        first, last = (self.seconds, 0.0) if self.seconds < 0 else (0.0, self.seconds)
        kept = np.flatnonzero((clock >= clock[0] - first - ROUNDING_S) & (clock <= clock[-1] - last + ROUNDING_S))
        if len(kept) < 2:
            raise UserError(
                f"record {record.name!r} is too short for targets {self.seconds:g} s away; lower --lag.seconds"
            )
        a, b = int(kept[0]), int(kept[-1]) + 1
        streams = {inputs: Stream(View(record[inputs].values, a, b), clock[a:b])}
        for name in targets:
            values: Any = record[name].at(clock[a:b] + self.seconds + ROUNDING_S)
            streams[name] = Stream(values, clock[a:b])
        return replace(record, streams=streams)


@dataclass(frozen=True)
class SideCameras(Spec):
    """Pictures of cameras to the left and the right, as if the car stood there and had to come back (Bojarski 2016)."""

    shift: float = 0.0
    """Steering to the right added for the left camera, and to the left for the right one; 0: they are not used."""

    BOUNDS = {"shift": (0, 1)}

    def beside(self, record: Record, inputs: str, targets: Sequence[str]) -> list[Record]:
        """The record, and one for each camera beside the middle one."""
        found = [record]
        for side, sign in (("left", -1), ("right", 1)):
            camera = record[f"{inputs}_{side}"]
            streams = {inputs: camera} | {name: record[name] for name in targets}
            steer = streams[targets[0]]
            shifted: Any = np.asarray(steer.values) + sign * self.shift
            streams[targets[0]] = Stream(shifted, steer.time_s)
            found.append(replace(record, name=f"{record.name}[{side}]", streams=streams))
        return found


@dataclass(frozen=True)
class Balance(Spec):
    """Weights of steps by how rare their steering is: most of a drive is straight on."""

    power: float = 0.0
    """Strength, from 0, all steps count alike, to 1, all bins of steering do, as far as `most` allows."""
    bins: int = 15
    """Bins of the absolute steering, equally wide."""
    most: float = 5.0
    """Largest weight of a step, where the mean is 1 before this limit."""

    BOUNDS = {"power": (0, 1), "bins": (1, inf), "most": (1, inf)}

    def fitted(self, values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A function from steering to what it counts, by how often training data holds it."""
        edges = np.linspace(0, max(float(np.abs(values).max()), 1e-9), self.bins + 1)[1:-1]

        def bins(y: np.ndarray) -> np.ndarray:
            return np.searchsorted(edges, np.abs(y), side="right")

        counts = np.bincount(bins(values), minlength=self.bins)
        rare = np.maximum(counts, 1.0) ** -self.power
        rare *= counts.sum() / (rare * counts).sum()
        return lambda y: np.minimum(rare, self.most)[bins(y)].astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Steering(StepRecipe):
    """A recipe for a camera and a wheel; the first target of its head is the wheel."""

    lag: Lag = Lag()
    sides: SideCameras = SideCameras()
    balance: Balance = Balance()
    past: int = 0
    """Steps back to the true steering that is shown as a bar in a fourth channel; 0: never.

    Only to see what it does: a good score, and a car that goes on as it did (de Haan et al. 2019).
    """

    BOUNDS = {"past": (0, inf)}

    def transform_records(self, records: list[Record]) -> list[Record]:
        if not self.past:
            return records
        return [self._with_past(record) for record in records]

    def training_records(self, part: str, records: list[Record]) -> list[Record]:
        targets = self.head.targets

        def kept(record: Record) -> tuple[str, ...]:
            return (*targets, WEIGHT) if WEIGHT in record.streams else targets

        if self.sides.shift and part == "train":
            records = [r for record in records for r in self.sides.beside(record, self.inputs, kept(record))]
        if self.lag.seconds:
            records = [self.lag.shifted(record, self.inputs, kept(record)) for record in records]
        return records

    def make_batches(self, model: Model, examples: Sequence[Example], rank: int = 0, ranks: int = 1) -> Batches:
        batches = super().make_batches(model, examples, rank, ranks)
        if self.balance.power:
            weigh = self.balance.fitted(np.concatenate([e.y[:, 0] for e in examples]))
            batches.weights = [weigh(e.y[:, 0]) * (1.0 if e.weight is None else e.weight) for e in examples]
        return batches

    def _with_past(self, record: Record) -> Record:
        pictures = record[self.inputs]
        steer = record[self.head.targets[0]].at(pictures.time_s)
        past = np.concatenate([np.zeros(min(self.past, len(steer))), steer[: -self.past]])
        streams = {self.inputs: Stream(Barred(pictures.values, past), pictures.time_s)}
        return replace(record, streams=record.streams | streams)


class Barred:
    """Pictures with one more channel: black, with a white bar where the wheel stands, as one would see it."""

    def __init__(self, values: Values, wheel: np.ndarray):
        self.values, self.wheel = values, wheel
        self.shape, self.dtype = (*values.shape[:-1], values.shape[-1] + 1), values.dtype

    @property
    def fingerprint(self) -> None:
        """Never kept under the pictures' own."""

    def __len__(self) -> int:
        return len(self.wheel)

    def __getitem__(self, index) -> np.ndarray:
        pictures, wheel = np.asarray(self.values[index]), self.wheel[index]
        width = pictures.shape[-2]
        place = (1 - np.clip(wheel, -1, 1)) / 2 * (width - 1)
        bar = np.abs(np.arange(width) - np.expand_dims(place, -1)) <= width / 32
        plane = np.broadcast_to(np.expand_dims(bar, -2), pictures.shape[:-1])
        return np.concatenate([pictures, plane[..., None].astype(np.uint8) * 255], -1)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)
