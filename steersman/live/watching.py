"""The page during a training: its loss, how far back its gradient goes, and the newest weights at a lap a minute.

All that is shown is read from the run's folder, by a process that stands back behind the training. The training itself
does nothing for it, so its results are the same bits, watched or not.
"""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from ..data.examples import Example
from ..data.records import Record
from ..doctor.findings import Patient, Skipped
from ..doctor.gradients import flow
from ..errors import UserError
from ..export.graph import check_steps
from ..json_types import JsonObject, LogRow
from ..nn.model import Model
from ..plugins import OWN
from ..processes import failures_sent, heard, send, stand_back
from ..training.checkpoints import Checkpoints, load_weights
from ..training.run import Run
from ..training.task import task_of
from ..worlds.recording import world_of
from ..worlds.world import World
from .serve import HERE, address, bound, guarding, prepared
from .shows import Shot, Show, Simulated, Source, logged
from .stage import Stage

NICE = 19
LAP_S = 60.0
"""Seconds from one set of weights that drives to the next."""
POLL_S = 0.5
PAST = 200
"""Steps of the log that a page which comes later is told of."""


@contextmanager
def watched(
    folder: Path, say: Callable[[str], None], found: Callable[[str, str], None], lap_s: float = LAP_S, port: int = 0
) -> Iterator[None]:
    """A page for the training that is about to begin in a folder, as long as the block lasts.

    `found` gets its address, and one that opens it once. Where something fails that is said, and the training goes on.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(there, str(folder), lap_s, port, tuple(OWN)))
    process.start()
    there.close()

    def listen() -> None:
        for message in heard(here):
            if message["type"] == "address":
                found(message["text"], message["once"])
            else:
                say(f"--watch: {message['text']}" + "; training goes on" * (message["type"] == "failed"))

    threading.Thread(target=listen, name="watching", daemon=True).start()
    try:
        yield
    finally:
        process.terminate()
        process.join(10)
        process.kill()


def _serve(there: Connection, folder: str, lap_s: float, port: int, own: Sequence[str]) -> None:
    """What the process does: waits for the first checkpoint, then serves until it is ended."""
    stand_back(NICE, own)
    with failures_sent(there):
        listening = bound(HERE, port)
        run, model, step = first_weights(Path(folder))
        if model.no_step:
            raise UserError(f"{run.name} can't be watched live step by step: {model.no_step}")
        records = run.records()
        held = records["validation"] or records["train"]
        show = Lap(shown(run, model, held))
        task = task_of(run.recipe)
        stage = Stage(run.folder.name, run.name, model, show, say=partial(send, there, "said"), task=task)
        stage.version = step
        follower = Follower(Path(folder), stage, show, run, run.recipe.examples(model, held), lap_s)
        threading.Thread(target=follower.follow, name="follower", daemon=True).start()
        guard = guarding(listening)
        server = prepared(stage, guard)
        send(there, "address", text=address(guard), once=address(guard, guard.ticket()))
        server.run(sockets=[listening])


def newest_weights(folder: Path) -> tuple[Run, int] | None:
    """The run that is being trained in a folder, which may be the last of several rounds, and its last checkpoint."""
    rounds = [int(p.name) for p in (folder / "rounds").glob("*") if p.name.isdigit()]
    parts = [folder / "rounds" / str(i) for i in sorted(rounds, reverse=True)] or [folder]
    for part in parts:
        steps = Checkpoints(part / "checkpoints").steps()
        if steps and (part / "config.json").is_file():
            return Run.open(part), steps[-1]
    return None


def first_weights(folder: Path) -> tuple[Run, Model, int]:
    """Waits until there are some."""
    while True:
        time.sleep(POLL_S)
        with suppress(UserError):  # A checkpoint that was taken away while it was read: there is a newer one.
            if newest := newest_weights(folder):
                run, step = newest
                return run, weights(run, step), step


def weights(run: Run, step: int) -> Model:
    """The model as that checkpoint has it: the weights that would be kept. UserError where it is gone meanwhile."""
    folder = run.folder / "checkpoints" / f"step-{step:08d}"
    averaged = folder / "average.safetensors"
    model = run.steps.load_skeleton(run.raw, run.folder)
    load_weights(model, averaged if averaged.is_file() else folder / "model.safetensors")
    return model.eval()


def shown(run: Run, model: Model, held: Sequence[Record]) -> Show:
    """The simulator for a model that drives in one, else records."""
    check_steps(model)
    if world := world_of(run.recipe):
        return Simulated(world, model.head.targets, Source.seed)
    return logged(run, model, held)


class Lap(Show):
    """A show that stands still when its track or record is over, until it is begun anew."""

    source = "training"

    def __init__(self, inner: Show):
        self._inner = inner
        self.rate_hz, self.size, self.records = inner.rate_hz, inner.size, inner.records
        self._due, self.stands = True, False

    @property
    def world(self) -> World | None:
        return self._inner.world

    def shot(self) -> Shot | None:
        if not self.stands:
            shot = self._inner.shot()
            self.stands = shot is not None and shot.first and not self._due
            self._due = False
            if not self.stands:
                return shot
        time.sleep(0.1)
        return None

    def advance(self, action: np.ndarray | None) -> float:
        return self._inner.advance(action)

    def restart(self) -> None:
        if not self.stands:  # Else the next one is there already.
            self._inner.restart()
        self._due, self.stands = True, False

    def choose(self, name: str) -> None:
        self._inner.choose(name)
        self._due, self.stands = True, False


class Log:
    """The rows of a growing log.jsonl, each read once; begun anew where the file was written anew."""

    def __init__(self, path: Path):
        self.path, self.rows = path, []
        self._file, self._end = (0, 0), 0

    def news(self) -> list[LogRow]:
        """Rows since the last time."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self._file or status.st_size < self._end:
                self.rows, self._file, self._end = [], (status.st_dev, status.st_ino), 0
            file.seek(self._end)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._end += len(whole) + len(newline)
        found = [json.loads(line) for line in whole.splitlines()]
        self.rows = [*self.rows, *found]
        return found


class Follower:
    """Tells a stage what stands in the folder of a training, and gives it the newest weights."""

    def __init__(self, folder: Path, stage: Stage, show: Lap, run: Run, held: Sequence[Example], lap_s: float):
        self.folder, self.stage, self.show, self.held, self.lap_s = folder, stage, show, held, lap_s
        self.run, self.log = run, Log(run.folder / "log.jsonl")
        self._swapped_s, self._lag = time.monotonic(), gradient_by_lag(stage.model, held)
        stage.past = self.past

    def follow(self) -> None:
        """Follows the training for ever, in a thread of its own."""
        told = ""
        while True:
            time.sleep(POLL_S)
            try:
                self.look()
            except UserError:
                continue  # A checkpoint that was taken away while it was read: there is a newer one.
            except Exception as error:  # The next look may do better.
                if told != (told := f"{type(error).__name__}: {error}"):
                    self.stage.say(told)

    def look(self) -> None:
        run, step = newest_weights(self.folder) or (self.run, self.stage.version)
        if run != self.run:
            self.run, self.log = run, Log(run.folder / "log.jsonl")
        if step != self.stage.version and self._is_due():
            model = weights(run, step)
            self.stage.swap(model, step)
            if self.show.world is not None or self.show.stands:
                self.stage.command({"type": "restart"})
            self._swapped_s, self._lag = time.monotonic(), gradient_by_lag(model, self.held)
        news = self.log.news()
        for row in news:
            if row is news[-1] or "validation" in row:
                self.stage.publish(self._event(row))

    def _is_due(self) -> bool:
        """A lap is driven to its end where somebody watches it, however long a busy machine takes for that."""
        driving = self.show.world is not None and not self.show.stands and self.stage.is_watched
        return time.monotonic() - self._swapped_s >= self.lap_s and not driving

    def past(self) -> list[JsonObject]:
        """What a page that comes now missed: some steps of the log, and all looks at the validation records."""
        rows = self.log.rows
        chosen = set(np.linspace(0, len(rows) - 1, min(PAST, len(rows))).astype(int).tolist())
        return [self._event(row) for i, row in enumerate(rows) if i in chosen or "validation" in row][-2 * PAST :]

    def _event(self, row: LogRow) -> JsonObject:
        validation, steps = row.get("validation"), self.run.recipe.training.steps
        event = {"step": row["step"], "steps": steps, "loss": row["loss"], "validation": validation}
        return {"type": "training", **event, "lag": self._lag}


def gradient_by_lag(model: Model, held: Sequence[Example]) -> list[float] | None:
    """How large the loss's gradient is some steps back, beside that at its own step; None for a model without time."""
    patient = Patient(model, {"validation": held}, None)
    try:
        norms, _ = flow(patient.causal(), patient.held)
    except Skipped:
        return None
    share = norms / norms[:, :1].clamp_min(1e-30)
    return [float(f"{value:.3g}") for value in share.amax(0).tolist()]
