"""Training on what a person did at the wheel, in a process of its own; the stage goes on meanwhile."""

import math
import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Spec, from_json, to_json
from ..data.batches import Batch
from ..data.examples import WEIGHT
from ..data.records import Record
from ..errors import UserError
from ..json_types import JsonObject
from ..nn.model import Model
from ..plugins import OWN
from ..processes import failures_sent, heard, send, stand_back
from ..progress import Watch
from ..sources import read
from ..training.fit import fit
from ..training.prepare import divide
from ..training.recipe import open_records, read_records
from ..training.run import Run, new_folder
from ..training.trainer import Look, Trainer
from ..worlds.recording import world_of
from .limits import Refused
from .recorder import Tell

TOLD_S = 0.5
"""Seconds between two words of how far the training is."""
ENDED_S = 5.0
"""Seconds in which a process that learns has to end once it was asked to; then it is killed."""


@dataclass(frozen=True)
class Learning(Spec):
    """How a run is trained on with a person's drives: beside all that it learned from, so that it forgets nothing."""

    steps: int = 300
    """Updates of the weights."""
    rate: float = 0.25
    """Factor on the recipe's own learning rate."""
    share: float = 0.25
    """Share of the steps learned from that are to be the person's."""
    most: int = 10
    """Most times that a person's step comes for each time that another does; few of them get a smaller share."""
    nice: int = 10
    """How far the process stands back behind others, up to 19."""

    BOUNDS = {
        "steps": (1, math.inf),
        "rate": (1e-6, 10),
        "share": (0.01, 0.99),
        "most": (1, 1000),
        "nice": (0, 19),
    }

    def times(self, own: int, persons: int) -> int:
        """How often the person's drives are gone through in one pass over its own."""
        return max(1, min(self.most, round(self.share / (1 - self.share) * own / persons)))

    def fit(
        self, run: Run, recordings: Path, folder: Path, say: Callable[[str], None], watch: Watch, look: Look
    ) -> Run:
        """A new run that goes on from another. UserError where there is nothing to learn from."""
        recipe, before = run.recipe, [path for path in run.extra if path != str(recordings.resolve())]
        records = open_records(recipe, run.data, watch)
        own = num_taught(divide(recipe, records=records)["train"])
        own += num_taught(read_records(recipe, before)) if before else 0
        persons = num_taught(read(recordings))
        if not persons:
            raise UserError(f"no step in {recordings} was driven by hand; take the wheel first")
        times = self.times(own, persons)
        share = times * persons / (times * persons + own)
        say(f"learning from {persons} steps driven by hand, {times} times beside {own} others: {100 * share:.0f} %")
        training = replace(
            recipe.training,
            steps=self.steps,
            learning_rate=recipe.training.learning_rate * self.rate,
            warmup=min(recipe.training.warmup, self.steps // 4),
            validate_every=self.steps,  # The last weights are kept: drives of others can't judge this person's.
            patience=0,
        )
        tuned, extra = replace(recipe, training=training), (*before, *[str(recordings)] * times)
        return fit(run.name, tuned, folder, run.data, "cpu", run.folder, extra, say, watch, look, records)


def num_taught(records: Sequence[Record]) -> int:
    """Steps that count in the loss."""
    return sum(
        int(np.count_nonzero(record[WEIGHT].values[:])) if WEIGHT in record.streams else len(record)
        for record in records
    )


class Learner:
    """Trains on `run` with the drives in `recordings` when it is asked to, one training at a time.

    `swap` is given the model and the number of its version when one is trained; what fails is told and changes
    nothing. Each training starts from the weights of the last one.
    """

    def __init__(
        self,
        run: Run,
        recordings: Path,
        tell: Tell,
        swap: Callable[[Model, int], None],
        say: Callable[[str], None] = print,
        below: Path = Path("runs"),
        learning: Learning = Learning(),
    ):
        self.run, self.recordings, self.learning = run, recordings, learning
        self.tell, self.swap, self.say, self.below = tell, swap, say, below
        self.name, self.version = f"{run.folder.name}-by-hand", 1
        self._process: Any = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begins a training. Refused where one is going on, or there is nothing to learn from."""
        if self.busy:
            raise Refused("it is learning already", "wait until the new weights drive")
        if not list(self.recordings.glob("meta/episodes/*/*.parquet")):
            raise Refused("there is no drive to learn from", "take the wheel first")
        world = world_of(self.run.recipe)
        labels = world.labels if world else ()
        if unknown := sorted(set(self.run.recipe.head.targets) - set(labels)):
            raise Refused(f"a drive by hand does not tell {', '.join(unknown)}", "train a recipe without that target")
        try:
            folder = new_folder(self.name, self.below)
            folder.mkdir(parents=True)
        except OSError as error:
            self.say(f"no new run can be made: {error}")
            raise Refused("there is no place for a new run", "see the server's terminal") from None
        here, there = multiprocessing.get_context("spawn").Pipe(duplex=False)
        arguments = (there, to_json(self.learning), *map(str, (self.run.folder, self.recordings, folder)), tuple(OWN))
        self._process = multiprocessing.get_context("spawn").Process(target=_learn, args=arguments)
        self._process.start()
        there.close()
        self._thread = threading.Thread(target=self._follow, args=(here, folder), name="learner", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends a training that is going on; its run is as good as never begun."""
        self._stopped = True
        if self._thread is None:
            return
        for end in (self._process.terminate, self._process.kill):
            end()
            self._thread.join(ENDED_S)

    def _follow(self, here: Connection, folder: Path) -> None:
        last: JsonObject = {}
        try:
            for last in heard(here):
                if last["type"] == "said":
                    self.say(last["text"])
                elif last["type"] == "learning":
                    self.tell({name: last[name] for name in ("type", "step", "steps", "loss")})
            self._process.join()
            if last.get("type") == "failed":
                raise UserError(last["text"])
            if last.get("type") != "done":
                raise UserError(f"the process that learned ended with code {self._process.exitcode}")
            self.run = Run.open(folder)
            self.version += 1
            self.swap(self.run.model(), self.version)
            self.say(f"version {self.version} drives: {folder}")
        except Exception as error:  # Whatever it was, the stage goes on with the weights that it has.
            shutil.rmtree(folder, ignore_errors=True)
            if self._stopped:
                return
            self.say(f"the training in {folder} failed, nothing was changed: {error}")
            self.tell({"type": "error", "error": "learning failed, nothing changed", "do": "see the server's terminal"})


def _learn(there: Connection, learning: JsonObject, run: str, recordings: str, folder: str, own: Sequence[str]) -> None:
    """What the process does."""
    spec: Learning = from_json(learning)
    stand_back(spec.nice, own)
    told = -math.inf

    def progress(step: int, loss: float | None) -> None:
        nonlocal told
        if time.monotonic() - told >= TOLD_S or step == spec.steps:
            told = time.monotonic()
            send(there, "learning", step=step, steps=spec.steps, loss=loss)

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what != "training":
            progress(0, None)

    def look(trainer: Trainer, batch: Batch) -> dict[str, float]:
        progress(trainer.at.step, trainer.at.smooth)
        return {}

    with failures_sent(there):
        spec.fit(Run.open(Path(run)), Path(recordings), Path(folder), partial(send, there, "said"), watch, look)
        send(there, "done")
