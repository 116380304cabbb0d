"""Rows answered one by one, as they come."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from ...data.examples import ELAPSED, Example
from ...data.records import Record, Stream
from ...errors import UserError
from ...nn.model import Model
from ...sources.tables import BLANK, clock_seconds
from .series import AHEAD, ROWS, STATIC, VALUES, Series, word


class Following:
    """A model's answers to the rows of one series, its state carried from each to the next.

    A row is a mapping of columns to numbers, words or None; times are numbers or dates. Rows without a time are a
    second apart.
    """

    def __init__(self, recipe: Series, model: Model):
        if model.no_step:
            raise UserError(f"this model can't answer row by row: {model.no_step}")
        if recipe.ahead and recipe.future_inputs:
            raise UserError(
                f"this model is told {', '.join(recipe.ahead)} of steps to come, which a single row does not hold; "
                "give whole tables with --data"
            )
        self.recipe, self.model, self.clock = recipe, model, recipe.time
        self.words = {category.column for category in recipe.categories}
        self.columns = [*recipe.columns, *(c for c in self.words if c not in recipe.columns)]
        self.state: Any = None
        self.before_s: float | None = None
        self.known: dict[str, float] = {}
        """Last known value of each column."""
        self.number = 0

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model says after this row. UserError where it lacks a column, or holds what was no such thing."""
        self.number += 1
        time_s = self._time(row)
        record = self._record(row, time_s)
        arranged = self.recipe.seen(record, answers=False)
        frame = {name: arranged[name].values[0] for name in (VALUES, STATIC, AHEAD) if name in arranged.streams}
        frame[ELAPSED] = 0.0 if self.before_s is None else time_s - self.before_s
        self.before_s = time_s
        with torch.inference_mode():
            state = self.model.initial() if self.state is None else self.state
            raw, self.state = self.model.run(self.model.encoder.prepare_step(frame, self.model.device), state)
        # What was last known of a column stands where it is blank: a change is counted from there.
        self.known |= {n: float(s.values[0]) for n, s in record.streams.items() if _is_known(s.values[0])}
        clock = np.array([time_s])
        carried = {n: Stream(np.array([self.known.get(n, np.nan)]), clock) for n in self.recipe.columns}
        whole = Record(record.name, {**record.streams, **carried})
        said = self.recipe.said(self.model, whole, Example(record.name, None, np.zeros(0), clock), raw[0].float().cpu())
        return {"time_s": time_s} | {
            name: values[0].item() if hasattr(values[0], "item") else values[0] for name, values in said.items()
        }

    def _time(self, row: Mapping[str, Any]) -> float:
        if self.clock in ("", ROWS) or self.clock not in row:
            return float(self.number - 1)
        cell = row[self.clock]
        try:
            values = np.array([float(cell)])
        except (TypeError, ValueError):
            values = np.array([str(cell)], object)
            with suppress(ValueError):
                values = np.array([np.datetime64(str(cell).replace("Z", ""), "ns")])
        time_s = float(clock_seconds(f"row {self.number}", self.clock, values)[0][0])
        if self.before_s is not None and time_s <= self.before_s:
            raise UserError(f"row {self.number}: the time {cell!r} does not come after the one before")
        return time_s

    def _record(self, row: Mapping[str, Any], time_s: float) -> Record:
        """The row as a record of one step."""
        clock, streams = np.array([time_s]), {}
        for name in self.columns:
            if name not in row:
                raise UserError(f"row {self.number} lacks {name!r}; it has {', '.join(row)}")
            if name in self.words:
                streams[name] = Stream(np.array([word(row[name])], object), clock)
                continue
            cell = row[name]
            try:
                value = np.nan if cell is None or str(cell).strip() in BLANK else float(cell)
            except (TypeError, ValueError):
                raise UserError(f"row {self.number}: {name!r} is {cell!r}, no number") from None
            streams[name] = Stream(np.array([value]), clock)
        return Record(f"row {self.number}", streams)


def _is_known(value: Any) -> bool:
    return isinstance(value, float) and value == value
