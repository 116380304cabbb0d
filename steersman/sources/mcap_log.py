"""MCAP: pictures (foxglove.CompressedImage, or ROS 1 and ROS 2 images) and a wheel that the user names.

Format: mcap.dev. No topic is the wheel's by custom, so it is named, with what turns its unit into radians at the
steering wheel, positive = LEFT: `LOG.mcap?steer=/topic.field&scale=-0.01745` of degrees, positive = right; see
`messages`. Messages may be JSON, Protobuf, ROS 1 or ROS 2.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ..data.records import Record
from ..errors import UserError
from .lerobot_layout import reading
from .messages import OPTIONS, Log, Message, bags, recordings, ros_types
from .unpacked import plain, unzipped

__all__ = ["OPTIONS", "detect", "read"]

LAYOUT = "MCAP: *.mcap, read as LOG.mcap?steer=/TOPIC.FIELD"
ROS = (("ros1", "ros1msg"), ("cdr", "ros2msg"), ("cdr", "ros2idl"))
"""Encodings of messages and of their definitions."""
MOST_BYTES = 2**30
"""Bytes of one record of a file; a larger one is taken for damage."""


def detect(path: Path) -> bool:
    return bool(bags(path, ".mcap"))


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A file, or all of a folder; UserError where one can't be read or its topics are not known."""
    return [record for name, files in bags(path, ".mcap") for record in recordings(_log(name, files), given, "MCAP")]


def _log(name: Path, files: Sequence[Path]) -> Log:
    types: dict[str, str] = {}
    starts = []
    for file in files:
        with _opened(file) as (_, summary):
            kinds = {key: schema.name for key, schema in summary.schemas.items()}
            types |= {channel.topic: kinds.get(channel.schema_id, "") for channel in summary.channels.values()}
            starts.append(summary.statistics.message_start_time if summary.statistics else 0)
    return Log(name, tuple(files), tuple(starts), _walk, types)


def _walk(path: Path, wanted: Sequence[str], start_ns: int) -> Iterator[Message]:
    with _opened(path) as (log, _):
        for schema, channel, message in log.iter_messages(wanted, starting_at=start_ns):
            decode = _decoder(schema, channel)
            yield channel.topic, message.log_time, partial(_unpacked, decode, message.data)


def _unpacked(decode: Callable[[bytes], Any], data: bytes) -> Any:
    return decode(unzipped(data))


def _decoder(schema: Any, channel: Any) -> Callable[[bytes], Any]:
    if channel.message_encoding == "json":
        return json.loads
    if schema and (channel.message_encoding, schema.encoding) == ("protobuf", "protobuf"):
        return _protobuf(schema.name, schema.data)
    if schema is None or (channel.message_encoding, schema.encoding) not in ROS:
        raise UserError(
            f"the messages of {channel.topic} are {channel.message_encoding or 'of an unknown encoding'}; "
            "JSON, Protobuf, ROS 1 and ROS 2 with .msg or .idl definitions are read, so convert the log to one of them"
        )
    store, name = ros_types(
        schema.name, schema.data.decode(), schema.encoding.removeprefix("ros2").removeprefix("ros1")
    )
    decode = store.deserialize_ros1 if channel.message_encoding == "ros1" else store.deserialize_cdr
    return partial(_of_type, decode, name)


@lru_cache(maxsize=64)
def _protobuf(name: str, described: bytes) -> Callable[[bytes], Any]:
    """What decodes messages of a type, of the description that stands in the log."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise UserError("Protobuf messages need its package; run: pip install 'steersman[logs]'") from error
    files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(described).file}
    pool = descriptor_pool.DescriptorPool()

    def add(file: str) -> None:
        if described := files.pop(file, None):
            for needed in described.dependency:
                add(needed)
            pool.Add(described)

    for file in list(files):
        add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name)).FromString


def _of_type(decode: Callable[[bytes, str], Any], name: str, raw: bytes) -> Any:
    return decode(raw, name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The reader and the file's own table of contents."""
    try:
        from mcap.reader import SeekingReader
    except ImportError as error:
        raise UserError("MCAP needs the package mcap; run: pip install 'steersman[logs]'") from error
    with reading(path), open(plain(path), "rb") as file:
        log = SeekingReader(file, record_size_limit=MOST_BYTES)
        summary = log.get_summary()
        if summary is None:
            raise UserError(f"{path} has no table of contents; write it anew with: mcap recover {path.name}")
        yield log, summary
