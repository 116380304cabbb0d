"""The one running show of a server: source, model, and what viewers are told of each step."""

import json
import queue
import struct
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import UserError
from ..export.folder import unit
from ..export.graph import check_steps
from ..export.session import Stepping
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.run import Run
from .insight import Insight
from .limits import Limits, Refused, finite
from .pictures import jpeg, png
from .shows import Shot, Show, Source

GATES_HZ, LOOK_HZ = 10.0, 5.0
"""How often it is looked into the model."""
LATENCIES = 500
"""Steps over which median and 99th percentile are taken."""
MOST_EVENTS = 500
"""That wait for one viewer; who takes none of them for so long is gone."""
MOST_COMMANDS = 500
"""That wait for the next step."""
BEHIND_S = 0.25
"""A show that is later than this does not catch up."""

BROKEN = Refused("this can't be shown", "look at what the server printed")


class Wheel(Protocol):
    """Who drives in a simulator: the model, or the person who took the wheel. Called in the stage's thread."""

    hands: str
    """`model` or `person`: who drove the last step."""

    def begin(self, world: Any, name: str) -> None:
        """A track begins: its first picture was not yet seen."""

    def action(self, world: Any, picture: np.ndarray, prediction: dict[str, float]) -> np.ndarray:
        """What is driven now: steer, gas, brake."""
        ...

    def end(self) -> None:
        """The track ended, or was left."""


@dataclass(frozen=True)
class Moment:
    """What viewers are told of one step; the same for all but for what each of them missed."""

    header: dict[str, Any]
    picture: bytes
    look: bytes

    def message(self, dropped: int) -> bytes:
        sizes = {"picture_bytes": len(self.picture), "look_bytes": len(self.look)}
        header = self.header | sizes | {"dropped": self.header["dropped"] + dropped}
        header = json.dumps(header, allow_nan=False).encode()
        return struct.pack("<I", len(header)) + header + self.picture + self.look


class Viewer:
    """One page that watches: the newest moment, and every event. `wake` is called from the stage's thread."""

    def __init__(self, wake: Callable[[], None]):
        self._wake, self._lock = wake, threading.Lock()
        self._moment: Moment | None = None
        self._events: deque[dict[str, Any]] = deque()
        self.dropped, self.gone = 0, False

    def show(self, moment: Moment) -> None:
        with self._lock:
            self.dropped += self._moment is not None
            self._moment = moment
        self._wake()

    def tell(self, event: dict[str, Any]) -> None:
        with self._lock:
            self.gone = self.gone or len(self._events) >= MOST_EVENTS
            if not self.gone:
                self._events.append(event)
        self._wake()

    def take(self) -> tuple[list[dict[str, Any]], bytes | None]:
        """All events that wait, and the message of the newest moment."""
        with self._lock:
            events, moment = list(self._events), self._moment
            self._events.clear()
            self._moment, dropped = None, self.dropped
        return events, moment.message(dropped) if moment else None


class Stage:
    """Runs in a thread of its own, while somebody watches; `stop` ends it.

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
    ):
        self.run, self.recipe, self.show, self.wheel, self.say = run, recipe, show, wheel, say
        self.version, self.recorded = 1, 0
        self._lock = threading.Lock()  # Of the model, against a swap in the middle of a step.
        self.model, self._sequence, self._insight = model, Stepping(model).session(), Insight(model)
        self.on: dict[str, Callable[[dict[str, Any]], None]] = {
            "pause": lambda message: self._pause(message["paused"]),
            "restart": lambda _: self.show.restart(),
            "record": lambda message: self.show.choose(message["name"]),
        }
        self.past: Callable[[], Sequence[dict[str, Any]]] = list
        """Events that a page which comes later is told first."""
        self._viewers: set[Viewer] = set()
        self._watched, self._stopping = threading.Event(), threading.Event()
        self._commands: queue.Queue[tuple[dict[str, Any], Viewer | None]] = queue.Queue(MOST_COMMANDS)
        self.paused, self._record, self._steps = False, "", 0
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._latency = {"now": 0.0, "median": 0.0, "p99": 0.0}
        self._fault: dict[str, Any] | None = None
        self._thread = threading.Thread(target=self._run, name="stage", daemon=True)

    # From any thread:

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._watched.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def subscribe(self, wake: Callable[[], None]) -> Viewer:
        viewer = Viewer(wake)
        for event in self.past():
            viewer.tell(event)
        if self._fault:
            viewer.tell(self._fault)
        self._viewers.add(viewer)
        self._watched.set()
        return viewer

    def unsubscribe(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers:
            self._watched.clear()

    @property
    def is_watched(self) -> bool:
        return self._watched.is_set()

    def publish(self, event: dict[str, Any]) -> None:
        """Tells every viewer; no event is dropped."""
        for viewer in list(self._viewers):
            viewer.tell(event)

    def command(self, message: dict[str, Any], viewer: Viewer | None = None) -> None:
        """Obeyed before the next step; the viewer is told where that is refused."""
        if message["type"] not in self.on:
            raise Refused(f"{message['type']} is not for this source", "watch, or start the server with another")
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

    def hello(self) -> dict[str, Any]:
        """What a page is told first."""
        targets = list(self.model.head.targets)
        return {
            "type": "hello",
            "run": self.run,
            "recipe": self.recipe,
            "source": self.show.source,
            "wheel": self.wheel is not None,
            "targets": targets,
            "units": {name: unit(name) for name in targets},
            "range": usual(self.model),
            "rate_hz": round(self.show.rate_hz, 3),
            "version": self.version,
            "belts": self._insight.layers,
            "records": self.show.records,
            "recorded": self.recorded,
            "size": list(self.show.size),
            "paused": self.paused,
        }

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
        with self._lock:
            if shot.first:
                self._sequence.reset()
            sequence, insight, version = self._sequence, self._insight, self.version
            due = {"gates": self._is_due(GATES_HZ), "look": self._is_due(LOOK_HZ, 1)}
            before = sequence.state if any(due.values()) else []
            began = time.perf_counter()
            prediction = sequence.step(shot.raw)
            self._tick(1e3 * (time.perf_counter() - began))
        try:
            finite(prediction)
        except Refused as refused:
            self.publish({"type": "error", **refused.json()})
            self._pause(True)
            return 0.0
        gates = insight.gates(shot.raw, before) if due["gates"] else None
        look = insight.look(shot.raw, before) if due["look"] else None
        driven = self._driven(shot, prediction)
        header = {
            "type": "moment",
            "n": self._steps,
            "time_s": round(shot.time_s, 3),
            "record": shot.record,
            "prediction": prediction,
            "truth": shot.truth,
            "driven": None if driven is None else dict(zip(("steer", "gas", "brake"), driven.tolist(), strict=True)),
            "hands": self.wheel.hands if self.wheel else "model",
            **dict.fromkeys(("speed_mps", "score")),
            "lap": False,
            **dict(shot.facts),
            "latency_ms": self._latency,
            "dropped": getattr(self.show, "dropped", 0),
            "version": version,
            "gates": gates,
        }
        moment = Moment(
            header,
            b"" if shot.scene is None else jpeg(shot.scene),
            b"" if look is None else png(look),
        )
        for viewer in list(self._viewers):
            viewer.show(moment)
        self._steps += 1
        return self.show.advance(driven)

    def _begin(self, record: str) -> None:
        if self.wheel:
            if self._record:
                self.wheel.end()
            self.wheel.begin(self.show.world, record)
        self._record = record

    def _driven(self, shot: Shot, prediction: dict[str, float]) -> np.ndarray | None:
        if self.show.world is None:
            return None
        if self.wheel is None:
            return self.show.world.controls(prediction)
        return self.wheel.action(self.show.world, shot.raw, prediction)

    def _is_due(self, rate_hz: float, behind: int = 0) -> bool:
        return (self._steps - behind) % max(1, round(self.show.rate_hz / rate_hz)) == 0

    def _tick(self, latency_ms: float) -> None:
        self._latencies.append(latency_ms)
        if self._steps % 5 == 0:
            median, p99 = np.quantile(self._latencies, (0.5, 0.99))
            self._latency = {"now": 0.0, "median": round(float(median), 3), "p99": round(float(p99), 3)}
        self._latency = self._latency | {"now": round(latency_ms, 3)}


def usual(model: Model) -> dict[str, list[float]]:
    """From where to where each target goes: steering by its definition, others three deviations about the mean."""
    head: Any = model.head
    found: dict[str, list[float]] = {}
    for place, name in enumerate(head.targets):
        if name.endswith("steer"):
            found[name] = [-1.0, 1.0]
        elif not head.classes:
            middle, apart = float(head.mean[place]), 3 * float(head.deviation[place])
            found[name] = [round(middle - apart, 3), round(middle + apart, 3)]
    return found


def staged(
    run: Run, source: Source, limits: Limits, say: Callable[[str], None] = print, watch: Watch = silent
) -> Stage:
    """The stage of a run, with what it is to show."""
    model = run.model()
    check_steps(model)
    if len(model.encoder.raw) == 3 and model.encoder.raw[-1] != 3:
        raise UserError(f"{run.folder} takes pictures of {model.encoder.raw[-1]} channels; live there are three, RGB")
    return Stage(run.folder.name, run.name, model, source.show(run, model, limits, watch), say=say)
