"""Heads of classes: one of several, the next symbol of a text, several yes or no at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal, TypeGuard

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.lazy import PART
from ...data.symbols import Symbols
from ...errors import UserError
from .. import kernels
from ..decoding import PLAIN, Sampling
from ..forms import Graph, native_form, onnx_form, row_form
from .contract import Head, HeadSpec, RowRead, named, product, wide

ClassWeights = Literal["none", "balanced"] | tuple[float, ...]
"""What a class counts in the loss: all alike, as much as its rarity makes up for, or a weight each."""


@dataclass(frozen=True)
class Classification(HeadSpec):
    """One of several classes, by cross-entropy."""

    targets: tuple[str] = ("label",)
    """Stream that holds the number of the class."""
    classes: int = 10
    smoothing: float = 0.0
    """Share of the probability spread over all classes in the training target (Szegedy et al. 2016)."""
    weights: ClassWeights = "none"
    """Weight of each class in the loss; balanced: of all steps, over those of the class and the number of classes."""
    names: tuple[str, ...] = ()
    """Names of the classes, for people; none given: their numbers."""
    dropout: float = 0.0
    """Share of the feature dropped while training."""

    BOUNDS = {"classes": (1, inf), "smoothing": (0, 1), "dropout": (0, 1)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "ClassificationHead":
        if self.names and len(self.names) != self.classes:
            raise UserError(f"Classification: {len(self.names)} names for {self.classes} classes; give one a class")
        _check_weights("Classification", self.weights, self.classes)
        return ClassificationHead(self, features)


def _check_weights(kind: str, weights: ClassWeights, classes: int) -> None:
    if isinstance(weights, str):
        return
    if len(weights) != classes:
        raise UserError(f"{kind}: {len(weights)} weights for {classes} classes; give one a class, or `balanced`")
    if not (min(weights) >= 0 and 0 < max(weights) < inf):
        raise UserError(f"{kind}: weights are finite numbers from 0, and not all 0; not {weights}")


class ClassificationHead(Head):
    counts: Tensor
    """How often the training data held each class: the baseline that needs no model."""

    def __init__(self, spec: Classification, features: int):
        super().__init__()
        self.targets = self.streams = spec.targets
        self.classes, self.smoothing = spec.classes, spec.smoothing
        self.weights, self._names = spec.weights, spec.names
        self.linear = nn.Linear(features, spec.classes)
        self.dropout = nn.Dropout(spec.dropout)
        self.register_buffer("counts", torch.zeros(spec.classes))

    def labels(self, y: np.ndarray) -> np.ndarray:
        """The class of each value of a target."""
        return y.astype(np.int64)

    def names(self) -> list[str] | None:
        """Names of the classes, for people; None: their numbers."""
        return list(self._names) or None

    def said(self, prediction: Mapping[str, float]) -> dict[str, float | str]:
        if (names := self.names()) is None:
            return dict(prediction)
        return {name: names[int(self.labels(np.array([value]))[0])] for name, value in prediction.items()}

    def fit(self, y: np.ndarray) -> None:
        worst = y.max() if y.max() >= self.classes else y.min()
        if not 0 <= worst < self.classes:
            raise UserError(f"label {worst:g} is not one of the {self.classes} classes; set --head.classes")
        self.counts.copy_(torch.bincount(torch.as_tensor(y).flatten().long(), minlength=self.classes))

    def forward(self, feature: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch class_"]:
        return self.linear(self.dropout(feature))

    def loss(self, raw: Float[Tensor, "*batch class_"], y: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        logits, weights = wide(raw).flatten(0, -2), self.class_weights()
        flat = F.cross_entropy(
            logits,
            y.long().flatten(),
            None if weights is None else weights.to(logits.dtype),
            reduction="none",
            label_smoothing=self.smoothing,
        )
        return flat.view(raw.shape[:-1])

    def class_weights(self) -> Float[Tensor, "class_"] | None:
        """What each class counts in the loss; None: all alike.

        Balanced: their mean over the training data is 1 (King & Zeng 2001); a class that never occurred counts 1.
        """
        if self.weights == "none":
            return None
        if self.weights != "balanced":
            return torch.tensor(self.weights, device=self.counts.device)
        share = self.counts.sum() / (self.counts.clamp_min(1) * (self.counts > 0).sum().clamp_min(1))
        return torch.where(self.counts > 0, share, 1.0)

    def probabilities(self, raw: Float[Tensor, "*batch class_"]) -> Float[Tensor, "*batch class_"]:
        """How likely it thinks each class."""
        return wide(raw).softmax(-1)

    def point(self, raw: Float[Tensor, "*batch class_"]) -> Int[Tensor, "*batch 1"]:
        """The likeliest class."""
        return raw.argmax(-1, keepdim=True)

    def sample(
        self,
        raw: Float[Tensor, "*batch class_"],
        generator: torch.Generator | None = None,
        sampling: Sampling = PLAIN,
    ) -> Int[Tensor, "*batch 1"]:
        """A class drawn from what it thinks likely."""
        return sampling.draw(raw.flatten(0, -2), generator).view(*raw.shape[:-1], 1)


@native_form(ClassificationHead)
def _class_layer(head: ClassificationHead) -> object:
    return kernels.native.linear_layer(False, *product(head.linear))


@row_form(ClassificationHead)
def _class_row(head: ClassificationHead, levels: Sequence[float]) -> RowRead:
    weight, bias = product(head.linear)

    def read(feature: np.ndarray) -> np.ndarray:
        raw = weight @ feature + bias
        chances = np.exp(raw - raw.max())
        return chances / chances.sum()

    return read


@dataclass(frozen=True)
class NextSymbol(HeadSpec):
    """The character that comes next, by cross-entropy."""

    targets: tuple[str] = ("next_character",)
    """Stream that holds the next character."""
    symbols: str = ""
    """Characters that are known; none: the 256 bytes."""
    dropout: float = 0.3
    """Share of the feature dropped while training."""
    smoothing: float = 0.0
    """Share of the probability spread over all classes in the training target (Szegedy et al. 2016)."""

    BOUNDS = {"dropout": (0, 1), "smoothing": (0, 1)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "NextSymbolHead":
        return NextSymbolHead(self, features)


class NextSymbolHead(ClassificationHead):
    table: Tensor

    def __init__(self, spec: NextSymbol, features: int):
        self._symbols = Symbols(spec.symbols)
        said = Classification(spec.targets, len(self.symbols), spec.smoothing, dropout=spec.dropout)
        super().__init__(said, features)
        self.register_buffer("table", torch.from_numpy(self.symbols.codes(np.arange(len(self.symbols)))), False)

    @property
    def symbols(self) -> Symbols:
        return self._symbols

    def labels(self, y: np.ndarray) -> np.ndarray:
        return self.symbols.classes(y)

    def names(self) -> list[str]:
        return self.symbols.names()

    def fit(self, y: np.ndarray) -> None:
        """Counts the classes, a part at a time: a text is long."""
        total = torch.zeros_like(self.counts)
        for start in range(0, len(y), PART):
            super().fit(self.labels(y[start : start + PART]))
            total += self.counts
        self.counts.copy_(total)

    def loss(self, raw: Float[Tensor, "*batch class_"], y: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        return super().loss(raw, torch.from_numpy(self.labels(y.cpu().numpy())).to(raw.device))

    def point(self, raw: Float[Tensor, "*batch class_"]) -> Int[Tensor, "*batch 1"]:
        """The code point, or the byte, of the likeliest class."""
        return self.table[super().point(raw)]

    def sample(
        self,
        raw: Float[Tensor, "*batch class_"],
        generator: torch.Generator | None = None,
        sampling: Sampling = PLAIN,
    ) -> Int[Tensor, "*batch 1"]:
        """The code point, or the byte, of a class drawn from what it thinks likely."""
        return self.table[super().sample(raw, generator, sampling)]


@dataclass(frozen=True)
class MultiLabel(HeadSpec):
    """Several classes of which each is there or is not, by binary cross-entropy."""

    targets: tuple[str, ...] = ("labels",)
    """Streams of 0 (no) and 1 (yes), of a class or several a step."""
    names: tuple[str, ...] = ()
    """Names of the classes, in the order of the targets' numbers; none given: those of the targets."""
    weights: ClassWeights = "none"
    """What a yes of each class counts beside a no; balanced: as many times as a no is commoner in the training data."""

    vectors: ClassVar[bool] = True

    def build(self, features: int, sizes: Sequence[int] = ()) -> "MultiLabelHead":
        return MultiLabelHead(self, features, sizes)


class MultiLabelHead(Head):
    """Its estimate is the probability of yes, class by class."""

    counts: Tensor
    """How often the training data held no (first row) and yes (second row) of each class."""

    def __init__(self, spec: MultiLabel, features: int, sizes: Sequence[int] = ()):
        super().__init__()
        self.streams = spec.targets
        self.sizes = tuple(sizes or [1] * len(spec.targets))
        self.targets = spec.names or named(spec.targets, self.sizes)
        size, self.weights = sum(self.sizes), spec.weights
        if len(self.targets) != size:
            raise UserError(f"MultiLabel: {len(self.targets)} names for {size} classes; give one a class")
        if len(set(self.targets)) != size:
            raise UserError(f"MultiLabel: of the names {', '.join(self.targets)} two are the same; give each its own")
        _check_weights("MultiLabel", spec.weights, size)
        self.linear = nn.Linear(features, size)
        self.register_buffer("counts", torch.zeros(2, size))

    def names(self) -> list[str]:
        """Names of the classes."""
        return list(self.targets)

    def usual(self) -> dict[str, tuple[float, float]]:
        return dict.fromkeys(self.targets, (0.0, 1.0))

    def check(self, y: np.ndarray) -> None:
        wrong = (y != 0) & (y != 1)
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise UserError(f"{self.targets[place[-1]]} is {y[tuple(place)]:g}; MultiLabel learns 0 (no) and 1 (yes)")

    def fit(self, y: np.ndarray) -> None:
        self.check(y)
        yes = torch.as_tensor(y.sum(0, dtype=np.float64))
        self.counts.copy_(torch.stack((len(y) - yes, yes)))

    def forward(self, feature: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch class_"]:
        return self.linear(feature)

    def loss(self, raw: Float[Tensor, "*batch class_"], y: Float[Tensor, "*batch class_"]) -> Float[Tensor, "*batch"]:
        """The mean over its classes."""
        raw = wide(raw)
        weights = None if self.weights == "none" else self.yes_weights().to(raw.dtype)
        return F.binary_cross_entropy_with_logits(raw, y.to(raw.dtype), reduction="none", pos_weight=weights).mean(-1)

    def yes_weights(self) -> Float[Tensor, "class_"]:
        """What a yes of each class counts beside a no."""
        if self.weights == "none":
            return torch.ones_like(self.counts[0])
        if self.weights != "balanced":
            return torch.tensor(self.weights, device=self.counts.device)
        return torch.where(self.counts.amin(0) > 0, self.counts[0] / self.counts[1].clamp_min(1), 1.0)

    def probabilities(self, raw: Float[Tensor, "*batch class_"]) -> Float[Tensor, "*batch class_"]:
        """How likely it thinks that each class is there."""
        return wide(raw).sigmoid()

    def point(self, raw: Float[Tensor, "*batch class_"]) -> Float[Tensor, "*batch class_"]:
        """The probability of yes."""
        return self.probabilities(raw)

    def sample(
        self, raw: Float[Tensor, "*batch class_"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch class_"]:
        """A yes (1) or a no (0) of each class, drawn."""
        drawn = torch.rand(raw.shape, generator=generator, device=raw.device)
        return (drawn < self.probabilities(raw)).to(wide(raw).dtype)


@onnx_form(MultiLabelHead)
def _multi_label(graph: Graph, head: MultiLabelHead, feature: str) -> list[tuple]:
    graph.op("Sigmoid", graph.linear(feature, head.linear.weight, head.linear.bias), name="prediction")
    return [("prediction", 1, ["batch", len(head.targets)])]


def tells_labels(head: Head) -> TypeGuard[MultiLabelHead]:
    """Whether it tells of several classes at once which are there."""
    return isinstance(head, MultiLabelHead)


def tells_classes(head: Head) -> TypeGuard[ClassificationHead]:
    """Whether a head tells classes apart."""
    return isinstance(head, ClassificationHead)


def tells_symbols(head: Head) -> TypeGuard[NextSymbolHead]:
    """Whether its classes are the symbols of a text."""
    return isinstance(head, NextSymbolHead)
