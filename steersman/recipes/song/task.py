"""Task of music: the next pitch is foretold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.outcome import Scored, contract, scores_beside
from ...evaluation.page import Fact, Key, Plot, Section
from ...evaluation.plots import MODEL, TRUTH, draw
from ...json_types import JsonObject
from ...nn.decoding import Sampling
from ...nn.heads import NextSymbol
from ...nn.model import Model
from ...progress import Watch, silent
from ...sources.songs import END, NEXT, steps_of
from ...training.material import Material
from ...training.run import Run
from ...training.task import TaskSpec
from ..text.reading import count_guesses, labels_of, text_head, text_scores
from .compose import composed

PRIMED, SHOWN = 16, 48
"""Steps that are heard, and steps in all, of the piece on the page."""


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
            return _summary(scores), _facts(scores), _sections(model, np.asarray(material.test[0][NEXT].values))

        return Scored(scores, told)


def _summary(scores: JsonObject) -> str:
    pairs = scores["baselines"]["pairs"]["nats_a_step"]
    return (
        f"A step of music costs {scores['nats_a_step']:.2f} nats, over {scores['steps']} steps of {scores['pieces']} "
        f"pieces it never heard; by which symbol follows which alone it costs {pairs:.2f}."
    )


def _facts(scores: JsonObject) -> list[Fact]:
    return [
        Fact("Nats a step", f"{scores['nats_a_step']:.2f}"),
        Fact("Nats a symbol", f"{scores['nats']:.3f}"),
        Fact("Right symbols", f"{100 * scores['accuracy']:.0f} %"),
    ]


def _sections(model: Model, codes: np.ndarray) -> list[Section]:
    steps = steps_of(codes.tolist())[:SHOWN]
    heard = steps[:PRIMED]
    said = composed(model, heard, max(1, len(steps) - len(heard)), Sampling(temperature=0.8), 0)
    text = (
        f"The first {len(heard)} steps of a piece that it never heard, and how it goes on: above as it was written, "
        "below as the model goes on by chance."
    )
    return [Section("How it goes on", text, [piano_roll(steps, [*heard, *said], len(heard))])]


def piano_roll(truth: Sequence[Sequence[int]], said: Sequence[Sequence[int]], heard: int) -> Plot:
    """Two pieces, one below the other: time goes right, pitch goes up."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        rows = drawing.subplots(2, 1, sharex=True, sharey=True)
        for axes, steps, colour in zip(rows, (truth, said), (TRUTH, MODEL), strict=True):
            _roll(axes, steps, heard, colour)
        rows[-1].set_xlabel("step")

    keys = [Key("truth", "as written"), Key("model", "as the model goes on")]
    return draw("Pitches of each step; left of the line both are the piece.", paint, 360, 300, keys)


def _roll(axes: Axes, steps: Sequence[Sequence[int]], heard: int, colour: str) -> None:
    places = [(place, pitch) for place, pitches in enumerate(steps) for pitch in pitches]
    if places:
        x, y = zip(*places, strict=True)
        axes.barh(y, 1.0, left=x, height=0.8, color=colour, linewidth=0)
    axes.axvline(heard, color="0.5", linewidth=1)
    axes.set_ylabel("pitch")
