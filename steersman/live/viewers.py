"""The pages that watch, and what each of them is told."""

import json
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..export.session import Stepping
from ..json_types import JsonObject
from ..training.recipe import RowByRow
from ..training.task import Speaker
from .api import PROTOCOL
from .limits import Refused
from .shows import Show

MOST_EVENTS = 500
"""Events that wait for one viewer; who takes none of them for so long is gone."""


@dataclass(frozen=True)
class Moment:
    """What viewers are told of one step; the same for all but for what each of them missed."""

    header: JsonObject
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
        self._events: deque[JsonObject] = deque()
        self.dropped, self.gone = 0, False

    def show(self, moment: Moment) -> None:
        with self._lock:
            self.dropped += self._moment is not None
            self._moment = moment
        self._wake()

    def tell(self, event: JsonObject) -> None:
        with self._lock:
            self.gone = self.gone or len(self._events) >= MOST_EVENTS
            if not self.gone:
                self._events.append(event)
        self._wake()

    def take(self) -> tuple[list[JsonObject], bytes | None]:
        """All events that wait, and the message of the newest moment."""
        with self._lock:
            events, moment = list(self._events), self._moment
            self._events.clear()
            self._moment, dropped = None, self.dropped
        return events, moment.message(dropped) if moment else None


class Audience:
    """The pages of a run, and what all of them are told; by itself nothing is shown to them step by step.

    `no_step` says why, `speaker` what it says about whole texts, `rows` what answers rows of a table, where it does.
    """

    def __init__(
        self,
        run: str,
        recipe: str,
        show: Show,
        speaker: Speaker | None = None,
        no_step: str = "",
        rows: Callable[[], RowByRow] | None = None,
    ):
        self.run, self.recipe, self.show, self.speaker, self.no_step = run, recipe, show, speaker, no_step
        self.rows = rows
        self.past: Callable[[], Sequence[JsonObject]] = list
        """Events that a page which comes later is told first."""
        self._viewers: set[Viewer] = set()
        self._watched = threading.Event()

    def start(self) -> None:
        """Begins what is shown."""

    def stop(self) -> None:
        """Ends what is shown."""

    @property
    def panels(self) -> tuple[str, ...]:
        """Names of the panels that a page has."""
        return ("say",) if self.speaker else ()

    @property
    def is_watched(self) -> bool:
        return self._watched.is_set()

    def subscribe(self, wake: Callable[[], None]) -> Viewer:
        viewer = Viewer(wake)
        for event in self.past():
            viewer.tell(event)
        self._viewers.add(viewer)
        self._watched.set()
        return viewer

    def unsubscribe(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers:
            self._watched.clear()

    def publish(self, event: JsonObject) -> None:
        """Tells every viewer; no event is dropped."""
        for viewer in list(self._viewers):
            viewer.tell(event)

    def command(self, message: JsonObject, viewer: Viewer | None = None) -> None:
        """Refused: a page may only watch."""
        raise Refused(f"{message['type']} is not for this source", "watch, or start the server with another")

    def stepping(self) -> Stepping | None:
        """What sessions of other programs are stepped by; None: this model has no steps."""
        return None

    def hello(self) -> JsonObject:
        """What a page is told first."""
        return {
            "type": "hello",
            "run": self.run,
            "recipe": self.recipe,
            "protocol": PROTOCOL,
            "source": self.show.source,
            "panels": list(self.panels),
            "controls": {},
            "wheel": False,
            "targets": [],
            "main_target": None,
            "units": {},
            "range": {},
            "rate_hz": round(self.show.rate_hz, 3),
            "sound_hz": self.show.sound_hz,
            "version": 1,
            "belts": [],
            "records": self.show.records,
            "recorded": 0,
            "size": list(self.show.size),
            "paused": False,
        }

    def about(self) -> JsonObject:
        """What a program has to know: what is taken, what is said, how often."""
        takes = {"takes": "row" if self.rows else "text", "shape": [], "targets": [], "units": {}}
        return takes | {"panels": list(self.panels), "rate_hz": round(self.show.rate_hz, 3)}


class Texts(Show):
    """Nothing to be seen: the texts that are said something about come from the pages."""

    source = "text"
    rate_hz = 0.0
    size = (0, 0)
