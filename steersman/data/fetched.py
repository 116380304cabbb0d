"""Sequences whose items are made, or read, only when they are asked for."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

Item = TypeVar("Item", covariant=True)


class Fetched(Sequence[Item]):
    """A sequence that holds no items; a slice of it is a list of those that it fetches."""

    @abstractmethod
    def fetch(self, index: int) -> Item:
        """One item. IndexError past the last."""

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | Sequence[Item]:
        if isinstance(index, slice):
            return [self.fetch(place) for place in range(*index.indices(len(self)))]
        return self.fetch(index)
