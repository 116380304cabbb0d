"""Commands of this room."""

import inspect
import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ..console import OUT, changed, named, renamed, say, values
from ..data.records import Record
from ..errors import Interrupted, UserError
from ..files import check_output
from ..live import live_part
from ..plugins import own_lines
from ..progress import bars, silent
from ..sources import selection
from ..training import old_runs
from ..training.devices import join_processes
from ..training.recipe import Recipe, checked, open_records
from ..training.run import Run, find, new_folder
from . import RECIPES, Make, make_of


@dataclass(frozen=True)
class Train:
    """Every option of the recipe can be changed; the run's config.json holds what was chosen."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: tuple[str, ...] = ()
    """Recordings to learn from: folders of any format that is known. None: the recipe's own source."""
    keep: str = ""
    """Seconds of each record to learn from, such as 10:120,200:300; empty: all. Of one log alone: LOG?keep=10:120."""
    drop: str = ""
    """Seconds to leave out, in the same form."""
    records: str = ""
    """Records to learn from, by their numbers from 0 or their names: 0,3:5 or 'tub/*'."""
    run: str = ""
    """Folder of the run; one that exists is resumed. Empty: a new one below `runs`."""
    start: str = ""
    """Run of the same recipe to begin from: its options, weights, normalisers and vocabulary. Empty: from nothing."""
    minutes: float = 0.0
    """Minutes after which training stops, to be scored as it is then; it can be gone on with later. 0: never."""
    rounds: int = 0
    """Rounds of DAgger: the model drives, the expert labels, the data grows, training goes on."""
    round_episodes: int = 10
    """Episodes that the model drives in each round."""
    device: str = "auto"
    """Device to train on: auto, cpu or cuda."""
    doctor: bool = False
    """Look at gradients, gates and updates while training, and say what is out of the ordinary."""
    doctor_every: int = 200
    """Steps between such looks."""
    watch: bool = False
    """Serve a page that shows the training, and the newest weights at a lap a minute."""
    watch_port: int = 0
    """Port of that page; 0: any that is free."""
    open: bool = True
    """Open that page in a browser."""

    BOUNDS = {
        "minutes": (0, inf),
        "rounds": (0, 1000),
        "round_episodes": (1, 100_000),
        "doctor_every": (1, inf),
        "watch_port": (0, 65_535),
    }


RENAMED = {
    f"--{part}.{old}".replace("_", "-"): f"--{part}.{new}".replace("_", "-")
    for part, kind in (("training", "Training"), ("batches", "Lanes"))
    for old, new in old_runs.RENAMED[kind].items()
}
"""Options of version 0.1 and what they are called now."""


def train(arguments: list[str]) -> None:
    """train a recipe"""
    name, rest = named("train", "RECIPE", arguments, RECIPES, own=True)
    if name is None:
        return
    make = make_of(name)
    folder = next(iter(values(rest, "--run")), None)
    # A run that exists is resumed as it was begun.
    begun = Run.open(Path(folder)) if folder and os.path.lexists(Path(folder) / "config.json") else None
    start = next(iter(values(rest, "--start")), None)
    from_run = begun or (Run.open(find(start)) if start else None)
    if from_run and from_run.name.rpartition(":")[2] != name.rpartition(":")[2]:
        what = "name another folder with --run" if begun else f"begin from a run of {name}"
        raise UserError(f"{from_run.folder} is a run of {from_run.name}, not of {name}; {what}")
    records: list[Record] | None = None
    if begun:
        default = Train(begun.recipe, begun.data, run=folder or "")
    else:
        data = () if {"-h", "--help"} & set(rest) else values(rest, "--data")
        spans = {part: next(iter(values(rest, f"--{part}")), "") for part in selection.NAMES}
        data = selection.asked(data, **spans) if data else ()
        records = open_records(from_run.recipe if from_run else _made(name, make, ()), data) if data else None
        recipe = from_run.recipe if from_run else _made(name, make, records or ())
        default = Train(recipe, from_run.data if from_run and not data else ())
    text = f"{inspect.getdoc(make) or name}\n\n{Train.__doc__}"
    rest = renamed(rest, RENAMED | default.recipe.renamed_options)
    options = changed(default, rest, f"train {name}", text)
    spans = {part: getattr(options, part) for part in selection.NAMES}
    options = replace(options, data=selection.asked(options.data, **spans))
    if records is not None and options.recipe.source != default.recipe.source:
        records = None  # They are to be read another way than they were to find the recipe's variant.
    rank, ranks = join_processes()
    if ranks > 1 and not options.run:
        raise UserError("processes share a folder; name it: torchrun ... -m -- steersman train ... --run FOLDER")
    run = Path(options.run or new_folder(name))
    check_output(run, folder=True, otherwise="name another folder with --run")
    watching = nullcontext()
    if options.watch and not rank:
        found = partial(_watch_at, options.open)
        watching = live_part("watching").watched(run, say, found, port=options.watch_port)
    with watching:
        _train(name, options, run, rank, arguments, records)


def _train(
    name: str, options: Train, folder: Path, rank: int, arguments: list[str], records: list[Record] | None
) -> None:
    # What draws pages and drives is not needed to say what the options are.
    from ..doctor.live import Live
    from ..evaluation.outcome import score_table
    from ..evaluation.report import report_run
    from ..worlds.dagger import fit_rounds

    try:
        with bars() as watch:
            run = fit_rounds(
                name,
                options.recipe,
                folder,
                options.data,
                options.device,
                options.rounds,
                options.round_episodes,
                say=(lambda text: None) if rank else say,
                watch=silent if rank else watch,
                look=Live(say, options.doctor_every) if options.doctor and not rank else None,
                records=records,
                command=shlex.join(["steersman", "train", *arguments]),
                start=find(options.start) if options.start else None,
                minutes=options.minutes,
            )
    except (Interrupted, KeyboardInterrupt) as stop:
        again = shlex.join(arguments if options.run else [*arguments, "--run", str(folder)])
        raise Interrupted(f"{str(stop) or 'stopped'}; resume with: steersman train {again}") from None
    if rank:
        return
    with bars() as watch:
        scores = report_run(run, watch=watch)
    OUT.print(score_table(scores))
    OUT.print(f"run: {folder}\nreport: {folder / 'report.html'}")


def _watch_at(open: bool, address: str, once: str) -> None:
    say(f"watch: {address}")
    if open:
        from ..live.browser import opened

        opened(once)


def _made(name: str, make: Make, records: Sequence[Record]) -> Recipe:
    if name in RECIPES:
        return make(records)
    try:
        inspect.signature(make).bind(records)
    except TypeError as error:
        raise UserError(f"{name} can't be called with the records of the data: {error}") from error
    try:
        recipe = make(records)
    except TypeError as error:
        if "keyword argument" not in str(error):
            raise
        place = own_lines(error).partition(": ")[0]
        raise UserError(
            f"{name}: {error} ({place or 'in the package'}); fields of version 0.1 are called otherwise now, "
            "see the changelog"
        ) from error
    return checked(recipe, name)
