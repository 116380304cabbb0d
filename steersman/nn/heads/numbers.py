"""Heads of numbers: what they have in common, and the one that says no more than an estimate."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from .. import kernels
from ..forms import native_form, row_form
from .contract import Head, HeadSpec, RowRead, named, product


class NumbersHead(Head):
    """Numbers, standardised by the mean and deviation of the training targets."""

    mean: Tensor
    deviation: Tensor
    weights: Tensor
    """What each number counts in the loss; 1 all together."""

    def __init__(
        self,
        kind: str,
        features: int,
        outputs: int,
        targets: tuple[str, ...],
        sizes: Sequence[int] = (),
        weights: Sequence[float] = (),
    ):
        """A head of so many outputs for each number; `kind` is its spec's name, for what is refused."""
        super().__init__()
        if weights and len(weights) != len(targets):
            raise UserError(f"{kind}: {len(weights)} weights for {len(targets)} targets; give one a target")
        self.streams = targets
        self.sizes = tuple(sizes or [1] * len(targets))
        self.targets = named(targets, self.sizes)
        size = len(self.targets)
        self.linear = nn.Linear(features, size * outputs)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        counts = weights or [1.0] * len(self.sizes)
        each = torch.tensor([c / n for c, n in zip(counts, self.sizes, strict=True) for _ in range(n)])
        self.register_buffer("weights", each / each.sum(), persistent=False)

    def fit(self, y: np.ndarray) -> None:
        self.mean.copy_(torch.as_tensor(y.mean(0, dtype=np.float64)))
        self.deviation.copy_(torch.as_tensor(y.std(0, dtype=np.float64)).clamp_min(1e-6))

    def forward(self, feature: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch output"]:
        return self.linear(feature)

    def standard(self, y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """Targets with mean 0 and deviation 1."""
        return (y - self.mean) / self.deviation

    def usual(self) -> dict[str, tuple[float, float]]:
        """Three deviations either way about the mean."""
        ends = zip((self.mean - 3 * self.deviation).tolist(), (self.mean + 3 * self.deviation).tolist(), strict=True)
        return dict(zip(self.targets, ends, strict=True))


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
        return RegressionHead(self, features, sizes)


class RegressionHead(NumbersHead):
    """Estimates without a distribution: a sample is the estimate."""

    def __init__(self, spec: Regression, features: int, sizes: Sequence[int] = ()):
        super().__init__("Regression", features, 1, spec.targets, sizes, spec.weights)
        self.delta, self.rate = spec.delta, spec.rate

    def loss(self, raw: Float[Tensor, "*batch target"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        error = raw.float() - self.standard(y)
        cost = self._huber(error)
        if self.rate and error.ndim == 3:  # Without an axis of time there is no change.
            cost = cost + self.rate * F.pad(self._huber(error.diff(dim=1)), (0, 0, 1, 0))
        return (cost * (self.weights / self.delta)).sum(-1)

    def _huber(self, error: Tensor) -> Tensor:
        return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=self.delta)

    def point(self, raw: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """The estimate in the units of the targets."""
        return raw.float() * self.deviation + self.mean


@native_form(RegressionHead)
def _number_layer(head: RegressionHead) -> object:
    weight, bias = product(head.linear)
    mean, deviation = head.mean.cpu().numpy(), head.deviation.cpu().numpy()
    return kernels.native.linear_layer(False, weight * deviation[:, None], bias * deviation + mean)


@row_form(RegressionHead)
def _number_row(head: RegressionHead, levels: Sequence[float]) -> RowRead:
    weight, bias = product(head.linear)
    mean, deviation = head.mean.cpu().numpy(), head.deviation.cpu().numpy()

    def read(feature: np.ndarray) -> np.ndarray:
        return ((weight @ feature + bias) * deviation + mean)[:, None]

    return read


def tells_numbers(head: Head) -> TypeGuard[NumbersHead]:
    """Whether it estimates numbers."""
    return isinstance(head, NumbersHead)
