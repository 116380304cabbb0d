"""The recipe's kind: inputs and answers that are made of prices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...data.examples import WEIGHT
from ...data.records import Record, Stream
from ...errors import UserError
from ...nn.heads import Classification
from ...nn.model import Model
from ...training.recipe import Parts, RowByRow
from ..series.series import Series

PRICE, DIRECTION = "last_price", "direction"
NAMES = ("down", "up")
SPANS = (1, 2, 5, 10, 20)
"""Days over which returns are inputs."""
CALLED = ("adj close", "adj_close", "close", "price")


@dataclass(frozen=True, kw_only=True)
class Derived(Series):
    """Recipe whose inputs and answers are made of what a table holds."""

    @property
    def answers(self) -> tuple[str, ...]:
        return ()

    def derive(self, record: Record) -> dict[str, np.ndarray]:
        """Streams (step) of a record as it was read: inputs, and what is `hidden`."""
        raise NotImplementedError(f"{type(self).__name__} derives nothing")

    def derived(self, record: Record) -> Record:
        """A record with what the model sees of it."""
        if self.hidden[0] in record.streams:
            return record
        clock = next(iter(record.streams.values())).time_s
        kept = {name: stream for name, stream in record.streams.items() if name == WEIGHT}
        return replace(record, streams={n: Stream(v, clock) for n, v in self.derive(record).items()} | kept)

    def transform_records(self, records: list[Record]) -> list[Record]:
        # What a trained recipe sees is made here, and stands in no table.
        series = super(Derived, replace(self, columns=())).transform_records(records)
        return [self.derived(record) for record in series]

    def adapt(self, parts: Parts) -> Self:
        return super().adapt({name: [self.derived(r) for r in records] for name, records in parts.items()})

    def seen(self, record: Record, answers: bool = True) -> Record:
        return super().seen(self.derived(record), answers)

    def row_by_row(self, model: Model) -> RowByRow:
        raise UserError("the changes of many rows are seen at each, which a single row does not hold; give --data FILE")


@dataclass(frozen=True, kw_only=True)
class Market(Derived):
    """Whether the next price is higher, at every step; what is seen are returns and their spread, never the price."""

    price: str = ""
    """Column of the price; empty: one called adj close, close or price, else the last column of numbers."""

    @property
    def hidden(self) -> tuple[str, ...]:
        return (PRICE,)

    def derive(self, record: Record) -> dict[str, np.ndarray]:
        price = np.asarray(record[self._price_of(record)].values, float)
        if not (price > 0).all():
            row = int((~(price > 0)).argmax())
            raise UserError(f"{record.name}: the price is {price[row]:g} in row {row + 1}; give prices above 0")
        log = np.log(price)
        found = {PRICE: price}
        for span in SPANS:
            found[f"return_{span}"] = np.concatenate((np.zeros(min(span, len(log))), log[span:] - log[:-span]))
        squares = np.concatenate(([0.0], np.cumsum(np.square(found["return_1"]))))
        counted = np.arange(1, len(log) + 1)
        back = np.maximum(counted - 20, 0)
        found["volatility_20"] = np.sqrt((squares[1:] - squares[back]) / (counted - back))
        return found

    def _price_of(self, record: Record) -> str:
        if self.price:
            return self.price
        by_name = {name.lower(): name for name in record.streams}
        numbers = [n for n, s in record.streams.items() if np.asarray(s.values).dtype.kind == "f" and n != WEIGHT]
        found = next((by_name[called] for called in CALLED if called in by_name), None)
        if found is None and not numbers:
            raise UserError(f"{record.name} has no column of prices; it has {', '.join(record.streams)}")
        return found or numbers[-1]

    def with_answers(self, parts: Parts) -> Self:
        return replace(self, head=Classification(targets=(DIRECTION,), classes=2, names=NAMES))

    def answer_streams(self, record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
        later = next_return(record)
        return {DIRECTION: (later > 0).astype(np.float32)}, ~np.isnan(later)


def next_return(record: Record) -> np.ndarray:
    """The return until the next row (step); NaN in the last."""
    price = np.asarray(record[PRICE].values, float)
    return np.append(price[1:] / price[:-1] - 1, np.nan)


def lagged(recipe: Series, record: Record, lags: Sequence[int] = (0, 1, 2, 3, 4)) -> np.ndarray:
    """Inputs of a step and those of some steps before (step feature), 0 before the first: what a line learns from."""
    now = np.stack([np.asarray(record[name].values, float) for name in recipe.columns], 1)
    each = [np.concatenate((np.zeros((min(lag, len(now)), now.shape[1])), now[: len(now) - lag])) for lag in lags]
    return np.concatenate(each, 1)
