"""What a person did at the wheel, as drives that can be trained on; a kill loses nothing but the step being written."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..config import to_json
from ..data.examples import WEIGHT
from ..data.records import Values
from ..errors import UserError
from ..files import locked
from ..json_types import JsonObject
from ..sources import lerobot
from ..worlds.world import Observation, WorldSpec
from . import journal
from .journal import Journal

LEAD_S = 1.0
"""What the model saw before the person took the wheel, so that a memory is warm when it begins to learn."""
TAIL_S = 2.0
"""Hands that come back within this go on with the same drive."""
MOST_STEPS = 3000
"""A longer drive goes on in another one, so that none is too long to be held in memory."""
SYNC_S = 1.0

Tell = Callable[[JsonObject], None]
"""Told events for the page: `{"type": "recorded", "drives": 3}`, `{"type": "error", ...}`."""


class Recorder:
    """Records into `folder`, a LeRobot dataset; one thread calls `step` and `end`.

    A drive grows as a journal beside the dataset. When it is over, another thread makes an episode of it, and what an
    earlier process left behind becomes one now.
    """

    def __init__(
        self,
        folder: Path,
        world: WorldSpec,
        rate_hz: float,
        seen: Observation,
        tell: Tell,
        say: Callable[[str], None] = print,
    ):
        """Pages are told that something went wrong; what, and in which file, is said to who runs the server.

        UserError where the folder is there already, but nothing can be recorded into it.
        """
        self.folder, self.rate_hz, self.tell, self.say = folder, rate_hz, tell, say
        self.about = {"world": to_json(world), "driver": "a person, and a model before and after"}
        numbers: dict[str, lerobot.Kind] = dict.fromkeys((*world.labels, WEIGHT), ("float32", ()))
        self.seen = seen.name
        self.kinds = {seen.name: (seen.dtype, tuple(seen.shape)), **numbers, "hands": ("uint8", ())}
        self._lead: deque[Mapping[str, object]] = deque(maxlen=round(LEAD_S * rate_hz))
        self._journal: Journal | None = None
        self._idle, self._failed = 0, False
        self._whole: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        if folder.exists():
            with locked(folder):
                self._writer()
        for path in journal.left_behind(folder):
            self._keep(path)
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def num_drives(self) -> int:
        """Whole ones in the folder."""
        return len(list(self.folder.glob("meta/episodes/*/*.parquet")))

    def step(self, observation: np.ndarray, labels: Mapping[str, float], person: bool, teaches: bool) -> None:
        """A step that is about to be made: what is seen, what is done, by whom, and whether to learn from it."""
        row = {self.seen: observation, **labels, "hands": person, WEIGHT: float(teaches)}
        self._failed = self._failed and person
        try:
            if person and self._journal is None and not self._failed:
                self._begin()
            if self._journal is not None:
                self._journal.append(row)
        except (UserError, OSError) as error:  # A full disk stops no show: until the hands let go nothing is recorded.
            self._failed = True
            self._close()
            self._trouble(f"the drive can't be recorded on: {error}")
        self._idle = 0 if person else self._idle + 1
        if self._idle >= TAIL_S * self.rate_hz or (self._journal and self._journal.num_rows >= MOST_STEPS):
            self._close()
        self._lead.append(row | {WEIGHT: 0.0})

    def end(self) -> None:
        """What comes next is another track, or nothing."""
        self._lead.clear()
        self._close()

    def close(self) -> None:
        """Ends the drive and waits until it is kept."""
        self.end()
        self._whole.put(None)
        self._thread.join()

    def _begin(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"{time.strftime('%Y-%m-%dT%H.%M.%S', time.localtime(now))}.{int(now % 1 * 1e6):06d}"
        self._journal = Journal(self.folder / f"{name}{journal.SUFFIX}", self.kinds)
        for row in self._lead:
            self._journal.append(row)

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._whole.put(self._journal.path)
            self._journal = None

    def _work(self) -> None:
        while True:
            try:
                path = self._whole.get(timeout=SYNC_S)
            except queue.Empty:
                if (growing := self._journal) is not None:
                    growing.sync()
                continue
            if path is None:
                return
            self._keep(path)
            self.tell({"type": "recorded", "drives": self.num_drives})

    def _keep(self, path: Path) -> None:
        """Makes an episode of a journal, tells what is left out of it, and removes it; a cut here does no harm."""
        try:
            streams, lost = journal.read(path)
            if streams[WEIGHT].any():
                self._add(path.stem, streams)
            else:
                self._trouble(f"{path.name} holds no step of a person's; its {len(streams[WEIGHT])} steps are left out")
            if lost:
                path.rename(path.with_suffix(".damaged"))
                self._trouble(f"{lost} bytes at the end of {path.name} can't be read; the steps before them are kept")
            else:
                path.unlink(missing_ok=True)
        except Exception as error:  # Whatever it was, the journal stays, and the next start tries again.
            self._trouble(f"the drive in {path.name} is not among the recordings yet ({error})")

    def _add(self, name: str, streams: Mapping[str, Values]) -> None:
        with locked(self.folder):
            writer = self._writer()
            if name not in writer.names:
                writer.add(streams, name)

    def _writer(self) -> lerobot.Writer:
        return lerobot.Writer(self.folder, self.rate_hz, self.kinds, "drive by hand", self.about)

    def _trouble(self, what: str) -> None:
        self.say(what)
        self.tell({"type": "error", "error": "a drive could not be kept whole", "do": "see the server's terminal"})
