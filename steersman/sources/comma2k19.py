"""comma2k19: a minute a folder, `processed_log/` and `global_pose/` of .npy content whose names have no extension.

Format: github.com/commaai/comma2k19. `steering_angle` is degrees at the steering wheel, positive = LEFT; it becomes
`angle_rad` and `steer`. Clocks are seconds since the device was switched on, of each sensor its own. The pictures
are in `video.hevc` (20 Hz, their clock in `global_pose/frame_times`); where it is absent the rest is read.
"""

from pathlib import Path

import numpy as np

from ..data.frames import Chosen
from ..data.records import Record, Stream
from ..errors import UserError
from .drives import WHEEL_RANGE_RAD, Faults, cut, sound, wheel
from .films import Film
from .safety import own

LAYOUT = "comma2k19: processed_log/CAN/steering_angle/ and global_pose/"
ANGLE = "processed_log/CAN/steering_angle"
FRAME_TIMES = "global_pose/frame_times"
SENSORS = {
    "speed_mps": ("processed_log/CAN/speed/value", "processed_log/CAN/speed/t"),
    "wheel_speed_mps": ("processed_log/CAN/wheel_speed/value", "processed_log/CAN/wheel_speed/t"),
    "gyro_radps": ("processed_log/IMU/gyro/value", "processed_log/IMU/gyro/t"),
    "acceleration_mps2": ("processed_log/IMU/accelerometer/value", "processed_log/IMU/accelerometer/t"),
    "position_ecef_m": ("global_pose/frame_positions", FRAME_TIMES),
    "velocity_ecef_mps": ("global_pose/frame_velocities", FRAME_TIMES),
    "orientation_ecef": ("global_pose/frame_orientations", FRAME_TIMES),
}
"""Streams of numbers: where their values and their clock are."""


def detect(path: Path) -> bool:
    return (path / ANGLE).is_dir()


def read(path: Path) -> list[Record]:
    """A segment, cut where its pictures (without them, its angles) pause for over a second.

    UserError where an array can't be read or over 5 % of its samples are not numbers.
    """
    faults = Faults(path)
    streams = {}
    for name, place in SENSORS.items():
        if (path / place[0]).exists():
            values, time_s = (_array(path, part) for part in place)
            streams[name] = _stream(name, values, time_s, faults)
    degrees = _stream("steering_angle", _array(path, f"{ANGLE}/value"), _array(path, f"{ANGLE}/t"), faults, 540.0)
    angles = wheel(np.radians(degrees.values[:]), WHEEL_RANGE_RAD)
    streams = {name: Stream(value, degrees.time_s) for name, value in angles.items()} | streams
    num_spare = 0
    if (path / "video.hevc").exists():
        film, time_s = Film(path / "video.hevc"), _array(path, FRAME_TIMES)
        num = min(len(film), len(time_s))
        for i in range(num, len(time_s)):
            faults.add(f"frame {i}", f"video.hevc ends after {len(film)} frames")
        num_spare = len(film) - num
        for i in np.flatnonzero(~np.isfinite(time_s[:num])):
            faults.add(f"frame {i}", f"its time is {time_s[i]}")
        order = np.argsort(time_s[:num], kind="stable")
        order = order[np.isfinite(time_s[order])]
        streams = {"picture": Stream(Chosen(film, order), time_s[order])} | streams
    faults.check(sum(map(len, streams.values())) if "picture" not in streams else len(streams["picture"]))
    about = {
        "format": "comma2k19",
        "clock": "seconds since the device was switched on, of each sensor its own",
        "steer_range_rad": WHEEL_RANGE_RAD,
        "sign": "angle_rad = steering_angle in degrees, positive left",
        "skipped": _skipped(path, set(sum(SENSORS.values(), ()))),
        "frames_without_time": num_spare,
        **faults.about(),
    }
    return cut(path, streams, about)


def _skipped(path: Path, used: set[str]) -> list[str]:
    """Arrays of the segment that become no stream."""
    used = {place.removesuffix("/value").removesuffix("/t") for place in used} | {ANGLE}
    found = {place.parent for place in path.glob("processed_log/*/*/value")}
    return sorted(set(place.relative_to(path).as_posix() for place in found) - used)


def _stream(name: str, values: np.ndarray, time_s: np.ndarray, faults: Faults, limit: float = 1e30) -> Stream:
    if time_s.ndim != 1 or values.ndim > 2 or len(values) != len(time_s):
        raise UserError(
            f"{faults.log}: {name} has values {values.shape} but times {time_s.shape}; copy the segment anew"
        )
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    return sound(name, values, time_s, faults, -limit, limit)


def _array(path: Path, place: str) -> np.ndarray:
    """Numbers of a file, without unpickling anything."""
    file = path / place
    try:
        # Mapped, a header that announces more than the file holds is an error and not an allocation.
        array = np.load(own(file, path), mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or not array.ndim:
            raise ValueError("it holds no array of numbers")
        return np.array(array, np.float64)
    except UserError:
        raise
    except Exception as error:  # A damaged header is parsed as Python, with any error of its.
        raise UserError(f"{file} can't be read ({error}); copy the segment anew") from error
