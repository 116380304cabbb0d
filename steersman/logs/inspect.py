"""What a log holds before anything is learned from it: its clocks, labels and pictures, and what is wrong with them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..console import counted
from ..data.records import Record, Stream, html_table
from ..errors import UserError
from ..json_types import JsonObject
from ..progress import Watch, silent
from ..sources import read
from .motion import WINDOWS, Lag, Motion, find_lag

LABELS = ("steer", "angle_rad")
"""Streams taken for the label, the first that is there."""
CHUNK = 64
PICTURES = 12
"""Pictures kept to show."""
GAP_STEPS = 3
"""Usual steps of a clock; a longer one is a gap."""
SHOWN = 20
"""Faults and gaps that are named; all are counted."""
MOSTLY_ZERO = 0.6
ROUNDING = 1e-9
"""Share of the largest label below which another is zero: what is left of a difference."""
CLEAR = 0.5
"""Correlation of the scene's motion with the label from which its sign is believed."""


@dataclass
class Seen:
    """What a pass over a record's pictures gives: motion, digests, frames that can't be decoded, a few pictures."""

    motion: np.ndarray
    digests: list[bytes | None] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    kept: list[tuple[int, np.ndarray]] = field(default_factory=list)


@dataclass(frozen=True)
class Inspection:
    """`found` is ready for JSON; the rest is what the page draws."""

    found: JsonObject
    records: Sequence[Record]
    seen: Sequence[Seen]
    lag: Lag | None

    def _repr_html_(self) -> str:
        from .page import inspection_rows

        said = [("warning", text) for text in self.found["warnings"]]
        return html_table([("log", self.found["log"]), *inspection_rows(self.found), *said])


def inspect_log(logs: Path | str | Sequence[str], watch: Watch = silent) -> Inspection:
    """Looks at every frame of a log, or several, of any format that is known. UserError where one can't be read."""
    paths = [str(logs)] if isinstance(logs, Path | str) else logs
    records = read(*paths)
    total, done, seen = sum(map(len, records)), 0, []
    wanted = set(np.linspace(0, total - 1, min(PICTURES, total)).round().astype(int).tolist())
    for record in records:
        seen.append(_look(record, {i - done for i in wanted}, lambda n, done=done: watch("looking", done + n, total)))
        done += len(record)
    label = label_name(records)
    rates = [_rate_hz(_clock(record).time_s) for record in records]
    # A record without a rate or a label tells nothing of the lag.
    told = [i for i, r in enumerate(records) if label in r.streams and len(seen[i].motion) and rates[i]]
    lag = find_lag(
        [seen[i].motion for i in told], [label_values(records[i], label) for i in told], [rates[i] for i in told]
    )
    found = {
        "log": ", ".join(paths),
        "formats": _distinct(records, "format"),
        "records": len(records),
        "frames": total,
        "seconds": float(sum(_seconds(record) for record in records)),
        "streams": _streams(records),
        "rate_hz": float(np.median([rate for rate in rates if rate])) if any(rates) else None,
        "clocks": _distinct(records, "clock"),
        "signs": _distinct(records, "sign"),
        "steer_range_rad": _distinct(records, "steer_range_rad"),
        **_gaps(records),
        **_faults(records),
        "undecodable": [one for s in seen for one in s.broken][:SHOWN],
        "num_undecodable": sum(len(s.broken) for s in seen),
        "duplicates": duplicates([s.digests for s in seen]),
        "label": _label(records, label),
        "lag": asdict(lag) if lag else None,
        "each": [_each(r, s, label, rate) for r, s, rate in zip(records, seen, rates, strict=True)],
    }
    return Inspection(found | {"warnings": warnings(found)}, records, seen, lag)


def label_name(records: Sequence[Record]) -> str | None:
    """The stream taken for the label; None where the log has no steering."""
    return next((name for name in LABELS if any(name in record.streams for record in records)), None)


def label_values(record: Record, label: str | None) -> np.ndarray:
    """The label on the clock of the record's first stream."""
    return np.asarray(record[str(label)].at(_clock(record).time_s), float)


def duplicates(records: Sequence[Sequence[bytes | None]]) -> dict[str, int]:
    """Frames, by their digests, equal to the one just before, and frames that stand in more than one record."""
    consecutive = sum(a == b and a is not None for digests in records for a, b in pairwise(digests))
    owners = Counter(digest for digests in records for digest in set(digests) if digest is not None)
    across = sum(owners[digest] > 1 for digests in records for digest in digests if digest is not None)
    return {"consecutive": consecutive, "across_records": across}


def warnings(found: JsonObject) -> list[str]:
    """What should be mended or known before a model is trained on it, a sentence each."""
    said = [f"the time stamps are not used: {clock}" for clock in found["clocks"] if "nominal" in str(clock)]
    label, lag, twice = found["label"], found["lag"], found["duplicates"]
    said += found["notes"]
    if found["num_faults"]:
        said.append(f"left out while reading: {counted(found['num_faults'], 'frame')}, the first: {found['faults'][0]}")
    if found["num_undecodable"]:
        number = counted(found["num_undecodable"], "picture")
        said.append(f"{number} can't be decoded, the first: {found['undecodable'][0]}")
    if found["num_gaps"]:
        number = counted(found["num_gaps"], "time")
        said.append(f"the clock skips {number} over more than {GAP_STEPS} steps within a record")
    if number := twice["consecutive"]:
        equal = "equals" if number == 1 else "equal"
        said.append(f"{counted(number, 'frame')} {equal} the one before: the camera stood still or stuck")
    if number := twice["across_records"]:
        stand = "stands" if number == 1 else "stand"
        said.append(f"{counted(number, 'frame')} {stand} in more than one record: a split by record would leak")
    if label is None:
        return said
    if label["constant"]:
        said.append(f"{label['stream']} never changes: there is nothing to learn from")
    elif label["zeros"] > MOSTLY_ZERO:
        said.append(f"{label['zeros']:.0%} of {label['stream']} is zero: a model that never steers looks good on it")
    if lag and lag["correlation"] < -CLEAR:
        said.append(
            f"the scene moves against {label['stream']} (correlation {lag['correlation']:.2f}): its sign is "
            "probably turned around, positive should be left; of a CSV, name it: '?sign=right' behind the path"
        )
    if lag and lag["least_s"] > 0:
        said.append(
            f"the camera sees a turn {lag['seconds']:.2f} s after the label: leave the labels as they are, for models "
            f"that were taught the shifted ones steered no better; whoever wants to see: --lag.seconds "
            f"{-lag['seconds']:.2f}, beside a run without"
        )
    if lag and lag["most_s"] < 0:
        said.append(f"the camera sees a turn {-lag['seconds']:.2f} s before the label: its clocks disagree")
    return said


def _look(record: Record, wanted: set[int], tell: Callable[[int], None]) -> Seen:
    stream = _pictures(record)
    if stream is None:
        return Seen(np.empty((0, len(WINDOWS))))
    motion, parts, seen = Motion(), [], Seen(np.empty(0))
    for start in range(0, len(stream), CHUNK):
        pictures = _decoded(record, stream, start, min(start + CHUNK, len(stream)), seen)
        for i, picture in enumerate(pictures, start):
            seen.digests.append(None if picture is None else _digest(picture))
            if i in wanted and picture is not None:
                seen.kept.append((i, picture))
        parts.append(_motions(motion, pictures))
        tell(start + len(pictures))
    seen.motion = np.concatenate(parts)
    return seen


def _digest(picture: np.ndarray) -> bytes:
    return hashlib.blake2b(picture.tobytes(), digest_size=12).digest()


def _decoded(record: Record, stream: Stream, start: int, stop: int, seen: Seen) -> list[np.ndarray | None]:
    """A chunk's pictures, None for one that can't be decoded."""
    try:
        return list(np.asarray(stream.values[start:stop]))
    except UserError:
        pictures: list[np.ndarray | None] = []
    for i in range(start, stop):
        try:
            pictures.append(np.asarray(stream.values[i]))
        except UserError as error:
            seen.broken.append(f"{record.name}: {error}")
            pictures.append(None)
    return pictures


def _motions(motion: Motion, pictures: list[np.ndarray | None]) -> np.ndarray:
    """Next to a picture that can't be decoded no motion is known."""
    found = np.full((len(pictures), len(WINDOWS)), np.nan)
    good = [i for i, picture in enumerate(pictures) if picture is not None]
    for part in np.split(good, np.flatnonzero(np.diff(good) > 1) + 1):
        if not len(part) or part[0] > 0:
            motion.last = None
        if len(part):
            found[part] = motion.add(np.stack([p for p in pictures[part[0] : part[-1] + 1] if p is not None]))
    if pictures and pictures[-1] is None:
        motion.last = None
    return found


def _pictures(record: Record) -> Stream | None:
    """The first stream of colour pictures."""
    return next((s for s in record.streams.values() if len(s.values.shape) == 4 and s.values.shape[-1] == 3), None)


def _clock(record: Record) -> Stream:
    return _pictures(record) or next(iter(record.streams.values()))


def _rate_hz(time_s: np.ndarray) -> float:
    """The usual rate of a clock; 0 where it never moves."""
    step = np.diff(time_s)
    return float(1 / np.median(step[step > 0])) if (step > 0).any() else 0.0


def _seconds(record: Record) -> float:
    clock = _clock(record).time_s
    return float(clock[-1] - clock[0]) if len(clock) else 0.0


def _distinct(records: Sequence[Record], key: str) -> list[object]:
    found = [record.about[key] for record in records if record.about.get(key) is not None]
    return list(dict.fromkeys(found))


def _streams(records: Sequence[Record]) -> dict[str, JsonObject]:
    """Streams by name: dtype, shapes without time, and in how many records each stands."""
    found: dict[str, JsonObject] = {}
    for record in records:
        for name, stream in record.streams.items():
            row = found.setdefault(name, {"dtype": str(stream.values.dtype), "shapes": [], "records": 0})
            row["records"] += 1
            if (shape := list(stream.values.shape[1:])) not in row["shapes"]:
                row["shapes"].append(shape)
    return found


def _gaps(records: Sequence[Record]) -> JsonObject:
    gaps = []
    for record in records:
        time_s = _clock(record).time_s
        step = np.diff(time_s)
        usual = np.median(step) if len(step) else 0
        gaps += [
            {"record": record.name, "time_s": float(time_s[i] - time_s[0]), "seconds": float(step[i])}
            for i in np.flatnonzero(step > GAP_STEPS * usual)
            if usual > 0
        ]
    gaps.sort(key=lambda gap: -gap["seconds"])
    return {"gaps": gaps[:SHOWN], "num_gaps": len(gaps)}


def _faults(records: Sequence[Record]) -> JsonObject:
    """The records of one log share their faults, which count once."""
    logs = {str(r.about.get("faults")): (r.about.get("faults") or [], r.about.get("num_faults", 0)) for r in records}
    named = [fault for faults, _ in logs.values() for fault in faults]
    notes = list(dict.fromkeys(note for record in records for note in record.about.get("notes", [])))
    return {"faults": named[:SHOWN], "num_faults": sum(number for _, number in logs.values()), "notes": notes}


def _label(records: Sequence[Record], label: str | None) -> JsonObject | None:
    values = [label_values(record, label) for record in records if label in record.streams]
    if not values or not sum(map(len, values)):
        return None
    value = np.concatenate(values)
    most = float(np.abs(value).max())
    value = np.where(np.abs(value) < ROUNDING * most, 0.0, value)
    counts, edges = np.histogram(value, 21, (-most, most) if most else (-1, 1))
    return {
        "stream": label,
        "min": float(value.min()),
        "max": float(value.max()),
        "mean": _mean(value),
        "sd": float(value.std()),
        "zeros": float((value == 0).mean()),
        "distinct": len(np.unique(value)),
        "constant": bool(value.min() == value.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _mean(value: np.ndarray) -> float:
    mean = float(value.mean())
    return 0.0 if abs(mean) < ROUNDING * float(np.abs(value).max()) else mean


def _each(record: Record, seen: Seen, label: str | None, rate_hz: float) -> JsonObject:
    value = label_values(record, label) if label in record.streams else None
    return {
        "name": record.name,
        "frames": len(record),
        "seconds": _seconds(record),
        "rate_hz": rate_hz or None,
        "mean": None if value is None else _mean(value),
        "zeros": None if value is None else float((value == 0).mean()),
        "undecodable": len(seen.broken),
    }
