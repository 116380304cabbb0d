"""What the training loop costs beside the network, and how long a model takes from picture to action.

    python benchmarks/loop.py --drives drives/car-racing-100000

Trains the real `steer` recipe for some steps on one thread and prints the share of wall and CPU time that is
spent outside forward, backward and optimiser; then times single steps of batch 1.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman import RECIPES
from steersman.training.prepare import prepare
from steersman.training.trainer import Trainer
from steersman.worlds.recording import Recorded


def made(options: argparse.Namespace, folder: Path) -> tuple[Trainer, np.ndarray]:
    """The recipe's trainer without looks at validation records, and one recorded drive's pictures."""
    recipe = replace(RECIPES["steer"](), source=Recorded(episodes=options.episodes, folder=options.drives))
    records = recipe.source.read()
    made = prepare(recipe, {"train": records, "validation": []})
    training = replace(recipe.training, steps=options.steps, precision=options.precision)
    trainer = Trainer(made.model, made.batches, training, folder, say=lambda text: None)
    return trainer, np.asarray(records[0]["picture"].values[:200])


def overhead(trainer: Trainer) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    trainer.run()
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    all_s, compute_s = trainer.seconds["all"], trainer.seconds["compute"]
    print(f"{trainer.at.step} steps in {trainer.at.dtype}, one thread: {1e3 * all_s / trainer.at.step:.1f} ms a step")
    print(f"outside forward, backward and optimiser: {1 - compute_s / all_s:.1%} of the loop's time")
    print(f"the whole run, with measuring the precision and checkpoints: {wall:.1f} s wall, {cpu:.1f} s CPU")


def latency(trainer: Trainer, pictures: np.ndarray) -> None:
    model, state, seconds = trainer.model.eval(), None, []
    for picture in np.concatenate([pictures] * 3):
        began = time.perf_counter()
        _, state = model.step(picture, state)
        seconds.append(time.perf_counter() - began)
    warm = seconds[100:]
    worst = statistics.quantiles(warm, n=100)[98]
    middle = statistics.median(warm)
    print(f"picture to action, batch 1, one thread: median {1e3 * middle:.2f} ms, 99 % {1e3 * worst:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--drives", default="", help="folder of recorded drives; none: below drives, recorded if missing"
    )
    parser.add_argument("--episodes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer, pictures = made(options, Path(folder))
        overhead(trainer)
        latency(trainer, pictures)


if __name__ == "__main__":
    main()
