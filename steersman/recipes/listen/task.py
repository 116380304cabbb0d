"""Task of sounds told apart: beside what needs no network, with examples that can be heard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.records import Record
from ...evaluation.outcome import Scored, Told
from ...evaluation.page import Audible, Section, Table
from ...evaluation.sections import percent
from ...evaluation.tasks import Classify
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from .sounds import Listen

LOGISTIC = "logistic regression on band means"
SHOWN = 6
"""Sounds of a kind that the page shows."""
SHOWN_S = 3.0
"""Seconds of a sound at most that the page holds."""


@dataclass(frozen=True)
class Listening(Classify):
    """Sounds are told apart, once a record."""

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        scored = super().evaluate(run, material, beside, watch)
        recipe: Any = run.recipe
        listen: Listen = recipe
        truths = np.array([listen.number(record) for record in material.test])
        if material.known and (likely := logistic(listen, material.known["train"], material.test)) is not None:
            scored.scores["baselines"][LOGISTIC] = {
                "accuracy": float((likely.argmax(1) == truths).mean()),
                "nats": float(-np.log(likely[np.arange(len(truths)), truths].clip(1e-12)).mean()),
            }
        return replace(scored, tell=lambda: self._heard(scored, run, listen, material.test, truths))

    def _heard(self, scored: Scored, run: Run, recipe: Listen, records: Sequence[Record], truths: np.ndarray) -> Told:
        summary, facts, (confusion, *sections) = scored.told()
        if rival := scored.scores["baselines"].get(LOGISTIC):
            says = f"A {LOGISTIC} names {percent(rival['accuracy'])} rightly"
            better = rival["accuracy"] > scored.scores["accuracy"]
            summary = f"{says}, more than this model does. {summary}" if better else f"{summary} {says}."
        model = run.model()
        likely = model.head.probabilities(torch.cat(model.answers(recipe.examples(model, records)))).numpy()
        right = likely.argmax(1) == truths
        sure = np.argsort(-likely.max(1), kind="stable")
        one_each = [next(i for i in sure if right[i] and truths[i] == c) for c in np.unique(truths[right])]
        kinds = (
            ("Wrong", "Those of which it was surest.", [i for i in sure if not right[i]]),
            ("Right", "Of each class the one of which it was surest.", one_each),
        )
        heard = [
            Section(
                title,
                f"{text} A picture shows a sound's energy, from left to right as time goes on, low frequencies at the "
                "bottom.",
                [audible(recipe, [records[i] for i in chosen[:SHOWN]], likely[chosen[:SHOWN]], recipe.classes)],
            )
            for title, text, chosen in kinds
            if chosen
        ]
        return summary, facts, [confusion, *heard, *_speakers(recipe, records, right), *sections]


def logistic(recipe: Listen, known: Sequence[Record], test: Sequence[Record]) -> np.ndarray | None:
    """Probabilities (record class) by logistic regression on each band's mean and deviation over a sound.

    None where scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return None
    line: Any = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    line.fit([summary(recipe, record) for record in known], [recipe.number(record) for record in known])
    found = np.zeros((len(test), len(recipe.classes)))
    found[:, line.classes_] = line.predict_proba([summary(recipe, record) for record in test])
    return found


def summary(recipe: Listen, record: Record) -> np.ndarray:
    """Mean and deviation over a sound of the logarithm of each band's energy."""
    bands = log_energies(recipe, record)
    return np.concatenate((bands.mean(0), bands.std(0)))


def log_energies(recipe: Listen, record: Record) -> np.ndarray:
    """Logarithms of a sound's energies (time band)."""
    encoder = recipe.spectrogram
    steps: Tensor = torch.from_numpy(np.asarray(recipe.seen(record, answers=False)[recipe.inputs].values))
    with torch.no_grad():
        return encoder.log_energies(steps.unsqueeze(0), encoder.initial(1)[0])[0][0].numpy()


def audible(recipe: Listen, records: Sequence[Record], likely: np.ndarray, names: Sequence[str]) -> Audible:
    """Sounds of records, what was said of each and what it is."""
    rate_hz, (low_hz, high_hz) = recipe.source.rate_hz, recipe.spectrogram.hz
    sounds = [recipe.samples(record)[: int(SHOWN_S * rate_hz)] for record in records]
    captions = [
        f"{record.name}: said {names[row.argmax()]} ({percent(row.max())}), is {names[recipe.number(record)]}; "
        f"{len(sound) / rate_hz:.2f} s, {low_hz:.0f} to {high_hz:.0f} Hz"
        for record, row, sound in zip(records, likely, sounds, strict=True)
    ]
    return Audible(sounds, rate_hz, [log_energies(recipe, record) for record in records], captions)


def _speakers(recipe: Listen, records: Sequence[Record], right: np.ndarray) -> list[Section]:
    """How often it is right, speaker by speaker, where records tell who speaks."""
    who = np.array([str(record.about.get(recipe.speaker, "")) for record in records])
    if not all(who):
        return []
    rows = [[name, int((who == name).sum()), float(right[who == name].mean())] for name in np.unique(who).tolist()]
    table = Table(("speaker", "sounds", "accuracy"), sorted(rows, key=lambda row: row[2]))
    return [Section("Speaker by speaker", "Voices that no part of the training held.", [table])]
