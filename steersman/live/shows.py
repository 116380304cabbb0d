"""What a stage shows: a simulator, a log at its own rate, a video file, or the pictures or sound that a page sends."""

import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from ..data.records import Record
from ..errors import UserError
from ..nn.model import Model
from ..progress import Watch, silent
from ..sources.films import DEMUXERS, opened
from ..training.recipe import read_records
from ..training.run import Run
from ..worlds.recording import world_of
from ..worlds.world import FactValue, World, WorldSpec
from .heard import Words
from .limits import Limits, Refused
from .pictures import cut, decode, fitted


@dataclass(frozen=True)
class Shot:
    """One step of a show, before the model has seen it."""

    raw: np.ndarray
    """The step as the model takes it."""
    scene: np.ndarray | None
    """The step as people see it, in the same proportions (height width 3); None: there is nothing to see."""
    record: str
    time_s: float
    first: bool
    """Whether the state starts anew."""
    truth: dict[str, float | None] | None = None
    """True value of each target that is known; None where the record has no number at this step."""
    facts: tuple[tuple[str, FactValue], ...] = ()
    """Facts that the world tells of itself, by name."""


class Show:
    """What every source offers: `shot`, then `advance`, over and over, in one thread."""

    source: str
    rate_hz: float
    size: tuple[int, int]
    """Height and width of a scene."""
    records: list[str] | None = None
    sound_hz: int = 0
    """Samples a second that a page's microphone sends; 0: none."""

    @property
    def world(self) -> World | None:
        """The simulator, where there is one: then `advance` wants an action."""
        return None

    def shot(self) -> Shot | None:
        """The present step; None where none has come yet."""
        raise AssertionError(f"{type(self).__name__} has no shot")

    def advance(self, action: np.ndarray | None) -> float:
        """Goes on to the next step; how many seconds the last one stands."""
        return 1 / self.rate_hz

    def restart(self) -> None:
        """The next track, or the record again."""
        raise Refused("this source can't be begun anew", "choose another")

    def choose(self, name: str) -> None:
        """Another record by its name."""
        raise Refused("this source has no records to choose from", "choose another")

    def offer(self, data: bytes) -> None:
        """A picture of the page's camera, or sound of its microphone."""
        raise Refused(
            "nothing is taken from a page's camera or microphone", "start the server with --webcam or --microphone"
        )


class Simulated(Show):
    """Episode after episode of a world, driven by whoever holds the wheel; the truth is what its expert would do."""

    source = "simulator"

    def __init__(self, spec: WorldSpec, targets: Sequence[str], seed: int = 0):
        self._world, self._targets, self._seed = spec.build(), targets, seed
        self.rate_hz, self.size = float(self.world.rate_hz), self.world.scene_size
        self._begin()

    @property
    def world(self) -> World:
        return self._world

    def _begin(self) -> None:
        self._observation, _ = self.world.reset(self._seed)
        self._expert = self.world.expert()
        self._episode, self._over = f"{self.world.spec.words.episode} {self._seed}", False

    def shot(self) -> Shot:
        if self._over:
            self.restart()
        world = self.world
        return Shot(
            self._observation,
            world.scene(*self.size),
            self._episode,
            world.time_s,
            world.steps == 0,
            self._truth(),
            tuple(world.facts().items()),
        )

    def _truth(self) -> dict[str, float | None] | None:
        """The expert's labels; None where the world has no expert."""
        if self._expert is None:
            return None
        labels = self._expert.act(self.world)
        return {name: float(labels[name]) for name in self._targets if name in labels}

    def advance(self, action: np.ndarray | None) -> float:
        assert action is not None, "a world wants an action"
        self._observation, _, terminated, truncated, _ = self.world.step(action)
        self._over = terminated or truncated
        return super().advance(action)

    def restart(self) -> None:
        self._seed += 1
        self._begin()


class Logged(Show):
    """Record after record, each step for as long as its own clock says; at the end of the last the first again.

    Records are such as the recipe sees them, which is made when a record's turn comes.
    """

    source = "log"

    def __init__(
        self,
        records: Sequence[Record],
        inputs: str,
        targets: Sequence[str],
        raw: tuple[int, ...],
        seen: Callable[[Record], Record] = lambda record: record,
    ):
        if not records:
            raise UserError("there is no record to show; name a log with --data")
        self._records, self._inputs, self._targets, self._raw = list(records), inputs, targets, raw
        self._seen, self.records = seen, [record.name for record in records]
        self._open(0)
        periods = np.diff(self._clock)
        self.rate_hz = float(1 / np.median(periods)) if len(periods) and np.median(periods) > 0 else 1.0
        self._grey = len(raw) == 2 and self._values.dtype == np.uint8
        self.size = (raw[0], raw[1]) if len(raw) == 3 or self._grey else (0, 0)

    def _open(self, place: int) -> None:
        self._place, self._step = place, 0
        record = self._seen(self._records[place])
        self._values, self._clock = record[self._inputs].values, record[self._inputs].time_s
        if (shape := tuple(self._values.shape[1:]) or (1,)) != self._raw:
            raise UserError(f"record {record.name!r} has steps of shape {shape}, the model takes {self._raw}")
        known = [name for name in self._targets if name in record.streams]
        self._truth = {name: record[name].at(self._clock) for name in known}

    def shot(self) -> Shot:
        step = self._step
        raw = np.reshape(np.asarray(self._values[step]), self._raw)
        truth = {name: float(v[step]) if np.isfinite(v[step]) else None for name, v in self._truth.items()}
        scene = raw if len(self._raw) == 3 else np.repeat(raw[..., None], 3, -1) if self._grey else None
        time_s = float(self._clock[step] - self._clock[0])
        return Shot(raw, scene, self._records[self._place].name, time_s, step == 0, truth or None)

    def advance(self, action: np.ndarray | None) -> float:
        self._step += 1
        if self._step < len(self._clock):
            return float(self._clock[self._step] - self._clock[self._step - 1])
        self._open((self._place + 1) % len(self._records))
        return super().advance(action)

    def restart(self) -> None:
        self._open(self._place)

    def choose(self, name: str) -> None:
        assert self.records is not None
        if name not in self.records:
            raise Refused("there is no record of that name", "choose one of those that `hello` names")
        self._open(self.records.index(name))


class Filmed(Show):
    """A video file at its own rate, over and over."""

    source = "video"

    def __init__(self, file: Path, raw: tuple[int, ...]):
        self._file, self._raw = file, raw
        self._frames = self._decoded()
        self._frame = next(self._frames, None)
        if self._frame is None:
            raise UserError(f"{file} has no pictures; give a video file")
        self.size = cut(self._frame[1], raw).shape[:2]
        self._first = True

    def _decoded(self) -> Iterator[tuple[float, np.ndarray]]:
        try:
            with opened(self._file, DEMUXERS.get(self._file.suffix.lower())) as (film, stream):
                self.rate_hz = float(stream.average_rate or 25)
                for number, frame in enumerate(film.decode(stream)):
                    time_s = frame.time if frame.time is not None else number / self.rate_hz
                    yield time_s, frame.to_ndarray(format="rgb24")
        except (OSError, IndexError, ValueError, FFmpegError) as error:
            raise UserError(f"{self._file} can't be read as a video ({error}); give another file") from error

    def shot(self) -> Shot:
        assert self._frame is not None
        time_s, picture = self._frame
        return Shot(fitted(picture, self._raw), cut(picture, self._raw), self._file.name, time_s, self._first)

    def advance(self, action: np.ndarray | None) -> float:
        assert self._frame is not None
        before, self._first = self._frame[0], False
        self._frame = next(self._frames, None)
        if self._frame is None:
            self.restart()
            return super().advance(action)
        return max(0.0, self._frame[0] - before)

    def restart(self) -> None:
        self._frames = self._decoded()
        self._frame, self._first = next(self._frames), True


class Sent(Show):
    """Pictures of a page's camera: the newest counts, one that was not looked at is dropped and counted."""

    source = "webcam"
    rate_hz = 25.0
    """Pictures a second that are looked at, at most."""

    def __init__(self, raw: tuple[int, ...], limits: Limits):
        self._raw, self._limits = raw, limits
        self.size = raw[0], raw[1]
        self._lock, self._came = threading.Lock(), threading.Event()
        self._waiting: bytes | None = None
        self.dropped, self._began_s = 0, 0.0

    def offer(self, data: bytes) -> None:
        with self._lock:
            self.dropped += self._waiting is not None
            self._waiting = data
        self._came.set()

    def shot(self) -> Shot | None:
        if not self._came.wait(0.1):
            return None
        with self._lock:
            data, self._waiting = self._waiting, None
            self._came.clear()
        if data is None:
            return None
        picture = decode(data, self._limits.pixels)
        now_s, first = time.monotonic(), not self._began_s
        self._began_s = self._began_s or now_s
        time_s = now_s - self._began_s
        return Shot(fitted(picture, self._raw), cut(picture, self._raw), "camera", time_s, first)

    def restart(self) -> None:
        self._began_s = 0.0


class Heard(Show):
    """Sound of a page's microphone, word by word: each is a record, and between words nothing is stepped."""

    source = "microphone"
    size = (0, 0)
    HEAD = struct.Struct("<I")
    """What a message begins with: its samples a second. Its samples are of 16 bits, the least first."""
    MOST_S = 2.0
    """Seconds of sound that wait for the model; of more the oldest are dropped and counted."""

    def __init__(self, length: int, sound_hz: int):
        """`length`: samples of a step."""
        self._length, self.sound_hz, self.rate_hz = length, sound_hz, sound_hz / length
        self._lock, self._came = threading.Lock(), threading.Event()
        self._waiting: deque[np.ndarray] = deque(maxlen=round(self.MOST_S * self.rate_hz))
        self._rest, self.dropped = np.zeros(0, np.float32), 0
        self.restart()

    def offer(self, data: bytes) -> None:
        size = self.HEAD.size
        if len(data) < size or (len(data) - size) % 2:
            raise Refused("this is no sound", "send its samples a second in four bytes, then samples of two bytes each")
        if (sent_hz := self.HEAD.unpack_from(data)[0]) != self.sound_hz:
            raise Refused(f"sound of {sent_hz} samples a second came", f"send {self.sound_hz}, as the model takes them")
        with self._lock:
            sound = np.concatenate((self._rest, np.frombuffer(data, "<i2", offset=size).astype(np.float32) / 2**15))
            steps = len(sound) // self._length
            self._rest = sound[steps * self._length :]
            self.dropped += max(0, len(self._waiting) + steps - (self._waiting.maxlen or 0))
            self._waiting.extend(sound[: steps * self._length].reshape(steps, self._length))
        self._came.set()

    def shot(self) -> Shot | None:
        if not self._said:
            if not self._came.wait(0.1):
                return None
            with self._lock:
                self._came.clear()
                steps = list(self._waiting)
                self._waiting.clear()
            for step in steps:
                self._said.extend(self._words.hear(step))
            if not self._said:
                return None
        step, first = self._said.popleft()
        self._step = 0 if first else self._step + 1
        self._count += first
        return Shot(step, None, f"word {self._count}", self._step / self.rate_hz, first)

    def advance(self, action: np.ndarray | None) -> float:
        return 0.0  # The microphone has its own clock.

    def restart(self) -> None:
        self._words, self._said = Words(self.rate_hz), deque[tuple[np.ndarray, bool]]()
        self._count = self._step = 0


@dataclass(frozen=True)
class Source:
    """What a stage is to show."""

    data: tuple[str, ...] = ()
    """Recordings to show at their own rate. None: the simulator, for a driver of one; else the run's test records."""
    video: str = ""
    """A video file to show instead."""
    webcam: bool = False
    """Show what the page's camera sees instead."""
    microphone: bool = False
    """Hear what the page's microphone hears instead, word by word."""
    seed: int = 300_000
    """Seed of the simulator's first episode. Not those that `drive` scores: a person may teach on them."""

    def show(self, run: Run, model: Model, limits: Limits, watch: Watch = silent) -> Show:
        recipe, targets, raw = run.recipe, model.head.targets, model.encoder.raw
        if bool(self.data) + bool(self.video) + self.webcam + self.microphone > 1:
            raise UserError("--data, --video, --webcam and --microphone are four sources; give one")
        if self.microphone:
            if not model.encoder.sound_hz:
                raise UserError(f"{run.folder} takes steps of shape {raw}, no sound; show a log with --data")
            return Heard(raw[0], model.encoder.sound_hz)
        if (self.video or self.webcam) and len(raw) != 3:
            raise UserError(f"{run.folder} takes steps of shape {raw}, no pictures; show a log with --data")
        if self.webcam:
            return Sent(raw, limits)
        if self.video:
            return Filmed(Path(self.video), raw)
        if not self.data and (world := world_of(recipe)):
            return Simulated(world, targets, self.seed)
        records = read_records(recipe, self.data, watch) if self.data else run.records(watch)["test"]
        return logged(run, model, records)


def logged(run: Run, model: Model, records: Sequence[Record]) -> Logged:
    """Records as the run's model sees them, with what is true where they tell it."""
    recipe = run.steps

    def seen(record: Record) -> Record:
        try:
            return recipe.seen(record)
        except UserError:  # It does not tell what is true.
            return recipe.seen(record, answers=False)

    return Logged(records, recipe.inputs, model.head.targets, model.encoder.raw, seen)
