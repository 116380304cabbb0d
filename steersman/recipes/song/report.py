"""Page of a run of music."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...evaluation.page import Fact, Key, Plot, Section
from ...evaluation.plots import MODEL, TRUTH, draw
from ...json_types import JsonObject
from ...nn.decoding import Sampling
from ...nn.model import Model
from ...sources.songs import steps_of
from .compose import composed

PRIMED, SHOWN = 16, 48
"""Steps that are heard, and steps in all, of the piece on the page."""


def music_summary(scores: JsonObject) -> str:
    pairs = scores["baselines"]["pairs"]["nats_a_step"]
    return (
        f"A step of music costs {scores['nats_a_step']:.2f} nats, over {scores['steps']} steps of {scores['pieces']} "
        f"pieces it never heard; by which symbol follows which alone it costs {pairs:.2f}."
    )


def music_facts(scores: JsonObject) -> list[Fact]:
    return [
        Fact("Nats a step", f"{scores['nats_a_step']:.2f}"),
        Fact("Nats a symbol", f"{scores['nats']:.3f}"),
        Fact("Right symbols", f"{100 * scores['accuracy']:.0f} %"),
    ]


def music_sections(model: Model, codes: np.ndarray) -> list[Section]:
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
