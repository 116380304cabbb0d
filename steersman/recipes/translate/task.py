"""Task of translation: texts are said, and scored beside the nearest training sentence."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import ClassVar

from ...data.pairs import Pair
from ...data.records import Record, text_of
from ...errors import UserError
from ...evaluation.outcome import Scored, Told, contract, scores_beside
from ...evaluation.sequences import Nearest, bleu
from ...json_types import JsonObject
from ...nn.encoder_decoder import EncoderDecoder, Readout
from ...nn.model import SequenceModel
from ...progress import Watch, silent
from ...training.material import Material
from ...training.recipe import Recipe
from ...training.run import Run
from ...training.sequence_to_sequence import TARGET
from ...training.task import TaskSpec
from ...training.trainer import read_log
from .report import translation_facts, translation_sections, translation_summary
from .translator import MOST_BEAMS, SOURCE, Speaker, Translated, attention, check_translates, has_attention, translate

LENGTHS = ((1, 5), (6, 10), (11, 15), (16, 20), (21, 30), (31, 10**6))
"""Words of a source, by which the report divides the score."""


@dataclass(frozen=True)
class TranslateText(TaskSpec):
    """A text is read and another said, scored by BLEU (Papineni et al. 2002) with a beam search."""

    max_length: int = 200
    """Most tokens of a translation."""
    validation_pairs: int = 500
    """Most validation pairs that are translated to choose the best weights by their BLEU."""
    beam_width: int = 5
    """Sequences kept by the search that is scored."""
    length_penalty: float = 1.0
    """Power of the length by which a sequence's log-probability is divided; 0 favours short ones."""

    measure: ClassVar[str] = "bleu"
    higher_is_better: ClassVar[bool] = True
    heads = (Readout,)
    columns: ClassVar[tuple[str, ...]] = ("bleu", "chrf")
    BOUNDS = {
        **dict.fromkeys(("max_length", "validation_pairs"), (1, inf)),
        "beam_width": (1, MOST_BEAMS),
        "length_penalty": (0, inf),
    }

    def check(self, recipe: Recipe) -> None:
        super().check(recipe)
        sources = getattr(getattr(recipe, "encoder", None), "sources", ())
        if sources != (SOURCE,) or getattr(recipe, "texts", ()) != (SOURCE, TARGET):
            raise UserError(
                f"task TranslateText scores a text `{TARGET}` said about a text `{SOURCE}`; this recipe reads "
                f"{', '.join(sources)}; give it another task, or leave it out"
            )

    def validation(self, recipe: Recipe, model: SequenceModel, examples: Sequence[Pair]) -> float:
        """100 less the BLEU of greedy translations."""
        pairs = examples[: self.validation_pairs]
        said = translate(check_translates(model), [pair.texts[SOURCE] for pair in pairs], max_length=self.max_length)
        return 100 - bleu([one.text for one in said], [pair.texts[TARGET] for pair in pairs], _lower(recipe))["bleu"]

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        if material.known is None:
            raise UserError(f"the texts that {run.folder} was trained on are gone, and its baselines are made of those")
        model: EncoderDecoder = run.model()
        pairs = [_texts(record) for record in material.test]
        sources, truth = map(list, zip(*pairs, strict=True))
        judge = partial(bleu, truth=truth, lower=_lower(run.recipe))
        began = time.process_time()
        said = translate(model, sources, self.beam_width, self.length_penalty, self.max_length, watch=watch)
        seconds = time.process_time() - began
        greedy = translate(model, sources, max_length=self.max_length, watch=watch)
        nearest = Nearest([_texts(record) for record in material.known["train"]])
        rivals = {
            "greedy": [one.text for one in greedy],
            "the source, copied": sources,
            "translation of the nearest training sentence": [nearest(text) for text in sources],
        }
        whole = judge([one.text for one in said])
        scores = {
            **whole,
            "note": f"BLEU with a beam of {self.beam_width}: {whole['signature']}",
            "pairs": len(pairs),
            "beam_width": self.beam_width,
            "length_penalty": self.length_penalty,
            "unknown": sum(one.unknown for one in said),
            "cpu_seconds": seconds,
            "baselines": {name: judge(guess) for name, guess in rivals.items()}
            | scores_beside(self, self.columns, beside, material),
            "by_length": list(_by_length(said, greedy, truth, _lower(run.recipe))),
            "examples": [
                {"source": s, "said": one.text, "truth": t}
                for s, one, t in list(zip(sources, said, truth, strict=True))[:12]
            ],
            "data": material.name,
        }
        scores = contract(self, scores, self.columns)
        return Scored(scores, lambda: _told(scores, run, model, said))

    def speaker(self, run: Run) -> Speaker:
        """What answers a text, for the live server."""
        return Speaker(run.model(), self.beam_width, self.length_penalty, self.max_length)


def _told(scores: JsonObject, run: Run, model: EncoderDecoder, said: Sequence[Translated]) -> Told:
    short = sorted((one for one in said if 1 <= len(one.tokens) <= 14), key=lambda one: len(one.tokens))[-3:]
    tables = [attention(model, one.source, one.tokens) for one in short] if has_attention(model) else []
    sections = translation_sections(scores, read_log(run.folder), tables)
    return translation_summary(scores), translation_facts(scores), sections


def _texts(record: Record) -> tuple[str, str]:
    """Source and target."""
    return text_of(record[SOURCE]), text_of(record[TARGET])


def _lower(recipe: Recipe) -> bool:
    """Whether case counts in the score: not where the vocabularies know none."""
    return recipe.vocabularies.lower  # pyright: ignore[reportAttributeAccessIssue]


def _by_length(
    said: Sequence[Translated], greedy: Sequence[Translated], truth: Sequence[str], lower: bool
) -> Iterator[JsonObject]:
    for low, high in LENGTHS:
        inside = [i for i, one in enumerate(said) if low <= len(one.source.split()) <= high]
        if inside:
            guesses = [[found[i].text for i in inside] for found in (said, greedy)]
            beam, plain = (bleu(guess, [truth[i] for i in inside], lower)["bleu"] for guess in guesses)
            yield {"from": low, "to": high, "pairs": len(inside), "beam": beam, "greedy": plain}
