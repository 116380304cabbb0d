"""The recipe `glucose` on half a year of one person's sensor, 30 and 60 minutes ahead, beside what needs no network.

    pip install bokeh-sampledata scikit-learn
    python benchmarks/glucose.py --seeds 0 1 2

Prints Markdown tables: RMSE, zones of the Clarke error grid and how much lies in the 80 % band, on the test part (the
last 15 %); and alarms before a low, at the threshold with one false alarm a day on the validation part. Runs are kept
in `--runs`, which benchmarks/forecasts.py shares.
"""

import argparse
from pathlib import Path

import numpy as np
from forecasts import glucose, spread, trained

from steersman.errors import exit_with_message
from steersman.evaluation.page import figure
from steersman.recipes.glucose.clinical import ZONES, alarms, threshold_for
from steersman.recipes.glucose.task import ahead_scores, lowest
from steersman.recipes.series.rivals import rivals
from steersman.recipes.series.task import Truth, forecasts
from steersman.training.material import Material

ROWS = 40_000
"""Rows that boosting learns from, twelve a reading."""
AHEAD = {"30 minutes": 6, "60 minutes": 12}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/forecasts"))
    options = parser.parse_args()
    table, says, truths = glucose(), {"validation": {}, "test": {}}, {}
    for seed in options.seeds:
        run = trained("glucose, 5 minutes", table, seed, options.runs)
        known = run.records()
        for part, found in says.items():
            own = forecasts(run, Material(run, known[part], part, known))
            truths[part] = Truth(run.recipe, known[part], known["train"], own.counts)
            found[f"seed {seed}"] = own
    names = list(says["test"])
    for part, found in says.items():
        found |= rivals(run.recipe, known, known[part], truths[part].season, ROWS)
    print(f"| ahead | | RMSE (mg/dL) | 80 % band | {' | '.join(f'{z} (%)' for z in ZONES)} |\n|{'---|' * 9}")
    for minutes, step in AHEAD.items():
        rows = {name: ahead_scores(truths["test"], said, step) for name, said in says["test"].items()}
        own = [rows.pop(name) for name in names]
        cells = [spread([row["rmse"] for row in own]), spread([100 * row["coverage_80"] for row in own])]
        cells += [figure(100 * float(np.mean([row["zones"][z] for row in own]))) for z in ZONES]
        print(f"| {minutes} | **`glucose`** | {' | '.join(cells)} |")
        for name, row in rows.items():
            cells = [figure(row["rmse"]), figure(100 * row["coverage_80"])]
            cells += [figure(100 * row["zones"][z]) for z in ZONES]
            print(f"| | {name} | {' | '.join(cells)} |")
    print("\n| | alarm below (mg/dL) | lows foreseen | false alarms a day | minutes before |\n|---|---|---|---|---|")
    for name, said in says["test"].items():
        threshold = threshold_for(lowest(truths["validation"], says["validation"][name]))
        found = alarms(lowest(truths["test"], said), threshold)
        recall, warned = (figure(each) for each in (found.recall, found.warned_min))
        called = f"`glucose`, {name}" if name in names else name
        print(f"| {called} | {threshold:.0f} | {recall} of {found.lows} | {found.false_a_day:.2f} | {warned} |")


if __name__ == "__main__":
    with exit_with_message("glucose.py"):
        main()
