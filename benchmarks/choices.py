"""What each choice in training a model of steering is worth: the recipe as it is, and with one thing changed.

    python benchmarks/choices.py --data LOG --steps 240 --seeds 0 1

RMSE on the part held out for validation, never on the test part: by these rows defaults are chosen. All take the same
steps, and the last weights are scored: that part chooses none of them. One thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.data.augment import Light, Mirror, Shift
from steersman.errors import exit_with_message
from steersman.evaluation.metrics import rmse, smoothed
from steersman.recipes import RECIPES
from steersman.recipes.steer.labels import Balance, Lag, Steering
from steersman.training.fit import fit
from steersman.training.recipe import open_records
from steersman.training.run import Run


def without(base: Steering, *kinds: type) -> Steering:
    return replace(base, augment=tuple(a for a in base.augment if not isinstance(a, kinds)))


def variants(base: Steering) -> dict[str, Steering]:
    """Recipes by name; each differs from the first in one thing."""
    return {
        "as it is": base,
        "not mirrored": without(base, Mirror),
        "light as it was": without(base, Light),
        "not moved": without(base, Shift),
        "rare steering counts more": replace(base, balance=Balance(0.5)),
        "all steering counts alike": replace(base, balance=Balance(1.0)),
        "taught the wheel of 0.15 s ago": replace(base, lag=Lag(-0.15)),
        "taught the wheel in 0.15 s": replace(base, lag=Lag(0.15)),
        "sees its wheel of 3 steps ago": replace(base, past=3),
        "the change counts, too": replace(base, head=replace(base.head, rate=3.0)),  # pyright: ignore[reportArgumentType]
    }


def held_out(run: Run) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What is said and what was, of each record held out for validation."""
    model = run.model()
    shown = run.recipe.examples(model, run.records()["validation"])
    return [np.asarray(p)[:, 0] for p in model.predict(shown)], [e.y[:, 0] for e in shown]


def error(
    pairs: tuple[list[np.ndarray], list[np.ndarray]], changed: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> float:
    said, truth = pairs
    return round(rmse(np.concatenate([changed(s) for s in said]), np.concatenate(truth)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, help="recordings to train on")
    parser.add_argument("--steps", type=int, default=240, help="steps of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument("--folder", type=Path, default=Path("runs/choices"), help="a new one, for the runs")
    options = parser.parse_args()
    if options.folder.exists():
        parser.error(f"{options.folder} exists; name a new folder for the runs")
    torch.set_num_threads(1)
    base = RECIPES["steer"](open_records(RECIPES["steer"](()), options.data))
    if not isinstance(base, Steering):
        parser.error("the data are drives in the simulator; these are choices in learning from a log")
    fixed = {"steps": options.steps, "validate_every": options.steps, "patience": 0, "precision": options.precision}
    for name, recipe in variants(base).items():
        for seed in options.seeds if options.only in name else ():
            training = replace(recipe.training, seed=seed, **fixed)
            folder = options.folder / f"{name}-{seed}".replace(" ", "-")
            began = time.process_time()
            run = fit("steer", replace(recipe, training=training), folder, options.data)
            minutes = (time.process_time() - began) / 60
            pairs = held_out(run)
            row = {"choice": name, "seed": seed, "rmse": error(pairs), "cpu_minutes": round(minutes, 2)}
            print(json.dumps(row), flush=True)
            for newest in (0.6, 0.3) if recipe is base else ():
                smooth = error(pairs, lambda said, n=newest: smoothed(said, n))
                row = {"choice": f"smoothed, the newest counts {newest}", "seed": seed, "rmse": smooth}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    with exit_with_message(Path(__file__).name):
        main()
