"""Records as a model sees them: prepared inputs and targets on one clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import UserError
from ..progress import Watch, silent
from .cache import prepared
from .inputs import Inputs
from .lazy import Each, is_lazy
from .records import Index, Record, Stream, Values, as_numbers

WEIGHT = "loss_weight"
"""A record's stream of this name says what each of its steps counts in the loss; one without it: all alike.

Of a record with one answer that of the last step counts.
"""


ELAPSED = "elapsed_s"
"""Name of an input that every record has: seconds since the step before, 0 at the first."""


@dataclass(frozen=True)
class Reading:
    """How a stream is read as an input of a model."""

    stream: str
    prepare: Callable[[np.ndarray], np.ndarray]
    key: str
    """Which preparation of pictures it is, for their cache."""
    once: bool = False
    """The stream has one value, which is true of the whole record."""
    gaps: bool = False
    """NaN says that something was not measured."""
    shape: tuple[int, ...] = ()
    """Shape of a raw step, where the model takes only this one."""


@dataclass(frozen=True)
class Example:
    """A record as a model sees it: prepared inputs and targets on one clock."""

    name: str
    x: Any
    """Prepared steps (time ...); of a model with several inputs, Inputs."""
    y: np.ndarray
    """Numbers of all targets (time number), or (number) where a record has one answer."""
    time_s: np.ndarray
    weight: np.ndarray | None = None
    """What each step counts in the loss; None: all alike."""

    def __len__(self) -> int:
        return len(self.x)

    def contents(self) -> list[np.ndarray]:
        """All that is learned from it."""
        return [*(self.x.arrays() if isinstance(self.x, Inputs) else [self.x]), self.y]


def counted(examples: Sequence[Example], said: Sequence[Any]) -> tuple[list[Example], list[Any]]:
    """Examples, and what was said at each of their steps, without the steps that count nothing.

    They are read for their context alone, or their answer is not known. UserError where none of a record is left.
    """
    found, left = [], []
    for example, values in zip(examples, said, strict=True):
        if example.weight is not None and example.y.ndim == 2 and not (counts := example.weight > 0).all():
            if not counts.any():
                raise UserError(f"{example.name} has no step whose answer is known: it can't be scored; leave it out")
            parts = {"x": example.x[counts], "y": example.y[counts], "time_s": example.time_s[counts], "weight": None}
            example, values = replace(example, **parts), values[counts]
        found.append(example)
        left.append(values)
    return found, left


@dataclass(frozen=True)
class Wanted:
    """What examples are made of."""

    inputs: Sequence[Reading]
    clock: str
    """The stream on whose clock all others are read."""
    targets: Sequence[str]
    """Streams that are learned; none: answers are not read."""
    sizes: Sequence[int] = ()
    """Numbers that each target has a step; none: 1 each."""
    named: bool = False
    """Inputs keep their names; else there is only one, without."""
    once: bool = False
    """A record has one answer: the last value of each target."""


def examples(records: Sequence[Record], wanted: Wanted, cache: Path, watch: Watch = silent) -> list[Example]:
    """Inputs prepared (pictures once, kept in `cache`) and targets read on the inputs' clock."""
    shown = []
    for done, record in enumerate(records):
        watch("preparing records", done, len(records))
        shown.append(_example(record, wanted, cache, partial(_tell, watch, record.name, done, len(records))))
    watch("preparing records", len(records), len(records))
    return shown


def _tell(watch: Watch, name: str, done: int, records: int, frame: int, frames: int) -> None:
    watch("preparing records", done, records, f"{name}: frame {frame} of {frames}")


def _example(record: Record, wanted: Wanted, cache: Path, tell: Callable[[int, int], None]) -> Example:
    begin, raw = raw_steps(record, wanted)
    time_s = record[wanted.clock].time_s[begin:] if begin else record[wanted.clock].time_s
    read = {reading.stream: _prepared(record, reading, raw[reading.stream], cache, tell) for reading in wanted.inputs}
    x = next(iter(read.values()))
    if wanted.named:
        once = {reading.stream for reading in wanted.inputs if reading.once}
        x = Inputs(
            {name: values for name, values in read.items() if name not in once}, {name: read[name][0] for name in once}
        )
    y, weight = _answers(record, wanted, time_s)
    return Example(record.name, x, y[-1] if wanted.once else y, time_s, weight)


def check(records: Sequence[Record], wanted: Wanted) -> None:
    """UserError where `examples` would refuse one of these records, but for its pictures, which are not decoded."""
    for record in records:
        begin, raw = raw_steps(record, wanted)
        for reading in wanted.inputs:
            if len(raw[reading.stream].shape) != 4:
                _prepared(record, reading, raw[reading.stream])
        _answers(record, wanted, record[wanted.clock].time_s[begin:])


def _answers(record: Record, wanted: Wanted, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Numbers of all targets (time number), and what each step counts in the loss."""
    targets = [_target(record, name, size, time_s) for name, size in _sized(wanted)]
    if len(targets) == 1 and is_lazy(targets[0]):
        return targets[0], None
    y = np.concatenate(targets, -1).astype(np.float32) if targets else np.zeros((len(time_s), 0), np.float32)
    _check_finite(record, "target", y)
    if WEIGHT not in record.streams:
        return y, None
    weight = _target(record, WEIGHT, 1, time_s)[:, 0].astype(np.float32)
    _check_finite(record, WEIGHT, weight)
    if (weight < 0).any():
        at = int((weight < 0).argmax())
        raise UserError(f"record {record.name!r}: {WEIGHT} at step {at} is {weight[at]:g}; give 0 or more")
    return y, weight


def check_weights(examples: Sequence[Example], what: str) -> None:
    """UserError where no step of any of these examples, in words `what` they are for, counts in the loss."""
    counts = (e.weight is None or (e.weight if e.y.ndim > 1 else e.weight[-1:]).any() for e in examples)
    if examples and not any(counts):
        steps = "last step" if examples[0].y.ndim == 1 else "step"
        raise UserError(f"{WEIGHT} is 0 at every {steps} of all {len(examples)} {what} records; let some count")


def raw_steps(record: Record, wanted: Wanted) -> tuple[int, dict[str, Values]]:
    """The first step at which every input is known, and from there on their raw values by name.

    An input is the last value that is known at a step, never one from the future; where it may have gaps, it counts
    as measured at the first step after it was.
    """
    clock = record[wanted.clock]
    if not len(clock):
        raise UserError(f"record {record.name!r} is empty")
    begin = 0
    values: dict[str, Values] = {}
    for reading in wanted.inputs:
        stream = _stream(record, reading.stream, clock)
        if reading.once:
            if len(stream) != 1:
                raise UserError(
                    f"record {record.name!r}: {reading.stream!r} has {len(stream)} values, but the encoder takes one "
                    "a record; give one, or take --once away from its part"
                )
            values[reading.stream] = stream.values
        elif stream.time_s is clock.time_s or np.array_equal(stream.time_s, clock.time_s):
            values[reading.stream] = stream.values
        elif not len(stream):
            raise UserError(f"record {record.name!r}: {reading.stream!r} is empty")
        elif reading.gaps:
            where = f"record {record.name!r}: input {reading.stream!r}"
            values[reading.stream] = _measured(stream, clock.time_s, where)
        else:
            begin = max(begin, int(np.searchsorted(clock.time_s, stream.time_s[0])))
            places = np.searchsorted(stream.time_s, clock.time_s, side="right") - 1
            values[reading.stream] = Taken(stream.values, places.clip(0))
    if begin == len(clock):
        raise UserError(f"record {record.name!r} has no step at which all of its inputs are known; leave it out")
    if begin:
        kept = [reading.stream for reading in wanted.inputs if not reading.once]
        values.update({name: Taken(values[name], np.arange(begin, len(clock))) for name in kept})
    return begin, values


def _stream(record: Record, name: str, clock: Stream) -> Stream:
    """A record's own stream, or the seconds between steps."""
    if name != ELAPSED or name in record.streams:
        return record[name]
    since = np.diff(clock.time_s, prepend=clock.time_s[0]).astype(np.float32)
    return Stream(since, clock.time_s)


class Taken:
    """Values at some places, decoded no sooner than asked for."""

    def __init__(self, values: Values, places: np.ndarray):
        self.values, self.places = values, places
        self.shape, self.dtype = (len(places), *values.shape[1:]), values.dtype

    @property
    def fingerprint(self) -> str | None:
        whole = getattr(self.values, "fingerprint", None)
        return whole and f"{whole}[{sha256(self.places.tobytes()).hexdigest()}]"

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Index) -> np.ndarray:
        return np.asarray(self.values[self.places[index]])


def _measured(stream: Stream, time_s: np.ndarray, where: str) -> np.ndarray:
    """What was measured since the step before, at each step, the newest of each number; NaN where nothing was."""
    values = as_numbers(stream.values[:], where).astype(np.float32)
    columns = values.reshape(len(values), -1)
    found = np.full((len(time_s), columns.shape[1]), np.nan, np.float32)
    for column, numbers in enumerate(columns.T):
        known = ~np.isnan(numbers)
        count = np.searchsorted(stream.time_s[known], time_s, side="right")
        is_new = np.diff(count, prepend=0) > 0
        found[is_new, column] = numbers[known][count[is_new] - 1]
    return found.reshape(len(time_s), *values.shape[1:])


def _prepared(record: Record, reading: Reading, values: Values, cache: Path = Path(), tell=None) -> np.ndarray:
    where = f"record {record.name!r}: input {reading.stream!r}"
    if len(values.shape) == 4:
        if np.dtype(values.dtype).kind not in "iu":
            raise UserError(f"{where}: expected pictures of whole numbers from 0 to 255, found {values.dtype}")
        return prepared(values, reading.prepare, reading.key, cache, tell)
    if is_lazy(values):  # Whole numbers, all finite.
        return cast(np.ndarray, Each(values, reading.prepare))
    found = as_numbers(values[:], where)
    found = found[:, None] if found.ndim == 1 else found  # A plain number is one feature.
    if reading.shape and found.shape[1:] != reading.shape:
        raise UserError(f"{where} has steps of shape {found.shape[1:]}; the others, and the model, {reading.shape}")
    x = reading.prepare(found)
    if reading.gaps:
        _check_finite(record, f"input {reading.stream!r}", x, gaps=True)
    else:
        cure = "; where values are missing, read it with the encoder Observed" if np.isnan(x).any() else ""
        _check_finite(record, "input", x, cure)
    return x


def _check_finite(record: Record, name: str, values: np.ndarray, cure: str = "", gaps: bool = False) -> None:
    wrong = np.isinf(values) if gaps else ~np.isfinite(values)
    if wrong.any():
        step = np.argwhere(wrong)[0][0]
        raise UserError(f"record {record.name!r}: the {name} at step {step} is not a finite number{cure}")


def _sized(wanted: Wanted) -> list[tuple[str, int]]:
    return list(zip(wanted.targets, wanted.sizes or [1] * len(wanted.targets), strict=True)) if wanted.targets else []


def _target(record: Record, name: str, size: int, time_s: np.ndarray) -> np.ndarray:
    """Numbers of the target (time number)."""
    if not len(record[name]):
        raise UserError(f"record {record.name!r}: {name!r} is empty")
    shape = record[name].values.shape
    if size == 1 and len(shape) != 1 and shape[1:] != (1,):
        raise UserError(f"record {record.name!r}: target {name!r} has shape {shape}; give a stream a number")
    if size > 1 and shape[1:] != (size,):
        raise UserError(
            f"record {record.name!r}: target {name!r} has shape {shape}; the model says {size} numbers a step"
        )
    if time_s is record[name].time_s and is_lazy(record[name].values) and WEIGHT not in record.streams:
        return cast(np.ndarray, Each(record[name].values, _floats))
    return as_numbers(record[name].at(time_s), f"record {record.name!r}: target {name!r}").reshape(len(time_s), size)


def _floats(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
