"""Records divided into training, validation and test, before anything is cut from them."""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import numpy as np

from ..config import Spec
from ..errors import UserError
from .records import Record, Stream

PART = "part"
"""What a record tells about the part that it belongs to, where its set was divided by who made it."""
PARTS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
         "dev": "validation", "test": "test"}  # fmt: skip
"""Parts by what sets call them."""


def unsaid(line: str) -> None:
    """Reporter that drops every line."""


@dataclass(frozen=True)
class Split(Spec):
    """How records are divided, before anything is cut from them."""

    by: Literal["record", "time", "part"] = "record"
    """record: whole records; time: the later part of each record is held out, behind a gap; part: as each record tells
    about itself (train, validation or test), and where none is told to validate, `validation` of the training ones."""
    validation: float = 0.1
    """Share held out to choose the best checkpoint; 0: none, the last weights are kept."""
    test: float = 0.1
    """Share held out for the score."""
    gap_s: float = 2.0
    """Seconds dropped between the parts of a record."""
    seed: int = 0
    """Seed of the draw of which records fall where."""
    folds: int = 0
    """Folds into which records are dealt, one of which is the test part; 0: none, `test` says its share."""
    fold: int = 0
    """Fold that is the test part, from 0."""
    apart: tuple[str, ...] = ()
    """Names of streams, or of what a record tells about itself (a speaker, a patient), that no two parts share: of
    records that share one, those of the part that is held out stay, the others are left out."""

    together: str = ""
    """Name of what a record tells about itself (a scene, a speaker); records that share it fall into one part."""

    BOUNDS = {
        "validation": (0, 1),
        "test": (0, 1),
        **dict.fromkeys(("gap_s", "seed", "folds", "fold"), (0, inf)),
    }

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """`train`, `validation` and `test`; tells of records that are left out."""
        if not records:
            raise UserError("the data holds no record")
        if self.folds and (self.by != "record" or not self.fold < self.folds or self.folds < 2):
            raise UserError(
                f"--split.fold {self.fold} of --split.folds {self.folds}: give at least 2 folds of whole records (by "
                "record), counted from 0"
            )
        if self.by == "part":
            return self._by_part(records)
        if not self.folds and not 0 < self.test < 1 - self.validation:
            raise UserError(
                f"--split.test {self.test:g} must be above 0 and, with --split.validation {self.validation:g}, "
                "leave something to train on"
            )
        parts = self._by_record(records) if self.by == "record" else self._by_time(records, say)
        parts = self._apart(parts, say) if self.apart else parts
        for name, part in parts.items():
            if not part and (name != "validation" or self.validation):
                gap = f" and a gap of {self.gap_s:g} s" if self.gap_s else ""
                raise UserError(
                    f"no record is left for {name}: all {len(records)} are too short for two steps of its "
                    f"share{gap}; give longer ones, or raise --split.validation and --split.test"
                )
        return parts

    def _apart(self, parts: dict[str, list[Record]], say: Callable[[str], None]) -> dict[str, list[Record]]:
        held: set[tuple[str, Hashable]] = set()
        for name in ("test", "validation", "train"):
            keys = [[(what, _identity(record, what)) for what in self.apart] for record in parts[name]]
            left = [record for record, own in zip(parts[name], keys, strict=True) if held.isdisjoint(own)]
            shared = " or ".join(self.apart)
            if lost := len(parts[name]) - len(left):
                say(f"{name}: {lost} of {len(parts[name])} records share a {shared} with those held out: left out")
            if not left and parts[name]:
                raise UserError(
                    f"no record is left for {name}: each shares a {shared} with those held out; give other records"
                )
            parts[name] = left
            held.update(key for own in keys for key in own)
        return parts

    def _by_part(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
        for record in records:
            told = str(record.about.get(PART, ""))
            if told not in PARTS:
                raise UserError(
                    f"{record.name} tells of no part that it belongs to (train, validation or test), but {told!r}; "
                    "divide by chance: --split.by record"
                )
            parts[PARTS[told]].append(record)
        for name in ("train", "test"):
            if not parts[name]:
                raise UserError(f"no record says that it belongs to {name}; divide by chance: --split.by record")
        if not parts["validation"] and self.validation:
            drawn = replace(self, by="record", test=self.validation, validation=0.0)._by_record(parts["train"])
            parts |= {"train": drawn["train"], "validation": drawn["test"]}
        return parts

    def _by_record(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        if self.together:
            groups: dict[Hashable, list[Record]] = {}
            for record in records:
                groups.setdefault(_identity(record, self.together), []).append(record)
            firsts = {id(own[0]): own for own in groups.values()}
            drawn = replace(self, together="")._by_record([own[0] for own in groups.values()])
            return {part: [r for first in some for r in firsts[id(first)]] for part, some in drawn.items()}
        n = len(records)
        if n < 3:
            raise UserError(
                f"training, validation and test need a record each, found {n} in all; "
                "add recordings, or hold out the later part of each with --split.by time"
            )
        order = np.random.default_rng(self.seed).permutation(n)
        validation, test = (max(1, round(share * n)) if share else 0 for share in (self.validation, self.test))
        if self.folds:  # The fold comes last.
            held = np.array_split(order, self.folds)[self.fold]
            order, test = np.append(np.setdiff1d(order, held, assume_unique=True), held), len(held)
        if validation + test >= n:
            raise UserError(f"--split.validation and --split.test leave none of {n} records to train on")
        cuts = {"train": n - validation - test, "validation": validation, "test": test}
        parts, start = {}, 0
        for name, size in cuts.items():
            parts[name] = [records[i] for i in sorted(order[start : start + size])]
            start += size
        return parts

    def _by_time(self, records: Sequence[Record], say: Callable[[str], None]) -> dict[str, list[Record]]:
        train = 1 - self.validation - self.test
        bounds = {"train": (0.0, train), "validation": (train, 1 - self.test), "test": (1 - self.test, 1.0)}
        parts = {name: [] for name in bounds}
        for record in records:
            for name, (start, stop) in bounds.items():
                if start == stop:
                    continue
                part = _between(record, start, stop, self.gap_s if start else 0.0)
                if part is not None:
                    parts[name].append(replace(part, name=f"{record.name}[{name}]"))
        for name, part in parts.items():
            start, stop = bounds[name]
            if start < stop and (lost := len(records) - len(part)):
                say(f"{name}: {lost} of {len(records)} records are too short to give it two steps, and are left out")
        return parts


def _identity(record: Record, what: str) -> Hashable:
    """What a record must not share with one in another part."""
    if what not in record.streams and what in record.about:
        return str(record.about[what])
    return hashlib.sha256(np.ascontiguousarray(record[what].values[:]).tobytes()).digest()


def _between(record: Record, start: float, stop: float, gap_s: float) -> Record | None:
    """The share of a record between two shares of its time, without the first `gap_s` seconds."""
    clock = next(iter(record.streams.values())).time_s
    first, length = clock[0], clock[-1] - clock[0]
    low, high = first + start * length + gap_s, first + stop * length
    last = np.inf if stop >= 1 else high
    streams, clocks = {}, {}
    for name, stream in record.streams.items():
        if len(stream) == 1 and streams:  # True of the whole record.
            streams[name] = stream
            continue
        # Not numpy's search: it would copy a clock of whole numbers.
        a, b = (bisect_left(stream.time_s, at) for at in (low if start else -np.inf, last))
        if b - a < 2:
            return None
        # Streams of one clock go on sharing it.
        part = clocks.setdefault(id(stream.time_s), stream.time_s[a:b])
        streams[name] = Stream(View(stream.values, int(a), int(b)), part)
    return replace(record, streams=streams)


class View:
    """A stretch of values, decoded no sooner than asked for."""

    def __init__(self, values, start: int, stop: int):
        self.values, self.start, self.stop = values, start, stop
        self.shape, self.dtype = (stop - start, *values.shape[1:]), values.dtype

    @property
    def fingerprint(self) -> str | None:
        whole = getattr(self.values, "fingerprint", None)
        return whole and f"{whole}[{self.start}:{self.stop}]"

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index) -> np.ndarray:
        # Not by the places of all of it: of a long text they would be wider than the text.
        if isinstance(index, slice):
            if isinstance(self.values, np.ndarray):
                return self.values[self.start : self.stop][index]
            rows = range(self.start, self.stop)[index]
            if rows.step == 1:
                return self.values[rows.start : rows.stop]
            return self.values[np.arange(rows.start, rows.stop, rows.step)]
        places = np.asarray(index)
        if places.dtype.kind != "i" or not places.size:
            return self.values[np.arange(self.start, self.stop)[index]]
        if places.min() < -len(self) or places.max() >= len(self):
            raise IndexError(f"{len(self)} values, asked for {places.min()} to {places.max()}")
        return self.values[np.where(places < 0, self.stop, self.start) + places]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)
