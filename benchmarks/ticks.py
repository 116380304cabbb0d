"""The recipe `ticks` on a day of an order book of LOBSTER's, beside logistic regression and boosting on lags.

    python benchmarks/ticks.py --data FOLDER_OF_MESSAGE_AND_ORDERBOOK --seeds 0 1 2

Prints a Markdown table: macro-F1 and accuracy on the test part (the last fifth of the day), and the median time of a
step from the inputs of an event to its chances, one thread.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from steersman.errors import exit_with_message
from steersman.evaluation.page import figure
from steersman.nn.forms import row_form
from steersman.nn.stepper import RowStepper
from steersman.recipes.market.recipes import ticks
from steersman.sources.order_books import read
from steersman.training.fit import fit
from steersman.training.material import material
from steersman.training.run import Run
from steersman.training.task import task_of


def latency_us(run: Run) -> float:
    """Median microseconds from the inputs of an event to its chances, over the test part's last events."""
    model, recipe = run.model(), run.steps
    rows = np.asarray(recipe.seen(run.records()["test"][0])["values"].values, np.float32)[-5000:]
    step, read_out = RowStepper(model).session(), row_form.of(model.head)(model.head, ())
    took = []
    for row in rows:
        began = time.perf_counter_ns()
        read_out(step({"values": row}, 0.1))
        took.append(time.perf_counter_ns() - began)
    return float(np.median(took)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--events", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records, rows = read(options.data), {}
    for seed in options.seeds:
        recipe = replace(ticks(records), events=options.events)
        recipe = replace(recipe, training=replace(recipe.training, seed=seed))
        began = time.process_time()
        with TemporaryDirectory() as folder:
            run = fit("ticks", recipe, folder, [str(options.data)], say=lambda text: None, records=records)
            seconds = time.process_time() - began
            whole = material(run)
            # Rivals are the same for each seed.
            shown = whole if seed == options.seeds[-1] else replace(whole, known=None)
            scores = task_of(run.recipe).evaluate(run, shown, ()).scores
            rows[f"**`ticks`, seed {seed}**"] = (scores, f"{latency_us(run):.1f}", f"{seconds:.0f}")
    rows |= {name: (row, "", "") for name, row in scores["baselines"].items()}
    print("| | macro-F1 | accuracy | us a tick | CPU s of training |\n|---|---|---|---|---|")
    for name, (row, took, seconds) in rows.items():
        print(f"| {name} | {figure(row['macro_f1'])} | {figure(row['accuracy'])} | {took} | {seconds} |")
    print(f"\n{scores['items']:,} events; flat: a relative change of at most {scores['flat']:.2g}")


if __name__ == "__main__":
    with exit_with_message("ticks.py"):
        main()
