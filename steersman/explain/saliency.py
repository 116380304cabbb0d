"""Which pixels and which past steps moved a prediction: integrated gradients through time."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..data.inputs import Inputs
from ..nn.cores import State, map_state
from ..nn.encoders import joined_parts, reads_symbols
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..progress import Watch, silent
from ..worlds.film import DriveVideo
from .pictures import INK, MODEL, SIGNED, TRUTH, picture
from .samples import Sample
from .unrolled import spoken

AT_ONCE = 16
"""Points of the path that are run as one batch."""


@dataclass(frozen=True)
class Attribution:
    """What each input value of a window added to the prediction, against an input that says nothing."""

    values: np.ndarray
    """(time ...), in the units of the prediction."""
    prediction: float
    plain: float
    """The prediction for the input that says nothing."""

    @property
    def gap(self) -> float:
        """The amount by which the attributions miss the difference that they should sum to."""
        return float(self.values.sum()) - (self.prediction - self.plain)

    @property
    def by_step(self) -> np.ndarray:
        return self.values.reshape(len(self.values), -1).sum(1)


def integrated_gradients(function: Callable[[Tensor], Tensor], x: Tensor, plain: Tensor, points: int) -> Attribution:
    """Attribution of `function` (batch time ...) -> (batch), on the straight line from `plain` to `x` (time ...).

    By Gauss and Legendre's rule (Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks").
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(x)
    for start in range(0, points, AT_ONCE):
        share = torch.as_tensor((nodes[start : start + AT_ONCE] + 1) / 2, dtype=x.dtype)
        weight = torch.as_tensor(weights[start : start + AT_ONCE] / 2, dtype=x.dtype)
        line = (plain + share.view(-1, *[1] * x.ndim) * (x - plain)).requires_grad_()
        (slope,) = torch.autograd.grad((function(line) * weight).sum(), line)
        total += slope.sum(0)
    with torch.no_grad():
        ends = [float(function(one.unsqueeze(0))[0]) for one in (x, plain)]
    # What is missing (NaN) is missing on all of the line, and adds nothing.
    return Attribution(((x - plain) * total).nan_to_num().numpy(), *ends)


@dataclass(frozen=True)
class Window:
    """Some steps of a sample, ready to be varied: what varies, what says nothing, and the prediction of it."""

    x: Tensor
    plain: Tensor
    function: Callable[[Tensor], Tensor]
    steps: range
    answer: str
    """Name of what is predicted."""
    raw: Tensor
    """The head's outputs (output) of it."""


def window(sample: Sample, at: int, steps: int, states: State | None = None) -> Window:
    """The last `steps` steps up to `at`; what was before them stays as it was, in the state.

    A text varies as its embedded characters, and says nothing as their mean; else prepared inputs vary, and the mean
    that the model was trained with says nothing. `states` of encoder and core before the first, where they are known.
    """
    model, shown = sample.model, range(max(0, at + 1 - steps), at + 1)
    model.requires_grad_(False)
    states = read_on(sample, 0, shown.start, model.initial(1)) if states is None else states
    encoder = model.encoder
    if sample.columns:
        return _columns(sample, at, shown, states)
    if reads_symbols(encoder):
        x = sample.features(shown.start, shown.stop)[0]
        plain = encoder.vectors.weight.mean(0).expand_as(x)
    else:
        x = sample.x(shown.start, shown.stop)[0].to(encoder.mean.dtype)
        plain = encoder.mean.expand_as(x)
    raw = last_output(model, x.unsqueeze(0), states)[0]
    chosen = int(raw.argmax()) if model.head.classes else 0

    def function(line: Tensor) -> Tensor:
        said = last_output(model, line, states)
        # Of classes the score before the softmax, of numbers the estimate in their own units.
        return said[:, chosen] if model.head.classes else model.head.point(said)[:, 0]

    said, _ = spoken(sample, raw, sample.answer(at))
    return Window(x, plain, function, shown, f"score of {said}" if model.head.classes else said, raw)


def _columns(sample: Sample, at: int, shown: range, states: State) -> Window:
    """The same of a model that reads streams of named columns: side by side, what is given once in the first step.

    Their means say nothing. What is missing stays missing, so that a number was measured at all counts on both ends.
    Of two classes the one that is looked for is explained, by its log odds.
    """
    model, given = sample.model, sample.x(shown.start, shown.stop)
    means = {part.stream: encoder.mean for part, encoder in joined_parts(model.encoder)}
    parts, plains, places, width = [], [], {}, 0
    for name, names in sample.columns.items():
        is_once = name in given.once
        values = (given.once if is_once else given.streams)[name][0].float()
        values = values.expand(len(shown), -1) if is_once else values
        parts.append(values)
        plains.append(torch.where(values.isnan(), values, means[name].float()))
        places[name] = (is_once, width, width + len(names))
        width += len(names)
    raw = last_output(model, given, states)[0]
    said, _ = spoken(sample, raw, sample.answer(at))
    head = model.head
    sought = sample.sought
    chosen = int(raw.argmax()) if model.head.classes else 0

    def function(line: Tensor) -> Tensor:
        streams = {name: values.expand(len(line), -1, -1) for name, values in given.streams.items()}
        once = {name: values.expand(len(line), -1) for name, values in given.once.items()}
        for name, (is_once, first, last) in places.items():
            if is_once:
                once[name] = line[:, 0, first:last]
            else:
                streams[name] = line[..., first:last]
        said = last_output(model, Inputs(streams, once), states)
        if sought is not None:
            return said[:, sought] - said[:, 1 - sought]
        return said[:, chosen] if model.head.classes else model.head.point(said)[:, 0]

    answer = f"score of {said}" if model.head.classes else said
    if sought is not None and tells_classes(head):
        answer = f"log odds of {(head.names() or ['0', '1'])[sought]}"
    return Window(torch.cat(parts, 1), torch.cat(plains, 1), function, shown, answer, raw)


@torch.no_grad()
def read_on(sample: Sample, start: int, stop: int, state: State) -> State:
    """The state of encoder and core, read on to before `stop`; a core that is not causal begins there anew."""
    for first in range(start, stop if sample.model.causal else start, 64):
        _, state = sample.model.run(sample.x(first, min(stop, first + 64)), state)
    return state


def last_output(model: Model, line: Any, states: State) -> Tensor:
    """The head's outputs (batch output) at the last step of a line (batch time ...), from the states of one row."""
    encoder_state, state = map_state(lambda s: s.expand(len(line), *s.shape[1:]).contiguous(), states)
    if model.encoder.symbols is not None:
        feature = line
    else:
        feature, _ = model.encoder(line, encoder_state)
    y = model.core(feature, state)[0][:, -1]
    return model.head(torch.cat((y, feature[:, -1]), -1) if model.skip else y)


MOST_POINTS, WANTED_GAP = 1024, 0.01
"""Points of the path at most, and the share of the difference that attributions may miss before more are taken."""


def attributed(part: Window, points: int = 32) -> tuple[Attribution, int]:
    """The attribution with as many points as it takes, and how many those were."""
    while True:
        found = integrated_gradients(part.function, part.x, part.plain, points)
        if abs(found.gap) <= WANTED_GAP * abs(found.prediction - found.plain) or points >= MOST_POINTS:
            return found, points
        points *= 2


SHOWN = 8
"""Pictures in the strip, the last ones."""


def draw_saliency(sample: Sample, at: int, steps: int, path: Path) -> tuple[Path, Attribution]:
    """A strip of the last steps with what moved the prediction, and below it how much each step did."""
    part = window(sample, at, steps)
    found, points = attributed(part)
    if sample.columns:
        said = _said_of_columns(sample, part, found, points)
        return picture(path, lambda drawing: _table(drawing, sample, part, found), said, 760), found
    seen = part.x.ndim == 4

    def paint(drawing: Figure) -> None:
        grid = drawing.add_gridspec(3 if seen else 2, 1, height_ratios=(1, 1, 1.3) if seen else (0.5, 1.3))
        if seen:
            last = min(SHOWN, len(part.x))
            top, below = (grid[row].subgridspec(1, last).subplots(squeeze=False)[0] for row in (0, 1))
            heat = _heat(found.values)
            for k, (above, under) in enumerate(zip(top, below, strict=True)):
                t = len(part.x) - last + k
                shown = as_rgb(part.x[t].numpy())
                above.imshow(shown)
                above.set_title(f"step {part.steps[t]}")
                under.imshow(overlaid(shown, heat[t]))
                for axes in (above, under):
                    axes.axis("off")
        else:
            _words(drawing.add_subplot(grid[0]), sample, part)
        _bars(drawing.add_subplot(grid[-1]), part, found)

    return picture(path, paint, _caption(sample, part, found, points), 700 if seen else 480), found


def _caption(sample: Sample, part: Window, found: Attribution, points: int) -> str:
    last = abs(found.by_step[-1]) / max(1e-12, float(np.abs(found.by_step).sum()))
    what = "Blue pixels raised it, orange ones lowered it. " if part.x.ndim == 4 else ""
    unsaid = "the average character" if reads_symbols(sample.model.encoder) else "the average input"
    return (
        f"What moved the prediction of {sample.name} at step {part.steps[-1]} of record "
        f"{sample.record.name} ({part.answer}): "
        f"integrated gradients over {len(part.x)} steps, against {unsaid} in their place. {what}The "
        f"last step has {last:.0%} "
        f"of all that the steps moved it by, either way. All bars sum to {found.by_step.sum():+.4f}; "
        f"the prediction is "
        f"{found.prediction:.4f}, that of {unsaid} {found.plain:.4f}, so {found.gap:+.1e} is missed "
        f"with {points} points of the path."
    )


MOST_ROWS = 18
"""Columns that are drawn: those that did most."""
HOUR_S = 3600.0


def _table(drawing: Figure, sample: Sample, part: Window, found: Attribution) -> None:
    """What each column did at each step, and beside it in all."""
    names = [name for names in sample.columns.values() for name in names]
    once = [name in sample.example.x.once for name, names in sample.columns.items() for _ in names]
    kept = np.argsort(-np.abs(found.values).sum(0), kind="stable")[:MOST_ROWS][::-1]
    kept = [column for column in kept if np.abs(found.values[:, column]).sum() > 0]
    time_s = sample.example.time_s[part.steps.start : part.steps.stop]
    unit, seconds = ("hours", HOUR_S) if np.ptp(time_s) > HOUR_S else ("seconds", 1.0)
    clock = (time_s - sample.example.time_s[0]) / seconds
    heat, bars = drawing.subplots(1, 2, sharey=True, width_ratios=(2.4, 1))
    shown = np.where([once[c] for c in kept], np.nan, found.values[:, kept]).T
    high = float(np.nanquantile(np.abs(shown), 0.995)) if np.isfinite(shown).any() else 1.0
    edges = np.append(clock, clock[-1] + (np.median(np.diff(clock)) if len(clock) > 1 else 1.0))
    rows = np.arange(len(kept) + 1) - 0.5
    heat.pcolormesh(edges, rows, shown, cmap=SIGNED, vmin=-(high or 1.0), vmax=high or 1.0)
    heat.set_yticks(range(len(kept)), [names[c] for c in kept])
    heat.set_xlabel(f"{unit} since its first row")
    heat.set_title(f"what each value added to the {part.answer}")
    heat.grid(False)
    total = found.values[:, kept].sum(0)
    bars.barh(range(len(kept)), total, 0.7, color=[MODEL if v >= 0 else TRUTH for v in total])
    bars.axvline(0, color=INK, linewidth=0.8)
    bars.grid(False)
    bars.set_title("in all")


def _said_of_columns(sample: Sample, part: Window, found: Attribution, points: int) -> str:
    _, was = spoken(sample, part.raw, sample.answer(part.steps[-1]))
    return (
        f"What moved the {part.answer} of {sample.name} for record {sample.record.name} (it was {was}): integrated "
        f"gradients over {len(part.x)} steps, against the mean of the training data in each value's place. Blue raised "
        "it, orange lowered it; the columns that did most, those true of the whole record with bars only. That a value "
        f"was measured at all is not counted. The output is {found.prediction:.3f}, for means alone {found.plain:.3f}; "
        f"{found.gap:+.1e} is missed with {points} points of the path."
    )


def _bars(axes: Axes, part: Window, found: Attribution) -> None:
    value = found.by_step
    axes.bar(list(part.steps), value, 0.8, color=[MODEL if v >= 0 else TRUTH for v in value])
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlim(part.steps.start - 0.6, part.steps.stop - 0.4)
    axes.set_title(f"what each step added to: {part.answer}")
    axes.set_xlabel("step of the record")


def _words(axes: Axes, sample: Sample, part: Window) -> None:
    axes.axis("off")
    axes.set_xlim(part.steps.start - 0.6, part.steps.stop - 0.4)
    for step, word in zip(part.steps, sample.words(part.steps), strict=True):
        long = len(word) > 3
        axes.text(step, 0.05, word, ha="center", va="bottom", fontsize=7 if long else 12, rotation=90 if long else 0)


def as_rgb(prepared: np.ndarray) -> np.ndarray:
    """A prepared picture (row column channel) as grey levels, uint8 (row column 3)."""
    grey = prepared.astype(np.float64).mean(-1)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, -1)


def _heat(values: np.ndarray) -> np.ndarray:
    """Attributions (time row column channel) as one of -1 to 1 a pixel; the strongest hundredth is at the ends."""
    total = values.sum(-1)
    high = float(np.quantile(np.abs(total), 0.995)) or 1.0
    return np.clip(total / high, -1, 1)


def overlaid(rgb: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A picture made pale, with colour where something moved the prediction; uint8."""
    pale = 255 - (255 - rgb.astype(float)) * 0.35
    colour = SIGNED(0.5 + 0.5 * heat)[..., :3] * 255
    share = np.abs(heat)[..., None] ** 0.7
    return (pale * (1 - share) + colour * share).astype(np.uint8)


def film_saliency(sample: Sample, at: int, steps: int, length: int, path: Path, watch: Watch = silent) -> Path:
    """The `length` steps up to `at` as an mp4: the camera, and what of the newest picture moved the prediction."""
    target, clock = sample.model.head.targets[0], sample.example.time_s
    rate = 1 / float(np.median(np.diff(clock)))
    first, every = max(0, at + 1 - length), max(1, round(rate / 25))
    path.parent.mkdir(parents=True, exist_ok=True)
    read, states = 0, sample.model.initial(1)
    with DriveVideo(path, rate / every / 2, truth_name="recorded") as video:
        for t in range(first, at + 1, every):
            begin = max(0, t + 1 - steps)
            read, states = begin, read_on(sample, read, begin, states)
            part = window(sample, t, steps, states)
            found = integrated_gradients(part.function, part.x, part.plain, AT_ONCE)
            seen = overlaid(as_rgb(part.x[-1].numpy()), _heat(found.values)[-1])
            shot = np.asarray(sample.record[sample.inputs].values[t])
            truth = {"steer": float(sample.answer(t)[0])}
            video.add(shot, seen, {"steer": found.prediction}, truth, {"time_s": float(clock[t])})
            watch(f"filming {target}", t + 1 - first, at + 1 - first)
    return path
