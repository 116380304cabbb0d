"""Task of music: the next pitch is foretold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...evaluation.outcome import Scored, contract, scores_beside
from ...nn.heads import NextSymbol
from ...nn.model import Model
from ...progress import Watch, silent
from ...sources.songs import END, NEXT
from ...training.material import Material
from ...training.run import Run
from ...training.task import TaskSpec
from ..text.reading import count_guesses, labels_of, text_head, text_scores


@dataclass(frozen=True)
class PredictMusic(TaskSpec):
    """What sounds next is foretold, pitch by pitch; scored by what a whole step costs, beside pairs of symbols."""

    measure: ClassVar[str] = "nats_a_step"
    heads = (NextSymbol,)
    columns: ClassVar[tuple[str, ...]] = ("nats_a_step", "nats", "accuracy")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        model: Model = run.model()
        head = text_head(model)
        examples = run.recipe.examples(model, material.test, watch)
        confusion, nats, _ = count_guesses(model, examples)
        known = material.known["train"] if material.known else material.test
        train = run.recipe.examples(model, known, watch)
        labels, before = ([labels_of(head, e.y) for e in part] for part in (examples, train))
        scores = text_scores(confusion, nats, labels, head.counts.numpy(), head.names(), before)
        steps = sum(int((e.y[:, 0] == END).sum()) for e in examples)
        scores["baselines"].pop("xz")
        for row in (scores, *scores["baselines"].values()):
            row["nats_a_step"] = row["nats"] * int(confusion.sum()) / steps
            for name in ("bits", "bits_per_byte"):
                row.pop(name, None)
        scores["steps"], scores["pieces"] = steps, len(examples)
        scores["baselines"] |= scores_beside(self, self.columns, beside, material)
        scores = contract(self, scores | {"data": material.name}, self.columns)

        def told():
            from .report import music_facts, music_sections, music_summary

            piece = np.asarray(material.test[0][NEXT].values)
            return music_summary(scores), music_facts(scores), music_sections(model, piece)

        return Scored(scores, told)
