"""Recipes side by side on one split: every seed's score, beside what needs no network."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..config import did_you_mean
from ..errors import UserError
from ..evaluation.report import report_run
from ..files import write_file
from ..nn.heads import Regression
from ..progress import Watch, silent
from ..training.checkpoints import write_json
from ..training.fit import fit
from ..training.recipe import Recipe, read_records
from ..training.run import Run
from ..training.trainer import Trainer, read_log

TIMED = 12
"""Steps that are timed to fit a training into its minutes; the first quarter does not count."""


@dataclass(frozen=True)
class Comparison:
    """Which recipes are compared, on what, how often and how long."""

    recipes: Mapping[str, Recipe]
    data: tuple[str, ...]
    folder: Path
    seeds: int = 3
    steps: int = 0
    """Of each training; 0: as the recipe has it."""
    minutes: float = 0.0
    """CPU minutes of each training's steps; 0: as many steps as said."""
    failed: dict[str, str] = field(default_factory=dict)

    def go(self, say: Callable[[str], None], watch: Watch = silent) -> dict[str, Any]:
        """Trains what is not trained yet; the scores, which also stand in compare.json and compare.md.

        UserError after the others are done, where a training can't be made.
        """
        split = next(iter(self.recipes.values())).split
        found: dict[str, Any] = {"data": list(self.data), "recipes": {}, "baselines": {}}
        for name, recipe in self.recipes.items():
            for seed in range(self.seeds):
                try:
                    scores = self._scores(name, replace(recipe, split=split), seed, say, watch)
                except UserError as error:
                    self.failed[f"{name}, seed {seed}"] = str(error)
                    say(f"{name}, seed {seed}: {error}")
                    continue
                row = found["recipes"].setdefault(name, {"rmse": [], "best_lag_s": [], "minutes": [], "seeds": []})
                for key, value in (("rmse", scores["rmse"]), ("best_lag_s", scores["best_lag_s"]), ("seeds", seed)):
                    row[key].append(value)
                row["minutes"].append(sum(r["seconds"] for r in read_log(self._run(name, seed))) / 60)
                row["mean"] = float(np.mean(row["rmse"]))
                found["baselines"] = {k: b["rmse"] for k, b in scores["baselines"].items()} | found["baselines"]
                self._write(found)
        found["failed"] = self.failed
        self._write(found)
        return found

    def _run(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-seed-{seed}"

    def _scores(self, name: str, recipe: Recipe, seed: int, say, watch: Watch) -> dict[str, Any]:
        folder = self._run(name, seed)
        done = folder / "metrics.json"
        begun = Run.open(folder).recipe.training.steps if (folder / "config.json").exists() else 0
        training = replace(recipe.training, seed=seed, steps=self.steps or recipe.training.steps)
        if self.minutes:  # What was measured when it was begun stands.
            training = replace(training, steps=begun or steps_within(recipe, self.data, self.minutes * 60, watch))
        recipe = replace(recipe, training=training)
        if done.exists() and Run.open(folder).recipe == recipe:
            return json.loads(done.read_text())
        say(f"{name}, seed {seed}: {training.steps} steps")
        return report_run(fit(name, recipe, folder, self.data, say=say, watch=watch), watch=watch)

    def _write(self, found: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "compare.json", found)
        write_file(self.folder / "compare.md", markdown(found).encode())


def chosen(names: Sequence[str], known: Mapping[str, Callable[[Sequence[str]], Recipe]], data: Sequence[str]):
    """The recipes that are named, or that a pattern such as steer-* fits. UserError where one is not to be had."""
    found: dict[str, Recipe] = {}
    for name in names:
        fitting = [k for k in known if fnmatchcase(k, name)]
        if not fitting:
            raise UserError(f"no recipe {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
        found |= {k: known[k](data) for k in fitting if k not in found}
    for name, recipe in found.items():
        if not isinstance(recipe.head, Regression):
            raise UserError(f"{name} does not predict a number; compare is for recipes that do, such as steer-*")
    return found


def steps_within(recipe: Recipe, data: Sequence[str], seconds: float, watch: Watch = silent) -> int:
    """How many steps of a training take so much CPU time."""
    records = recipe.taught("train", recipe.divide(read_records(recipe, data, watch))["train"])
    model = recipe.build(tuple(records[0][recipe.inputs].values.shape[1:]))
    shown = recipe.examples(model, records, watch)
    recipe.fit(model, shown)
    clock: list[float] = []

    def tick(what: str, done: int, total: int, note: str = "") -> None:
        clock.append(time.process_time())

    training = replace(recipe.training, steps=TIMED, warmup=1)
    with tempfile.TemporaryDirectory() as folder:
        batches = recipe.batched(model, shown, 0, 1)
        Trainer(model, batches, training, Path(folder), say=lambda text: None, watch=tick).run()
    return max(1, round(seconds / float(np.median(np.diff(clock[TIMED // 4 :])))))


def _rows(found: Mapping[str, Any]) -> list[tuple[str, float, list[float], float | None, float | None]]:
    """Name, mean, each seed, lag and minutes; best first."""
    rows = [
        (name, r["mean"], r["rmse"], float(np.mean(r["best_lag_s"])), float(np.mean(r["minutes"])))
        for name, r in found["recipes"].items()
    ]
    rows += [(name.replace("_", " "), value, [], None, None) for name, value in found["baselines"].items()]
    return sorted(rows, key=lambda row: row[1])


def _cells(row) -> tuple[str, ...]:
    name, mean, seeds, lag_s, minutes = row
    told = ("", "") if lag_s is None or minutes is None else (f"{lag_s:+.2f}", f"{minutes:.1f}")
    return (name, f"{mean:.4f}", " ".join(f"{s:.4f}" for s in seeds), *told)


COLUMNS = ("recipe", "RMSE, mean", "each seed", "best lag, s", "minutes")


def comparison_table(found: Mapping[str, Any]) -> Table:
    """The recipes and the baselines, best first."""
    table = Table(*COLUMNS, box=None)
    for row in _rows(found):
        table.add_row(*_cells(row), style="bold" if row[2] else None)
    return table


def markdown(found: Mapping[str, Any]) -> str:
    """The same table for a document."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(_cells, _rows(found))]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    failed = "".join(f"\nNot trained: {name}: {why}\n" for name, why in found.get("failed", {}).items())
    return f"{table}\n{failed}"
