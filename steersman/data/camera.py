"""What goes wrong with a camera, done to pictures: noise, light, blur, shaking, lost frames and blackouts."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from ..config import Spec
from ..errors import UserError
from .records import Index, Record, Stream, Values

BANK = 1 << 20
"""Numbers of noise drawn once; every picture takes a stretch of them from a place of its own."""
SHORTEST, LONGEST = 10, 25
"""Steps that a blackout lasts."""


@dataclass(frozen=True)
class CameraFaults(Spec):
    """Strengths of what goes wrong with a camera; by default nothing does."""

    noise: float = 0.0
    """Standard deviation of white noise on every number of a picture, of 255."""
    light: float = 1.0
    """Factor of all brightness."""
    contrast: float = 1.0
    """Factor of the distance from mid-grey."""
    gamma: float = 1.0
    """Exponent of the brightness, 0 to 1: above 1 is darker."""
    drift: float = 0.0
    """Share by which the light goes up and down, slowly, over an episode."""
    blur: float = 0.0
    """Standard deviation of a Gaussian blur, in pixels."""
    shake: float = 0.0
    """Standard deviation of the camera's move from step to step, in pixels, and of its turn, in half degrees."""
    drop: float = 0.0
    """Share of the pictures that are lost: the one before is seen again."""
    blackouts: float = 0.0
    """Share of the time in which the picture is black, in spells of 10 to 25 steps."""

    BOUNDS = {
        "noise": (0, 128),
        **dict.fromkeys(("light", "contrast", "gamma"), (0.1, 10)),
        "drift": (0, 0.9),
        "blur": (0, 10),
        "shake": (0, 20),
        **dict.fromkeys(("drop", "blackouts"), (0, 0.9)),
    }

    def told(self) -> str:
        """What is wrong, in words: `noise 10, drop 0.3`; empty: nothing."""
        own = [(f.name, getattr(self, f.name)) for f in fields(CameraFaults) if getattr(self, f.name) != f.default]
        return ", ".join(f"{name} {value:g}" for name, value in own)


class Camera:
    """A camera with faults over one episode, a pure function of the generator and of the pictures it is shown."""

    def __init__(self, faults: CameraFaults, rng: np.random.Generator, num_steps: int):
        self.faults = faults
        self.places = rng.integers(0, BANK, num_steps)
        lost = rng.random(num_steps) < faults.drop
        lost[:1] = False
        self.taken = np.maximum.accumulate(np.where(lost, 0, np.arange(num_steps)))
        """The step whose picture is seen at each: of a lost one the last that came."""
        phase, turns = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3)
        self.gain = faults.light * (1 + faults.drift * np.sin(phase + 2 * np.pi * turns * np.arange(num_steps) / 1000))
        self.moves = faults.shake * rng.normal(size=(num_steps, 3))
        self.last: tuple[int, np.ndarray] | None = None

    def see(
        self, picture: UInt8[np.ndarray, "row column channel"], step: int
    ) -> UInt8[np.ndarray, "row column channel"]:
        """The picture as this camera gives it, steps in their order from 0."""
        if self.last is None or self.taken[step] != self.last[0]:
            self.last = step, self.taking(picture, step)
        return self.last[1]

    def taking(self, picture: np.ndarray, step: int) -> np.ndarray:
        """The picture of a step, if it is not lost."""
        faults = self.faults
        if faults.shake:
            picture = moved(picture, *self.moves[step])
        if faults.blur:
            picture = blurred(picture, faults.blur)
        gain = float(self.gain[step])
        if gain != 1 or faults.contrast != 1 or faults.gamma != 1:
            picture = exposure(round(gain, 3), faults.contrast, faults.gamma)[picture]
        if faults.noise:
            noise = np.take(_bank(), np.arange(self.places[step], self.places[step] + picture.size), mode="wrap")
            noisy = picture + noise.reshape(picture.shape) * np.float32(faults.noise)
            picture = np.clip(noisy + np.float32(0.5), 0, 255).astype(np.uint8)
        return picture


class Faulty:
    """A record's pictures as a camera with faults gives them, made when asked for; blackouts too."""

    def __init__(self, values: Values, faults: CameraFaults, seed: int):
        self.values, self.shape, self.dtype = values, tuple(values.shape), np.dtype(np.uint8)
        self.camera = Camera(faults, np.random.default_rng((seed, 2)), len(values))
        self.blind = blackout_schedule(np.random.default_rng((seed, 4)), faults.blackouts, len(values))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        found = [self._picture(int(step)) for step in wanted.reshape(-1)]
        return np.array(found, np.uint8).reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def _picture(self, step: int) -> np.ndarray:
        taken = int(self.camera.taken[step])
        picture = np.asarray(self.values[taken])
        return np.zeros_like(picture) if self.blind[step] else self.camera.taking(picture, taken)


def disturbed(records: Sequence[Record], stream: str, faults: CameraFaults) -> list[Record]:
    """Records whose pictures a camera with faults took. UserError where the stream holds no pictures."""
    found = []
    for number, record in enumerate(records):
        seen = record[stream]
        if len(seen.values.shape) != 4 or seen.values.dtype != np.uint8:
            raise UserError(
                f"record {record.name!r} holds no pictures in {stream!r} that a camera's faults could spoil"
            )
        spoiled = Stream(Faulty(seen.values, faults, number), seen.time_s)
        found.append(replace(record, streams=record.streams | {stream: spoiled}))
    return found


@lru_cache(maxsize=1)
def _bank() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(BANK, np.float32)


@lru_cache(maxsize=4096)
def exposure(gain: float, contrast: float, gamma: float) -> UInt8[np.ndarray, "256"]:
    """The brightness that each of 256 becomes."""
    light = np.clip(gain * np.arange(256) / 255, 0, 1) ** gamma
    return np.clip(np.round(255 * ((light - 0.5) * contrast + 0.5)), 0, 255).astype(np.uint8)


def moved(picture: np.ndarray, down: float, right: float, turn: float) -> np.ndarray:
    """A picture moved by pixels and turned by half degrees about its middle; the edge is repeated."""
    height, width = picture.shape[:2]
    angle = np.deg2rad(turn / 2)
    rows, columns = np.arange(height)[:, None] - height / 2, np.arange(width)[None] - width / 2
    row = np.rint(np.cos(angle) * rows - np.sin(angle) * columns + height / 2 - down)
    column = np.rint(np.sin(angle) * rows + np.cos(angle) * columns + width / 2 - right)
    return picture[row.clip(0, height - 1).astype(int), column.clip(0, width - 1).astype(int)]


def blurred(picture: np.ndarray, sd: float) -> np.ndarray:
    """A picture after a Gaussian blur; the edge is repeated."""
    reach = int(np.ceil(2.5 * sd))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sd) ** 2).astype(np.float32)
    weights /= weights.sum()
    soft = picture.astype(np.float32)
    for axis in (0, 1):
        padding = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(soft, padding, mode="edge"), len(weights), axis)
        soft = windows @ weights
    return np.round(soft).astype(np.uint8)


def blackout_schedule(rng: np.random.Generator, share: float, num_steps: int) -> np.ndarray:
    """Which pictures are black: spells of 10 to 25 steps with clear stretches of geometric length between."""
    blind = np.zeros(num_steps, bool)
    if share == 0:
        return blind
    step, mean = 0, (SHORTEST + LONGEST) / 2
    while step < num_steps:
        step += rng.geometric(min(1.0, share / (mean * (1 - share))))
        spell = rng.integers(SHORTEST, LONGEST + 1)
        blind[step : step + spell] = True
        step += spell
    return blind
