"""Records as a model sees them: prepared inputs and targets on one clock."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..progress import Watch, silent
from .cache import cached
from .records import Record

WEIGHT = "loss_weight"
"""A record's stream of this name says what each of its steps counts in the loss; one without it: all alike."""


@dataclass(frozen=True)
class Example:
    """A record as a model sees it: prepared inputs and targets on one clock."""

    name: str
    x: np.ndarray
    y: np.ndarray
    time_s: np.ndarray
    weight: np.ndarray | None = None
    """What each step counts in the loss; None: all alike."""

    def __len__(self) -> int:
        return len(self.x)

    def contents(self) -> list[np.ndarray]:
        """All that is learned from it."""
        return [self.x, self.y]


def examples(
    records: Sequence[Record],
    inputs: str,
    targets: Sequence[str],
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    cache: Path,
    once: bool = False,
    watch: Watch = silent,
) -> list[Example]:
    """Inputs prepared (pictures once, kept in `cache` under `key`) and targets read on the inputs' clock.

    With `once` a record has one answer: the last value of each target.
    """
    shown = []
    for done, record in enumerate(records):
        watch("preparing records", done, len(records))
        tell = partial(_tell, watch, record.name, done, len(records))
        shown.append(_example(record, inputs, targets, prepare, key, cache, once, tell))
    watch("preparing records", len(records), len(records))
    return shown


def _tell(watch: Watch, name: str, done: int, records: int, frame: int, frames: int) -> None:
    watch("preparing records", done, records, f"{name}: frame {frame} of {frames}")


def _example(record: Record, inputs, targets, prepare, key, cache, once, tell) -> Example:
    stream = record[inputs]
    if not len(stream):
        raise UserError(f"record {record.name!r} is empty")
    pictures = len(stream.values.shape) == 4
    if pictures:
        x = cached(stream.values, prepare, key, cache, tell)
    else:
        values = np.asarray(stream.values)
        x = prepare(values[:, None] if values.ndim == 1 else values)  # A plain number is one feature.
    for target in targets:
        if len(shape := record[target].values.shape) != 1:
            raise UserError(f"record {record.name!r}: target {target!r} has shape {shape}; give a stream a number")
    y = np.stack([record[target].at(stream.time_s) for target in targets], -1).astype(np.float32)
    weight = record[WEIGHT].at(stream.time_s).astype(np.float32) if WEIGHT in record.streams else None
    for name, values in (("input", x if not pictures else x[:0]), ("target", y), (WEIGHT, weight)):
        if values is not None and not np.isfinite(values).all():
            step = np.argwhere(~np.isfinite(values))[0][0]
            raise UserError(f"record {record.name!r}: the {name} at step {step} is not a finite number")
    return Example(record.name, x, y[-1] if once else y, stream.time_s, weight)
