"""Texts with a label: a table with a row a text (JSON lines, CSV, TSV, Parquet), and made-up ones.

A record is a text: stream `character`, its code points, a second each, and its label, a word on the last of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from ..data.records import Record, Stream
from ..progress import Watch, silent
from .tables import Tables

CHARACTER = "character"
"""Stream of the characters of a text."""


def labelled_text(name: str, text: str, words: Mapping[str, str], about: dict | None = None) -> Record:
    """The record of a text of one character at least, and of words that are true of it, by name."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int32)
    clock = np.arange(float(len(codes)))
    said = {key: Stream(np.array([word], object), clock[-1:]) for key, word in words.items()}
    return Record(name, {CHARACTER: Stream(codes, clock), **said}, {"format": "labelled text", **(about or {})})


@dataclass(frozen=True)
class Tongues(Tables):
    """Sentences of made-up languages, which share their letters and differ in their syllables."""

    records: int = 400
    languages: int = 5
    seed: int = 0

    BOUNDS = {"records": (1, inf), "languages": (2, 26), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        rng = np.random.default_rng(self.seed)
        letters = list("aeiou"), list("bdgklmnprstvz")
        spoken = [
            ["".join(rng.choice(letters[1]) + rng.choice(letters[0]) for _ in range(2)) for _ in range(12)]
            for _ in range(self.languages)
        ]
        found = []
        for number in range(self.records):
            language = number % self.languages
            words = rng.choice(spoken[language], rng.integers(2, 6))
            name = f"sentence_{number:04d}"
            found.append(
                labelled_text(name, " ".join(words), {"label": f"tongue {'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[language]}"})
            )
        return found
