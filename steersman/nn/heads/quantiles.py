"""Quantiles without a formula for what lies between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import UserError
from ..forms import Graph, onnx_form, row_form
from .contract import HeadSpec, RowRead, product, wide
from .distributions import StretchedHead, check_levels, log_normal, own, pinball
from .special import positive

FLOOR = 1e-4
"""Least distance of two quantiles, as a share of that of a standard normal number's."""


@dataclass(frozen=True)
class Quantiles(HeadSpec):
    """Numbers by their quantiles, by the pinball loss (Koenker & Bassett 1978); no two of them cross."""

    targets: tuple[str, ...] = ("y",)
    """Streams to learn, of a number or several a step; the first is the one that is scored."""
    levels: tuple[float, ...] = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
    """Probabilities that the number lies below each quantile, rising."""
    weights: tuple[float, ...] = ()
    """Weight of each target in the loss, all of its numbers together; none given: 1 each."""

    vectors: ClassVar[bool] = True
    BOUNDS = {"weights": (0, inf)}

    def build(self, features: int, sizes: Sequence[int] = ()) -> "QuantilesHead":
        check_levels("Quantiles", self.levels)
        if len(self.levels) < 2 or any(a >= b for a, b in pairwise(self.levels)):
            given = " ".join(f"{level:g}" for level in self.levels)
            raise UserError(f"Quantiles: give two levels or more, each above the one before; not {given}")
        return QuantilesHead(self, features, sizes)


class QuantilesHead(StretchedHead):
    """Outputs are the quantile nearest the median, then what becomes the distances of each from its neighbour.

    Between its quantiles, and beyond them, it takes the number to go with the normal score of its level in straight
    lines: that is a whole distribution, with normal tails, and exactly the normal one of a normal one's quantiles.
    """

    below_zero = False
    levels: Tensor
    scores: Tensor
    """Normal scores of the levels."""

    def __init__(self, spec: Quantiles, features: int, sizes: Sequence[int] = ()):
        super().__init__("Quantiles", features, len(spec.levels), spec.targets, sizes, spec.weights)
        levels = torch.tensor(spec.levels, dtype=torch.float64)
        scores = torch.special.ndtri(levels)
        self.anchor = int((levels - 0.5).abs().argmin())
        self.register_buffer("levels", levels, False)
        self.register_buffer("scores", scores, False)

    def _law(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target level"]:
        """Standardised quantiles, rising."""
        first, *rest = self._parts(raw, len(self.levels))
        scores = self.scores.to(first.dtype)
        gaps = positive(torch.stack(rest, -1), 1.0, FLOOR) * scores.diff()
        up = gaps[..., self.anchor :].cumsum(-1)
        down = gaps[..., : self.anchor].flip(-1).cumsum(-1).flip(-1)
        middle = (first + scores[self.anchor]).unsqueeze(-1)
        law = torch.cat((middle - down, middle, middle + up), -1)
        return torch.lerp(
            (law * self._median().to(law.dtype)).sum(-1, True), law, self.stretch.to(law.dtype).unsqueeze(-1)
        )

    def loss(self, raw: Float[Tensor, "*batch output"], y: Float[Tensor, "*batch target"]) -> Float[Tensor, "*batch"]:
        """The mean pinball loss over its levels, of standardised targets."""
        errors = self.standard(y).unsqueeze(-1) - self._law(raw)
        return (pinball(errors, self.levels.to(errors.dtype)).mean(-1) * self.weights).sum(-1)

    def point(self, raw: Float[Tensor, "*batch output"]) -> Float[Tensor, "*batch target"]:
        """The median."""
        return self._own((self._law(raw) * self._median().to(wide(raw).dtype)).sum(-1))

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """`quantiles` (... target level)."""
        return {"quantiles": self._law(raw) * self.deviation.unsqueeze(-1) + self.mean.unsqueeze(-1)}

    def _median(self) -> Tensor:
        """What each quantile counts in the median: one 1, or the line through two."""
        scores = self.scores
        right = int(torch.searchsorted(scores, torch.zeros_like(scores[:1])).clamp(1, len(scores) - 1))
        share = -scores[right - 1] / (scores[right] - scores[right - 1])
        counts = torch.zeros_like(scores)
        counts[right - 1], counts[right] = 1 - share, share
        return counts

    def _line(self, law: Tensor, right: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The line between the quantile `right` and that before it: its start, its score there and its slope."""
        high, low = (law.gather(-1, at.unsqueeze(-1)).squeeze(-1) for at in (right, right - 1))
        apart = scores[right] - scores[right - 1]
        # In float32 two large quantiles may be the same number.
        return low, scores[right - 1], ((high - low) / apart).clamp_min(FLOOR * 0.1)

    def _score(self, raw: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Normal score of a standardised number, and the slope of the line that it lies on."""
        law = self._law(raw)
        right = (z.unsqueeze(-1) > law).sum(-1).clamp(1, law.shape[-1] - 1)
        low, score, slope = self._line(law, right, self.scores.to(law.dtype))
        return score + (z - low) / slope, slope

    def _log_density(self, raw: Tensor, z: Tensor) -> Tensor:
        score, slope = self._score(raw, z)
        return log_normal(score) - slope.log()

    def _cdf(self, raw: Tensor, z: Tensor) -> Tensor:
        return torch.special.ndtr(self._score(raw, z)[0])

    def _quantile(self, raw: Tensor, level: Tensor) -> Tensor:
        law, scores = self._law(raw), self.scores.to(level.dtype)
        score = torch.special.ndtri(level)
        right = torch.searchsorted(scores, score.contiguous()).clamp(1, len(scores) - 1)
        low, start, slope = self._line(law, right, scores)
        return low + (score - start) * slope


def _sums(head: QuantilesHead) -> Float[np.ndarray, "gap level"]:
    """What each distance between two quantiles counts in each quantile's distance from the anchor: 1, 0 or -1."""
    count = len(head.levels)
    sums = np.zeros((count - 1, count), np.float32)
    for gap in range(count - 1):
        sums[gap, gap + 1 :] = gap >= head.anchor
        sums[gap, : gap + 1] = -float(gap < head.anchor)
    return sums


@row_form(QuantilesHead)
def _quantile_row(head: QuantilesHead, levels: Sequence[float]) -> RowRead:
    """A quantile of any level is the anchor's, and a sum of what lies between the quantiles that are learned."""
    count, size, scores = len(head.levels), len(head.targets), head.scores.numpy()
    counts = np.zeros((1 + len(levels), count))
    counts[0] = head._median().numpy()
    wanted = torch.special.ndtri(torch.tensor(levels, dtype=torch.float64)).tolist()
    for row, score in zip(counts[1:], wanted, strict=True):
        right = int(np.clip(np.searchsorted(scores, score), 1, count - 1))
        share = (score - scores[right - 1]) / (scores[right] - scores[right - 1])
        row[right - 1], row[right] = 1 - share, share
    weight, bias = product(head.linear)
    bias[size:] += np.float32(np.log(np.expm1(1 - FLOOR)))
    gaps = (counts @ _sums(head).T * np.diff(scores)).astype(np.float32)
    start = (scores[head.anchor] + FLOOR * gaps.sum(1, keepdims=True)).astype(np.float32)
    mean, deviation, stretch = (part.cpu().numpy() for part in (head.mean, head.deviation, head.stretch))

    def read(feature: np.ndarray) -> np.ndarray:
        raw = (weight @ feature + bias).reshape(count, size)
        said = gaps @ np.logaddexp(0, raw[1:]) + start + raw[0]
        said[1:] = said[0] + stretch * (said[1:] - said[0])
        return (said * deviation + mean).T

    return read


@onnx_form(QuantilesHead)
def _graph(graph: Graph, head: QuantilesHead, feature: str) -> list[tuple]:
    """Quantiles are sums of what lies between them: a product with ones, and minus ones below the anchor."""
    count, size, anchor = len(head.levels), len(head.targets), head.anchor
    outputs = graph.op(
        "Reshape", graph.linear(feature, head.linear.weight, head.linear.bias), np.array([0, count, size])
    )
    outputs = graph.op("Transpose", outputs, perm=[0, 2, 1])
    first, gaps = graph.op("Split", outputs, np.array([1, count - 1]), outputs=2, axis=2)
    soft = graph.op("Softplus", graph.op("Add", gaps, np.float32(np.log(np.expm1(1 - FLOOR)))))
    gaps = graph.op("Mul", graph.op("Add", soft, np.float32(FLOOR)), head.scores.diff().float())
    middle = graph.op("Add", first, head.scores[anchor].float())
    law = graph.op("Add", middle, graph.op("MatMul", gaps, _sums(head)))
    median = graph.op("ReduceSum", graph.op("Mul", law, head._median().float()), np.array([2]), keepdims=1)
    wider = graph.op("Mul", graph.op("Sub", law, median), head.stretch.unsqueeze(-1))
    law = graph.op("Add", median, wider)
    own(head, graph, graph.op("Squeeze", median, np.array([2])))
    graph.op("Add", graph.op("Mul", law, head.deviation.unsqueeze(-1)), head.mean.unsqueeze(-1), name="quantiles")
    return [("prediction", 1, ["batch", size]), ("quantiles", 1, ["batch", size, count])]
