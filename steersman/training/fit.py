"""Training of a recipe in a folder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..data.records import Record
from ..data.splits import unsaid
from ..progress import Watch, silent
from .checkpoints import load_weights
from .devices import _first_alone, join_processes, pick_device
from .recipe import Recipe, read_records
from .run import Run, _absolute, _same_run
from .trainer import Look, Trainer


def fit(
    name: str,
    recipe: Recipe,
    folder: Path | str,
    data: Sequence[str] = (),
    device: str = "auto",
    start: Path | None = None,
    extra: Sequence[str] = (),
    say: Callable[[str], None] = print,
    watch: Watch = silent,
    look: Look | None = None,
) -> Run:
    """Trains a recipe in `folder`, or goes on with the training begun there.

    `start` is a run to begin from; `extra` data is only trained on, never held out; `look` is called after each step.
    Under torchrun every process takes its share of each batch.
    """
    folder, data, extra = Path(folder), _absolute(data), _absolute(extra)
    rank, ranks = join_processes()
    torch.manual_seed(recipe.training.seed)
    with _first_alone(rank, ranks):
        everything = read_records(recipe, data, watch)
        for fault in faults(everything) if rank == 0 else ():
            say(fault)
        records = recipe.divide(everything, say if rank == 0 else unsaid)
        records["train"] += read_records(recipe, extra, watch) if extra else []
        raw = tuple(records["train"][0][recipe.inputs].values.shape[1:]) or (1,)
        run = Run(folder, name, recipe, raw, data, extra)
        _same_run(run)
        recipe.learn(records["train"], folder)
        model = recipe.model(raw, folder)
        taught = {part: recipe.taught(part, records[part]) for part in ("train", "validation")}
        shown = {part: recipe.examples(model, those, watch) for part, those in taught.items()}
    if start is None:
        recipe.fit(model, shown["train"])
    else:
        load_weights(model, start / "model.safetensors")
    if rank == 0:
        run.write()
    batches = recipe.batched(model, shown["train"], rank, ranks)
    torch.manual_seed(recipe.training.seed + 1 + rank)
    validate = recipe.validation(shown["validation"]) if shown["validation"] else None
    Trainer(model.to(pick_device(device)), batches, recipe.training, folder, validate, say, watch, look).run()
    return run


def faults(records: Sequence[Record]) -> list[str]:
    """What their logs held that could not be read and was left out, a line a log."""
    lines = {}
    for record in records:
        if number := record.about.get("num_faults", 0):
            first = record.about["faults"][0]
            what = record.about.get("lost", "frames")
            lines.setdefault(
                str(record.about["faults"]), f"{record.name}: {number} {what} left out, the first: {first}"
            )
    return list(lines.values())
