"""Command of drawing."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ...console import OUT, parsed
from ...errors import UserError
from ...files import check_output
from ...training.run import Run, find
from ..stills import write_film
from .task import PERIOD_S, scene, strokes


@dataclass(frozen=True)
class DrawPictures:
    """Draws pictures by chance, stroke after stroke, as a film."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `draw`."""
    out: str = "drawings.webp"
    """File to write: .webp, .gif or .png, a film of every stroke."""
    number: int = 32
    """Pictures to draw."""
    seed: int = 0
    """Seed of the codes: the same seed draws the same."""

    BOUNDS = {"number": (1, 4096), "seed": (0, inf)}


def draw(arguments: list[str]) -> None:
    """draw pictures as a run of `draw` learned to"""
    options = parsed(DrawPictures, arguments, "draw")
    check_output(Path(options.out))
    run = Run.open(find(options.run))
    model = run.model()
    if not hasattr(model, "drawings"):
        raise UserError(f"{run.folder} is a run of {run.name}, which does not draw; train one: steersman train draw")
    write_film(Path(options.out), strokes(model, scene(run), options.number, options.seed), PERIOD_S)
    OUT.print(f"drawings: {options.out}")
