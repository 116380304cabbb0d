"""Logs of messages by topic (ROS bags, MCAP): which topics are the cameras and the wheel, and their Records.

A format brings a `Log`: its topics with their types, and a walk through the messages of some in each of its files.
"""

import base64
import hashlib
import heapq
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.fetched import Fetched
from ..data.frames import Chosen, Frames, stamp
from ..data.records import Record, Stream
from ..errors import UserError
from .clocks import coarse
from .drives import WHEEL_RANGE_RAD, Faults, cut, number, sound, wheel
from .lerobot_layout import reading
from .raw_pixels import is_depth, is_grey, rgb
from .safety import encoded_damage, entries

OPTIONS = ("picture", "steer", "scale", "range_rad")
"""What can be named behind the log's path, as in `LOG.mcap?picture=/camera&steer=/wheel.angle&scale=-0.01745`."""
IMAGES = ("CompressedImage", "Image", "RawImage")
REPORT = "/vehicle/steering_report"
NUMBERS = {
    "angle_rad": (REPORT, "steering_wheel_angle"),
    "torque_nm": (REPORT, "steering_wheel_torque"),
    "speed_mps": (REPORT, "speed"),
}
"""Where Udacity's Challenge 2 has the wheel (`dbw_mkz_msgs`): radians, positive = LEFT, N m, m/s."""
UNLIKE = re.compile(r"depth|disparity|infra|(^|[/_])(ir|mask|range|thermal)\d*([/_]|$)")
"""Names of topics of pictures that are hardly what a driver sees."""
TRIED = 20
"""Messages of a topic of which one must hold a picture that can be read."""
SEPARATOR = "=" * 80 + "\n"
"""What stands between the definitions of several types in IDL."""
STAMPS = (("sec", "nanosec"), ("sec", "nsec"), ("seconds", "nanos"))
"""Fields of a time stamp: of ROS, of JSON, of Protobuf."""
MOST_LATE_S = 5.0
"""Seconds from the time of recording beyond which a message's own time stamp is damaged or of a clock never set."""

Message = tuple[str, int, Callable[[], Any]]
"""Topic, nanoseconds at which it was recorded, and how to decode it."""
Walk = Callable[[Path, Sequence[str], int], Iterator[Message]]
"""Walk from a file, topics and a time in nanoseconds to the messages of these topics from then on, by time."""


@dataclass(frozen=True)
class Log:
    """A drive in one file or several; `starts_ns` is when each begins, `name` where its records are named from."""

    name: Path
    files: tuple[Path, ...]
    starts_ns: tuple[int, ...]
    walk_file: Walk
    types: Mapping[str, str]

    @property
    def path(self) -> Path:
        """What it is called in messages."""
        return self.files[0] if len(self.files) == 1 else self.name

    @property
    def stamp(self) -> str:
        return "".join(map(stamp, self.files))

    def walk(self, wanted: Sequence[str], start_ns: int) -> Iterator[Message]:
        """The messages of these topics from then on, by time; a file is opened when its time has come."""
        coming = sorted(zip(self.starts_ns, range(len(self.files)), strict=True))
        going: list[tuple[int, int, Message, Iterator[Message]]] = []
        while coming or going:
            while coming and (not going or coming[0][0] <= going[0][0]):
                _, number = coming.pop(0)
                messages = self.walk_file(self.files[number], wanted, start_ns)
                for message in messages:
                    heapq.heappush(going, (message[1], number, message, messages))
                    break
            if going:
                _, number, message, messages = going[0]
                yield message
                following = next(messages, None)
                if following is None:
                    heapq.heappop(going)
                else:
                    heapq.heapreplace(going, (following[1], number, following, messages))


def bags(path: Path, ending: str, known: Callable[[Path], bool] = lambda file: True) -> list[tuple[Path, list[Path]]]:
    """Drives of files with that ending (or packed, .zstd behind it) that are known: a name, and its files in order.

    All files of a folder with a `metadata.yaml` are one drive, else those called NAME_0, NAME_1 and so on.
    """
    if not path.is_dir():
        return [(path.with_suffix(""), [path])] if _ends(path, ending) and known(path) else []
    files = sorted((file for file in entries(path) if _ends(file, ending) and known(file)), key=_in_order)
    if len(files) > 1 and (path / "metadata.yaml").is_file():
        return [(path, files)]
    drives: dict[str, list[Path]] = {}
    for file in files:
        name = file.name.removesuffix(".zstd").removesuffix(ending)
        drives.setdefault(re.sub(r"_\d+$", "", name) if re.search(r"_\d{1,4}$", name) else name, []).append(file)
    return [
        (path / (name if len(found) > 1 else found[0].name.split(ending)[0]), found) for name, found in drives.items()
    ]


def _ends(file: Path, ending: str) -> bool:
    return file.name.endswith((ending, f"{ending}.zstd"))


def _in_order(file: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", file.name)]


@dataclass(frozen=True)
class Topics:
    """Which topics are the cameras and which fields the numbers, by stream; `angle_rad` is one of the latter."""

    cameras: dict[str, str]
    numbers: dict[str, tuple[str, str]]
    scale: float = 1.0
    range_rad: float = WHEEL_RANGE_RAD


@dataclass
class Heard:
    """What a topic said: its messages' times of recording, and of the good ones number, own time and values."""

    faults: Faults
    log_ns: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    own_s: list[float] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)

    def time_s(self) -> tuple[np.ndarray, str]:
        """Seconds of the good messages, and whose clock that is."""
        recorded = np.array(self.log_ns, float)[self.rows] / 1e9
        own = np.array(self.own_s, float)
        near = np.abs(own - recorded) <= MOST_LATE_S
        if near.mean() < 0.5:
            return recorded, "time of recording"
        if coarse(own[near]) and not coarse(recorded):
            return recorded, "time of recording, as messages share their own time stamps"
        return np.where(near, own, recorded), "time stamps in the messages"


def usual(types: Mapping[str, str]) -> Topics:
    """Topics of Udacity's Challenge 2, as far as they are there."""
    cameras = {}
    for side, name in (("center", "picture"), ("left", "picture_left"), ("right", "picture_right")):
        topic = f"/{side}_camera/image_color"
        cameras[name] = topic if topic in types else f"{topic}/compressed"
    known = types.get(REPORT, "").endswith("SteeringReport")
    there = {name: topic for name, topic in cameras.items() if _shows(types.get(topic, ""))}
    return Topics(there, NUMBERS if known else {})


def topics(log: Log, given: Mapping[str, str]) -> Topics:
    """What the user named, else what is usual in such logs. UserError lists the topics where that is not enough."""
    types, known = log.types, usual(log.types)
    cameras, numbers = known.cameras, known.numbers
    if "picture" in given:
        cameras = {"picture": given["picture"]}
    elif "picture" not in cameras and (camera := _camera(log)):
        cameras = {"picture": camera}
    if "steer" in given:
        folder, slash, name = given["steer"].rpartition("/")
        topic, _, path = name.partition(".")
        numbers = {"angle_rad": (folder + slash + topic, path)}
    wanted = {*cameras.values(), *(topic for topic, _ in numbers.values())}
    if "picture" not in cameras or not numbers or not wanted <= set(types) or not all(p for _, p in numbers.values()):
        listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(types.items())) or "none"
        raise UserError(
            f"{log.path}: which topics are the camera and the wheel? Name them, quoted: "
            f"'{log.path.name}?picture=/TOPIC&steer=/TOPIC.FIELD&scale=RADIANS_LEFT_PER_UNIT'; its topics are {listed}"
        )
    scale = _option(log.path, given, "scale", 1.0)
    range_rad = _option(log.path, given, "range_rad", WHEEL_RANGE_RAD)
    if not scale or range_rad <= 0:
        raise UserError(f"{log.path}: scale must not be zero, and range_rad be above it")
    return Topics(cameras, numbers, scale, range_rad)


def _camera(log: Log) -> str | None:
    """The topic of pictures that is likeliest what a driver sees: in colour, not of distances, readable."""
    images = [topic for topic, kind in sorted(log.types.items()) if _shows(kind)]
    found = []
    for topic in images:
        for _, _, decode in islice(log.walk([topic], 0), TRIED):
            try:
                message = decode()
                still(message)
            except UserError:
                raise
            except Exception:  # What can't be read is no camera.
                continue
            if not is_depth(message):
                found.append((bool(UNLIKE.search(topic.lower())), is_grey(message), topic))
            break
    return min(found)[2] if found else next(iter(images), None)


def _shows(kind: str) -> bool:
    """Whether a type of messages is that of a picture each."""
    return re.split(r"[/.]", kind)[-1] in IMAGES


def _option(log: Path, given: Mapping[str, str], name: str, usual: float) -> float:
    try:
        return number(float(given.get(name, usual)))
    except ValueError:
        raise UserError(f"{log}: {name}={given[name]} is not a number") from None


def recordings(log: Log, given: Mapping[str, str], format: str) -> list[Record]:
    """The Records of a log, cut where the camera pauses for over a second.

    UserError where its topics are not known, or over 5 % of the messages of one can't be used.
    """
    chosen = topics(log, given)
    fields: dict[str, list[str]] = {topic: [] for topic in chosen.cameras.values()}
    for topic, path in chosen.numbers.values():
        fields.setdefault(topic, []).append(path)
    faults, heard = Faults(log.path), _heard(log, fields, set(chosen.cameras.values()))
    for said in heard.values():
        said.faults.check(len(said.rows))
        faults.found += said.faults.found
    streams: dict[str, Stream] = {}
    clocks = {}
    for name, topic in chosen.cameras.items():
        said = heard[topic]
        time_s, clocks[topic] = said.time_s()
        order = np.argsort(time_s, kind="stable")
        frames = Frames(Pictures(log, topic, said), origin=f"{log.path}, topic {topic}")
        streams[name] = Stream(Chosen(frames, order), time_s[order])
    for name, (topic, path) in chosen.numbers.items():
        said = heard[topic]
        time_s, clocks[topic] = said.time_s()
        values = np.array([row[fields[topic].index(path)] for row in said.values])
        if name == "angle_rad":
            limit = chosen.range_rad * (1 + 1e-6)
            angle = sound(f"{topic}.{path}, in radians", values * chosen.scale, time_s, faults, -limit, limit)
            both = wheel(angle.values[:], chosen.range_rad)
            streams |= {key: Stream(value, angle.time_s) for key, value in both.items()}
        else:
            streams[name] = sound(name, values, time_s, faults)
    faults.check(sum(len(stream) for name, stream in streams.items() if name != "angle_rad"))
    topic, path = chosen.numbers["angle_rad"]
    about = {
        "format": format,
        "clock": ", ".join(f"{topic}: {clock}" for topic, clock in clocks.items()),
        "steer_range_rad": chosen.range_rad,
        "sign": f"angle_rad = {chosen.scale:g} * {topic}.{path}, positive left",
        "skipped": sorted(set(log.types) - set(fields)),
        **faults.about(),
    }
    return cut(log.name, streams, about)


def _heard(log: Log, fields: Mapping[str, list[str]], cameras: set[str]) -> dict[str, Heard]:
    """What each topic said."""
    heard = {topic: Heard(Faults(log.path)) for topic in fields}
    with reading(log.path):
        for topic, log_ns, decode in log.walk(list(fields), 0):
            said = heard[topic]
            said.log_ns.append(log_ns)
            try:
                message = decode()
                values = [number(_number(_field(message, path))) for path in fields[topic]]
                own_s = _own_s(message)
                if topic in cameras:
                    still(message)
            except Exception as error:  # A damaged message makes its decoder raise anything.
                said.faults.add(f"{topic} message {len(said.log_ns)}", error)
            else:
                said.rows.append(len(said.log_ns) - 1)
                said.own_s.append(own_s)
                said.values.append(values)
    return heard


class Pictures(Fetched[bytes | np.ndarray]):
    """The good pictures of a topic, fetched from the log when asked for; in order is fast."""

    def __init__(self, log: Log, topic: str, said: Heard):
        self.log, self.topic, self.said = log, topic, said
        self._going: tuple[int, Iterator[Message]] = (len(said.log_ns), iter(()))
        self.fingerprint = hashlib.sha256(f"{log.stamp}{topic}{said.rows}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.said.rows)

    def fetch(self, index: int) -> bytes | np.ndarray:
        row, log_ns = self.said.rows[index], self.said.log_ns
        at, messages = self._going
        with reading(self.log.path):
            if not at <= row <= at + 8:
                # The first message recorded at that very time, of which there may be several.
                at, messages = log_ns.index(log_ns[row]), self.log.walk([self.topic], log_ns[row])
            for place, (_, _, decode) in enumerate(messages, at):
                if place == row:
                    self._going = (row + 1, messages)
                    return still(decode())
        raise UserError(f"{self.log.path} has changed since it was opened; start again")


def still(message: Any) -> bytes | np.ndarray:
    """The picture of a message: the encoded bytes of a JPEG or PNG, or its pixels, see `raw_pixels`.

    ValueError says what is wrong with it.
    """
    data = _field(message, "data")
    if not isinstance(data, str | bytes | np.ndarray):
        raise ValueError(f"its data is of type {type(data).__name__}")
    encoded = base64.b64decode(data, validate=True) if isinstance(data, str) else bytes(data)
    if hasattr(message, "encoding"):
        return rgb(message, encoded)
    if reason := encoded_damage(encoded):
        raise ValueError(f"its picture is {reason}")
    return encoded


def _field(message: Any, path: str) -> Any:
    """The value at a path such as `wheel.angle` or `data.0`."""
    for name in path.split("."):
        if isinstance(message, dict):
            found = message.get(name)
        elif name.isdecimal() and hasattr(message, "__getitem__"):
            found = message[int(name)]
        else:
            found = getattr(message, name, None)
        if found is None:
            raise ValueError(f"has no {name!r} (wanted {path})")
        message = found
    return message


def _number(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _own_s(message: Any) -> float:
    """The time stamp that a message carries, in seconds; no number where it carries none."""
    if isinstance(message, dict):
        stamped = message.get("timestamp")
    else:
        stamped = getattr(getattr(message, "header", None), "stamp", getattr(message, "timestamp", None))
    for seconds, nanoseconds in STAMPS:
        with suppress(ValueError):
            return number(_field(stamped, seconds)) + number(_field(stamped, nanoseconds)) / 1e9
    return math.nan


@lru_cache(maxsize=64)
def ros_types(kind: str, definition: str, form: str = "msg") -> Any:
    """What decodes a ROS message of a type, of the definition that stands in its log; and the type's name there.

    The form is msg or idl; of another, as logs without definitions have, the standard types of ROS 2 are known.
    """
    try:
        from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
        from rosbags.typesys.msg import normalize_msgtype
    except ImportError as error:
        raise UserError("ROS messages need the package rosbags; run: pip install 'steersman[logs]'") from error
    name = normalize_msgtype(kind)
    if form not in ("msg", "idl"):
        store = get_typestore(Stores.LATEST)
        if name not in store.types:
            raise UserError(
                f"the log does not define its type {kind}; write it anew with a ROS 2 that knows it: ros2 bag convert, "
                "to MCAP"
            )
        return store, name
    store = get_typestore(Stores.EMPTY)
    if form == "msg":
        store.register(get_types_from_msg(definition, name))
        return store, name
    parts = definition.split(SEPARATOR) if definition.startswith(f"{SEPARATOR}IDL: ") else ["", f"\n{definition}"]
    types = {}
    for part in parts[1:]:
        types.update(get_types_from_idl(part.partition("\n")[2]))
    store.register(types)
    return store, name
