"""Udacity's self-driving car simulator: `driving_log.csv` beside a folder `IMG` of JPEGs.

Columns: center, left, right (pictures), steering, throttle, brake, speed; often without a header, the paths
those of the machine that recorded. With a header only center and steering must be there. `steering` is a fraction of
25 degrees at the front wheels, positive = RIGHT, and becomes `steer`, positive = LEFT; `speed` is miles an hour and
becomes `speed_mps`. The clock is in the pictures' names, center_YYYY_MM_DD_HH_MM_SS_mmm.jpg; of pictures that were
renamed the rate must be named, `LOG?rate=10`.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .csv_tables import Table, header, read_table
from .drives import Faults, number, own_name, rate_hz, records
from .safety import own_folder, shown

LOG = "driving_log.csv"
LAYOUT = "Udacity simulator: driving_log.csv and IMG/"
COLUMNS = ("center", "left", "right", "steering", "throttle", "brake", "speed")
SIDES = ("left", "right")
NUMBERS = ("throttle", "brake", "speed")
NEEDED = ("center", "steering")
LIMITS = {"steering": (-1.001, 1.001), "throttle": (-1.0, 1.0), "brake": (0.0, 1.0)}
OPTIONS = ("rate",)
MPS_PER_MPH = 0.44704
STEER_RANGE_RAD = math.radians(25)


@dataclass(frozen=True)
class Row:
    """A line of the log that can be used."""

    order: int
    time_s: float
    pictures: dict[str, Path]
    sizes: tuple[tuple[int, int] | None, ...]
    steer: float
    numbers: dict[str, float]


def detect(path: Path) -> bool:
    """Whether the log's own name is there, and no header that is another recorder's."""
    log = path if path.name == LOG else path / LOG
    if not log.is_file():
        return False
    columns = [column.lower() for column in header(log)]
    named = any(column.startswith(("steer", "angle")) for column in columns)
    return not named or set(NEEDED) <= set(columns)


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A log, cut where it pauses for over a second. `picture` is the center camera; `picture_left` and
    `picture_right` are there if every row has them. UserError where over 5 % of the frames are unreadable.
    """
    folder = path.parent if path.name == LOG else path
    faults = Faults(folder / LOG)
    rows = list(_rows(folder, faults, "rate" in given))
    faults.check(len(rows))
    sides = [side for side in SIDES if all(side in row.pictures for row in rows)]
    time_s, clock = _clock(folder / LOG, rows, given)
    shared = [name for name in NUMBERS if all(name in row.numbers for row in rows)]
    about = {
        "format": "Udacity simulator",
        "rate_hz": rate_hz(time_s),
        "clock": clock,
        "steer_range_rad": STEER_RANGE_RAD,
        "sign": "steer = -(steering): a fraction of 25 degrees at the front wheels, positive left",
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        kept = rows[part]
        values = {"picture": Frames([row.pictures["center"] for row in kept])}
        values |= {"steer": np.array([row.steer for row in kept], np.float32)}
        for name in shared:
            value = np.array([row.numbers[name] for row in kept], np.float64)
            speed = name == "speed"
            values["speed_mps" if speed else name] = (value * (MPS_PER_MPH if speed else 1.0)).astype(np.float32)
        return values | {f"picture_{side}": Frames([row.pictures[side] for row in kept]) for side in sides}

    return records(folder, time_s, [row.sizes[: 1 + len(sides)] for row in rows], streams, about)


def _rows(folder: Path, faults: Faults, timed: bool) -> Iterator[Row]:
    log, images = _log(folder / LOG), own_folder(folder / "IMG", folder)

    def bad(place: str, what: object) -> None:
        faults.add(place.removeprefix(f"{LOG} "), what)

    good = 0
    for place, cells in log.rows(bad, LIMITS):
        try:
            order = good + len(faults.found)  # A line that is bad keeps its place.
            yield _parse(cells, images, order, faults, timed)
            good += 1
        except ValueError as error:
            bad(place, error)


def _log(path: Path) -> Table:
    """The table, its columns in small letters."""
    columns = [column.lower() for column in header(path)]
    log = read_table(path, () if "steering" in columns else COLUMNS)
    columns = tuple(column.lower() for column in log.columns)
    if missing := [name for name in NEEDED if name not in columns]:
        raise UserError(f"{path}: its header has no {', '.join(missing)}; it needs {','.join(COLUMNS)}")
    return replace(log, columns=columns)


def _parse(cells: dict[str, str], images: Path, order: int, faults: Faults, timed: bool) -> Row:
    if any("\0" in cell for cell in cells.values()):
        raise ValueError("holds NUL bytes")
    # Paths are those of another machine, often a Windows one: only the file's own name counts.
    center = images / own_name(cells["center"])
    time_s = 0.0 if timed else _time_s(center.name)
    steer = 0.0 - faults.lock(number(float(cells["steering"])))
    numbers = {name: number(float(cells[name])) for name in NUMBERS if name in cells}
    pictures, sizes = {"center": center}, [shown(center)]
    for side in SIDES:
        if name := own_name(cells.get(side, "")):
            try:
                sizes.append(shown(images / name))
                pictures[side] = images / name
            except ValueError:
                pass  # A side that not every row has is left out.
    return Row(order, time_s, pictures, tuple(sizes), steer, numbers)


def _clock(log: Path, rows: list[Row], given: Mapping[str, str]) -> tuple[np.ndarray, str]:
    """Seconds, and where they come from."""
    if "rate" not in given:
        return np.array([row.time_s for row in rows]), "names of the pictures"
    try:
        rate = number(float(given["rate"]), 1e-3, 1e4)
    except ValueError as error:
        raise UserError(f"{log}: rate={given['rate']}: {error}") from error
    return np.array([row.order for row in rows]) / rate, f"{rate:g} frames a second, as named"


def _time_s(name: str) -> float:
    parts = re.search(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d{3})", name)
    if not parts:
        raise ValueError(f"{name[:60]!r} holds no time; name the rate with LOG?rate=10")
    year, month, day, hour, minute, second, milliseconds = map(int, parts.groups())
    return datetime(year, month, day, hour, minute, second, milliseconds * 1000, UTC).timestamp()
