"""donkeycar tubs: `catalog_N.catalog` files of JSON lines beside a folder `images` of JPEGs; or, in the older
version 1, a file `record_N.json` a frame and its JPEG beside it.

Format: donkeycar/parts/tub_v2.py and, up to release 3.1, donkeycar/parts/datastore.py of github.com/autorope/donkeycar.
The `user/angle` of both is a fraction of full lock, positive = RIGHT; it becomes `steer`, positive = LEFT.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.frames import Frames
from ..data.records import Record
from ..errors import UserError
from .drives import Faults, number, rate_hz, records
from .safety import damage, own, own_folder

RATE_HZ = 20.0
"""Rate of donkeycar's loop, unless its owner changed it."""
MOST_HZ = 100.0
"""Fastest time stamps: faster ones were not made while driving (a conversion writes some)."""
LAYOUT = "donkeycar tub: catalog_0.catalog and images/, or of version 1 record_1.json and its JPEG"
PICTURE, STEER = "cam/image_array", "user/angle"
NAMES = {"user/throttle": "throttle", "pilot/angle": "pilot_steer"}


@dataclass(frozen=True)
class Row:
    """A frame that can be used."""

    index: int
    session: str | None
    time_ms: float | None
    picture: Path
    steer: float
    mode: str
    rest: dict[str, float]


def detect(path: Path) -> bool:
    return path.is_dir() and (any(path.glob("*.catalog")) or next(_first_version(path), None) is not None)


def read(path: Path) -> list[Record]:
    """A tub without its deleted frames, cut where a session ends or over a second is missing.

    UserError where over 5 % of its frames are unreadable.
    """
    faults = Faults(path)
    second = any(path.glob("*.catalog"))
    lines, pictures = (_lines(path), path / "images") if second else (_files(path), path)
    rows = list(_rows(lines, own_folder(pictures, path), _deleted(path, faults), faults))
    faults.check(len(rows))
    time_s, rate, clock = _clock(rows)
    shared = set.intersection(*(set(row.rest) for row in rows)) - {"picture", "steer"}
    about = {
        "format": f"donkeycar tub v{1 + second}",
        "rate_hz": rate,
        "clock": clock,
        "steer_range_rad": None,
        "sign": "steer = -(user/angle): a fraction of full lock, positive left",
        "modes": dict(Counter(row.mode for row in rows)),
        **faults.about(),
    }

    def streams(part: slice) -> dict:
        kept = rows[part]
        values = {"picture": Frames([row.picture for row in kept])}
        values |= {"steer": _float32([row.steer for row in kept])}
        return values | {name: _float32([row.rest[name] for row in kept]) for name in sorted(shared)}

    return records(path, time_s, [row.session for row in rows], streams, about)


def _float32(values: list[float]) -> np.ndarray:
    return np.array(values, np.float32)


def _first_version(path: Path) -> Iterator[tuple[int, Path]]:
    """Numbers and files of a tub of version 1."""
    for file in path.glob("record_*.json"):
        if number := re.fullmatch(r"record_(\d{1,15})", file.stem):
            yield int(number[1]), file


def _lines(path: Path) -> Iterator[tuple[str, bytes, dict]]:
    """Where a frame is told of, and what is said there; version 2."""
    catalogs = sorted(path.glob("*.catalog"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
    for catalog in catalogs:
        for place, line in enumerate(_content(catalog).split(b"\n"), 1):
            if line.strip():
                yield f"{catalog.name} line {place}", line, {}


def _files(path: Path) -> Iterator[tuple[str, bytes, dict]]:
    """The same of version 1, whose frames are numbered by their files' names alone."""
    for index, file in sorted(_first_version(path)):
        yield file.name, _content(file), {"_index": index}


def _rows(lines: Iterator[tuple[str, bytes, dict]], pictures: Path, deleted: set, faults: Faults) -> Iterator[Row]:
    for where, line, known in lines:
        try:
            row = _parse(line, known, pictures)
            if row.index in deleted:
                continue
            if reason := damage(row.picture):
                raise ValueError(f"{row.picture.name} is {reason}")
        except (ValueError, RecursionError) as error:
            faults.add(where, error)
        else:
            yield row


def _content(path: Path) -> bytes:
    try:
        return own(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def _parse(line: bytes, known: dict, pictures: Path) -> Row:
    if b"\0" in line:
        raise ValueError("holds NUL bytes")
    try:
        row = json.loads(line)
    except ValueError:
        raise ValueError("is cut short or not JSON") from None
    if not isinstance(row, dict):
        raise ValueError("is not an object")
    row |= known
    for key in ("_index", PICTURE, STEER):
        if key not in row:
            raise ValueError(f"has no {key!r}")
    if not isinstance(row[PICTURE], str):
        raise ValueError(f"{PICTURE} is not a file name")
    session, clock = row.get("_session_id"), "_timestamp_ms" if "_timestamp_ms" in row else "milliseconds"
    return Row(
        index=int(number(row["_index"], 0, 2**53)),
        session=None if session is None else str(session),
        time_ms=number(row[clock], 0, 2**53) if clock in row else None,
        picture=pictures / Path(row[PICTURE]).name,
        steer=0.0 - number(row[STEER], -1, 1),
        mode=str(row.get("user/mode")),
        rest=dict(_rest(row)),
    )


def _rest(row: dict[str, object]) -> Iterator[tuple[str, float]]:
    """All other numbers of a line; what the car's own pilot steered is turned positive = LEFT as well."""
    for key, value in row.items():
        if key.startswith("_") or key in (STEER, "milliseconds"):
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


def _clock(rows: list[Row]) -> tuple[np.ndarray, float | None, str]:
    """Seconds, rate and where they come from."""
    time_s = np.array([np.nan if row.time_ms is None else row.time_ms for row in rows]) / 1000
    rate = None if np.isnan(time_s).any() else rate_hz(time_s)
    if rate and rate < MOST_HZ:
        return time_s, rate, "time stamps"
    why = f"its time stamps run at {rate:g} Hz, so not from driving" if rate else "it has no time stamps"
    index = np.array([row.index for row in rows], float)
    return index / RATE_HZ, RATE_HZ, f"number of the frame at the nominal {RATE_HZ:g} Hz ({why})"
