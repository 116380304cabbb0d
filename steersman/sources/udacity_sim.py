"""Udacity's self-driving car simulator: `driving_log.csv` beside a folder `IMG` of JPEGs.

Columns: center, left, right (pictures), steering, throttle, brake, speed; often without a header, the paths
those of the machine that recorded. `steering` is a fraction of 25 degrees at the front wheels, positive =
RIGHT, and becomes `steer`, positive = LEFT; `speed` is miles an hour and becomes `speed_mps`. The clock is in
the pictures' names, center_YYYY_MM_DD_HH_MM_SS_mmm.jpg.
"""

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .drives import Faults, number, own_name, rate_hz, records
from .safety import damage, own, own_folder

LOG = "driving_log.csv"
LAYOUT = "Udacity simulator: driving_log.csv and IMG/"
COLUMNS = ("center", "left", "right", "steering", "throttle", "brake", "speed")
SIDES = ("left", "right")
MPS_PER_MPH = 0.44704
STEER_RANGE_RAD = math.radians(25)


@dataclass(frozen=True)
class Row:
    """A line of the log that can be used."""

    time_s: float
    pictures: dict[str, Path]
    steer: float
    throttle: float
    brake: float
    speed_mps: float


def detect(path: Path) -> bool:
    return (path / LOG).is_file() or (path.name == LOG and path.is_file())


def read(path: Path) -> list[Record]:
    """A log, cut where it pauses for over a second. `picture` is the center camera; `picture_left` and
    `picture_right` are there if every row has them. UserError where over 5 % of the frames are unreadable.
    """
    folder = path.parent if path.name == LOG else path
    faults = Faults(folder / LOG)
    rows = list(_rows(folder, faults))
    faults.check(len(rows))
    sides = [s for s in SIDES if all(s in row.pictures and not damage(row.pictures[s]) for row in rows)]
    time_s = np.array([row.time_s for row in rows])
    about = {
        "format": "Udacity simulator",
        "rate_hz": rate_hz(time_s),
        "clock": "names of the pictures",
        "steer_range_rad": STEER_RANGE_RAD,
        "sign": "steer = -(steering): a fraction of 25 degrees at the front wheels, positive left",
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        kept = rows[part]
        numbers = ("steer", "throttle", "brake", "speed_mps")
        return (
            {"picture": Frames([row.pictures["center"] for row in kept])}
            | {name: np.array([getattr(row, name) for row in kept], np.float32) for name in numbers}
            | {f"picture_{side}": Frames([row.pictures[side] for row in kept]) for side in sides}
        )

    return records(folder, time_s, [None] * len(rows), streams, about)


def _rows(folder: Path, faults: Faults) -> Iterator[Row]:
    columns, images = list(COLUMNS), own_folder(folder / "IMG", folder)
    for place, line in enumerate(_lines(folder / LOG), 1):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line]), [])]
            if "steering" in cells:
                columns = _header(cells, folder / LOG)
                continue
            if len(cells) != len(columns):
                raise ValueError(f"has {len(cells)} cells, not {len(columns)}")
            row = _parse(dict(zip(columns, cells, strict=True)), images)
            if reason := damage(row.pictures["center"]):
                raise ValueError(f"{row.pictures['center'].name} is {reason}")
        except (ValueError, csv.Error) as error:
            faults.add(f"line {place}", error)
        else:
            yield row


def _header(cells: list[str], log: Path) -> list[str]:
    if missing := [name for name in COLUMNS if name not in cells]:
        raise UserError(f"{log}: its header has no {', '.join(missing)}; it needs {','.join(COLUMNS)}")
    return cells


def _lines(log: Path) -> list[str]:
    try:
        lines = own(log).read_bytes().decode("utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{log} can't be read: {error.strerror}") from error
    return [line for line in lines if line.strip()]


def _parse(cells: dict[str, str], images: Path) -> Row:
    if any("\0" in cell for cell in cells.values()):
        raise ValueError("holds NUL bytes")
    # Paths are those of another machine, often a Windows one: only the file's own name counts.
    names = {side: own_name(cells[side]) for side in ("center", *SIDES)}
    return Row(
        time_s=_time_s(names["center"]),
        pictures={side: images / name for side, name in names.items() if name},
        steer=0.0 - number(float(cells["steering"]), -1, 1),
        throttle=number(float(cells["throttle"])),
        brake=number(float(cells["brake"])),
        speed_mps=number(float(cells["speed"])) * MPS_PER_MPH,
    )


def _time_s(name: str) -> float:
    parts = re.search(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d{3})", name)
    if not parts:
        raise ValueError(f"{name[:60]!r} holds no time")
    year, month, day, hour, minute, second, milliseconds = map(int, parts.groups())
    return datetime(year, month, day, hour, minute, second, milliseconds * 1000, UTC).timestamp()
