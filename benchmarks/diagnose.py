"""Death in hospital on PhysioNet 2012: recurrent ensembles, boosting, their blend; chosen by folds inside set a.

    python benchmarks/diagnose.py --train set-a --test set-b --seeds 0 1 2

Each seed deals set a into five folds. Each model is trained on four of them and asked about the fifth, which chooses
the blend's weight and the threshold; about set b, looked at once, the five are averaged. Rows: a seed and a model.
Without --test only the folds are scored. A fold that was trained before is not trained again. One thread.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.errors import exit_with_message
from steersman.evaluation.calibration import calibration_error, reliability
from steersman.evaluation.predict import class_chances
from steersman.evaluation.ranking import auroc_interval, best_threshold, blend_weight, min_se_ppv, two_class_scores
from steersman.recipes.diagnose.recipes import diagnose
from steersman.recipes.series.summaries import boosting, logistic, summaries
from steersman.sources.physionet import DIED
from steersman.training.fit import fit
from steersman.training.recipe import open_records

FOLDS = 5


class Patients:
    """What is asked, and what each model says: of set a by the model that did not see the patient, of set b by all."""

    def __init__(self, train: str, test: str):
        raw = open_records(diagnose(), [train])
        self.recipe = diagnose(raw)
        self.known = self.recipe.transform_records(raw)
        self.new = self.recipe.transform_records(open_records(self.recipe, [test])) if test else []
        adapted = self.recipe.adapt({"train": self.known, "validation": [], "test": []})
        self.place = adapted.classes.index(DIED)
        self.truth, self.truth_new = (
            np.array([adapted.numbers_of_classes([r])[0] == self.place for r in records])
            for records in (self.known, self.new)
        )
        self.x = summaries(adapted, self.known)
        self.x_new = summaries(adapted, self.new) if self.new else self.x[:0]
        self.number = {record.name: i for i, record in enumerate(self.known)}

    def recurrent(self, seed: int, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """What the recipe says of both sets."""
        held, new = np.zeros(len(self.known)), np.zeros(len(self.new))
        for fold in range(FOLDS):
            split = replace(self.recipe.split, validation=0.0, folds=FOLDS, fold=fold, seed=seed)
            training = replace(self.recipe.training, seed=FOLDS * seed + fold)
            recipe = replace(self.recipe, split=split, training=training)
            run = fit("diagnose", recipe, folder / f"seed-{seed}-fold-{fold}", records=self.known, say=lambda _: None)
            test = run.records()["test"]
            held[[self.number[record.name] for record in test]] = class_chances(run, test)[:, self.place]
            if self.new:
                new += class_chances(run, self.new)[:, self.place] / FOLDS
        return held, new

    def fitted(self, learn, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """What a classifier of summaries says of both sets."""
        held, new = np.zeros(len(self.known)), np.zeros(len(self.new))
        order = np.random.default_rng(seed).permutation(len(self.known))
        for fold in np.array_split(order, FOLDS):
            rest = np.setdiff1d(order, fold)
            model = learn(self.x[rest], self.truth[rest])
            held[fold] = model.predict_proba(self.x[fold])[:, 1]
            if self.new:
                new += model.predict_proba(self.x_new)[:, 1] / FOLDS
        return held, new


def row(name: str, seed: int, said: tuple[np.ndarray, np.ndarray], patients: Patients, seconds: float) -> dict:
    """Scores of the folds and of set b; the threshold is that of the folds."""
    (held, new), found = said, {"model": name, "seed": seed, "cpu_s": round(seconds, 1)}
    threshold = best_threshold(held, patients.truth)
    found |= {f"{key}, folds": value for key, value in two_class_scores(held, patients.truth).items()}
    if patients.new:
        truth = patients.truth_new
        scores = two_class_scores(new, truth) | {"min_se_ppv": min_se_ppv(new, truth, threshold)}
        rows = reliability(new, truth)
        scores["ece"] = calibration_error(rows)
        found |= scores
        found["interval"] = auroc_interval(new, truth)
        found["reliability"] = [(r["items"], r["said"], r["was"]) for r in rows if r["items"]]
    return found


def told(found: dict) -> str:
    """A row as JSON, numbers with four digits."""
    return json.dumps(json.loads(json.dumps(found), parse_float=lambda number: round(float(number), 4)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="set a: a folder, or ARCHIVE?set=a")
    parser.add_argument("--test", default="", help="set b; it is scored once, at the end of the work")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/diagnose-table"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    patients = Patients(options.train, options.test)
    for seed in options.seeds:
        said, seconds = {}, {}
        ways = {
            "logistic regression": lambda seed=seed: patients.fitted(logistic, seed),
            "boosting": lambda seed=seed: patients.fitted(lambda x, y: boosting(x, y, seed), seed),
            "recurrent, five folds": lambda seed=seed: patients.recurrent(seed, options.folder),
        }
        for name, way in ways.items():
            began = time.process_time()
            said[name] = way()
            seconds[name] = time.process_time() - began
            print(told(row(name, seed, said[name], patients, seconds[name])), flush=True)
        ours, trees = said["recurrent, five folds"], said["boosting"]
        share = blend_weight(ours[0], trees[0], patients.truth)
        both = (share * ours[0] + (1 - share) * trees[0], share * ours[1] + (1 - share) * trees[1])
        total = seconds["recurrent, five folds"] + seconds["boosting"]
        print(told(row(f"blend, {share:g} recurrent", seed, both, patients, total)), flush=True)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
