"""Recipe of music."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Self

import numpy as np

from ...data.batches import Lanes
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import LSTM
from ...nn.encoders import Embedding
from ...nn.heads import NextSymbol
from ...sources.songs import NEXT, NOTE, Songs, transposed
from ...training.recipe import Parts, StepRecipe
from ...training.trainer import Training
from .task import PredictMusic


@dataclass(frozen=True, kw_only=True)
class SongRecipe(StepRecipe):
    """A model of music; its pitches are those of the training pieces in all keys."""

    encoder: Embedding
    head: NextSymbol
    keys: int = 12
    """Keys in which each piece is learned: its own, and as many half tones below and above."""

    BOUNDS = {"keys": (1, inf)}

    def adapt(self, parts: Parts) -> Self:
        if self.head.symbols:
            return self
        known = {int(c) for r in self._in_keys(parts["train"]) for c in np.unique(np.asarray(r[NEXT].values))}
        symbols = "".join(map(chr, sorted(known)))
        return replace(self, encoder=replace(self.encoder, symbols=symbols), head=replace(self.head, symbols=symbols))

    def training_records(self, part: str, records: list[Record]) -> list[Record]:
        return self._in_keys(records) if part == "train" else records

    def _in_keys(self, records: Sequence[Record]) -> list[Record]:
        return [
            moved
            for by in range(self.keys // 2 + 1 - self.keys, self.keys // 2 + 1)
            for record in records
            if (moved := transposed(record, by)) is not None
        ]


def song(records: Sequence[Record] = ()) -> SongRecipe:
    """What sounds next: music learned a pitch at a time; then `steersman compose RUN` goes on with a piece.

    Command: `steersman train song`, or `steersman train song --data FOLDER`
    Data:    Bach's chorales, from the package music21, at every quarter; or MIDI and MusicXML of your own
    Time:    two and a half minutes on one core
    Score:   4.7 nats a quarter on chorales never heard (pairs of symbols 9.4)
    """
    return SongRecipe(
        source=Songs(),
        task=PredictMusic(),
        inputs=NOTE,
        encoder=Embedding("", 64),
        core=LSTM(256),
        head=NextSymbol((NEXT,), dropout=0.5),
        batches=Lanes(batch_size=32, window=64, restart_weight=1.0),
        split=Split(validation=0.2, test=0.2),
        training=Training(steps=3000, learning_rate=3e-3, weight_decay=0.05, ema_decay=0.998, validate_every=250),
    )
