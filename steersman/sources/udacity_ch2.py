"""Udacity's Challenge 2: CSV files with the wheel at each picture of a camera, the pictures in folders beside them.

Three layouts (github.com/udacity/self-driving-car, challenges/challenge-2): `interpolated.csv` of all three cameras
(`frame_id` says which, `filename` where); the same of the center camera alone, by any name; and
`CH2_final_evaluation.csv` (`frame_id` is the time, the picture in `center/` or `frames/center/`). Times are
nanoseconds. `angle` or `steering_angle` is radians at the steering wheel, positive = LEFT, `speed` is m/s, `torque`
N m. The bags from which these were made are read by `ros_bag`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record, Stream
from ..errors import UserError
from .csv_tables import header, read_table
from .drives import WHEEL_RANGE_RAD, Faults, cut, number, own_name, sound, wheel
from .safety import entries, own_folder, shown

LAYOUT = "Udacity Challenge 2: interpolated.csv and center/, or CH2_final_evaluation.csv"
INTERPOLATED = {"timestamp", "filename", "angle", "torque", "speed"}
EVALUATION = {"frame_id", "steering_angle", "public"}
CAMERAS = {"center": "picture", "left": "picture_left", "right": "picture_right"}
PLACE = {"lat": "latitude_deg", "long": "longitude_deg", "alt": "altitude_m"}
NAMES = {"torque": "torque_nm", "speed": "speed_mps"} | PLACE
PLACES = ("", "frames/")
"""Where the cameras' folders are, seen from the CSV."""


@dataclass(frozen=True)
class Row:
    """A line that can be used; `picture` is None in a log without any."""

    camera: str
    time_s: float
    angle_rad: float
    picture: Path | None
    rest: dict[str, float]
    size: tuple[int, int] | None = None


def detect(path: Path) -> bool:
    return bool(_tables(path))


def read(path: Path) -> list[Record]:
    """A record a CSV file, cut where the center camera pauses for over a second; `picture` is that camera.

    Labels whose pictures are not there at all (the camera's folder is missing) are read without. UserError where
    over 5 % of the lines or their pictures are unreadable.
    """
    return [record for log in _tables(path) for record in _log(log)]


def _tables(path: Path) -> list[Path]:
    """The CSV files of this format, but no submission to the challenge: that is a model's, not the car's."""
    files = entries(path, "*.csv") if path.is_dir() else [path] * (path.suffix == ".csv")
    return [file for file in files if any(wanted <= set(header(file)) for wanted in (INTERPOLATED, EVALUATION))]


def _log(log: Path) -> list[Record]:
    faults = Faults(log)
    # By time, for each camera: the lines of one camera need not stand together.
    rows = sorted(_rows(log, faults), key=lambda row: (row.camera, row.time_s))
    faults.check(len(rows))
    cameras = {camera: list(found) for camera, found in groupby(rows, key=lambda row: row.camera)}
    if "center" not in cameras:
        raise UserError(f"{log}: no row is of the center camera, only of {', '.join(cameras)}")
    center = cameras["center"]
    streams: dict[str, Stream] = {}
    for camera in CAMERAS:
        pictures = [(row.time_s, row.picture) for row in cameras.get(camera, []) if row.picture]
        if pictures:
            clock = np.array([time_s for time_s, _ in pictures])
            streams[CAMERAS[camera]] = Stream(Frames([picture for _, picture in pictures]), clock)
    clock = np.array([row.time_s for row in center])
    angles = wheel(np.array([row.angle_rad for row in center]), WHEEL_RANGE_RAD)
    streams |= {name: Stream(value, clock) for name, value in angles.items()}
    for name in center[0].rest:
        streams[name] = sound(name, np.array([row.rest[name] for row in center]), clock, faults)
    about = {
        "format": "Udacity Challenge 2",
        "clock": "timestamp" if "timestamp" in header(log) else "frame_id",
        "steer_range_rad": WHEEL_RANGE_RAD,
        "sign": "angle_rad = angle in radians at the steering wheel, positive left",
        **faults.about(),
    }
    sessions = [row.size for row in center if row.picture] if "picture" in streams else None
    return cut(log.with_suffix(""), streams, about, sessions)


def _rows(log: Path, faults: Faults) -> Iterator[Row]:
    columns = header(log)
    folders = {camera: _folder(log.parent, camera) for camera in CAMERAS}
    for place, cells in read_table(log).rows(faults.add):
        try:
            row = _parse(cells, columns, folders)
            if row.picture:
                row = replace(row, size=shown(row.picture, log.parent))
        except ValueError as error:
            faults.add(place, error)
        else:
            yield row


def _folder(parent: Path, camera: str) -> Path | None:
    found = next((parent / place / camera for place in PLACES if (parent / place / camera).is_dir()), None)
    return found and own_folder(found, parent)


def _parse(cells: dict[str, str], columns: list[str], folders: dict[str, Path | None]) -> Row:
    if any("\0" in cell for cell in cells.values()):
        raise ValueError("holds NUL bytes")
    evaluation = "timestamp" not in columns
    camera = "center" if evaluation else cells.get("frame_id", "center_camera").removesuffix("_camera")
    if camera not in CAMERAS:
        raise ValueError(f"frame_id {camera[:40]!r} is not a camera")
    time_ns = cells["frame_id" if evaluation else "timestamp"]
    named = Path(own_name(cells.get("filename", ""))).stem
    if not time_ns.isdigit() and named.isdigit():
        time_ns = named  # A spreadsheet rounds such long numbers, but not the pictures' names.
    elif not time_ns.isdigit():
        raise ValueError(f"{time_ns[:40]!r} is not a whole number; spreadsheets round it: take the file before that")
    angle = number(float(cells["steering_angle" if evaluation else "angle"]), -WHEEL_RANGE_RAD, WHEEL_RANGE_RAD)
    folder = folders[camera]
    name = "" if evaluation else own_name(cells["filename"])
    rest = {NAMES[key]: number(float(cells[key])) for key in NAMES if key in cells}
    time_s = number(int(time_ns), 0, 2**63) / 1e9
    return Row(camera, time_s, angle, folder and _picture(folder, name or time_ns), rest)


def _picture(folder: Path, name: str) -> Path:
    if Path(name).suffix:
        return folder / name
    return next((folder / (name + end) for end in (".jpg", ".png") if (folder / (name + end)).exists()), folder / name)
