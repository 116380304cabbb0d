"""Command of translation."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...console import renamed, say
from ...errors import UserError
from ...files import check_output
from ...progress import bars
from ...sources.parallel import decoded, split
from ...training.run import Run, find
from .attention import check_picture, picture_attention
from .translator import check_translates
from .translator import translate as translated


@dataclass(frozen=True)
class Translate:
    """Translates standard input line by line: as many lines come out as go in."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `translate`."""
    beam_width: int = 5
    """Sequences kept at every step; 1: greedy."""
    length_penalty: float = 1.0
    """Power of the length by which a sequence's log-probability is divided; 0 favours short ones."""
    attention: str = ""
    """File (.html or .png) for a picture of the attention over the first lines; empty: none."""


def translate(arguments: list[str]) -> None:
    """translate standard input"""
    arguments = renamed(arguments, {"--beam": "--beam-width", "--power": "--length-penalty"})
    options = tyro.cli(Translate, args=arguments, prog="steersman translate")
    if options.beam_width < 1 or not 0 <= options.length_penalty <= 10:
        raise UserError("--beam-width must be at least 1, and --length-penalty from 0 to 10")
    if options.attention:
        check_picture(Path(options.attention))
        check_output(Path(options.attention))
    run = Run.open(find(options.run))
    longest = getattr(run.recipe.task, "max_length", None)
    if longest is None:
        raise UserError(
            f"{run.folder} is a run of {run.name}, which does not translate; train one: steersman train translate"
        )
    model = run.model()
    check_translates(model)
    given = decoded(sys.stdin.buffer.read(), "standard input")
    with bars() as watch:
        lines = split(given) if given else []
        found = translated(model, lines, options.beam_width, options.length_penalty, longest, watch=watch)
    for one in found:
        print(" ".join(one.text.splitlines()))  # A line is a line, whatever the model says.
    if unknown := sum(one.unknown for one in found):
        say(f"{unknown} pieces of the text are not in the model's vocabulary")
    if options.attention:
        pictured = picture_attention(Path(options.attention), model, found)
        say(f"attention: {options.attention} ({pictured} of {len(found)} lines)")
