"""Batches of examples: lanes or windows, the order a pure function of (seed, epoch)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..config import Spec
from ..errors import UserError
from .augment import Augment
from .examples import Example
from .fetched import Fetched
from .inputs import Inputs, blank, tensors


@dataclass(frozen=True)
class Ragged:
    """Sequences of unequal length side by side, of any number of axes behind that of the steps."""

    values: Tensor
    """(batch step ...); beyond a row's own length it may hold anything."""
    lengths: Int[Tensor, "batch"]
    """Steps of each row."""

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def mask(self) -> Bool[Tensor, "batch step"]:
        """Mask of the steps that are not padding."""
        return mask_of(self.lengths, self.values.shape[1])

    def to(self, device: torch.device) -> "Ragged":
        return Ragged(self.values.to(device, non_blocking=True), self.lengths.to(device, non_blocking=True))


@dataclass(frozen=True)
class Batch:
    """Rows of sequences. `mask` is each step's weight in the loss, 0 on padding; `fresh` rows begin anew."""

    x: Any
    """Prepared inputs (batch time ...); of a model with several, Inputs."""
    y: Tensor
    """Targets: (batch time target), or (batch target) where a sequence has one answer."""
    mask: Float[Tensor, "batch time"]
    fresh: Bool[Tensor, "batch"]
    sources: Mapping[str, Ragged] = field(default_factory=dict)
    """What `x` is about, by name, where that is of another length: a sentence, a picture, a film."""
    lengths: Int[Tensor, "batch"] | None = None
    """Steps of each row; None: up to its last one that counts."""

    @property
    def steps(self) -> Int[Tensor, "batch"]:
        """Steps of each row that are not padding."""
        if self.lengths is not None:
            return self.lengths
        places = torch.arange(1, self.mask.shape[1] + 1, device=self.mask.device)
        return torch.where(self.mask > 0, places, 0).amax(1)

    def to(self, device: torch.device) -> "Batch":
        given = (self.x, self.y, self.mask, self.fresh, self.steps)
        x, y, mask, fresh, lengths = (t.to(device, non_blocking=True) for t in given)
        return Batch(x, y, mask, fresh, {name: source.to(device) for name, source in self.sources.items()}, lengths)


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps `start` to `stop` of a record, as one row of a batch."""

    record: int
    start: int
    stop: int
    fresh: bool
    weight: float = 1.0


class Epoch(Fetched[Batch]):
    """The batches of one pass over the data, each made when asked for."""

    def __init__(self, pieces: Sequence[list[Piece | None]], data: "Batches", epoch: int):
        self.pieces, self.data, self.epoch = pieces, data, epoch

    def __len__(self) -> int:
        return len(self.pieces)

    def fetch(self, index: int) -> Batch:
        rows, first = self.pieces[index], self.data.examples[0]
        read = [piece and self._read(piece) for piece in rows]
        # Lanes keep one length, so that kernels are chosen once; windows take that of their longest.
        longest = self.data.spec.window or max((len(found[0]) for found in read if found), default=1)
        x = blank(first.x, len(rows), longest)
        y = np.zeros((len(rows), longest, first.y.shape[-1]), np.float32)
        once = first.y.ndim == 1
        y = y[:, 0] if once else y
        mask = np.zeros((len(rows), longest), np.float32)
        for row, (piece, found) in enumerate(zip(rows, read, strict=True)):
            if piece and found:
                seen, target = found
                x[row, : len(seen)] = seen
                y[row, : len(target)] = target
                counts = self.data.weights[piece.record]
                if counts is not None:
                    counts = counts[piece.stop - 1] if once else counts[piece.start : piece.stop]
                mask[row, : len(seen)] = piece.weight * (1.0 if counts is None else counts)
        fresh = np.array([p is None or p.fresh for p in rows])
        lengths = np.array([len(found[0]) if found else 0 for found in read])
        target, weight, begins, steps = map(torch.from_numpy, (y, mask, fresh, lengths))
        return Batch(tensors(x), target, weight, begins, lengths=steps)

    def _read(self, piece: Piece) -> tuple[Any, np.ndarray]:
        example = self.data.examples[piece.record]
        x: Any = example.x[piece.start : piece.stop]
        y = example.y if example.y.ndim == 1 else example.y[piece.start : piece.stop]
        if not self.data.augment:
            return x, y
        seen = x.streams[self.data.augmented] if isinstance(x, Inputs) else x
        for place, augment in enumerate(self.data.augment):
            rng = np.random.default_rng((self.data.seed, self.epoch, piece.record, place + 1))
            seen, y = augment.apply(seen, y, self.data.targets, rng)
        return (Inputs(x.streams | {self.data.augmented: seen}, x.once) if isinstance(x, Inputs) else seen), y


class Line(Fetched[list[Piece | None]]):
    """Pieces one after the other, cut into equal parts, one a row; of a long text they are too many to be objects."""

    def __init__(self, pieces: Sequence[np.ndarray], lanes: "Lanes"):
        """`pieces` are their records, first steps, ends, whether they are fresh, and weights."""
        self.columns, self.lanes = pieces, lanes
        self.part = -(-len(pieces[0]) // lanes.batch_size)

    def __len__(self) -> int:
        return self.part

    def fetch(self, index: int) -> list[Piece | None]:
        time = range(self.part)[index]
        return [self._piece(row * self.part + time, begins=time == 0) for row in range(self.lanes.batch_size)]

    def _piece(self, place: int, begins: bool) -> Piece | None:
        if place >= len(self.columns[0]):
            return None
        piece = Piece(*(column[place].item() for column in self.columns))
        return replace(piece, fresh=True, weight=self.lanes.restart_weight) if begins and not piece.fresh else piece


@dataclass(frozen=True)
class Lanes(Spec):
    """Truncated backpropagation through time: each row walks through the records, carrying its state.

    All records in random order make one line, cut into as many equal parts as there are lanes. A core that is not
    causal carries no state: it is shown whole records, as `Windows()` does.
    """

    batch_size: int = 32
    """Lanes side by side: the batch size."""
    window: int = 32
    """Steps of a window: as far back in time as a gradient goes."""
    restart_weight: float = 0.2
    """Weight in the loss of a window that begins inside a record, where the state is not known."""
    shift: bool = False
    """Whether in each pass lanes begin and cut elsewhere, up to `window` of a record's first steps (an eighth at most)
    left out: for few long records, whose steps would stand beside the same others every time."""

    BOUNDS = {"batch_size": (1, inf), "window": (1, inf), "restart_weight": (0, inf)}
    carry: ClassVar[bool] = True
    """Whether state goes on from batch to batch."""

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> Sequence[list[Piece | None]]:
        order, firsts, stops = rng.permutation(len(lengths)), [], []
        for record in order:
            # Only the last window may be short: a state carried on from padding would not be the record's.
            first = int(rng.integers(min(self.window, lengths[record] // 8 + 1))) if self.shift else 0
            firsts.append(first)
            stops.append(np.append(np.arange(first + self.window, lengths[record], self.window), lengths[record]))
        counts = list(map(len, stops))
        begins, stop = np.cumsum([0, *counts])[:-1], np.concatenate(stops)
        start = np.concatenate(([0], stop[:-1]))
        start[begins] = firsts
        fresh, weight = np.zeros(len(stop), bool), np.ones(len(stop))
        fresh[begins] = True
        weight[begins] = np.where(np.array(firsts) > 0, self.restart_weight, 1.0)
        line = np.repeat(order, counts), start, stop, fresh, weight
        if self.shift:
            turn = int(rng.integers(len(stop)))
            line = tuple(np.roll(part, -turn) for part in line)
        return Line(line, self)


@dataclass(frozen=True)
class Windows(Spec):
    """Windows in random order, each from a zero state."""

    batch_size: int = 32
    """Windows in a batch."""
    window: int = 0
    """Length of a window; 0: the whole record."""
    stride: int = 0
    """Steps from one window's start to the next; 0: its length."""

    BOUNDS = {"batch_size": (1, inf), "window": (0, inf), "stride": (0, inf)}
    carry: ClassVar[bool] = False
    """Whether state goes on from batch to batch."""

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> list[list[Piece | None]]:
        windows: list[Piece | None] = []
        for record, length in enumerate(lengths):
            steps = self.window or length
            offset = int(rng.integers(min(self.stride or steps, max(1, length - steps + 1)))) if self.window else 0
            starts = range(offset, max(offset + 1, length - steps + 1), self.stride or steps)
            windows += [Piece(record, a, min(a + steps, length), fresh=True) for a in starts]
        order = [windows[i] for i in rng.permutation(len(windows))]
        order += [None] * (-len(order) % self.batch_size)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]


class Batches:
    """Examples, and how an epoch of batches is cut from them. One of `ranks` processes gets its share of rows."""

    def __init__(
        self,
        spec: Lanes | Windows,
        examples: Sequence[Example],
        targets: Sequence[str],
        augment: Sequence[Augment] = (),
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
        augmented: str = "",
    ):
        if spec.batch_size % ranks:
            raise UserError(
                f"{spec.batch_size} rows can't be shared by {ranks} processes; set --batches.batch-size to a multiple"
            )
        self.spec, self.examples, self.targets = spec, examples, targets
        self.augment, self.seed, self.rank, self.ranks = augment, seed, rank, ranks
        self.augmented = augmented
        """Which of several inputs `augment` changes."""
        self.weights: Sequence[np.ndarray | None] = [example.weight for example in examples]
        """What each step of each example counts in the loss; None: all alike."""

    @property
    def rows(self) -> int:
        """Rows of this process's batches."""
        return self.spec.batch_size // self.ranks

    def epoch(self, number: int) -> Epoch:
        rng = np.random.default_rng((self.seed, number))
        pieces = self.spec.pieces([len(e) for e in self.examples], rng)
        own = pieces if self.ranks == 1 else [rows[self.rank :: self.ranks] for rows in pieces]
        return Epoch(own, self, number)


def mask_of(lengths: Int[Tensor, "batch"], longest: int) -> Bool[Tensor, "batch source"]:
    """Mask of the steps of ragged rows that are not padding."""
    return torch.arange(longest, device=lengths.device) < lengths.unsqueeze(1)
