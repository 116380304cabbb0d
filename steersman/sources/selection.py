"""Parts of a log that are wanted: `LOG?records=0,2&keep=10:120&drop=300:320`, seconds of a record's own clock."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from ..data.frames import Chosen
from ..data.records import Record, Stream
from ..errors import UserError

NAMES = ("records", "keep", "drop")
"""What is named behind any log's path."""


def asked(data: Sequence[str], **spans: str) -> tuple[str, ...]:
    """Logs with what is wanted of all of them named behind their paths, unless a log names it for itself.

    UserError where something is wanted of no log.
    """
    wanted = {name: spans[name] for name in NAMES if spans.get(name)}
    if wanted and not data:
        raise UserError(f"--{next(iter(wanted))} chooses from logs; name them with --data LOG")
    found = []
    for log in data:
        place, mark, named = str(log).partition("?")
        known = {one.partition("=")[0] for one in named.split("&")}
        more = "&".join(f"{name}={value}" for name, value in wanted.items() if name not in known)
        found.append(f"{place}{mark or '?' * bool(more)}{named}{'&' * bool(named and more)}{more}")
    return tuple(found)


def selected(records: Sequence[Record], given: Mapping[str, str], log: Path) -> list[Record]:
    """The wanted parts of records, each a record with its clock from zero.

    `records` are numbers from 0, spans of them or names with `*`; `keep` and `drop` are spans of seconds, of which the
    end doesn't belong to them. UserError where they can't be understood, or nothing is left.
    """
    chosen = _numbered(records, given["records"], log) if "records" in given else list(records)
    keep, drop = (_spans(given.get(name, ""), name, log) for name in ("keep", "drop"))
    if keep or drop:
        chosen = [part for record in chosen for part in _parts(record, keep or [(-np.inf, np.inf)], drop)]
    if not chosen:
        asked = "&".join(f"{name}={given[name]}" for name in NAMES if name in given)
        lengths = ", ".join(f"{_clock(record)[-1]:.1f}" for record in records[:12])
        raise UserError(f"{log}?{asked} leaves nothing: its {len(records)} records last {lengths} seconds")
    return chosen


def _numbered(records: Sequence[Record], asked: str, log: Path) -> list[Record]:
    wanted: set[int] = set()
    for item in asked.split(","):
        if span := re.fullmatch(r"(\d*)(:?)(\d*)", item):
            first = int(span[1] or 0)
            found = set(range(len(records))[first : int(span[3] or len(records)) if span[2] else first + 1])
        else:
            found = {i for i, record in enumerate(records) if fnmatchcase(record.name, item)}
        if not item or not found:
            names = ", ".join(record.name for record in records[:12])
            raise UserError(f"{log}: records={item} is none of its {len(records)}, counted from 0: {names}")
        wanted |= found
    return [records[i] for i in sorted(wanted)]


def _spans(asked: str, name: str, log: Path) -> list[tuple[float, float]]:
    spans = []
    for item in filter(None, asked.split(",")):
        begin, mark, end = item.partition(":")
        try:
            span = (float(begin or "-inf"), float(end or "inf"))
        except ValueError:
            span = (np.nan, np.nan)
        if not mark or not span[0] < span[1]:
            raise UserError(f"{log}: {name}={item} is no span of seconds; write BEGIN:END, for example {name}=10:120")
        spans.append(span)
    return spans


def _clock(record: Record) -> np.ndarray:
    return next(iter(record.streams.values())).time_s


def _parts(record: Record, keep: Sequence[tuple[float, float]], drop: Sequence[tuple[float, float]]) -> list[Record]:
    clock = _clock(record)

    def within(spans: Sequence[tuple[float, float]]) -> np.ndarray:
        return np.any([(clock >= begin) & (clock < end) for begin, end in spans], axis=0) if spans else clock < -np.inf

    wanted = np.append(within(keep) & ~within(drop), False)
    edges = np.flatnonzero(np.diff(wanted.astype(np.int8), prepend=0)).reshape(-1, 2)
    if len(edges) == 1 and edges[0].tolist() == [0, len(clock)]:
        return [record]
    digits = len(str(len(edges) - 1))
    names = [f"/{number:0{digits}d}" if len(edges) > 1 else "" for number in range(len(edges))]
    return [_part(record, a, b, record.name + name) for (a, b), name in zip(edges.tolist(), names, strict=True)]


def _part(record: Record, first: int, stop: int, name: str) -> Record:
    """Rows of the first stream, and of the others what was known at them."""
    clock = _clock(record)
    begin, end = clock[first], clock[stop - 1]
    streams = {}
    for key, stream in record.streams.items():
        rows = slice(first, stop)
        if stream.time_s is not clock and not np.array_equal(stream.time_s, clock):
            known = int(np.searchsorted(stream.time_s, begin, side="right")) - 1
            rows = slice(max(0, known), int(np.searchsorted(stream.time_s, end, side="right")))
        values = stream.values
        kept = values[rows] if isinstance(values, np.ndarray) else Chosen(values, np.arange(len(values))[rows])
        if len(kept):
            streams[key] = Stream(kept, stream.time_s[rows] - begin)
    return replace(record, name=name, streams=streams, about=record.about | {"kept_s": [float(begin), float(end)]})
