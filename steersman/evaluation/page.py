"""A self-contained page: its parts, and their way to HTML without scripts, light and dark, wide and narrow."""

import base64
import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Protocol

import numpy as np

from ..files import write_file
from ..json_types import JsonMapping

ROUNDING = 1e-12
"""What is smaller is left of a sum that came to nothing."""
DASH, MINUS, SPACE = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


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
    """Rows of text and numbers, None where there is no figure; `strong` are the rows to stress.

    With `wraps` the cells are sentences, broken into lines rather than scrolled.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    strong: Sequence[int] = ()
    wraps: bool = False

    def html(self) -> str:
        number = [not any(isinstance(row[c], str) for row in self.rows) for c in range(len(self.columns))]
        kind = [' class="n"' if each else "" for each in number]
        head = "".join(f'<th scope="col"{k}>{escape(c)}</th>' for k, c in zip(kind, self.columns, strict=True))
        body = ""
        for index, row in enumerate(self.rows):
            cells = "".join(f"<td{k}>{figure(v)}</td>" for k, v in zip(kind, row, strict=True))
            body += f'<tr class="strong">{cells}</tr>' if index in self.strong else f"<tr>{cells}</tr>"
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        kinds = ' class="wraps"' if self.wraps else ""
        table = f"<table{kinds}>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
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
class Coloured:
    """A text, each character shaded by a number: above zero in one colour, below in another, -1 and 1 the deepest."""

    characters: Sequence[str]
    values: Sequence[float]
    caption: str

    def html(self) -> str:
        spans = "".join(
            f'<span class="{"up" if value > 0 else "down"}" style="--share:{min(100, round(abs(value) * 20) * 5)}%">'
            f"{escape(''.join(self.characters[first:last]))}</span>"
            for first, last, value in self._runs()
        )
        return (
            f'<figure class="coloured"><div class="scroll" tabindex="0" role="region" aria-label="Text">{spans}</div>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )

    def _runs(self) -> Iterable[tuple[int, int, float]]:
        """Stretches of about one shade: fewer elements."""
        first = 0
        for i in range(1, len(self.values) + 1):
            if i == len(self.values) or round(self.values[i] * 20) != round(self.values[first] * 20):
                yield first, i, self.values[first]
                first = i


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
class Film:
    """uint8 pictures (time, row, column, 3) that follow one another, over and over; the first is what is printed."""

    pictures: Sequence[np.ndarray]
    period_s: float
    caption: str

    def html(self) -> str:
        first, *later = self.pictures
        shown = image(first, self.caption, later, self.period_s)
        return f'<figure class="film">{shown}<figcaption>{escape(self.caption)}</figcaption></figure>'


@dataclass(frozen=True)
class Audible:
    """A sound (sample), from -1 to 1, that can be played, under its energies (time band) as a picture."""

    sound: np.ndarray
    rate_hz: int
    energies: np.ndarray
    caption: str

    def html(self) -> str:
        return (
            f'<figure class="audible">{image(heat(self.energies.T[::-1]), self.caption)}'
            f'<audio controls preload="metadata" src="{wav(self.sound, self.rate_hz)}"></audio>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Settings:
    """A nested config as names and values, folded away until asked for."""

    config: JsonMapping

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


def write_report(path: Path, report: Report) -> None:
    """Writes the page, whole or not at all."""
    write_file(path, page(report).encode())


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


def image(picture: np.ndarray, alt: str, film: Sequence[np.ndarray] = (), period_s: float = 0.0) -> str:
    """An <img> that holds its PNG; with a `film` what follows the picture, so many seconds each, over and over."""
    from PIL import Image

    png, later = io.BytesIO(), [Image.fromarray(frame) for frame in film]
    moving: dict[str, Any] = {"save_all": True, "append_images": later, "duration": round(1000 * period_s), "loop": 0}
    Image.fromarray(picture).save(png, "PNG", optimize=True, **(moving if later else {}))
    data = base64.b64encode(png.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<img class="{"small" if width < 300 else "large"}" width="{width}" height="{height}" '
        f'alt="{escape(alt, quote=True)}" src="data:image/png;base64,{data}">'
    )


def heat(values: np.ndarray) -> np.ndarray:
    """Numbers (row column) as a picture, the least dark."""
    from matplotlib import colormaps

    low, high = values.min(), values.max()
    return (colormaps["magma"]((values - low) / max(high - low, 1e-12))[..., :3] * 255).astype(np.uint8)


def wav(sound: np.ndarray, rate_hz: int) -> str:
    """A sound (sample), from -1 to 1, as an address that holds it, in 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, rate_hz, 0, "NONE", ""))
        written.writeframes((sound.clip(-1, 1) * 32767).round().astype("<i2").tobytes())
    return f"data:audio/wav;base64,{base64.b64encode(file.getvalue()).decode()}"


def figure(value: Any) -> str:
    """A table's cell: three digits of a float, a dash for None, all text escaped."""
    if value is None:
        return DASH
    if isinstance(value, float):
        value = 0.0 if abs(value) < ROUNDING else value
        return (f"{value:.1f}" if 10 <= abs(value) < 1e5 else f"{value:#.3g}").replace("-", MINUS)
    if isinstance(value, int):
        return f"{value:,}"
    return escape(str(value))


def flattened(config: JsonMapping, prefix: str = "") -> Iterable[tuple[str, Any]]:
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
.film { max-width: 36rem; }
.film img.small { max-width: 16rem; }
.audible { max-width: 22rem; }
.audible img { height: 7rem; object-fit: fill; }
.audible audio { width: 100%; height: 2.2rem; margin-top: 0.4rem; }
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
caption { text-align: left; color: var(--muted); font-size: 0.875rem; padding-bottom: 0.6rem; overflow-wrap: anywhere; }
th, td { padding: 0.5rem 1.2rem 0.5rem 0; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
th { color: var(--muted); font-weight: 500; font-size: 0.875rem; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; }
@media (max-width: 44rem) { td:first-child:not(.n) { min-width: 8rem; white-space: normal; } }
.wraps td { white-space: normal; overflow-wrap: anywhere; }
.wraps td:first-child:not(:last-child) { width: 13rem; overflow-wrap: normal; }
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
.coloured div { max-height: 22rem; overflow-y: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.875rem/1.7 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.coloured .up { background: color-mix(in srgb, var(--truth) var(--share), transparent); }
.coloured .down { background: color-mix(in srgb, var(--model) var(--share), transparent); }
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
