"""Task of a text: the next symbol is foretold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...errors import UserError
from ...evaluation.outcome import Scored, contract, scores_beside
from ...nn.heads import NextSymbol
from ...nn.model import Model
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from ...training.task import TaskSpec
from .generate import Continuation, Speaker
from .reading import count_guesses, labels_of, num_bytes, read_along, text_head, text_scores
from .report import text_facts, text_sections, text_summary


@dataclass(frozen=True)
class PredictText(TaskSpec):
    """The next character, or byte, is foretold; beside frequencies, pairs of symbols, and a compressor."""

    measure: ClassVar[str] = "bits_per_byte"
    heads = (NextSymbol,)
    usual: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("bits_per_byte", "nats", "bits", "accuracy")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        if material.known is None:
            raise UserError(f"the text that {run.folder} was trained on is gone, and its baselines are made of that")
        model: Model = run.model()
        head = text_head(model)
        examples = run.recipe.examples(model, material.test, watch)
        confusion, nats, passage = count_guesses(model, examples)
        train = run.recipe.examples(model, material.known["train"], watch)
        labels, known = ([labels_of(head, e.y) for e in part] for part in (examples, train))
        size = num_bytes(head, examples)
        scores = text_scores(confusion, nats, labels, head.counts.numpy(), head.names(), known, size)
        scores["baselines"] |= scores_beside(self, self.columns, beside, material)
        scores = contract(self, scores | {"data": material.name}, self.columns)

        def told():
            reading = read_along(model, examples[0], passage)
            return text_summary(scores), text_facts(scores), text_sections(scores, reading)

        return Scored(scores, told)

    def speaker(self, run: Run) -> Continuation:
        """What writes on from a text, for the live server."""
        return Continuation(Speaker(run.model()))
