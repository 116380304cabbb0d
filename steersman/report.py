"""One HTML file a run: self-contained, without scripts, for wide screens and phones, light and dark.

Plots are SVG, drawn once wide and once narrow so that their text keeps its size on a phone. They are
drawn in marker colours that become the page's CSS variables, and so follow the reader's light or dark.
"""

import base64
import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from PIL import Image

DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"

# ---------------------------------------------------------------------------------------------- parts


class Block(Protocol):
    """A piece of a section."""

    def html(self) -> str: ...


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend: the name of a page colour and what it stands for."""

    colour: str
    label: str


@dataclass(frozen=True)
class Plot:
    """The same plot as wide and as narrow SVG; the caption says what it shows and how to read it."""

    caption: str
    wide: str
    narrow: str
    keys: Sequence[Key] = ()

    def html(self) -> str:
        keys = "".join(f'<li><i class="{key.colour}"></i>{escape(key.label)}</li>' for key in self.keys)
        legend = f'<ul class="keys">{keys}</ul>' if keys else ""
        label = escape(self.caption, quote=True)
        drawn = "".join(
            f'<div class="{kind}" role="img" aria-label="{label}">{svg}</div>'
            for kind, svg in (("wide", self.wide), ("narrow", self.narrow))
        )
        return f"<figure>{legend}{drawn}<figcaption>{escape(self.caption)}</figcaption></figure>"


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers, None where there is no figure; `strong` are the rows to stress."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    strong: Sequence[int] = ()

    def html(self) -> str:
        number = [not any(isinstance(row[c], str) for row in self.rows) for c in range(len(self.columns))]
        kind = [' class="n"' if each else "" for each in number]
        head = "".join(f'<th scope="col"{k}>{escape(c)}</th>' for k, c in zip(kind, self.columns, strict=True))
        body = ""
        for index, row in enumerate(self.rows):
            cells = "".join(f"<td{k}>{figure(v)}</td>" for k, v in zip(kind, row, strict=True))
            body += f'<tr class="strong">{cells}</tr>' if index in self.strong else f"<tr>{cells}</tr>"
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{table}</div>'


@dataclass(frozen=True)
class Confusion:
    """Counts by true class (rows) and predicted class (columns), the right ones shaded by their share."""

    matrix: Sequence[Sequence[int]]
    names: Sequence[str]
    caption: str = ""

    def html(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.names)
        body = "".join(
            f'<tr><th scope="row">{escape(name)}</th>{self._cells(index)}</tr>' for index, name in enumerate(self.names)
        )
        return (
            '<div class="scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
            f'<table class="confusion"><caption>{escape(self.caption)}</caption>'
            f"<thead><tr><td>true \\ predicted</td>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _cells(self, true: int) -> str:
        row = self.matrix[true]
        share = [round(55 * (count / max(1, sum(row))) ** 0.5) for count in row]  # small shares still seen
        kind = ["right" if guess == true else "wrong" for guess in range(len(row))]
        return "".join(
            f'<td class="{k if count else "none"}" style="--share:{s}%">{count}</td>'
            for k, s, count in zip(kind, share, row, strict=True)
        )


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures (row, column, 3) with captions; small ones are shown with their pixels sharp."""

    pictures: Sequence[np.ndarray]
    captions: Sequence[str]

    def html(self) -> str:
        shown = "".join(
            f"<figure>{image(picture, caption)}<figcaption>{escape(caption)}</figcaption></figure>"
            for picture, caption in zip(self.pictures, self.captions, strict=True)
        )
        return f'<div class="pictures">{shown}</div>'


@dataclass(frozen=True)
class Settings:
    """A nested config as names and values, folded away until asked for."""

    config: Mapping[str, Any]

    def html(self) -> str:
        rows = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in flattened(self.config)
        )
        return f'<details><summary>All settings</summary><dl class="settings">{rows}</dl></details>'


@dataclass(frozen=True)
class Fact:
    """One of the few figures that stand at the top."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A title, a plain explanation, and what it is about."""

    title: str
    text: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """A whole page; `picture` (uint8, row column 3) opens it."""

    title: str
    summary: str
    facts: Sequence[Fact]
    sections: Sequence[Section]
    picture: np.ndarray | None = None
    footer: str = ""


@dataclass(frozen=True)
class Trace:
    """One prediction beside its truth over a record, whose first step is at 0 s; `blind`: no picture."""

    name: str
    time_s: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray
    blind: np.ndarray | None = None

    def window(self, centre_s: float, width_s: float) -> "Trace":
        """The part around a moment."""
        inside = np.abs(self.time_s - centre_s) <= width_s / 2
        blind = None if self.blind is None else self.blind[inside]
        return Trace(self.name, self.time_s[inside], self.prediction[inside], self.truth[inside], blind)


@dataclass(frozen=True)
class Drive:
    """Where a drive went: centre line and path (point, xy) in metres; `off_road`: time_s, x_m, y_m."""

    name: str
    track_m: np.ndarray
    path_m: np.ndarray
    off_road: Sequence[Mapping[str, float]] = ()
    road_width_m: float = 40 / 3
    """Edge to edge; the default is CarRacing's."""


def write_report(path: Path, report: Report) -> None:
    """Writes the page, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page(report), encoding="utf-8")
    partial.replace(path)


def page(report: Report) -> str:
    """The report as HTML."""
    links = "".join(
        f'<li><a href="#s{index}">{escape(section.title)}</a></li>' for index, section in enumerate(report.sections, 1)
    )
    picture = report.picture
    opening = "" if picture is None else f'<figure class="opening">{image(picture, report.title)}</figure>'
    return PAGE.substitute(
        css=CSS,
        title=escape(report.title),
        summary=escape(report.summary),
        facts="".join(_fact(fact) for fact in report.facts),
        picture=opening,
        links=links,
        sections="".join(_section(index, section) for index, section in enumerate(report.sections, 1)),
        footer=f"<footer>{escape(report.footer)}</footer>" if report.footer else "",
    )


def image(picture: np.ndarray, alt: str) -> str:
    """An <img> that holds its PNG."""
    png = io.BytesIO()
    Image.fromarray(picture).save(png, "PNG", optimize=True)
    data = base64.b64encode(png.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<img class="{"small" if width < 300 else "large"}" width="{width}" height="{height}" '
        f'alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
    )


def figure(value: Any) -> str:
    """A table's cell: three digits of a float, a dash for None, all text escaped."""
    if value is None:
        return DASH
    if isinstance(value, float):
        return (f"{value:.1f}" if 10 <= abs(value) < 1e5 else f"{value:#.3g}").replace("-", MINUS)
    if isinstance(value, int):
        return f"{value:,}"
    return escape(str(value))


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names and leaf values of a nested dict."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _fact(fact: Fact) -> str:
    note = f'<dd class="note">{escape(fact.note)}</dd>' if fact.note else ""
    return f"<div><dt>{escape(fact.label)}</dt><dd>{escape(fact.value)}</dd>{note}</div>"


def _section(index: int, section: Section) -> str:
    blocks = "".join(block.html() for block in section.blocks)
    return (
        f'<section id="s{index}"><div class="text"><h2>{escape(section.title)}</h2>'
        f'<p>{escape(section.text)}</p></div><div class="blocks">{blocks}</div></section>'
    )


# ---------------------------------------------------------------------------------------------- plots

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


def draw(caption: str, paint: Callable[[Figure, bool], None], height: int, narrow_height: int = 0, keys=()) -> Plot:
    """Lets `paint(figure, is_wide)` paint both sizes; heights in CSS pixels."""
    wide = _svg(paint, WIDE, height, is_wide=True)
    return Plot(caption, wide, _svg(paint, NARROW, narrow_height or height, is_wide=False), keys)


def _svg(paint: Callable[[Figure, bool], None], width: int, height: int, is_wide: bool) -> str:
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(width / 72, height / 72), dpi=72, layout=ConstrainedLayoutEngine(hspace=0.08))
        paint(drawing, is_wide)
        text = io.StringIO()
        drawing.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue(), width, height)


def _inline(svg: str, width: int, height: int) -> str:
    """Only what a page needs of matplotlib's file: page colours, two decimals, ids no other plot has."""
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


def smoothed(y: np.ndarray, share: float = 0.02) -> np.ndarray:
    """A mean over a window of that share of the whole, ends without padding."""
    half = max(1, int(len(y) * share))
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(y))
    return (total[high] - total[low]) / (high - low)


def loss_curves(rows: Sequence[Mapping[str, float]]) -> Plot:
    """Of log rows {step, loss, rate, gradient_norm, validation?}; of a step logged twice the last counts."""
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
    traces: Sequence[Trace], caption: str, prediction_name: str = "model", truth_name: str = "truth"
) -> Plot:
    """Steering over time, one panel a trace, left up; stretches without a picture are shaded."""
    blind = any(trace.blind is not None and trace.blind.any() for trace in traces)

    def paint(drawing: Figure, is_wide: bool) -> None:
        panels = drawing.subplots(len(traces), 1, squeeze=False)[:, 0]
        for axes, trace in zip(panels, traces, strict=True):
            for value, colour, weight in ((trace.truth, TRUTH, 2.6), (trace.prediction, MODEL, 1.5)):
                x, y = thinned(trace.time_s, value, 1200 if is_wide else 500)
                axes.plot(x, y, color=colour, linewidth=weight)
            _shade(axes, trace)
            axes.set_title(f"{trace.name}, left is up" if is_wide else trace.name)
            axes.locator_params(axis="y", nbins=5)
        panels[-1].set_xlabel("time (s)")

    keys = [Key("model", prediction_name), Key("truth", truth_name)]
    keys += [Key("rule", "no picture")] if blind else []
    return draw(caption, paint, 60 + 175 * len(traces), 50 + 165 * len(traces), keys)


def error_by_curvature(rows_by_model: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot:
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
        axes.set_title("RMSE of the steering, by how sharply the truth steers")

    return draw(
        "Straight stretches fill most of a drive and are easy; the bins to the right are the bends. Beneath "
        "each bin stands how many steps fell into it.",
        paint,
        270,
        280,
        [Key(colour, name) for name, colour in series.items()] if len(series) > 1 else [],
    )


def lag_curve(rows: Sequence[Mapping[str, float]], best_lag_s: float) -> Plot:
    """RMSE over lag, rows {lag_s, rmse} of evaluate.lag_curve."""
    lag = np.array([row["lag_s"] for row in rows])
    error = np.array([row["rmse"] for row in rows])
    best = int(np.abs(lag - best_lag_s).argmin())

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.plot(lag, error, color=MODEL)
        axes.plot(lag[best], error[best], "o", color=MODEL, markersize=9, markeredgecolor=PAPER)
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
        axes.set_xlabel("lag (s)" if not is_wide else "lag (s); right of zero the prediction comes late")

    return draw(
        "How well the prediction fits the truth when the truth is shifted in time. The lowest point is the "
        "lag: right of zero the model reacts late, at zero it is in step, left of zero it anticipates.",
        paint,
        250,
        250,
    )


def error_beside_baselines(scores: Mapping[str, Any], name: str) -> Plot:
    """Bars of RMSE: the model and every baseline, smallest on top."""
    rows = [(name, scores["rmse"], MODEL)]
    rows += [(readable(baseline), row["rmse"], FAINT) for baseline, row in scores["baselines"].items()]
    rows.sort(key=lambda row: -row[1])

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
        "RMSE, the shorter the better. Zero always steers straight; mean is the training data's average; "
        "persistence repeats the true steering of so many steps ago, which no camera model is told.",
        paint,
        height,
        height,
    )


def scores_per_track(seeds: Sequence[int], scores: Mapping[str, Sequence[float]]) -> Plot:
    """A dot for each driver and track; tracks in order of the first driver's score."""
    order = np.argsort(next(iter(scores.values())), kind="stable")
    series = colours_of(scores)

    def paint(drawing: Figure, is_wide: bool) -> None:
        axes = drawing.subplots()
        for name, colour in reversed(series.items()):
            value = np.asarray(scores[name], float)[order]
            size = 8 if len(order) <= (40 if is_wide else 16) else 5
            style = {
                "color": MARKER[colour],
                "markersize": size,
                "markeredgecolor": PAPER,
                "markeredgewidth": 1,
            }
            axes.plot(range(len(order)), value, DOTS[colour], **style, clip_on=False)
        axes.margins(x=0.03, y=0.08)
        named = len(order) <= (20 if is_wide else 10)
        ticks = range(len(order)) if named else []
        axes.set_xticks(ticks, [str(seeds[i]) for i in order] if named else [], rotation=0 if is_wide else 60)
        axes.tick_params(axis="x", length=0)
        axes.set_title("score on each track")
        axes.set_xlabel("track (seed)" if named else f"{len(order)} tracks, ordered by score")

    return draw(
        "Each column is one track, from the model's worst at the left to its best at the right; compare the "
        "drivers within a column.",
        paint,
        300,
        300,
        [Key(colour, name) for name, colour in series.items()],
    )


def track_map(drives: Sequence[Drive]) -> Plot:
    """One map a drive: the road, the path on it, a cross where it left the road."""

    def paint(drawing: Figure, is_wide: bool) -> None:
        columns = min(len(drives), 3 if is_wide else 2)
        grid = drawing.subplots(-(-len(drives) // columns), columns, squeeze=False).ravel()
        for axes in grid:
            axes.axis("off")
        for axes, drive in zip(grid, drives, strict=False):
            _map(axes, drive)

    rows_wide, rows_narrow = -(-len(drives) // 3), -(-len(drives) // 2)
    return draw(
        "The road from above, the path that was driven, the start as a dot, and a cross wherever the car "
        "left the road.",
        paint,
        250 * rows_wide,
        185 * rows_narrow,
        [Key("rule", "road"), Key("model", "path"), Key("alarm", "left the road")],
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
    low, high = axes.dataLim.intervaly
    if low > 0 and high > 5 * low:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 60 * low else (1,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif low >= 0:
        axes.set_ylim(0, 1.1 * high or 1)


def _shade(axes: Axes, trace: Trace) -> None:
    if trace.blind is None:
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trace.blind.astype(int), [0]])))
    for start, end in edges.reshape(-1, 2):
        last = min(end, len(trace.time_s) - 1)
        axes.axvspan(float(trace.time_s[start]), float(trace.time_s[last]), color=RULE, alpha=0.6, lw=0)


def _bin(row: Mapping[str, Any]) -> str:
    return f"over {row['from']:g}" if row["to"] is None else f"{row['from']:g} {DASH} {row['to']:g}"


def _count(steps: int, is_wide: bool) -> str:
    return f"{steps:,} steps" if is_wide else f"{steps:,}"


def _map(axes: Axes, drive: Drive) -> None:
    centre = np.concatenate([drive.track_m, drive.track_m[:2]])
    along = np.gradient(centre, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    road = np.concatenate([centre + across * drive.road_width_m / 2, (centre - across * drive.road_width_m / 2)[::-1]])
    axes.fill(*road.T, color=RULE, linewidth=0)
    axes.plot(*drive.path_m.T, color=MODEL, linewidth=1.4)
    axes.plot(*drive.path_m[0], "o", color=MODEL, markersize=6, markeredgecolor=PAPER)
    for place in drive.off_road:
        axes.plot(place["x_m"], place["y_m"], "x", color=ALARM, markersize=9, markeredgewidth=2.4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(drive.name, loc="center")


# --------------------------------------------------------------------------------------------- reports


def regression_report(
    title: str,
    scores: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    traces: Sequence[Trace] = (),
    others_by_curvature: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    pictures: Pictures | None = None,
) -> Report:
    """Of evaluate.regression_scores, the training log's rows and the run's config.

    `traces` carry the records' names; the longest is shown whole, and the worst moments from close by.
    """
    sections = regression_sections(scores, traces, others_by_curvature or {}, pictures)
    return Report(
        title,
        regression_summary(scores),
        regression_facts(scores),
        [*sections, *run_sections(log, config)],
    )


def driving_report(
    title: str,
    drivers: Mapping[str, Mapping[str, Any]],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
    picture: np.ndarray | None = None,
) -> Report:
    """Of evaluate.driving_scores by driver, the model first; `published` rows: driver, mean, sd, source."""
    sections = driving_sections(drivers, drives, traces, published)
    return Report(
        title,
        driving_summary(drivers),
        driving_facts(next(iter(drivers.values()))),
        [*sections, *run_sections(log, config)],
        picture,
    )


def classification_report(
    title: str,
    scores: Mapping[str, Any],
    log: Sequence[Mapping[str, float]] = (),
    config: Mapping[str, Any] | None = None,
    pictures: Pictures | None = None,
) -> Report:
    """Of evaluate.classification_scores, the training log's rows and the run's config."""
    majority = scores["baselines"]["majority"]
    facts = [
        Fact(
            "Accuracy",
            percent(scores["accuracy"]),
            f"always the commonest class: {percent(majority['accuracy'])}",
        ),
        Fact("Nats a label", figure(scores["nats"]), f"training frequencies: {figure(majority['nats'])}"),
        Fact("Items", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]
    summary = (
        f"Of {scores['items']:,} items it never trained on the model names {percent(scores['accuracy'])} "
        f"rightly; always answering with the commonest class would get {percent(majority['accuracy'])}."
    )
    sections = classification_sections(scores, pictures)
    return Report(title, summary, facts, [*sections, *run_sections(log, config)])


def regression_summary(scores: Mapping[str, Any]) -> str:
    """The outcome in two sentences."""
    rivals = {n: row["rmse"] for n, row in scores["baselines"].items() if not n.startswith("persistence")}
    best = min(rivals, key=lambda name: rivals[name])
    lag = scores["best_lag_s"]
    timing = "in step with the truth" if lag == 0 else f"{abs(lag):.2g}{SPACE}s {'late' if lag > 0 else 'early'}"
    return (
        f"Over {scores['steps']:,} steps the model never trained on, its steering is off by "
        f"{figure(scores['rmse'])} (RMSE); the best of its rivals, {best}, is off by {figure(rivals[best])}. "
        f"It steers {timing}."
    )


def regression_facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures at the top."""
    lag, zero = scores["best_lag_s"], scores["baselines"]["zero"]["rmse"]
    side = "in step" if lag == 0 else "the model reacts late" if lag > 0 else "the model anticipates"
    return [
        Fact("RMSE", figure(scores["rmse"]), f"always straight: {figure(zero)}"),
        Fact("Mean absolute error", figure(scores["mae"])),
        Fact("Variance explained", percent(scores["r2"]) if scores["r2"] is not None else DASH, "R²"),
        Fact("Best lag", f"{lag:.2f} s".replace("-", MINUS), side),
    ]


def driving_summary(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    """The outcome in two sentences; the first driver is the model."""
    (name, scores), *others = drivers.items()
    text = (
        f"On {scores['episodes']} tracks it never trained on, {name} scores {scores['mean']:.1f} on average "
        f"and finishes {scores['laps']} of them. Its worst track gives {scores['min']:.1f}."
    )
    if others:
        text += " Beside it: " + ", ".join(f"{n} {s['mean']:.1f}" for n, s in others) + "."
    return text


def driving_facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures at the top."""
    spread = f"± {scores['sd']:.1f} over tracks" if scores["sd"] is not None else ""
    latency = scores["latency_ms"]
    facts = [
        Fact("Mean score", f"{scores['mean']:.1f}", spread),
        Fact("Laps finished", f"{scores['laps']} of {scores['episodes']}".replace(" ", SPACE)),
        Fact("Worst track", f"{scores['min']:.1f}"),
    ]
    if latency:
        slowest = f"99 of 100 within {latency['p99']:.2g}{SPACE}ms"
        facts.append(Fact("Picture to action", f"{latency['median']:.2g} ms", slowest))
    return facts


def regression_sections(
    scores: Mapping[str, Any],
    traces: Sequence[Trace] = (),
    others_by_curvature: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    pictures: Pictures | None = None,
) -> list[Section]:
    """Open loop: baselines, the steering itself, bends, lag, records."""
    curvature = {"model": scores["by_curvature"], **(others_by_curvature or {})}
    sections = [
        Section(
            "Beside the baselines",
            "A prediction is worth something only if it beats what needs no model. Persistence is told the "
            "true steering of a moment ago, which the model is not; at short range it is hard to beat.",
            [error_beside_baselines(scores, "model")],
        )
    ]
    if traces:
        sections.append(_steering_section(scores, traces))
    moments = _worst_section(scores, traces, pictures)
    return [
        *sections,
        Section(
            "Error in bends",
            "Most of any drive is nearly straight, so one average hides the bends. Here the steps are sorted "
            "by how sharply the driver steered.",
            [error_by_curvature(curvature)],
        ),
        Section(
            "Timing",
            "A camera sees the steering only once the car has turned, and a careless model learns to follow "
            "rather than to lead.",
            [lag_curve(scores["lag_curve"], scores["best_lag_s"])],
        ),
        moments,
        _records_section(scores),
    ]


def driving_sections(
    drivers: Mapping[str, Mapping[str, Any]],
    drives: Sequence[Drive] = (),
    traces: Sequence[Trace] = (),
    published: Sequence[Sequence[Any]] = (),
) -> list[Section]:
    """Closed loop: the drivers, each track, where the car left the road, and how it steered."""
    tracks = next(iter(drivers.values()))["seeds"]
    same = {name: s["scores"] for name, s in drivers.items() if s["seeds"] == tracks}
    sections = [
        Section(
            "The drivers",
            "The model chooses every action from the picture alone and lives with what follows. The score is "
            "the world's own; a lap is finished when nearly every tile of the road has been visited.",
            [_drivers_table(drivers, published)],
        ),
        Section(
            "Track by track",
            "A good mean can hide a driver that fails now and then. Look for columns where the model's dot "
            "lies far below the others.",
            [scores_per_track(tracks, same)],
        ),
    ]
    if drives:
        sections.append(Section("Where it drove", _off_road_text(drivers), [track_map(drives)]))
    if traces:
        text = "The model's choice beside the expert's choice for the same moment, while the model drives."
        shown = prediction_over_truth(
            traces, "Where the lines part, the expert would act otherwise.", "model", "expert"
        )
        sections.append(Section("How it steered", text, [shown]))
    return sections


def classification_sections(scores: Mapping[str, Any], pictures: Pictures | None = None) -> list[Section]:
    """Classes and what is taken for what."""
    columns = ("class", "items", "precision", "recall", "F1")
    rows = [[row[k] for k in ("name", "items", "precision", "recall", "f1")] for row in scores["classes"]]
    matrix = Confusion(scores["confusion"], scores["names"], "Items by true and by predicted class")
    return [
        Section(
            "What is taken for what",
            "Each row is a true class, each column a prediction. The diagonal is right; a strongly coloured "
            "cell elsewhere is a confusion worth looking at.",
            [matrix] if pictures is None else [matrix, pictures],
        ),
        Section(
            "Class by class",
            "Precision: of the items called so, how many are. Recall: of those that are, how many it finds.",
            [Table(columns, rows)],
        ),
    ]


def run_sections(log: Sequence[Mapping[str, float]], config: Mapping[str, Any] | None) -> list[Section]:
    """How it was trained and with what settings."""
    sections = []
    if log:
        text = "The training loss is the error on what the model learns from, validation on records kept apart."
        sections.append(Section("Training", text, [loss_curves(log)]))
    if config:
        sections.append(Section("Settings", "Everything needed to make this run again.", [Settings(config)]))
    return sections


def percent(share: float) -> str:
    """A share as a person reads it."""
    digits = 1 if abs(share) > 0.99 or abs(share) < 0.1 else 0
    return f"{100 * share:.{digits}f}{SPACE}%".replace("-", MINUS)


def _steering_section(scores: Mapping[str, Any], traces: Sequence[Trace]) -> Section:
    longest = max(traces, key=lambda trace: len(trace.time_s))
    return Section(
        "The steering itself",
        "What the model steers, drawn over what the driver steered. Good: the thin line lies on the thick "
        "one. A line that is too flat plays safe; one that comes late follows.",
        [prediction_over_truth([longest], "The longest record, whole.", "model", "driver")],
    )


def _worst_section(scores: Mapping[str, Any], traces: Sequence[Trace], pictures: Pictures | None) -> Section:
    by_name = {trace.name: trace for trace in traces}
    near = [by_name[row["record"]].window(row["time_s"], 12) for row in scores["worst"][:3] if row["record"] in by_name]
    blocks: list[Block] = []
    if near:
        blocks.append(prediction_over_truth(near, "Twelve seconds around the three worst.", "model", "driver"))
    if pictures is not None:
        blocks.append(pictures)
    keys = ("record", "time_s", "prediction", "truth", "error")
    rows = [[row[key] for key in keys] for row in scores["worst"]]
    blocks.append(Table(("record", "time (s)", "prediction", "truth", "error"), rows))
    text = "The largest errors, at least a second apart: the place to start looking for what the model misses."
    return Section("Worst moments", text, blocks)


def _records_section(scores: Mapping[str, Any]) -> Section:
    keys = ("name", "steps", "rmse", "mae", "best_lag_s")
    rows = [[row[key] for key in keys] for row in sorted(scores["records"], key=lambda row: -row["rmse"])]
    text = "Every record kept for the test, worst first. Some records are simply harder than others."
    return Section("Records", text, [Table(("record", "steps", "RMSE", "MAE", "best lag (s)"), rows)])


def _drivers_table(drivers: Mapping[str, Mapping[str, Any]], published: Sequence[Sequence[Any]]) -> Table:
    rows = [
        [name, s["mean"], s["sd"], s["min"], f"{s['laps']} of {s['episodes']}", "measured here"]
        for name, s in drivers.items()
    ]
    rows += [[name, mean, sd, None, None, source] for name, mean, sd, source in published]
    return Table(("driver", "mean", "sd", "worst", "laps", "source"), rows, strong=[0])


def _off_road_text(drivers: Mapping[str, Mapping[str, Any]]) -> str:
    count = len(next(iter(drivers.values()))["off_road"])
    if count == 0:
        return "The car never left the road."
    times = "once" if count == 1 else f"{count} times"
    return f"The car left the road {times} in all, over every track that was driven."


CSS = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfc; --ink: #171c22; --muted: #5a6571; --faint: #a3abb3; --rule: #dcdfe2; --soft: #f2f3f3;
  --model: #0a5fc4; --truth: #c26a00; --third: #0b7d63; --fourth: #8148b5; --alarm: #c8202f;
  --sans: "Inter", "Segoe UI Variable Text", "Segoe UI", system-ui, -apple-system, "Helvetica Neue", Arial,
    sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #13171b; --ink: #e4e8ec; --muted: #98a3ae; --faint: #5d6873; --rule: #333b43; --soft: #1b2026;
    --model: #6fb1ff; --truth: #eaa43f; --third: #4ac7a3; --fourth: #c39bef; --alarm: #ff7a80;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.6 var(--sans); }
main { max-width: 70rem; margin: 0 auto; padding: clamp(2rem, 6vw, 4.5rem) clamp(1.25rem, 4vw, 3rem) 3rem; }
h1 { margin: 0 0 1rem; font-size: clamp(1.9rem, 5vw, 2.9rem); line-height: 1.12; letter-spacing: -0.022em;
  font-weight: 680; text-wrap: balance; overflow-wrap: anywhere; }
h2 { margin: 0 0 0.5rem; font-size: 1.2rem; line-height: 1.3; letter-spacing: -0.01em; font-weight: 650; }
p { margin: 0; text-wrap: pretty; }
a { color: inherit; }
header p { max-width: 44rem; font-size: clamp(1.06rem, 2vw, 1.2rem); line-height: 1.55; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1.5rem 2rem;
  margin: 2.5rem 0 0; padding: 1.4rem 0 0; border-top: 2px solid var(--ink); }
.facts dt { color: var(--muted); font-size: 0.875rem; }
.facts dd { margin: 0; font-size: clamp(1.6rem, 4vw, 2rem); line-height: 1.25; font-weight: 620;
  letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.facts .note { font-size: 0.875rem; font-weight: 400; letter-spacing: 0; line-height: 1.4;
  color: var(--muted); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.4rem; margin: 2.5rem 0 0; padding: 0; list-style: none;
  font-size: 0.9375rem; }
nav a { display: inline-block; padding: 0.3rem 0; color: var(--muted); text-decoration-color: var(--rule);
  text-underline-offset: 0.25em; }
nav a:hover { color: var(--ink); text-decoration-color: currentColor; }
section { margin-top: 3rem; padding-top: 1.6rem; border-top: 1px solid var(--rule); scroll-margin-top: 0; }
.text p { color: var(--muted); font-size: 0.9375rem; max-width: 40rem; }
.blocks { display: grid; gap: 2rem; margin-top: 1.4rem; grid-template-columns: minmax(0, 1fr); }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: 0.6rem; max-width: 44rem; color: var(--muted); font-size: 0.875rem; line-height: 1.5;
  text-wrap: pretty; }
.opening { margin-top: 2.5rem; }
.opening img { width: 100%; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; background: var(--soft); }
img.small { width: 100%; image-rendering: pixelated; }
.pictures { display: grid; gap: 1.2rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(10rem, 44%), 1fr)); }
.pictures figcaption { margin-top: 0.4rem; font-size: 0.8125rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg * { stroke-linejoin: round; }
svg text { font-family: var(--sans) !important; fill: var(--muted); font-variant-numeric: tabular-nums; }
.wide { display: none; }
.narrow { max-width: 30rem; }
@media (min-width: 44rem) { .wide { display: block; } .narrow { display: none; } }
.keys { display: flex; flex-wrap: wrap; gap: 0.2rem 1.4rem; margin: 0 0 0.8rem; padding: 0; list-style: none;
  font-size: 0.875rem; }
.keys i { display: inline-block; width: 1.1em; height: 0.28em; margin-right: 0.5em; border-radius: 1em;
  vertical-align: 0.22em; background: var(--colour); }
i.model { --colour: var(--model); } i.truth { --colour: var(--truth); } i.third { --colour: var(--third); }
i.fourth { --colour: var(--fourth); } i.alarm { --colour: var(--alarm); } i.muted { --colour: var(--muted); }
i.rule { --colour: var(--rule); height: 0.8em; border-radius: 2px; vertical-align: -0.05em; }
.scroll { overflow-x: auto; }
.scroll:focus-visible, a:focus-visible, summary:focus-visible { outline: 2px solid var(--model);
  outline-offset: 3px; }
table { border-collapse: collapse; width: 100%; font-size: 0.9375rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--muted); font-size: 0.875rem; padding-bottom: 0.6rem; }
th, td { padding: 0.5rem 1.2rem 0.5rem 0; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th { color: var(--muted); font-weight: 500; font-size: 0.875rem; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; }
.strong td { font-weight: 650; }
.strong td:first-child { color: var(--model); }
.confusion { width: auto; }
.confusion th, .confusion td { min-width: 2.6rem; padding: 0.4rem 0.6rem; text-align: center;
  border: 2px solid var(--paper); }
.confusion th[scope=row] { text-align: right; }
.confusion thead td { font-size: 0.8125rem; color: var(--muted); white-space: nowrap; }
.confusion .right { background: color-mix(in srgb, var(--model) var(--share), var(--soft)); }
.confusion .wrong { background: color-mix(in srgb, var(--alarm) var(--share), var(--soft)); }
.confusion .none { background: var(--soft); color: var(--muted); }
details summary { cursor: pointer; font-size: 0.9375rem; padding: 0.3rem 0; }
.settings { margin: 0.8rem 0 0; columns: 22rem; column-gap: 3rem; font-size: 0.875rem; }
.settings div { display: flex; justify-content: space-between; gap: 1.5rem; padding: 0.3rem 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }
.settings dt { color: var(--muted); } .settings dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
footer { margin-top: 3.5rem; padding-top: 1.2rem; border-top: 1px solid var(--rule); color: var(--muted);
  font-size: 0.875rem; }
@media (min-width: 62rem) {
  section { display: grid; grid-template-columns: 14.5rem minmax(0, 1fr); gap: 3rem; }
  .blocks { margin-top: 0.2rem; }
}
@media print { section, figure { break-inside: avoid; } nav { display: none; } }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$css</style>
</head>
<body>
<main>
<header>
<h1>$title</h1>
<p>$summary</p>
$picture
<dl class="facts">$facts</dl>
<nav aria-label="Sections"><ul>$links</ul></nav>
</header>
$sections
$footer
</main>
</body>
</html>
""")
