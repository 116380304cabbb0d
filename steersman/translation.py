"""From pairs of texts to a model that translates, and to what is said of it."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf, log
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from rich.table import Table

from .checkpoints import read_json, write_json
from .config import Spec
from .data import unsaid
from .encoder_decoder import EncoderDecoder, build
from .errors import UserError
from .pairs import ByLength, Pair, PairBatches, padded
from .progress import Watch, silent
from .records import Record
from .runs import Recipe, Run, read_records
from .sources.parallel import read, text_of
from .vocabulary import BEGIN, END, UNKNOWN, Characters, Merged, Subwords, Text, Vocabulary, Words, vocabulary_from_json

Scores = dict[str, Any]
KINDS: dict[str, type[Text]] = {"subwords": Subwords, "words": Words, "characters": Characters}
VOCABULARY = "vocabulary.json"
STEPS = 8192
"""Most steps of sources that are translated together, padding included: what is remembered of them is large."""
LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 10**6))
"""Words of a source, by which the report divides the score."""


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


class Translator(EncoderDecoder):
    """An encoder-decoder with the vocabularies of its two languages."""

    vocabularies: tuple[Vocabulary, Vocabulary]

    @torch.no_grad()
    def translate(
        self, texts: Sequence[str], beam: int = 1, power: float = 1.0, longest: int = 200, rows: int = 256,
        watch: Watch = silent,
    ) -> list["Translated"]:  # fmt: skip
        """Translations in the order of the texts; up to `rows` of about one length are done together.

        None is longer than `longest` tokens, or twice its source and ten.
        """
        source, target = self.vocabularies
        tokens = source.encode_all(texts)
        lengths = np.array([len(known) if text.strip() else 0 for text, known in zip(texts, tokens, strict=True)], int)
        order = lengths.argsort(kind="stable")[(lengths == 0).sum() :]
        found, done = [Translated(text, "") for text in texts], 0
        groups = ByLength(rows, STEPS).full(order, lengths[:, None]) if len(order) else []
        for group in ([int(i) for i in indices] for indices in groups):
            batch, sizes = padded([np.array(tokens[i]) for i in group])
            limit = (2 * sizes + 10).clamp_max(longest)
            for i, best in zip(group, self.say(batch, sizes, limit, beam, power), strict=True):
                unknown = tokens[i].count(UNKNOWN)
                found[i] = Translated(texts[i], target.decode(best[0].tokens), best[0].tokens, best[0].score, unknown)
            done += len(group)
            watch("translating", done, len(order))
        return found

    @torch.no_grad()
    def attention(self, text: str, said: Sequence[int]) -> "Attention":
        """Where it looked while it said this of a text. UserError where it has no attention."""
        source, target = self.vocabularies
        tokens = source.encode(text)
        training = self.training
        state = self.eval().read(*padded([np.array(tokens)]))
        weights = self.decoder.weights(torch.tensor([[BEGIN, *said]]), state)[0].numpy()
        self.train(training)
        return Attention(source.pieces(tokens), [*target.pieces(said), "(end)"], weights)


@dataclass(frozen=True)
class Translated:
    """A text and what was said of it."""

    source: str
    text: str
    tokens: list[int] = field(default_factory=list)
    score: float = 0.0
    """Log-probability."""
    unknown: int = 0
    """Pieces of the source that the vocabulary does not hold."""


@dataclass(frozen=True)
class Attention:
    """Rows: what was said. Columns: what was read. A row's weights sum to 1."""

    source: list[str]
    target: list[str]
    weights: np.ndarray


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


def bleu(said: Sequence[str], truth: Sequence[str], lower: bool = False) -> dict[str, Any]:
    """BLEU and chrF (Papineni et al. 2002; Popovic 2015) by sacrebleu (Post 2018), with BLEU's signature."""
    try:
        from sacrebleu.metrics import BLEU, CHRF  # pyright: ignore[reportPrivateImportUsage]
    except ImportError:
        raise UserError(
            'BLEU is counted by sacrebleu, which is not installed; run: pip install "steersman[text]"'
        ) from None
    metric = BLEU(lowercase=lower)
    score = metric.corpus_score(list(said), [list(truth)]).score
    chrf = CHRF(lowercase=lower).corpus_score(list(said), [list(truth)]).score
    return {"bleu": float(score), "chrf": float(chrf), "signature": str(metric.get_signature())}


class Nearest:
    """The translation of the most similar training sentence: cosine of words weighted by rarity (Salton 1988)."""

    def __init__(self, pairs: Sequence[tuple[str, str]]):
        self.pairs = pairs
        bags = [Counter(_words(source)) for source, _ in pairs]
        self.idf = {w: log(len(pairs) / n) + 1 for w, n in Counter(w for bag in bags for w in bag).items()}
        rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row, bag in enumerate(bags):
            norm = sum((n * self.idf[w]) ** 2 for w, n in bag.items()) ** 0.5
            for word, n in bag.items():
                rows[word].append((row, n * self.idf[word] / norm))
        self.index = {word: tuple(map(np.array, zip(*found, strict=True))) for word, found in rows.items()}

    def __call__(self, text: str) -> str:
        near = np.zeros(len(self.pairs))
        for word, n in Counter(_words(text)).items():
            if word in self.index:
                row, weight = self.index[word]
                near[row] += n * self.idf[word] * weight
        return self.pairs[int(near.argmax())][1]


def score(run: Run, data: Sequence[str] = (), watch: Watch = silent) -> tuple[Scores, list[Translated], Translator]:
    """Scores on the run's own test pairs or on all of other data, what was said, and by which model."""
    recipe, model = run.recipe, run.model()
    assert isinstance(recipe, Translation)
    assert isinstance(model, Translator)
    parts = run.records(watch)
    pairs = [texts(r) for r in (read_records(recipe, data, watch) if data else parts["test"])]
    sources, truth = map(list, zip(*pairs, strict=True))
    judge = partial(bleu, truth=truth, lower=recipe.vocabularies.lower)
    began = time.process_time()
    said = model.translate(sources, recipe.beam, recipe.power, recipe.longest, watch=watch)
    seconds = time.process_time() - began
    greedy = model.translate(sources, longest=recipe.longest, watch=watch)
    nearest = Nearest([texts(r) for r in parts["train"]])
    rivals = {
        "greedy": [one.text for one in greedy],
        "the source, copied": sources,
        "translation of the nearest training sentence": [nearest(text) for text in sources],
    }
    whole = judge([one.text for one in said])
    scores = {
        **whole,
        "pairs": len(pairs),
        "beam": recipe.beam,
        "power": recipe.power,
        "unknown": sum(one.unknown for one in said),
        "cpu_seconds": seconds,
        "baselines": {name: judge(guess) for name, guess in rivals.items()},
        "by_length": list(_by_length(said, greedy, truth, recipe.vocabularies.lower)),
        "examples": [
            {"source": s, "said": one.text, "truth": t}
            for s, one, t in list(zip(sources, said, truth, strict=True))[:12]
        ],
        "data": ", ".join(Path(path).name for path in data) if data else "pairs kept apart from training",
    }
    return scores, said, model


def bleu_table(scores: Mapping[str, Any]) -> Table:
    """A run's score and its baselines, best first, and how BLEU was counted."""
    table = Table("", "BLEU", "chrF", box=None, caption=f"BLEU: {scores['signature']}", caption_justify="left")
    rows = {f"this run, beam {scores['beam']}": scores, **scores["baselines"]}
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["bleu"]):
        table.add_row(name, f"{row['bleu']:.2f}", f"{row['chrf']:.2f}", style="bold" if "this run" in name else None)
    return table


def _by_length(
    said: Sequence[Translated], greedy: Sequence[Translated], truth: Sequence[str], lower: bool
) -> Iterator[dict[str, Any]]:
    for low, high in LENGTHS:
        inside = [i for i, one in enumerate(said) if low <= len(one.source.split()) <= high]
        if inside:
            guesses = [[found[i].text for i in inside] for found in (said, greedy)]
            beam, plain = (bleu(guess, [truth[i] for i in inside], lower)["bleu"] for guess in guesses)
            yield {"from": low, "to": high, "pairs": len(inside), "beam": beam, "greedy": plain}


def _words(text: str) -> list[str]:
    return text.lower().split()


def recipe_of(run: Run) -> Translation:
    """The recipe of a run that translates. UserError where it does something else."""
    if not isinstance(run.recipe, Translation):
        raise UserError(
            f"{run.folder} is a run of {run.name}, which does not translate; train one: steersman train translate"
        )
    return run.recipe
