"""CARLA's dataset of conditional imitation learning: `*.h5` of 200 moments each, with `rgb` and `targets`.

Format: github.com/carla-simulator/imitation-learning. `rgb` is uint8 (time 88 200 3), `targets` (time 28): steer, gas,
brake, ..., 10 the speed in km/h, 21 the time of the game in milliseconds, 24 the command (2 follow, 3 left, 4 right,
5 straight), 27 the yaw of the camera. Of several cameras the one that looks ahead is taken. Steer is a fraction of
full lock, positive = RIGHT; it becomes `steer`, positive = LEFT.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..data.frames import MOST_PIXELS, stamp
from ..data.records import Index, Record
from ..errors import UserError
from .comma2016 import dataset, opened
from .csv_tables import Clock
from .drives import Faults, records
from .safety import entries

LAYOUT = "CARLA imitation learning: *.h5 with rgb and targets"
STEER, SPEED, TIME, YAW = 0, 10, 21, 27
NUMBERS = {"throttle": (1, 1.0), "brake": (2, 1.0), "speed_mps": (SPEED, 1 / 3.6), "command": (24, 1.0)}
COLUMNS = 28
MOST_MOMENTS = 2**20
"""Moments of a file at most; they are written in 200s."""
RATE_HZ = 10.0
"""Rate of recordings whose clock doesn't run."""


def detect(path: Path) -> bool:
    files = _files(path)
    if not files:
        return False
    if find_spec("h5py") is None:
        return all(re.fullmatch(r"data_\d+", file.stem) for file in files)
    return _holds(files[0])


def read(path: Path) -> list[Record]:
    """The drives of all files in their order, cut where the clock pauses. UserError where a file can't be read."""
    files, faults = _files(path), Faults(path)
    parts, shapes = [], []
    for file in files:
        with opened(file) as held:
            data, targets = dataset(held, "rgb"), dataset(held, "targets")
            height, width = data.shape[1:3] if data.ndim == 4 else (0, 0)
            if data.ndim != 4 or data.shape[3] != 3 or data.dtype != np.uint8 or not 0 < height * width <= MOST_PIXELS:
                raise ValueError(f"rgb is {data.dtype} {data.shape}, not uint8 (time height width 3)")
            if len(data) > MOST_MOMENTS:
                raise ValueError(f"it holds {len(data)} moments, over {MOST_MOMENTS}")
            if targets.shape != (len(data), COLUMNS) or targets.dtype.kind not in "fiu":
                raise ValueError(f"targets is {targets.dtype} {targets.shape}, not ({len(data)}, {COLUMNS})")
            parts.append(np.asarray(targets[:], np.float64))
            shapes.append((len(data), height, width))
    targets = np.concatenate(parts)
    place = [(file, row) for file, (num, *_) in enumerate(shapes) for row in range(num)]
    yaw = np.abs(np.nan_to_num(targets[:, YAW], nan=np.inf))
    ahead = np.flatnonzero(yaw == yaw.min())
    steer, kept = [], []
    for i in ahead.tolist():
        try:
            if not np.isfinite(targets[i]).all():
                raise ValueError("a target is not a number")
            steer.append(0.0 - faults.lock(float(targets[i, STEER])))
            kept.append(i)
        except ValueError as error:
            faults.add(f"{files[place[i][0]].name} moment {place[i][1]}", error)
    faults.check(len(kept))
    if len(ahead) < len(targets):
        faults.notes.append(f"{len(targets) - len(ahead)} of {len(targets)} moments are of cameras that look aside")
    time_s, clock = _clock(targets[kept, TIME])
    about = {
        "format": "CARLA imitation learning",
        "rate_hz": RATE_HZ,
        "clock": clock,
        "steer_range_rad": None,
        "sign": "steer = -(targets 0): a fraction of full lock, positive left",
        **faults.about(),
    }
    numbers = targets[kept]

    def streams(part: slice) -> dict:
        there = [place[i] for i in kept[part]]
        pictures = Pictures([(files[file], row) for file, row in there], shapes[there[0][0]][1:])
        values = {"picture": pictures, "steer": np.array(steer[part], np.float32)}
        return values | {k: (numbers[part, i] * factor).astype(np.float32) for k, (i, factor) in NUMBERS.items()}

    sizes = [shapes[place[i][0]][1:] for i in kept]
    return records(path if path.is_dir() else path.with_suffix(""), time_s, sizes, streams, about)


def _files(path: Path) -> list[Path]:
    return entries(path, "*.h5") if path.is_dir() else [path] * (path.suffix == ".h5")


def _holds(file: Path) -> bool:
    try:
        with opened(file) as found:
            return {"rgb", "targets"} <= set(found)
    except UserError:
        return False


def _clock(ticks: np.ndarray) -> tuple[np.ndarray, str]:
    try:
        return Clock("time of the game", []).seconds(ticks)
    except ValueError as error:
        return np.arange(len(ticks)) / RATE_HZ, f"number of the moment at the nominal {RATE_HZ:g} Hz ({error})"


class Pictures:
    """Some of the pictures of `rgb` of several files as (time height width 3) uint8 RGB, read when asked for."""

    def __init__(self, places: Sequence[tuple[Path, int]], size: tuple[int, int]):
        self.places, self.dtype = places, np.dtype(np.uint8)
        self.shape: tuple[int, ...] = (len(places), *size, 3)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        found = np.empty((wanted.size, *self.shape[1:]), np.uint8)
        by_file: dict[Path, list[int]] = {}
        for i, row in enumerate(wanted.reshape(-1).tolist()):
            by_file.setdefault(self.places[row][0], []).append(i)
        for file, those in by_file.items():
            rows, back = np.unique([self.places[wanted.reshape(-1)[i]][1] for i in those], return_inverse=True)
            with opened(file) as held:
                found[those] = dataset(held, "rgb")[rows][back]
        return found.reshape(*wanted.shape, *self.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the files' names, sizes and times, and of which of their pictures they are."""
        files = "".join(stamp(file) for file in dict.fromkeys(file for file, _ in self.places))
        rows = np.array([row for _, row in self.places], np.int64)
        return hashlib.sha256(files.encode() + rows.tobytes()).hexdigest()
