"""Command of translation."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from ...console import counted, parsed, renamed, say
from ...errors import UserError
from ...files import check_output
from ...progress import bars
from ...sources.parallel import decoded, split
from ...training.run import Run, find
from .attention import check_picture, picture_attention
from .translator import Translated, check_decoding, check_translates
from .translator import translate as translated


@dataclass(frozen=True)
class Translate:
    """Translates standard input line by line: as many lines come out as go in; a terminal is answered at once."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `translate`."""
    beam_width: int = 5
    """Sequences kept at every step, 100 at most; 1: greedy."""
    length_penalty: float = 1.0
    """Power of the length by which a sequence's log-probability is divided; 0 favours short ones."""
    attention: str = ""
    """File (.html or .png) for a picture of the attention over the first lines; empty: none."""


def translate(arguments: list[str]) -> None:
    """translate standard input"""
    arguments = renamed(arguments, {"--beam": "--beam-width", "--power": "--length-penalty"})
    options = parsed(Translate, arguments, "translate")
    check_decoding(options.beam_width, options.length_penalty)
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
    say_all = partial(
        translated, model, beam_width=options.beam_width, length_penalty=options.length_penalty, max_length=longest
    )
    found = _answered(say_all) if sys.stdin.isatty() else _all_at_once(say_all)
    if unknown := sum(one.unknown for one in found):
        say(f"not in the model's vocabulary: {counted(unknown, 'piece')} of the text")
    if options.attention:
        pictured = picture_attention(Path(options.attention), model, found)
        say(f"attention: {options.attention} ({pictured} of {len(found)} lines)")


def _all_at_once(say_all: Callable[..., list[Translated]]) -> list[Translated]:
    given = decoded(sys.stdin.buffer.read(), "standard input")
    with bars() as watch:
        found = say_all(split(given) if given else [], watch=watch)
    for one in found:
        print(_line(one))
    return found


def _answered(say_all: Callable[..., list[Translated]]) -> list[Translated]:
    """Each line of a terminal as it comes, until its end."""
    say("type a line to have it translated; Ctrl-D ends")
    found = []
    for line in iter(sys.stdin.buffer.readline, b""):
        for text in split(decoded(line, "standard input")):
            found += say_all([text])
            print(_line(found[-1]), flush=True)
    return found


def _line(said: Translated) -> str:
    """A line is a line, whatever the model says."""
    return " ".join(said.text.splitlines())
