"""Spoken digits of a speaker who was never heard: each speaker is the test in turn, beside what needs no network.

    python benchmarks/listen.py FOLDER                       the table, one seed; FOLDER/{digit}_{speaker}_{take}.wav
    python benchmarks/listen.py FOLDER --seeds 0 1 2         more seeds, and their mean probabilities together
    python benchmarks/listen.py FOLDER --validation          validation speakers instead: what settings are chosen by
    python benchmarks/listen.py FOLDER --neighbour           also the nearest recording by dynamic time warping

The settings are those of `steersman train listen`. By default all four others are trained on, and nothing is chosen on
the test speaker; with --validation one of the four is kept apart and scored, and the test speaker is not looked at.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.data.records import Record, Stream
from steersman.errors import exit_with_message
from steersman.recipes.listen.recipes import listen
from steersman.recipes.listen.sounds import Listen
from steersman.recipes.listen.task import log_energies, logistic
from steersman.sources.sound import SOUND, read, samples
from steersman.training.fit import fit

PATTERN = "{digit}_{speaker}_{take}"


def decoded(folder: Path, rate_hz: int) -> list[Record]:
    """All sounds, decoded once."""
    found = []
    for record in read(folder, PATTERN):
        sound = samples(record, rate_hz)
        found.append(Record(record.name, {SOUND: Stream(sound, np.arange(len(sound)) / rate_hz)}, record.about))
    return found


def probabilities(
    recipe: Listen, records: Sequence[Record], part: str
) -> tuple[np.ndarray, np.ndarray, Listen, dict[str, list[Record]]]:
    """What a trained model says of a part (record class), the truth, and the recipe and parts as it was trained."""
    with tempfile.TemporaryDirectory() as folder:
        run = fit("listen", recipe, folder, records=records, say=lambda line: None)
        model, trained = run.model(), run.recipe
        assert isinstance(trained, Listen)
        parts = trained.divide(records)
        answers = model.answers(trained.examples(model, parts[part]))
    truths = np.array([trained.number(record) for record in parts[part]])
    return model.head.probabilities(torch.cat(answers)).numpy(), truths, trained, parts


def neighbours(recipe: Listen, known: Sequence[Record], asked: Sequence[Record]) -> np.ndarray:
    """Class of the nearest known sound, by dynamic time warping (Sakoe & Chiba 1978) of energies without their mean."""
    lines = [_plain(recipe, record) for record in known]
    longest = max(map(len, lines))
    held = np.stack([np.pad(line, ((0, longest - len(line)), (0, 0))) for line in lines])
    ends, classes = np.array([len(line) for line in lines]) - 1, np.array([recipe.number(record) for record in known])
    return np.array([classes[(_warped(_plain(recipe, one), held, ends)).argmin()] for one in asked])


def _plain(recipe: Listen, record: Record) -> np.ndarray:
    bands = log_energies(recipe, record)
    return bands - bands.mean(0)


def _warped(line: np.ndarray, held: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Least mean distance along a path from start to end, to each of many (record time band) of which `ends` are last.

    A step is one on in either or in both.
    """
    squares = (held**2).sum(2)[:, None] + (line**2).sum(1)[None, :, None] - 2 * np.einsum("ib,rjb->rij", line, held)
    distance = np.sqrt(squares.clip(0))
    best = distance[:, 0].cumsum(1)
    for i in range(1, len(line)):
        step = np.minimum(best, np.pad(best, ((0, 0), (1, 0)), constant_values=np.inf)[:, :-1])
        row = np.empty_like(best)
        row[:, 0] = step[:, 0] + distance[:, i, 0]
        for j in range(1, held.shape[1]):
            row[:, j] = np.minimum(step[:, j], row[:, j - 1]) + distance[:, i, j]
        best = row
    return best[np.arange(len(held)), ends] / (len(line) + ends + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--speakers", nargs="+", default=[])
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--neighbour", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = decoded(given.folder, 8_000)
    speakers = sorted({record.about["speaker"] for record in records})
    scores: dict[str, dict[str, float]] = {}
    for speaker in given.speakers or speakers:
        after = speakers[(speakers.index(speaker) + 1) % len(speakers)]
        recipe = replace(listen(records), test_speakers=(speaker,))
        if given.validation:
            part, recipe = "validation", replace(recipe, validation_speakers=(after,))
        else:
            part, recipe = "test", replace(recipe, split=replace(recipe.split, validation=0))
        column, together = after if given.validation else speaker, []
        for seed in given.seeds:
            began = time.process_time()
            seeded = replace(recipe, training=replace(recipe.training, seed=seed))
            likely, truths, trained, parts = probabilities(seeded, records, part)
            together.append(likely)
            scores.setdefault(f"listen, seed {seed}", {})[column] = _accuracy(likely, truths)
            spent = f"{time.process_time() - began:.0f} CPU seconds"
            print(f"{column}, seed {seed}: {_accuracy(likely, truths):.3f}, {spent}", flush=True)
        if len(together) > 1:
            scores.setdefault(f"listen, {len(together)} seeds together", {})[column] = _accuracy(
                np.mean(together, 0), truths
            )
        rival = logistic(trained, parts["train"], parts[part])
        assert rival is not None, "scikit-learn is not installed"
        scores.setdefault("logistic regression on band means", {})[column] = _accuracy(rival, truths)
        if given.neighbour:
            guess = neighbours(trained, parts["train"], parts[part])
            scores.setdefault("nearest neighbour, DTW", {})[column] = float((guess == truths).mean())
        counts = np.bincount([trained.number(record) for record in parts["train"]])
        scores.setdefault("majority", {})[column] = float((truths == counts.argmax()).mean())
    columns = list(next(iter(scores.values())))
    print(f"| | {' | '.join(columns)} | mean |\n|---|{'---|' * (len(columns) + 1)}")
    for name, row in scores.items():
        print(f"| {name} | {' | '.join(f'{row[c]:.3f}' for c in columns)} | {np.mean(list(row.values())):.3f} |")


def _accuracy(likely: np.ndarray, truths: np.ndarray) -> float:
    return float((likely.argmax(1) == truths).mean())


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
