"""DeepTesla and DeepPicar: a video a drive, beside a CSV with the wheel at each of its frames.

DeepTesla (selfdrivingcars.mit.edu): `epochNN_front.mkv`, `epochNN_steering.csv`; frames count from 0, `wheel` is
degrees at the steering wheel, positive = RIGHT. DeepPicar (github.com/heechul/picar): `out-video-N.avi`,
`out-key-N.csv`; frames count from 1, `wheel` is radians at the front wheels, positive = RIGHT, 30 degrees at full
lock. Both become `angle_rad` and `steer`, positive = LEFT. `ts_micro` is microseconds or, in some files,
milliseconds: the one that comes nearer to the video's own frame rate is taken.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.frames import Chosen
from ..data.records import Record
from ..errors import UserError
from .csv_tables import header, read_table
from .drives import WHEEL_RANGE_RAD, Faults, number, rate_hz, records, wheel
from .films import DEMUXERS, Film
from .safety import entries

LAYOUT = "DeepTesla or DeepPicar: epoch01_front.mkv and epoch01_steering.csv, or out-video-1.avi and out-key-1.csv"
UNITS_S = {"microseconds": 1e-6, "milliseconds": 1e-3}


@dataclass(frozen=True)
class Family:
    """How a project names its files and what its numbers mean."""

    format: str
    video: str
    table: str
    name: str
    first_frame: int
    rad_per_unit: float
    range_rad: float
    sign: str


FAMILIES = (
    Family(
        format="DeepTesla",
        video=r"epoch(\d+)_front",
        table="epoch{}_steering.csv",
        name="epoch{}",
        first_frame=0,
        rad_per_unit=math.radians(1),
        range_rad=WHEEL_RANGE_RAD,
        sign="angle_rad = -(wheel in degrees) at the steering wheel, positive left",
    ),
    Family(
        format="DeepPicar",
        video=r"out-video-(\d+)",
        table="out-key-{}.csv",
        name="drive{}",
        first_frame=1,
        rad_per_unit=1.0,
        range_rad=math.radians(30),
        sign="angle_rad = -(wheel in radians) at the front wheels, positive left",
    ),
)


@dataclass(frozen=True)
class Row:
    """A line of the CSV that can be used."""

    place: str
    ticks: float
    frame: int
    angle_rad: float


def detect(path: Path) -> bool:
    return bool(_drives(path))


def read(path: Path) -> list[Record]:
    """The drives of a folder, or the one of a video, cut where the clock pauses for over a second.

    UserError where over 5 % of a drive's frames are unreadable or lack their video.
    """
    return [record for family, video, log in _drives(path) for record in _drive(family, video, log)]


def _drives(path: Path) -> list[tuple[Family, Path, Path]]:
    """Videos that have their CSV beside them, with it, by number."""
    found = []
    for video in entries(path) if path.is_dir() else [path]:
        for family in FAMILIES:
            match = re.fullmatch(family.video, video.stem)
            if match and video.suffix.lower() in DEMUXERS and (log := _table(family, video, match[1])):
                found.append((family, video, log))
    return sorted(found, key=lambda drive: (drive[0].format, len(drive[1].stem), drive[1].name))


def _table(family: Family, video: Path, digits: str) -> Path | None:
    log = video.with_name(family.table.format(digits))
    return log if "ts_micro" in header(log) else None


def _drive(family: Family, video: Path, log: Path) -> list[Record]:
    film, faults = Film(video), Faults(log)
    rows = [row for row in _rows(family, log, faults) if _shown(row, film, faults)]
    faults.check(len(rows))
    ticks = np.array([row.ticks for row in rows])
    unit = _unit(ticks, film.fps)
    time_s = ticks * UNITS_S[unit]
    frames = np.array([row.frame for row in rows])
    about = {
        "format": family.format,
        "rate_hz": rate_hz(time_s),
        "clock": f"ts_micro, in {unit}",
        "steer_range_rad": family.range_rad,
        "sign": family.sign,
        "num_unlabelled": len(film) - len(np.unique(frames)),
        **faults.about(),
    }
    values = wheel(np.array([row.angle_rad for row in rows]), family.range_rad)

    def streams(part: slice) -> dict:
        return {"picture": Chosen(film, frames[part])} | {name: value[part] for name, value in values.items()}

    digits = re.findall(r"\d+", video.stem)[0]
    return records(video.with_name(family.name.format(digits)), time_s, [None] * len(rows), streams, about)


def _rows(family: Family, log: Path, faults: Faults) -> Iterator[Row]:
    columns = header(log)
    counter = next((name for name in ("frame", "frame_index") if name in columns), None)
    if counter is None or "wheel" not in columns:
        raise UserError(f"{log}: its header is {','.join(columns)[:80]}; it needs ts_micro,frame,wheel")
    limit = family.range_rad / family.rad_per_unit
    for place, cells in read_table(log).rows(faults.add):
        try:
            angle = number(float(cells["wheel"]), -limit - 1e-3, limit + 1e-3)
            frame = number(float(cells[counter]), family.first_frame, 2**40)
            if frame % 1:
                raise ValueError(f"{counter} {frame:g} is not a whole number")
            ticks = number(float(cells["ts_micro"]), 0, 2**53)
        except ValueError as error:
            faults.add(place, error)
        else:
            yield Row(place, ticks, int(frame) - family.first_frame, 0.0 - angle * family.rad_per_unit)


def _shown(row: Row, film: Film, faults: Faults) -> bool:
    if row.frame >= len(film):
        faults.add(row.place, f"{film.path.name} ends after {len(film)} frames")
    return row.frame < len(film)


def _unit(ticks: np.ndarray, fps: float) -> str:
    step = np.diff(ticks)
    if not (step > 0).any() or not fps:
        return "microseconds"
    usual = float(np.median(step[step > 0]))
    return min(UNITS_S, key=lambda unit: abs(math.log(usual * UNITS_S[unit] * fps)))
