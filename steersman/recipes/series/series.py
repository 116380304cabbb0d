"""What the recipes of tables have in common: columns by name, series, clocks, missing values, covariates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Self

import numpy as np

from ...config import Spec, did_you_mean
from ...data.examples import WEIGHT
from ...data.records import DATED, Record, Stream
from ...data.splits import unsaid
from ...errors import UserError
from ...nn.encoders import Joined, Part
from ...nn.heads import tells_distribution
from ...nn.model import Model
from ...sources.tables import clock_seconds, find_clock, word
from ...training.recipe import INTERVAL, Parts, RowByRow, StepRecipe
from .bands import AdaptiveBands

VALUES, STATIC, AHEAD, SEASON = "values", "static", "ahead", "season"
"""Streams of the model: what is known at a step, what is true of the whole series, what is known of steps to come, and
what the targets were one season before these."""
ROWS = "row"
"""Name of the clock that counts rows."""
FOLDER = "folder"
"""Column of the name of a table's folder, where that is the label."""
CLOCK = "clock_column"
"""What a record that is a series tells its clock by."""
MOST_NAMES = 64
"""Different words of a column that become inputs; more are no categories."""


@dataclass(frozen=True)
class Category(Spec):
    """Column of words that are inputs, a yes or no for each."""

    column: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Series(StepRecipe):
    """Recipe of tables over time; what it learns, and of what, stands in it by the names of columns."""

    time: str = ""
    """Column of the time; empty: found by name and kind; row: rows are counted."""
    series: str = ""
    """Column that says which series a row belongs to; empty: a file is a series."""
    static: tuple[str, ...] = ()
    """Columns that are true of a whole series, such as age and sex."""
    ahead: tuple[str, ...] = ()
    """Columns that are known of steps to come, such as holidays or the forecast of a temperature."""
    leave_out: tuple[str, ...] = ()
    """Columns that are no input."""
    logs: tuple[str, ...] = ()
    """Columns of which the logarithm of one more is the input (of a number below 0, that of its size, negative):
    quantities of which few are many times as large as most."""
    sort: bool = False
    """Sort rows by their time; else one that goes back is refused."""
    every_s: float = 0.0
    """Seconds of a step, counted from 0: numbers measured in it become their mean; 0: rows stay as they are."""
    context: int = 256
    """Steps before a held out part that are read and not scored, so that the model knows where it is."""
    columns: tuple[str, ...] = ()
    """Columns of numbers that are inputs; empty: learned from the training part, all that are left."""
    categories: tuple[Category, ...] = ()
    """Columns of words that are inputs; learned from the training part."""

    inputs: str = VALUES
    BOUNDS = {"context": (0, inf), "every_s": (0, inf)}
    future_inputs: ClassVar[int] = 0
    """Steps to come of which `ahead` is seen."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Columns that are learned."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    @property
    def hidden(self) -> tuple[str, ...]:
        """Columns that the model never sees: an answer that the input holds is no answer."""
        return self.answers

    def with_answers(self, parts: Parts) -> Self:
        """The recipe with what it learns of its answers: a head for them, names of classes."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    def answer_streams(self, record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Targets of a record by stream (step number), and at which steps all of them are known (step)."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    # Records

    def transform_records(self, records: list[Record]) -> list[Record]:
        """A record a series, its streams the columns on its own clock in seconds."""
        return [series for record in records for series in self._series_of(record)]

    def _series_of(self, record: Record) -> list[Record]:
        if CLOCK in record.about:
            return [record]
        columns = {name: np.asarray(stream.values) for name, stream in record.streams.items()}
        # What a trained recipe gives an answer to may lack it, and what it never looked at.
        learned = () if self.columns or self.categories else (*self.answers, *self.leave_out)
        words = [category.column for category in self.categories]
        known = (self.time, self.series, *self.static, *self.ahead, *learned, *self.columns, *words)
        for name in filter(None, known):
            if name not in columns and name not in (ROWS, FOLDER):
                raise UserError(
                    f"{record.name} has no column {name!r}{did_you_mean(name, columns)}; it has {', '.join(columns)}"
                )
        if both := sorted(set(self.answers) & {*self.ahead, *self.static}):
            raise UserError(f"{both[0]!r} is to be learned; it can't be known ahead, nor be true of a whole series")
        clock = self.time or find_clock({n: v for n, v in columns.items() if n not in (*self.answers, self.series)})
        groups: list[tuple[str, np.ndarray | slice]] = [(record.name, slice(None))]
        if self.series:
            names, place = np.unique(np.array([word(v) for v in columns[self.series]]), return_inverse=True)
            order = np.argsort(place, kind="stable")
            cuts = np.searchsorted(place[order], np.arange(1, len(names)))
            groups = list(zip(names.tolist(), np.split(order, cuts), strict=True))
        if clock in ("", ROWS):
            seconds, told = None, "rows are counted"
        else:
            seconds, told = clock_seconds(record.name, clock, columns[clock])
        kept = {name: values for name, values in columns.items() if name not in (clock, self.series)}
        if not kept:
            raise UserError(f"{record.name} has no column beside {clock or self.series!r}; give one to learn")
        for name, values in kept.items():
            if values.dtype.kind == "f" and name not in self.leave_out and (wrong := np.isinf(values)).any():
                raise UserError(
                    f"{record.name}: {name!r} is infinite in row {int(wrong.argmax()) + 1}; mend or blank it"
                )
        dated = told == "dates" or told.startswith("seconds since 1970")
        about = {**record.about, CLOCK: clock or ROWS, "clock": f"{clock}, {told}" if clock else told, DATED: dated}
        return [self._one(name, kept, rows, seconds, about) for name, rows in groups]

    def _one(
        self,
        name: str,
        columns: Mapping[str, np.ndarray],
        rows: np.ndarray | slice,
        seconds: np.ndarray | None,
        about: Mapping[str, Any],
    ) -> Record:
        """The record of one series."""
        own = {column: values[rows] for column, values in columns.items()}
        length = len(next(iter(own.values())))
        time_s = np.arange(float(length)) if seconds is None else seconds[rows]
        step = np.diff(time_s)
        if (step <= 0).any():
            if not self.sort:
                row = int((step <= 0).argmax()) + 2
                what = "repeats" if step[row - 2] == 0 else "goes back"
                raise UserError(
                    f"{name}: the time {what} in row {row}; sort it with --sort"
                    + ("" if self.series else ", or name the column that tells several series apart with --series")
                )
            order = np.argsort(time_s, kind="stable")
            order = order[np.append(np.diff(time_s[order]) > 0, True)]  # Of rows of one time the last counts.
            time_s, own = time_s[order], {column: values[order] for column, values in own.items()}
        if self.every_s:
            time_s, own = _in_steps(time_s, own, self.every_s, self.static)
        return Record(name, {column: Stream(values, time_s) for column, values in own.items()}, dict(about))

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        if self.split.by == "record" and len(records) >= 3:
            return super().divide(records, say)
        if self.split.by == "record":
            say(f"{len(records)} series only: the later part of each is held out")
        return self._divide_by_time(records, say)

    def _divide_by_time(self, records: Sequence[Record], say: Callable[[str], None]) -> dict[str, list[Record]]:
        """Parts by shares of the steps; before a held out part stands its context, which counts nothing."""
        parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
        split = self.split
        for record in records:
            steps = len(record)
            ends = [round(steps * (1 - split.validation - split.test)), round(steps * (1 - split.test)), steps]
            for part, start, stop in zip(parts, [0, *ends[:-1]], ends, strict=True):
                if stop - start < 2 + self.future_inputs:
                    if stop > start:
                        say(f"{part}: {record.name} is too short to give it a part, and is left out")
                    continue
                parts[part].append(self.part(record, part, start, stop))
        for name, part in parts.items():
            if not part and (name != "validation" or split.validation):
                raise UserError(
                    f"no series is left for {name}, which needs {2 + self.future_inputs} steps of one: all "
                    f"{len(records)} are too short; give longer ones"
                )
        return parts

    def part(self, record: Record, name: str, start: int, stop: int, reach: int = 0) -> Record:
        """A record between two of its steps, its context before it and so many steps behind it that count nothing."""
        first, last = max(0, start - self.context), stop + reach
        streams = {n: Stream(s.values[first:last], s.time_s[first:last]) for n, s in record.streams.items()}
        clock = next(iter(streams.values())).time_s
        counts = np.zeros(len(clock), np.float32)
        counts[start - first : stop - first] = 1
        return replace(record, name=f"{record.name}[{name}]", streams={**streams, WEIGHT: Stream(counts, clock)})

    # What is learned of the training part

    def adapt(self, parts: Parts) -> Self:
        found = self.with_answers(parts)
        found = replace(found, time=found.time or str(parts["train"][0].about.get(CLOCK, ROWS)))
        if not found.columns and not found.categories:
            found = found._with_inputs(parts["train"])
        if not isinstance(found.encoder, Joined):
            given = [Part(VALUES, found.encoder)]
            given += [Part(STATIC, found.encoder, once=True)] if found.static else []
            given += [Part(AHEAD, found.encoder)] if found.ahead and found.future_inputs else []
            given += [Part(name, found.encoder) for name in found.derived_inputs]
            found = replace(found, encoder=Joined(tuple(given)))
        return found

    def _with_inputs(self, records: Sequence[Record]) -> Self:
        first, used = records[0], {*self.hidden, *self.leave_out, self.time, WEIGHT, FOLDER}
        numbers, words = [], []
        for name in first.streams:
            if name in used:
                continue
            kinds = {np.asarray(record[name].values).dtype.kind for record in records}
            if kinds == {"f"}:
                numbers.append(name)
            elif "O" in kinds:
                seen = sorted({word(v) for r in records for v in np.asarray(r[name].values).tolist()} - {""})
                if len(seen) > MOST_NAMES:
                    raise UserError(
                        f"column {name!r} holds {len(seen)} different words, the first {seen[0]!r}; where it says "
                        f"which series a row belongs to: --series {name}, else --leave-out {name}"
                    )
                words.append(Category(name, tuple(seen)))
        return replace(self, columns=tuple(numbers), categories=tuple(words))

    # The model's view

    def seen(self, record: Record, answers: bool = True) -> Record:
        clock = next(iter(record.streams.values())).time_s
        learned, known = self.answer_streams(record) if answers else ({}, np.ones(len(clock), bool))
        counts = np.asarray(record[WEIGHT].values) if WEIGHT in record.streams else np.ones(len(clock), np.float32)
        streams = {VALUES: Stream(self._matrix(record, self._varying), clock)}
        if self.static:
            streams[STATIC] = Stream(self._matrix(record, self.static)[:1], clock[:1])
            self._check_static(record)
        if self.ahead and self.future_inputs:
            given = self._matrix(record, self.ahead)
            later = [shifted(given, step) for step in range(1, self.future_inputs + 1)]
            streams[AHEAD] = Stream(np.concatenate(later, 1), clock)
        streams |= {name: Stream(values, clock) for name, values in learned.items()}
        streams[WEIGHT] = Stream((counts * known).astype(np.float32), clock)
        return Record(record.name, streams, record.about)

    @property
    def derived_inputs(self) -> tuple[str, ...]:
        """Streams of the model that are made of what its targets were."""
        return ()

    @property
    def steps_back(self) -> list[int]:
        """Steps back of which its targets are an input."""
        return []

    @property
    def changing(self) -> tuple[str, ...]:
        """Targets of which changes from the last known value are learned."""
        return ()

    @property
    def drifting_places(self) -> list[tuple[int, str]]:
        """Places in what is seen at a step, and names, of targets of which changes are seen."""
        return []

    def bounds(self, model: Model) -> tuple[float, ...]:
        """Levels of probability that are told beside each estimate."""
        return INTERVAL if tells_distribution(model.head) else ()

    def adaptive_bands(self, model: Model) -> AdaptiveBands | None:
        """What makes bands wider or narrower from row to row, at its first; None: nothing does."""
        return None

    def row_names(self, model: Model) -> list[str]:
        """Names of what is told of a step: each number with its bounds."""
        return [f"{name}{at}" for name in model.head.targets for at in ("", *map(" {:.0%}".format, self.bounds(model)))]

    @property
    def _varying(self) -> list[str]:
        """Inputs that change from step to step."""
        inputs = (*self.columns, *(category.column for category in self.categories))
        return [column for column in inputs if column not in self.static]

    def numbers(self, stream: str) -> list[str]:
        if stream == AHEAD:
            of, steps = self.ahead, [f" +{step}" for step in range(1, self.future_inputs + 1)]
        else:
            of, steps = {VALUES: self._varying, STATIC: self.static}[stream], [""]
        words = {category.column: category.names for category in self.categories}
        called = {c: f"log {c}" if c in self.logs else c for c in of}
        named = [f"{called[c]}: {word}" if word else called[c] for c in of for word in words.get(c, ("",))]
        return [name + step for step in steps for name in named]

    def row_by_row(self, model: Model) -> RowByRow:
        from .following import Following

        return Following(self, model)

    def _matrix(self, record: Record, columns: Sequence[str]) -> np.ndarray:
        """Columns side by side (step number); a yes or no for each word of those that hold words."""
        found = []
        names = {category.column: category.names for category in self.categories}
        for column in columns:
            values = np.asarray(record[column].values)
            if column in names:
                words = np.array([word(v) for v in values])
                found.append(np.stack([words == name for name in names[column]], 1))
            elif values.dtype.kind != "f":
                raise UserError(f"record {record.name!r}: column {column!r} holds no numbers, as it did in training")
            else:
                values = signed_log(values) if column in self.logs else values
                found.append(values[:, None])
        found = found or [np.zeros((len(record), 1))]
        # Column by column: side by side in float64 they would take three times the memory.
        return np.concatenate(found, 1, dtype=np.float32, casting="same_kind")

    def _check_static(self, record: Record) -> None:
        for name in self.static:
            values = np.asarray(record[name].values)
            same = values == values[0] if values.dtype.kind != "f" else (values == values[0]) | np.isnan(values)
            if not same.all():
                row = int((~same).argmax())
                raise UserError(
                    f"record {record.name!r}: {name!r} is {values[0]} at first and {values[row]} in row {row + 1}, so "
                    "it is not true of the whole series; take it away from --static"
                )


def _in_steps(
    time_s: np.ndarray, columns: Mapping[str, np.ndarray], every_s: float, static: Sequence[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Columns with a row for each step in which there are any, at its end: means of what is known, the last word."""
    step = np.floor(time_s / every_s)
    kept, place = np.unique(step, return_inverse=True)
    last = np.append(np.flatnonzero(np.diff(place)), len(place) - 1)
    found = {}
    for name, values in columns.items():
        if values.dtype.kind != "f" or name in static:
            found[name] = values[last]
            continue
        known = ~np.isnan(values)
        count = np.bincount(place[known], minlength=len(kept))
        total = np.bincount(place[known], values[known], len(kept))
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return (kept + 1) * every_s, found


def signed_log(values: Any) -> Any:
    """The logarithm of 1 and more, with the sign of what it is of."""
    return np.sign(values) * np.log1p(np.abs(values))


def shifted(values: np.ndarray, steps: int) -> np.ndarray:
    """Values as they will be so many steps later; NaN where that is not known."""
    later = np.full(values.shape, np.nan, values.dtype)
    later[: max(0, len(values) - steps)] = values[steps:]
    return later
