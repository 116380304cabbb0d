"""Commands of this room."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, parsed
from ..errors import UserError
from ..files import check_output
from ..progress import bars
from ..training.run import Run, find
from .circuits import circuit, draw, said, values
from .gallery import draw_run, draw_run_saliency, gallery
from .surface import draw_relu, draw_saddle, draw_surface


@dataclass(frozen=True)
class Explain:
    """A formula, and a number for each of its names: steersman explain "(x + y) * z" x=-2 y=5 z=-4."""

    formula: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FORMULA")]
    """Formula of + - * / ^, brackets, max, min, exp, log, sigmoid, tanh, relu, power. Statements are divided by `;`,
    and `name = ...` names a wire; the sum of those without a name is differentiated."""
    given: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=NUMBER")] = ()
    """A number for each name."""
    out: str = ""
    """Files of the circuit's picture: OUT.svg and OUT.png; empty: none."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class ExplainRun:
    """Pictures of one record as a trained model reads it: unrolled over time, gates over time, or what moved it."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run, or the name of a model that ships with the package."""
    sample: int = 0
    """Index of the record among the run's test records, or those of --data; 0: the first."""
    data: tuple[str, ...] = ()
    """Recordings to take the record from instead."""
    at: int = -1
    """The step whose prediction is explained; -1: an early one of a long record, the last of a short one."""
    steps: int = 0
    """Steps shown, up to that one; 0: 8 unrolled, 60 of gates, 24 of saliency."""
    saliency: bool = False
    """Show integrated gradients instead: which inputs moved the prediction; for a drive also an mp4."""
    out: str = ""
    """Folder of the pictures; empty: below `explain`, named after the run."""

    BOUNDS = {"sample": (0, inf), "at": (-1, inf), "steps": (0, inf)}


@dataclass(frozen=True)
class ExplainPicture:
    """Draws a picture of training from a real run."""

    out: str = "explain"
    """Folder of the picture."""


@dataclass(frozen=True)
class ExplainGallery:
    """Draws every kind of picture, with the driver that ships with the package on a drive that is recorded for it."""

    out: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    """Folder of the pictures."""
    text: str = ""
    """Run of a text model that is pictured, too; empty: none."""


def explain(arguments: list[str]) -> None:
    """show how gradients flow: in a formula, a run, or the lecture's pictures"""
    what = next((a for a in arguments if not a.startswith("-")), "")
    if not what and arguments and arguments[0] in ("-h", "--help"):
        OUT.print(EXPLAINED)
    elif what in EXPLAIN:
        rest = [a for i, a in enumerate(arguments) if i != arguments.index(what)]
        EXPLAIN[what](what, rest)
    elif (find(what) / "config.json").is_file() or Path(what).is_dir():
        _explain_run(arguments)
    elif PATH.fullmatch(what) and not any("=" in a for a in arguments):
        raise UserError(f"there is no run {what}; a formula needs a number for each name: x=1")
    else:
        _explain_formula(arguments)


PATH = re.compile(r"\.{0,2}/?[\w.-]+(/[\w.-]+)+/?")


EXPLAINED = """usage: steersman explain WHAT [OPTIONS]

WHAT is, in this order,
  surface, saddle, relu  a picture of training, from a real run: --out FOLDER
  gallery FOLDER         every kind of picture
  a run                  its folder, or steer, which ships: unrolled over time, gates, --saliency
  a formula              a circuit with values and gradients, and a number for each name: "(x + y) * z" x=-2 y=5 z=-4

steersman explain surface --help, and so on, says more of each; of a formula: steersman explain "x + y" --help"""


def _explain_picture(what: str, arguments: list[str]) -> None:
    options = parsed(ExplainPicture, arguments, f"explain {what}")
    check_output(Path(options.out), folder=True)
    paint = {"surface": draw_surface, "saddle": draw_saddle, "relu": draw_relu}[what]
    OUT.print(f"picture: {paint(Path(options.out) / f'{what}.png')}")


def _explain_gallery(what: str, arguments: list[str]) -> None:
    options = parsed(ExplainGallery, arguments, "explain gallery")
    check_output(Path(options.out), folder=True)
    with bars() as watch:
        files = gallery(Path(options.out), Run.open(Path(options.text)) if options.text else None, watch)
    for file in files:
        OUT.print(f"picture: {file}")


EXPLAIN: dict[str, Callable[[str, list[str]], None]] = {
    **dict.fromkeys(("surface", "saddle", "relu"), _explain_picture),
    "gallery": _explain_gallery,
}


def _explain_run(arguments: list[str]) -> None:
    options = parsed(ExplainRun, arguments, "explain")
    run = Run.open(find(options.run))
    folder = Path(options.out or Path("explain") / Path(options.run).name)
    check_output(folder, folder=True, otherwise="name another folder with --out")
    make = draw_run_saliency if options.saliency else draw_run
    with bars() as watch:
        lines = make(run, options.sample, options.data, options.at, options.steps, folder, watch)
    for line in lines:
        OUT.print(line)


def _explain_formula(arguments: list[str]) -> None:
    options = parsed(Explain, arguments, "explain")
    if options.out:
        check_output(Path(f"{options.out}.svg"))
    found = circuit(options.formula, values(options.given))
    files = draw(found, Path(options.out)) if options.out else []
    if options.json:
        print(json.dumps(found.json()))
        return
    for name, table in zip(("forwards", "backwards"), said(found), strict=True):
        OUT.print(name, style="bold")
        OUT.print(table)
    OUT.print(f"farthest from a finite difference: {found.error:.1e}")
    for file in files:
        OUT.print(f"picture: {file}")
