"""AirSim's recordings of a car: `airsim_rec.txt`, a table parted by tabs, and its pictures in `images/`.

Format: microsoft.github.io/AirSim, "Recording data": TimeStamp (milliseconds since 1970), Steering, Throttle, Brake,
Speed (m/s), ImageFile, one or several with `;` between, of which the first that is a picture is taken; the older
`Speed (kmph)` and `ImageName` are known. Steering is a fraction of full lock, positive = RIGHT; it becomes `steer`,
positive = LEFT.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .csv_tables import Clock, header, read_table
from .drives import Faults, number, own_name, rate_hz, records
from .safety import MARKS, own_folder, shown

LOG = "airsim_rec.txt"
LAYOUT = "AirSim: airsim_rec.txt and images/"
PICTURES = ("imagefile", "imagename")
NUMBERS = {
    "throttle": ("throttle", 1.0),
    "brake": ("brake", 1.0),
    "speed": ("speed_mps", 1.0),
    "speed (kmph)": ("speed_mps", 1 / 3.6),
}
"""Streams and factors of columns."""


def detect(path: Path) -> bool:
    return "steering" in [column.lower() for column in header(_log(path))] and _log(path).name == LOG


def read(path: Path) -> list[Record]:
    """A record a vehicle, cut where it pauses for over a second. UserError where over 5 % of it can't be read."""
    log = _log(path)
    faults, images = Faults(log), own_folder(log.parent / "images", log.parent)
    table = read_table(log)
    table = replace(table, columns=tuple(column.lower() for column in table.columns))
    shot = next((name for name in PICTURES if name in table.columns), None)
    if shot is None or "timestamp" not in table.columns:
        raise UserError(f"{log}: its columns are {', '.join(table.columns)[:200]}; it needs TimeStamp and ImageFile")
    lines = list(table.rows(faults.add))
    clock = Clock("timestamp", [cells["timestamp"] for _, cells in lines])
    rows = []
    for place, cells in lines:
        try:
            rows.append(_row(cells, cells[shot], images, clock, faults))
        except ValueError as error:
            faults.add(place, error)
    faults.check(len(rows))
    rows.sort(key=lambda row: row["vehicle"])  # Their rows take turns.
    try:
        time_s, said = clock.seconds(np.array([row["tick"] for row in rows]))
    except ValueError as error:
        raise UserError(f"{log}: {error}") from error
    about = {
        "format": "AirSim",
        "rate_hz": rate_hz(time_s),
        "clock": said,
        "steer_range_rad": None,
        "sign": "steer = -(Steering): a fraction of full lock, positive left",
        **faults.about(),
    }
    names = ["steer", *dict.fromkeys(stream for column, (stream, _) in NUMBERS.items() if column in table.columns)]

    def streams(part: slice) -> dict:
        numbers = {name: np.array([row[name] for row in rows[part]], np.float32) for name in names}
        return {"picture": Frames([row["picture"] for row in rows[part]])} | numbers

    return records(log.parent, time_s, [(row["vehicle"], row["size"]) for row in rows], streams, about)


def _row(cells: Mapping[str, str], shots: str, images: Path, clock: Clock, faults: Faults) -> dict:
    names = [own_name(shot) for shot in shots.split(";")]
    picture = images / next((name for name in names if Path(name).suffix.lower() in MARKS), names[0])
    row = {"picture": picture, "size": shown(picture), "vehicle": cells.get("vehiclename", "")}
    row |= {"tick": clock.tick(cells["timestamp"]), "steer": 0.0 - faults.lock(number(float(cells["steering"])))}
    return row | {
        stream: number(float(cells[column])) * factor for column, (stream, factor) in NUMBERS.items() if column in cells
    }


def _log(path: Path) -> Path:
    return path / LOG if path.is_dir() else path
