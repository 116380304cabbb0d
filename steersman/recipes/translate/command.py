"""Commands of this room."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...console import say
from ...errors import UserError
from ...progress import bars
from ...sources.parallel import decoded, split
from ...training.run import Run, find
from .attention import check_picture, picture_attention
from .recipe import recipe_of
from .translator import Translator


@dataclass(frozen=True)
class Translate:
    """Translates standard input line by line: as many lines come out as go in."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `translate`."""
    beam: int = 5
    """Sequences kept at every step; 1: greedy."""
    power: float = 1.0
    """Of the length, by which a sequence's log-probability is divided; 0 favours short ones."""
    attention: str = ""
    """Also picture where it looked while it translated the first lines, in this file (.html or .png)."""


def translate(arguments: list[str]) -> None:
    """translate standard input"""
    options = tyro.cli(Translate, args=arguments, prog="steersman translate")
    if options.beam < 1 or not 0 <= options.power <= 10:
        raise UserError("--beam must be at least 1, and --power from 0 to 10")
    if options.attention:
        check_picture(Path(options.attention))  # Before the work is done, not after it.
    run = Run.open(find(options.run))
    longest, model = recipe_of(run).longest, run.model()
    assert isinstance(model, Translator)
    given = decoded(sys.stdin.buffer.read(), "standard input")
    with bars() as watch:
        said = model.translate(split(given) if given else [], options.beam, options.power, longest, watch=watch)
    for one in said:
        print(" ".join(one.text.splitlines()))  # A line is a line, whatever the model says.
    if unknown := sum(one.unknown for one in said):
        say(f"{unknown} pieces of the text are not in the model's vocabulary")
    if options.attention:
        shown = picture_attention(Path(options.attention), model, said)
        say(f"attention: {options.attention} ({shown} of {len(said)} lines)")
