"""openpilot: `rlog` or `qlog` (also .bz2, .zst) of a segment, with `fcamera.hevc` beside it if there is video.

The log is Cap'n Proto, so it takes the package `pycapnp` and openpilot's own schema, of the age of the log:
`SEGMENT?schema=openpilot/cereal/log.capnp`. `carState.steeringAngleDeg` is degrees at the steering wheel, positive =
LEFT, `vEgo` m/s, `steeringTorque` as the car gives it. The clock is `logMonoTime`; of a picture `timestampSof` in
`roadEncodeIdx`. Without video the rest is read.
"""

import bz2
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from ..data.frames import Chosen, stamp
from ..data.records import Record, Stream
from ..errors import UserError
from ..files import read_most
from .drives import WHEEL_RANGE_RAD, Faults, cut, sound, wheel
from .films import Film
from .lerobot_layout import reading
from .safety import entries, own

LAYOUT = "openpilot: rlog or qlog (.bz2, .zst)"
OPTIONS = ("schema",)
NAME = r"(.*--)?(rlog|qlog)(\.bz2|\.zst)?"
MOST_BYTES = 2**31
"""Bytes of a log when unpacked; a segment of a minute has a hundredth of it."""
NUMBERS = {"steeringAngleDeg": "angle_rad", "vEgo": "speed_mps", "steeringTorque": "torque"}


def detect(path: Path) -> bool:
    return _log(path) is not None


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A segment, cut where its pictures (without them, its angles) pause for over a second.

    UserError where the schema is not to be had, or where the log can't be read.
    """
    log = _log(path)
    assert log is not None
    event = _event(log, given.get("schema"))
    faults, states, frames = Faults(log), [], {}
    for message in _messages(log, event, faults):
        kind = message.which()
        if kind == "carState":
            state = message.carState
            states.append([message.logMonoTime / 1e9, *(float(getattr(state, name)) for name in NUMBERS)])
        elif kind == "roadEncodeIdx":
            frames[message.roadEncodeIdx.segmentId] = message.roadEncodeIdx.timestampSof / 1e9
    faults.check(len(states))
    time_s, *columns = np.array(states).T
    streams, num_spare = _pictures(log, frames, faults)
    for name, values in zip(NUMBERS.values(), columns, strict=True):
        if name == "angle_rad":
            limit = WHEEL_RANGE_RAD
            angle = sound("steeringAngleDeg, in radians", np.radians(values), time_s, faults, -limit, limit)
            both = wheel(angle.values[:], WHEEL_RANGE_RAD)
            streams |= {key: Stream(value, angle.time_s) for key, value in both.items()}
        else:
            streams[name] = sound(name, values, time_s, faults)
    faults.check(len(streams["steer"]))
    about = {
        "format": "openpilot",
        "clock": "logMonoTime; of pictures timestampSof",
        "steer_range_rad": WHEEL_RANGE_RAD,
        "sign": "angle_rad = steeringAngleDeg, positive left",
        "frames_without_time": num_spare,
        **faults.about(),
    }
    return cut(path, streams, about)


def _log(path: Path) -> Path | None:
    """The log of a segment: the full one rather than the thinned."""
    files = entries(path)[::-1] if path.is_dir() else [path]
    found = [file for file in files if re.fullmatch(NAME, file.name) and file.is_file()]
    return next((file for file in found if "rlog" in file.name), found[0] if found else None)


def _pictures(log: Path, frames: Mapping[int, float], faults: Faults) -> tuple[dict[str, Stream], int]:
    """The road camera, and how many of its frames have no time."""
    video = log.with_name(re.sub(NAME, r"\1fcamera.hevc", log.name))
    if not video.exists():
        return {}, 0
    film = Film(video)
    numbers = sorted(frames, key=lambda number: (frames[number], number))
    for number in numbers:
        if number >= len(film):
            faults.add(f"frame {number}", f"{video.name} ends after {len(film)} frames")
    kept = np.array([number for number in numbers if number < len(film)], np.int64)
    picture = Stream(Chosen(film, kept), np.array([frames[number] for number in kept.tolist()]))
    return {"picture": picture}, len(film) - len(kept)


def _event(log: Path, schema: str | None) -> Any:
    """The type of a log's messages."""
    try:
        import capnp
    except ImportError:
        capnp = None
    if schema is None and (found := find_spec("cereal")) and found.submodule_search_locations:
        schema = str(Path(found.submodule_search_locations[0]) / "log.capnp")
    if capnp is None or schema is None or not Path(schema).is_file():
        raise UserError(
            f"{log} is a log of openpilot, which takes pycapnp and openpilot's schema; run: pip install pycapnp, get "
            f"the folder cereal of an openpilot as old as the log, and name it: '{log.name}?schema=cereal/log.capnp'; "
            "or convert the log to MCAP or to a video with a CSV"
        )
    with reading(Path(schema)):
        return _parsed(schema, stamp(Path(schema)))[1].Event


@cache
def _parsed(schema: str, stamp: str) -> tuple[Any, Any]:
    """A schema and its parser, which must outlive all that was read by it.

    Each has its own: a parser that meets two schemas of one identity ends the process.
    """
    import capnp

    parser = capnp.SchemaParser()
    return parser, parser.load(schema)


def _messages(log: Path, event: Any, faults: Faults) -> Iterator[Any]:
    """The messages up to the first that is damaged: where the next would begin is not known."""
    content = _content(log)
    messages = event.read_multiple_bytes(content)
    count = 0
    while True:
        try:
            message = next(messages, None)
            if message is None:
                return
            message.which()
        except Exception as error:  # capnp's own, and whatever a damaged pointer leads to.
            faults.add(f"message {count}", f"the log can't be read further ({str(error).splitlines()[0]})")
            return
        count += 1
        yield message


def _content(log: Path) -> bytes:
    with reading(log):
        with open(own(log), "rb") as file:
            content = read_most(_unpacked(log, file), MOST_BYTES)
        if len(content) > MOST_BYTES:
            raise ValueError(f"it is over {MOST_BYTES} bytes when unpacked")
        return content


def _unpacked(log: Path, file: BinaryIO) -> IO[bytes]:
    if log.suffix == ".bz2":
        return bz2.open(file)
    if log.suffix == ".zst":
        try:
            import zstandard
        except ImportError as error:
            raise UserError(f"{log} needs the package zstandard; run: pip install 'steersman[logs]'") from error
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file
