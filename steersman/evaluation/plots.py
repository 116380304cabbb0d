"""Plots for the page: SVG, drawn once wide and once narrow so that their text keeps its size on a phone.

They are drawn in marker colours that become the page's CSS variables, and so follow the reader's light or dark.
matplotlib is imported when something is drawn."""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..json_types import JsonMapping
from .page import DASH, MINUS, Key, Plot, figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("ink", "muted", "faint", "rule", "paper", "model", "truth", "third", "fourth", "alarm")


INK, MUTED, FAINT, RULE, PAPER, MODEL, TRUTH, THIRD, FOURTH, ALARM = MARKED = [
    f"#f{i}e{i}d{i}" for i in range(len(COLOURS))
]
"""Markers for the page's colours: the model's line is always `model`, truth and expert `truth`."""


DOTS = {"model": "o", "truth": "D", "third": "s", "fourth": "^", "muted": "v", "ink": "P"}


MARKER: dict[str, str] = dict(zip(COLOURS, MARKED, strict=True))


WIDE, NARROW = 744, 350
"""Widths in CSS pixels at which a plot is drawn."""


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "steersman",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.labelpad": 8,
    "axes.titlesize": 12,
    "axes.titlecolor": MUTED,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.01,
    "grid.color": RULE,
    "grid.linewidth": 1,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "axes.unicode_minus": True,
}


LIGHT: dict[str, str] = {
    "ink": "#171c22",
    "muted": "#5a6571",
    "faint": "#a3abb3",
    "rule": "#dcdfe2",
    "model": "#0a5fc4",
    "truth": "#c26a00",
    "third": "#0b7d63",
    "alarm": "#c8202f",
}
"""The page's light colours, for figures that stand outside of a page."""


UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "h"), (300, 60, "min"), (0, 1, "s"))
"""Units of a clock's axis: seconds from which on a span is told in it, its seconds, its name."""
GAP = 4
"""Usual steps of a clock after which a line is broken."""


@dataclass(frozen=True)
class Trace:
    """One prediction beside its truth over a record, whose first step is at 0 s; `blind`: no picture."""

    name: str
    time_s: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    blind: np.ndarray | None = None
    marks_s: Sequence[float] = ()
    """Moments to look at."""
    band: tuple[np.ndarray, np.ndarray] | None = None
    """Bounds between which it thinks that most truths lie."""
    dated: bool = False
    """Whether its seconds count from 1970, and are drawn as dates."""

    def window(self, centre_s: float, width_s: float, marks_s: Sequence[float] = ()) -> Trace:
        """The part around a moment, with the marks that lie in it."""
        inside = np.abs(self.time_s - centre_s) <= width_s / 2
        blind = None if self.blind is None else self.blind[inside]
        band = None if self.band is None else (self.band[0][inside], self.band[1][inside])
        marks_s = [mark for mark in marks_s if abs(mark - centre_s) <= width_s / 2]
        shown = (self.time_s[inside], self.prediction[inside], self.truth[inside])
        return Trace(self.name, *shown, blind, marks_s, band, self.dated)


def draw(caption: str, paint: Callable[[Figure, bool], None], height: int, narrow_height: int = 0, keys=()) -> Plot:
    """Lets `paint(figure, is_wide)` paint both sizes; heights in CSS pixels."""
    wide = _svg(paint, WIDE, height, is_wide=True)
    return Plot(caption, wide, _svg(paint, NARROW, narrow_height or height, is_wide=False), keys)


def _svg(paint: Callable[[Figure, bool], None], width: int, height: int, is_wide: bool) -> str:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(width / 72, height / 72), dpi=72, layout=ConstrainedLayoutEngine(hspace=0.08))
        paint(drawing, is_wide)
        text = io.StringIO()
        with warnings.catch_warnings():
            # The reader's browser has the characters that matplotlib's font lacks.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue(), width, height)


def _inline(svg: str, width: int, height: int) -> str:
    """The part of matplotlib's file that a page needs: page colours, two decimals, ids no other plot has."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|\n", " ", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*>", f'<svg viewBox="0 0 {width} {height}">', svg, count=1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = svg.replace("xlink:href", "href")
    mark = f"{zlib.crc32(svg.encode()):08x}"
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>p{mark}", svg)
    for name, marker in MARKER.items():
        svg = svg.replace(marker, f"var(--{name})")
    return re.sub(r"\s+", " ", svg).replace("> <", "><")


def thinned(x: np.ndarray, y: np.ndarray, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest value of each stretch: fewer points, the same picture."""
    if len(y) <= num_points:
        return x, y
    stretches = np.array_split(np.arange(len(y)), num_points // 2)
    kept = np.unique([pick for s in stretches for pick in (s[y[s].argmin()], s[y[s].argmax()])])
    return x[kept], y[kept]


def unbroken(time_s: np.ndarray) -> list[np.ndarray]:
    """Places of the stretches of a clock in which no step is much longer than usual."""
    steps = np.diff(time_s)
    cuts = np.flatnonzero(steps > GAP * np.median(steps)) + 1 if len(steps) else []
    return np.split(np.arange(len(time_s)), cuts)


def on_clock(axes: Axes, clocks: Sequence[np.ndarray], dated: bool = False) -> float:
    """Labels the axis of clocks: dates where they count from 1970, else the unit that the longest span asks for.

    Seconds of one unit of the axis, by which times are divided before they are drawn.
    """
    if not dated:
        span = max(float(time_s[-1] - time_s[0]) for time_s in clocks)
        unit_s, name = next((unit_s, name) for least, unit_s, name in UNITS if span >= least)
        axes.set_xlabel(f"time ({name})")
        return unit_s
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=8)  # Of at least five, four days have no step that it knows.
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return 86400  # What matplotlib counts dates in.


def _line(axes: Axes, time_s: np.ndarray, y: np.ndarray, unit_s: float, num_points: int, **style: Any) -> None:
    """A line over a clock, broken where the clock has a gap."""
    parts = unbroken(time_s)
    drawn = [thinned(time_s[p] / unit_s, y[p], max(4, num_points * len(p) // len(y))) for p in parts if len(p)]
    x, y = (np.concatenate([v for part in each for v in (part, [np.nan])]) for each in zip(*drawn, strict=True))
    axes.plot(x, y, **style)


def smoothed(y: np.ndarray, share: float = 0.02) -> np.ndarray:
    """A mean over a window of that share of the whole, ends without padding."""
    half = max(1, int(len(y) * share))
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)


def loss_curves(rows: Sequence[Mapping[str, float]]) -> Plot:
    """Curves of log rows {step, loss, rate, gradient_norm, validation?}; of a step logged twice the last counts."""
    rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
    step = np.array([row["step"] for row in rows])
    looks = [(row["step"], row["validation"]) for row in rows if row.get("validation") is not None]

    def paint(drawing: Figure, is_wide: bool) -> None:
        panels = drawing.subplots(3, 1, sharex=True, height_ratios=(3, 1, 1))
        for axes, name in zip(panels, ("loss", "gradient_norm", "rate"), strict=True):
            value = np.array([row.get(name, np.nan) for row in rows], float)
            _curve(axes, step, value, is_wide, faint=name != "rate")
            axes.set_title({"gradient_norm": "norm of the gradient", "rate": "learning rate"}.get(name, name))
        if looks:
            panels[0].plot(*zip(*looks, strict=True), color=TRUTH, marker="D", markersize=4)
        for axes in panels[:2]:
            _log_scale(axes)
        panels[2].set_ylim(0, 1.1 * max(row["rate"] for row in rows) or 1)
        panels[2].ticklabel_format(axis="y", style="plain", useOffset=False)
        panels[2].locator_params(axis="y", nbins=3)
        panels[-1].set_xlabel("training step")

    keys = [Key("model", "training loss, smoothed; faint: each step")]
    keys += [Key("truth", "validation: records kept apart")] if looks else []
    return draw(
        "Both curves should fall. Validation that rises while the training loss goes on falling is "
        "overfitting; a gradient that leaps or dies away is training gone wrong.",
        paint,
        470,
        470,
        keys,
    )


def prediction_over_truth(
    traces: Sequence[Trace],
    caption: str,
    prediction_name: str = "model",
    truth_name: str = "truth",
    up: str = "",
    band_name: str = "its 80 % band",
) -> Plot:
    """A value over time, one panel a trace; `up` says what upwards means; steps without an input are shaded.

    At its marks a trace has an upright line and a dot on each of its two.
    """
    banded = any(trace.band is not None for trace in traces)
    blind = any(trace.blind is not None and trace.blind.any() for trace in traces)

    def paint(drawing: Figure, is_wide: bool) -> None:
        _traces(drawing, traces, up if is_wide else "", 1200 if is_wide else 500, MARKER)

    keys = [Key("model", prediction_name), Key("truth", truth_name)]
    keys += [Key("third", band_name)] if banded else []
    keys += [Key("rule", "no picture")] if blind else []
    keys += [Key("alarm", "worst moments")] if any(len(trace.marks_s) for trace in traces) else []
    return draw(caption, paint, 60 + 175 * len(traces), 50 + 165 * len(traces), keys)


def trace_figure(traces: Sequence[Trace]) -> Figure:
    """The same as a figure of matplotlib, for a notebook."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(10, 0.6 + 2.4 * len(traces)), layout="constrained")
    _traces(drawing, traces, "", 1200, LIGHT)
    drawing.axes[0].legend(loc="upper right", frameon=False, ncols=3)
    return drawing


def _traces(drawing: Figure, traces: Sequence[Trace], up: str, num_points: int, colours: Mapping[str, str]) -> None:
    panels = drawing.subplots(len(traces), 1, squeeze=False)[:, 0]
    unit_s = 1.0
    for axes in panels if traces[0].dated else panels[-1:]:
        unit_s = on_clock(axes, [trace.time_s for trace in traces], traces[0].dated)
    for axes, trace in zip(panels, traces, strict=True):
        _fill(axes, trace, unit_s, num_points // 2, colours["third"])
        for name, value, weight in (("truth", trace.truth, 2.6), ("model", trace.prediction, 1.5)):
            style: dict[str, Any] = {"color": colours[name], "linewidth": weight, "label": name}
            _line(axes, trace.time_s, value, unit_s, num_points, **style)
        for mark in trace.marks_s:
            step = int(np.abs(trace.time_s - mark).argmin())
            axes.axvline(mark / unit_s, color=colours["alarm"], linewidth=1, linestyle=(0, (2, 2)))
            both = (trace.truth[step], trace.prediction[step])
            axes.plot([trace.time_s[step] / unit_s] * 2, both, "o", color=colours["alarm"], markersize=5)
        _shade(axes, trace, unit_s, colours["rule"])
        axes.set_title(f"{trace.name}, {up}" if up else trace.name)
        axes.locator_params(axis="y", nbins=5)


def error_by_size(rows_by_model: Mapping[str, Sequence[JsonMapping]], bins_text: str) -> Plot:
    """RMSE in bins of |truth|, a bar for each model; the first model is the one reported on."""
    series = colours_of(rows_by_model)
    bins = next(iter(rows_by_model.values()))

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        width = 0.7 / len(series)
        for index, (name, colour) in enumerate(series.items()):
            height = [row["rmse"] or 0 for row in rows_by_model[name]]
            left = np.arange(len(bins)) + (index - (len(series) - 1) / 2) * width
            axes.bar(left, height, width * 0.9, color=MARKER[colour])
        labels = [f"{_bin(row)}\n{_count(row['steps'], is_wide)}" for row in bins]
        axes.set_xticks(range(len(bins)), labels, fontsize=12 if is_wide else 10.5)
        axes.tick_params(axis="x", length=0)
        axes.set_title("RMSE, by the size of the true value")

    return draw(
        f"{bins_text} Beneath each bin stands how many steps fell into it.",
        paint,
        270,
        280,
        [Key(colour, name) for name, colour in series.items()] if len(series) > 1 else [],
    )


def _marked(axes: Axes, lag: np.ndarray, values: np.ndarray, best: int) -> None:
    """A line over lag with one point of it marked, and where there is no lag."""
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.plot(lag, values, color=MODEL)
    axes.plot(lag[best], values[best], "o", color=MODEL, markersize=9, markeredgecolor=PAPER)


def lag_curve(rows: Sequence[Mapping[str, float]], best_lag_s: float) -> Plot:
    """RMSE over lag, rows {lag_s, rmse} of evaluate.lag_curve."""
    lag = np.array([row["lag_s"] for row in rows])
    error = np.array([row["rmse"] for row in rows])
    best = int(np.abs(lag - best_lag_s).argmin())

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        _marked(axes, lag, error, best)
        axes.annotate(
            f"best at {lag[best]:+.2f} s".replace("-", MINUS),
            (lag[best], error[best]),
            (-6 if lag[best] < 0 else 6, -12),
            textcoords="offset points",
            ha="right" if lag[best] < 0 else "left",
            va="top",
        )
        axes.margins(y=0.25)
        axes.set_title("RMSE after shifting the truth by the lag")
        axes.set_xlabel("lag (s)" if not is_wide else "lag (s); above zero the prediction comes late")

    return draw(
        "How well the prediction fits the truth when the truth is shifted in time. The lowest point is the "
        "lag: above zero the model reacts late, at zero it is in step, below zero it anticipates.",
        paint,
        250,
        250,
    )


def values_over_time(time_s: np.ndarray, values: np.ndarray, title: str, caption: str) -> Plot:
    """One stream of numbers over time."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        _line(axes, time_s, values, on_clock(axes, [time_s]), 1200 if is_wide else 500, color=TRUTH)
        axes.set_title(title)
        axes.locator_params(axis="y", nbins=5)

    return draw(caption, paint, 235, 215)


def histogram(counts: Sequence[int], edges: Sequence[float], title: str, caption: str) -> Plot:
    """How many values fall between each two edges, as a share of all."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        share = 100 * np.asarray(counts) / max(1, sum(counts))
        left, width = np.asarray(edges[:-1]), np.diff(edges)
        axes.bar(left + 0.05 * width, share, 0.9 * width, align="edge", color=TRUTH)
        axes.set_title("share of the steps (%)")
        axes.set_xlabel(title)

    return draw(caption, paint, 250, 250)


def reliability_plot(rows: Sequence[JsonMapping]) -> Plot:
    """How often it was so over how likely it was said to be, rows {items, said, was}."""
    full = [row for row in rows if row["items"]]
    total = sum(row["items"] for row in full)

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        axes.plot((0, 100), (0, 100), color=MUTED, linewidth=1)
        said, was = ([100 * row[name] for row in full] for name in ("said", "was"))
        axes.plot(said, was, color=MODEL)
        axes.scatter(said, was, [20 + 180 * row["items"] / total for row in full], color=MODEL)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_title("how often it was so (%)")
        axes.set_xlabel("how likely it said it was (%)")

    return draw(
        "Points on the straight line: what it calls likely is as likely as it says. Below it the model is too sure, "
        "above it not sure enough. The larger a point, the more there were.",
        paint,
        280,
        280,
    )


def ranking_plot(rows: Sequence[JsonMapping], share: float) -> Plot:
    """Both curves of a ranking, rows {recall, false_alarms, precision}; `share` of the items are positive."""
    found, false, precision = (
        100 * np.array([row[name] for row in rows]) for name in ("recall", "false_alarms", "precision")
    )

    def paint(drawing: Figure, is_wide: bool) -> None:
        roc, pr = drawing.subplots(*((1, 2) if is_wide else (2, 1)))
        roc.plot((0, 100), (0, 100), color=MUTED, linewidth=1)
        roc.plot(np.append(0, false), np.append(0, found), color=MODEL)
        roc.set_xlabel("false alarms (%)")
        roc.set_title("found (%)")
        pr.axhline(100 * share, color=MUTED, linewidth=1)
        pr.plot(found, precision, color=MODEL)
        pr.set_xlabel("found (%)")
        pr.set_title("right of those called (%)")
        for axes in (roc, pr):
            axes.set_xlim(0, 100)
            axes.set_ylim(0, 102)

    return draw(
        "By how low the line is drawn above which it is called: how many it finds over how many false alarms it gives "
        "(ROC), and how many of those called are right over how many it finds (precision and recall). Grey: guessing.",
        paint,
        300,
        560,
    )


def columns_over_time(time_s: np.ndarray, columns: Mapping[str, np.ndarray], caption: str) -> Plot:
    """Some columns of numbers over time, a panel each; where a number is missing (NaN) the line goes on straight."""
    unit, seconds = next(((u, s) for u, s in (("days", 86400), ("hours", 3600)) if np.ptp(time_s) > 2 * s), ("s", 1))

    def paint(drawing: Figure, is_wide: bool) -> None:
        across = 2 if is_wide and len(columns) > 1 else 1
        panels = drawing.subplots(-(-len(columns) // across), across, squeeze=False, sharex=True)
        for axes, (name, values) in zip(panels.flat, columns.items(), strict=False):
            there = ~np.isnan(values)
            dots = {"marker": "o", "markersize": 3} if there.sum() < 120 else {}
            axes.plot((time_s[there] - time_s[0]) / seconds, values[there], color=TRUTH, linewidth=1.3, **dots)
            axes.set_title(name)
            axes.locator_params(axis="y", nbins=3)
        for axes in panels.flat[len(columns) :]:
            axes.axis("off")
        for axes in panels[-1]:
            axes.set_xlabel(f"time ({unit})")

    rows = len(columns)
    return draw(caption, paint, 60 + 80 * -(-rows // 2), 50 + 85 * rows)


def correlation_over_lag(rows: Sequence[Mapping[str, float]], best_lag_s: float, caption: str) -> Plot:
    """Rows {lag_s, correlation}, the best lag marked."""
    lag = np.array([row["lag_s"] for row in rows])
    value = np.array([row["correlation"] for row in rows])
    best = int(np.abs(lag - best_lag_s).argmin())

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        _marked(axes, lag, value, best)
        axes.set_ylim(-1.05, 1.05)
        axes.set_title("correlation of the scene's motion with the label")
        axes.set_xlabel("lag (s); right of zero the camera is late" if is_wide else "lag (s)")

    return draw(caption, paint, 250, 250)


def error_beside_baselines(scores: JsonMapping, name: str, zero: str) -> Plot:
    """Bars of RMSE: the model and every baseline, smallest on top."""
    rows = [(name, scores["rmse"], MODEL)]
    rows += [(readable(baseline), row["rmse"], FAINT) for baseline, row in scores["baselines"].items()]
    rows.sort(key=lambda row: -row[1])
    held = "persistence" in scores["baselines"]

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        axes.barh(range(len(rows)), [row[1] for row in rows], 0.62, color=[row[2] for row in rows])
        for index, row in enumerate(rows):
            axes.annotate(figure(row[1]), (row[1], index), (7, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.grid(False)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_xlim(0, (rows[0][1] or 1) * (1.12 if is_wide else 1.3))

    height = 26 + 30 * len(rows)
    return draw(
        f"RMSE, the shorter the better. {zero}; mean is the training data's average"
        + ("; persistence repeats the true value of so many steps ago, which no model is told." if held else "."),
        paint,
        height,
        height,
    )


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A page colour for each of at most six: the first is the model, the expert has the truth's."""
    first, *others = names
    rest = iter(("third", "fourth", "muted", "ink"))
    return {first: "model"} | {name: "truth" if name == "expert" else next(rest) for name in others}


def readable(name: str) -> str:
    """`persistence_10` as a person would write it."""
    if name.startswith("persistence"):
        steps = name.removeprefix("persistence").lstrip("_") or "1"
        return f"persistence, {steps} step{'s' if steps != '1' else ''}"
    return name


def _curve(axes: Axes, x: np.ndarray, y: np.ndarray, is_wide: bool, faint: bool) -> None:
    num_points = 700 if is_wide else 300
    if faint:
        axes.plot(*thinned(x, y, num_points), color=MODEL, alpha=0.28, linewidth=0.9)
        y = smoothed(y)
    axes.plot(*thinned(x, y, num_points), color=MODEL)


def _log_scale(axes: Axes) -> None:
    """A logarithmic axis labelled with plain numbers, where the values span enough to need one; else from 0."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.dataLim.intervaly
    if low > 0 and high > 5 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 60 * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif low >= 0:
        axes.set_ylim(0, 1.1 * high or 1)


def _fill(axes: Axes, trace: Trace, unit_s: float, num_points: int, colour: str) -> None:
    """The band, at so many moments at most."""
    if trace.band is None:
        return
    label = "80 % band"
    for part in unbroken(trace.time_s):
        share = max(2, num_points * len(part) // len(trace.time_s))
        at = part[np.unique(np.linspace(0, len(part) - 1, share).astype(int))]
        low, high = (bound[at] for bound in trace.band)
        axes.fill_between(trace.time_s[at] / unit_s, low, high, color=colour, alpha=0.25, linewidth=0, label=label)
        label = ""


def _shade(axes: Axes, trace: Trace, unit_s: float, colour: str) -> None:
    if trace.blind is None:
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trace.blind.astype(int), [0]])))
    for start, end in edges.reshape(-1, 2):
        last = min(end, len(trace.time_s) - 1)
        ends = (float(trace.time_s[at]) / unit_s for at in (start, last))
        axes.axvspan(*ends, color=colour, alpha=0.6, lw=0)


def _bin(row: JsonMapping) -> str:
    return f"over {row['from']:g}" if row["to"] is None else f"{row['from']:g} {DASH} {row['to']:g}"


def _count(steps: int, is_wide: bool) -> str:
    return f"{steps:,} steps" if is_wide else f"{steps:,}"
