"""ROS 1 bags: pictures (sensor_msgs/Image or CompressedImage) and the wheel, by topic.

By default the topics are those of Udacity's Challenge 2: `/center_camera/image_color` (or `/compressed` below it), left
and right, and `/vehicle/steering_report`, whose `steering_wheel_angle` is radians at the steering wheel, positive =
LEFT, `speed` m/s and `steering_wheel_torque` N m. Others are named as in `LOG.bag?steer=/topic.field`; see `messages`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..data.records import Record
from ..errors import UserError
from .lerobot_layout import reading
from .messages import OPTIONS, Log, Message, recordings, ros_types
from .safety import entries, own

__all__ = ["OPTIONS", "detect", "read"]

LAYOUT = "ROS 1: *.bag"


def detect(path: Path) -> bool:
    return bool(_bags(path))


def read(path: Path, given: Mapping[str, str]) -> list[Record]:
    """A bag, or all of a folder; UserError where one can't be read or its topics are not known."""
    return [record for bag in _bags(path) for record in recordings(_log(bag), given, "ROS 1 bag")]


def _bags(path: Path) -> list[Path]:
    return entries(path, "*.bag") if path.is_dir() else [path] * (path.suffix == ".bag")


def _log(path: Path) -> Log:
    with _opened(path) as bag:
        types = {connection.topic: connection.msgtype for connection in bag.connections}
    return Log(path.with_suffix(""), (path,), (0,), _walk, types)


def _walk(path: Path, wanted: Sequence[str], start_ns: int) -> Iterator[Message]:
    with _opened(path) as bag:
        connections = [connection for connection in bag.connections if connection.topic in wanted]
        for connection, time_ns, raw in bag.messages(connections, start_ns):
            yield connection.topic, time_ns, partial(_decoded, connection, raw)


def _decoded(connection: Any, raw: bytes) -> object:
    store, name = ros_types(connection.msgtype, connection.msgdef.data)
    return store.deserialize_ros1(raw, name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        from rosbags.rosbag1 import Reader
    except ImportError as error:
        raise UserError("ROS bags need the package rosbags; run: pip install 'steersman[logs]'") from error
    with reading(path), Reader(own(path)) as bag:
        yield bag
