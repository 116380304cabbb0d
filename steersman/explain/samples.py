"""One recording as a trained model sees it, up to the step that is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.examples import ELAPSED, Example
from ..data.records import Record
from ..errors import UserError
from ..nn.cores import State
from ..nn.heads import tells_numbers
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.recipe import read_records
from ..training.run import Run
from ..training.task import task_of

MOST_LOOKED_AT = 1000
"""Steps of a record among which one is chosen."""


@dataclass(frozen=True)
class Sample:
    """A test record of a run, or a record of other data."""

    name: str
    """Name of the run."""
    model: Model
    record: Record
    inputs: str
    example: Example
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names of the numbers of each stream, where the model reads several of named columns."""
    sought: int | None = None
    """Of two classes the one that is looked for."""

    def last(self, at: int, least: int) -> int:
        """The step to look at: `at`; below 0, the record's last one or, in a long record, an early one."""
        length = len(self.example)
        if at >= length:
            raise UserError(f"--at {at}: record {self.record.name!r} has {length} steps, the last is {length - 1}")
        if self.model.flavour == "many-to-one":
            return length - 1
        return at if at >= 0 else min(length - 1, max(least, 200))

    def telling(self, least: int) -> int:
        """The step to look at for what moved a prediction: where a number is farthest from usual, as in a bend."""
        y = self.example.y
        if not tells_numbers(self.model.head) or y.ndim == 1 or len(y) <= least:
            return self.last(-1, least)
        part = np.abs(y[:MOST_LOOKED_AT, 0] - y[:, 0].mean())[least:]
        return least + int(part.argmax())

    def pictures(self, steps: Sequence[int]) -> list[np.ndarray] | None:
        """The recorded pictures, where the inputs are pictures."""
        values = self.record[self.inputs].values
        return [np.asarray(values[int(t)]) for t in steps] if len(values.shape) == 4 else None

    def words(self, steps: Sequence[int]) -> list[str]:
        """Each input in a few characters."""
        x, symbols = self.example.x, self.model.encoder.symbols
        if symbols is not None:
            names = symbols.names()
            return ["␣" if names[c] == " " else names[c] for c in x[np.asarray(steps), 0]]
        if x.ndim > 2:
            return [f"{self.example.time_s[t]:.2f} s" for t in steps]
        return [" ".join(f"{v:.2g}" for v in x[t][:4]) + " …" * (x.shape[1] > 4) for t in steps]

    def answer(self, step: int) -> np.ndarray:
        """The target at a step, or of the whole record."""
        return self.example.y if self.example.y.ndim == 1 else self.example.y[step]

    def x(self, start: int, stop: int) -> Any:
        """Prepared inputs (1 time ...) of some steps."""
        if self.columns:
            return self.example.x[start:stop].map(lambda values: torch.from_numpy(np.array(values[None])))
        return torch.from_numpy(np.array(self.example.x[None, start:stop]))

    @torch.no_grad()
    def features(self, start: int, stop: int) -> tuple[Tensor, State]:
        """Features (time feature) of some steps, and the core's state before them.

        A core that is not causal begins at `start`, as if the record did.
        """
        model = self.model
        encoder_state, state = model.initial(1)
        for first in range(0, start, 64):
            feature, encoder_state = model.encoder(self.x(first, min(start, first + 64)), encoder_state)
            if model.causal:
                _, state = model.core(feature, state)
        return model.encoder(self.x(start, stop), encoder_state)[0][0], state


def open_sample(
    run: Run, number: int, data: Sequence[str] = (), watch: Watch = silent, columns: bool = False
) -> Sample:
    """Record `number` of a run's test records or of other data. UserError where the model can't be looked into.

    With `columns` it may also read several inputs of named numbers.
    """
    model = run.model()
    recipe = run.steps if model.aligned else None
    columns = columns and recipe is not None and bool(model.inputs) and bool(recipe.numbers(recipe.inputs))
    if model.feedback or (model.inputs and not columns) or not model.aligned:
        why = (
            "is fed what it said itself, which is not drawn"
            if model.feedback
            else f"takes several inputs ({', '.join(model.inputs)}), which are not drawn"
            + ("; of named columns: --saliency" if recipe and recipe.numbers(recipe.inputs) else "")
            if model.inputs
            else "reads one sequence and writes another; to see where it looked: steersman translate RUN --attention"
        )
        raise UserError(f"{run.folder}: this model {why}; explain takes one encoder, one core and one head")
    records = read_records(run.recipe, data, watch) if data else run.records(watch)["test"]
    if not 0 <= number < len(records):
        raise UserError(f"--sample {number}: there are {len(records)} records, from 0 to {len(records) - 1}")
    record = records[number]
    names = {name: run.steps.numbers(name) for name in model.inputs if name != ELAPSED} if columns else {}
    shape = () if columns else tuple(record[run.steps.inputs].values.shape[1:]) or (1,)
    if not columns and shape != model.encoder.raw:
        raise UserError(f"record {record.name!r} has steps of shape {shape}, the model takes {model.encoder.raw}")
    (example,) = run.recipe.examples(model, [record], watch)
    sought = task_of(run.recipe).looked_for(model.head)
    return Sample(run.name, model, record, run.steps.inputs, example, names, sought)
