"""LeRobotDataset v3 and v2: parquet for the numbers, PNG in parquet or video for the pictures.

v2 has a file an episode, listed in `meta/episodes.jsonl`; v3 has many to a file. `lerobot_layout` says which
feature is which stream. Pictures are decoded when asked for.
"""

import hashlib
import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.fetched import Fetched
from ..data.frames import Frames, stamp
from ..data.records import Index, Record, Stream
from ..errors import UserError
from ..json_types import JsonObject
from .films import DEMUXERS, opened, upright
from .lerobot_layout import CHUNK, INDEXES, INFO, RECORDING, Kind, json_of, kinds, reading, stream_names
from .lerobot_writer import Writer
from .safety import strays

__all__ = ["Kind", "Writer", "detect", "kinds", "read"]

LAYOUT = "LeRobotDataset v3 or v2: meta/info.json, meta/episodes/ or meta/episodes.jsonl, and data/"
NUMBERS = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
NUMBERS |= {"float16", "float32", "float64"}


def detect(path: Path) -> bool:
    return (path / INFO).is_file()


def read(folder: Path | str) -> list[Record]:
    """The episodes in order, whether one or many to a file, with images or video.

    UserError where there is none, or where a file is missing or damaged.
    """
    folder = Path(folder)
    info = _info(_inside(folder / INFO, folder))
    episodes = _listed(folder, info) if info["codebase_version"].startswith("v2.") else _episodes(folder)
    if not episodes:
        raise UserError(f"{folder} holds no whole episode; record some, or give another folder")
    recording = json_of(_inside(folder / RECORDING, folder)) if (folder / RECORDING).exists() else {}
    about = recording.get("about") if isinstance(recording, dict) else None
    about = about if isinstance(about, dict) else {}
    return [_record(folder, info, episode, about) for episode in episodes]


def _record(folder: Path, info: dict, episode: dict, about: dict) -> Record:
    specs = {feature: spec for feature, spec in info["features"].items() if _usable(spec)}
    names = stream_names(specs)
    if not names:
        raise UserError(f"{folder} has no feature of numbers or pictures; give another dataset")
    data = _place(folder, info.get("data_path"), episode, "data")
    shapes = tuple((f, tuple(specs[f]["shape"])) for f in names if specs[f]["dtype"] in NUMBERS)
    columns = _numbers(data, shapes, stamp(data))
    part = _part(columns["episode_index"], episode, data)
    values: dict[str, Any] = {}
    for feature, streams in names.items():
        if specs[feature]["dtype"] == "image":
            encoded = _Encoded(data, feature, part.start, part.stop)
            origin = f"{data}, episode {episode['episode_index']}"
            values[streams[0]] = Frames(encoded, _size(specs[feature]), origin)
        elif specs[feature]["dtype"] == "video":
            values[streams[0]] = _video(folder, info, episode, feature)
        elif len(streams) > 1:
            values |= {name: np.array(columns[feature][part, i]) for i, name in enumerate(streams)}
        else:
            values[streams[0]] = np.array(columns[feature][part])
    # A log that was converted brings its own clock.
    clock = values.pop("time_s", columns["frame_index"][part] / info["fps"])
    first = sorted(values, key=lambda name: name != "picture")
    name = episode.get("name") or f"episode_{episode['episode_index']:06d}"
    return Record(str(name), {n: Stream(values[n], clock) for n in first}, _about(info, episode, names) | about)


def _about(info: dict, episode: dict, names: dict[str, list[str]]) -> JsonObject:
    tasks = episode.get("tasks")
    return {
        "format": f"LeRobotDataset {info['codebase_version']}",
        "rate_hz": info["fps"],
        "clock": "frame_index / fps",
        "steer_range_rad": None,
        "sign": "as recorded",
        "episode": episode["episode_index"],
        "task": ", ".join(map(str, tasks)) if isinstance(tasks, list) else str(tasks),
        "features": {name: feature for feature, streams in names.items() for name in streams},
        "skipped": sorted(set(info["features"]) - set(names) - set(INDEXES)),
        "faults": [],
        "num_faults": 0,
    }


def _usable(spec: dict) -> bool:
    """Numbers and colour pictures; no text, and no depth, which does not fit 8 bits."""
    notes = (spec.get("info") or {}) | (spec.get("video_info") or {})
    depth = notes.get("is_depth_map") or notes.get("video.is_depth_map")
    return spec["dtype"] in NUMBERS or (spec["dtype"] in ("image", "video") and not depth)


def _part(indexes: np.ndarray, episode: dict, data: Path) -> slice:
    """The rows of an episode in its file."""
    number, length = episode["episode_index"], episode["length"]
    rows = np.flatnonzero(indexes == number)
    if len(rows) != length or not length or rows[-1] - rows[0] != length - 1:
        raise UserError(
            f"{data} holds {len(rows)} rows of episode {number} where {length} in one piece were announced; "
            "copy the dataset anew"
        )
    return slice(int(rows[0]), int(rows[-1]) + 1)


def _size(spec: dict) -> tuple[int, int]:
    """Height and width, whether the channels come first or last."""
    a, b, c = spec["shape"]
    return (b, c) if a in (1, 3) and c not in (1, 3) else (a, b)


def _place(folder: Path, template: Any, episode: dict, kind: str, video_key: str = "") -> Path:
    """The file that `template` of info.json and the numbers in the episode's row point to."""
    places = {f"{part}_index": episode.get(f"{kind}/{part}_index") for part in ("chunk", "file")}
    places |= {name: episode[name] for name in ("episode_index", "episode_chunk") if name in episode}
    try:
        path = folder / template.format(**places, video_key=video_key)
        return _inside(path, folder)
    except UserError:
        raise
    except Exception as error:  # A template may ask for anything.
        raise UserError(
            f"{folder} doesn't say where the {kind} of episode {episode['episode_index']} is "
            f"({error!r}); copy its folder meta anew"
        ) from error


def _inside(path: Path, folder: Path) -> Path:
    if strays(path, folder):
        raise UserError(f"{path} lies outside its dataset; copy the file itself into {folder}")
    return path


def _info(path: Path) -> dict:
    info = json_of(path)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if not isinstance(version, str):
        raise UserError(f"{path} states no codebase_version; copy the dataset anew")
    if not version.startswith(("v2.", "v3.")):
        raise UserError(f"{path} is of version {version}, not v2 or v3; convert it with lerobot's own script")
    fps, features = info.get("fps"), info.get("features")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise UserError(f"{path}: fps is {fps!r}, not a number above zero")
    if not isinstance(features, dict) or not all(map(_sound, features.values())):
        raise UserError(f"{path}: a feature lacks a dtype or a shape; copy the dataset anew")
    return info


def _sound(spec: object) -> bool:
    if not isinstance(spec, dict) or not isinstance(spec.get("dtype"), str):
        return False
    shape, notes = spec.get("shape"), [spec.get("info"), spec.get("video_info")]
    pictures = spec["dtype"] in ("image", "video")
    return (
        isinstance(shape, list)
        and all(isinstance(n, int) and n > 0 for n in shape)
        and (len(shape) == 3 or not pictures)
        and all(note is None or isinstance(note, dict) for note in notes)
    )


def _episodes(folder: Path) -> list[dict]:
    """The rows of meta/episodes without their statistics, in order."""
    rows: dict[int, dict] = {}
    for path in sorted(folder.glob("meta/episodes/*/*.parquet")):
        with reading(path), pq.ParquetFile(_inside(path, folder)) as file:
            names = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
            for row in file.read(columns=names).to_pylist():
                rows[_number(row)] = row
    return [rows[index] for index in sorted(rows)]


def _listed(folder: Path, info: dict) -> list[dict]:
    """The lines of a v2's meta/episodes.jsonl, in order, as rows of a v3."""
    path, rows = _inside(folder / "meta/episodes.jsonl", folder), {}
    chunk = info.get("chunks_size", CHUNK)
    if not isinstance(chunk, int) or chunk < 1:
        raise UserError(f"{folder / INFO}: chunks_size is {chunk!r}, not a number above zero")
    starts = {f"videos/{feature}/from_timestamp": 0.0 for feature in info["features"]}
    with reading(path):
        for place, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                index = _number(row)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {place}: {error}") from error
            rows[index] = row | starts | {"episode_chunk": index // chunk}
    return [rows[index] for index in sorted(rows)]


def _number(row: object) -> int:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), int) for key in ("episode_index", "length")):
        raise ValueError("a row lacks its episode_index or length")
    return row["episode_index"]


@lru_cache(maxsize=2)
def _numbers(path: Path, shapes: tuple[tuple[str, tuple[int, ...]], ...], stamp: str) -> dict[str, np.ndarray]:
    """The columns of numbers of a file, which may hold many episodes; `stamp` tells when it changed."""
    wanted = dict(shapes) | {"episode_index": (1,), "frame_index": (1,)}
    with reading(path), pq.ParquetFile(path) as file:
        table = file.read(columns=list(wanted))
        if missing := set(wanted) - set(table.column_names):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return {name: _numpy(table.column(name), shape) for name, shape in wanted.items()}


def _numpy(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    """(row, *shape), numbers of shape (1,) as (row,)."""
    array = column.combine_chunks()
    while not pa.types.is_primitive(array.type):
        if array.null_count:
            raise ValueError("rows are empty")
        array = array.storage if isinstance(array, pa.ExtensionArray) else array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    if array.null_count or values.dtype.kind not in "biuf":
        raise ValueError("what should be numbers is not")
    return values.reshape(len(column), *(() if shape == (1,) else shape))


class _Encoded(Fetched[bytes]):
    """The encoded pictures of an episode, fetched from its file when asked for."""

    def __init__(self, path: Path, feature: str, start: int, stop: int):
        self.place = (path, feature, start, stop, stamp(path))

    def __len__(self) -> int:
        return self.place[3] - self.place[2]

    def fetch(self, index: int) -> bytes:
        encoded = _pictures(*self.place)[index].as_py()
        if encoded is None:
            raise UserError(f"{self.place[0]} refers to pictures outside it; embed them with lerobot first")
        return encoded

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("|".join(map(str, self.place[1:])).encode()).hexdigest()


@lru_cache(maxsize=4)
def _pictures(path: Path, feature: str, start: int, stop: int, stamp: str) -> pa.Array:
    with reading(path), pq.ParquetFile(path) as file:
        lengths = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        ends = np.cumsum(lengths)
        first, last = (int(np.searchsorted(ends, row, side="right")) for row in (start, stop - 1))
        table = file.read_row_groups(list(range(first, last + 1)), columns=[feature])
        skipped = start - int(sum(lengths[:first]))
        rows = table.column(feature).slice(skipped, stop - start).combine_chunks()
        return rows.flatten()[rows.type.get_field_index("bytes")]


def _video(folder: Path, info: dict, episode: dict, feature: str) -> "Video":
    path = _place(folder, info.get("video_path"), episode, f"videos/{feature}", feature)
    start_s = episode.get(f"videos/{feature}/from_timestamp")
    if not isinstance(start_s, int | float) or not math.isfinite(start_s):
        raise UserError(f"{folder} doesn't say where episode {episode['episode_index']} begins in {path}")
    return Video(path, start_s, info["fps"], (episode["length"], *_size(info["features"][feature]), 3))


class Video:
    """A stretch of a video file, decoded when asked for: (time height width 3) uint8 RGB."""

    def __init__(self, path: Path, start_s: float, fps: float, shape: tuple[int, ...]):
        self.path, self.start_s, self.fps = path, start_s, fps
        self.shape, self.dtype = shape, np.dtype(np.uint8)
        self.fingerprint = hashlib.sha256(f"{stamp(path)}|{start_s}|{fps}|{shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        if not wanted.size:
            return np.empty((0, *self.shape[1:]), np.uint8)
        with reading(self.path):
            pictures = self._decode(np.unique(wanted))
            rows = np.stack([pictures[int(i)] for i in wanted.reshape(-1)])
            return rows.reshape(*wanted.shape, *self.shape[1:])

    def _decode(self, wanted: np.ndarray) -> dict[int, np.ndarray]:
        """Pictures by their number in the stretch, decoded in one run from the key frame before the first."""
        found: dict[int, np.ndarray] = {}
        with opened(self.path, DEMUXERS.get(self.path.suffix.lower(), "mov")) as (container, stream):
            begin_s = max(0.0, self.start_s + (int(wanted[0]) - 0.5) / self.fps)
            assert stream.time_base is not None
            container.seek(int(begin_s / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                number = round((frame.time - self.start_s) * self.fps)
                if number in wanted and number not in found:
                    found[number] = self._rgb(frame)
                if number >= wanted[-1]:
                    break
        if missing := sorted(set(wanted.tolist()) - set(found)):
            time_s = self.start_s + missing[0] / self.fps
            raise UserError(f"{self.path} has no picture at {time_s:.3f} s; copy the dataset anew")
        return found

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        picture = upright(frame.to_ndarray(format="rgb24"), frame)
        if picture.shape != self.shape[1:]:
            raise UserError(f"{self.path} has pictures of {picture.shape}, not {self.shape[1:]} as announced")
        return picture
