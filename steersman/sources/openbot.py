"""OpenBot's sessions: `sensor_data/ctrlLog.txt` with the power of both sides, and `images/` of numbered pictures.

Format: github.com/ob-f/OpenBot, its app's logger: `rgbFrames.txt` (timestamp[ns], frame) says when `images/N.jpeg` or
`N_crop.jpeg` was taken, `ctrlLog.txt` (timestamp[ns], leftCtrl, rightCtrl) what was wished of the motors, from -255
to 255 or -1 to 1, and `indicatorLog.txt` (timestamp[ns], signal) which turn. A car of two driven sides turns left when
its right side is faster, so half their difference becomes `steer`, positive = LEFT, and their mean `throttle`.
"""

import re
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .csv_tables import Clock, read_table
from .drives import Faults, number, rate_hz, records
from .safety import entries, own_folder, shown

CONTROLS, FRAMES, SIGNALS = "ctrlLog.txt", "rgbFrames.txt", "indicatorLog.txt"
LAYOUT = "OpenBot: sensor_data/ctrlLog.txt and images/"
POWER = 255.0
"""What a motor is given at most, unless no number is over 1."""


def detect(path: Path) -> bool:
    return (path / "sensor_data" / CONTROLS).is_file() and (path / "images").is_dir()


def read(path: Path) -> list[Record]:
    """A session, cut where its pictures pause for over a second. UserError where over 5 % of them are unreadable."""
    folder, images = own_folder(path / "sensor_data", path), own_folder(path / "images", path)
    faults = Faults(path)
    control_s, control = _numbers(folder / CONTROLS, 2, faults)
    frame_s, frames = _numbers(folder / FRAMES, 1, faults)
    if not len(control):
        raise UserError(f"{folder / CONTROLS} says nothing of the motors; leave the session out")
    control = control / (POWER if np.abs(control).max() > 1 else 1.0)
    pictures = {match[1]: file for file in entries(images) if (match := re.match(r"0*(\d+)(?!\d)", file.stem))}
    known = np.searchsorted(control_s, frame_s, side="right") - 1
    rows, early = [], 0
    for time_s, frame, last in zip(frame_s.tolist(), frames[:, 0].tolist(), known.tolist(), strict=True):
        name = f"{frame:g}"
        try:
            if last < 0:
                early += 1
            elif name not in pictures:
                raise ValueError("its picture is missing")
            else:
                rows.append((time_s, pictures[name], shown(pictures[name]), last))
        except ValueError as error:
            faults.add(f"{FRAMES}, frame {name}", error)
    faults.check(len(rows))
    time_s = np.array([row[0] for row in rows])
    left, right = control[[row[3] for row in rows]].T
    values = {"steer": (right - left) / 2, "throttle": (right + left) / 2}
    if (folder / SIGNALS).is_file():
        signal_s, signals = _numbers(folder / SIGNALS, 1, faults)
        at = np.searchsorted(signal_s, time_s, side="right") - 1
        values["command"] = np.where(at >= 0, signals[np.maximum(at, 0), 0], 0) if len(signals) else 0 * time_s
    about = {
        "format": "OpenBot",
        "rate_hz": rate_hz(time_s),
        "clock": f"{FRAMES}, nanoseconds",
        "steer_range_rad": None,
        "sign": "steer = half of the right side's power less the left's, positive left",
        "num_unlabelled": early,
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        numbers = {name: (value[part] + 0.0).astype(np.float32) for name, value in values.items()}
        return {"picture": Frames([row[1] for row in rows[part]])} | numbers

    return records(path, time_s, [row[2] for row in rows], streams, about)


def _numbers(file: Path, num: int, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of a file's rows, ascending, and `num` numbers of each (row num)."""
    table = read_table(file)
    if len(table.columns) <= num:
        raise UserError(f"{file}: its columns are {', '.join(table.columns)[:200]}; it needs a time and {num} more")
    clock = Clock("time_ns", [])
    found = []
    for place, cells in table.rows(faults.add):
        try:
            time, *rest = list(cells.values())[: 1 + num]
            found.append([clock.tick(time), *(number(float(cell), -POWER * 1e9, POWER * 1e9) for cell in rest)])
        except ValueError as error:
            faults.add(place, error)
    rows = np.array(found).reshape(-1, 1 + num)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return clock.seconds(rows[:, 0])[0], rows[:, 1:]
