"""Training in rounds: the model drives, the expert labels, training goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..data.records import Record
from ..errors import UserError
from ..progress import Watch, silent
from ..training.devices import join_processes
from ..training.fit import fit, training_alone
from ..training.recipe import Recipe
from ..training.run import Run
from ..training.trainer import Look
from .recording import own_drives
from .world import expert_of


def fit_rounds(
    name: str,
    recipe: Recipe,
    folder: Path,
    data: Sequence[str] = (),
    device: str = "auto",
    rounds: int = 0,
    episodes: int = 10,
    say: Callable[[str], None] = print,
    watch: Watch = silent,
    look: Look | None = None,
    records: Sequence[Record] | None = None,
    command: str = "",
    start: Path | None = None,
    minutes: float = 0.0,
) -> Run:
    """Trains, then `rounds` times: the model drives, the expert labels, training goes on (DAgger, Ross et al. 2011).

    Rounds go on at a quarter of the rate for a third of the steps; each is a run of its own below `folder`. `start` and
    `minutes` are as in `fit`.
    """
    if rounds == 0 and (folder / "rounds").exists():
        raise UserError(f"{folder} is trained in rounds; resume it with the same --rounds")
    if rounds == 0:
        return fit(name, recipe, folder, data, device, start, (), say, watch, look, records, command, minutes)
    if minutes:
        raise UserError("--minutes would end a training before its rounds are driven; leave out --rounds")
    source = own_drives(recipe)
    if source is None:
        raise UserError(f"--rounds needs a recipe that learns to drive in a simulator; {name} on this data does not")
    expert_of(source.world.build(render=False))
    if join_processes()[1] > 1:
        raise UserError("--rounds drives in workers of its own; run it without torchrun")
    later = replace(
        recipe.training, learning_rate=recipe.training.learning_rate / 4, steps=max(1, recipe.training.steps // 3)
    )
    with training_alone(folder):
        parts = [folder / "rounds" / str(i) for i in range(rounds + 1)]
        run = fit(name, recipe, parts[0], data, device, start, say=say, watch=watch, look=look, records=records)
        extra: list[str] = []
        for i in range(1, rounds + 1):
            own = replace(
                source,
                seed=source.seed + 10_000 * i,
                episodes=episodes,
                folder=f"{parts[i]}-drives",
            )
            say(f"round {i}: {run.folder} drives {episodes} {source.world.words.episode}s, the expert labels them")
            extra.append(str(own.record(str(run.folder), watch=watch)))
            tuned = replace(recipe, training=later)
            run = fit(name, tuned, parts[i], data, device, run.folder, extra, say, watch, look, records)
        own = replace(run.recipe, training=recipe.training)
        return replace(run, recipe=own, rounds=rounds, command=command).adopted(folder)
