"""A large table: CPU seconds and memory of reading, dividing and batching it for a forecast of one step.

    python benchmarks/tables.py --rows 10000000

Makes a CSV of a clock and seven columns of numbers with three decimals. Prints the CPU seconds of each part and the
most memory the process has held until then, imports among it. One thread.
"""

import argparse
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from steersman.recipes.series.recipes import forecast
from steersman.training.prepare import divide, prepare
from steersman.training.recipe import open_records

BLOCK = 10_000
"""Rows that are drawn; the others repeat them."""


def write(path: Path, rows: int) -> None:
    drawn = [",".join(f"{v:.3f}" for v in row) for row in np.random.default_rng(0).normal(size=(BLOCK, 7))]
    with path.open("w") as file:
        file.write("t_s,a,b,c,d,e,f,g\n")
        file.writelines(f"{row},{drawn[row % BLOCK]}\n" for row in range(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begun = 0.0

    def told(what: str) -> None:
        nonlocal begun
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in KiB.
        print(f"{what:10} {time.process_time() - begun:7.2f} CPU s, {held:.2f} GB", flush=True)
        begun = time.process_time()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        write(path, options.rows)
        told("made")
        recipe = replace(forecast([0]), target=("g",), horizon=1)
        records = open_records(recipe, [str(path)])
        told("read")
        parts = divide(recipe, records=records)
        told("divided")
        prepared = prepare(recipe, parts)
        told("prepared")
        _ = prepared.batches.epoch(0)[0]
        told("batched")


if __name__ == "__main__":
    main()
