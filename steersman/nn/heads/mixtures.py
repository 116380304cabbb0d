"""Mixture density: several normal distributions at once, as Bishop (1994), and a pen's strokes as Graves (2013)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, pi
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UserError
from ..forms import Graph, onnx_form
from .contract import HeadSpec, wide
from .distributions import DistributionHead, above, apart, expected_distance, log_normal
from .special import inverted, positive

MOST_CORRELATED = 0.999
"""Bound of a correlation: at 1 a density is infinite."""


@dataclass(frozen=True)
class MixtureDensity(HeadSpec):
    """All numbers of a step together, as a mixture of normal distributions (Bishop 1994)."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    components: int = 5
    """Normal distributions in the mixture."""
    covariance: Literal["diagonal", "full"] = "diagonal"
    """full: the numbers of a component may be correlated; for two numbers (Graves 2013, equations 18 to 26)."""
    end: bool = False
    """Whether the last number is 0 or 1, such as the end of a pen's stroke; it is drawn apart from the others."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"components": (1, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "MixtureDensityHead":
        return MixtureDensityHead(self, features, sizes)


class Law(NamedTuple):
    """What a step says, in standard units."""

    log_weights: Tensor
    """(... component)"""
    means: Tensor
    """(... component number)"""
    scales: Tensor
    correlation: Tensor | None
    """(... component)"""
    end: Tensor
    """Log-odds that the last number is 1 (... 1); without such a number (... 0)."""


class MixtureDensityHead(DistributionHead):
    """Outputs are log-weights, means, what becomes deviations, then correlations, then the log-odds of an end."""

    def __init__(self, spec: MixtureDensity, features: int, sizes: Sequence[int] = ()):
        super().__init__("MixtureDensity", features, 1, spec.targets, sizes)
        self.components, self.full, self.end = spec.components, spec.covariance == "full", spec.end
        self.plain = len(self.targets) - self.end
        """Numbers that the mixture is of."""
        if self.plain < 1:
            raise UserError("MixtureDensity: there is no number beside the end; add a target, or take --end away")
        if self.full and self.plain != 2:
            raise UserError(f"MixtureDensity: a full covariance is for two numbers, not {self.plain}; use diagonal")
        count = self.components
        self.parts = (count, count * self.plain, count * self.plain, count * self.full, int(self.end))
        self.linear = nn.Linear(features, sum(self.parts))
        with torch.no_grad():  # Components that begin alike would learn alike.
            nn.init.normal_(self.linear.bias[count : count * (1 + self.plain)])

    def check(self, y: np.ndarray) -> None:
        if self.end and not np.isin(last := y[..., -1], (0, 1)).all():
            wrong = last[~np.isin(last, (0, 1))][0]
            raise UserError(f"{self.targets[-1]} is {wrong:g}, but MixtureDensity learns it as an end: 0 or 1")

    def fit(self, y: np.ndarray) -> None:
        self.check(y)
        super().fit(y)

    def usual(self) -> dict[str, tuple[float, float]]:
        return super().usual() | ({self.targets[-1]: (0.0, 1.0)} if self.end else {})

    def standard(self, y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch target"]:
        """Targets with mean 0 and deviation 1, but for an end, which stays as it is."""
        return (y - self._middle()) / self._unit()

    def _unit(self) -> Tensor:
        return torch.cat((self.deviation[: self.plain], torch.ones_like(self.deviation[self.plain :])))

    def _middle(self) -> Tensor:
        return torch.cat((self.mean[: self.plain], torch.zeros_like(self.mean[self.plain :])))

    def _own(self, standard: Tensor) -> Tensor:
        return standard * self._unit() + self._middle()

    def _law(self, raw: Tensor) -> Law:
        """Graves (2013), equations 18 to 22, with a softplus in the place of his exponential."""
        weights, means, scales, correlation, end = wide(raw).split(self.parts, -1)
        shape = (self.components, self.plain)
        return Law(
            weights.log_softmax(-1),
            means.unflatten(-1, shape),
            positive(scales.unflatten(-1, shape)),
            MOST_CORRELATED * correlation.tanh() if self.full else None,
            end,
        )

    def _each(self, law: Law, z: Tensor) -> Tensor:
        """Log-density of each number in each component (... component number)."""
        return log_normal(apart(z[..., None, : self.plain], law.means, law.scales)) - law.scales.log()

    def _log_end(self, law: Law, z: Tensor) -> Tensor:
        """Log-probability of the end, or of none (... 1)."""
        return -F.binary_cross_entropy_with_logits(law.end, z[..., self.plain :], reduction="none")

    def log_likelihood(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch"]:
        """Logarithm of the density of all numbers together, in the targets' units."""
        return -self.loss(raw, y) - self._unit().log().sum()

    def loss(self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        """The negative log-likelihood of all numbers together, standardised (Graves 2013, equations 23 to 26)."""
        law, z = self._law(raw), self.standard(y)
        if law.correlation is None:
            joint = self._each(law, z).sum(-1)
        else:
            a, b = apart(z[..., None, :2], law.means, law.scales).unbind(-1)
            left = 1 - law.correlation**2
            # Graves's Z as a sum of squares, which can't cancel to less than 0.
            square = (a - law.correlation * b) ** 2 / left + b * b
            joint = -0.5 * square - log(2 * pi) - law.scales.log().sum(-1) - 0.5 * left.log()
        return -torch.logsumexp(law.log_weights + joint, -1) - self._log_end(law, z).sum(-1)

    def point(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target"]:
        """The mean of the mixture; of an end its probability."""
        law = self._law(raw)
        mean = (law.log_weights.exp().unsqueeze(-1) * law.means).sum(-2)
        return self._own(torch.cat((mean, law.end.sigmoid()), -1))

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`weights` (... component), `means` and `scales` (... component number), `correlation` (... component)."""
        law, plain = self._law(raw), slice(self.plain)
        found = {
            "weights": law.log_weights.exp(),
            "means": law.means * self.deviation[plain] + self.mean[plain],
            "scales": law.scales * self.deviation[plain],
        }
        return found | ({} if law.correlation is None else {"correlation": law.correlation})

    def sample(
        self, raw: Float[Tensor, "*batch output"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*batch target"]:
        """A draw of all numbers together: a component, then its numbers, then the end."""
        law = self._law(raw)

        def drawn(shape: Sequence[int]) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=law.means.dtype, device=raw.device)

        chances = law.log_weights.exp().flatten(0, -2) if raw.ndim > 1 else law.log_weights.exp()[None]
        at = torch.multinomial(chances, 1, generator=generator).view(*raw.shape[:-1], 1)
        index = at.unsqueeze(-1).expand(*at.shape, self.plain)
        mean, scale = (t.gather(-2, index).squeeze(-2) for t in (law.means, law.scales))
        noise = drawn(mean.shape)
        if law.correlation is not None:
            c = law.correlation.gather(-1, at)
            noise = torch.cat((noise[..., :1], c * noise[..., :1] + (1 - c * c).sqrt() * noise[..., 1:]), -1)
        chance = torch.rand(law.end.shape, generator=generator, device=raw.device)
        end = (chance < law.end.sigmoid()).to(mean.dtype)
        return self._own(torch.cat((mean + scale * noise, end), -1))

    def below(
        self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]
    ) -> Float[Tensor, "*batch target"]:
        law, z = self._law(raw), self.standard(y)
        return torch.cat((self._cdf(raw, z)[..., : self.plain], _step(law, z[..., self.plain :], 0)), -1)

    def _log_density(self, raw: Tensor, z: Tensor) -> Tensor:
        law = self._law(raw)
        plain = torch.logsumexp(law.log_weights.unsqueeze(-1) + self._each(law, z), -2)
        return torch.cat((plain, self._log_end(law, z)), -1)

    def _cdf(self, raw: Tensor, z: Tensor) -> Tensor:
        law = self._law(raw)
        return torch.cat((_below(law, z[..., : self.plain]), _step(law, z[..., self.plain :], 1)), -1)

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        law = self._law(raw)
        inner, chance = level[..., : self.plain], law.end.sigmoid()
        # That of a mixture lies between those of its components.
        each = law.means + law.scales * torch.special.ndtri(inner).unsqueeze(-2)

        def density(z: Tensor) -> Tensor:
            return torch.logsumexp(law.log_weights.unsqueeze(-1) + self._each(law, z), -2).exp()

        found = inverted(lambda z: _below(law, z), density, inner, each.amin(-2), each.amax(-2))
        return torch.cat((found, (level[..., self.plain :] > 1 - chance).to(found.dtype)), -1)

    def _crps(self, raw: Tensor, z: Tensor) -> Tensor:
        """Grimit et al. (2006), equation 3; of an end, Brier's score."""
        law = self._law(raw)
        weights, means, scales = law.log_weights.exp().unsqueeze(-1), law.means, law.scales
        far = (weights * scales * expected_distance((z[..., None, : self.plain] - means) / scales)).sum(-2)
        both = (scales.unsqueeze(-2) ** 2 + scales.unsqueeze(-3) ** 2).sqrt()
        distance = both * expected_distance((means.unsqueeze(-2) - means.unsqueeze(-3)) / both)
        own = (weights.unsqueeze(-2) * weights.unsqueeze(-3) * distance).sum((-3, -2))
        return torch.cat((far - own / 2, (z[..., self.plain :] - law.end.sigmoid()) ** 2), -1)


def _below(law: Law, z: Tensor) -> Tensor:
    """Distribution function of the mixture's numbers, each by itself."""
    each = torch.special.ndtr((z.unsqueeze(-2) - law.means) / law.scales)
    return (law.log_weights.exp().unsqueeze(-1) * each).sum(-2)


def _step(law: Law, z: Tensor, reached: int) -> Tensor:
    """Probability of an end of at most z (`reached` 1), or of less (0)."""
    over = (z >= 0, z >= 1) if reached else (z > 0, z > 1)
    return torch.where(over[1], 1.0, torch.where(over[0], (-law.end).sigmoid(), 0.0))


@onnx_form(MixtureDensityHead)
def _graph(graph: Graph, head: MixtureDensityHead, feature: str) -> list[tuple]:
    count, plain, size = head.components, head.plain, len(head.targets)
    sizes = np.array([n for n in head.parts if n])
    outputs = graph.linear(feature, head.linear.weight, head.linear.bias)
    weights, means, scales, *rest = graph.op("Split", outputs, sizes, outputs=len(sizes), axis=1)
    shape, mean, deviation = np.array([0, count, plain]), head.mean[:plain], head.deviation[:plain]
    weights = graph.op("Softmax", weights, axis=1, name="weights")
    means = graph.op("Add", graph.op("Mul", graph.op("Reshape", means, shape), deviation), mean, name="means")
    above(graph, graph.op("Reshape", scales, shape), deviation, "scales")
    weighted = graph.op("Mul", graph.op("Unsqueeze", weights, np.array([2])), means)
    found = [graph.op("ReduceSum", weighted, np.array([1]), keepdims=0)]
    infos = [("weights", 1, ["batch", count]), *((n, 1, ["batch", count, plain]) for n in ("means", "scales"))]
    if head.full:
        graph.op("Mul", graph.op("Tanh", rest[0]), np.float32(MOST_CORRELATED), name="correlation")
        infos.append(("correlation", 1, ["batch", count]))
    if head.end:
        found.append(graph.op("Sigmoid", rest[-1]))
    graph.op("Concat", *found, axis=1, name="prediction")
    return [("prediction", 1, ["batch", size]), *infos]
