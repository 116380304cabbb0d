"""Training of a recipe in a folder."""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from ..data.records import Record
from ..data.splits import unsaid
from ..files import locked
from ..nn.heads import calibrates
from ..nn.model import SequenceModel
from ..progress import Watch, silent
from .checkpoints import Checkpoints, load_weights, write_tensors
from .devices import first_alone, join_processes, pick_device
from .prepare import divide, prepare
from .recipe import Parts, Recipe, Shapes, read_records
from .run import Run, absolute, check_same_run
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
    records: Sequence[Record] | None = None,
    command: str = "",
    minutes: float = 0.0,
    parts: Parts | None = None,
) -> Run:
    """Trains a recipe in `folder`, or goes on with the training begun there.

    `start` is a run whose weights, normalisers and vocabulary it begins from; `extra` data is only trained on, never
    held out; `look` is called after each step; `records` are those of `data` where they were read already; `command` is
    what the page says makes the run again; `parts` are records that were divided otherwise than the recipe does. After
    so many `minutes` of wall time it ends as after its last step, and can be gone on with; 0: never. Under torchrun
    every process takes its share of each batch. UserError where another training goes on in the folder.
    """
    began = time.monotonic()
    folder, data, extra = Path(folder), absolute(data), absolute(extra)
    if Checkpoints(folder / "checkpoints").steps():
        start = None  # It has begun.
    rank, ranks = join_processes()
    torch.manual_seed(recipe.training.seed)
    run = Run(folder, name, recipe, (), data, extra, command=command, created=_now())

    def begin(adapted: Recipe, raw: Shapes) -> None:
        nonlocal run
        run = check_same_run(replace(run, recipe=adapted, raw=raw))

    with training_alone(folder) if rank == 0 else nullcontext():
        with first_alone(rank, ranks):
            parts = parts or divide(recipe, data, records, say if rank == 0 else unsaid, watch)
            only_trained_on = read_records(recipe, extra, watch) if extra else []
            made = prepare(
                recipe, parts, only_trained_on, folder, None, begin, start=start, rank=rank, ranks=ranks, watch=watch
            )
        model, training = made.model, made.recipe.training
        if start is not None:
            load_weights(model, start / "model.safetensors")
            if calibrates(head := model.head):
                head.stretch = torch.ones_like(head.stretch)  # It learns anew, and is calibrated after that.
        if rank == 0:
            run.write()
        torch.manual_seed(training.seed + 1 + rank)
        model = model.to(pick_device(device))
        deadline = began + 60 * minutes if minutes else math.inf
        Trainer(model, made.batches, training, folder, made.validate, say, watch, look, deadline).run()
        if rank == 0 and made.examples["validation"] and calibrates(model.head):
            _calibrate(made.recipe, model, made.examples["validation"], folder / "model.safetensors")
    return replace(run, parts=parts)


def _calibrate(recipe: Recipe, model: SequenceModel, examples: Sequence[Any], weights: Path) -> None:
    """Fits how sure the kept weights say they are to examples that they did not learn from."""
    load_weights(model, weights)
    if recipe.calibrate(model, examples):
        write_tensors(weights, model.state_dict())


def training_alone(folder: Path) -> AbstractContextManager[None]:
    """The folder is this training's alone. UserError where another goes on in it, such as a job started twice."""
    return locked(folder, f"another training goes on in {folder}; wait for its end, or name another folder with --run")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
