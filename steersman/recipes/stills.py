"""What the recipes of still pictures have in common: a picture is looked at for some steps."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

import numpy as np

from ..data.records import Record, Stream
from ..data.splits import PART, unsaid
from ..errors import UserError
from ..files import write_file
from ..nn.model import Flavour
from ..sources.pictures import PICTURE, Pictures
from ..training.recipe import StepRecipe


@dataclass(frozen=True, kw_only=True)
class Still(StepRecipe):
    """Recipe of a model that looks at a still picture for some steps; a film it would see picture by picture."""

    steps: int = 6
    """Steps for which a picture is looked at."""

    source: Pictures = Pictures()
    inputs: str = PICTURE
    flavour: Flavour = "many-to-one"
    BOUNDS = {"steps": (1, inf)}

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """The test part is that of the data, where it has one."""
        test = [record for record in records if record.about.get(PART) == "test"]
        rest = [record for record in records if record.about.get(PART) != "test"]
        if not test or len(rest) < 2:
            return super().divide(records, say)
        order = np.random.default_rng(self.split.seed).permutation(len(rest))
        held = np.zeros(len(rest), bool)
        held[order[: round(self.split.validation * len(rest))]] = True
        validation = [record for record, is_held in zip(rest, held, strict=True) if is_held]
        return {
            "train": [r for r, is_held in zip(rest, held, strict=True) if not is_held],
            "validation": validation,
        } | {"test": test}

    def seen(self, record: Record, answers: bool = True) -> Record:
        """Its picture, step after step: one place of memory, whatever the number of steps."""
        pictures = np.asarray(record[PICTURE].values)
        if pictures.ndim != 3:
            raise UserError(f"record {record.name!r}: expected grey pictures, found {pictures.shape}")
        if len(pictures) == 1:
            shape, strides = (self.steps, *pictures.shape[1:]), (0, *pictures.strides[1:])
            pictures = np.lib.stride_tricks.as_strided(pictures, shape, strides)
        streams = {PICTURE: Stream(self.shown(record.name, pictures), np.arange(float(len(pictures))))}
        return Record(record.name, streams | (self.answers(record) if answers else {}), record.about)

    def shown(self, name: str, pictures: np.ndarray) -> np.ndarray:
        """Pictures (step height width) as the model sees them."""
        return pictures

    def answers(self, record: Record) -> dict[str, Stream]:
        """What is learned of a record."""
        return {}


def enlarged(picture: np.ndarray, side: int = 224) -> np.ndarray:
    """A grey picture (row column) uint8 as colours, its pixels whole multiples of what they were."""
    times = max(1, side // max(picture.shape))
    return np.repeat(picture.repeat(times, 0).repeat(times, 1)[..., None], 3, -1)


def sheet(pictures: np.ndarray, columns: int = 8, times: int = 2, gap: int = 4) -> np.ndarray:
    """Grey pictures (number row column) uint8 side by side as one, colours (row column 3)."""
    number, height, width = pictures.shape
    rows = -(-number // columns)
    whole = np.full((rows * (height * times + gap) - gap, columns * (width * times + gap) - gap), 128, np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (
            at * (size * times + gap) for at, size in zip(divmod(place, columns), (height, width), strict=True)
        )
        whole[top : top + height * times, left : left + width * times] = picture.repeat(times, 0).repeat(times, 1)
    return np.repeat(whole[..., None], 3, -1)


FILMS = (".webp", ".gif", ".png")
"""Endings of films that are written."""


def write_film(path: Path, pictures: Sequence[np.ndarray], period_s: float) -> None:
    """Writes pictures (row column 3) that follow one another, over and over. UserError for another ending."""
    from PIL import Image

    if path.suffix.lower() not in FILMS:
        raise UserError(
            f"{path}: a film of a still picture is written as {', '.join(FILMS)}; give one of these endings"
        )
    first, *later = map(Image.fromarray, pictures)
    film = io.BytesIO()
    kind, duration = path.suffix[1:].upper(), round(1000 * period_s)
    first.save(film, kind, save_all=True, append_images=later, duration=duration, loop=0, **QUALITY.get(kind, {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, film.getvalue())


QUALITY: dict[str, dict[str, bool]] = {"WEBP": {"lossless": True}}
