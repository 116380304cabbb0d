"""Task of sounds told apart: beside what needs no network, with examples that can be heard."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.records import Record
from ...evaluation.outcome import Told
from ...evaluation.page import Audible, Block, Section, Table
from ...evaluation.sections import percent
from ...evaluation.tasks import Classify
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from ...training.task import Scores
from .sounds import Listen

LOGISTIC = "logistic regression on band means"
SHOWN_S = 3.0
"""Seconds of a sound at most that the page holds."""


@dataclass(frozen=True)
class Listening(Classify):
    """Sounds are told apart, once a record."""

    def rivals(self, run: Run, material: Material, watch: Watch = silent) -> dict[str, np.ndarray]:
        found = logistic(_listen(run), material.known["train"], material.test) if material.known else None
        return {} if found is None else {LOGISTIC: found}

    def shown(self, run: Run, record: Record, caption: str) -> Block | None:
        """A sound to be played, over the energies of its bands."""
        recipe = _listen(run)
        sound, rate_hz, (low_hz, high_hz) = recipe.samples(record), recipe.source.rate_hz, recipe.spectrogram.hz
        caption += f" {len(sound) / rate_hz:.2f} s to the right, {low_hz:.0f} to {high_hz:.0f} Hz upwards."
        return Audible(sound[: int(SHOWN_S * rate_hz)], rate_hz, log_energies(recipe, record), caption)

    def _told(self, scores: Scores, run: Run, records: Sequence[Record], said: np.ndarray, labels: np.ndarray) -> Told:
        summary, facts, sections = super()._told(scores, run, records, said, labels)
        if rival := scores["baselines"].get(LOGISTIC):
            says = f"A {LOGISTIC} names {percent(rival['accuracy'])} rightly"
            better = rival["accuracy"] > scores["accuracy"]
            summary = f"{says}, more than this model does. {summary}" if better else f"{summary} {says}."
        return summary, facts, [*sections, *_speakers(_listen(run), records, said.argmax(1) == labels)]


def _listen(run: Run) -> Listen:
    recipe: Any = run.recipe
    return recipe


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


def _speakers(recipe: Listen, records: Sequence[Record], right: np.ndarray) -> list[Section]:
    """How often it is right, speaker by speaker, where records tell who speaks."""
    who = np.array([str(record.about.get(recipe.speaker, "")) for record in records])
    if not all(who):
        return []
    rows = [[name, int((who == name).sum()), float(right[who == name].mean())] for name in np.unique(who).tolist()]
    table = Table(("speaker", "sounds", "accuracy"), sorted(rows, key=lambda row: row[2]))
    return [Section("Speaker by speaker", "Voices that no part of the training held.", [table])]
