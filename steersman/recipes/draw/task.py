"""Task of drawing: a bound on how likely pictures are, beside what needs no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ...data.records import Record
from ...evaluation.outcome import Scored, Told, contract, scores_beside
from ...evaluation.page import Fact, Film, Pictures, Section, Table, figure
from ...nn.drawing import Canvas
from ...nn.model import SequenceModel
from ...progress import Watch, silent
from ...sources.pictures import PICTURE
from ...training.material import Material
from ...training.recipe import Recipe
from ...training.run import Run
from ...training.task import Scores, TaskSpec
from ..stills import sheet, write_film

MIXTURE = "mixture of Bernoullis"
COMPONENTS, ROUNDS = 100, 30
"""Parts of the mixture, and rounds of expectation and maximisation."""
PERIOD_S = 0.25
"""Seconds that a stroke is shown."""
SHOWN = 32
"""Pictures on the page."""


@dataclass(frozen=True)
class Draw(TaskSpec):
    """Pictures are drawn; scored by the variational bound on their negative log-likelihood, in nats a picture."""

    measure: ClassVar[str] = "nats"
    heads = (Canvas,)
    columns: ClassVar[tuple[str, ...]] = ("nats", "nats_of_pixels", "nats_of_codes")

    def validation(self, recipe: Recipe, model: SequenceModel, examples: Sequence[Any]) -> float:
        """The bound, with the same draws of codes each time."""
        return float(nats(model, examples).sum(1).mean())

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        model: Any = run.model()
        found = nats(model, run.recipe.examples(model, material.test, watch))
        whole = found.sum(1)
        scores = {
            "nats": float(whole.mean()),
            "nats_of_pixels": float(found[:, 0].mean()),
            "nats_of_codes": float(found[:, 1].mean()),
            "standard_error": float(whole.std() / max(1, len(whole)) ** 0.5),
            "pictures": len(found),
            "steps": run.recipe.steps,  # pyright: ignore[reportAttributeAccessIssue]
            "data": material.name,
            "note": "a bound on the negative log-likelihood, one draw of the codes a picture",
        }
        rivals = {}
        if material.known:
            known, test = (pixels(run, part) for part in (material.known["train"], material.test))
            rivals = {"mean": bernoulli(known, test), MIXTURE: mixture(known, test)}
        rows = {name: {"nats": value, "nats_of_pixels": value, "nats_of_codes": None} for name, value in rivals.items()}
        scores["baselines"] = rows | scores_beside(self, self.columns, beside, material)
        scores = contract(self, scores, self.columns)
        return Scored(scores, lambda: _told(scores, run, material.test))

    def film(self, run: Run, material: Material, path: Path, watch: Watch = silent) -> None:
        """Films what it draws."""
        write_film(path, strokes(run.model(), scene(run)), PERIOD_S)


def nats(model: Any, examples: Sequence[Any], seed: int = 0) -> np.ndarray:
    """Nats (record 2) of pixels and of codes, one draw of the codes each."""
    training = model.training
    model.eval()
    found = np.concatenate(list(model.bounds(examples, torch.Generator().manual_seed(seed))))
    model.train(training)
    return found


def pixels(run: Run, records: Sequence[Record]) -> np.ndarray:
    """Pixels (record pixel) of 0 or 1, as the model sees the first picture of each."""
    seen = [np.asarray(run.steps.seen(record)[PICTURE].values[0]) for record in records]
    return (np.stack(seen).reshape(len(seen), -1) > 127).astype(np.float32)


def bernoulli(known: np.ndarray, pictures: np.ndarray) -> float:
    """Nats a picture where each pixel is white as often as in the known ones."""
    share = (known.sum(0, dtype=np.float64) + 0.5) / (len(known) + 1)
    return float(-(pictures @ np.log(share) + (1 - pictures) @ np.log1p(-share)).mean())


def mixture(known: np.ndarray, pictures: np.ndarray, seed: int = 0) -> float:
    """Nats a picture under a mixture of independent pixels, fitted by expectation and maximisation."""
    rng, parts = np.random.default_rng(seed), min(COMPONENTS, max(1, len(known) // 4))
    share = np.full((parts, known.shape[1]), known.mean(0)) * 0.5 + 0.5 * known[rng.choice(len(known), parts, False)]
    share, weight = share.clip(1e-3, 1 - 1e-3).astype(np.float32), np.full(parts, 1 / parts, np.float32)

    def log_likelihoods(of: np.ndarray) -> np.ndarray:
        return of @ np.log(share / (1 - share)).T + np.log1p(-share).sum(1) + np.log(weight)

    for _ in range(ROUNDS):
        logs = log_likelihoods(known)
        belongs = np.exp(logs - logs.max(1, keepdims=True))
        belongs /= belongs.sum(1, keepdims=True)
        count = belongs.sum(0)
        weight = (count + 1e-3) / (count + 1e-3).sum()
        share = ((belongs.T @ known + 0.1) / (count[:, None] + 0.2)).clip(1e-4, 1 - 1e-4)
    return float(-np.logaddexp.reduce(log_likelihoods(pictures).astype(np.float64), 1).mean())


def scene(run: Run) -> int:
    """Steps in which the run draws."""
    return run.recipe.steps  # pyright: ignore[reportAttributeAccessIssue]


def strokes(model: Any, steps: int, number: int = SHOWN, seed: int = 0) -> list[np.ndarray]:
    """Sheets of pictures, what comes of them and then each step; grey is how likely a pixel is white."""
    drawn = model.drawings(number, steps, torch.Generator().manual_seed(seed))
    sheets = [sheet((picture.numpy() * 255).round().astype(np.uint8)) for picture in drawn]
    return sheets[-1:] * 4 + sheets[:-1]  # What is printed is the first.


def _told(scores: Scores, run: Run, records: Sequence[Record]) -> Told:
    model: Any = run.model()
    rivals = {name: row["nats"] for name, row in scores["baselines"].items()}
    best = min(rivals, key=lambda name: rivals[name]) if rivals else ""
    better = best and rivals[best] < scores["nats"]
    summary = (
        f"On average a picture of {scores['data']} costs it at most {figure(scores['nats'])} nats "
        f"({figure(scores['nats_of_pixels'])} for its pixels, {figure(scores['nats_of_codes'])} for its codes)"
    )
    summary += f"; the best of its baselines, {best}, {figure(rivals[best])}." if best else "."
    facts = [
        Fact("Nats a picture", figure(scores["nats"]), f"standard error {figure(scores['standard_error'])}"),
        Fact("Steps", f"{scores['steps']}", "strokes a picture"),
        Fact("Pictures", f"{scores['pictures']:,}", "scored, each with one draw of its codes"),
    ]
    names = sorted({"this run": scores["nats"], **rivals}.items(), key=lambda row: row[1])
    table = Table(("", "nats"), [[name, value] for name, value in names])
    first = [np.asarray(run.steps.seen(record)[PICTURE].values) for record in records[:SHOWN]]
    copied = copies(model, np.stack(first))
    return (
        f"{best.capitalize()} needs fewer nats than this model. {summary}" if better else summary,
        facts,
        [
            Section("Beside the baselines", "Nats a picture, the fewer the better: the bound of this run.", [table]),
            Section(
                "What it draws",
                "From codes that are drawn by chance, stroke after stroke; nobody wrote these. Grey is how likely a "
                "pixel is white.",
                [Film(strokes(model, scene(run)), PERIOD_S, f"{SHOWN} pictures, {scene(run)} strokes each.")],
            ),
            Section(
                "What it copies",
                "Pictures that it never trained on, and what it draws after having looked at them.",
                [
                    Pictures([sheet(f[:, -1]), sheet(c)], ["As they are.", "Its copies."])
                    for f, c in [(np.stack(first), copied)]
                ],
            ),
        ],
    )


@torch.no_grad()
def copies(model: Any, pictures: np.ndarray) -> np.ndarray:
    """What it draws after having looked at pictures (number step height width), uint8 (number height width)."""
    raw, _ = model.run(torch.from_numpy(np.array(pictures)), model.initial(len(pictures)))
    return (model.head.point(raw[:, -1]).numpy() * 255).round().astype(np.uint8).reshape(-1, *pictures.shape[2:])
