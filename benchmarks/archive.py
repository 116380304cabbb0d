"""Series of the UCR/UEA archive: `train classify` as it is, beside 1-NN with DTW and MiniRocket.

    pip install '.[peers]'              in an environment of its own: aeon 1.6 wants NumPy below 2.4, numba below 0.64
    python benchmarks/archive.py

Every set of classes that the package aeon ships, in its own two parts; no setting is changed for any set: the training
file is what `steersman train classify --data SET_TRAIN.ts --split.test 0.01` takes, 15 % of it to choose weights by,
and the test file is scored once by `steersman evaluate RUN --data SET_TEST.ts`. Columns: accuracy, of the network and
of MiniRocket (Dempster et al. 2021) the mean and deviation over seeds; last row: mean rank, 1 the best. One thread.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.errors import UserError, exit_with_message
from steersman.evaluation.report import report_run
from steersman.recipes.series.recipes import classify
from steersman.training.fit import fit
from steersman.training.recipe import open_records

SETS = (
    "ACSF1", "ArrowHead", "BasicMotions", "Covid3Month_disc", "GunPoint", "ItalyPowerDemand", "JapaneseVowels",
    "OSULeaf", "PickupGestureWiimoteZ",
)  # fmt: skip
"""Sets of classes in aeon's wheel; its UnitTest is a part of a set."""


def shipped() -> Path:
    """The folder of aeon's data. UserError where it is not installed."""
    try:
        from aeon import datasets
    except ImportError:
        raise UserError("the sets come with aeon, which is not installed; run: pip install '.[peers]'") from None
    return Path(datasets.__file__).parent / "data"


def network(folder: Path, name: str, seed: int, runs: Path) -> float:
    """Accuracy of the recipe on a set's test file."""
    train, test = (str(folder / name / f"{name}_{part}.ts") for part in ("TRAIN", "TEST"))
    recipe = classify(open_records(classify(), [train]))
    recipe = replace(
        recipe, split=replace(recipe.split, test=0.01), training=replace(recipe.training, seed=seed), label=("label",)
    )
    run = fit("classify", recipe, runs / f"{name}-{seed}", [train], say=lambda text: None)
    return report_run(run, (test,), folder=runs / f"{name}-{seed}" / "test")["accuracy"]


def peers(folder: Path, name: str, seeds: list[int]) -> dict[str, list[float]]:
    """Accuracies of what stands beside it; series of unequal length are padded as aeon ships them (`_eq`)."""
    from aeon.classification.convolution_based import MiniRocketClassifier
    from aeon.classification.distance_based import KNeighborsTimeSeriesClassifier
    from aeon.datasets import load_from_ts_file

    even = f"{name}_eq" if (folder / name / f"{name}_eq_TRAIN.ts").exists() else name
    (x, y), (new, truth) = (load_from_ts_file(str(folder / name / f"{even}_{part}.ts")) for part in ("TRAIN", "TEST"))
    nearest = KNeighborsTimeSeriesClassifier(n_neighbors=1, distance="dtw").fit(x, y)
    rockets = [MiniRocketClassifier(random_state=seed).fit(x, y) for seed in seeds]
    said = {"1-NN DTW": [nearest], "MiniRocket": rockets}
    return {kind: [float((one.predict(new) == truth).mean()) for one in models] for kind, models in said.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/archive"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder, kinds = shipped(), ("classify", "1-NN DTW", "MiniRocket")
    columns = ("set", "series", "steps", "classes", *kinds, "CPU s a training")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    ranks = []
    for name in options.sets:
        begun = time.process_time()
        own = [network(folder, name, seed, options.folder) for seed in options.seeds]
        seconds = (time.process_time() - begun) / len(options.seeds)
        found = {"classify": own, **peers(folder, name, options.seeds)}
        records = open_records(classify(), [str(folder / name / f"{name}_TRAIN.ts")])
        classes = len({str(record["label"].values[0]) for record in records})
        cells = [f"{np.mean(found[kind]):.3f}" for kind in kinds]
        if len(options.seeds) > 1:
            spread = {kind: f" ± {np.std(found[kind]):.3f}" for kind in ("classify", "MiniRocket")}
            cells = [cell + spread.get(kind, "") for cell, kind in zip(cells, kinds, strict=True)]
        sizes = (len(records), max(map(len, records)), classes)
        print(f"| {' | '.join(map(str, (name, *sizes, *cells, round(seconds))))} |", flush=True)
        means = np.array([np.mean(found[kind]) for kind in kinds])
        ranks.append([(means > m).sum() + ((means == m).sum() + 1) / 2 for m in means])
    ranked = " | ".join(f"{rank:.2f}" for rank in np.mean(ranks, 0))
    print(f"| mean rank | | | | {ranked} | |")


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
