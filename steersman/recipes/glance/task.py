"""Task of pictures read glimpse by glimpse: beside what sees all of them, and beside glimpses at random places."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...data.records import Record
from ...evaluation.outcome import Told
from ...evaluation.page import Block, Film
from ...evaluation.sections import percent
from ...evaluation.tasks import Classify
from ...progress import Watch, silent
from ...sources.pictures import PICTURE
from ...training.material import Material
from ...training.run import Run
from ...training.task import Scores
from ..stills import enlarged, write_film

NEAREST, ANYWHERE = "nearest picture", "the same model, looking anywhere"
PERIOD_S = 0.7
"""Seconds that a glimpse is shown."""
FILMED = 12
"""Pictures of a film."""


@dataclass(frozen=True)
class Glancing(Classify):
    """Pictures are told apart from a few glimpses, by where the model looks itself."""

    def rivals(self, run: Run, material: Material, watch: Watch = silent) -> dict[str, np.ndarray]:
        model, recipe = run.model(), _recipe(run)
        found = {ANYWHERE: anywhere(model, _pictures(run, material.test), recipe.steps)}
        if material.known:
            known, labels = _pictures(run, material.known["train"]), [_label(run, r) for r in material.known["train"]]
            found[NEAREST] = nearest(known, np.array(labels), _pictures(run, material.test), model.head.classes)
        return found

    def shown(self, run: Run, record: Record, caption: str) -> Block | None:
        """The picture, where it looked one glimpse after the other."""
        return Film(glimpsed(run, record), PERIOD_S, caption)

    def film(self, run: Run, material: Material, path: Path, watch: Watch = silent) -> None:
        """Films where it looks in some test pictures, one after the other."""
        frames = [frame for record in material.test[:FILMED] for frame in glimpsed(run, record)]
        write_film(path, frames, PERIOD_S)

    def _told(self, scores: Scores, run: Run, records: Sequence[Record], said: np.ndarray, labels: np.ndarray) -> Told:
        summary, facts, sections = super()._told(scores, run, records, said, labels)
        right = {name: row["accuracy"] for name, row in scores["baselines"].items()}
        if NEAREST in right and right[NEAREST] > scores["accuracy"]:
            summary = f"The nearest training picture, seen whole, names {percent(right[NEAREST])}, more. {summary}"
        summary += f" With glimpses at random places the same model names {percent(right[ANYWHERE])}."
        return summary, facts, sections


def _recipe(run: Run) -> Any:
    return run.recipe


def _label(run: Run, record: Record) -> float:
    recipe = _recipe(run)
    return float(recipe.answers(record)[recipe.head.targets[0]].values[0])


def _pictures(run: Run, records: Sequence[Record]) -> Tensor:
    """The first picture of each record (record height width), as the model sees it."""
    seen = (run.steps.seen(record, answers=False)[PICTURE].values[:1] for record in records)
    return torch.from_numpy(np.concatenate([np.asarray(picture) for picture in seen]))


@torch.no_grad()
def nearest(known: Tensor, labels: np.ndarray, pictures: Tensor, classes: int, neighbours: int = 3) -> np.ndarray:
    """Probabilities (picture class) by votes of the nearest known pictures, by the squared difference of pixels."""
    flat, truth = known.flatten(1).float() / 255, torch.from_numpy(labels).long()
    square, found = flat.square().sum(1), []
    for part in pictures.split(256):
        far = square - 2 * (part.flatten(1).float() / 255) @ flat.T
        votes = F.one_hot(truth[far.topk(min(neighbours, len(flat)), largest=False).indices], classes).sum(1)
        # Of equal votes the nearest counts; no class is impossible.
        found.append(votes + 0.1 + 0.2 * F.one_hot(truth[far.argmin(1)], classes))
    votes = torch.cat(found)
    return (votes / votes.sum(1, keepdim=True)).numpy()


@torch.no_grad()
def anywhere(model: Any, pictures: Tensor, steps: int, seed: int = 0) -> np.ndarray:
    """Probabilities (picture class) where it looks at random places instead of where it would."""
    generator, found = torch.Generator().manual_seed(seed), []
    for part in pictures.split(1024):
        _, state = model.initial(len(part))
        places = torch.rand(len(part), steps, 2, generator=generator) * 2 - 1
        y, _ = model.core(model.encoder.at(part.unsqueeze(1).expand(-1, steps, -1, -1), places), state)
        found.append(model.head.probabilities(model.head(y[:, -1])).double())
    return torch.cat(found).numpy()


def glimpsed(run: Run, record: Record) -> list[np.ndarray]:
    """A picture, and where it looks in it, a frame a glimpse, what it has seen before behind; colours uint8."""
    model: Any = run.model()
    pictures = torch.from_numpy(np.array(run.steps.seen(record, answers=False)[PICTURE].values))
    places = model.places(pictures[None], model.initial(1), draw=False)[0, :-1].numpy()
    return list(_frames(pictures.numpy(), places, model.encoder.spec.sensor))


def _frames(pictures: np.ndarray, places: np.ndarray, sensor: Any) -> Iterator[np.ndarray]:
    from PIL import Image, ImageDraw

    height, width = pictures.shape[1:]
    middles = (places + 1) / 2 * (height, width)
    for step, picture in enumerate(pictures):
        large = enlarged(picture)
        times = large.shape[0] // height
        image = Image.fromarray(large)
        pen = ImageDraw.Draw(image)
        path = [tuple((middle[::-1] * times).tolist()) for middle in middles[: step + 1]]
        if step:
            pen.line(path, fill=BEHIND, width=2)
        for scale in range(sensor.scales):
            side = sensor.size << scale
            top, left = np.round(middles[step] - side / 2) * times
            pen.rectangle((left, top, left + side * times - 1, top + side * times - 1), outline=NOW, width=3)
        yield np.asarray(image)


BEHIND, NOW = (74, 144, 226), (234, 150, 40)
