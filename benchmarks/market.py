"""The recipe `market`, walked forward by year, on indices and stocks that packages ship.

    pip install arch bokeh-sampledata scikit-learn
    python benchmarks/market.py --seeds 0 1 2

For each year a model is trained on all days before it (the last 15 % of them choose its weights) and foretells the
directions of that year. Prints a Markdown table of all years together: the share of days that is right and the return
of following it after costs, each with its 95 % interval by a bootstrap of blocks of 20 days.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from steersman.data.records import Record
from steersman.errors import UserError, exit_with_message
from steersman.recipes.market.kinds import Market
from steersman.recipes.market.recipes import market
from steersman.recipes.market.task import Days, chances, rivals, scored, verdict
from steersman.sources.tables import read, table_record
from steersman.training.fit import fit

STOCKS = ("AAPL", "IBM", "MSFT", "GOOG")


def series() -> list[Record]:
    """Daily prices, adjusted for dividends and splits."""
    try:
        import arch
        import bokeh_sampledata
    except ImportError as error:
        raise UserError(f"{error}; the prices come with two packages: pip install arch bokeh-sampledata") from None
    found = []
    for name in ("sp500", "nasdaq"):
        (record,) = read(Path(arch.__file__).parent / "data" / name / f"{name}.csv.gz")
        month, day, year = np.array([str(cell).split("/") for cell in record["Date"].values], int).T
        date = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
        date = date.astype("datetime64[D]") + (day - 1)
        found.append((name, date, np.asarray(record["Adj Close"].values)))
    (record,) = read(Path(bokeh_sampledata.__file__).parent / "_data" / "stocks.csv.gz")
    ticker, date = np.asarray(record["Ticker"].values), np.asarray(record["Date"].values)
    for name in STOCKS:
        at = ticker == name
        found.append((name, date[at], np.asarray(record["Adj Close"].values)[at]))
    made = [table_record(n, {"date": d.astype("datetime64[ns]"), "close": np.asarray(p)}) for n, d, p in found]
    return market([made[0]]).transform_records(made)


def parts_of(recipe: Market, records: Sequence[Record], year: int) -> dict[str, list[Record]]:
    """Days before a year to learn from, and those of the year."""
    begins, ends = ((np.datetime64(f"{y}-01-01") - np.datetime64("1970-01-01")).astype(float) for y in (year, year + 1))
    parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        clock = next(iter(record.streams.values())).time_s / 86400
        start, stop = np.searchsorted(clock, (begins, min(ends, clock[-1])))
        middle = round(0.85 * start)
        if start > 500:
            parts["train"].append(recipe.part(record, "train", 0, middle))
            parts["validation"].append(recipe.part(record, "validation", middle, start))
        if stop - start > 2 and start > 500:
            parts["test"].append(recipe.part(record, str(year), start, stop, reach=1))
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--years", nargs=2, type=int, default=[2008, 2018], metavar=("FIRST", "LAST"))
    options = parser.parse_args()
    records, began = series(), time.process_time()
    days: list[Days] = []
    says: dict[str, list[np.ndarray]] = {}
    for year in range(options.years[0], options.years[1] + 1):
        parts = parts_of(market([records[0]]), records, year)
        days += [Days(record) for record in parts["test"]]
        said, each = {}, []
        for seed in options.seeds:
            recipe = market([records[0]])
            recipe = replace(recipe, training=replace(recipe.training, seed=seed))
            with TemporaryDirectory() as folder:
                run = fit("market", recipe, folder, say=lambda text: None, parts=parts)
                each.append(chances(run, parts["test"]))
                said[f"`market`, seed {seed}"] = each[-1]
        said["**`market`, mean of the chances**"] = [np.mean(p, 0) for p in zip(*each, strict=True)]
        for name, chance in (said | rivals(run.recipe, parts["train"], parts["test"])).items():
            says.setdefault(name, []).extend(chance)
    rows = {name: scored(days, chance) for name, chance in says.items()}
    print("| | nats a day | right | 95 % | a year, after costs | 95 % |\n|---|---|---|---|---|---|")
    for name, row in rows.items():
        right, kept = (" to ".join(f"{100 * x:.1f}" for x in row[f"{key}_interval"]) for key in ("accuracy", "return"))
        cells = (name, f"{row['nats']:.4f}", f"{row['accuracy']:.1%}", right, f"{row['return_a_year']:.1%}", kept)
        print(f"| {' | '.join(cells)} |")
    print(f"\n{verdict(rows['**`market`, mean of the chances**'] | {'baselines': rows})}")
    print(
        f"{sum(d.counts.sum() for d in days):,} days of {len(records)} series; {time.process_time() - began:.0f} CPU s"
    )


if __name__ == "__main__":
    with exit_with_message("market.py"):
        main()
