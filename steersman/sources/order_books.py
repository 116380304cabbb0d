"""Order books, an event a step: LOBSTER's files and the FI-2010 benchmark's.

Streams are `ask_1`, `ask_size_1`, `bid_1`, `bid_size_1` and so on, the best level first; LOBSTER's also hold what
happened (`kind`, `size`, `sign`), FI-2010's its own answers (`label_10` ...). Prices are in dollars where they are
LOBSTER's, as they were normalised where they are FI-2010's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from ..data.records import Record, Stream
from ..errors import UserError
from ..progress import Watch, silent
from .source import SourceSpec
from .tables import PACKED

AHEAD = (10, 20, 30, 50, 100)
"""Events ahead of FI-2010's five answers."""
ANSWERS = ("", "up", "flat", "down")
FI_ROWS = 149
"""Rows of an FI-2010 file: forty of ten levels, other features, five answers (Ntakaris et al. 2018)."""


@dataclass(frozen=True)
class OrderBooks(SourceSpec):
    """Order books; its own are made up: the larger side of the best level foretells where the price goes."""

    series: int = 3
    events: int = 400
    """Events of a series."""
    seed: int = 0

    BOUNDS = {"series": (1, inf), "events": (50, inf), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.series)]

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        return [record for path in data for record in read(Path(path))]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        begins = rng.random(self.events) < 0.01
        trend = rng.integers(-1, 2, self.events)[np.maximum.accumulate(np.where(begins, np.arange(self.events), 0))]
        middle = 100 + np.concatenate(([0.0], np.cumsum(0.01 * trend)[:-1]))
        size = rng.uniform(50, 150, self.events)
        columns = {
            "ask_1": middle + 0.01,
            "ask_size_1": size * np.exp(-trend),
            "bid_1": middle - 0.01,
            "bid_size_1": size * np.exp(trend),
        }
        clock = np.cumsum(rng.exponential(0.4, self.events))
        streams = {name: Stream(values, clock) for name, values in columns.items()}
        return Record(f"book_{number:03d}", streams, {"format": "synthetic order book"})


def read(path: Path) -> list[Record]:
    """The record of a LOBSTER pair, by either of its files or their folder, or of an FI-2010 file. UserError else."""
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if "_message_" in p.name)
        found = found or sorted(p for p in path.iterdir() if p.suffix == ".txt" and "DatasetCF" in p.name)
        if not found:
            raise UserError(f"{path} holds no order book; give LOBSTER's *_message_*.csv or an FI-2010 .txt")
        return [record for each in found for record in read(each)]
    if not path.exists():
        raise UserError(f"there is no {path}; give LOBSTER's *_message_*.csv or an FI-2010 .txt")
    if "_message_" in path.name or "_orderbook_" in path.name:
        return [lobster(path.with_name(path.name.replace("_orderbook_", "_message_")))]
    return [fi_2010(path)]


def lobster(message: Path) -> Record:
    """The record of LOBSTER's message file and the order book beside it; of events of one moment the last is kept.

    Message: time (s), kind, order, size, price (1e-4 dollars), sign; book: ask, size, bid, size of each level.
    """
    book = message.with_name(message.name.replace("_message_", "_orderbook_"))
    for path in (message, book):
        if not path.exists():
            raise UserError(f"there is no {path}; LOBSTER's message and order book files belong together")
    events, levels = _numbers(message), _numbers(book)
    if len(events) != len(levels) or events.shape[1] < 6 or levels.shape[1] % 4:
        raise UserError(
            f"{message} has {len(events)} rows of {events.shape[1]} numbers and {book.name} {len(levels)} of "
            f"{levels.shape[1]}; they are no LOBSTER pair"
        )
    last = np.append(np.diff(events[:, 0]) > 0, True)
    clock = events[last, 0]
    if (np.diff(events[:, 0]) < 0).any():
        raise UserError(f"{message}: the time goes back in row {int((np.diff(events[:, 0]) < 0).argmax()) + 2}")
    columns = {"kind": events[:, 1], "size": events[:, 3], "sign": events[:, 5]}
    scaled = levels * np.tile([1e-4, 1.0], levels.shape[1] // 2)
    streams = {name: Stream(values[last], clock) for name, values in (columns | _levels(scaled)).items()}
    return Record(message.name.partition("_message_")[0], streams, {"format": "LOBSTER", "file": str(message)})


def fi_2010(path: Path) -> Record:
    """The record of an FI-2010 file, in which a column is an event; its clock counts them."""
    values = _numbers(path)
    if len(values) != FI_ROWS:
        raise UserError(f"{path} has {len(values)} rows; one of FI-2010 has {FI_ROWS}, a column an event")
    answers = values[-len(AHEAD) :].round().astype(int)
    if answers.min() < 1 or answers.max() >= len(ANSWERS):
        raise UserError(f"{path}: its last five rows hold other answers than 1, 2 and 3; it is no FI-2010 file")
    clock = np.arange(float(values.shape[1]))
    words = {f"label_{n}": np.array(ANSWERS, object)[row] for n, row in zip(AHEAD, answers, strict=True)}
    streams = {name: Stream(v, clock) for name, v in (_levels(values[:40].T) | words).items()}
    return Record(path.stem, streams, {"format": "FI-2010", "file": str(path)})


def _levels(values: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of (event number): ask, size, bid, size of each level."""
    names = ("ask", "ask_size", "bid", "bid_size")
    return {f"{names[i % 4]}_{i // 4 + 1}": values[:, i] for i in range(values.shape[1])}


def _numbers(path: Path) -> np.ndarray:
    """A file of numbers between commas, semicolons or spaces."""
    try:
        with PACKED.get(path.suffix.lower(), open)(path, "rt") as lines:
            first = lines.readline()
            rest = lines.read()
        sign = next((s for s in ",;" if s in first), None)
        return np.loadtxt((first + rest).splitlines(), delimiter=sign, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from error
