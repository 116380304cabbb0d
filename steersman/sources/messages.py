"""Logs of messages by topic (ROS bags, MCAP): which topics are the cameras and the wheel, and their Records.

A format brings two functions: one lists its topics with their types, the other walks through the messages of some.
"""

import base64
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..data.fetched import Fetched
from ..data.frames import MOST_PIXELS, Chosen, Frames, stamp
from ..data.records import Record, Stream
from ..errors import UserError
from .clocks import coarse
from .drives import WHEEL_RANGE_RAD, Faults, cut, number, sound, wheel
from .lerobot_layout import reading
from .safety import encoded_damage

OPTIONS = ("picture", "steer", "scale", "range_rad")
"""What can be named behind the log's path, as in `LOG.mcap?picture=/camera&steer=/wheel.angle&scale=-0.01745`."""
IMAGES = ("CompressedImage", "Image")
PIXELS = {"rgb8": [0, 1, 2], "bgr8": [2, 1, 0], "rgba8": [0, 1, 2, 3], "bgra8": [2, 1, 0, 3], "mono8": [0]}
"""Encodings of raw pictures: where red, green and blue are."""
STAMPS = (("sec", "nanosec"), ("sec", "nsec"), ("seconds", "nanos"))
"""Fields of a time stamp: of ROS, of JSON, of Protobuf."""
MOST_LATE_S = 5.0
"""Seconds from the time of recording beyond which a message's own time stamp is damaged or of a clock never set."""

Message = tuple[str, int, Callable[[], Any]]
"""Topic, nanoseconds at which it was recorded, and how to decode it."""
Walk = Callable[[Path, Sequence[str], int], Iterator[Message]]
"""Walk from a log, topics and a time in nanoseconds to the messages of these topics from then on, by time."""


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


def topics(log: Path, types: Mapping[str, str], given: Mapping[str, str], usual: Topics) -> Topics:
    """What the user named, else what is usual in such logs. UserError lists the topics where that is not enough."""
    images = [topic for topic, kind in sorted(types.items()) if kind.split("/")[-1].split(".")[-1] in IMAGES]
    cameras = {name: topic for name, topic in usual.cameras.items() if topic in types}
    if "picture" in given:
        cameras = {"picture": given["picture"]}
    elif "picture" not in cameras and images:
        cameras = {"picture": images[0]}
    numbers = usual.numbers
    if "steer" in given:
        folder, slash, name = given["steer"].rpartition("/")
        topic, _, path = name.partition(".")
        numbers = {"angle_rad": (folder + slash + topic, path)}
    wanted = {*cameras.values(), *(topic for topic, _ in numbers.values())}
    if "picture" not in cameras or not numbers or not wanted <= set(types) or not all(p for _, p in numbers.values()):
        listed = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(types.items())) or "none"
        raise UserError(
            f"{log}: which topics are the camera and the wheel? Name them, quoted: "
            f"'{log.name}?picture=/TOPIC&steer=/TOPIC.FIELD&scale=RADIANS_LEFT_PER_UNIT'; its topics are {listed}"
        )
    scale = _option(log, given, "scale", usual.scale)
    range_rad = _option(log, given, "range_rad", usual.range_rad)
    if not scale or range_rad <= 0:
        raise UserError(f"{log}: scale must not be zero, and range_rad be above it")
    return Topics(cameras, numbers, scale, range_rad)


def _option(log: Path, given: Mapping[str, str], name: str, usual: float) -> float:
    try:
        return number(float(given.get(name, usual)))
    except ValueError:
        raise UserError(f"{log}: {name}={given[name]} is not a number") from None


def recordings(log: Path, walk: Walk, chosen: Topics, types: Mapping[str, str], format: str) -> list[Record]:
    """The Records of a log, cut where the camera pauses for over a second.

    UserError where over 5 % of the messages of a topic can't be used.
    """
    fields: dict[str, list[str]] = {topic: [] for topic in chosen.cameras.values()}
    for topic, path in chosen.numbers.values():
        fields.setdefault(topic, []).append(path)
    faults, heard = Faults(log), _heard(log, walk, fields, set(chosen.cameras.values()))
    for said in heard.values():
        said.faults.check(len(said.rows))
        faults.found += said.faults.found
    streams: dict[str, Stream] = {}
    clocks = {}
    for name, topic in chosen.cameras.items():
        said = heard[topic]
        time_s, clocks[topic] = said.time_s()
        order = np.argsort(time_s, kind="stable")
        frames = Frames(Pictures(log, walk, topic, said), origin=f"{log}, topic {topic}")
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
        "skipped": sorted(set(types) - set(fields)),
        **faults.about(),
    }
    return cut(log.with_suffix(""), streams, about)


def _heard(log: Path, walk: Walk, fields: Mapping[str, list[str]], cameras: set[str]) -> dict[str, Heard]:
    """What each topic said."""
    heard = {topic: Heard(Faults(log)) for topic in fields}
    with reading(log):
        for topic, log_ns, decode in walk(log, list(fields), 0):
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

    def __init__(self, log: Path, walk: Walk, topic: str, said: Heard):
        self.log, self.walk, self.topic, self.said = log, walk, topic, said
        self._going: tuple[int, Iterator[Message]] = (len(said.log_ns), iter(()))
        self.fingerprint = hashlib.sha256(f"{stamp(log)}{topic}{said.rows}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.said.rows)

    def fetch(self, index: int) -> bytes | np.ndarray:
        row, log_ns = self.said.rows[index], self.said.log_ns
        at, messages = self._going
        with reading(self.log):
            if not at <= row <= at + 8:
                # The first message recorded at that very time, of which there may be several.
                at, messages = log_ns.index(log_ns[row]), self.walk(self.log, [self.topic], log_ns[row])
            for place, (_, _, decode) in enumerate(messages, at):
                if place == row:
                    self._going = (row + 1, messages)
                    return still(decode())
        raise UserError(f"{self.log} has changed since it was opened; start again")


def still(message: Any) -> bytes | np.ndarray:
    """The picture of a message: the encoded bytes of a JPEG or PNG, or RGB uint8 (height width 3).

    ValueError says what is wrong with it.
    """
    data = _field(message, "data")
    if not isinstance(data, str | bytes | np.ndarray):
        raise ValueError(f"its data is of type {type(data).__name__}")
    encoded = base64.b64decode(data, validate=True) if isinstance(data, str) else bytes(data)
    if hasattr(message, "encoding"):
        return _raw(message, encoded)
    if reason := encoded_damage(encoded):
        raise ValueError(f"its picture is {reason}")
    return encoded


def _raw(message: Any, data: bytes) -> np.ndarray:
    if message.encoding not in PIXELS:
        raise ValueError(f"its pixels are {message.encoding[:40]!r}, not one of {', '.join(PIXELS)}")
    height, width, step, order = message.height, message.width, message.step, PIXELS[message.encoding]
    if not 0 < height * width <= MOST_PIXELS or step < width * len(order) or len(data) != height * step:
        raise ValueError(f"{len(data)} bytes are not {width}x{height} pixels in rows of {step}")
    rows = np.frombuffer(data, np.uint8).reshape(height, step)[:, : width * len(order)]
    picture = rows.reshape(height, width, len(order))[..., order[:3]]
    return np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)))


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
def ros_types(kind: str, definition: str) -> Any:
    """What decodes a ROS message of a type, of the definition that stands in its log; and the type's name there."""
    try:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        from rosbags.typesys.msg import normalize_msgtype
    except ImportError as error:
        raise UserError("ROS messages need the package rosbags; run: pip install 'steersman[logs]'") from error
    store, name = get_typestore(Stores.EMPTY), normalize_msgtype(kind)
    store.register(get_types_from_msg(definition, name))
    return store, name
