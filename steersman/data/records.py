"""A Record is one uninterrupted recording: named streams, each with its own clock."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import UserError
from ..json_types import JsonObject

Index = int | slice | np.ndarray
"""One value, or several."""
CHECKED = 2**20
"""Stamps of a clock that are looked at at a time."""


class LazyValues(Protocol):
    """Values that are read, or decoded, when asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Index) -> np.ndarray: ...


Values = np.ndarray | LazyValues
"""What a stream holds: an array, a memory map, or frames decoded when asked for."""


def clock_fault(time_s: np.ndarray) -> str | None:
    """What is wrong with a clock, else None: a stamp that is no number, or one that lies before the last."""
    for start in range(0, len(time_s), CHECKED):
        part = np.asarray(time_s[max(0, start - 1) : start + CHECKED])
        # A comparison with NaN is false.
        good = np.append(np.isfinite(part[:1]), (part[1:] >= part[:-1]) & np.isfinite(part[1:]))
        if not good.all():
            place = int(np.argmin(good))
            number, last = max(0, start - 1) + place, part[place - 1]
            if place and np.isfinite(part[place]):
                return f"stamp {number} is {part[place]:.10g} s, after {last:.10g} s"
            return f"stamp {number} is {part[place]}, not a number of seconds"
    return None


@dataclass(frozen=True)
class Stream:
    """Values (time first) and the second at which each was taken.

    UserError where there is not a time stamp for each value, or where one is no number or lies before the last.
    """

    values: Values
    time_s: np.ndarray

    def __post_init__(self):
        if len(self.values) != len(self.time_s):
            raise UserError(
                f"a stream has {len(self.values)} values but {len(self.time_s)} time stamps; "
                "give one time stamp a value"
            )
        if fault := clock_fault(self.time_s):
            raise UserError(f"a stream's clock can't be used: {fault}; give its values in the order of time")

    def __len__(self) -> int:
        return len(self.values)

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """The last value known at each of `time_s`: never one from the future."""
        # One clock, value for value, even where stamps repeat; for a long text, places would be wider than the text.
        if time_s is self.time_s or np.array_equal(time_s, self.time_s):
            return np.asarray(self.values[:])
        index = np.searchsorted(self.time_s, time_s, side="right") - 1
        return np.asarray(self.values[np.clip(index, 0, len(self) - 1)])


@dataclass(frozen=True)
class Record:
    """One drive, text, utterance, stay or trading day; never split, never joined to another."""

    name: str
    streams: dict[str, Stream]
    about: JsonObject = field(default_factory=dict)
    """What the source knows of it: units, ranges, rate, faults met while reading (JSON values only)."""

    def __getitem__(self, stream: str) -> Stream:
        if stream not in self.streams:
            hint = f"; {self.about['hint']}" if "hint" in self.about else ""
            raise UserError(f"record {self.name!r} has no stream {stream!r}; it has {', '.join(self.streams)}{hint}")
        return self.streams[stream]

    def __len__(self) -> int:
        """Steps of the first stream, whose clock the others are read on."""
        return len(next(iter(self.streams.values())))


def text_stream(text: str) -> Stream:
    """A text as its bytes, one a second."""
    values = np.frombuffer(text.encode(), np.uint8)
    return Stream(values, np.arange(float(len(values))))


def text_of(stream: Stream) -> str:
    """The text whose bytes a stream holds."""
    return bytes(np.asarray(stream.values[:])).decode()
