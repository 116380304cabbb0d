"""Drives of no known format: a CSV with a steering angle a line, and beside it the pictures it names, or one video.

Columns are found by their usual names, the pictures' also by what it holds, or named: `LOG?steer=COLUMN&unit=deg`. A
clock may be of dates; the unit of a clock of numbers is in its column's name or is the one that gives 1 to 200 frames a
second. An angle's unit is in its column's name; else up to 1 it is a fraction of full lock, above 25 degrees at the
steering wheel, and in between it must be named. It becomes `steer` (of degrees and radians also `angle_rad`), positive
= LEFT: a file doesn't tell the sign, so positive is taken for left unless `sign=right` is named.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.frames import Chosen, Frames
from ..data.records import Record
from ..errors import UserError
from ..json_types import JsonObject
from .csv_tables import Clock, Table, header, read_table
from .drives import OVER, WHEEL_RANGE_RAD, Faults, number, own_name, rate_hz, records, wheel
from .films import DEMUXERS, Film, numbered_from
from .safety import MARKS, entries, shown, within

LAYOUT = "frames or a video: a .csv with a steering column, and the pictures it names or one video beside it"
NAMES = {
    "picture": ("picture", "image", "img", "filename", "file", "image_path", "img_path", "frame_path", "path",
                "image_name", "image_file", "cam/image_array", "center"),
    "steer": ("steer", "steering", "steering_angle", "angle", "wheel", "steer_angle", "user/angle", "steer_rad",
              "angle_rad", "steering_angle_rad", "steer_deg", "angle_deg", "steering_angle_deg", "steering_deg"),
    "time": ("time_s", "time", "timestamp", "t", "ts", "time_ms", "timestamp_ms", "ts_ms", "time_us", "timestamp_us",
             "ts_micro", "time_ns", "timestamp_ns", "ts_ns", "seconds"),
    "frame": ("frame", "frame_index", "frame_id", "frame_number", "index"),
}  # fmt: skip
"""Columns by what they hold, the likeliest first; capitals don't count."""
TABLES = (".csv", ".tsv")
OPTIONS = (*NAMES, "unit", "sign", "range_deg", "rate", "first")
BESIDE = ("throttle", "brake", "speed_mps")
"""Columns that are read as they stand where they hold numbers."""
FRACTION, DEGREES = 1.0, 25.0
"""The largest fraction of full lock, and the angle above which a number must be degrees."""
UNITS = {"fraction": None, "rad": 1.0, "deg": math.radians(1)}
FIRST = 20
"""Rows that tell whether a column names pictures."""
DEEP = 2
"""Levels of folders below the CSV's in which pictures are looked for."""


@dataclass(frozen=True)
class Columns:
    """What a table's columns are called; "" where there is none."""

    steer: str
    picture: str
    time: str
    frame: str


def detect(path: Path) -> bool:
    return named(path, {})


def named(path: Path, given: Mapping[str, str]) -> bool:
    """Whether a drive is here if its columns are called as given."""
    return any(_found(log, given).steer and _has_pictures(log, given) for log in _tables(path) if _fits(log, given))


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A drive for each table of the folder, or that of the one given, cut where its clock pauses for over a second.

    UserError where a column, unit or clock isn't clear, or over 5 % of the frames are unreadable.
    """
    for name, known in (("unit", tuple(UNITS)), ("sign", ("left", "right"))):
        if given.get(name, known[0]) not in known:
            raise UserError(f"{path}: {name}={given[name]} is none of {', '.join(known)}")
    logs = [log for log in _tables(path) if _found(log, given).steer]
    return [record for log in logs for record in _drive(log, given)]


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        return [child for child in entries(path) if child.suffix.lower() in TABLES]
    return [path] if path.suffix.lower() in TABLES else []


def _has_pictures(log: Path, given: Mapping[str, str]) -> bool:
    return bool(_video(log)) or (bool(_found(log, given).picture) and any(True for _ in _pictures(log.parent)))


def _fits(log: Path, given: Mapping[str, str]) -> bool:
    return {given[what] for what in NAMES if what in given} <= set(header(log))


def _found(log: Path, given: Mapping[str, str]) -> Columns:
    """Columns of a table by what they hold; UserError where one is named that isn't there."""
    columns = header(log)
    low = {column.lower(): column for column in reversed(columns)}
    found = {}
    for what, names in NAMES.items():
        if what in given:
            if given[what] not in columns:
                there = ", ".join(columns)[:200] or "none"
                raise UserError(f"{log}: {what}={given[what]} is not a column; there are {there}")
            found[what] = given[what]
        else:
            found[what] = next((low[name] for name in names if name in low), "")
    if not found["picture"] and found["steer"]:
        found["picture"] = _of_pictures(log)
    return Columns(**found)


def _of_pictures(log: Path) -> str:
    """The first column that names pictures in the first rows."""
    first = [cells for _, cells in islice(read_table(log).rows(lambda *_: None), FIRST)]
    columns = first[0] if first else {}
    return next((name for name in columns if all(_is_picture(cells[name]) for cells in first)), "")


def _is_picture(cell: str) -> bool:
    return PurePosixPath(own_name(cell)).suffix.lower() in MARKS


def _video(log: Path) -> Path | None:
    """The video of the same name, or the only one of the folder."""
    videos = [child for child in entries(log.parent) if child.suffix.lower() in DEMUXERS]
    same = [video for video in videos if video.stem == log.stem]
    return (same or (videos if len(videos) == 1 else [None]))[0]


def _pictures(folder: Path) -> Iterator[Path]:
    return (file for file in within(folder, DEEP) if file.suffix.lower() in MARKS)


def _drive(log: Path, given: Mapping[str, str]) -> list[Record]:
    columns, faults = _found(log, given), Faults(log)
    if "rate" in given:
        columns = replace(columns, time="")  # A rate that is named is the clock.
    film, place, video = None, None, _video(log)
    if columns.picture and (video is None or any(True for _ in _pictures(log.parent))):
        place = _places(log.parent)
    else:
        if video is None:
            raise UserError(
                f"{log}: no column names pictures and there is not one video beside it; "
                f"its columns are {', '.join(header(log))[:200]}; name one with {log}?picture=COLUMN"
            )
        film = Film(video)
    rows: list[JsonObject] = []
    named: list[int] = []  # Frames, also of lines that are bad.
    lines = list(_numbered(read_table(log), faults))
    clock = Clock(columns.time, [cells[columns.time] for _, _, cells in lines]) if columns.time else None
    for order, where, cells in lines:
        try:
            if film is not None:
                named.append(_whole(cells[columns.frame]) if columns.frame else order)
            row = {"steer": number(float(cells[columns.steer])), "order": order, "where": where}
            row |= {"time": clock.tick(cells[columns.time])} if clock else {}
            row |= {name: _number(cells[name]) for name in BESIDE if name in cells}
            if place is not None:
                row["picture"], row["size"] = place(cells[columns.picture])
            elif film is not None:
                row["frame"] = named[-1]
        except ValueError as error:
            faults.add(where, error)
        else:
            rows.append(row)
    counted = ""
    if film is not None:
        rows, counted = _in_film(log, rows, named, film, faults, given.get("first") if columns.frame else "0")
    faults.check(len(rows))
    time_s, said = _clock(log, clock, rows, film, given)
    said += counted and f"; {counted}"
    values, told = _angles(log, columns, rows, faults, given)
    values |= {
        name: np.array([row[name] for row in rows], np.float32)
        for name in BESIDE
        if name in rows[0] and all(math.isfinite(row[name]) for row in rows)
    }
    about = {"format": "frames and a CSV" if film is None else "a video and a CSV", "rate_hz": rate_hz(time_s)}
    skipped = sorted(set(header(log)) - set(asdict(columns).values()) - (set(BESIDE) & set(values)) - {""})
    about |= {"clock": said, **told, "skipped": skipped, **faults.about()}

    def streams(part: slice) -> dict:
        kept = rows[part]
        shown = [row["picture" if film is None else "frame"] for row in kept]
        pictures = Frames(shown) if film is None else Chosen(film, np.array(shown))
        return {"picture": pictures} | {name: value[part] for name, value in values.items()}

    several = len(_tables(log.parent)) > 1
    sizes = [row.get("size") for row in rows]
    return records(log.with_suffix("") if several else log.parent, time_s, sizes, streams, about)


def _numbered(log: Table, faults: Faults) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Rows with their number; a line that is bad keeps its place."""
    for good, (where, cells) in enumerate(log.rows(faults.add)):
        yield good + len(faults.found), where, cells


def _in_film(
    log: Path, rows: list[JsonObject], named: list[int], film: Film, faults: Faults, given: str | None
) -> tuple[list[JsonObject], str]:
    """The rows whose frames the film has, counted from 0, and what is said of how they were counted."""
    try:
        first, told = numbered_from(named, len(film), given)
    except ValueError as error:
        raise UserError(f"{log}: {error}") from error
    found = [row | {"frame": row["frame"] - first} for row in rows]
    for row in found:
        if row["frame"] >= len(film):
            faults.add(row["where"], f"{film.path.name} ends after {len(film)} frames")
    return [row for row in found if 0 <= row["frame"] < len(film)], told


def _number(cell: str) -> float:
    try:
        return number(float(cell))
    except ValueError:
        return math.nan


def _whole(cell: str) -> int:
    if not (value := number(float(cell), 0, 2**40)).is_integer():
        raise ValueError(f"{cell[:40]!r} is not the number of a frame")
    return int(value)


def _places(folder: Path) -> Callable[[str], tuple[Path, tuple[int, int] | None]]:
    """Finds a picture, and its size, by what a cell says: its place below the folder, else its name alone, if that is
    no other's.
    """
    by_name: dict[str, list[Path]] = {}
    by_place: dict[str, Path] = {}
    for path in _pictures(folder):
        by_name.setdefault(path.name, []).append(path)
        by_place[path.relative_to(folder).as_posix()] = path

    def place(cell: str) -> tuple[Path, tuple[int, int] | None]:
        inside = by_place.get(PurePosixPath(cell.replace("\\", "/")).as_posix())
        found = [inside] if inside else by_name.get(own_name(cell), [])
        if len(found) != 1:
            raise ValueError(f"{cell[:80]!r} is {'missing' if not found else f'the name of {len(found)} pictures'}")
        return found[0], shown(found[0], folder)

    return place


def _clock(
    log: Path, clock: Clock | None, rows: list, film: Film | None, given: Mapping[str, str]
) -> tuple[np.ndarray, str]:
    """Seconds of the rows, and where they come from."""
    if clock:
        try:
            return clock.seconds(np.array([row["time"] for row in rows]))
        except ValueError as error:
            raise UserError(
                f"{log}: {error}; name another column with {log}?time=COLUMN, or the frame rate with {log}?rate=20"
            ) from error
    try:
        rate = number(float(given["rate"]), 1e-3, 1e4) if "rate" in given else film.fps if film else 0.0
    except ValueError as error:
        raise UserError(f"{log}: rate={given['rate']}: {error}") from error
    if not rate:
        raise UserError(f"{log} has no clock among its columns; name its frame rate with {log}?rate=20")
    if film and "rate" not in given and (times_s := film.time_s) is not None:
        return times_s[[row["frame"] for row in rows]], "the times of the video's own pictures, whose rate varies"
    order = np.array([row["frame" if film else "order"] for row in rows], float)
    return order / rate, f"{rate:g} frames a second, as {'named' if 'rate' in given else 'its video says'}"


def _angles(
    log: Path, columns: Columns, rows: list, faults: Faults, given: Mapping[str, str]
) -> tuple[dict, JsonObject]:
    """`steer`, maybe `angle_rad`, and what is told of them."""
    angles = np.array([row["steer"] for row in rows])
    low, largest = columns.steer.lower(), float(np.abs(angles).max())
    reach = f"{columns.steer} goes up to {largest:g} ({rows[int(np.abs(angles).argmax())]['where']})"
    named = given.get("unit") or next((unit for unit in ("rad", "deg") if low.endswith(f"_{unit}")), None)
    unit = named or ("fraction" if largest <= FRACTION + OVER else "deg" if largest > DEGREES else "")
    if not unit:
        raise UserError(
            f"{log}: {reach}, which may be radians or degrees; name its unit with {log}?unit=rad or unit=deg"
        )
    range_rad = WHEEL_RANGE_RAD
    try:
        if "range_deg" in given:
            range_rad = math.radians(number(float(given["range_deg"]), 1e-3, 1e5))
    except ValueError as error:
        raise UserError(f"{log}: range_deg={given['range_deg']}: {error}") from error
    limit = 1.0 if unit == "fraction" else range_rad
    signed = np.where(angles == 0, 0.0, angles * (-1.0 if given.get("sign") == "right" else 1.0) * (UNITS[unit] or 1.0))
    if np.abs(signed).max() > limit * (1 + OVER):
        raise UserError(f"{log}: {reach}, over full lock; name unit and range_deg")
    faults.clipped += (signed[np.abs(signed) > limit] / limit).tolist()
    signed = np.clip(signed, -limit, limit)
    values = {"steer": signed.astype(np.float32)} if unit == "fraction" else wheel(signed, range_rad)
    sign = "as named" if "sign" in given else "taken for granted: the file does not tell"
    told = f"{columns.steer} in {unit}, {'by its name' if named else f'as it goes up to {largest:g}'}; sign {sign}"
    return values, {"steer_range_rad": None if unit == "fraction" else range_rad, "sign": told}
