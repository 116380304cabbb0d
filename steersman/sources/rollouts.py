"""Rollouts of CarRacing as World Models repositories keep them: `*.npz` with pictures and actions, an episode each.

`observations` (or `obs`) is uint8 (time height width 3) and `actions` (or `action`) is (time 3): steer, gas and brake,
50 a second. Steer is a fraction of full lock, positive = RIGHT; it becomes `steer`, positive = LEFT. Of Gymnasium's own
96x96 pictures the dashboard, which shows the angle, is cut off; smaller ones were cut by who recorded them.
"""

import hashlib
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.frames import MOST_PIXELS, Chosen, stamp
from ..data.records import Index, Record
from ..errors import UserError
from .drives import Faults, records
from .lerobot_layout import reading
from .safety import entries, own

LAYOUT = "CarRacing rollouts: *.npz with observations and actions"
PICTURES, ACTIONS, ENDS = ("observations", "obs"), ("actions", "action"), ("terminals", "dones", "done")
RATE_HZ = 50.0
WHOLE, SCENE = (96, 96), 84
"""Height and width of Gymnasium's pictures, and the rows above their dashboard."""
MOST_BYTES = 2**33
"""Size of an episode's pictures, which are unpacked as a whole."""
HEADER = 4096
LOOKED_INTO = 5
"""Files of a folder that are looked into to tell whether it holds rollouts."""


def detect(path: Path) -> bool:
    return any(_is_rollout(file) for file in _files(path)[:LOOKED_INTO])


def read(path: Path) -> list[Record]:
    """A record an episode. UserError where a file can't be read or its arrays are of other shapes."""
    return [record for file in _files(path) if _is_rollout(file) for record in _rollout(file)]


def _files(path: Path) -> list[Path]:
    return entries(path, "*.npz") if path.is_dir() else [path] * (path.suffix == ".npz")


def _is_rollout(file: Path) -> bool:
    try:
        with zipfile.ZipFile(own(file)) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError):
        return False
    return bool(names & set(PICTURES) and names & set(ACTIONS))


def _rollout(file: Path) -> list[Record]:
    with reading(file):
        pictures = Pictures(file)
        actions = np.asarray(_array(file, ACTIONS), np.float64)
        if actions.ndim != 2 or actions.shape[1] < 1:
            raise ValueError(f"its actions are {actions.shape}, not (time 3)")
        ended = np.asarray(_array(file, ENDS) if _shape(file, ENDS) else [], bool).reshape(-1)
    faults, num = Faults(file), min(len(pictures), len(actions))
    steer = np.zeros(num)
    for i in range(num):
        try:
            steer[i] = 0.0 - faults.lock(float(actions[i, 0]))
        except ValueError as error:
            raise UserError(f"{file}: action {i}: {error}") from error
    episode = np.append(0, np.cumsum(ended[: num - 1], dtype=int)) if len(ended) >= num - 1 else np.zeros(num, int)
    names = ("steer", "throttle", "brake")[: actions.shape[1]]
    about = {
        "format": "CarRacing rollout",
        "rate_hz": RATE_HZ,
        "clock": f"{RATE_HZ:g} frames a second, as the simulator runs",
        "steer_range_rad": None,
        "sign": "steer = -(action 0): a fraction of full lock, positive left",
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        values = {"picture": Chosen(pictures, np.arange(num)[part]), "steer": steer[part].astype(np.float32)}
        return values | {name: actions[part, i].astype(np.float32) for i, name in enumerate(names) if i}

    return records(file.with_suffix(""), np.arange(num) / RATE_HZ, episode.tolist(), streams, about)


class Pictures:
    """The pictures of an episode as (time height width 3) uint8 RGB; its file is unpacked when they are asked for."""

    def __init__(self, file: Path):
        shape, dtype, _ = _shape(file, PICTURES) or ((), np.dtype(object), "")
        if len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
            raise ValueError(f"its pictures are {dtype} {shape}, not uint8 (time height width 3)")
        if shape[1] * shape[2] > MOST_PIXELS or np.prod(shape, dtype=float) > MOST_BYTES:
            raise ValueError(f"its pictures are {shape}, more than can be unpacked")
        self.file, self.dtype = file, np.dtype(np.uint8)
        self.height = SCENE if shape[1:3] == WHOLE else shape[1]
        self.shape: tuple[int, ...] = (shape[0], self.height, *shape[2:])
        self.stamp = stamp(file)
        self.fingerprint = hashlib.sha256(f"{self.stamp}{self.shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        return _unpacked(self.file, self.stamp)[index][..., : self.height, :, :]


@lru_cache(maxsize=2)
def _unpacked(file: Path, stamp: str) -> np.ndarray:
    with reading(file):
        return _array(file, PICTURES)


def _shape(file: Path, names: tuple[str, ...]) -> tuple[tuple[int, ...], np.dtype, str] | None:
    """Shape, type and name in the file of the first of some arrays that it holds."""
    with zipfile.ZipFile(own(file)) as archive:
        name = next((f"{name}.npy" for name in names if f"{name}.npy" in archive.namelist()), None)
        if name is None:
            return None
        with archive.open(name) as member:
            version = np.lib.format.read_magic(member)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(member)
        if archive.getinfo(name).file_size > np.prod(shape, dtype=float) * dtype.itemsize + HEADER:
            raise ValueError(f"{name} is larger than it says")
    return shape, dtype, name


def _array(file: Path, names: tuple[str, ...]) -> np.ndarray:
    """The first of some arrays, which is never unpickled."""
    found = _shape(file, names)
    if found is None or np.prod(found[0], dtype=float) * found[1].itemsize > MOST_BYTES:
        raise ValueError(f"it holds no {names[0]} that could be unpacked")
    with zipfile.ZipFile(own(file)) as archive, archive.open(found[2]) as member:
        return np.lib.format.read_array(member, allow_pickle=False)
