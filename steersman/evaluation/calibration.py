"""How well a model knows what it does not know: scores of distributions and of probabilities, and their sections.

Pure functions from arrays to dicts that are ready for JSON, as in `metrics`."""

from collections.abc import Sequence
from itertools import pairwise
from math import erf, log, pi, sqrt

import numpy as np

from ..json_types import JsonMapping, JsonObject
from .metrics import Scores
from .page import SPACE, Fact, Section, Table, figure
from .plots import histogram, reliability_plot
from .sections import percent

BANDS = (0.5, 0.8, 0.95)
"""Shares of the truths that the bands which are scored should hold, the middle one drawn."""
BINS = 20
"""Bars of the histogram of probability integral transforms."""


def distribution_scores(nll: np.ndarray, crps: np.ndarray, below: np.ndarray, upto: np.ndarray) -> Scores:
    """Means of the scores of each number, coverage of the bands, and shares of the transforms by BINS equal parts.

    `below` and `upto` are the probabilities that were given to less than the truth, and to no more than it.
    """
    return {
        "nll": float(np.mean(nll)),
        "crps": float(np.mean(crps)),
        "coverage": [{"band": band, "covered": covered(below, upto, band)} for band in BANDS],
        "pit": pit_shares(below, upto).tolist(),
    }


def covered(below: np.ndarray, upto: np.ndarray, band: float) -> float:
    """Share of the truths between the quantiles that leave as much on either side of the band."""
    left, right = (1 - band) / 2, (1 + band) / 2
    return float(np.mean((upto >= left) & (below < right)))


def pit_shares(below: np.ndarray, upto: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Shares of the probability integral transforms; one of a count is spread over its step (Czado et al. 2009)."""
    width = upto - below

    def reached(edge: float) -> float:
        spread = np.clip((edge - below) / np.where(width > 0, width, 1), 0, 1)
        return float(np.mean(np.where(width > 0, spread, upto < edge)))

    edges = [0.0, *(reached(edge) for edge in np.arange(1, bins) / bins), 1.0]
    return np.diff(edges)


def normal_scores(truth: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> dict[str, float]:
    """What a normal distribution gets that says the same at every step (Gneiting & Raftery 2007, equation 21)."""
    z = (truth - mean) / deviation
    cdf = 0.5 + 0.5 * np.array([erf(each / sqrt(2)) for each in z.tolist()])
    density = np.exp(-z * z / 2) / sqrt(2 * pi)
    crps = deviation * (z * (2 * cdf - 1) + 2 * density - 1 / sqrt(pi))
    return {
        "crps": float(np.mean(crps)),
        "nll": float(np.mean(z * z / 2 + np.log(deviation) + 0.5 * log(2 * pi))),
    }


def reliability(said: np.ndarray, was: np.ndarray, bins: int = 10) -> list[JsonObject]:
    """Probabilities by bins of equal width, beside how often it was so. Rows {from, to, items, said, was}."""
    place = np.minimum((said * bins).astype(int), bins - 1)
    rows = []
    for number, (low, high) in enumerate(pairwise(np.arange(bins + 1) / bins)):
        inside = place == number
        count = int(inside.sum())
        row = {"from": float(low), "to": float(high), "items": count, "said": None, "was": None}
        if count:
            row |= {"said": float(said[inside].mean()), "was": float(was[inside].mean())}
        rows.append(row)
    return rows


def calibration_error(rows: Sequence[JsonMapping]) -> float:
    """Expected calibration error of rows of `reliability` (Guo et al. 2017)."""
    full = [row for row in rows if row["items"]]
    total = sum(row["items"] for row in full)
    return sum(row["items"] * abs(row["said"] - row["was"]) for row in full) / max(total, 1)


def distribution_facts(scores: JsonMapping) -> list[Fact]:
    """The figures at the top."""
    band = scores["coverage"][1]
    return [
        Fact("CRPS", figure(scores["crps"]), f"one number alone: its mean absolute error, {figure(scores['mae'])}"),
        Fact(f"{percent(band['band'])} band", percent(band["covered"]), "of the truths lie in it"),
    ]


def distribution_section(scores: JsonMapping) -> Section:
    """Bands that hold what they should, and the histogram of transforms."""
    rows = [[percent(row["band"]), percent(row["covered"]), row["width"]] for row in scores["coverage"]]
    edges = (np.arange(len(scores["pit"]) + 1) / len(scores["pit"])).tolist()
    drawn = histogram(
        [round(1e6 * share) for share in scores["pit"]],
        edges,
        "share of its distribution that lies below the truth",
        "Level bars: it is as sure as it may be. A hill in the middle: its bands are too wide; a valley: too narrow; a "
        "slope: it says too much or too little.",
    )
    return Section(
        "How sure it is",
        "It says a distribution, not only a number. Of bands that should hold half of the truths half should lie in "
        f"them, and the narrower they are the better. Its score over the whole distribution (CRPS) is "
        f"{figure(scores['crps'])} in the units of the target; its negative log-likelihood is "
        f"{figure(scores['nll'])} nats a number.",
        [Table(("band", "truths in it", "mean width"), rows), drawn],
    )


def reliability_section(rows: Sequence[JsonMapping], error: float, what: str) -> Section:
    """How often it is right, by how sure it says it is."""
    return Section(
        "How sure it is",
        f"Of all {what} that it gives a probability of 70{SPACE}% seven in ten should be so. On average it is off "
        f"by {percent(error)} (expected calibration error).",
        [reliability_plot(rows)],
    )
