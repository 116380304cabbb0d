"""Recipe of markets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...data.records import Record
from ...nn.cores import GRU
from ...sources.order_books import OrderBooks
from ..series.recipes import label
from .kinds import Market
from .source import Prices
from .task import Directions
from .ticks import Book, Ticks


def market(records: Sequence[Record] = ()) -> Market:
    """Whether the next day's price is higher than today's: most likely nobody can tell.

    Command: `steersman train market --data prices.csv --price close`
    Data:    a table of prices, or several (--series ticker); without any, made-up ones that can be foretold
    Time:    some ten seconds for 20,000 days
    """
    return Market(
        **_shared(records),
        source=Prices(),
        task=Directions(),
        core=GRU(32),
        training=replace(label().training, steps=150, learning_rate=1e-3),
    )


def ticks(records: Sequence[Record] = ()) -> Book:
    """Where an order book's price goes in the next events: up, down or nowhere.

    Command: `steersman train ticks --data AMZN_2012-06-21_34200000_57600000_message_1.csv`
    Data:    LOBSTER's message and order book files, or FI-2010's; without any, made-up ones that can be foretold
    Time:    a minute for 50,000 events
    """
    return Book(
        **_shared(records),
        source=OrderBooks(),
        task=Ticks(),
        core=GRU(32),
        training=replace(label().training, steps=400),
    )


def _shared(records: Sequence[Record]) -> dict[str, Any]:
    """What they share with `label`."""
    recipe = label(records)
    named = ("time", "encoder", "head", "flavour", "batches", "context")
    return {name: getattr(recipe, name) for name in named} | {"split": replace(recipe.split, by="time", gap_s=0)}
