"""The characters a model knows: between the numbers of a text (code points, or bytes) and classes."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..errors import UserError

SIGN = "\N{REPLACEMENT CHARACTER}"
"""How a character, or another piece of a text, is shown that the model does not know."""


class Symbols:
    """Classes of characters; class 0 is any other one. Without characters the classes are the 256 bytes themselves."""

    def __init__(self, characters: str = ""):
        self.characters = characters
        self._codes = np.array(sorted(map(ord, characters)), np.int64)
        # A class for each code up to one beyond the highest: a text is long, and a search would take wide numbers.
        self._class = np.zeros(int(self._codes.max(initial=0)) + 2, np.int32)
        self._class[self._codes] = np.arange(1, len(self._codes) + 1)

    def __len__(self) -> int:
        return len(self._codes) + 1 if self.characters else 256

    def classes(self, codes: np.ndarray) -> np.ndarray:
        """Classes of code points, or of bytes."""
        codes = np.asarray(codes).astype(np.int32)
        if not self.characters:
            return codes
        return self._class[np.minimum(codes, len(self._class) - 1)]

    def codes(self, classes: np.ndarray) -> np.ndarray:
        """The way back; of class 0 the replacement character."""
        classes = np.asarray(classes).astype(np.int64)
        return np.concatenate(([ord(SIGN)], self._codes))[classes] if self.characters else classes

    def encode(self, text: str) -> np.ndarray:
        """Classes of a text; as bytes, those of its UTF-8. UserError where a character is not known."""
        if not self.characters:
            return np.frombuffer(text.encode(errors="surrogateescape"), np.uint8).astype(np.int64)
        found = self.classes(np.array(list(map(ord, text)), np.int64))
        if strange := sorted({character for character, known in zip(text, found, strict=True) if not known}):
            shown = ", ".join(map(repr, strange[:5]))
            raise UserError(
                f"the model has never seen {shown}; it knows {len(self.characters)} characters: {self.characters!r}"
            )
        return found

    def names(self) -> list[str]:
        """One a class, for people."""
        if not self.characters:
            return [repr(bytes([code]))[2:-1] for code in range(256)]
        return ["unknown", *(repr(chr(code))[1:-1] for code in self._codes)]


def common_characters(texts: Iterable[str], least: int) -> str:
    """Characters that occur at least so often, in order. UserError where none does."""
    counts: Counter[str] = Counter()
    for text in texts:
        seen = np.bincount(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32))
        counts.update({chr(code): int(seen[code]) for code in np.flatnonzero(seen)})
    found = "".join(sorted(character for character, count in counts.items() if count >= least))
    if not found:
        raise UserError(
            f"no character occurs {least} times in a text of {counts.total()} characters; give more text, "
            "or train it as bytes: steersman train bytes --data FILE"
        )
    return found
