"""What a finding is, the kinds there are, and what the doctor is shown of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.examples import Example
from ..data.inputs import blank, tensors
from ..json_types import JsonObject
from ..nn.model import Model

ROWS, STEPS = 16, 64
"""Sequences and steps looked at: enough for a steady figure, few enough for a CPU."""


class Skipped(Exception):
    """Why a group of findings does not apply."""


@dataclass(frozen=True)
class Curve:
    """The evidence as a line."""

    x: Sequence[float]
    y: Sequence[float]
    x_label: str
    y_label: str


@dataclass(frozen=True)
class Finding:
    """Something that is likely wrong; `severity` from 0 to 1 is how far beyond its threshold it lies."""

    kind: str
    severity: float
    figure: float
    evidence: str
    curve: Curve | None = None

    @property
    def meaning(self) -> str:
        return KINDS[self.kind][0]

    @property
    def advice(self) -> str:
        return KINDS[self.kind][1]

    def json(self) -> JsonObject:
        return asdict(self) | {"meaning": self.meaning, "advice": self.advice}


def above(kind: str, figure: float, threshold: float, evidence: str, curve: Curve | None = None) -> list[Finding]:
    """A finding where the figure is above its threshold; the worst is ten times as far, or where that is a share, 1."""
    if not figure > threshold:
        return []
    worst = 1.0 if threshold < 1 >= figure else 10 * threshold
    return [Finding(kind, float(np.clip((figure - threshold) / (worst - threshold), 0.05, 1)), figure, evidence, curve)]


def below(kind: str, figure: float, threshold: float, evidence: str, curve: Curve | None = None) -> list[Finding]:
    """A finding where the figure is below its threshold; the worst is zero."""
    if not figure < threshold:
        return []
    severity = 1 - max(figure, 0) / threshold if threshold > 0 else 1.0
    return [Finding(kind, float(np.clip(severity, 0.05, 1)), figure, evidence, curve)]


@dataclass
class Patient:
    """All that the groups look at; each takes what it needs."""

    model: Any
    """A Model, or an EncoderDecoder."""
    shown: Mapping[str, Sequence[Any]]
    """Examples (or pairs) of `train` and `validation`."""
    batches: Any
    """How training cut its examples."""
    log: Sequence[Mapping[str, float]] = ()
    updates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Sizes of an update at the full rate beside the weights, as it is and at most, by weight matrix."""
    curves: list[Curve] = field(default_factory=list)
    """What was looked at as a line, whether or not anything is wrong with it."""

    def keep(self, curve: Curve) -> Curve:
        """The same curve, which the page then shows in any case."""
        self.curves.append(curve)
        return curve

    def sequence_model(self) -> Model:
        """Model with a target a step; Skipped for an encoder-decoder."""
        if not self.model.aligned:
            raise Skipped("an encoder-decoder has no target a step on the clock of its input")
        return self.model

    def recurrent(self) -> Model:
        """Model with a memory; Skipped where there is no time to look along."""
        model = self.sequence_model()
        if not model.core.remembers:
            raise Skipped("the model has no memory: every step stands alone")
        return model

    def causal(self) -> Model:
        model = self.recurrent()
        if not model.causal:
            raise Skipped("the core is bidirectional: its state can't be carried or looked at one step at a time")
        return model

    @cached_property
    def held(self) -> "Stretch":
        return stretch(self.sequence_model(), self.shown["validation"])

    @cached_property
    def learned(self) -> "Stretch":
        return stretch(self.sequence_model(), self.shown["train"])


@dataclass(frozen=True)
class Stretch:
    """Some sequences side by side: inputs, what the encoder makes of them, targets, and which steps are there."""

    x: Tensor
    feature: Tensor
    y: Tensor
    mask: Tensor

    @property
    def steps(self) -> int:
        return self.mask.shape[1]


def stretch(model: Model, examples: Sequence[Example], rows: int = ROWS, steps: int = STEPS) -> Stretch:
    """Stretches of equal length from all over the examples; whole records where each has one answer."""
    once = model.flavour == "many-to-one"
    steps = max(map(len, examples)) if once else min(steps, max(map(len, examples)))
    places = [(e, a) for e in examples for a in (range(0, max(1, len(e) - steps + 1), steps) if not once else (0,))]
    chosen = [places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(rows, len(places))).astype(int))]
    first = examples[0]
    x = blank(first.x, len(chosen), steps)
    y = np.zeros((len(chosen), *(() if once else (steps,)), first.y.shape[-1]), np.float32)
    mask = np.zeros((len(chosen), steps), np.float32)
    for row, (example, start) in enumerate(chosen):
        part = example.x[start : start + steps]
        x[row, : len(part)], mask[row, : len(part)] = part, 1
        y[row, ...] = example.y if once else 0
        if not once:
            y[row, : len(part)] = example.y[start : start + steps]
    given, (target, weight) = tensors(x), map(torch.from_numpy, (y, mask))
    with torch.no_grad():
        feature, _ = model.encoder(given, model.encoder.initial(len(given)))
    return Stretch(given, feature.float(), target, weight)


def losses(model: Model, y: Tensor, feature: Tensor, target: Tensor) -> Tensor:
    """The loss of each step, from the core's outputs."""
    return model.head.loss(model.head(torch.cat((y, feature), -1) if model.skip else y), target)


KINDS: dict[str, tuple[str, str]] = {
    "vanishing-gradient": (
        "What a step learns from falls to a hundredth within a step or two: nothing older can be learned.",
        "Use a gated core (LSTM, GRU), raise the forget gate's bias, or set the core's `longest`.",
    ),
    "exploding-gradient": (
        "The gradient grows with distance: the oldest steps drown the rest, and training leaps.",
        "Lower --training.clip-norm and the rate, or use a gated core.",
    ),
    "memory-unused": (
        "The loss is the same when the model forgets everything at each step.",
        "If the task has a past to use, look at gates and gradients; if not, a Memoryless core is cheaper.",
    ),
    "window-too-short": (
        "Inputs older than a training window tell of the target: no gradient reaches them.",
        "Raise --batches.window.",
    ),
    "dead-relu": (
        "Units that are 0 for every input get no gradient and never come back.",
        "Lower the rate, lengthen the warm-up, or look at the scale of the inputs.",
    ),
    "saturated-tanh": (
        "Most of the state sits at its bounds, where tanh passes no gradient.",
        "Lower the rate, look at the scale of the inputs, or use weight decay.",
    ),
    "saturated-gates": (
        "Most gates stand fully open or shut whatever comes, where a sigmoid passes no gradient.",
        "Lower the rate, or look at the scale of the inputs.",
    ),
    "never-forgets": (
        "Forget gates are open all the time: the cell adds up all it ever saw.",
        "Lower the forget gate's bias (or `longest`), or train longer.",
    ),
    "never-writes": (
        "Gates that let the input into the state are shut all the time: the memory can't take anything in.",
        "Look at the gate's bias and at the scale of the inputs; begin again with a lower rate.",
    ),
    "saddle": (
        "The gradient is next to nothing, but there are directions in which the loss falls: a saddle, no minimum.",
        "Break the symmetry: do not begin with weights of zero; raise the rate.",
    ),
    "rate-too-high": (
        "An update changes the weights by a large share of themselves: training leaps about.",
        "Lower --training.learning-rate.",
    ),
    "rate-too-low": (
        "An update changes the weights by next to nothing: they stay where they began.",
        "Raise --training.learning-rate.",
    ),
    "target-scale": (
        "Targets are not near mean 0 and deviation 1 after the head's normaliser, or are in another unit elsewhere.",
        "Look at the units of the recordings, and fit the normaliser on the training records.",
    ),
    "predicts-mean": (
        "The prediction hardly moves: the model says the mean and nothing else.",
        "Look at whether inputs and targets belong together, at the rate, and at dead units.",
    ),
    "predicts-past": (
        "The prediction is the truth of a moment ago: no better than repeating the last value.",
        "Take inputs away that show the last target, and predict further ahead.",
    ),
    "misaligned": (
        "The target is told best by an input that comes later: the labels are too early.",
        "Mend the clocks. Of a camera that merely trails the wheel leave the labels as they are (--lag.seconds moves "
        "them in training, and made steering no better where it was measured).",
    ),
    "worse-than-ridge": (
        "A straight line from the same inputs does better: what the network is for, it has not learned.",
        "Train longer (--training.steps) and look at the rate; begin with fewer units, or take the line.",
    ),
    "record-in-two-splits": (
        "What the model is judged by was trained on: its score says nothing.",
        "Take the copies out of the data.",
    ),
    "near-duplicates": (
        "Stretches of held-out records are in the training records, all but exactly.",
        "Take the copies out, or split by whole recordings with a longer gap.",
    ),
    "windows-cross-records": (
        "A record holds several recordings, or a window reaches over a record's end: state leaks across the seam.",
        "Give each recording as a record of its own.",
    ),
    "shuffled-lanes": (
        "State is carried into windows that do not follow on the one before.",
        "Keep each lane's windows in order, or begin each window anew (Windows).",
    ),
    "state-not-reset": (
        "A lane goes on with the state of another record.",
        "Mark the first window of every record as fresh.",
    ),
    "constant-input": (
        "Inputs that never change tell nothing.",
        "Look at the sensor, and take the input out.",
    ),
    "bad-input": (
        "NaN or infinite inputs: one is enough to spoil all weights.",
        "Fill or cut those steps when the recording is read.",
    ),
    "input-holds-answer": (
        "One input alone tells the target: what is learned is to copy it.",
        "Take that input out if it will not be there live.",
    ),
    "state-drift": (
        "The state grows with the length of the stream far beyond what training saw.",
        "Train on longer windows with carried state, or reset the state now and then.",
    ),
    "not-finite": (
        "Weights, or what the model says or learns by, are NaN or infinite: nothing that it says means anything.",
        "Training on from here mends nothing: begin anew, or from an earlier checkpoint, with a lower "
        "--training.learning-rate; look at the scale of inputs and targets.",
    ),
    "initial-loss": (
        "The first loss is far above what a model that knows nothing has: the start is badly scaled.",
        "Begin with small weights in the head, and look at its normaliser.",
    ),
    "overfit": (
        "The held-out loss is far above the training loss.",
        "More data, dropout, weight decay, or fewer units; stop at the lowest validation loss.",
    ),
}
"""Every kind of finding: what it means and what to try."""
