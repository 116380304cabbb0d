"""Films with a count at every frame: a video and its table, and made-up ones of people who walk about.

A record is a film: streams `picture` and `people`, a number a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

import numpy as np

from ..data.frames import Chosen
from ..data.records import Record, Stream
from ..data.splits import PART
from ..errors import UserError
from ..progress import Watch, silent
from .csv_tables import header, read_table
from .safety import entries
from .source import SourceSpec

PICTURE, PEOPLE = "picture", "people"
FRAMES = ("frame", "frame_index", "frame_number", "index")
"""What the column of the frames' numbers is called."""
COUNTS = (PEOPLE, "count", "persons", "number")
"""What the column of the counts is called."""
NEAR, FAR = 26.0, 11.0
"""Pixels of height of a person at the lower and the upper edge of a made scene."""


@dataclass(frozen=True)
class Counted(SourceSpec):
    """Films with a count at every frame; without data, people made of a few strokes who come, walk about and leave."""

    films: int = 16
    frames: int = 150
    people: tuple[int, int] = (1, 5)
    """Fewest and most people at once."""
    test_people: tuple[int, int] = (0, 0)
    """The same of the test's films; 0 0: as in the others."""
    height: int = 96
    width: int = 128
    rate_hz: float = 10.0
    """Frames a second, also of a video that does not tell."""
    seed: int = 0

    BOUNDS = {
        **dict.fromkeys(("films", "frames"), (3, inf)),
        **dict.fromkeys(("people", "test_people"), (0, 100)),
        **dict.fromkeys(("height", "width"), (32, 2048)),
        "rate_hz": (0.01, 1000),
        "seed": (0, inf),
    }

    def few(self, records: int) -> "Counted":
        return replace(self, films=max(3, min(self.films, records)))

    def read(self, watch: Watch = silent) -> list[Record]:
        for low, high in (self.people, self.test_people):
            if low > high:
                raise UserError(f"Counted: at least {low} and at most {high} people; give the smaller number first")
        held = max(1, self.films // 6)
        parts = ["test"] * held + ["validation"] * held + ["train"] * (self.films - 2 * held)
        ground = _ground(np.random.default_rng((self.seed, 0)), self.height, self.width)
        found = []
        for number, part in enumerate(parts):
            rng = np.random.default_rng((self.seed, 1, number))
            low, high = self.test_people if part == "test" and any(self.test_people) else self.people
            film, counts = _film(rng, ground, self.frames, low, high)
            clock = np.arange(self.frames) / self.rate_hz
            streams = {PICTURE: Stream(film, clock), PEOPLE: Stream(counts, clock)}
            found.append(Record(f"{part}-{number}", streams, {"format": "made scenes", PART: part}))
            watch("making films", number + 1, self.films)
        return found

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """A record for each folder with one video and one table, or for each table beside one video."""
        return [self._counted(Path(name)) for name in data]

    def _counted(self, path: Path) -> Record:
        from .films import DEMUXERS, Film

        there = entries(path) if path.is_dir() else entries(path.parent)
        videos = [file for file in there if file.suffix.lower() in DEMUXERS]
        tables = [file for file in there if file.suffix.lower() in (".csv", ".tsv")] if path.is_dir() else [path]
        tables = [table for table in tables if {COUNTS} & _kinds(header(table))]
        if len(videos) != 1 or len(tables) != 1:
            raise UserError(
                f"{path}: found {len(videos)} videos and {len(tables)} tables with a column called "
                f"{' or '.join(COUNTS)}; lay one video and one such table side by side"
            )
        film, (table,) = Film(videos[0]), tables
        numbers, counts = _counts(table)
        first = int(numbers.min() == 1)  # Numbered from 1 where no frame is called 0.
        places = numbers - first
        beyond = places >= len(film)
        if beyond.all():
            raise UserError(f"{table}: its frames are none of the {len(film)} of {videos[0].name}")
        places, counts = places[~beyond], counts[~beyond]
        told = film.time_s
        clock = told[places] if told is not None else places / (film.fps or self.rate_hz)
        about = {"format": "a video and counts", "frames_without_picture": int(beyond.sum())}
        return Record(path.stem, {PICTURE: Stream(Chosen(film, places), clock), PEOPLE: Stream(counts, clock)}, about)


def _kinds(columns: Sequence[str]) -> set[tuple[str, ...]]:
    low = {column.lower() for column in columns}
    return {names for names in (FRAMES, COUNTS) if low & set(names)}


def _counts(table: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames' numbers, rising, and the count of each. UserError where a cell is no such number."""
    columns = {column.lower(): column for column in header(table)}
    count = next(columns[name] for name in COUNTS if name in columns)
    frame = next((columns[name] for name in FRAMES if name in columns), None)
    rows: dict[int, float] = {}

    def bad(where: str, why: object) -> None:
        raise UserError(f"{table}: {where}: {why}; mend that line, or leave it out")

    for order, (where, cells) in enumerate(read_table(table).rows(bad)):
        try:
            number, people = int(cells[frame]) if frame else order, float(cells[count])
        except ValueError as error:
            bad(where, error)
            continue
        if number < 0 or not 0 <= people < inf:
            bad(where, f"frame {number} with {people:g} people")
        if number in rows:
            bad(where, f"frame {number} stands there twice")
        rows[number] = people
    if len(rows) < 2:
        raise UserError(f"{table}: it holds {len(rows)} frames; at least 2 are needed")
    numbers = np.array(sorted(rows))
    return numbers, np.array([rows[number] for number in numbers], np.float32)


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A pavement of coarse patches, lighter towards the horizon, (height width 3) from 0 to 255."""
    patches = rng.normal(0, 9, (height // 8 + 1, width // 8 + 1, 3))
    coarse = patches.repeat(8, 0).repeat(8, 1)[:height, :width]
    return 120 + coarse + rng.normal(0, 3, (height, width, 3)) + np.linspace(25, 0, height)[:, None, None]


def _film(
    rng: np.random.Generator, ground: np.ndarray, frames: int, low: int, high: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (frame height width 3) and people in each: who comes and goes does so on foot, at a side."""
    height, width = ground.shape[:2]
    film, counts = np.empty((frames, height, width, 3), np.uint8), np.empty(frames, np.float32)
    walkers = [_walker(rng, height, width, rng.uniform(0.1, 0.9)) for _ in range(rng.integers(low, high + 1))]
    for frame in range(frames):
        here = [walker for walker in walkers if 0 <= walker["x"] < width]
        staying = [walker for walker in here if not walker["leaves"]]
        if len(here) < high and rng.random() < 0.03:
            walkers.append(_walker(rng, height, width, rng.choice((0.0, 0.999))))
        elif len(staying) > low and rng.random() < 0.03:
            staying[rng.integers(len(staying))]["leaves"] = True
        picture = ground * rng.normal(1, 0.004) + rng.normal(0, 2, ground.shape)
        for walker in sorted(here, key=lambda walker: walker["y"]):
            _paint(picture, walker)
        film[frame], counts[frame] = np.clip(picture, 0, 255), len(here)
        for walker in walkers:
            _walk(rng, walker, height, width)
    return film, counts


def _walker(rng: np.random.Generator, height: int, width: int, across: float) -> dict:
    speed = rng.uniform(0.6, 1.6) * (1 if across < 0.5 else -1)
    y = rng.uniform(0.3, 0.98) * height
    clothes = {"coat": rng.uniform(0, 255, 3), "legs": rng.uniform(0, 110, 3), "girth": rng.uniform(0.26, 0.36)}
    return {"x": across * width, "y": y, "speed": speed, "leaves": False, "depth": y / height} | clothes


def _walk(rng: np.random.Generator, walker: dict, height: int, width: int) -> None:
    """A step: those who stay turn at the sides, those who leave go on."""
    walker["x"] += walker["speed"] * (0.5 + walker["depth"])
    walker["y"] = float(np.clip(walker["y"] + rng.normal(0, 0.3), 0.3 * height, 0.98 * height))
    if not walker["leaves"] and not 4 < walker["x"] < width - 4:
        walker["speed"] = abs(walker["speed"]) * (1 if walker["x"] <= 4 else -1)


def _paint(picture: np.ndarray, walker: dict) -> None:
    """A head, a coat and legs; the feet stand at y."""
    tall = FAR + (NEAR - FAR) * walker["y"] / len(picture)
    half = tall * walker["girth"] / 2
    for top, bottom, wide, colour in (
        (1.0, 0.84, 0.5, (205, 165, 140)),
        (0.84, 0.42, 1.0, walker["coat"]),
        (0.42, 0.0, 0.7, walker["legs"]),
    ):
        rows = slice(max(0, round(walker["y"] - top * tall)), max(0, round(walker["y"] - bottom * tall)))
        columns = slice(max(0, round(walker["x"] - wide * half)), max(0, round(walker["x"] + wide * half)))
        picture[rows, columns] = colour
