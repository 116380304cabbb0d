"""Tasks of texts said about pictures: answers, which are right or wrong, and captions, of which many are."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar

import numpy as np

from ...data.pairs import Pair
from ...data.records import Record, text_of
from ...errors import UserError
from ...evaluation.outcome import Scored, contract, scores_beside
from ...evaluation.sequences import bleus, cider, words_of
from ...json_types import JsonObject
from ...nn.encoder_decoder import EncoderDecoder, Readout
from ...nn.model import SequenceModel
from ...progress import Watch, silent
from ...sources.told_pictures import PICTURE, QUESTION
from ...training.material import Material
from ...training.recipe import Recipe
from ...training.run import Run
from ...training.sequence_to_sequence import TARGET
from ...training.task import TaskSpec
from .report import Shown, answers_told, captions_told
from .telling import Said, tell

SHOWN = 12
"""Pictures that stand on the page with what was said of them."""
Texts = Sequence[str]


@dataclass(frozen=True)
class AnswerPictures(TaskSpec):
    """A text is said about a picture, a film or a question about one; it counts where it is the true one."""

    max_length: int = 40
    """Most tokens of an answer."""
    beam_width: int = 1
    """Sequences kept by the search; 1: greedy."""
    validation_pairs: int = 1000
    """Most validation pairs that are answered to choose the best weights."""

    measure: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    heads = (Readout,)
    columns: ClassVar[tuple[str, ...]] = ("accuracy",)
    BOUNDS = {**dict.fromkeys(("max_length", "validation_pairs"), (1, inf)), "beam_width": (1, 100)}

    def validation(self, recipe: Recipe, model: SequenceModel, examples: Sequence[Any]) -> float:
        """Share of answers that are wrong."""
        pairs = spread(examples, self.validation_pairs)
        said = tell(model, pairs, self.max_length, 1)
        return float(np.mean([one.text != pair.texts[TARGET] for one, pair in zip(said, pairs, strict=True)]))

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        known, records = known_records(run, material), material.test
        model, pairs, said, seconds = said_of(self, run, records, watch)
        truth = [text_of(record[TARGET]) for record in records]
        right = np.array([one.text == true for one, true in zip(said, truth, strict=True)])
        kinds = defaultdict(list)
        for record, is_right in zip(records, right.tolist(), strict=True):
            kinds[str(record.about.get("kind", ""))].append(is_right)
        scores: JsonObject = {
            "accuracy": float(right.mean()),
            "records": len(records),
            "pictures": len({id(record[PICTURE].values) for record in records}),
            "by_kind": {kind: float(np.mean(found)) for kind, found in sorted(kinds.items()) if kind},
            "cpu_seconds": seconds,
            "unknown": sum(one.unknown for one in said),
            "baselines": {
                name: {"accuracy": float(np.mean([a == b for a, b in zip(guess, truth, strict=True)]))}
                for name, guess in _rivals(known, records).items()
            }
            | scores_beside(self, self.columns, beside, material),
            "data": material.name,
        }
        scores = contract(self, scores, self.columns)
        wrong = spread(np.flatnonzero(~right).tolist(), SHOWN // 2)
        order = [*wrong, *spread(np.flatnonzero(right).tolist(), SHOWN - len(wrong))]
        shown = [Shown(records[i], pairs[i], said[i], truth[i : i + 1]) for i in sorted(order)]
        return Scored(scores, lambda: answers_told(scores, model, shown))


@dataclass(frozen=True)
class CaptionPictures(TaskSpec):
    """A text is said about a picture of which several are true: scored by CIDEr-D and BLEU beside all of them."""

    max_length: int = 40
    """Most tokens of a caption."""
    beam_width: int = 3
    """Sequences kept by the search that is scored; 1: greedy."""
    validation_pairs: int = 500
    """Most validation pairs, of whose pictures captions are said to choose the best weights."""

    measure: ClassVar[str] = "cider"
    higher_is_better: ClassVar[bool] = True
    heads = (Readout,)
    columns: ClassVar[tuple[str, ...]] = ("cider", "bleu1", "bleu2", "bleu3", "bleu4", "novel")
    BOUNDS = AnswerPictures.BOUNDS

    def validation(self, recipe: Recipe, model: SequenceModel, examples: Sequence[Any]) -> float:
        """10 less the CIDEr-D of captions said greedily."""
        pairs = examples[: self.validation_pairs]
        scenes = {id(pair.sources[PICTURE]): pair for pair in pairs}
        truths = defaultdict(list)
        for pair in pairs:
            truths[id(pair.sources[PICTURE])].append(pair.texts[TARGET])
        said = tell(model, list(scenes.values()), self.max_length, 1)
        return 10 - float(np.mean(cider([one.text for one in said], [truths[scene] for scene in scenes])))

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        known = known_records(run, material)
        scenes, truths = _scenes(material.test)
        model, pairs, said, seconds = said_of(self, run, scenes, watch)
        trained = {_plain(text_of(record[TARGET])) for record in known}

        def judged(texts: Texts) -> JsonObject:
            novel = float(np.mean([_plain(text) not in trained for text in texts]))
            return {"cider": float(np.mean(cider(texts, truths))), **bleus(texts, truths), "novel": novel}

        trained_on = run.recipe.examples(model, _scenes(known)[0])
        scores: JsonObject = {
            **judged([one.text for one in said]),
            "records": len(material.test),
            "pictures": len(scenes),
            "beam_width": self.beam_width,
            "cpu_seconds": seconds,
            "baselines": {
                "caption of the nearest training picture": judged(_nearest(trained_on, pairs)),
                "the commonest caption": judged([_commonest(known)] * len(scenes)),
            }
            | scores_beside(self, self.columns, beside, material),
            "note": "BLEU by sacrebleu, CIDEr-D from 0 to 10; novel: share of texts that no training caption is",
            "data": material.name,
        }
        scores = contract(self, scores, self.columns)
        shown = [Shown(*one) for one in list(zip(scenes, pairs, said, truths, strict=True))[:SHOWN]]
        return Scored(scores, lambda: captions_told(scores, model, shown))


def said_of(
    task: AnswerPictures | CaptionPictures, run: Run, records: Sequence[Record], watch: Watch
) -> tuple[EncoderDecoder, list[Pair], list[Said], float]:
    """The model, what it sees, what it says of each record, and the CPU seconds that this took."""
    model: EncoderDecoder = run.model()
    pairs = run.recipe.examples(model, records, watch)
    began = time.process_time()
    said = tell(model, pairs, task.max_length, task.beam_width, watch)
    return model, pairs, said, time.process_time() - began


def known_records(run: Run, material: Material) -> list[Record]:
    """Training records. UserError where they are gone."""
    if material.known is None:
        raise UserError(f"the data that {run.folder} was trained on is gone, and its baselines are made of that")
    return material.known["train"]


def spread(items: Sequence[Any], most: int) -> Sequence[Any]:
    """So many of the items, from all over."""
    return items[:: max(1, -(-len(items) // most))]


def _rivals(known: Sequence[Record], records: Sequence[Record]) -> dict[str, list[str]]:
    """The commonest answer, and that to the very question."""
    answers = Counter(text_of(record[TARGET]) for record in known)
    commonest = answers.most_common(1)[0][0]
    found = {"the commonest answer": [commonest] * len(records)}
    if all(QUESTION in record.streams for record in records):
        asked: dict[str, Counter[str]] = defaultdict(Counter)
        for record in known:
            asked[text_of(record[QUESTION])][text_of(record[TARGET])] += 1
        best = {question: counts.most_common(1)[0][0] for question, counts in asked.items()}
        name = "the commonest answer to the question"
        found[name] = [best.get(text_of(record[QUESTION]), commonest) for record in records]
    return found


def _scenes(records: Sequence[Record]) -> tuple[list[Record], list[list[str]]]:
    """One record of each picture, and all that is said of it."""
    scenes: dict[Any, Record] = {}
    truths: dict[Any, list[str]] = defaultdict(list)
    for record in records:
        scene = record.about.get("scene", record.name)
        scenes.setdefault(scene, record)
        truths[scene].append(text_of(record[TARGET]))
    return list(scenes.values()), [truths[scene] for scene in scenes]


def _nearest(known: Sequence[Pair], pairs: Sequence[Pair]) -> list[str]:
    """The first caption of the training picture most like each: cosine of what the encoder is given.

    Of a grid of features their mean over the grid.
    """

    def rows(those: Sequence[Pair]) -> np.ndarray:
        values = [pair.sources[PICTURE] for pair in those]
        return np.stack([v.mean((0, 1, 2)) if v.dtype == np.float32 else v.mean(0).ravel() for v in values])

    a, b = rows(pairs), rows(known)
    a, b = (part - b.mean(0) for part in (a, b))
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-9) for part in (a, b))
    return [known[int(i)].texts[TARGET] for i in (a @ b.T).argmax(1)]


def _commonest(known: Sequence[Record]) -> str:
    """The caption that is most like all others: by the words that it shares with them, each by how many have it."""
    texts = [text_of(record[TARGET]) for record in known]
    bags = [set(words_of(text)) for text in texts]
    held = Counter(word for bag in bags for word in bag)
    best = max(range(len(texts)), key=lambda i: sum(held[w] for w in bags[i]) / max(len(bags[i]), 1) ** 0.5)
    return Counter(texts).most_common(1)[0][0] if len(set(texts)) < len(texts) / 2 else texts[best]


def _plain(text: str) -> str:
    return " ".join(words_of(text))
