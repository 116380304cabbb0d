"""The recipe `forecast` as it is on five series that packages ship, beside what needs no network.

    pip install statsmodels bokeh-sampledata scikit-learn
    python benchmarks/forecasts.py --seeds 0 1 2

Prints a Markdown table: RMSE on the test part (the last 15 %), means over the seeds, lowest and highest in brackets.
`--part validation` scores the part before it instead, for choosing; runs are kept in `--runs` and trained once.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import steersman as sm
from steersman.errors import UserError, exit_with_message
from steersman.evaluation.page import figure
from steersman.recipes.fitted import Fitted
from steersman.recipes.series.summaries import has_scikit_learn
from steersman.recipes.series.task import compared
from steersman.sources.tables import read
from steersman.training.material import Material
from steersman.training.run import Run

RIVALS = ("last value", "drift", "seasonal naive", "ridge on lags", "boosting on lags")


def statsmodels(name: str):
    try:
        import statsmodels.api as api
    except ImportError:
        raise UserError("the series come with statsmodels: pip install statsmodels") from None
    return getattr(api.datasets, name).load_pandas().data


def sampledata(name: str) -> Path:
    """The file of a data set of bokeh-sampledata."""
    try:
        import bokeh_sampledata
    except ImportError:
        raise UserError("the series come with bokeh-sampledata: pip install bokeh-sampledata") from None
    return Path(bokeh_sampledata.__file__).parent / "_data" / name


def co2() -> dict:
    data = statsmodels("co2")
    return {"time": np.asarray(data.index, "datetime64[ns]"), "co2_ppm": data["co2"].to_numpy(float)}


def sunspots() -> dict:
    return {"sunspots": statsmodels("sunspots")["SUNACTIVITY"].to_numpy(float)}


def el_nino() -> dict:
    months = statsmodels("elnino").drop(columns="YEAR").to_numpy(float).ravel()
    when = np.datetime64("1950-01") + np.arange(len(months))
    return {"time": when.astype("datetime64[ns]"), "sea_c": months}


def glucose() -> dict:
    """Readings on a grid of five minutes, so that steps ahead are minutes ahead; blank where there was none."""
    (record,) = read(sampledata("CGM.csv.gz"))
    when = np.asarray(record["datetime"].values).astype("datetime64[s]").astype(np.int64)
    place = np.round((when - when[0]) / 300).astype(int)
    readings = np.full(place.max() + 1, np.nan)
    readings[place] = np.asarray(record["glucose"].values)
    clock = (when[0] + 300 * np.arange(len(readings))).astype("datetime64[s]").astype("datetime64[ns]")
    return {"time": clock, "glucose": readings}


def sea() -> dict:
    """Every second row of a surface temperature that was read each half hour; the last row repeats its time."""
    (record,) = read(sampledata("sea_surface_temperature.csv.gz"))
    time_, values = (np.asarray(stream.values)[:-3:2] for stream in record.streams.values())
    return {"time": time_, "sea_c": values}


SETS = {
    "CO2, weekly": (co2, 12),
    "sunspots, yearly": (sunspots, 12),
    "El Nino, monthly": (el_nino, 12),
    "glucose, 5 minutes": (glucose, 12),  # By the recipe `glucose`, which is `forecast` with the clinic's measures.
    "sea, hourly": (sea, 24),
}
"""Series, and steps ahead."""


def trained(name: str, table: dict, seed: int, runs: Path) -> Fitted:
    """The run of a series, trained where it is not there."""
    short = name.partition(",")[0].replace(" ", "-").lower()
    recipe = "glucose" if short == "glucose" else "forecast"
    options = {"target": list(table)[-1], "horizon": SETS[name][1], "training": {"seed": seed}}
    return sm.fit(recipe, table, runs / f"{short}-{seed}", say=lambda text: None, **options)


def scored(run: Run, part: str) -> dict[str, dict]:
    """Scores of a run and of its rivals on one of its parts."""
    known = run.records()
    truth, says = compared(run, Material(run, known[part], part, known))
    return {name: truth.scores(said) for name, said in says.items()} | {"season": {"season": truth.season}}


def spread(values: list[float]) -> str:
    low, high = figure(min(values)), figure(max(values))
    return f"{figure(float(np.mean(values)))} ({low} to {high})" if len(values) > 1 else figure(values[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--runs", type=Path, default=Path("runs/forecasts"))
    options = parser.parse_args()
    rivals = RIVALS if has_scikit_learn() else RIVALS[:-1]
    columns = ("series", "ahead", "season", "**`forecast`**", *rivals, "under seasonal naive", "80 % band", "CPU s")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    under = []
    for name in options.sets:
        table, found, seconds, horizon = SETS[name][0](), [], [], SETS[name][1]
        for seed in options.seeds:
            began = time.process_time()
            run = trained(name, table, seed, options.runs)
            seconds.append(time.process_time() - began)
            found.append(scored(run, options.part))
        own = [each["this run"] for each in found]
        base = found[0].get("seasonal naive") or found[0]["last value"]
        under.append(1 - float(np.mean([row["rmse"] for row in own])) / base["rmse"])
        cells = [name, str(horizon), str(found[0]["season"]["season"]), spread([row["rmse"] for row in own])]
        cells += [figure(found[0][rival]["rmse"]) if rival in found[0] else "" for rival in rivals]
        cells += [f"{under[-1]:.0%}", spread([100 * row["coverage_80"] for row in own]), f"{np.mean(seconds):.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nunder seasonal naive on average: {np.mean(under):.1%}")


if __name__ == "__main__":
    with exit_with_message("forecasts.py"):
        main()
