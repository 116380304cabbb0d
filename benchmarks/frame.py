"""A steering frame end to end in process, decoding left out: a raw picture of 66x200 in, the wheel out, state carried.

    python benchmarks/frame.py [--repeats 100] [--records 8] [--steps 100] [--folder runs/frame]

Trains PilotNet with an LSTM of 128 units on the synthetic road, exports it in float32 and in int8 (whose error on
held-out drives stands beside that in float32), then steps it on one thread: `steersman.export.session`, plain
onnxruntime on the same graph, torch eager, int8. The ways take turns, frame after frame of a held-out drive, a block
each; prints the median CPU time of each and ratios of neighbouring blocks: median [lower and upper quartile].
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steersman.data.batches import Lanes
from steersman.data.splits import Split
from steersman.export.folder import export
from steersman.export.runtime import MODEL, QUANTISED, Carried
from steersman.export.session import Stepping
from steersman.nn.cores import LSTM
from steersman.nn.heads import Regression
from steersman.nn.model import Model
from steersman.nn.pictures import Conv
from steersman.sources.synthetic import Road
from steersman.training.fit import fit
from steersman.training.recipe import StepRecipe
from steersman.training.run import Run
from steersman.training.trainer import Training

BLOCK = 10
"""Frames in a row before the next way takes its turn."""


def trained(folder: Path, records: int, steps: int) -> Run:
    recipe = StepRecipe(
        encoder=Conv(),
        core=LSTM(128),
        head=Regression(("steer",)),
        source=Road(records=records, steps=120, height=66, width=200),
        batches=Lanes(batch_size=4, window=8),
        split=Split(validation=0.1, test=0.25),
        training=Training(steps=steps, learning_rate=1e-3, precision="float32", validate_every=100),
    )
    return fit("frame", recipe, folder)


def eager(model: Model) -> Callable[[np.ndarray], Any]:
    state: list[Any] = [None]

    def step(frame: np.ndarray) -> None:
        _, state[0] = model.step(frame, state[0])

    return step


def plain(made: bytes, model: Model) -> Callable[[np.ndarray], Any]:
    """`session.run` with a dictionary of arrays, as in onnxruntime's own examples."""
    carried = Carried(made, model.initial(1))
    return lambda frame: carried.step(frame[None])


def measure(ways: dict[str, Callable], frames: np.ndarray, repeats: int) -> dict[str, np.ndarray]:
    """CPU seconds a frame of each way in each block."""
    taken = {name: np.empty(repeats) for name in ways}
    for repeat in range(-5, repeats):  # The first few warm up and are measured over.
        some = [frames[(repeat * BLOCK + i) % len(frames)] for i in range(BLOCK)]
        for name, step in ways.items():
            began = time.process_time()
            for frame in some:
                step(frame)
            taken[name][repeat] = (time.process_time() - began) / BLOCK
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--records", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=Path("runs/frame"))
    given = parser.parse_args()
    run = trained(given.folder, given.records, given.steps)
    done = export(run, given.folder / "export", int8=True)
    torch.set_num_threads(1)
    model = run.model()
    frames = np.asarray(run.records()["test"][0][run.recipe.inputs].values)
    whole, small = ((done.folder / name).read_bytes() for name in (MODEL, QUANTISED))
    ways = {
        "steersman.export.session": Stepping(model, whole).step,
        "onnxruntime": plain(whole, model),
        "torch eager": eager(model),
        "int8": Stepping(model, small).step,
    }
    taken = measure(ways, frames, given.repeats)
    for name, seconds in taken.items():
        print(f"{name:<20}{1e6 * np.median(seconds):8.0f} CPU microseconds a frame")
    ours = "steersman.export.session"
    for title, slow, fast in (
        ("over onnxruntime", "onnxruntime", ours),
        ("over torch eager", "torch eager", ours),
        ("int8 over float32", ours, "int8"),
    ):
        low, middle, high = np.quantile(taken[slow] / taken[fast], (0.25, 0.5, 0.75))
        print(f"{title:<20}{middle:.2f}x [{low:.2f} {high:.2f}]")
    assert done.error is not None
    assert done.int8_error is not None
    lost, kept = 100 * (done.int8_error / done.error - 1), " and ".join(done.floats)
    print(f"{done.measure}: {done.error:.4g}, in int8 {done.int8_error:.4g} ({lost:+.2f} %; left in float32: {kept})")
    print(f"greatest difference from PyTorch: {done.disagreement:.2g}")


if __name__ == "__main__":
    main()
