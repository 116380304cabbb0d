"""Recipes side by side on one split: every seed's score, beside what needs no network."""

import json
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from rich.table import Table

from ..config import did_you_mean
from ..data.records import Record
from ..errors import UserError
from ..evaluation.outcome import best_first
from ..evaluation.report import report_run
from ..files import write_file
from ..json_types import JsonMapping, JsonObject
from ..progress import Watch, silent
from ..training.checkpoints import write_json
from ..training.fit import fit
from ..training.prepare import divide, prepare
from ..training.recipe import Recipe, open_records
from ..training.run import Run
from ..training.task import task_of
from ..training.trainer import Trainer, read_log

TIMED = 12
"""Steps that are timed to fit a training into its minutes; the first quarter does not count."""
Make = Callable[[Sequence[Record]], Recipe]


@dataclass(frozen=True)
class Comparison:
    """A comparison: which recipes, on what data, how often and how long."""

    recipes: Mapping[str, Recipe]
    data: tuple[str, ...]
    folder: Path
    seeds: int = 3
    steps: int = 0
    """Steps of each training; 0: as the recipe has it."""
    minutes: float = 0.0
    """CPU minutes of each training's steps; 0: as many steps as said."""
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    """Records that were read of the data, by recipe."""
    failed: dict[str, str] = field(default_factory=dict)

    def go(self, say: Callable[[str], None], watch: Watch = silent) -> JsonObject:
        """Trains what is not trained yet; the scores, which also stand in compare.json and compare.md.

        UserError after the others are done, where a training can't be made.
        """
        first = next(iter(self.recipes.values()))
        task = task_of(first)
        found: JsonObject = {
            "data": list(self.data),
            "measure": task.measure,
            "higher_is_better": task.higher_is_better,
            "recipes": {},
            "baselines": {},
        }
        for name, recipe in self.recipes.items():
            for seed in range(self.seeds):
                try:
                    scores = self._scores(name, replace(recipe, split=first.split), seed, say, watch)
                except UserError as error:
                    self.failed[f"{name}, seed {seed}"] = str(error)
                    say(f"{name}, seed {seed}: {error}")
                    continue
                self._note(found, name, seed, scores)
                self._write(found)
        found["failed"] = self.failed
        self._write(found)
        return found

    def _note(self, found: JsonObject, name: str, seed: int, scores: JsonMapping) -> None:
        row = found["recipes"].setdefault(name, {"values": [], "minutes": [], "seeds": [], "also": {}})
        row["values"].append(scores["value"])
        row["seeds"].append(seed)
        row["minutes"].append(sum(r["seconds"] for r in read_log(self._run(name, seed))) / 60)
        row["mean"] = float(np.mean(row["values"]))
        for what, value in scores.get("also", {}).items():
            row["also"].setdefault(what, []).append(value)
        mine = {what: b.get(scores["measure"]) for what, b in scores["baselines"].items()}
        found["baselines"] = {k: v for k, v in mine.items() if v is not None} | found["baselines"]

    def _run(self, name: str, seed: int) -> Path:
        return self.folder / f"{name}-seed-{seed}"

    def _scores(self, name: str, recipe: Recipe, seed: int, say, watch: Watch) -> JsonObject:
        folder = self._run(name, seed)
        done, begun = folder / "metrics.json", (folder / "config.json").exists()
        training = replace(recipe.training, seed=seed, steps=self.steps or recipe.training.steps)
        if self.minutes:  # What was measured when it was begun stands.
            within = Run.open(folder).recipe.training.steps if begun else self._steps_within(name, recipe, watch)
            training = replace(training, steps=within)
        recipe = replace(recipe, training=training)
        if done.exists() and begun and Run.open(folder).recipe == recipe.adapt(self._parts(name, recipe, watch)):
            scores = json.loads(done.read_text())
            # An older version may have scored it by another measure.
            known = scores["measure"] == task_of(recipe).measure
            return scores if known else report_run(Run.open(folder), watch=watch)
        say(f"{name}, seed {seed}: {training.steps} steps")
        again = ["steersman", "compare", name, *(("--data", *self.data) if self.data else ())]
        run = fit(
            name,
            recipe,
            folder,
            self.data,
            say=say,
            watch=watch,
            records=self.records.get(name),
            command=shlex.join(again),
        )
        return report_run(run, watch=watch)

    def _parts(self, name: str, recipe: Recipe, watch: Watch):
        return divide(recipe, self.data, self.records.get(name), watch=watch)

    def _steps_within(self, name: str, recipe: Recipe, watch: Watch) -> int:
        return steps_within(recipe, self._parts(name, recipe, watch), self.minutes * 60, watch)

    def _write(self, found: JsonObject) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "compare.json", found)
        write_file(self.folder / "compare.md", markdown(found).encode())


def chosen(
    names: Sequence[str], known: Mapping[str, Make], data: Sequence[str], watch: Watch = silent
) -> tuple[dict[str, Recipe], dict[str, Sequence[Record]]]:
    """The recipes that are named, or that a pattern such as steer-* fits, and the data as each of them reads it.

    UserError where one is not to be had, or where they are scored by different measures.
    """
    found: dict[str, Recipe] = {}
    records: dict[str, Sequence[Record]] = {}
    read: dict[str, Sequence[Record]] = {}
    for name in names:
        fitting = [k for k in known if fnmatchcase(k, name)] or [name] * (name in known)
        if not fitting:
            raise UserError(f"no recipe {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
        for one in (k for k in fitting if k not in found):
            source = known[one](()).source
            way = repr(source) if not data else type(source).open.__qualname__
            read[way] = read[way] if way in read else open_records(known[one](()), data, watch)
            found[one], records[one] = known[one](read[way]), read[way]
    measures = {name: task_of(recipe).measure for name, recipe in found.items()}
    if len(set(measures.values())) > 1:
        each = ", ".join(f"{name} by {measure}" for name, measure in measures.items())
        raise UserError(f"recipes are compared by one measure, but these are scored by several: {each}")
    answers = {name: recipe.head.targets for name, recipe in found.items()}
    own = {name: repr(recipe.source) for name, recipe in found.items()} if not data else {}
    # A text is one question, whether it is answered by character or by byte.
    asked = {"next_text" if name[0].startswith("next_") else name[0] for name in answers.values()}
    if len(asked) > 1 or len(set(own.values())) > 1:
        each = "; ".join(f"{name}: {', '.join(answer)}" for name, answer in answers.items())
        raise UserError(f"recipes are compared where they answer one question on one set of data ({each})")
    return found, records


def steps_within(recipe: Recipe, parts, seconds: float, watch: Watch = silent) -> int:
    """How many steps of a training take so much CPU time."""
    clock: list[float] = []

    def tick(what: str, done: int, total: int, note: str = "") -> None:
        clock.append(time.process_time())

    training = replace(recipe.training, steps=TIMED, warmup=1)
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(recipe, parts, folder=Path(folder), watch=watch)
        Trainer(made.model, made.batches, training, Path(folder), say=lambda text: None, watch=tick).run()
    return max(1, round(seconds / float(np.median(np.diff(clock[TIMED // 4 :])))))


def _rows(found: JsonMapping) -> list[tuple[str, ...]]:
    """Cells of each recipe and each baseline, best first."""
    columns = _also(found)
    values = {name: row["mean"] for name, row in found["recipes"].items()} | found["baselines"]
    rows = []
    for name in best_first(values, found["higher_is_better"]):
        cells = [name.replace("_", " "), f"{values[name]:.4f}", "", *("" for _ in columns), ""]
        if (row := found["recipes"].get(name)) is not None:
            cells[0], cells[2] = name, " ".join(f"{value:.4f}" for value in row["values"])
            for place, what in enumerate(columns, 3):
                told = row["also"].get(what)
                cells[place] = f"{np.mean(told):+.2f}" if told else ""
            cells[-1] = f"{np.mean(row['minutes']):.1f}"
        rows.append(tuple(cells))
    return rows


def _also(found: JsonMapping) -> list[str]:
    """What is told beside the measure."""
    return list(dict.fromkeys(what for row in found["recipes"].values() for what in row["also"]))


def _columns(found: JsonMapping) -> tuple[str, ...]:
    return ("recipe", f"{found['measure']}, mean", "each seed", *_also(found), "minutes")


def comparison_table(found: JsonMapping) -> Table:
    """The recipes and the baselines, best first."""
    table = Table(*_columns(found), box=None)
    for row in _rows(found):
        table.add_row(*row, style="bold" if row[2] else None)
    return table


def markdown(found: JsonMapping) -> str:
    """The same table for a document."""
    columns = _columns(found)
    lines = [columns, ["---"] * len(columns), *_rows(found)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    failed = "".join(f"\nNot trained: {name}: {why}\n" for name, why in found.get("failed", {}).items())
    return f"{table}\n{failed}"
