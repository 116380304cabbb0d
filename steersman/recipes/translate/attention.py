"""Pictures of where a translator looked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UserError
from ...evaluation.page import Key, Plot, Report, Section, write_report
from ...evaluation.plots import INK, MODEL, THIRD, TRUTH, draw
from ...files import written_whole
from ...nn.encoder_decoder import EncoderDecoder
from .translator import AttentionTable, Translated, attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 20
"""Sentences whose attention one picture shows."""


@dataclass(frozen=True)
class AttentionPicture:
    """Attention as a table: a row for each piece that was said, shaded by how much each piece of the source weighed."""

    attention: AttentionTable
    caption: str = ""

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(piece)}</th>' for piece in self.attention.source)
        body = "".join(
            f'<tr><th scope="row">{escape(piece)}</th>{self._cells(row)}</tr>'
            for piece, row in zip(self.attention.target, self.attention.weights, strict=True)
        )
        return (
            '<div class="scroll" tabindex="0" role="region" aria-label="Attention">'
            f'<table class="confusion"><caption>{escape(self.caption)}</caption>'
            f"<thead><tr><td>said \\ read</td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _cells(self, row: np.ndarray) -> str:
        return "".join(
            f'<td class="right" style="--share:{round(100 * w)}%" title="{w:.2f}">{round(100 * w) or ""}</td>'
            for w in row.tolist()
        )


def unrolled(table: AttentionTable) -> Plot:
    """The network over one sentence: the encoder's steps both ways, the decoder's, and where each of those looked."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        size, spots = 7 if is_wide else 5, 40 if is_wide else 16
        below, above = (
            (np.arange(n) + 0.5) / n * max(len(table.source), len(table.target))
            for n in (len(table.source), len(table.target))
        )
        for way, height, colour in ((1, 1.0, MODEL), (-1, 1.5, THIRD)):
            for a, b in pairwise(below):
                start, end = (a, b) if way == 1 else (b, a)
                axes.annotate("", (end, height), (start, height), arrowprops={"arrowstyle": "->", "color": colour})
            axes.scatter(below, np.full(len(below), height), spots, color=colour, zorder=3)
        for a, b in pairwise(above):
            axes.annotate("", (b, 4.0), (a, 4.0), arrowprops={"arrowstyle": "->", "color": TRUTH})
        axes.scatter(above, np.full(len(above), 4.0), spots, color=TRUTH, zorder=3)
        for t, row in enumerate(table.weights):
            for s, weight in enumerate(row):
                if weight > 0.05:
                    axes.plot((below[s], above[t]), (1.6, 3.9), color=INK, alpha=float(weight), linewidth=1.2, zorder=1)
        for places, words, height, side in (
            (below, table.source, 0.75, "top"),
            (above, table.target, 4.3, "bottom"),
        ):
            for place, word in zip(places, words, strict=True):
                axes.text(place, height, word, rotation=90, ha="center", va=side, fontsize=size + 3)
        axes.set_ylim(-1.5, 6.5)
        axes.set_axis_off()

    return draw(
        "One sentence, step by step: below what it reads, forwards and backwards; above what it says. The lines show "
        "where each step of the decoder looked, the darker the more.",
        paint,
        360,
        360,
        [Key("model", "reads forwards"), Key("third", "reads backwards"), Key("truth", "says")],
    )


def check_picture(path: Path) -> None:
    """UserError where pictures can't be written in that form."""
    if path.suffix not in (".html", ".png"):
        raise UserError(f"--attention {path}: pictures are written as .html or .png")


def picture_attention(path: Path, model: EncoderDecoder, said: Sequence[Translated]) -> int:
    """Pictures of where it looked, one a sentence, to .html or .png; how many of the sentences are shown."""
    check_picture(path)
    shown = [one for one in said if one.tokens][:MOST]
    if not shown:
        raise UserError(f"--attention {path}: nothing was translated, so there is nothing to picture")
    looks = [attention(model, one.source, one.tokens) for one in shown]
    if path.suffix == ".html":
        blocks = [AttentionPicture(look, f"{one.source} / {one.text}") for look, one in zip(looks, shown, strict=True)]
        text = "What the model looked at while it said each piece, in hundredths; each row sums to 100."
        write_report(path, Report("Attention", text, [], [Section("Sentences", "", blocks)]))
    else:
        _png(path, looks)
    return len(shown)


def _png(path: Path, looks: Sequence[AttentionTable]) -> None:
    from matplotlib.figure import Figure

    heights = [2 + 0.28 * len(look.target) for look in looks]
    width = 2 + 0.35 * max(len(look.source) for look in looks)
    drawing = Figure(figsize=(width, sum(heights)), dpi=110, layout="constrained")
    panels = drawing.subplots(len(looks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, look in zip(panels, looks, strict=True):
        axes.imshow(look.weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(look.source)), look.source, rotation=90)
        axes.set_yticks(range(len(look.target)), look.target)
    with written_whole(path) as file:
        drawing.savefig(file, format="png")
