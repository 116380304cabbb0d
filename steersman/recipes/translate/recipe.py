"""Recipe of a translator: pairs of texts and the vocabularies of two languages."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ...config import Spec
from ...data.pairs import ByLength, Pair, PairBatches
from ...data.records import Record
from ...data.splits import unsaid
from ...data.vocabulary import (
    BEGIN,
    END,
    Characters,
    Merged,
    Subwords,
    Text,
    Vocabulary,
    Words,
    vocabulary_from_json,
)
from ...errors import UserError
from ...evaluation.sequences import bleu
from ...nn.encoder_decoder import build
from ...progress import Watch, silent
from ...sources.parallel import read, text_of
from ...training.checkpoints import read_json, write_json
from ...training.recipe import Recipe
from ...training.run import Run
from .translator import Translator

Scores = dict[str, Any]


KINDS: dict[str, type[Text]] = {"subwords": Subwords, "words": Words, "characters": Characters}


VOCABULARY = "vocabulary.json"


@dataclass(frozen=True)
class Vocabularies(Spec):
    """Of both languages, learned from the training pairs."""

    pieces: Literal["subwords", "words", "characters"] = "subwords"
    source: int = 5000
    """Most pieces of the source's language."""
    target: int = 4000
    """Most pieces of the target's."""
    min_count: int = 2
    """How often the training text must hold a piece."""
    lower: bool = False
    """Lower-case both."""
    dropout: float = 0.0
    """BPE-dropout: share of merges of subwords left out by chance while training (Provilkov et al. 2020)."""

    BOUNDS = {"source": (5, inf), "target": (5, inf), "min_count": (1, inf), "dropout": (0, 1)}

    def __post_init__(self):
        super().__post_init__()
        if self.dropout and self.pieces != "subwords":
            raise UserError(f"--vocabularies.dropout leaves out merges, and {self.pieces} have none; set it to 0")

    def learn(self, texts: Sequence[tuple[str, str]]) -> tuple[Vocabulary, Vocabulary]:
        kind, (sources, targets) = KINDS[self.pieces], zip(*texts, strict=True)
        source, target = (
            kind(size, self.min_count, self.lower).learn(side)
            for size, side in ((self.source, sources), (self.target, targets))
        )
        return source, target


@dataclass(frozen=True)
class Translation(Recipe):
    """All that makes a scored translator out of pairs of texts."""

    inputs: str = "source"
    batches: ByLength = ByLength()  # pyright: ignore[reportIncompatibleVariableOverride]
    vocabularies: Vocabularies = Vocabularies()
    longest: int = 200
    """Most tokens of a translation."""
    judged: int = 500
    """Most validation pairs that are translated to choose the best weights by their BLEU."""
    beam: int = 5
    """Sequences kept by the search that is scored."""
    power: float = 1.0
    """Of the length, by which a sequence's log-probability is divided."""

    learned_files: ClassVar[tuple[str, ...]] = (VOCABULARY,)
    BOUNDS = {"longest": (1, inf), "judged": (1, inf), "beam": (1, inf), "power": (0, inf)}

    def read(self, data: Sequence[str]) -> list[Record]:
        return read(data)

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """No text of a part that is held out stands in a part before it: else it would be no test."""
        if len(records) < 3:
            raise UserError(f"too few texts: {len(records)}; training, validation and test need a pair each")
        parts, held = super().divide(records, say), (set(), set())
        for name in ("test", "validation", "train"):
            fresh = [r for r in parts[name] if not any(t in h for t, h in zip(texts(r), held, strict=True))]
            if lost := len(parts[name]) - len(fresh):
                say(f"{name}: {lost} of {len(parts[name])} pairs share a text with those held out, and are left out")
            if not fresh:
                raise UserError(f"no pair is left for {name}: each shares a text with those held out; give other texts")
            for record in fresh:
                for text, known in zip(texts(record), held, strict=True):
                    known.add(text)
            parts[name] = fresh
        return parts

    def build(self, raw: tuple[int, ...]) -> Any:
        """The network for two vocabularies of these sizes."""
        network = build(self.encoder, self.core, self.head, *raw)
        return Translator(network.encoder, network.decoder, network.head)

    def learn(self, records: Sequence[Record], folder: Path) -> None:
        if self.split.by != "record":
            raise UserError("--split.by time would cut texts in two; pairs are divided with --split.by record")
        begun = (folder / "config.json").exists() and (folder / VOCABULARY).exists()
        if not begun:  # A run that is gone on with keeps its own, whatever library is installed by now.
            write_json(folder / VOCABULARY, self.learned(records))

    def learned(self, records: Sequence[Record]) -> dict[str, Any]:
        """The vocabularies as JSON."""
        source, target = self.vocabularies.learn([texts(r) for r in records])
        return {"source": source.to_json(), "target": target.to_json()}

    def model(self, raw: tuple[int, ...], folder: Path) -> Any:
        where = folder / VOCABULARY
        found = read_json(where)
        if not isinstance(found, dict) or not {"source", "target"} <= found.keys():
            raise UserError(f"{where}: expected the vocabularies `source` and `target`; it is damaged")
        return self.with_vocabularies(found, str(where))

    def with_vocabularies(self, found: Mapping[str, Any], where: str = VOCABULARY) -> Translator:
        """The model with vocabularies as `learned` gives them."""
        source, target = (vocabulary_from_json(found[side], f"{where}: {side}") for side in ("source", "target"))
        model = self.build((len(source), len(target)))
        model.vocabularies = source, target
        return model

    def examples(self, model: Any, records: Sequence[Record], watch: Watch = silent) -> Any:
        """Pairs of tokens."""
        both = [texts(record) for record in records]
        source, target = (
            v.encode_all(side) for v, side in zip(model.vocabularies, zip(*both, strict=True), strict=True)
        )
        return [
            Pair(record.name, np.array(s), np.array([BEGIN, *t, END]), text)
            for record, s, t, text in zip(records, source, target, both, strict=True)
        ]

    def fit(self, model: Any, shown: Any) -> None:
        """Tokens need no normaliser."""

    def batched(self, model: Any, shown: Any, rank: int, ranks: int) -> Any:
        drawn = partial(self._dropped, model.vocabularies) if self.vocabularies.dropout else None
        return PairBatches(self.batches, shown, self.training.seed, rank, ranks, drawn)

    def validation(self, shown: Any) -> Callable[[Any], float]:
        return partial(self._missing, shown=shown[: self.judged])

    def _dropped(self, both: tuple[Merged, Merged], pair: Pair, chance: random.Random) -> Pair:
        """The pair with merges left out."""
        source, target = (
            v.encode_dropped(text, self.vocabularies.dropout, chance) for v, text in zip(both, pair.texts, strict=True)
        )
        return replace(pair, source=np.array(source, int), target=np.array([BEGIN, *target, END]))

    def _missing(self, model: Translator, shown: Sequence[Pair]) -> float:
        """100 less the BLEU of greedy translations."""
        said = model.translate([pair.texts[0] for pair in shown], longest=self.longest)
        return (
            100 - bleu([one.text for one in said], [pair.texts[1] for pair in shown], self.vocabularies.lower)["bleu"]
        )


def texts(record: Record) -> tuple[str, str]:
    """Source and target."""
    return text_of(record["source"]), text_of(record["target"])


def recipe_of(run: Run) -> Translation:
    """The recipe of a run that translates. UserError where it does something else."""
    if not isinstance(run.recipe, Translation):
        raise UserError(
            f"{run.folder} is a run of {run.name}, which does not translate; train one: steersman train translate"
        )
    return run.recipe
