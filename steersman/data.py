"""From records to batches: split by record, then lanes or windows, the order a pure function of (seed, epoch)."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .config import Spec
from .errors import UserError
from .progress import Watch, silent
from .records import Record, Stream
from .sources.frames import cached

WEIGHT = "loss_weight"
"""A record's stream of this name says what each of its steps counts in the loss; one without it: all alike."""


@dataclass(frozen=True)
class Batch:
    """Rows of sequences. `mask` is each step's weight in the loss, 0 on padding; `fresh` rows begin anew."""

    x: Tensor
    """Prepared inputs (batch time ...)."""
    y: Tensor
    """Targets: (batch time target), or (batch target) where a sequence has one answer."""
    mask: Float[Tensor, "batch time"]
    fresh: Bool[Tensor, "batch"]
    source: Tensor | None = None
    """What `x` is about, where that is a sequence of another length (batch source ...)."""
    lengths: Int[Tensor, "batch"] | None = None
    """Steps of each source."""

    def to(self, device: torch.device) -> "Batch":
        given = (getattr(self, f.name) for f in fields(self))
        moved: Any = (t if t is None else t.to(device, non_blocking=True) for t in given)
        return Batch(*moved)

    @property
    def about(self) -> tuple[Tensor, ...]:
        """The source and its lengths, for models that take them."""
        return () if self.source is None or self.lengths is None else (self.source, self.lengths)


@dataclass(frozen=True)
class Example:
    """A record as a model sees it: prepared inputs and targets on one clock."""

    name: str
    x: np.ndarray
    y: np.ndarray
    time_s: np.ndarray
    weight: np.ndarray | None = None
    """What each step counts in the loss; None: all alike."""

    def __len__(self) -> int:
        return len(self.x)


def examples(
    records: Sequence[Record],
    inputs: str,
    targets: Sequence[str],
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    cache: Path,
    once: bool = False,
    watch: Watch = silent,
) -> list[Example]:
    """Inputs prepared (pictures once, kept in `cache` under `key`) and targets read on the inputs' clock.

    With `once` a record has one answer: the last value of each target.
    """
    shown = []
    for done, record in enumerate(records):
        watch("preparing records", done, len(records))
        tell = partial(_tell, watch, record.name, done, len(records))
        shown.append(_example(record, inputs, targets, prepare, key, cache, once, tell))
    watch("preparing records", len(records), len(records))
    return shown


def _tell(watch: Watch, name: str, done: int, records: int, frame: int, frames: int) -> None:
    watch("preparing records", done, records, f"{name}: frame {frame} of {frames}")


def _example(record: Record, inputs, targets, prepare, key, cache, once, tell) -> Example:
    stream = record[inputs]
    if not len(stream):
        raise UserError(f"record {record.name!r} is empty")
    pictures = len(stream.values.shape) == 4
    if pictures:
        x = cached(stream.values, prepare, key, cache, tell)
    else:
        values = np.asarray(stream.values)
        x = prepare(values[:, None] if values.ndim == 1 else values)  # A plain number is one feature.
    for target in targets:
        if len(shape := record[target].values.shape) != 1:
            raise UserError(f"record {record.name!r}: target {target!r} has shape {shape}; give a stream a number")
    y = np.stack([record[target].at(stream.time_s) for target in targets], -1).astype(np.float32)
    weight = record[WEIGHT].at(stream.time_s).astype(np.float32) if WEIGHT in record.streams else None
    for name, values in (("input", x if not pictures else x[:0]), ("target", y), (WEIGHT, weight)):
        if values is not None and not np.isfinite(values).all():
            step = np.argwhere(~np.isfinite(values))[0][0]
            raise UserError(f"record {record.name!r}: the {name} at step {step} is not a finite number")
    return Example(record.name, x, y[-1] if once else y, stream.time_s, weight)


def unsaid(line: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Split(Spec):
    """How records are divided, before anything is cut from them."""

    by: Literal["record", "time"] = "record"
    """record: whole records; time: the later part of each record is held out, behind a gap."""
    validation: float = 0.1
    """Share held out to choose the best checkpoint; 0: none, the last weights are kept."""
    test: float = 0.1
    """Share held out for the score."""
    gap_s: float = 2.0
    """Seconds dropped between the parts of a record."""
    seed: int = 0
    """Which records fall where."""

    BOUNDS = {"validation": (0, 1), "test": (0, 1), "gap_s": (0, inf), "seed": (0, inf)}

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """`train`, `validation` and `test`; tells of records that are left out."""
        if not records:
            raise UserError("the data holds no record")
        if not 0 < self.test < 1 - self.validation:
            raise UserError(
                f"--split.test {self.test:g} must be above 0 and, with --split.validation {self.validation:g}, "
                "leave something to train on"
            )
        parts = self._by_record(records) if self.by == "record" else self._by_time(records, say)
        for name, part in parts.items():
            if not part and (name != "validation" or self.validation):
                gap = f" and a gap of {self.gap_s:g} s" if self.gap_s else ""
                raise UserError(
                    f"no record is left for {name}: all {len(records)} are too short for two steps of its "
                    f"share{gap}; give longer ones, or raise --split.validation and --split.test"
                )
        return parts

    def _by_record(self, records: Sequence[Record]) -> dict[str, list[Record]]:
        n = len(records)
        if n < 3:
            raise UserError(
                f"training, validation and test need a record each, found {n} in all; "
                "add recordings, or hold out the later part of each with --split.by time"
            )
        order = np.random.default_rng(self.seed).permutation(n)
        validation, test = (max(1, round(share * n)) if share else 0 for share in (self.validation, self.test))
        if validation + test >= n:
            raise UserError(f"--split.validation and --split.test leave none of {n} records to train on")
        cuts = {"train": n - validation - test, "validation": validation, "test": test}
        parts, start = {}, 0
        for name, size in cuts.items():
            parts[name] = [records[i] for i in sorted(order[start : start + size])]
            start += size
        return parts

    def _by_time(self, records: Sequence[Record], say: Callable[[str], None]) -> dict[str, list[Record]]:
        train = 1 - self.validation - self.test
        bounds = {"train": (0.0, train), "validation": (train, 1 - self.test), "test": (1 - self.test, 1.0)}
        parts = {name: [] for name in bounds}
        for record in records:
            for name, (start, stop) in bounds.items():
                if start == stop:
                    continue
                part = _between(record, start, stop, self.gap_s if start else 0.0)
                if part is not None:
                    parts[name].append(replace(part, name=f"{record.name}[{name}]"))
        for name, part in parts.items():
            start, stop = bounds[name]
            if start < stop and (lost := len(records) - len(part)):
                say(f"{name}: {lost} of {len(records)} records are too short to give it two steps, and are left out")
        return parts


def _between(record: Record, start: float, stop: float, gap_s: float) -> Record | None:
    """The share of a record between two shares of its time, without the first `gap_s` seconds."""
    clock = next(iter(record.streams.values())).time_s
    first, length = clock[0], clock[-1] - clock[0]
    low, high = first + start * length + gap_s, first + stop * length
    last = np.inf if stop >= 1 else high
    streams, clocks = {}, {}
    for name, stream in record.streams.items():
        # Not numpy's search: it would copy a clock of whole numbers.
        a, b = (bisect_left(stream.time_s, at) for at in (low if start else -np.inf, last))
        if b - a < 2:
            return None
        # Streams of one clock go on sharing it.
        part = clocks.setdefault(id(stream.time_s), stream.time_s[a:b])
        streams[name] = Stream(View(stream.values, int(a), int(b)), part)
    return replace(record, streams=streams)


class View:
    """A stretch of values, decoded no sooner than asked for."""

    def __init__(self, values, start: int, stop: int):
        self.values, self.start, self.stop = values, start, stop
        self.shape, self.dtype = (stop - start, *values.shape[1:]), values.dtype

    @property
    def fingerprint(self) -> str | None:
        whole = getattr(self.values, "fingerprint", None)
        return whole and f"{whole}[{self.start}:{self.stop}]"

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index) -> np.ndarray:
        if isinstance(index, slice) and isinstance(self.values, np.ndarray):
            return self.values[self.start : self.stop][index]
        return self.values[np.arange(self.start, self.stop)[index]]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)


class Augment(Protocol):
    """Changes a stretch of a record; the generator is seeded alike for every stretch of one pass."""

    def apply(
        self, x: np.ndarray, y: np.ndarray, targets: Sequence[str], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Mirror(Spec):
    """Left and right exchanged: half of all passes over a drive are driven in its mirror image."""

    negate: tuple[str, ...] = ("steer",)
    """Targets that change their sign."""
    share: float = 0.5
    """Of the passes."""

    BOUNDS = {"share": (0, 1)}

    def apply(self, x, y, targets, rng):
        if rng.random() >= self.share:
            return x, y
        sign = np.array([-1.0 if t in self.negate else 1.0 for t in targets], np.float32)
        return x[:, :, ::-1], y * sign


@dataclass(frozen=True)
class Light(Spec):
    """Another exposure: every pass over a drive has a brightness and a contrast of its own."""

    contrast: float = 0.4
    """Largest change of the contrast, as a share."""
    brightness: float = 40.0
    """Largest change of the brightness, of 255."""

    BOUNDS = {"contrast": (0, 1), "brightness": (0, 255)}

    def apply(self, x, y, targets, rng):
        gain, lift = 1 + self.contrast * rng.uniform(-1, 1), self.brightness * rng.uniform(-1, 1)
        exposed = np.clip((np.arange(256) - 128) * gain + 128 + lift, 0, 255).round().astype(np.uint8)
        return exposed[x], y


@dataclass(frozen=True)
class Shift(Spec):
    """Another mounting of the camera: every pass over a drive sees its pictures moved by a few pixels."""

    pixels: int = 3
    """Furthest move of the prepared picture, up or down and to a side; the edge is repeated."""

    BOUNDS = {"pixels": (0, inf)}

    def apply(self, x, y, targets, rng):
        down, right = rng.integers(-self.pixels, self.pixels, 2, endpoint=True)
        rows = np.clip(np.arange(x.shape[1]) - down, 0, x.shape[1] - 1)
        columns = np.clip(np.arange(x.shape[2]) - right, 0, x.shape[2] - 1)
        return x[:, rows][:, :, columns], y


@dataclass(frozen=True)
class Shadow(Spec):
    """A shadow across the picture: in half of all passes what lies on one side of a slanting line is darker."""

    darkest: float = 0.6
    """Largest share of the light that is taken away."""
    share: float = 0.5
    """Of the passes."""

    BOUNDS = {"darkest": (0, 1), "share": (0, 1)}

    def apply(self, x, y, targets, rng):
        if rng.random() >= self.share:
            return x, y
        height, width = x.shape[1:3]
        above, below = rng.uniform(0, width, 2)
        edge = above + (below - above) * np.arange(height) / max(1, height - 1)
        dark = (np.arange(width) < edge[:, None]) == (rng.random() < 0.5)
        light = np.where(dark, 1 - self.darkest * rng.random(), 1.0).astype(np.float32)
        return (x * light[..., None]).astype(np.uint8), y


@dataclass(frozen=True)
class Piece:
    """Steps `start` to `stop` of a record, as one row of a batch."""

    record: int
    start: int
    stop: int
    fresh: bool
    weight: float = 1.0


class Epoch(Sequence[Batch]):
    """The batches of one pass over the data, each made when asked for."""

    def __init__(self, pieces: list[list[Piece | None]], data: "Batches", epoch: int):
        self.pieces, self.data, self.epoch = pieces, data, epoch

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: int) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, shown = self.pieces[index], self.data.examples
        # Lanes keep one length, so that kernels are chosen once; windows take that of their longest.
        longest = self.data.spec.steps or max((p.stop - p.start for p in rows if p), default=1)
        first = shown[0]
        x = np.zeros((len(rows), longest, *first.x.shape[1:]), first.x.dtype)
        y = np.zeros((len(rows), longest, first.y.shape[-1]), np.float32)
        once = first.y.ndim == 1
        y = y[:, 0] if once else y
        mask = np.zeros((len(rows), longest), np.float32)
        for row, piece in enumerate(rows):
            if piece is not None:
                steps = piece.stop - piece.start
                x[row, :steps], target = self._read(piece)
                y[row, : len(target)] = target
                counts = self.data.weights[piece.record]
                mask[row, :steps] = piece.weight * (1.0 if counts is None else counts[piece.start : piece.stop])
        fresh = np.array([p is None or p.fresh for p in rows])
        return Batch(*map(torch.from_numpy, (x, y, mask, fresh)))

    def _read(self, piece: Piece) -> tuple[np.ndarray, np.ndarray]:
        example = self.data.examples[piece.record]
        x = example.x[piece.start : piece.stop]
        y = example.y if example.y.ndim == 1 else example.y[piece.start : piece.stop]
        for place, augment in enumerate(self.data.augment):
            rng = np.random.default_rng((self.data.seed, self.epoch, piece.record, place + 1))
            x, y = augment.apply(x, y, self.data.targets, rng)
        return x, y


@dataclass(frozen=True)
class Lanes(Spec):
    """Truncated backpropagation through time: each row walks through the records, carrying its state.

    All records in random order make one line, cut into as many equal parts as there are lanes.
    """

    rows: int = 32
    """Lanes side by side: the batch size."""
    steps: int = 32
    """Steps back in time that a gradient goes."""
    cold_weight: float = 0.2
    """What a window counts that begins inside a record, where the state is not known."""
    shift: bool = False
    """In each pass lanes begin and cut elsewhere, and up to `steps` of a record's first steps (an eighth at most) are
    left out: for few long records, whose steps would stand beside the same others every time."""

    BOUNDS = {"rows": (1, inf), "steps": (1, inf), "cold_weight": (0, inf)}
    carry: ClassVar[bool] = True
    """State goes on from batch to batch."""

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> list[list[Piece | None]]:
        line: list[Piece] = []
        for record in rng.permutation(len(lengths)):
            # Only the last window may be short: a state carried on from padding would not be the record's.
            first = int(rng.integers(min(self.steps, lengths[record] // 8 + 1))) if self.shift else 0
            cuts = [*range(first, lengths[record], self.steps), lengths[record]]
            pieces = [Piece(int(record), a, b, fresh=a == first) for a, b in pairwise(cuts)]
            line += [replace(pieces[0], weight=self.cold_weight if first else 1.0), *pieces[1:]]
        if self.shift:
            turn = int(rng.integers(len(line)))
            line = line[turn:] + line[:turn]
        part = -(-len(line) // self.rows)
        batches: list[list[Piece | None]] = [[None] * self.rows for _ in range(part)]
        for i, piece in enumerate(line):
            row, time = divmod(i, part)
            if time == 0 and not piece.fresh:
                piece = replace(piece, fresh=True, weight=self.cold_weight)
            batches[time][row] = piece
        return batches


@dataclass(frozen=True)
class Windows(Spec):
    """Windows in random order, each from a zero state."""

    rows: int = 32
    """Windows in a batch."""
    steps: int = 0
    """Length of a window; 0: the whole record."""
    stride: int = 0
    """Steps from one window's start to the next; 0: its length."""

    BOUNDS = {"rows": (1, inf), "steps": (0, inf), "stride": (0, inf)}
    carry: ClassVar[bool] = False
    """State goes on from batch to batch."""

    def pieces(self, lengths: Sequence[int], rng: np.random.Generator) -> list[list[Piece | None]]:
        windows: list[Piece | None] = []
        for record, length in enumerate(lengths):
            steps = self.steps or length
            offset = int(rng.integers(min(self.stride or steps, max(1, length - steps + 1)))) if self.steps else 0
            starts = range(offset, max(offset + 1, length - steps + 1), self.stride or steps)
            windows += [Piece(record, a, min(a + steps, length), fresh=True) for a in starts]
        order = [windows[i] for i in rng.permutation(len(windows))]
        order += [None] * (-len(order) % self.rows)
        return [order[i : i + self.rows] for i in range(0, len(order), self.rows)]


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
    ):
        if spec.rows % ranks:
            raise UserError(f"{spec.rows} rows can't be shared by {ranks} processes; set --batches.rows to a multiple")
        self.spec, self.examples, self.targets = spec, examples, targets
        self.augment, self.seed, self.rank, self.ranks = augment, seed, rank, ranks
        self.weights: Sequence[np.ndarray | None] = [example.weight for example in examples]
        """What each step of each example counts in the loss; None: all alike."""

    @property
    def rows(self) -> int:
        """Rows of this process's batches."""
        return self.spec.rows // self.ranks

    def epoch(self, number: int) -> Epoch:
        rng = np.random.default_rng((self.seed, number))
        pieces = self.spec.pieces([len(e) for e in self.examples], rng)
        return Epoch([rows[self.rank :: self.ranks] for rows in pieces], self, number)
