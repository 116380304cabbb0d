"""Rows answered one by one, as they come."""

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from ...data.examples import ELAPSED, Example
from ...data.records import Record, Stream
from ...errors import UserError
from ...nn.forms import NoForm, row_form
from ...nn.heads import tells_classes
from ...nn.model import Model
from ...nn.stepper import RowStepper
from ...sources.tables import BLANK, clock_seconds
from .series import ROWS, SEASON, STATIC, VALUES, Series, signed_log, word

BLANKS = frozenset(BLANK)


class Following:
    """A model's answers to the rows of one series, its state carried from each to the next.

    A row is a mapping of columns to numbers, words or None; times are numbers or dates. Rows without a time are a
    second apart. Steps are the kernels' where the model has such a form, else PyTorch's.
    """

    def __init__(self, recipe: Series, model: Model):
        if model.no_step:
            raise UserError(f"this model can't answer row by row: {model.no_step}")
        if recipe.ahead and recipe.future_inputs:
            raise UserError(
                f"this model is told {', '.join(recipe.ahead)} of steps to come, which a single row does not hold; "
                "give whole tables with --data"
            )
        if recipe.every_s:
            raise UserError(
                f"this model reads steps of {recipe.every_s:g} s, into which rows are joined; give whole tables with "
                "--data"
            )
        self.recipe, self.model, self.clock = recipe, model, recipe.time
        self.names = {category.column: category.names for category in recipe.categories}
        self.columns = [*recipe.columns, *(c for c in self.names if c not in recipe.columns)]
        streams = {VALUES: [c for c in self.columns if c not in recipe.static], STATIC: recipe.static}
        self.streams = {name: columns for name, columns in streams.items() if columns or name == VALUES}
        self.before_s: float | None = None
        self.scale = 0.0
        """Seconds of one unit of the clock; 0: not known yet."""
        self.known = dict.fromkeys(recipe.changing, np.nan)
        """Last known value of each target of which changes are learned."""
        self.drifting = recipe.drifting_places
        self.back = recipe.steps_back if SEASON in model.inputs else []
        """Steps back of which the targets are an input."""
        self.past: dict[str, deque[float]] = {
            name: deque(maxlen=max(self.back) + 1) for name in recipe.answers if self.back
        }
        """Values of each target as they were last known, the newest first."""
        self.number = 0
        self.adapt = recipe.adaptive_bands(model)
        self.now = np.zeros(0)
        """Values of the targets in this row, where bands follow them."""
        self.answer = self._answer()

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model says after this row. UserError where it lacks a column, or holds what was no such thing."""
        self.number += 1
        time_s = self._time(row)
        frame = {name: self._numbers(row, columns) for name, columns in self.streams.items()}
        for place, name in self.drifting:
            level, before = self._number(row, name), self.known[name]
            frame[VALUES][place] = level * 0 if before != before else level - before
        for name in self.known:
            value = self._number(row, name)
            if value == value:
                self.known[name] = value
        if self.back:
            frame[SEASON] = self._season_ago(row)
        elapsed_s = 0.0 if self.before_s is None else time_s - self.before_s
        self.before_s = time_s
        if self.adapt:
            self.now = np.array([self._number(row, name) for name in self.recipe.answers])
        return {"time_s": time_s, **self.answer(frame, elapsed_s)}

    def _adapted(self, said: np.ndarray) -> np.ndarray:
        """Numbers of the model with their bounds, these as `Forecast.forecasts` has them after all rows until now."""
        if not self.adapt:
            return said
        found = said.reshape(len(self.now), -1, 3)
        found[..., 1:] = self.adapt(self.now, found[..., 0], found[..., 1:])
        return found

    def _season_ago(self, row: Mapping[str, Any]) -> np.ndarray:
        """The targets one season before the steps to come, as `Forecast.season_ago` of all rows until now."""
        found = []
        for name, past in self.past.items():
            value = self._number(row, name)
            past.appendleft(value if value == value or not past else past[0])
            base = past[0] if name in self.known else 0.0
            found += [past[back] - base if back < len(past) else np.nan for back in self.back]
        return np.array(found, np.float32)

    def _answer(self):
        """What a frame and the seconds since the last one say, by the kernels where there is a form."""
        recipe, head = self.recipe, self.model.head
        try:
            step, read = RowStepper(self.model).session(), row_form.of(head)(head, recipe.bounds(self.model))
        except NoForm:
            return self._by_torch()
        if tells_classes(head):
            names = head.names() or [str(number) for number in range(head.classes)]
            columns = [f"p({name})" for name in names]

            def classes(frame: Mapping[str, np.ndarray], elapsed_s: float) -> dict[str, Any]:
                chances = read(step(frame, elapsed_s))
                said = {head.targets[0]: names[chances.argmax()]}
                said.update(zip(columns, chances.tolist(), strict=True))
                return said

            return classes
        columns = recipe.row_names(self.model)

        def numbers(frame: Mapping[str, np.ndarray], elapsed_s: float) -> dict[str, Any]:
            said = read(step(frame, elapsed_s)).astype(np.float64)
            if self.known:
                said = said.reshape(len(self.known), -1) + np.array([*self.known.values()])[:, None]
            return dict(zip(columns, self._adapted(said).ravel().tolist(), strict=True))

        return numbers

    def _by_torch(self):
        state: Any = self.model.initial()

        def answer(frame: Mapping[str, np.ndarray], elapsed_s: float) -> dict[str, Any]:
            nonlocal state
            raw_step = {**frame, ELAPSED: elapsed_s}
            with torch.inference_mode():
                raw, state = self.model.run(self.model.encoder.prepare_step(raw_step, self.model.device), state)
            clock = np.zeros(1)
            known = {name: np.array([self.known.get(name, np.nan)]) for name in self.recipe.answers}
            last = Record("", {name: Stream(value, clock) for name, value in known.items()})
            said = self.recipe.said(self.model, last, Example("", None, clock, clock), raw[0].float().cpu())
            found = {name: v[0].item() if hasattr(v[0], "item") else v[0] for name, v in said.items()}
            if self.adapt:
                found = dict(zip(found, self._adapted(np.array([*found.values()])).ravel().tolist(), strict=True))
            return found

        return answer

    def _time(self, row: Mapping[str, Any]) -> float:
        if self.clock in ("", ROWS) or self.clock not in row:
            return float(self.number - 1)
        cell = row[self.clock]
        time_s = self._seconds(cell)
        if self.before_s is not None and time_s <= self.before_s:
            raise UserError(f"row {self.number}: the time {cell!r} does not come after the one before")
        return time_s

    def _seconds(self, cell: Any) -> float:
        """Seconds of a number, or of a date in any form."""
        where = f"row {self.number}"
        try:
            number = float(cell)
        except (TypeError, ValueError):
            text = str(cell)
            with suppress(ValueError):
                moment = datetime.fromisoformat(text)
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            return float(clock_seconds(where, self.clock, np.array([text], object))[0][0])
        if not self.scale:
            # A first 0 tells no unit, and is 0 in all of them.
            seconds = float(clock_seconds(where, self.clock, np.array([number]))[0][0])
            self.scale = seconds / number if number else 0.0
            return seconds
        return number * self.scale

    def _numbers(self, row: Mapping[str, Any], columns: list[str] | tuple[str, ...]) -> np.ndarray:
        """The numbers of some columns, a yes or no for each word of those that hold words."""
        found: list[float] = []
        for name in columns:
            if name in self.names:
                cell = word(self._cell(row, name))
                found += [float(cell == one) for one in self.names[name]]
            else:
                value = self._number(row, name)
                found.append(float(signed_log(value)) if name in self.recipe.logs else value)
        return np.array(found or [0.0], np.float32)

    def _number(self, row: Mapping[str, Any], name: str) -> float:
        cell = self._cell(row, name)
        try:
            return float(cell)
        except (TypeError, ValueError):
            if cell is None or str(cell).strip() in BLANKS:
                return np.nan
            raise UserError(f"row {self.number}: {name!r} is {cell!r}, no number") from None

    def _cell(self, row: Mapping[str, Any], name: str) -> Any:
        try:
            return row[name]
        except KeyError:
            raise UserError(f"row {self.number} lacks {name!r}; it has {', '.join(row)}") from None
