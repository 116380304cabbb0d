"""What a decoder looks at: weights over the steps of a source, and their mean of what it holds there."""

from dataclasses import dataclass
from math import inf, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..config import Spec


class Keyed(NamedTuple):
    """A source that has been read, with its keys; a state like any other, which no step changes."""

    values: Float[Tensor, "batch source feature"]
    keys: Float[Tensor, "batch source key"]
    """What the queries are compared with; made once a source."""
    there: Bool[Tensor, "batch source"]
    """False on padding, which gets no attention."""


def weighted(
    scores: Float[Tensor, "batch time source"],
    values: Float[Tensor, "batch source feature"],
    there: Bool[Tensor, "batch source"],
) -> tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch time source"]]:
    """The values' mean by the softmax of the scores, and its weights; a row without any source gets zero.

    Padding gets no weight, whatever its scores; its values must be finite.
    """
    seen = there.unsqueeze(1)
    scores = scores.float().masked_fill(~seen, torch.finfo(torch.float32).min)
    weights = torch.where(seen, scores.softmax(2), 0.0)
    return weights.to(values.dtype) @ values, weights


class Attention(nn.Module):
    """What every attention offers."""

    key: nn.Linear

    def memory(self, values: Float[Tensor, "batch source feature"], there: Bool[Tensor, "batch source"]) -> Keyed:
        """Makes the keys, once a source."""
        # Padding may hold anything: zero times NaN would still be NaN.
        values = torch.where(there.unsqueeze(2), values, 0.0)
        return Keyed(values, self.key(values), there)

    def forward(self, query: Float[Tensor, "batch time hidden"], memory: Keyed) -> tuple[Tensor, Tensor]:
        """The context of each query (batch time feature), and the weights (batch time source)."""
        return weighted(self.scores(query, memory.keys), memory.values, memory.there)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        raise AssertionError(f"{type(self).__name__} has no scores")


class AttentionSpec(Spec):
    """Spec of an attention."""

    def build(self, query: int, feature: int) -> Attention:
        """The attention of queries of one width to steps of another."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


@dataclass(frozen=True)
class Multiplicative(AttentionSpec):
    """The product of query and key, over the root of its width (Luong et al. 2015, `general`; Vaswani et al. 2017)."""

    def build(self, query: int, feature: int) -> "MultiplicativeAttention":
        return MultiplicativeAttention(query, feature)


class MultiplicativeAttention(Attention):
    def __init__(self, query: int, feature: int):
        super().__init__()
        self.key = nn.Linear(feature, query, bias=False)
        self.scale = 1 / sqrt(query)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return query.to(keys.dtype) @ keys.transpose(1, 2) * self.scale


@dataclass(frozen=True)
class Additive(AttentionSpec):
    """v tanh(W query + U value): a small network compares them (Bahdanau et al. 2015)."""

    hidden: int = 128
    """Units of that network."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, query: int, feature: int) -> "AdditiveAttention":
        return AdditiveAttention(query, feature, self.hidden)


class AdditiveAttention(Attention):
    def __init__(self, query: int, feature: int, hidden: int):
        super().__init__()
        self.query, self.key = nn.Linear(query, hidden), nn.Linear(feature, hidden, bias=False)
        self.out = nn.Linear(hidden, 1, bias=False)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.out(torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))).squeeze(3)
