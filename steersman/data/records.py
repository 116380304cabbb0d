"""A Record is one uninterrupted recording: named streams, each with its own clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..json_types import JsonObject
from .lazy import Clock

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
        if not isinstance(self.values, np.ndarray) and _is_list(self.values):
            object.__setattr__(self, "values", _array(self.values, "a stream's values"))
        object.__setattr__(self, "time_s", _seconds(self.time_s))
        if self.values.shape == ():
            raise UserError(f"a stream's values are one {type(self.values).__name__}; give an array, time first")
        if len(self.values) != len(self.time_s):
            raise UserError(
                f"a stream has {len(self.values)} values but {len(self.time_s)} time stamps; "
                "give one time stamp a value"
            )
        if not isinstance(self.time_s, Clock) and (fault := clock_fault(self.time_s)):
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


def _is_list(values: object) -> bool:
    """Whether values are held as a list, a series of pandas or a tensor, which are not indexed as an array is."""
    return not hasattr(values, "shape") or hasattr(values, "to_numpy") or hasattr(values, "numpy")


def _array(values: object, where: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} can't be made an array ({error}); give all of them one shape") from None


def _seconds(time_s: Any) -> np.ndarray:
    """A clock as an array of numbers; moments and spans of time as their seconds."""
    found: Any = time_s if isinstance(time_s, np.ndarray | Clock) else _array(time_s, "a stream's clock")
    if found.ndim != 1:
        raise UserError(f"a stream's clock has shape {found.shape}; give one number of seconds a value")
    if found.dtype.kind in "mM":
        return found.astype(f"{found.dtype.kind}8[ns]").astype(np.float64) / 1e9
    if found.dtype.kind not in "fi":
        return as_numbers(found, "a stream's clock", np.float64)
    return found


def as_numbers(values: object, where: str, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """Values as an array that torch takes: whole numbers stay what they are, all others become float32.

    UserError, with `where` they stand, where they are no numbers.
    """
    found = _array(values, where)
    kind = found.dtype.kind
    if kind in "iu":
        # Of unsigned numbers torch reckons with bytes only.
        wider = found.astype(f"i{min(8, 2 * found.itemsize)}") if kind == "u" and found.itemsize > 1 else found
        return wider.astype(wider.dtype.newbyteorder("="), copy=False)
    if kind not in "fbO":
        raise UserError(f"{where}: expected numbers, found {found.dtype}")
    try:
        with np.errstate(over="ignore"):  # What is too large becomes infinite, which is said by name.
            return found.astype(dtype, copy=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: expected numbers, found others ({error})") from None


DATED = "dated"
"""What a record's `about` says where its clock counts seconds since 1970, which are shown as dates."""


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

    def _repr_html_(self) -> str:
        """Its streams and their clocks, for a notebook."""
        rows: list[tuple[str, ...]] = [("stream", "values", "from (s)", "to (s)")]
        for name, stream in self.streams.items():
            shape = " x ".join(map(str, stream.values.shape))
            first, last = (f"{stream.time_s[i]:.10g}" if len(stream) else "" for i in (0, -1))
            rows.append((name, f"{shape} {stream.values.dtype}", first, last))
        return f"<p><b>{escape(self.name)}</b></p>{html_table(rows)}"


def html_table(rows: Iterable[Sequence[object]]) -> str:
    """A small table for a notebook; the first row is its header."""
    header, *others = rows
    lines = ["".join(f"<th>{escape(str(cell))}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in others]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def last_known(values: np.ndarray) -> np.ndarray:
    """At each step (axis 0) the last number that is not NaN; NaN before the first."""
    steps = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    return np.take_along_axis(values, np.maximum.accumulate(np.where(np.isnan(values), 0, steps), 0), 0)


def text_stream(text: str) -> Stream:
    """A text as its bytes, one a second."""
    values = np.frombuffer(text.encode(), np.uint8)
    return Stream(values, np.arange(float(len(values))))


def text_of(stream: Stream) -> str:
    """The text whose bytes a stream holds."""
    return np.asarray(stream.values[:]).astype(np.uint8).tobytes().decode()
