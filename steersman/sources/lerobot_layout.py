"""Where a LeRobotDataset v3 keeps what, and which stream is which feature.

Layout: github.com/huggingface/lerobot, src/lerobot/datasets/. `meta/info.json` names the features,
`meta/episodes/` has a row an episode, `data/` a row a frame. Streams and features correspond so:

| stream | feature |
|---|---|
| `picture` (uint8 height width 3) | `observation.images.front` |
| `picture_left` and so on | `observation.images.left` |
| `steer`, `throttle`, `gas`, `brake` (float32) | together `action`, a vector with these names |
| `speed_mps`, `yaw_radps` | `observation.speed_mps`, `observation.yaw_radps` |
| any other | `label.NAME`, which lerobot's policies don't see |

Of a dataset made elsewhere the first camera is `picture` if none is called front, `action` is split only if
its names are those above, `observation.` is left off, and other features keep their names.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..data.records import Values
from ..errors import UserError
from ..json_types import JsonObject

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
RECORDING = "meta/steersman.json"
"""What a Writer was given; lerobot leaves this file alone."""
PART = "chunk-{chunk_index:03d}/file-{file_index:03d}"
EPISODES, DATA = f"meta/episodes/{PART}.parquet", f"data/{PART}.parquet"
VIDEO = f"videos/{{video_key}}/{PART}.mp4"
CHUNK = 1000
"""Files in a folder."""
CAMERAS, FRONT = "observation.images.", "observation.images.front"
CONTROLS = ("steer", "throttle", "gas", "brake")
SENSED = ("speed_mps", "yaw_radps")
INDEXES = dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
INDEXES = {"timestamp": "float32", **INDEXES}

Kind = tuple[str, tuple[int, ...]]
"""Kind of a stream's values: dtype, and shape without time: () or (feature,) or (height, width, 3)."""


def kinds(streams: Mapping[str, Values]) -> dict[str, Kind]:
    """What a Writer is told of the streams of an episode."""
    return {name: (str(values.dtype), tuple(values.shape[1:])) for name, values in streams.items()}


def feature_streams(streams: Mapping[str, Kind]) -> dict[str, list[str]]:
    """Streams that each feature holds."""
    found: dict[str, list[str]] = {}
    for name, (dtype, shape) in streams.items():
        if dtype == "uint8" and len(shape) == 3 and shape[2] == 3:
            feature = CAMERAS + ("front" if name == "picture" else name.removeprefix("picture_"))
        elif name in CONTROLS and (dtype, shape) == ("float32", ()):
            feature = "action"
        else:
            feature = f"observation.{name}" if name in SENSED else f"label.{name}"
        found[feature] = [*found.get(feature, []), name]
    return found


def features(streams: Mapping[str, Kind]) -> dict[str, dict]:
    """The `features` of info.json. UserError where a stream can't be stored or told from another."""
    members = feature_streams(streams)
    found = {feature: _feature(feature, names, streams[names[0]]) for feature, names in members.items()}
    if stream_names(found) != members or any("/" in name for name in streams):
        raise UserError(
            f"streams can't be called {', '.join(streams)}: pictures must be `picture`, `picture_left`, "
            "`picture_right` and so on, and no name may have a `/`"
        )
    return found | {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEXES.items()}


def filmed(features: Mapping[str, dict], fps: float) -> dict[str, dict]:
    """The same features with their pictures in videos."""
    return {
        name: spec | {"dtype": "video", "info": _film(spec["shape"], fps)} if spec["dtype"] == "image" else spec
        for name, spec in features.items()
    }


def pixel_format(height: int, width: int) -> str:
    """Colours at half resolution, as players expect, need even sides."""
    return "yuv444p" if height % 2 or width % 2 else "yuv420p"


def _film(shape: list[int], fps: float) -> JsonObject:
    height, width, channels = shape
    return {
        "video.height": height,
        "video.width": width,
        "video.channels": channels,
        "video.codec": "h264",
        "video.pix_fmt": pixel_format(height, width),
        "video.is_depth_map": False,
        "video.fps": fps,
        "has_audio": False,
    }


def _feature(feature: str, names: list[str], kind: Kind) -> JsonObject:
    dtype, shape = kind
    if feature == "action":
        return {"dtype": dtype, "shape": [len(names)], "names": names}
    if feature.startswith(CAMERAS):
        return {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}
    if len(shape) > 1 or shape in [(0,), (1,)] or np.dtype(dtype).kind not in "biuf":
        raise UserError(
            f"stream {names[0]!r} is {dtype} of shape {shape}; a recording takes pictures "
            "(uint8 height width 3), numbers, and vectors of two or more"
        )
    return {"dtype": dtype, "shape": list(shape) or [1], "names": None}


def stream_names(features: Mapping[str, dict]) -> dict[str, list[str]]:
    """Streams that each feature of info.json, but for the indexes, holds."""
    cameras = [feature for feature, spec in features.items() if spec["dtype"] in ("image", "video")]
    front = FRONT if FRONT in cameras else next(iter(cameras), None)
    found: dict[str, list[str]] = {}
    for feature, spec in features.items():
        if feature in INDEXES:
            continue
        controls = _controls(spec)
        if feature == front:
            streams = ["picture"]
        elif feature in cameras:
            streams = [f"picture_{feature.removeprefix(CAMERAS)}"]
        elif feature == "action" and controls:
            streams = controls
        else:
            streams = [feature.removeprefix("observation.").removeprefix("label.")]
        taken = {name for others in found.values() for name in others}
        found[feature] = [feature] if taken & set(streams) or len(set(streams)) < len(streams) else streams
    return found


def _controls(spec: dict) -> list[str]:
    """The controls a vector consists of; none where it is anything else."""
    names = spec.get("names")
    if not isinstance(names, list) or spec["shape"] != [len(names)]:
        return []
    return [str(name) for name in names] if all(name in CONTROLS for name in names) else []


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises a UserError naming the file in place of whatever goes wrong in it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # A damaged file makes pyarrow and PyAV raise anything.
        raise UserError(f"{path} can't be read ({error}); copy the dataset anew") from error


def json_of(path: Path) -> Any:
    with reading(path):
        return json.loads(path.read_bytes())
