"""Counts: whole numbers from 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import UserError
from ..forms import Graph, onnx_form
from .contract import HeadSpec, wide
from .distributions import DistributionHead, above, part
from .special import hypergeometric_half_two, incomplete_beta, negative_binomial_cdf, positive

FLOOR = 1e-6
"""Least mean, and least dispersion, as a share of the training data's."""


@dataclass(frozen=True)
class Counts(HeadSpec):
    """Whole numbers from 0, by the negative binomial likelihood (Hilbe 2011; Salinas et al. 2020)."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    weights: tuple[float, ...] = ()
    """Weight of each target in the loss, all of its numbers together; none given: 1 each."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"weights": (0, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "CountsHead":
        return CountsHead("Counts", features, 2, self.targets, sizes, self.weights)


class CountsHead(DistributionHead):
    """Outputs are what becomes the means, then the dispersions: the variance is mean + dispersion * mean^2.

    Of outputs of 0 both are those of the training data.
    """

    below_zero = False
    dispersion: Tensor

    def __init__(self, kind: str, features: int, outputs: int, targets: tuple[str, ...], sizes=(), weights=()):
        super().__init__(kind, features, outputs, targets, sizes, weights)
        self.register_buffer("dispersion", torch.ones(len(self.targets)))

    def check(self, y: np.ndarray) -> None:
        wrong = (y < 0) | (y != np.round(y))
        if wrong.any():
            place = np.argwhere(wrong)[0]
            raise UserError(
                f"{self.targets[place[-1]]} is {y[tuple(place)]:g}; Counts learns whole numbers from 0: use Gaussian, "
                "Quantiles or Regression for others"
            )

    def fit(self, y: np.ndarray) -> None:
        self.check(y)
        super().fit(y)
        mean = self.mean.double().clamp_min(1e-3)
        # By its moments; a variance of less than the mean would be a dispersion below 0.
        spread = (self.deviation.double() ** 2 - mean) / mean**2
        self.mean.clamp_min_(1e-3)
        self.dispersion.copy_(spread.clamp(1e-2, 1e2))

    def _law(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and size, which is 1 / dispersion, in float64: large numbers nearly cancel in what is made of them."""
        mean, dispersion = (part.double() for part in self._parts(raw, 2))
        return positive(mean, self.mean.double(), FLOOR), 1 / positive(dispersion, self.dispersion.double(), FLOOR)

    def usual(self) -> dict[str, tuple[float, float]]:
        return {name: (max(0.0, low), high) for name, (low, high) in super().usual().items()}

    def log_prob(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Logarithm of the probability of each count by itself."""
        mean, size = self._law(raw)
        y = y.double()
        ways = torch.lgamma(y + size) - torch.lgamma(size) - torch.lgamma(y + 1)
        found = ways - size * torch.log1p(mean / size) + y * (mean.log() - (size + mean).log())
        return found.to(wide(raw).dtype)

    def loss(self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        """The negative log-likelihood, by weight."""
        return -(self.log_prob(raw, y) * self.weights).sum(-1)

    def point(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target"]:
        """The mean."""
        return self._law(raw)[0].to(wide(raw).dtype)

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`dispersion` of each count."""
        return {"dispersion": (1 / self._law(raw)[1]).to(wide(raw).dtype)}

    def cdf(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Probability that each count is at most y."""
        mean, size = self._law(raw)
        return negative_binomial_cdf(y.double(), size, mean).to(wide(raw).dtype)

    def below(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Probability that each count is less than y."""
        return self.cdf(raw, y.ceil() - 1)

    def crps(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Wei & Held (2014), appendix."""
        mean, size = self._law(raw)
        y, chance = y.double(), size / (size + mean)
        least = y * (2 * negative_binomial_cdf(y, size, mean) - 1)
        odds = mean / (size * chance)  # (1 - p) / p^2
        more = incomplete_beta(size + 1, y.clamp_min(1), chance)
        more = torch.where(y > 0, more, 0.0)  # At most y - 1 of a distribution of one size more.
        own = hypergeometric_half_two(size + 1, 4 * odds)
        return (least - size * odds * (chance * (2 * more - 1) + own)).to(wide(raw).dtype)

    def _own(self, standard: Tensor) -> Tensor:
        return standard

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        """The least count that is reached with that probability, by halving."""
        mean, size = self._law(raw)
        level = level.double()
        low = torch.full_like(mean, -1)
        high = (mean + 1).ceil()
        while bool((short := negative_binomial_cdf(high, size, mean) < level).any()):
            low, high = torch.where(short, high, low), torch.where(short, 2 * high, high)
        while bool((high - low > 1).any()):
            middle = ((low + high) / 2).floor()
            reached = negative_binomial_cdf(middle, size, mean) >= level
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return high.to(wide(raw).dtype)


@onnx_form(CountsHead)
def _graph(graph: Graph, head: CountsHead, feature: str) -> list[tuple]:
    above(graph, part(head, graph, feature, 0), head.mean, "prediction", FLOOR)
    above(graph, part(head, graph, feature, 1), head.dispersion, "dispersion", FLOOR)
    size = ["batch", len(head.targets)]
    return [("prediction", 1, size), ("dispersion", 1, size)]
