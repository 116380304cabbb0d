"""donkeycar tubs: `catalog_N.catalog` files of JSON lines beside a folder `images` of JPEGs; or, in the older
version 1, a file `record_N.json` a frame and its JPEG beside it.

Format: donkeycar/parts/tub_v2.py and, up to release 3.1, donkeycar/parts/datastore.py of github.com/autorope/donkeycar.
The `user/angle` of both (`user/steering` of some releases) is a fraction of full lock, positive = RIGHT; it becomes
`steer`, positive = LEFT. While the car's pilot drove it is what an idle joystick says, so `pilot/angle` is taken then.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .drives import OVER, Faults, number, rate_hz, records
from .safety import entries, own, own_folder, shown

RATE_HZ = 20.0
"""Rate of donkeycar's loop, unless its owner changed it."""
MOST_HZ = 100.0
"""Fastest time stamps: faster ones were not made while driving (a conversion writes some)."""
LAYOUT = "donkeycar tub: catalog_0.catalog and images/, or of version 1 record_1.json and its JPEG"
PICTURE, STEER, PILOT = "cam/image_array", ("user/angle", "user/steering"), ("pilot/angle", "pilot/steering")
NAMES = {"user/throttle": "throttle"} | dict.fromkeys(PILOT, "pilot_steer")
OPTIONS = ("picture", "steer", "mode")
PILOTED = ("local", "pilot", "auto")
"""What the names of modes begin with in which the car's pilot steers."""
OWN_THROTTLE = "local_angle"
"""The one of them in which its driver gives the throttle."""


@dataclass(frozen=True)
class Row:
    """A frame that can be used."""

    index: int
    session: str | None
    time_ms: float | None
    picture: Path
    size: tuple[int, int] | None
    steer: float
    mode: str
    rest: dict[str, float]


def detect(path: Path) -> bool:
    return path.is_dir() and (bool(_catalogs(path)) or next(_first_version(path), None) is not None)


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A tub without its deleted frames, cut where a session or a size of its pictures ends or over a second is missing.

    Keys of the picture and the angle may be given, and the `mode` of the frames that are wanted. UserError where over
    5 % of its frames are unreadable.
    """
    faults = Faults(path)
    second = bool(_catalogs(path))
    lines, pictures = (_lines(path), path / "images") if second else (_files(path), path)
    deleted = _deleted(path, faults) if second else _excluded(path, faults)
    rows = list(_rows(lines, own_folder(pictures, path), deleted, faults, given))
    faults.check(len(rows))
    modes = dict(Counter(row.mode for row in rows))
    rows = _of_mode(path, rows, given["mode"], faults) if "mode" in given else rows
    rows = rows if "steer" in given else _as_driven(path, rows, faults)
    time_s, rate, clock = _clock(rows)
    shared = set.intersection(*(set(row.rest) for row in rows)) - {"picture", "steer"}
    about = {
        "format": f"donkeycar tub v{1 + second}",
        "rate_hz": rate,
        "clock": clock,
        "steer_range_rad": None,
        "sign": f"steer = -({given.get('steer', STEER[0])}): a fraction of full lock, positive left",
        "modes": modes,
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        kept = rows[part]
        values = {"picture": Frames([row.picture for row in kept])}
        values |= {"steer": _float32([row.steer for row in kept])}
        return values | {name: _float32([row.rest[name] for row in kept]) for name in sorted(shared)}

    return records(path, time_s, [(row.session, row.size) for row in rows], streams, about)


def _of_mode(path: Path, rows: Sequence[Row], wanted: str, faults: Faults) -> list[Row]:
    kept = [row for row in rows if row.mode in wanted.split(",")]
    if not kept:
        modes = ", ".join(sorted({row.mode for row in rows}))
        raise UserError(f"{path}: no frame is of mode {wanted}; its modes are {modes}")
    faults.notes += [f"{len(rows) - len(kept)} of {len(rows)} frames are of other modes than {wanted}"] * (kept != rows)
    return kept


def _as_driven(path: Path, rows: Sequence[Row], faults: Faults) -> list[Row]:
    """The rows with what was on the car; those in which the pilot drove and it isn't known are left out."""
    found, piloted, lost = [], 0, 0
    for row in rows:
        if not row.mode.startswith(PILOTED):
            found.append(row)
        elif "pilot_steer" not in row.rest or not abs(row.rest["pilot_steer"]) <= 1 + OVER:
            lost += 1
        else:
            rest = dict(row.rest)
            if row.mode != OWN_THROTTLE and "pilot_throttle" in rest:
                rest["throttle"] = rest["pilot_throttle"]
            found.append(replace(row, steer=faults.lock(rest["pilot_steer"]), rest=rest))
            piloted += 1
    if piloted:
        faults.notes.append(
            f"in {piloted} of {len(rows)} frames the pilot drove: their steer is what it put on the car"
        )
    if lost:
        why = f"in {lost} of {len(rows)} frames the pilot drove and its angle is not known: they were left out"
        if not found:
            raise UserError(f"{path}: {why}, and no frame is left; record with the pilot's angle, or drive yourself")
        faults.notes.append(why)
    return found


def _float32(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def _catalogs(path: Path) -> list[Path]:
    return sorted(entries(path, "*.catalog"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def _first_version(path: Path) -> Iterator[tuple[int, Path]]:
    """Numbers and files of a tub of version 1."""
    for file in path.glob("record_*.json"):
        if number := re.fullmatch(r"record_(\d{1,15})", file.stem):
            yield int(number[1]), file


def _lines(path: Path) -> Iterator[tuple[str, bytes, dict]]:
    """Where a frame is told of, and what is said there; version 2."""
    for catalog in _catalogs(path):
        for place, line in enumerate(_content(catalog).split(b"\n"), 1):
            if line.strip():
                yield f"{catalog.name} line {place}", line, {}


def _files(path: Path) -> Iterator[tuple[str, bytes, dict]]:
    """The same of version 1, whose frames are numbered by their files' names alone."""
    for index, file in sorted(_first_version(path)):
        yield file.name, _content(file), {"_index": index}


def _rows(
    lines: Iterator[tuple[str, bytes, dict]], pictures: Path, deleted: set, faults: Faults, given: Mapping[str, str]
) -> Iterator[Row]:
    for where, line, known in lines:
        try:
            row = _fields(line, known)
            index = int(number(row["_index"], 0, 2**53))
            if index in deleted:
                continue
            yield _parse(row, index, pictures, faults, given)
        except (ValueError, RecursionError) as error:
            faults.add(where, error)


def _content(path: Path) -> bytes:
    try:
        return own(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def _fields(line: bytes, known: dict) -> dict:
    if b"\0" in line:
        raise ValueError("holds NUL bytes")
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError("is cut short or not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("is not an object")
    row |= known
    if "_index" not in row:
        raise ValueError("has no '_index'")
    return row


def _parse(row: dict, index: int, pictures: Path, faults: Faults, given: Mapping[str, str]) -> Row:
    shot = given.get("picture", PICTURE)
    steer = given.get("steer") or next((key for key in STEER if key in row), STEER[0])
    for key in (shot, steer):
        if key not in row:
            raise ValueError(f"has no {key!r}; its keys are {', '.join(map(str, row))[:200]}")
    if not isinstance(row[shot], str):
        raise ValueError(f"{shot} is not a file name")
    session, clock = row.get("_session_id"), "_timestamp_ms" if "_timestamp_ms" in row else "milliseconds"
    picture = pictures / Path(row[shot]).name
    return Row(
        index=index,
        session=None if session is None else str(session),
        time_ms=number(row[clock], 0, 2**53) if clock in row else None,
        picture=picture,
        size=shown(picture),
        steer=0.0 - faults.lock(row[steer]),
        mode=str(row.get("user/mode")),
        rest=dict(_rest(row)),
    )


def _rest(row: dict[str, object]) -> Iterator[tuple[str, float]]:
    """All other numbers of a line; what the car's own pilot steered is turned positive = LEFT as well."""
    for key, value in row.items():
        if key.startswith("_") or key in (*STEER, "milliseconds"):
            continue
        try:
            value = number(value)
        except ValueError:
            continue
        name = NAMES.get(key, str(key).replace("/", "_"))
        yield name, 0.0 - value if name == "pilot_steer" else value


def _deleted(path: Path, faults: Faults) -> set:
    """Indexes of the frames that the owner struck out: the last line of the manifest."""
    manifest = path / "manifest.json"
    if not manifest.exists():
        return set()
    try:
        return set(json.loads(_content(manifest).strip().split(b"\n")[-1])["deleted_indexes"])
    except (ValueError, TypeError, KeyError, RecursionError):
        faults.add(manifest.name, "unreadable, so frames that were deleted are not known")
        return set()


def _excluded(path: Path, faults: Faults) -> set:
    """The same of version 1: numbers of records in a file of their own."""
    file = path / "exclude.json"
    if not file.exists():
        return set()
    try:
        return set(json.loads(_content(file)))
    except (ValueError, TypeError, RecursionError):
        faults.add(file.name, "unreadable, so frames that were struck out are not known")
        return set()


def _clock(rows: Sequence[Row]) -> tuple[np.ndarray, float | None, str]:
    """Seconds, rate and where they come from."""
    time_s = np.array([np.nan if row.time_ms is None else row.time_ms for row in rows]) / 1000
    rate = None if np.isnan(time_s).any() else rate_hz(time_s)
    if rate and rate < MOST_HZ:
        return time_s, rate, "time stamps"
    why = f"its time stamps run at {rate:g} Hz, so not from driving" if rate else "it has no time stamps"
    index = np.array([row.index for row in rows], float)
    return index / RATE_HZ, RATE_HZ, f"number of the frame at the nominal {RATE_HZ:g} Hz ({why})"
