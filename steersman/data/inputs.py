"""Inputs of a model by name, several beside each other: they are cut, stacked and moved as one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch


class Inputs:
    """Named streams on one clock, and beside them what is given once a record.

    In an example they are arrays, (time ...) and (...), and an index is one of steps; in a batch they are tensors,
    (batch time ...) and (batch ...), and an index is a pair: of rows and of steps.
    """

    def __init__(self, streams: Mapping[str, Any], once: Mapping[str, Any] | None = None):
        self.streams, self.once = dict(streams), dict(once or {})
        """Streams by name; the first stream's clock is that of all."""

    def __len__(self) -> int:
        return len(self._first)

    def __getitem__(self, index: Any) -> "Inputs":
        rows = index[0] if isinstance(index, tuple) else slice(None)
        once = {name: values[rows] for name, values in self.once.items()} if isinstance(index, tuple) else self.once
        return Inputs({name: values[index] for name, values in self.streams.items()}, once)

    def __setitem__(self, index: Any, part: "Inputs") -> None:
        for name, values in part.streams.items():
            self.streams[name][index] = values
        for name, values in part.once.items():
            self.once[name][index[0]] = values

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and steps of a batch."""
        return tuple(self._first.shape[:2])

    @property
    def device(self) -> torch.device:
        return self._first.device

    def map(self, change: Callable[[Any], object]) -> "Inputs":
        """The same with every array or tensor changed."""
        return Inputs(
            {name: change(values) for name, values in self.streams.items()},
            {name: change(values) for name, values in self.once.items()},
        )

    def to(self, device: torch.device, non_blocking: bool = False) -> "Inputs":
        return self.map(lambda values: values.to(device, non_blocking=non_blocking))

    def arrays(self) -> list[np.ndarray]:
        """All of an example."""
        return [*self.streams.values(), *self.once.values()]

    def spread(self) -> list[np.ndarray]:
        """All of an example with a value a step (time ...), those that are given once too."""
        return [
            *self.streams.values(),
            *(np.broadcast_to(values, (len(self), *values.shape)) for values in self.once.values()),
        ]

    @property
    def _first(self) -> Any:
        return next(iter(self.streams.values()))


def blank(like: Any, rows: int, steps: int) -> Any:
    """Zeros (row step ...) for examples' inputs like these."""
    if isinstance(like, Inputs):
        return Inputs(
            {name: np.zeros((rows, steps, *v.shape[1:]), v.dtype) for name, v in like.streams.items()},
            {name: np.zeros((rows, *v.shape), v.dtype) for name, v in like.once.items()},
        )
    return np.zeros((rows, steps, *like.shape[1:]), like.dtype)


def tensors(x: Any) -> Any:
    """The same memory as tensors."""
    return x.map(torch.from_numpy) if isinstance(x, Inputs) else torch.from_numpy(x)


def joined(parts: Sequence[Any]) -> Any:
    """Examples' inputs one after the other, for a normaliser; of what is given once, a row a record."""
    if not isinstance(parts[0], Inputs):
        return np.concatenate(parts)
    return Inputs(
        {name: np.concatenate([part.streams[name] for part in parts]) for name in parts[0].streams},
        {name: np.stack([part.once[name] for part in parts]) for name in parts[0].once},
    )
