"""Recipe of sequence to sequence: sources of any kind are read, and a text is said about them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from ..config import Spec
from ..data.cache import cache_folder, prepared
from ..data.pairs import ByLength, Pair, PairBatches
from ..data.records import Record, as_numbers, text_of
from ..data.splits import Split
from ..data.vocabulary import (
    BEGIN,
    END,
    Characters,
    Subwords,
    Text,
    Vocabulary,
    Words,
    vocabulary_from_json,
)
from ..errors import UserError
from ..json_types import JsonMapping, JsonObject
from ..nn.encoder_decoder import Decoder, EncoderDecoder, Readout, SourceEncoderSpec, build
from ..progress import Watch, silent
from .checkpoints import read_json, write_json
from .recipe import PREPARED, Recipe, Shapes

KINDS: dict[str, type[Text]] = {"subwords": Subwords, "words": Words, "characters": Characters}
VOCABULARY = "vocabulary.json"
TARGET = "target"
"""Name of the text that is said."""


@dataclass(frozen=True)
class Vocabularies(Spec):
    """Vocabularies of the texts that are read and of the one that is said, learned from the training records."""

    pieces: Literal["subwords", "words", "characters"] = "subwords"
    source: int = 5000
    """Most pieces of each text that is read."""
    target: int = 4000
    """Most pieces of the text that is said."""
    min_count: int = 2
    """How often the training text must hold a piece."""
    lower: bool = False
    """Whether all is made lower-case first."""
    dropout: float = 0.0
    """BPE-dropout: share of merges of subwords left out by chance while training (Provilkov et al. 2020)."""

    BOUNDS = {"source": (5, inf), "target": (5, inf), "min_count": (1, inf), "dropout": (0, 1)}

    def __post_init__(self):
        super().__post_init__()
        if self.dropout and self.pieces != "subwords":
            raise UserError(f"--vocabularies.dropout leaves out merges, and {self.pieces} have none; set it to 0")

    def learn(self, texts: Mapping[str, Sequence[str]]) -> dict[str, Vocabulary]:
        """A vocabulary of each name's texts."""
        kind = KINDS[self.pieces]
        sizes = {name: self.target if name == TARGET else self.source for name in texts}
        return {name: kind(sizes[name], self.min_count, self.lower).learn(those) for name, those in texts.items()}


@dataclass(frozen=True, kw_only=True)
class SequenceToSequence(Recipe):
    """Source encoder, decoder and read-out; the record's stream `target` is the text that is said."""

    encoder: SourceEncoderSpec
    decoder: Decoder = Decoder()
    head: Readout = Readout()
    vocabularies: Vocabularies = Vocabularies()
    batches: ByLength = ByLength()
    split: Split = Split(apart=(TARGET,))

    renamed_options: ClassVar[dict[str, str]] = {
        "--batches.steps": "--batches.max-steps",
        "--core.sampled": "--decoder.scheduled-sampling",
        "--core.ramp": "--decoder.sampling-ramp",
        "--core.": "--decoder.",
        "--longest": "--task.max-length",
        "--judged": "--task.validation-pairs",
        "--beam": "--task.beam-width",
        "--power": "--task.length-penalty",
    }
    learned_files: ClassVar[tuple[str, ...]] = (VOCABULARY,)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the streams that are texts."""
        return (*self.encoder.texts, TARGET)

    def divide(self, records: Sequence[Record], say=lambda line: None) -> dict[str, list[Record]]:
        if self.split.by == "time":
            raise UserError("--split.by time would cut texts in two; pairs are divided with --split.by record")
        if len(records) < 3:
            raise UserError(f"too few texts: {len(records)}; training, validation and test need a pair each")
        return super().divide(records, say)

    def shapes(self, records: Sequence[Record]) -> Shapes:
        """Shapes of a step of the sources that are not texts."""
        given = (name for name in self.encoder.sources if name not in self.encoder.texts)
        return {name: tuple(records[0][name].values.shape[1:]) or (1,) for name in given}

    def fit_vocabulary(self, records: Sequence[Record], folder: Path) -> None:
        begun = (folder / "config.json").exists() and (folder / VOCABULARY).exists()
        if not begun:  # A run that is resumed keeps its own, whatever library is installed by now.
            write_json(folder / VOCABULARY, self.learned(records))

    def learned(self, records: Sequence[Record]) -> JsonObject:
        """The vocabularies as JSON."""
        found = self.vocabularies.learn({name: [text_of(r[name]) for r in records] for name in self.texts})
        return {name: vocabulary.to_json() for name, vocabulary in found.items()}

    def load_skeleton(self, raw: Shapes, folder: Path) -> EncoderDecoder:
        where = folder / VOCABULARY
        found = read_json(where)
        if not isinstance(found, dict) or not set(self.texts) <= found.keys():
            names = " and ".join(f"`{name}`" for name in self.texts)
            raise UserError(f"{where}: expected the vocabularies {names}; it is damaged")
        return self.with_vocabularies(found, raw, str(where))

    def with_vocabularies(
        self, found: JsonMapping, raw: Shapes | None = None, where: str = VOCABULARY
    ) -> EncoderDecoder:
        """The model with vocabularies as `learned` gives them, for other sources of these shapes."""
        known = {name: vocabulary_from_json(found[name], f"{where}: {name}") for name in self.texts}
        shapes = dict(raw) if isinstance(raw, dict) else {}
        shapes |= {name: (len(known[name]),) for name in self.encoder.texts}
        model = build(self.encoder, self.decoder, self.head, shapes, len(known[TARGET]))
        model.vocabularies = known
        return model

    def examples(self, model: EncoderDecoder, records: Sequence[Record], watch: Watch = silent) -> list[Pair]:
        """Sources as the encoder takes them, and tokens of the target."""
        texts = {name: [text_of(r[name]) for r in records] for name in self.texts}
        tokens = {name: model.vocabularies[name].encode_all(those) for name, those in texts.items()}
        sources: dict[str, list[np.ndarray]] = {}
        for name in self.encoder.sources:
            if name in tokens:
                sources[name] = [np.array(known, int) for known in tokens[name]]
            else:
                seen: dict[int, np.ndarray] = {}  # Many a picture has several captions, or questions about it.
                for done, record in enumerate(records):
                    watch("preparing records", done, len(records))
                    place = id(record[name].values)
                    seen[place] = seen[place] if place in seen else self._prepared(model, name, record)
                sources[name] = [seen[id(record[name].values)] for record in records]
        return [
            Pair(
                record.name,
                {name: those[i] for name, those in sources.items()},
                np.array([BEGIN, *tokens[TARGET][i], END]),
                {name: those[i] for name, those in texts.items()},
            )
            for i, record in enumerate(records)
        ]

    def _prepared(self, model: EncoderDecoder, name: str, record: Record) -> np.ndarray:
        """A source that is not a text: pictures prepared once and kept, other numbers as they are."""
        values = record[name].values

        def prepare(raw: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return model.encoder.prepare(name, torch.as_tensor(raw)).numpy()

        if len(values.shape) == 4 and values.dtype == np.uint8:
            return prepared(values, prepare, f"{PREPARED} {name} {self.encoder}", cache_folder())
        found = as_numbers(values[:], f"record {record.name!r}: {name!r}")
        return prepare(found[:, None] if found.ndim == 1 else found)

    def fit_normalisers(self, model: EncoderDecoder, examples: Sequence[Pair]) -> None:
        for name in self.encoder.sources:
            if name not in self.encoder.texts:
                model.encoder.fit(name, [example.sources[name] for example in examples])

    def make_batches(self, model: EncoderDecoder, examples: Sequence[Pair], rank: int = 0, ranks: int = 1):
        drawn = partial(self._dropped, model.vocabularies) if self.vocabularies.dropout else None
        return PairBatches(self.batches, examples, self.training.seed, rank, ranks, drawn)

    def _dropped(self, known: JsonMapping, pair: Pair, chance: random.Random) -> Pair:
        """The pair with merges left out."""
        share = self.vocabularies.dropout
        drawn = {name: known[name].encode_dropped(pair.texts[name], share, chance) for name in self.texts}
        target = np.array([BEGIN, *drawn.pop(TARGET), END])
        return replace(pair, sources={**pair.sources, **{n: np.array(t, int) for n, t in drawn.items()}}, target=target)
