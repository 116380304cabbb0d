"""ROS 2 bags of rosbag2 in SQLite: *.db3, plain or compressed (zstd, of the file or of each message).

All files of a folder with a `metadata.yaml`, and else those called NAME_0.db3, NAME_1.db3, are one drive. Bags of ROS 2
Iron and newer hold the definitions of their messages; of older ones the standard types are known. Topics as in
`messages`; a bag in MCAP is read by `mcap_log`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..data.records import Record
from ..errors import UserError
from .lerobot_layout import reading
from .messages import OPTIONS, Log, Message, bags, recordings, ros_types
from .safety import head
from .unpacked import plain, unzipped

__all__ = ["OPTIONS", "detect", "read"]

TABLE = b"CREATE TABLE messages"
"""What tells a bag from another SQLite database, in its first HEAD bytes."""
HEAD = 2**16
LAYOUT = "ROS 2: rosbag2's *.db3 or *.mcap, or one packed as .zstd"


def detect(path: Path) -> bool:
    return bool(_bags(path))


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """The drives of a folder, or that of a file; UserError where one can't be read or its topics are not known."""
    return [record for name, files in _bags(path) for record in recordings(_log(name, files), given, "ROS 2 bag")]


def _bags(path: Path) -> list[tuple[Path, list[Path]]]:
    return bags(path, ".db3", lambda file: file.suffix == ".zstd" or TABLE in head(file, HEAD))


def _log(name: Path, files: Sequence[Path]) -> Log:
    types: dict[str, str] = {}
    starts = []
    for file in files:
        with _opened(file) as bag:
            types |= {connection.topic: connection.msgtype for connection in bag.connections}
            starts.append(bag.start_time)
    return Log(name, tuple(files), tuple(starts), _walk, types)


def _walk(path: Path, wanted: Sequence[str], start_ns: int) -> Iterator[Message]:
    with _opened(path) as bag:
        connections = [connection for connection in bag.connections if connection.topic in wanted]
        for connection, time_ns, raw in bag.messages(connections, start_ns) if connections else ():
            yield connection.topic, time_ns, partial(_decoded, connection, raw)


def _decoded(connection: Any, raw: bytes) -> object:
    definition = connection.msgdef
    store, name = ros_types(connection.msgtype, definition.data, definition.format.name.lower())
    return store.deserialize_cdr(unzipped(raw), name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from rosbags.rosbag2 import Reader
    except ImportError as error:
        raise UserError("ROS bags need the package rosbags; run: pip install 'steersman[logs]'") from error
    file = plain(path).absolute()
    if any(sign in str(file) for sign in "?%#"):  # SQLite takes the path for an address, where these lead elsewhere.
        raise UserError(f"{path}: its path has one of ? % # in it; rename it")
    with reading(path), Reader(file) as bag:
        yield bag
