"""Pictures that stand alone: a PNG 1200 pixels wide, with a caption that says what to see."""

import io
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from PIL import Image

from ..evaluation.plots import COLOURS, MARKER, STYLE
from ..files import written_whole

WIDTH = 1200
"""Pixels."""
LIGHT = ("#171c22", "#5a6571", "#a3abb3", "#dcdfe2", "#fdfdfc", "#0a5fc4", "#c26a00", "#0b7d63", "#8148b5", "#c8202f")
"""The page's colours on light paper, in the order of plots.COLOURS."""
INK, MUTED, FAINT, RULE, PAPER, MODEL, TRUTH, THIRD, FOURTH, ALARM = LIGHT
_FIXED = {MARKER[name]: colour for name, colour in zip(COLOURS, LIGHT, strict=True)}
STANDALONE: dict[Any, Any] = {name: _FIXED.get(value, value) for name, value in STYLE.items()} | {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.labelsize": 11,
    "axes.titlesize": 11.5,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
SHARE = LinearSegmentedColormap.from_list("share", [PAPER, MODEL, "#062a5c"])
"""Colours of a share, from nothing to all."""
SIGNED = LinearSegmentedColormap.from_list("signed", [TRUTH, PAPER, MODEL])
"""Colours of a signed number, below and above zero."""


def picture(path: Path, paint: Callable[[Figure], None], caption: str, height: int) -> Path:
    """Lets `paint` paint a figure of so many pixels in height, the caption included, and writes it."""
    with matplotlib.rc_context(STANDALONE):
        layout = ConstrainedLayoutEngine(h_pad=0.09, w_pad=0.09)
        drawing = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, layout=layout)
        paint(drawing)
        text = "\n".join(textwrap.wrap(caption, 140))
        drawing.supxlabel(text, x=0.012, ha="left", fontsize=11, color=INK, linespacing=1.4)
        for label in drawing.findobj(Text):
            assert isinstance(label, Text)
            label.set_text(drawable(label.get_text(), findfont(label.get_fontproperties())))
        drawn = io.BytesIO()
        drawing.savefig(drawn, format="png")
    with Image.open(drawn) as image, written_whole(path) as file:
        # 256 colours: a third of the size, and no eye sees it.
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return path


def drawable(text: str, font: str) -> str:
    """The text with numbers in the place of characters that the font's file lacks: a box would say nothing."""
    known = get_font(font)
    return "".join(c if c.isspace() or known.get_char_index(ord(c)) else f"U+{ord(c):04X}" for c in text)
