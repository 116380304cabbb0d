"""What turns a feature into a prediction, with its own loss and point estimate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, TypeGuard

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..data.lazy import PART
from ..data.symbols import Symbols
from ..errors import UserError
from .decoding import PLAIN, Sampling


class Head(nn.Module):
    """What every head offers; `forward` gives raw outputs that only the head itself interprets."""

    targets: tuple[str, ...]
    """Names of the numbers it says, in the order of `point`."""
    streams: tuple[str, ...]
    """Names of the streams it learns."""
    sizes: tuple[int, ...] = ()
    """Numbers a step of each stream; none: 1 each, which is then its target."""
    classes: int = 0
    """How many classes it tells apart; 0: it says numbers."""

    @property
    def symbols(self) -> Symbols | None:
        """What its classes are, where they are the symbols of a text."""
        return None

    def fit(self, y: np.ndarray) -> None:
        """Takes the normaliser from training targets (steps first)."""

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        """The loss of each step."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def point(self, raw: Tensor) -> Tensor:
        """The estimate in the units of the targets."""
        raise NotImplementedError(f"{type(self).__name__} has no point estimate")

    def standard(self, y: Tensor) -> Tensor:
        """Targets as `forward` gives them."""
        raise NotImplementedError(f"{type(self).__name__} has no standard targets")

    def usual(self) -> dict[str, tuple[float, float]]:
        """Bounds between which each target that is a quantity usually lies."""
        return {}

    def said(self, prediction: Mapping[str, float]) -> dict[str, float | str]:
        """A point estimate for people: classes and symbols by their names."""
        return dict(prediction)

    def sample(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from what it says, in the units of the targets; of one that says no distribution, its estimate."""
        return self.point(raw)


class HeadSpec(Spec):
    """Spec of a head."""

    targets: tuple[str, ...]
    """Names of the streams it learns."""
    vectors: ClassVar[bool] = False
    """Whether a step of a target may be several numbers."""

    def build(self, features: int, sizes: Sequence[int] = ()) -> Head:
        """The head on so many features; with vectors, for targets of so many numbers each (none given: 1 each)."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


@dataclass(frozen=True)
class Regression(HeadSpec):
    """Numbers, by the Huber loss on standardised targets (Huber 1964)."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    weights: tuple[float, ...] = ()
    """Weight of each target in the loss, all of its numbers together; none given: 1 each."""
    delta: float = 0.3
    """Error at which the loss turns from squared to absolute, in standard deviations of the target."""
    rate: float = 0.0
    """Weight of the error of the change since the step before, beside that of the value."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"weights": (0, inf), "delta": (1e-6, inf), "rate": (0, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "RegressionHead":
        if self.weights and len(self.weights) != len(self.targets):
            raise UserError(
                f"Regression: {len(self.weights)} weights for {len(self.targets)} targets; give one a target"
            )
        return RegressionHead(self, features, sizes)


class RegressionHead(Head):
    """Estimates without a distribution: a sample is the estimate."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor

    def __init__(self, spec: Regression, features: int, sizes: Sequence[int] = ()):
        super().__init__()
        self.streams, self.delta, self.rate = spec.targets, spec.delta, spec.rate
        self.sizes = tuple(sizes or [1] * len(spec.targets))
        self.targets = tuple(name for each in map(numbers, spec.targets, self.sizes) for name in each)
        size = len(self.targets)
        self.linear = nn.Linear(features, size)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        counts = spec.weights or [1.0] * len(self.sizes)
        weights = torch.tensor([c / n for c, n in zip(counts, self.sizes, strict=True) for _ in range(n)])
        self.register_buffer("weights", weights / weights.sum(), persistent=False)

    def fit(self, y: np.ndarray) -> None:
        self.mean.copy_(torch.as_tensor(y.mean(0, dtype=np.float64)))
        self.deviation.copy_(torch.as_tensor(y.std(0, dtype=np.float64)).clamp_min(1e-6))

    def forward(self, feature: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch target"]:
        return self.linear(feature)

    def loss(self, raw: Float[Tensor, "*batch target"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        error = raw.float() - self.standard(y)
        cost = self._huber(error)
        if self.rate and error.ndim == 3:  # Without an axis of time there is no change.
            cost = cost + self.rate * F.pad(self._huber(error.diff(dim=1)), (0, 0, 1, 0))
        return (cost * (self.weights / self.delta)).sum(-1)

    def standard(self, y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """Targets as `forward` gives them: with mean 0 and deviation 1."""
        return (y - self.mean) / self.deviation

    def usual(self) -> dict[str, tuple[float, float]]:
        """Three deviations either way about the mean."""
        ends = zip((self.mean - 3 * self.deviation).tolist(), (self.mean + 3 * self.deviation).tolist(), strict=True)
        return dict(zip(self.targets, ends, strict=True))

    def _huber(self, error: Tensor) -> Tensor:
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)

    def point(self, raw: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """The estimate in the units of the targets."""
        return raw.float() * self.deviation + self.mean


def numbers(target: str, size: int) -> list[str]:
    """Names of a target's numbers."""
    return [target] if size == 1 else [f"{target}[{i}]" for i in range(size)]


@dataclass(frozen=True)
class Classification(HeadSpec):
    """One of several classes, by cross-entropy."""

    targets: tuple[str] = ("label",)
    """Stream that holds the number of the class."""
    classes: int = 10
    smoothing: float = 0.0
    """Share of the probability spread over all classes in the training target (Szegedy et al. 2016)."""

    BOUNDS = {"classes": (1, inf), "smoothing": (0, 1)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "ClassificationHead":
        return ClassificationHead(self, features)


class ClassificationHead(Head):
    counts: Tensor
    """How often the training data held each class: the baseline that needs no model."""

    def __init__(self, spec: Classification, features: int):
        super().__init__()
        self.targets = self.streams = spec.targets
        self.classes, self.smoothing = spec.classes, spec.smoothing
        self.linear = nn.Linear(features, spec.classes)
        self.register_buffer("counts", torch.zeros(spec.classes))

    def labels(self, y: np.ndarray) -> np.ndarray:
        """The class of each value of a target."""
        return y.astype(np.int64)

    def names(self) -> list[str] | None:
        """Names of the classes, for people; None: their numbers."""
        return None

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
        return self.linear(feature)

    def loss(self, raw: Float[Tensor, "*batch class_"], y: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch"]:
        flat = F.cross_entropy(
            raw.float().flatten(0, -2), y.long().flatten(), reduction="none", label_smoothing=self.smoothing
        )
        return flat.view(raw.shape[:-1])

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
        super().__init__(Classification(spec.targets, len(self.symbols), spec.smoothing), features)
        self.dropout = nn.Dropout(spec.dropout)
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

    def forward(self, feature: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch class_"]:
        return super().forward(self.dropout(feature))

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


def tells_classes(head: Head) -> TypeGuard[ClassificationHead]:
    """Whether a head tells classes apart."""
    return isinstance(head, ClassificationHead)


def tells_symbols(head: Head) -> TypeGuard[NextSymbolHead]:
    """Whether its classes are the symbols of a text."""
    return isinstance(head, NextSymbolHead)


def tells_numbers(head: Head) -> TypeGuard[RegressionHead]:
    """Whether it estimates numbers."""
    return isinstance(head, RegressionHead)
