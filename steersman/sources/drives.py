"""How the frames of a driving log become Records: the faults met, and the cuts where its clock jumps."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..data.frames import Chosen
from ..data.records import Record, Stream, Values
from ..errors import UserError
from ..json_types import JsonObject
from .clocks import ordered, runs, spread

GAP_S = 1.0
"""Pause beyond which a record ends, so that no window crosses it."""
FAULTS_SHOWN = 20
FAULTS_SHARE = 0.05
"""Share of faulty frames; a log with more is refused."""


OVER = 1e-3
"""Share by which a wheel may go beyond full lock: joysticks give -32768 / 32767."""
WHEEL_RANGE_RAD = math.radians(540)
"""Range of a passenger car's steering wheel to either side: one and a half turns, more than their locks allow."""


@dataclass
class Faults:
    """Frames of a log that can't be used, each with its reason."""

    log: Path
    found: list[str] = field(default_factory=list)
    clipped: list[float] = field(default_factory=list)
    """What was beyond full lock by OVER at most."""
    notes: list[str] = field(default_factory=list)
    """What else was done that its owner should know, a sentence each."""

    def add(self, where: str, what: object) -> None:
        self.found.append(f"{where}: {what}")

    def lock(self, value: object) -> float:
        """A fraction of full lock, clipped where it is over it by a hair. ValueError where it is no such number."""
        angle = number(value)
        fraction = min(max(angle, -1.0), 1.0) if abs(angle) <= 1 + OVER else number(angle, -1, 1)
        self.clipped += [angle] * (fraction != angle)
        return fraction

    def check(self, num_good: int) -> None:
        """Raises UserError where no frame is left or more than 5 % are lost."""
        if num_good and len(self.found) <= FAULTS_SHARE * (num_good + len(self.found)):
            return
        first = f", the first: {self.found[0]}" if self.found else ""
        raise UserError(
            f"{self.log}: {len(self.found)} of {num_good + len(self.found)} frames can't be read{first}; "
            f"at most {FAULTS_SHARE:.0%} may be bad, so copy the log anew or leave it out"
        )

    def about(self) -> JsonObject:
        notes = list(self.notes)
        if self.clipped:
            furthest = max(self.clipped, key=abs)
            notes.append(f"{len(self.clipped)} angles of up to {furthest:.8g} were taken for full lock, which is 1")
        told: JsonObject = {"faults": self.found[:FAULTS_SHOWN], "num_faults": len(self.found)}
        return told | ({"notes": notes} if notes else {})


def stretches(time_s: np.ndarray, sessions: Sequence[object]) -> list[slice]:
    """The parts, each of one session, in which the clock neither skips over a second nor goes back."""
    step = np.diff(time_s)
    other = np.array([a != b for a, b in pairwise(sessions)], bool)
    cuts = [0, *(np.flatnonzero((step > GAP_S) | (step < 0) | other) + 1).tolist(), len(time_s)]
    return [slice(a, b) for a, b in pairwise(cuts)]


def rate_hz(time_s: np.ndarray) -> float | None:
    """The usual rate of a clock, None where it never moves."""
    step = np.diff(time_s)
    return round(1 / float(np.median(step[step > 0])), 2) if (step > 0).any() else None


def records(
    log: Path,
    time_s: np.ndarray,
    sessions: Sequence[object],
    streams: Callable[[slice], Mapping[str, Values]],
    about: JsonObject,
) -> list[Record]:
    """A Record for each stretch of the log, its clock from zero; `streams` gives the values of one.

    Rows that were shuffled are sorted, and those that share stamps are spread over them; `about` says so. UserError
    where the stamps are too coarse for that.
    """
    sessions = _known(sessions)
    order, sorted_ = ordered(time_s, sessions)
    whole = None
    if order is not None:
        time_s, sessions = time_s[order], [sessions[place] for place in order]
        whole = {name: picked(values, order) for name, values in streams(slice(0, len(order))).items()}
    try:
        clock, spread_ = spread(runs(time_s, sessions))
    except ValueError as error:
        raise UserError(f"{log}: {error}; give the frames finer stamps or a rate of their own") from error
    if spread_:
        time_s = clock
    about = _with_clock(about, time_s, sorted_, spread_)
    parts = stretches(time_s, sessions)
    digits = len(str(len(parts) - 1))
    found = []
    for number, part in enumerate(parts):
        clock = time_s[part] - time_s[part][0]
        name = log.resolve().name + (f"/{number:0{digits}d}" if len(parts) > 1 else "")
        kept = streams(part) if whole is None else {k: picked(v, np.arange(len(v))[part]) for k, v in whole.items()}
        found.append(Record(name, {key: Stream(value, clock) for key, value in kept.items()}, about))
    return found


def _known(sessions: Sequence[Any]) -> list[Any]:
    """Sessions in which what is None is as before: a picture that can't be looked into cuts no drive."""
    found, before = [], None
    for session in reversed(sessions):
        before = _filled(session, before)
    for session in sessions:
        before = _filled(session, before)
        found.append(before)
    return found


def _filled(session: Any, before: Any) -> Any:
    if isinstance(session, tuple) and isinstance(before, tuple) and len(session) == len(before):
        return tuple(map(_filled, session, before))
    return before if session is None else session


def _with_clock(about: JsonObject, time_s: np.ndarray, *said: str) -> JsonObject:
    """What is told of a log, with what was done to its clock."""
    if not any(said):
        return about
    told = "; ".join([str(about.get("clock", "")), *filter(None, said)])
    return about | {"clock": told, "rate_hz": rate_hz(time_s)}


def wheel(angle_rad: np.ndarray, range_rad: float) -> dict[str, np.ndarray]:
    """`steer` and `angle_rad` of angles at the steering wheel, positive left."""
    angle = np.asarray(angle_rad, np.float64) + 0.0  # -0 becomes 0
    return {"steer": (angle / range_rad).astype(np.float32), "angle_rad": angle.astype(np.float32)}


def sound(
    name: str, values: np.ndarray, time_s: np.ndarray, faults: Faults, low: float = -1e30, high: float = 1e30
) -> Stream:
    """The samples (time ...) that are numbers within bounds, by time; the others are faults."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore"):
        good = ((values >= low) & (values <= high)).reshape(len(values), -1).all(1) & (np.abs(time_s) < 1e12)
    for i in np.flatnonzero(~good):
        faults.add(f"{name}, sample {i}", f"{values[i]} at {time_s[i]} s is not a number from {low:g} to {high:g}")
    order = np.flatnonzero(good)[np.argsort(time_s[good], kind="stable")]
    kept = values[order]
    return Stream(kept, time_s[order])


def cut(
    log: Path, streams: dict[str, Stream], about: JsonObject, sessions: Sequence[object] | None = None
) -> list[Record]:
    """Records of streams of which each has its own ascending clock, cut where the first pauses or has other `sessions`.

    Frames of the first with no `steer` in the second before them are left out and counted in `num_unlabelled`;
    stamps that are shared are spread evenly, said in `about`. UserError where none is left, or where the stamps of the
    first are too coarse.
    """
    streams, about = _spread(log, streams, about)
    first, steer = next(iter(streams.values())), streams["steer"].time_s
    last = np.searchsorted(steer, first.time_s, side="right") - 1
    known = last >= 0
    known[known] = first.time_s[known] - steer[last[known]] <= GAP_S
    rows = np.flatnonzero(known)
    if not len(rows):
        raise UserError(f"{log}: none of {len(first)} frames has a steering angle in the second before it")
    about = about | {"rate_hz": rate_hz(first.time_s[rows]), "num_unlabelled": int((~known).sum())}
    parts = stretches(first.time_s[rows], [sessions[row] if sessions else None for row in rows.tolist()])
    digits = len(str(len(parts) - 1))
    found = []
    for number, part in enumerate(parts):
        begin_s, end_s = first.time_s[rows[part]][[0, -1]]
        values = {}
        for name, stream in streams.items():
            start = np.searchsorted(stream.time_s, begin_s, side="right") - 1
            # The last sample before the first frame is what is known at it.
            wanted = np.arange(max(0, start), np.searchsorted(stream.time_s, end_s, side="right"))
            wanted = rows[part] if stream is first else wanted
            if len(wanted):
                values[name] = _chosen(stream, wanted, begin_s)
        name = log.resolve().name + (f"/{number:0{digits}d}" if len(parts) > 1 else "")
        found.append(Record(name, values, about))
    return found


def _spread(log: Path, streams: Mapping[str, Stream], about: JsonObject) -> tuple[dict[str, Stream], JsonObject]:
    """The streams, each clock that is too coarse for them spread, and what is told of it."""
    clocks: dict[int, np.ndarray] = {}
    found, told = {}, []
    for place, (name, stream) in enumerate(streams.items()):
        if (clock := clocks.get(id(stream.time_s))) is None:
            clock, said = stream.time_s, ""
            try:
                clock, said = spread(stream.time_s)
            except ValueError as error:
                # Of numbers that share a stamp at random the last is the one known.
                if not place:
                    raise UserError(f"{log}: {name}: {error}; give the frames finer stamps") from error
            clocks[id(stream.time_s)] = clock
            told += [f"{name}: {said}"] * bool(said)
        found[name] = stream if clock is stream.time_s else Stream(stream.values, clock)
    return found, _with_clock(about, next(iter(found.values())).time_s, *told)


def _chosen(stream: Stream, rows: np.ndarray, begin_s: float) -> Stream:
    return Stream(picked(stream.values, rows), stream.time_s[rows] - begin_s)


def picked(values: Values, rows: np.ndarray) -> Values:
    """Some of the values, of pictures without decoding them."""
    return values[rows] if isinstance(values, np.ndarray) else Chosen(values, rows)


def own_name(cell: str) -> str:
    """The name of a file without its folders, which are those of another machine, often a Windows one."""
    return re.split(r"[\\/]", cell)[-1]


def number(value: object, low: float = -1e30, high: float = 1e30) -> float:
    """A plain number within bounds. ValueError says what it is instead."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{str(value)[:40]!r} is not a number from {low:g} to {high:g}")
    return float(value)
