"""The one running show of a server: source, model, and what viewers are told of each step."""

import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ..errors import UserError
from ..export.graph import check_steps
from ..export.session import Stepping
from ..json_types import JsonObject
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.recipe import RowByRow
from ..training.run import Run
from ..training.task import Speaker, TaskSpec, task_of
from ..worlds.world import World
from . import api
from .insight import Insight
from .limits import Limits, Refused, finite
from .panels import controls, main_target, panels, usual
from .pictures import jpeg, png
from .sessions import takes_of
from .shows import Shot, Show, Source
from .viewers import Audience, Moment, Texts, Viewer
from .words import speaker_of

GATES_HZ, LOOK_HZ = 10.0, 5.0
"""Times a second that the model is looked into."""
LATENCIES = 500
"""Steps over which median and 99th percentile are taken."""
MOST_COMMANDS = 500
"""Commands that wait for the next step."""
BEHIND_S = 0.25
"""A show that is later than this does not catch up."""

BROKEN = Refused("this can't be shown", "look at what the server printed")


class Wheel(Protocol):
    """Who drives in a simulator: the model, or the person who took the wheel. Called in the stage's thread."""

    hands: str
    """`model` or `person`: who drove the last step."""

    def begin(self, world: World, name: str) -> None:
        """A track begins: its first picture was not yet seen."""

    def action(self, world: World, observation: np.ndarray, prediction: dict[str, float]) -> np.ndarray:
        """What is driven now."""
        ...

    def end(self) -> None:
        """The track ended, or was left."""


@dataclass(frozen=True)
class Answer:
    """What the model said of a shot, and what was seen inside it."""

    prediction: dict[str, float]
    said: dict[str, float | str]
    version: int
    gates: list[list[list[float]]] | None
    look: np.ndarray | None


class Stage(Audience):
    """A model's steps on a show. Runs in a thread of its own, while somebody watches; `stop` ends it.

    `on` says what is done at a command of a page, by its type; others add their own. `say` is told what goes wrong
    in words that may name a path, which no viewer is told.
    """

    def __init__(
        self,
        run: str,
        recipe: str,
        model: Model,
        show: Show,
        wheel: Wheel | None = None,
        say: Callable[[str], None] = print,
        task: TaskSpec | None = None,
        speaker: Speaker | None = None,
    ):
        super().__init__(run, recipe, show, speaker)
        self.wheel, self.say, self.task = wheel, say, task or TaskSpec()
        self._panels = panels(task, model.head, show) if task else ()
        self.version, self.recorded = 1, 0
        self._lock = threading.Lock()  # Of the model, against a swap in the middle of a step.
        self.model, self._sequence, self._insight = model, Stepping(model).session(), Insight(model)
        self.on: dict[str, Callable[[JsonObject], None]] = {
            "pause": lambda message: self._pause(message["paused"]),
            "restart": lambda _: self.show.restart(),
            "record": lambda message: self.show.choose(message["name"]),
        }
        self._stopping = threading.Event()
        self._commands: queue.Queue[tuple[JsonObject, Viewer | None]] = queue.Queue(MOST_COMMANDS)
        self.paused, self._record, self._steps = False, "", 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._latency = {"now": 0.0, "median": 0.0, "p99": 0.0}
        self._fault: JsonObject | None = None
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    # From any thread:

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._watched.set()
        if self._thread.is_alive():
            self._thread.join(10)

    @property
    def panels(self) -> tuple[str, ...]:
        return (*self._panels, *(("hands",) if self.wheel else ()), *super().panels)

    def subscribe(self, wake: Callable[[], None]) -> Viewer:
        viewer = super().subscribe(wake)
        if self._fault:
            viewer.tell(self._fault)
        return viewer

    def command(self, message: JsonObject, viewer: Viewer | None = None) -> None:
        """Obeyed before the next step; the viewer is told where that is refused."""
        if message["type"] not in self.on:
            super().command(message, viewer)
        if message["type"] == "control":
            api.controlled(message["values"], controls(self.show))
        if self._fault:
            raise BROKEN
        try:
            self._commands.put_nowait((message, viewer))
        except queue.Full:
            raise Refused(f"{MOST_COMMANDS} commands wait already", "wait until the show goes on", 429) from None

    def swap(self, model: Model, version: int) -> None:
        """Goes on with other weights from the very state it is in."""
        sequence, insight = Stepping(model).session(), Insight(model)
        with self._lock:
            sequence.state = self._sequence.state
            self.model, self._sequence, self._insight, self.version = model, sequence, insight, version
        self.publish({"type": "swapped", "version": version})

    def hello(self) -> JsonObject:
        targets = list(self.model.head.targets)
        return super().hello() | {
            "controls": {name: list(ends) for name, ends in controls(self.show).items()},
            "wheel": self.wheel is not None,
            "targets": targets,
            "main_target": main_target(self.task, self.model.head),
            "units": self.task.units(targets),
            "range": usual(self.task, self.model.head),
            "version": self.version,
            "belts": self._insight.layers,
            "recorded": self.recorded,
            "paused": self.paused,
        }

    def stepping(self) -> Stepping:
        return Stepping(self.model)

    def about(self) -> JsonObject:
        encoder, targets = self.model.encoder, list(self.model.head.targets)
        takes = {"takes": takes_of(self.model), "shape": list(encoder.raw), "targets": targets}
        return super().about() | takes | {"units": self.task.units(targets)}

    # In the stage's own thread:

    def _run(self) -> None:
        due = time.perf_counter()
        try:
            while not self._stopping.is_set():
                if not self._watched.wait(0.1) or self.paused:
                    self._obey(0.1)
                    due = time.perf_counter()
                    continue
                self._obey()
                due += self._step()
                wait = due - time.perf_counter()
                if wait > 0:
                    self._stopping.wait(wait)
                elif wait < -BEHIND_S:
                    due = time.perf_counter()
        except Exception as error:
            self._trouble(error)
            self._fault = {"type": "error", **BROKEN.json()}
            self.publish(self._fault)
        finally:
            if self.wheel and self._record:
                self.wheel.end()

    def _obey(self, wait_s: float = 0.0) -> None:
        """All commands that came; waits for a first one where there is time."""
        try:
            message, viewer = self._commands.get(wait_s > 0, wait_s or None)
            while True:
                try:
                    self.on[message["type"]](message)
                except Refused as refused:
                    self._refuse(refused, viewer)
                except Exception as error:  # Whatever it was, the show goes on as it was.
                    self._trouble(error)
                    self._refuse(BROKEN, viewer)
                message, viewer = self._commands.get_nowait()
        except queue.Empty:
            pass

    def _trouble(self, error: Exception) -> None:
        self.say(str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error)))

    def _refuse(self, refused: Refused, viewer: Viewer | None) -> None:
        event = {"type": "error", **refused.json()}
        viewer.tell(event) if viewer else self.publish(event)

    def _pause(self, paused: bool) -> None:
        self.paused = paused
        self.publish({"type": "paused", "paused": paused})

    def _step(self) -> float:
        """One step of the show; how long it stands."""
        try:
            shot = self.show.shot()
        except Refused as refused:  # A picture that a page sent.
            self.publish({"type": "error", **refused.json()})
            return 0.0
        if shot is None:
            return 0.0
        if shot.first:
            self._begin(shot.record)
        try:
            answer = self._answered(shot)
        except Refused as refused:
            self.publish({"type": "error", **refused.json()})
            self._pause(True)
            return 0.0
        driven = self._driven(shot, answer.prediction)
        scene = b"" if shot.scene is None else jpeg(shot.scene)
        look = b"" if answer.look is None else png(answer.look)
        self._tell(Moment(self._header(shot, answer, driven), scene, look))
        self._steps += 1
        return self.show.advance(driven)

    def _answered(self, shot: Shot) -> Answer:
        """The model's step, and what is to be seen of it this time. Refused where it says what is no number."""
        due = {"gates": self._is_due(GATES_HZ), "look": self._is_due(LOOK_HZ, 1)}
        with self._lock:
            if shot.first:
                self._sequence.reset()
            sequence, insight, head, version = self._sequence, self._insight, self.model.head, self.version
            before = sequence.state if any(due.values()) else None
            began = time.perf_counter()
            prediction = sequence.step(shot.raw)
            self._tick(1e3 * (time.perf_counter() - began))
        finite(prediction)
        inside = None if before is None else insight.at(shot.raw, before)
        gates = inside.gates() if inside and due["gates"] else None
        look = inside.look() if inside and due["look"] else None
        return Answer(prediction, head.said(prediction), version, gates, look)

    def _header(self, shot: Shot, answer: Answer, driven: np.ndarray | None) -> JsonObject:
        facts = dict(shot.facts)
        return {
            "type": "moment",
            "n": self._steps,
            "time_s": round(shot.time_s, 3),
            "record": shot.record,
            "prediction": answer.prediction,
            "said": answer.said,
            "truth": shot.truth,
            "driven": None if driven is None else dict(zip(controls(self.show), driven.tolist(), strict=True)),
            "hands": self.wheel.hands if self.wheel else "model",
            "facts": facts,
            **api.FIRST,
            **{name: value for name, value in facts.items() if name in api.FIRST},
            "latency_ms": self._latency,
            "dropped": getattr(self.show, "dropped", 0),
            "version": answer.version,
            "gates": answer.gates,
        }

    def _tell(self, moment: Moment) -> None:
        for viewer in list(self._viewers):
            viewer.show(moment)

    def _begin(self, record: str) -> None:
        if self.wheel:
            if self._record:
                self.wheel.end()
            if self.show.world is not None:  # Who takes a wheel is seated in a world.
                self.wheel.begin(self.show.world, record)
        self._record = record

    def _driven(self, shot: Shot, prediction: dict[str, float]) -> np.ndarray | None:
        if self.show.world is None:
            return None
        if self.wheel is None:
            return self.show.world.act(self.show.world.done_by_model(prediction))
        return self.wheel.action(self.show.world, shot.raw, prediction)

    def _is_due(self, rate_hz: float, behind: int = 0) -> bool:
        return (self._steps - behind) % max(1, round(self.show.rate_hz / rate_hz)) == 0

    def _tick(self, latency_ms: float) -> None:
        self._latencies.append(latency_ms)
        if self._steps % 5 == 0:
            median, p99 = np.quantile(self._latencies, (0.5, 0.99))
            self._latency = {"now": 0.0, "median": round(float(median), 3), "p99": round(float(p99), 3)}
        self._latency = self._latency | {"now": round(latency_ms, 3)}


def staged(
    run: Run, source: Source, limits: Limits, say: Callable[[str], None] = print, watch: Watch = silent
) -> Audience:
    """The stage of a run, with what it is to show; for one that reads whole texts, its audience alone."""
    model, speaker = run.model(), speaker_of(run)
    if model.no_step:
        return spoken(run, source, model.no_step, speaker)
    if (rows := rows_of(run, model)) is not None:
        return spoken(run, source, "it takes rows of a table", speaker, rows)
    with _stepped_live(run):
        check_steps(model)
    if len(model.encoder.raw) == 3 and model.encoder.raw[-1] != 3:
        raise UserError(f"{run.folder} takes pictures of {model.encoder.raw[-1]} channels; live there are three, RGB")
    show = source.show(run, model, limits, watch)
    task = task_of(run.recipe)
    with _stepped_live(run):
        return Stage(run.folder.name, run.name, model, show, say=say, task=task, speaker=speaker)


@contextmanager
def _stepped_live(run: Run) -> Iterator[None]:
    """What keeps a model from being stepped is said of live."""
    try:
        yield
    except UserError as error:
        raise UserError(
            f"{run.folder} can't be shown live: it is stepped there by the graph that `steersman export` writes, and "
            f"{error}"
        ) from error


def rows_of(run: Run, model: Model) -> Callable[[], RowByRow] | None:
    """What answers rows of a table with several inputs by name; None for what is stepped otherwise."""
    if not model.inputs:
        return None
    try:
        run.steps.row_by_row(model)
    except UserError:
        return None
    return partial(run.steps.row_by_row, model)


def spoken(
    run: Run,
    source: Source,
    no_step: str,
    speaker: Speaker | None,
    rows: Callable[[], RowByRow] | None = None,
) -> Audience:
    """Who sees what a model says about texts, or rows, of theirs. UserError where it has no step and says nothing."""
    if speaker is None and rows is None:
        raise UserError(f"{run.folder} can't be shown live step by step: {no_step}")
    if source.data or source.video or source.webcam or source.microphone:
        raise UserError(
            f"{run.folder} can't be shown live step by step: {no_step}; leave out --data, --video, --webcam and "
            "--microphone, and " + ("send rows to /api/step" if rows else "write texts in the page's box")
        )
    return Audience(run.folder.name, run.name, Texts(), speaker, no_step, rows)
