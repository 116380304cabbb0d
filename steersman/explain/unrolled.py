"""A model unrolled over time: the same weights at every step, and how much gradient each edge carries back."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from ..nn.cores import State, map_state
from ..nn.heads import tells_classes
from ..nn.model import Model
from .pictures import FAINT, FOURTH, INK, MODEL, MUTED, PAPER, RULE, SHARE, THIRD, TRUTH, picture
from .samples import Sample

Kind = Literal["in", "time", "out", "skip"]


@dataclass(frozen=True)
class Edge:
    """A value's way into a cell, or out to the head, with the norm of the loss's gradient there."""

    kind: Kind
    layer: int
    """Row of the picture: a bidirectional layer has two."""
    step: int
    """The step it leads into."""
    part: int
    """Part of the state: an LSTM has h and c."""
    gradient: float


@dataclass(frozen=True)
class Row:
    """A core of the picture: one set of weights, used at every step."""

    name: str
    weights: int
    backwards: bool
    below: tuple[int, ...]
    """Rows that it is fed by; none: the input."""
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Unrolled:
    rows: list[Row]
    edges: list[Edge]
    target: int
    """The step whose loss is sent back."""
    loss: float
    raw: Tensor
    """The head's output at that step."""

    def through_time(self, step: int) -> float:
        """What reaches all states on their way into a step."""
        return float(np.sqrt(sum(e.gradient**2 for e in self.edges if e.kind == "time" and e.step == step)))


def unroll(model: Model, feature: Tensor, state: State, answer: np.ndarray, target: int) -> Unrolled:
    """Runs the core step by step, each edge a tensor of its own, and sends the loss of one step back."""
    feature = feature.detach().requires_grad_()
    kept: list[tuple[Kind, int, int, int, Tensor]] = []

    def edge(kind: Kind, row: int, step: int, value: Tensor, part: int = 0) -> Tensor:
        if not value.requires_grad:
            value = value.detach().requires_grad_()
        value = value.clone()
        value.retain_grad()
        kept.append((kind, row, step, part, value))
        return value

    x, rows, below = list(feature), [], ()
    for layer in model.core.layers(state):
        said: list[list[Tensor]] = []
        for core, own, _, backwards in layer.core.directions(layer.state):
            number, names = len(rows), core.state_names
            weights = sum(p.numel() for p in core.parameters())
            rows.append(Row(type(core).__name__.removesuffix("Core"), weights, backwards, below, names))
            outputs: list[Tensor] = [feature] * len(x)
            for t in reversed(range(len(x))) if backwards else range(len(x)):
                parts = iter(range(len(names)))
                own = map_state(lambda s, t=t, n=number, parts=parts: edge("time", n, t, s, next(parts)), own)
                y, own = core.step(edge("in", number, t, x[t]).unsqueeze(0), own)
                outputs[t] = y[0]
            said.append(outputs)
        below = tuple(range(len(rows) - len(said), len(rows)))
        new = [torch.cat(parts) for parts in zip(*said, strict=True)]
        x = [b + a if layer.adds else b for a, b in zip(x, new, strict=True)]
    top = edge("out", len(rows) - 1, target, x[target])
    if model.skip:
        top = torch.cat((top, edge("skip", len(rows) - 1, target, feature[target])))
    raw = model.head(top)
    loss = model.head.loss(raw[None, None], torch.from_numpy(np.ascontiguousarray(answer))[None, None]).sum()
    loss.backward()
    edges = [Edge(k, r, t, p, 0.0 if v.grad is None else float(v.grad.norm())) for k, r, t, p, v in kept]
    return Unrolled(rows, edges, target, float(loss.detach()), raw.detach())


def unroll_sample(sample: Sample, at: int, steps: int) -> tuple[Unrolled, range]:
    """The last `steps` steps up to `at`; the loss is that of the last one, or of the middle where the future counts."""
    shown = range(max(0, at + 1 - steps), at + 1)
    feature, state = sample.features(shown.start, shown.stop)
    middle = not sample.model.causal and sample.model.flavour == "many-to-many"
    target = len(shown) // 2 if middle else len(shown) - 1
    sample.model.zero_grad()
    return unroll(sample.model, feature, state, sample.answer(shown[target]), target), shown


COLOURS = (MODEL, THIRD, FOURTH, TRUTH)
HALF_WIDTH, HALF_HEIGHT = 0.17, 0.19
"""Half of a cell's size, in steps and rows."""


ABOVE_PICTURE = 0.3
"""Height, in rows, of the upper edge of a picture that is an input."""


def draw_unrolled(sample: Sample, at: int, steps: int, path: Path) -> tuple[Path, Unrolled]:
    """The picture, and what it shows."""
    found, shown = unroll_sample(sample, at, steps)

    def paint(drawing: Figure) -> None:
        axes = drawing.subplots()
        axes.axis("off")
        axes.set_xlim(-1.55, len(shown) - 0.4)
        axes.set_ylim(-0.65 if sample.example.x.ndim > 2 else -0.4, len(found.rows) + 1.45)
        widest = max(e.gradient for e in found.edges)
        for edge in found.edges:
            _edge(axes, found, edge, widest, len(shown), ABOVE_PICTURE if sample.example.x.ndim > 2 else HALF_HEIGHT)
        for number, row in enumerate(found.rows):
            _row(axes, number, row, len(shown))
        _inputs(axes, sample, shown)
        _head(axes, sample, found, shown)

    return picture(path, paint, _caption(sample, found, shown), 330 + 165 * len(found.rows)), found


def _caption(sample: Sample, found: Unrolled, shown: range) -> str:
    place = f"record {sample.record.name}, steps {shown.start} to {shown.stop - 1}"
    many = "Cells of one colour are one set of weights, used at every step: U takes the input in, W goes through time."
    says = (
        f"Arrows: how the gradient of the loss at step {shown[found.target]} goes back along each edge, the other way "
        "than the numbers went; figures: its norm; thicker is more."
    )
    if any(row.parts for row in found.rows):
        first, last = (found.through_time(t) for t in (0, found.target))
        end = f"On its way back over {found.target} steps it goes from {last:.2g} to {first:.2g} at the states."
        if not sample.model.causal:
            end = "A core that reads both ways is shown as if these steps were the record: gradient goes both ways."
        if any(row.parts == ("h", "c") for row in found.rows):
            end += " The upper of an LSTM's two edges is its cell, c, the conveyor belt; the lower its output, h."
    else:
        end = "This core has no memory: there is no edge through time, and only its own input moves a prediction."
    return f"{sample.name} unrolled over {place}. {many} {says} {end}"


def _edge(axes: Axes, found: Unrolled, edge: Edge, widest: float, steps: int, top: float) -> None:
    """One edge; the inputs reach up to `top`."""
    row, t = found.rows[edge.layer], edge.step
    y = edge.layer + 1.0
    if edge.kind == "time":
        sign = -1 if row.backwards else 1
        shift = 0.0 if len(row.parts) == 1 else 0.18 * edge.part / (len(row.parts) - 1) - 0.09
        start, end = (t - sign * (1 - HALF_WIDTH), y + shift), (t - sign * HALF_WIDTH, y + shift)
        label, across, along = ((start[0] + end[0]) / 2, y + shift), (0, 5 if shift >= 0 else -5), "center"
        if t == (steps - 1 if row.backwards else 0):
            start = (t - sign * (HALF_WIDTH + 0.25), y + shift)
            label, along = (end[0] - sign * 0.03, y + shift), "left" if row.backwards else "right"  # Off the cell.
        vertical = "bottom" if shift >= 0 else "top"
    elif edge.kind == "in":
        aside = 0.06 if row.backwards else 0.0
        lowest = min(row.below) + 1 + HALF_HEIGHT if row.below else top
        start, end = (t + aside, lowest), (t + aside, y - HALF_HEIGHT)
        label, across, along, vertical = (t + aside, end[1] - 0.3), (5, 0), "left", "center"
    elif edge.kind == "out":
        start, end = (t, y + HALF_HEIGHT), (t, y + 1 - HALF_HEIGHT)
        label, across, along, vertical = (t, y + 0.5), (5, 0), "left", "center"
    else:
        start, end = (t + 0.32, top), (t + 0.32, y + 1 - HALF_HEIGHT)
        label, across, along, vertical = (t + 0.32, 0.55), (5, 0), "left", "center"
    share = edge.gradient / widest if widest else 0.0
    # Three powers of ten from the thinnest to the thickest.
    size = max(0.0, 1 + log10(share) / 3) if share > 0 else 0.0
    style = {"arrowstyle": "-|>", "color": SHARE(0.25 + 0.5 * size), "linewidth": 0.8 + 4.2 * size, "shrinkA": 0}
    axes.annotate("", start, end, arrowprops=style | {"shrinkB": 0, "linestyle": "-" if edge.gradient else ":"})
    text = f"{edge.gradient:.1g}" if edge.gradient < 1e-3 else f"{edge.gradient:.2g}"
    axes.annotate(
        text, label, across, textcoords="offset points", ha=along, va=vertical, fontsize=9, color=INK if size else FAINT
    )


def _row(axes: Axes, number: int, row: Row, steps: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    for t in range(steps):
        corner = (t - HALF_WIDTH, number + 1 - HALF_HEIGHT)
        box = FancyBboxPatch(
            corner, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, "round,pad=0,rounding_size=0.05", facecolor=colour, edgecolor=PAPER
        )
        axes.add_patch(box)
        axes.text(t, number + 1, "U W" if row.parts else "U", ha="center", va="center", color=PAPER, fontsize=9)
    way = "\nreads from the end" if row.backwards else ""
    text = f"{row.name}{way}\n{row.weights:,} weights,\nused {steps} times"
    axes.text(-1.53, number + 1, text, ha="left", va="center", color=colour, fontsize=10)


def _inputs(axes: Axes, sample: Sample, shown: Sequence[int]) -> None:
    seen = sample.pictures(shown)
    axes.text(-1.53, 0, "input", ha="left", va="center", color=MUTED, fontsize=10)
    for t, (step, text) in enumerate(zip(shown, sample.words(shown), strict=True)):
        if seen is None:
            axes.text(t, 0.05, text, ha="center", va="center", fontsize=13 if len(text) < 4 else 9, color=INK)
        else:
            size = 76 / max(seen[t].shape[:2])
            axes.add_artist(AnnotationBbox(OffsetImage(seen[t], zoom=size), (t, -0.1), frameon=False))
        under = f"step {step}" if seen is None else f"step {step}, {text}"
        axes.text(t, -0.62 if seen is not None else -0.3, under, ha="center", va="bottom", fontsize=9, color=MUTED)


def _head(axes: Axes, sample: Sample, found: Unrolled, shown: Sequence[int]) -> None:
    t, y = found.target, len(found.rows) + 1
    corner = (t - 0.4, y - HALF_HEIGHT)
    size = 0.8, 0.9 * HALF_HEIGHT
    box = FancyBboxPatch(corner, *size, "round,pad=0,rounding_size=0.05", facecolor=RULE, edgecolor=PAPER)
    axes.add_patch(box)
    axes.text(t, y - 0.55 * HALF_HEIGHT, "head", ha="center", va="center", fontsize=10)
    said, was = spoken(sample, found.raw, sample.answer(shown[t]))
    axes.text(t + 0.42, y + 0.1, f"says {said}, was {was}\nloss {found.loss:.3g}", ha="right", va="bottom", fontsize=10)


def spoken(sample: Sample, raw: Tensor, answer: np.ndarray) -> tuple[str, str]:
    """Prediction and truth in words; of several targets the first."""
    head = sample.model.head
    if tells_classes(head):
        names, classes = head.names(), (int(raw.argmax()), int(head.labels(np.asarray(answer[:1]))[0]))
        said, was = (names[i] if names else str(i) for i in classes)
        return f"“{said}”", f"“{was}”"
    with torch.no_grad():
        return f"{head.targets[0]} {float(head.point(raw)[0]):+.3f}", f"{float(answer[0]):+.3f}"
