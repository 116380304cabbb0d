"""Command that tells of pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ...console import parsed, say
from ...data.frames import Frames
from ...errors import UserError
from ...evaluation.page import Pictures, Report, Section, write_report
from ...files import check_output
from ...sources.told_pictures import PICTURE, QUESTION, told
from ...training.run import Run, find
from .report import lit
from .task import AnswerPictures, CaptionPictures
from .telling import looked
from .telling import tell as tell_of


@dataclass(frozen=True)
class Tell:
    """Says what a model says of pictures, a line each: a caption, or the answer to a question."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `caption`, `vqa` or the like."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")]
    """Files of pictures; of a run that reads films, the frames of one, in order."""
    question: str = ""
    """Question about each, for a run that answers questions."""
    beam_width: int = 0
    """Sequences kept at every step; 1: greedy; 0: as the run's task has it."""
    attention: str = ""
    """File (.html) for pictures of where the model looked; empty: none."""


def tell(arguments: list[str]) -> None:
    """say a caption of a picture, or answer a question about it"""
    options = parsed(Tell, arguments, "tell")
    run = Run.open(find(options.run))
    task = run.recipe.task
    if not isinstance(task, AnswerPictures | CaptionPictures):
        raise UserError(f"{run.folder} is a run of {run.name}, which tells of no picture; train one: caption or vqa")
    model = run.model()
    read = model.encoder.sources
    if PICTURE not in read:
        raise UserError(f"{run.folder} sees no picture: it is there to show what can be said without one")
    if not options.pictures:
        raise UserError("name a file of a picture behind the run")
    if (QUESTION in read) != bool(options.question.strip()):
        what = "answers questions: ask one with --question" if QUESTION in read else "reads no question: leave it out"
        raise UserError(f"{run.folder} {what}")
    if options.attention:
        if Path(options.attention).suffix != ".html":
            raise UserError(f"--attention {options.attention}: pictures are written as .html")
        check_output(Path(options.attention))
    files = [_there(name) for name in options.pictures]
    groups = [files] if model.encoder.films else [[file] for file in files]
    records = [told(str(group[0]), Frames(group), "?", options.question.strip()) for group in groups]
    pairs = run.recipe.examples(model, records)
    said = tell_of(model, pairs, task.max_length, options.beam_width or task.beam_width)
    for one in said:
        print(one.text)
    if unknown := sum(one.unknown for one in said):
        say(f"not in the model's vocabulary: {unknown} of the question's words")
    if options.attention:
        blocks = []
        for record, pair, one in zip(records, pairs, said, strict=True):
            names, maps = looked(model, pair, one.tokens)
            picture = record[PICTURE].values[0]
            blocks.append(Pictures([picture, *(lit(picture, w) for w in maps)], [one.text, *names]))
        sections = [Section("Pictures", "Brighter: more weight. Each map sums to 1.", blocks)]
        write_report(Path(options.attention), Report("Where it looked", options.question, [], sections))
        say(f"attention: {options.attention}")


def _there(name: str) -> Path:
    if not Path(name).is_file():
        raise UserError(f"there is no picture {name}")
    return Path(name)
