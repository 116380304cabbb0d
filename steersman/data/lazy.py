"""Arrays whose numbers are made when they are asked for: what a long text consists of would else fill the memory."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

PART = 2**18
"""Numbers that are made at a time."""


class Lazy(NDArrayOperatorsMixin):
    """An array that makes what is taken from it; whatever else is asked of an array is asked of all its numbers."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def made(self, start: int, stop: int) -> np.ndarray:
        """The numbers from one place up to another."""
        raise NotImplementedError

    def taken(self, places: np.ndarray) -> np.ndarray:
        """The numbers at these places."""
        return np.concatenate([self.made(int(i), int(i) + 1) for i in places] or [self.made(0, 0)])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            rows = range(len(self))[index]
            if rows.step == 1:
                return self.made(rows.start, max(rows.start, rows.stop))
            return self.taken(np.arange(rows.start, rows.stop, rows.step))
        if isinstance(index, int | np.integer):
            place = range(len(self))[int(index)]
            return self.made(place, place + 1)[0]
        if isinstance(index, tuple) and index and index[0] is None:
            return self[index[1:]][None]
        if isinstance(index, tuple) and len(index) == 1:
            return self[index[0]]
        if isinstance(index, tuple) and index:
            if not all(isinstance(each, slice | int | np.integer) for each in index[1:]):
                return np.asarray(self)[index]
            found = self[index[0]]
            single = isinstance(index[0], int | np.integer)
            return found[index[1:]] if single else found[(slice(None), *index[1:])]
        if isinstance(index, np.ndarray) and index.ndim == 1 and index.dtype.kind in "iu":
            return self.taken(np.where(index < 0, index + len(self), index))
        return np.asarray(self)[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found = np.empty(self.shape, self.dtype)
        for start in range(0, len(self), PART):
            found[start : start + PART] = self.made(start, min(start + PART, len(self)))
        return found if dtype is None else found.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *given: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(g) if isinstance(g, Lazy) else g for g in given), **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


class Letters(Lazy):
    """Numbers of one kind out of few: places in a table of them, as narrow as they can be; or themselves."""

    def __init__(self, places: np.ndarray, table: np.ndarray | None = None):
        """`places` may be a memory map."""
        self.places, self.table = places, table
        self.shape, self.dtype = (len(places),), (places if table is None else table).dtype

    def made(self, start: int, stop: int) -> np.ndarray:
        found = np.asarray(self.places[start:stop])
        return found if self.table is None else self.table[found]

    def taken(self, places: np.ndarray) -> np.ndarray:
        found = np.asarray(self.places[places])
        return found if self.table is None else self.table[found]


class Clock(Lazy):
    """Seconds that rise by `sizes[kind]` from each step to the next, or by 1; a stretch of it is one, too."""

    BLOCK = 4096
    """Steps from one known second to the next."""

    def __init__(self, steps: int, kinds: np.ndarray | None = None, sizes: np.ndarray | None = None):
        """`kinds` are those of all steps."""
        self._kinds, self._sizes, self._known = kinds, sizes, None
        last, self._start = steps, 0
        if kinds is not None and sizes is not None:
            edges = range(0, steps, PART)  # A whole number of blocks.
            sums = [_sums(sizes[kinds[a : a + PART]], self.BLOCK) for a in edges]
            self._known = np.concatenate(([0], *sums)).cumsum()
            last = int(self._known[-1])
        self.shape, self.dtype = (steps,), np.dtype(np.int32 if last < 2**31 else np.int64)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return super().__getitem__(index)
        rows = range(len(self))[index]
        if rows.step != 1:
            return super().__getitem__(index)
        if len(rows) == len(self):
            return self
        part = copy(self)
        part._start, part.shape = self._start + rows.start, (len(rows),)
        return part

    def made(self, start: int, stop: int) -> np.ndarray:
        start, stop = self._start + start, self._start + stop
        if self._known is None:
            return np.arange(start, stop, dtype=self.dtype)
        assert self._kinds is not None
        assert self._sizes is not None
        block = start // self.BLOCK
        sizes = self._sizes[self._kinds[block * self.BLOCK : stop]].astype(np.int64)
        begin = self._known[block] + sizes.cumsum() - sizes
        return begin[start - block * self.BLOCK :].astype(self.dtype)


def _sums(sizes: np.ndarray, block: int) -> np.ndarray:
    """Sums of so many numbers each."""
    return np.add.reduceat(sizes, np.arange(0, len(sizes), block), dtype=np.int64)


class Each(Lazy):
    """Numbers (time 1) that a function makes of a stream's numbers (time), none of which looks at another."""

    def __init__(self, values: Any, function: Callable[[np.ndarray], np.ndarray]):
        self.values, self.function = values, function
        like = function(np.asarray(values[:1])[:, None])
        self.shape, self.dtype = (len(values), *like.shape[1:]), like.dtype

    def made(self, start: int, stop: int) -> np.ndarray:
        return self.function(np.asarray(self.values[start:stop])[:, None])

    def taken(self, places: np.ndarray) -> np.ndarray:
        return self.function(np.asarray(self.values[places])[:, None])


class Chain(Lazy):
    """Arrays one after the other."""

    def __init__(self, parts: Sequence[Any]):
        self.parts = parts
        self.edges = np.cumsum([0, *map(len, parts)])
        self.shape, self.dtype = (int(self.edges[-1]), *parts[0].shape[1:]), parts[0].dtype

    def made(self, start: int, stop: int) -> np.ndarray:
        inside = [
            part[max(0, start - a) : max(0, stop - a)]
            for part, a in zip(self.parts, self.edges[:-1].tolist(), strict=True)
        ]
        return np.concatenate(inside)


def is_lazy(values: Any) -> bool:
    """Whether an array's numbers, or those of the one that it is a stretch of, are made when asked for."""
    while not isinstance(values, Lazy):
        if not hasattr(values, "values"):
            return False
        values = values.values
    return True
