"""The one prepared pipeline: from data to a model, its examples and batches, as training sees them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..console import counted
from ..data.records import Record
from ..data.splits import unsaid
from ..errors import UserError
from ..files import read_file, write_file
from ..nn.model import SequenceModel
from ..progress import Watch, silent
from .recipe import Parts, Recipe, Shapes, open_records
from .task import task_of

LEARNED = ("train", "validation")
"""Parts that training sees."""


@dataclass(frozen=True)
class Prepared:
    """What training, doctor, comparison and live learning begin with."""

    recipe: Recipe
    """Recipe as it was adapted to the records."""
    raw: Shapes
    model: SequenceModel
    records: Parts
    """Records as they were divided; what is only trained on is not among them."""
    examples: dict[str, list[Any]]
    """Examples of `train` and `validation`, as they are learned from."""
    batches: Any
    validate: Callable[[Any], float] | None
    """Score on the validation examples, the lower the better; None without any."""


def divide(
    recipe: Recipe,
    data: Sequence[str] = (),
    records: Sequence[Record] | None = None,
    say: Callable[[str], None] = unsaid,
    watch: Watch = silent,
) -> Parts:
    """Records of some data (or those that were opened before) divided; tells of faults and of what is left out."""
    found = recipe.transform_records(open_records(recipe, data, watch) if records is None else list(records))
    for fault in faults(found):
        say(fault)
    return recipe.divide(found, say)


def prepare(
    recipe: Recipe,
    parts: Parts,
    extra: Sequence[Record] = (),
    folder: Path | None = None,
    model: SequenceModel | None = None,
    begin: Callable[[Recipe, Shapes], None] | None = None,
    on_examples: Callable[[dict[str, list[Any]]], None] | None = None,
    start: Path | None = None,
    rank: int = 0,
    ranks: int = 1,
    watch: Watch = silent,
) -> Prepared:
    """The pipeline over divided records; `extra` ones are only trained on.

    Without a `model` one is made and its normalisers are fitted; what it is built with is learned into `folder`, once
    `begin` (given the adapted recipe and the shapes) has not refused. `on_examples` may change examples before that.
    A vocabulary is that of the run `start`, where one is given.
    """
    recipe = recipe.adapt(parts)
    task_of(recipe)  # A task that does not fit is refused before anything is learned.
    train = [*parts["train"], *extra]
    raw = recipe.shapes(train)
    if begin:
        begin(recipe, raw)
    made = model
    if made is None:
        if recipe.learned_files:
            if folder is None:
                raise UserError("a recipe with a vocabulary of its own needs a folder to keep it in")
            if start is None:
                recipe.fit_vocabulary(train, folder)
            else:
                for name in recipe.learned_files:
                    write_file(folder / name, read_file(start / name, 2**40))
        made = recipe.load_skeleton(raw, folder or Path())
    seen = {"train": train, "validation": parts["validation"]}
    examples = {
        part: recipe.examples(made, recipe.training_records(part, records), watch) for part, records in seen.items()
    }
    recipe.check(made, parts.get("test", ()))
    if on_examples:
        on_examples(examples)
    if model is None:
        recipe.fit_normalisers(made, examples["train"])
    batches = recipe.make_batches(made, examples["train"], rank, ranks)
    validate = recipe.validation(examples["validation"]) if examples["validation"] else None
    return Prepared(recipe, raw, made, parts, examples, batches, validate)


def faults(records: Sequence[Record]) -> list[str]:
    """What their logs held that could not be read and was left out, a line a log, and what else was done to them."""
    lines = {}
    for record in records:
        for note in record.about.get("notes", []):
            lines.setdefault(note, f"{record.name}: {note}")
        if number := record.about.get("num_faults", 0):
            first = record.about["faults"][0]
            what = counted(number, record.about.get("lost", "frames").removesuffix("s"))
            lines.setdefault(str(record.about["faults"]), f"{record.name}: {what} left out, the first: {first}")
    return list(lines.values())
