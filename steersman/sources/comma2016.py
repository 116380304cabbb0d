"""comma.ai's dataset of 2016: HDF5 files of one name in `camera/` and `log/`.

Format: github.com/commaai/research, Logs.md. `camera/*.h5` holds `X` (time 3 height width), uint8 RGB. `log/*.h5`
holds at 100 Hz `times` (s), `cam1_ptr` (the picture at that time), `speed` (m/s) and `steering_angle`: tenths of a
degree at the steering wheel, positive = RIGHT (view_steering_model.py there draws the path of -steering_angle / 10
degrees on an axis that points left). It becomes `angle_rad` and `steer`, positive = LEFT.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.frames import MOST_PIXELS, Chosen, stamp
from ..data.records import Index, Record, Stream
from ..errors import UserError
from .drives import WHEEL_RANGE_RAD, Faults, cut, sound, wheel
from .lerobot_layout import reading
from .safety import entries, own

if TYPE_CHECKING:
    import h5py

LAYOUT = "comma.ai 2016: camera/*.h5 and log/*.h5"
RAD_PER_UNIT = -np.radians(0.1)
NUMBERS = {"speed": "speed_mps", "gas": "gas", "brake": "brake"}
MOST_SAMPLES = 2**26
"""Samples of a log at most: a week at 100 Hz."""
MOST_CHUNK = 2**30
"""Bytes that HDF5 unpacks at once."""


def detect(path: Path) -> bool:
    return bool(_drives(path))


def read(path: Path) -> list[Record]:
    """The drives of a dataset, or that of one file in `camera/`, cut where the camera pauses for over a second.

    UserError where a file can't be read or over 5 % of its samples can't be used.
    """
    return [record for camera in _drives(path) for record in _drive(camera, _log(camera))]


def _drives(path: Path) -> list[Path]:
    """The camera files that have a log."""
    cameras = entries(path / "camera", "*.h5") if path.is_dir() else [path] * (path.suffix == ".h5")
    return [camera for camera in cameras if _log(camera).is_file() and camera != _log(camera)]


def _log(camera: Path) -> Path:
    return camera.parent.parent / "log" / camera.name


def _drive(camera: Path, log: Path) -> list[Record]:
    pictures, faults = Pictures(camera), Faults(log)
    with opened(log) as file:
        times, pointer, angle = (_column(file, name) for name in ("times", "cam1_ptr", "steering_angle"))
        rest = {stream: _column(file, name) for name, stream in NUMBERS.items() if name in file}
        skipped = sorted(set(file) - {"times", "cam1_ptr", "steering_angle", *NUMBERS})
    lengths = [len(column) for column in (times, pointer, angle, *rest.values())]
    if (overlap := min(lengths)) < max(lengths):
        faults.notes.append(
            f"the columns of {log.name} have {overlap} to {max(lengths)} samples: the first of all are used"
        )
        times, pointer, angle = times[:overlap], pointer[:overlap], angle[:overlap]
        rest = {name: column[:overlap] for name, column in rest.items()}
    # The first time that points to a picture is the picture's.
    known = np.isfinite(pointer) & (pointer >= 0) & np.isfinite(times)
    frames, first = np.unique(pointer[known].astype(np.int64), return_index=True)
    shot = frames < len(pictures)
    if not shot.all():
        faults.notes.append(
            f"{camera.name} has {len(pictures)} frames and its log {len(frames)}: the {shot.sum()} of both are used"
        )
    frames, clock = frames[shot], times[known][first[shot]]
    faults.check(len(frames))
    order = np.argsort(clock, kind="stable")
    streams = {"picture": Stream(Chosen(pictures, frames[order]), clock[order])}
    angles = sound("angle_rad", angle * RAD_PER_UNIT, times, faults, -WHEEL_RANGE_RAD, WHEEL_RANGE_RAD)
    streams |= {k: Stream(v, angles.time_s) for k, v in wheel(angles.values[:], WHEEL_RANGE_RAD).items()}
    streams |= {name: sound(name, values, times, faults) for name, values in rest.items()}
    faults.check(len(angles))
    about = {
        "format": "comma.ai 2016",
        "clock": "times, of a picture the first that cam1_ptr gives it",
        "steer_range_rad": WHEEL_RANGE_RAD,
        "sign": "angle_rad = -(steering_angle in tenths of a degree), positive left",
        "skipped": skipped,
        **faults.about(),
    }
    return cut(camera.with_suffix(""), streams, about)


class Pictures:
    """`X` of a camera file as (time height width 3) uint8 RGB, read when asked for."""

    def __init__(self, path: Path):
        self.path, self.dtype = path, np.dtype(np.uint8)
        with opened(path) as file:
            data = dataset(file, "X")
            if data.ndim != 4 or data.shape[1] != 3 or data.dtype != np.uint8:
                raise ValueError(f"X is {data.dtype} {data.shape}, not uint8 (time 3 height width)")
            num, _, height, width = data.shape
            if not 0 < height * width <= MOST_PIXELS:
                raise ValueError(f"its pictures are {width}x{height}")
        self.shape: tuple[int, ...] = (num, height, width, 3)
        self.fingerprint = hashlib.sha256(f"{stamp(path)}{self.shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        with opened(self.path) as file:
            numbers, places = np.unique(wanted, return_inverse=True)
            found = _rows(dataset(file, "X"), numbers)
        return np.ascontiguousarray(np.moveaxis(found, 1, -1)[places.reshape(wanted.shape)])


def _rows(data: "h5py.Dataset", numbers: np.ndarray) -> np.ndarray:
    """Rows of a dataset by their ascending numbers; close ones in one piece, which is far faster."""
    first, last = (numbers[0], numbers[-1]) if len(numbers) else (0, -1)
    together = last - first < 2 * len(numbers)
    return data[first : last + 1][numbers - first] if together else data[numbers]


def _column(file: "h5py.File", name: str) -> np.ndarray:
    data = dataset(file, name)
    if data.ndim != 1 or data.dtype.kind not in "iufb" or data.shape[0] > MOST_SAMPLES:
        raise ValueError(f"{name} is {data.dtype} {data.shape}, not numbers (time)")
    return np.asarray(data[:], np.float64)


def dataset(file: "h5py.File", name: str) -> "h5py.Dataset":
    """A dataset whose bytes lie in the file itself. ValueError where there is none."""
    import h5py

    data = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.external or data.is_virtual:
        raise ValueError(f"it holds no {name} of its own")
    if data.chunks and np.prod(data.chunks, dtype=float) * data.dtype.itemsize > MOST_CHUNK:
        raise ValueError(f"{name} lies in pieces of {data.chunks}")
    return data


@contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    try:
        import h5py
    except ImportError as error:
        raise UserError("HDF5 needs the package h5py; run: pip install 'steersman[logs]'") from error
    with reading(path), h5py.File(own(path), "r") as file:
        yield file
