"""Source: where a recipe's records come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

from ..config import Spec
from ..data.records import Record
from ..progress import Watch, silent


class SourceSpec(Spec):
    """What a recipe reads where it is given no data, and how it reads what it is given."""

    costly: ClassVar[bool] = False
    """Whether its records have to be made, by a simulator perhaps, before they can be read."""

    def read(self, watch: Watch = silent) -> list[Record]:
        """Records of its own."""
        raise NotImplementedError(f"{type(self).__name__} reads nothing")

    def look(self, watch: Watch = silent) -> list[Record]:
        """The same for who only looks at a run, whose spec anybody may have written: nothing is made where it says."""
        return self.read(watch)

    def few(self, records: int) -> Self:
        """The same source; where records are costly, one that makes no more than so many."""
        return self

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """The records of data that a user names; by default recordings of any format that is known."""
        from . import read

        return [record for path in data for record in read(Path(path))]
