"""Heads that say how sure they are: what all distributions offer, and the normal and Student's t."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf, log, pi, sqrt
from typing import Any, ClassVar, TypeGuard

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import UserError
from ..forms import Graph, onnx_form
from .contract import Head, HeadSpec, wide
from .numbers import NumbersHead
from .special import inverted, log_beta, positive, student_cdf

NODES = 64
"""Levels at which a score without a closed form is integrated."""
FAR = 1e12
"""Scales beyond which no number is told from another."""
FEW = 10.0
"""Steps, none of which overlaps another, that move such a factor half of the way."""
MOST_STRETCH = 20.0
"""Factor by which a distribution is made wider, or narrower, at most."""


class DistributionHead(NumbersHead):
    """A distribution of each number, in the units of its target.

    A subclass says `_law` and, of standardised targets, `_log_density`, `_cdf` and `_quantile`; the rest follows.
    """

    below_zero = True

    def log_prob(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Logarithm of the density (of counts, of the probability) of each number by itself."""
        return self._log_density(raw, self.standard(y)) - self._unit().log()

    def log_likelihood(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch"]:
        """The same of all numbers together."""
        return self.log_prob(raw, y).sum(-1)

    def loss(self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        """The negative log-likelihood of standardised targets, by weight."""
        return -(self._log_density(raw, self.standard(y)) * self.weights).sum(-1)

    def cdf(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Probability that each number is at most y: of the truth, its probability integral transform (Dawid 1984)."""
        return self._cdf(raw, self.standard(y))

    def below(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Probability that each number is less than y; that of `cdf` where no single value has a probability."""
        return self.cdf(raw, y)

    def quantiles(
        self, raw: Float[Tensor, "*batch output"], levels: Sequence[float]
    ) -> Float[Tensor, "*batch target level"]:
        """The number that each level of probability lies below. UserError for a level that is not between 0 and 1."""
        check_levels("quantiles", levels)
        return self._own(self._at_levels(raw, torch.tensor(levels, dtype=torch.float64))).movedim(0, -1)

    def _at_levels(self, raw: Tensor, levels: Tensor) -> Tensor:
        """Standardised quantiles, levels first."""
        many = wide(raw).expand(len(levels), *raw.shape)
        near = self._spread(many)
        return self._quantile(many, levels.to(near).view(-1, *[1] * raw.ndim).expand(near.shape))

    def crps(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        """Continuous ranked probability score, in the targets' units (Gneiting & Raftery 2007); lower is better."""
        return self._crps(raw, self.standard(y)) * self._unit()

    def sample(
        self, raw: Float[Tensor, "*batch output"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch target"]:
        """A draw of each number, by the inverse of its distribution function."""
        near = self._spread(raw)
        level = torch.rand(near.shape, generator=generator, dtype=torch.float64, device=raw.device)
        level = level.to(near.dtype).clamp(1e-7, 1 - 1e-7)
        return self._own(self._quantile(raw, level))

    def _unit(self) -> Tensor:
        """What one standardised unit is in the target's own."""
        return self.deviation

    def _own(self, standard: Tensor) -> Tensor:
        """Standardised numbers in the target's units."""
        return standard * self.deviation + self.mean

    def _parts(self, raw: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Outputs by what they stand for, each (*batch target)."""
        return wide(raw).unflatten(-1, (parts, len(self.targets))).unbind(-2)

    def _spread(self, raw: Tensor) -> Tensor:
        """Anything of the shape of a point estimate."""
        return wide(raw)[..., : len(self.targets)]

    def _log_density(self, raw: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no likelihood")

    def _cdf(self, raw: Tensor, z: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no distribution function")

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no quantiles")

    def _crps(self, raw: Tensor, z: Tensor) -> Tensor:
        """Twice the pinball loss over all levels (Laio & Tamea 2007), by Gauss and Legendre."""
        levels, weights = (part.view(-1, *[1] * z.ndim).to(z) for part in _nodes())
        errors = z - self._at_levels(raw, levels.flatten())
        return (2 * weights * pinball(errors, levels)).sum(0)


class StretchedHead(DistributionHead):
    """A distribution that is wider or narrower by a factor for each number, about its estimate.

    The factor is 1 while it learns; `calibrate` takes it from data that it did not learn from.
    """

    stretch: Tensor
    """Factor of each number."""

    def __init__(
        self,
        kind: str,
        features: int,
        outputs: int,
        targets: tuple[str, ...],
        sizes: Sequence[int] = (),
        weights: Sequence[float] = (),
    ):
        super().__init__(kind, features, outputs, targets, sizes, weights)
        self.register_buffer("stretch", torch.ones(len(self.targets)))
        self.register_load_state_dict_pre_hook(_unstretched)

    def reach(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"], ends: tuple[float, float]
    ) -> Float[Tensor, "*batch target"]:
        """How far each number lies from its estimate, 1 at the end of the band between two levels on its side."""
        bounds, middle = self.quantiles(raw, ends), self.point(raw)
        high = y >= middle
        wide = torch.where(high, bounds[..., 1] - middle, middle - bounds[..., 0])
        return (y - middle).abs() / wide.clamp_min(1e-30)

    @torch.no_grad()
    def begin_linear(self, weight: Float[np.ndarray, "feature target"], offset: Float[np.ndarray, "target"]) -> None:
        """Makes its standardised estimate a linear function of its last features, and the others of no effect on it."""
        size = len(offset)
        self.linear.weight[:size] = 0
        self.linear.weight[:size, -len(weight) :] = torch.as_tensor(weight.T).to(self.linear.weight)
        self.linear.bias[:size] = torch.as_tensor(offset).to(self.linear.bias)

    def calibrate(self, reach: Float[Tensor, "step target"], share: float, overlap: int = 1) -> None:
        """Stretches it so that a band holds its share of what came, given by `reach` with the factors at 1.

        Conformalised quantile regression (Romano et al. 2019) with scores in units of the band (CQR-m of Kivaranovic et
        al. 2020), number by number: of many steps that are like those to come a band holds its share. Steps of which
        `overlap` in a row tell of the same moments count as so many fewer, and the factors of few go less far from 1.
        Left as it is where there are too few for any band.
        """
        rank = ceil((len(reach) + 1) * share)
        if rank <= len(reach):
            apart = len(reach) / overlap
            found = reach.sort(0).values[rank - 1].clamp(1 / MOST_STRETCH, MOST_STRETCH)
            self.stretch.copy_(found ** (apart / (apart + FEW)))


def _unstretched(head: Any, weights: dict[str, Tensor], prefix: str, *rest: Any) -> None:
    """Weights that were written before there was such a factor have none."""
    weights.setdefault(f"{prefix}stretch", torch.ones_like(head.stretch))


def calibrates(head: Head) -> TypeGuard[StretchedHead]:
    """Whether what it says can be made wider or narrower once it has learned."""
    return isinstance(head, StretchedHead)


def pinball(error: Tensor, level: float | Tensor) -> Tensor:
    """Loss of a quantile that falls short by `error` (Koenker & Bassett 1978)."""
    return torch.maximum(level * error, (level - 1) * error)


@cache
def _nodes() -> tuple[Tensor, Tensor]:
    """Levels between 0 and 1, and their weights."""
    x, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy((x + 1) / 2), torch.from_numpy(weights / 2)


def check_levels(kind: str, levels: Sequence[float]) -> None:
    """UserError for a level that is not between 0 and 1."""
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong or not levels:
        raise UserError(f"{kind}: levels lie between 0 and 1, {wrong[0] if wrong else 'and none was given'}")


def apart(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """How many scales z is from the mean; no more than whose square float32 can hold."""
    return ((z - mean) / scale).clamp(-FAR, FAR)


def log_normal(z: Tensor) -> Tensor:
    """Logarithm of the standard normal density."""
    return -0.5 * (z * z) - 0.5 * log(2 * pi)


def tells_distribution(head: Head) -> TypeGuard[DistributionHead]:
    """Whether it says how sure it is of the numbers that it estimates."""
    return isinstance(head, DistributionHead)


@dataclass(frozen=True)
class Gaussian(HeadSpec):
    """Numbers, each with a normal distribution about it (Nix & Weigend 1994)."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    weights: tuple[float, ...] = ()
    """Weight of each target in the loss, all of its numbers together; none given: 1 each."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"weights": (0, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "GaussianHead":
        return GaussianHead("Gaussian", features, 2, self.targets, sizes, self.weights)


class GaussianHead(StretchedHead):
    """Outputs are means, then what becomes the deviations."""

    def _law(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = self._parts(raw, 2)
        return mean, positive(scale) * self.stretch

    def point(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target"]:
        """The mean."""
        return self._own(self._law(raw)[0])

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`scale`: the deviation of each number."""
        return {"scale": self._law(raw)[1] * self.deviation}

    def _log_density(self, raw: Tensor, z: Tensor) -> Tensor:
        mean, scale = self._law(raw)
        return log_normal(apart(z, mean, scale)) - scale.log()

    def _cdf(self, raw: Tensor, z: Tensor) -> Tensor:
        mean, scale = self._law(raw)
        return torch.special.ndtr((z - mean) / scale)

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        mean, scale = self._law(raw)
        return mean + scale * torch.special.ndtri(level)

    def _crps(self, raw: Tensor, z: Tensor) -> Tensor:
        """Gneiting & Raftery (2007), equation 21."""
        mean, scale = self._law(raw)
        return scale * expected_distance((z - mean) / scale) - scale / sqrt(pi)


def expected_distance(z: Tensor) -> Tensor:
    """Mean distance of a standard normal number from z."""
    return z * (2 * torch.special.ndtr(z) - 1) + 2 * log_normal(z).exp()


@dataclass(frozen=True)
class StudentT(HeadSpec):
    """Numbers, each with a Student's t distribution about it: one that outliers do not widen (Lange et al. 1989)."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    weights: tuple[float, ...] = ()
    """Weight of each target in the loss, all of its numbers together; none given: 1 each."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"weights": (0, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "StudentTHead":
        return StudentTHead("StudentT", features, 3, self.targets, sizes, self.weights)


class StudentTHead(StretchedHead):
    """Outputs are means, then what becomes scales, then degrees of freedom, more than 2: its variance is finite."""

    def _law(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, scale, freedom = self._parts(raw, 3)
        return mean, positive(scale) * self.stretch, 2 + positive(freedom, 8.0)

    def point(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target"]:
        """The mean."""
        return self._own(self._law(raw)[0])

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`scale` of each number, and its degrees of `freedom`."""
        _, scale, freedom = self._law(raw)
        return {"scale": scale * self.deviation, "freedom": freedom}

    def _log_density(self, raw: Tensor, z: Tensor) -> Tensor:
        mean, scale, freedom = self._law(raw)
        z = apart(z, mean, scale)
        # Two large numbers nearly cancel in here, which float32 could not tell apart.
        height = -log_beta(torch.full_like(freedom, 0.5).double(), freedom.double() / 2).to(z.dtype)
        return height - 0.5 * freedom.log() - scale.log() - (freedom + 1) / 2 * torch.log1p(z * (z / freedom))

    def _cdf(self, raw: Tensor, z: Tensor) -> Tensor:
        mean, scale, freedom = self._law(raw)
        return student_cdf((z - mean) / scale, freedom)

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        mean, scale, freedom = self._law(raw)
        upper = torch.maximum(level, 1 - level)
        # Between that of the normal distribution and that of two degrees of freedom (Hill 1970).
        least, most = torch.special.ndtri(upper), (2 * upper - 1) / (2 * upper * (1 - upper)).sqrt()

        def density(t: Tensor) -> Tensor:
            log_height = -log_beta(torch.full_like(freedom, 0.5), freedom / 2) - 0.5 * freedom.log()
            return (log_height - (freedom + 1) / 2 * torch.log1p(t * t / freedom)).exp()

        found = inverted(lambda t: student_cdf(t, freedom), density, upper, least, most)
        return mean + scale * torch.where(level < 0.5, -found, found)

    def _crps(self, raw: Tensor, z: Tensor) -> Tensor:
        """Jordan, Krueger & Lerch (2019), appendix A."""
        mean, scale, freedom = self._law(raw)
        z, half = (z - mean) / scale, torch.full_like(freedom, 0.5)
        height = (-log_beta(half, freedom / 2) - 0.5 * freedom.log()).exp()
        density = height * (-(freedom + 1) / 2 * torch.log1p(z * (z / freedom))).exp()
        own = (log_beta(half, freedom - 0.5) - 2 * log_beta(half, freedom / 2)).exp()
        near = z * (2 * student_cdf(z, freedom) - 1) + 2 * density * (freedom + z * z) / (freedom - 1)
        return scale * (near - 2 * freedom.sqrt() / (freedom - 1) * own)


def part(head: NumbersHead, graph: Graph, feature: str, number: int) -> str:
    """The outputs that stand for one thing, in a graph: (batch target)."""
    rows = slice(number * len(head.targets), (number + 1) * len(head.targets))
    return graph.linear(feature, head.linear.weight[rows], head.linear.bias[rows])


def own(head: NumbersHead, graph: Graph, standard: str) -> None:
    """The prediction of a graph, from standardised numbers."""
    graph.op("Add", graph.op("Mul", standard, head.deviation), head.mean, name="prediction")


def above(graph: Graph, x: str, times: Tensor, name: str = "", floor: float = 1e-3) -> str:
    """`positive` in a graph, times something."""
    soft = graph.op("Softplus", graph.op("Add", x, np.float32(np.log(np.expm1(1 - floor)))))
    return graph.op("Mul", graph.op("Add", soft, np.float32(floor)), times, name=name)


@onnx_form(GaussianHead, StudentTHead)
def _graph(graph: Graph, head: StretchedHead, feature: str) -> list[tuple]:
    size = ["batch", len(head.targets)]
    own(head, graph, part(head, graph, feature, 0))
    above(graph, part(head, graph, feature, 1), head.deviation * head.stretch, "scale")
    if isinstance(head, GaussianHead):
        return [("prediction", 1, size), ("scale", 1, size)]
    freedom = above(graph, part(head, graph, feature, 2), torch.tensor(8.0))
    graph.op("Add", freedom, np.float32(2), name="freedom")
    return [("prediction", 1, size), ("scale", 1, size), ("freedom", 1, size)]
