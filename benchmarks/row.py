"""A step of a model of numbers in process: a row in, an estimate out by name, state carried.

    python benchmarks/row.py [--repeats 200] [--hidden 64 256]

An LSTM with a normaliser before it and an estimate behind it, by `steersman.export.session`, the same model's graph in
onnxruntime, and torch eager (`model.step`), in turns of 200 rows on one thread; prints the median CPU time of each and
ratios of neighbouring turns: median [lower and upper quartile].
"""

import argparse
import time

import numpy as np
import torch

from steersman.export.graph import step_graph
from steersman.export.session import Stepping
from steersman.nn.cores import LSTM
from steersman.nn.encoders import Identity
from steersman.nn.heads import Regression
from steersman.nn.model import Network

ROWS = 200
"""Rows in a row before the next way takes its turn."""
OURS = "steersman.export.session"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)
    for hidden in given.hidden:
        model = Network(Identity(), LSTM(hidden), Regression(("y",))).build((4,)).eval()
        state = [None]

        def eager(row, model=model, state=state):
            _, state[0] = model.step(row, state[0])

        graph = Stepping(model, step_graph(model).SerializeToString())
        ways = {OURS: Stepping(model).step, "onnxruntime": graph.step, "torch eager": eager}
        taken = {name: np.empty(given.repeats) for name in ways}
        for repeat in range(-5, given.repeats):  # The first few warm up and are measured over.
            for name, step in ways.items():
                began = time.process_time()
                for row in rows:
                    step(row)
                taken[name][repeat] = (time.process_time() - began) / ROWS
        print(f"LSTM of {hidden} units")
        for name, seconds in taken.items():
            low, middle, high = np.quantile(seconds / taken[OURS], (0.25, 0.5, 0.75))
            told = "" if name == OURS else f"  {middle:.1f}x [{low:.1f} {high:.1f}]"
            print(f"  {name:<26}{1e6 * np.median(seconds):8.2f} CPU microseconds a step{told}")


if __name__ == "__main__":
    main()
