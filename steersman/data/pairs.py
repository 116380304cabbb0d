"""Pairs of sequences, a source and a target, as batches of about equal length."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

import numpy as np
import torch

from ..config import Spec
from ..errors import UserError
from .batches import Batch, Ragged, mask_of
from .fetched import Fetched


@dataclass(frozen=True)
class Pair:
    """A record as an encoder-decoder sees it."""

    name: str
    sources: Mapping[str, np.ndarray]
    """Sources by name; steps first: tokens, pictures or other numbers."""
    target: np.ndarray
    """Tokens, from the begin mark to the end mark."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Texts as they were written, the target among them."""

    def __len__(self) -> int:
        return len(self.target) - 1

    def contents(self) -> list[np.ndarray]:
        """All that is learned from it."""
        return [*self.sources.values(), self.target]


@dataclass(frozen=True)
class ByLength(Spec):
    """Batches of sources of about one length, and within these of targets, so that little of a batch is padding."""

    batch_size: int = 64
    """Most pairs in a batch."""
    max_steps: int = 4096
    """Most steps of the longest side in a batch, padding included; a longer pair is alone."""
    pool: int = 8
    """Batches whose sources are alike; they are sorted by target length."""
    blur: float = 0.5
    """Steps by which lengths are blurred before pairs are sorted; far above all lengths, a batch is a random draw, as
    it should be where the length tells the answer."""

    BOUNDS = {"batch_size": (1, inf), "max_steps": (1, inf), "pool": (1, inf), "blur": (0.5, inf)}
    carry: ClassVar[bool] = False
    """Whether state goes on from batch to batch."""

    def cut(self, lengths: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Indices of each batch's pairs; `lengths` is (pair, side)."""
        order = np.argsort(lengths[:, 0] + rng.uniform(-self.blur, self.blur, len(lengths)))
        batches = []
        for start in range(0, len(order), self.batch_size * self.pool):
            pool = order[start : start + self.batch_size * self.pool]
            batches += self.full(pool[np.argsort(lengths[pool, 1], kind="stable")], lengths)
        return [batches[i] for i in rng.permutation(len(batches))]

    def full(self, order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """Batches in this order, as many pairs to a batch as may be; there is at least one."""
        batches, begin, longest = [], 0, 0
        for i, longer in enumerate(lengths[order].max(1)):
            widest = max(longest, int(longer))
            if i > begin and (i - begin == self.batch_size or widest * (i - begin + 1) > self.max_steps):
                batches.append(order[begin:i])
                begin, widest = i, int(longer)
            longest = widest
        return [*batches, order[begin:]]


class PairBatches:
    """Pairs, and how an epoch of batches is cut from them. One of `ranks` processes gets its share of rows.

    `drawn` gives a pair as it is shown this once, where chance changes it; batches are cut by the pairs themselves.
    """

    def __init__(
        self,
        spec: ByLength,
        pairs: Sequence[Pair],
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        drawn: Callable[[Pair, random.Random], Pair] | None = None,
    ):
        if spec.batch_size % ranks:
            raise UserError(
                f"{spec.batch_size} rows can't be shared by {ranks} processes; set --batches.batch-size to a multiple"
            )
        self.spec, self.pairs, self.seed, self.rank, self.ranks, self.drawn = spec, pairs, seed, rank, ranks, drawn
        self.lengths = np.array([(max(map(len, p.sources.values())), len(p)) for p in pairs])

    @property
    def rows(self) -> int:
        """Most rows of this process's batches."""
        return self.spec.batch_size // self.ranks

    def epoch(self, number: int) -> "PairEpoch":
        cut = self.spec.cut(self.lengths, np.random.default_rng((self.seed, number)))
        return PairEpoch(cut, self, number)

    def pair(self, index: int, epoch: int) -> Pair:
        """The pair as it is shown in an epoch, whichever process shows it."""
        pair = self.pairs[index]
        return self.drawn(pair, random.Random(f"{self.seed} {epoch} {index}")) if self.drawn else pair


class PairEpoch(Fetched[Batch]):
    """The batches of one pass over the pairs, each made when asked for."""

    def __init__(self, cut: list[np.ndarray], data: PairBatches, epoch: int):
        self.cut, self.data, self.epoch = cut, data, epoch

    def __len__(self) -> int:
        return len(self.cut)

    def fetch(self, index: int) -> Batch:
        rank, ranks = self.data.rank, self.data.ranks
        shown = [self.data.pair(i, self.epoch) for i in self.cut[index][rank::ranks]]
        # Every process has as many rows as the first: an empty one counts for nothing.
        return batch_of(shown or [_nothing(self.data.pairs[0])], -(-len(self.cut[index]) // ranks))


def _nothing(like: Pair) -> Pair:
    """A pair without a step, of the same kinds as another."""
    return Pair("", {name: values[:0] for name, values in like.sources.items()}, like.target[:1])


def batch_of(pairs: Sequence[Pair], rows: int = 0) -> Batch:
    """One pair or more as a batch; rows beyond them are padding."""
    x, lengths = padded([p.target[:-1] for p in pairs], rows)
    y, _ = padded([p.target[1:] for p in pairs], rows)
    mask, fresh = mask_of(lengths, x.shape[1]).float(), torch.ones(len(x), dtype=torch.bool)
    names = pairs[0].sources
    sources = {name: Ragged(*padded([p.sources[name] for p in pairs], rows)) for name in names}
    return Batch(x, y, mask, fresh, sources)


def padded(sources: Sequence[np.ndarray], rows: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Sequences side by side, and their lengths; there is at least one step, for an empty one. Padding is 0: PAD."""
    rows = max(rows, len(sources))
    longest, like = max(1, *(len(s) for s in sources)), sources[0]
    shown = np.zeros((rows, longest, *like.shape[1:]), like.dtype)
    for row, source in enumerate(sources):
        shown[row, : len(source)] = source
    return torch.from_numpy(shown), torch.tensor([len(s) for s in sources] + [0] * (rows - len(sources)))
