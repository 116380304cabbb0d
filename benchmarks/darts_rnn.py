"""Darts' RNNModel on the series of benchmarks/forecasts.py, with as much CPU time as the recipe `forecast` takes.

    python -m venv peer; peer/bin/pip install darts pytorch-lightning statsmodels bokeh-sampledata -e .
    peer/bin/python benchmarks/darts_rnn.py --seeds 0 1 2

A GRU of 64 units as the recipe has, on standardised levels, gaps filled with what was last known; the epoch with the
lowest loss on the validation part is kept. It forecasts a step at a time, each from the one before. Prints a Markdown
table: RMSE on the same steps of the test part, means over the seeds, lowest and highest in brackets.
"""

import argparse
import logging
import tempfile
import time
import warnings
from dataclasses import replace

import numpy as np
import torch
from forecasts import SETS, spread

from steersman.data.records import last_known
from steersman.errors import exit_with_message
from steersman.recipes.fitted import in_memory
from steersman.recipes.series.recipes import forecast
from steersman.recipes.series.rivals import came, counted

try:
    from darts import TimeSeries  # pyright: ignore[reportMissingImports]
    from darts.models import RNNModel  # pyright: ignore[reportMissingImports]
    from pytorch_lightning import Callback  # pyright: ignore[reportMissingImports]
except ImportError as missing:
    raise SystemExit(f"{missing}; in an environment of its own: pip install darts pytorch-lightning") from None

CONTEXT = 48
"""Steps from which it forecasts; it learns from windows of as many and the steps ahead."""


class Deadline(Callback):
    """Ends a training after so many CPU seconds."""

    def __init__(self, seconds: float):
        self.end = time.process_time() + seconds

    def on_train_batch_end(self, trainer, *rest) -> None:
        trainer.should_stop = trainer.should_stop or time.process_time() > self.end


def rmse(name: str, seed: int, seconds: float, part: str) -> float:
    table, horizon = SETS[name][0](), SETS[name][1]
    records = in_memory(table)
    recipe = replace(forecast(records), target=(list(table)[-1],), horizon=horizon)
    parts = recipe.divide(recipe.transform_records(records))
    levels = {name: last_known(np.asarray(of[0][recipe.target[0]].values, float)) for name, of in parts.items()}
    mean, deviation = np.nanmean(levels["train"]), np.nanstd(levels["train"])
    scaled = {
        name: np.nan_to_num((values - mean) / deviation).astype(np.float32)[:, None] for name, values in levels.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "input_chunk_length": CONTEXT,
            "training_length": CONTEXT + horizon,
            "model": "GRU",
            "hidden_dim": 64,
            "optimizer_kwargs": {"lr": 3e-3},
            "random_state": seed,
            "n_epochs": 100_000,
            "work_dir": folder,
            "model_name": "peer",
            "save_checkpoints": True,
            "pl_trainer_kwargs": {
                "accelerator": "cpu",
                "callbacks": [Deadline(seconds)],
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        }
        model = RNNModel(**options)
        model.fit(TimeSeries.from_values(scaled["train"]), val_series=TimeSeries.from_values(scaled["validation"]))
        model = RNNModel.load_from_checkpoint("peer", folder, best=True, trusted=True)
        record, values = parts[part][0], scaled[part]
        at = np.flatnonzero(counted(recipe, record))
        at = at[at >= CONTEXT]
        shown = [TimeSeries.from_values(values[t + 1 - CONTEXT : t + 1]) for t in at]
        said = np.stack([s.values()[:, 0] for s in model.predict(horizon, series=shown, verbose=False)])
    return float(np.sqrt(np.square(said * deviation + mean - came(recipe, record)[at, 0]).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=5, help="CPU seconds of a training")
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print("| series | Darts' RNNModel |\n|---|---|")
    for name in options.sets:
        found = [rmse(name, seed, options.seconds, options.part) for seed in options.seeds]
        print(f"| {name} | {spread(found)} |", flush=True)


if __name__ == "__main__":
    with exit_with_message("darts_rnn.py"):
        main()
