"""SullyChen's driving datasets: `data.txt` with a picture and the wheel's angle a line, the pictures beside it.

Format (github.com/SullyChen/driving-datasets): `0.jpg 12.3,2018-07-01 17:09:44:912`, the time in later sets only; the
pictures in the same folder or in `data/`. The angle is degrees at the steering wheel, positive = RIGHT (run.py of
Autopilot-TensorFlow turns its picture of the wheel clockwise by it). It becomes `angle_rad` and `steer`, positive =
LEFT.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from .csv_tables import Clock
from .drives import WHEEL_RANGE_RAD, Faults, number, own_name, rate_hz, records, wheel
from .safety import head, own, own_folder, shown

LOG = "data.txt"
LAYOUT = "SullyChen's: data.txt and its pictures"
OPTIONS = ("rate",)
RATE_HZ = 30.0
"""Rate of the sets without times."""
LINE = re.compile(r"\s*(\S+\.(?:jpe?g|png))[\s,]+(\S+?)(?:,\s*(.*?))?\s*", re.IGNORECASE)
LIMIT_DEG = math.degrees(WHEEL_RANGE_RAD)


def detect(path: Path) -> bool:
    log = _log(path)
    first = head(log, 1000).split(b"\n")[0] if log.name == LOG else b""
    return bool(LINE.fullmatch(first.decode(errors="replace")))


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """The drive, cut where it pauses for over a second or its pictures change their size.

    UserError where over 5 % of the frames are unreadable.
    """
    log = _log(path)
    faults = Faults(log)
    pictures = log.parent / "data" if (log.parent / "data").is_dir() else log.parent
    own_folder(pictures, log.parent)
    parsed = []
    for place, line in enumerate(own(log).read_bytes().decode(errors="replace").splitlines()):
        if not line.strip():
            continue
        if found := LINE.fullmatch(line):
            parsed.append((place, *found.groups()))
        else:
            faults.add(f"line {place + 1}", "is not a picture and an angle")
    clock = Clock("time", [stamp or "" for *_, stamp in parsed])
    timed = "rate" not in given and any(stamp for *_, stamp in parsed)
    rows = []
    for place, name, angle, stamp in parsed:
        try:
            picture = pictures / own_name(name)
            angle_deg = number(float(angle), -LIMIT_DEG, LIMIT_DEG)
            rows.append((place, picture, shown(picture), angle_deg, clock.tick(stamp or "") if timed else 0.0))
        except ValueError as error:
            faults.add(f"line {place + 1}", error)
    faults.check(len(rows))
    if timed:
        time_s, said = clock.seconds(np.array([row[4] for row in rows]))
    else:
        rate, why = number(float(given.get("rate", RATE_HZ)), 1e-3, 1e4), "it has no time stamps"
        said = f"{rate:g} frames a second, as named" if "rate" in given else f"the nominal {rate:g} Hz ({why})"
        time_s = np.array([row[0] for row in rows]) / rate
    values = wheel(-np.radians([row[3] for row in rows]), WHEEL_RANGE_RAD)
    about = {
        "format": "SullyChen's",
        "rate_hz": rate_hz(time_s),
        "clock": said,
        "steer_range_rad": WHEEL_RANGE_RAD,
        "sign": "angle_rad = -(degrees at the steering wheel), positive left",
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        return {"picture": Frames([row[1] for row in rows[part]])} | {k: v[part] for k, v in values.items()}

    return records(log.parent, time_s, [row[2] for row in rows], streams, about)


def _log(path: Path) -> Path:
    return path / LOG if path.is_dir() else path
