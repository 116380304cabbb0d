"""LeRobotDataset v3 and v2: parquet for the numbers, PNG in parquet or video for the pictures.

v2 has a file an episode, listed in `meta/episodes.jsonl`; v3 has many to a file. `lerobot_layout` says which
feature is which stream. Pictures are decoded when asked for.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..data.fetched import Fetched
from ..data.frames import Frames, stamp
from ..data.records import Index, Record, Stream, clock_fault
from ..errors import UserError
from ..json_types import JsonObject
from . import lerobot_wheel
from .drives import FAULTS_SHARE, FAULTS_SHOWN, GAP_S, picked
from .films import DEMUXERS, opened, upright
from .lerobot_layout import CHUNK, CONTROLS, INDEXES, INFO, RECORDING, Kind, json_of, kinds, reading, stream_names
from .lerobot_wheel import OPTIONS, Steer, full_lock, listed, steer_of
from .lerobot_writer import Writer, begun_with
from .safety import entries, strays

__all__ = ["OPTIONS", "Kind", "Writer", "begun_with", "detect", "kinds", "read"]

LAYOUT = "LeRobotDataset v3 or v2: meta/info.json, meta/episodes/ or meta/episodes.jsonl, and data/"
NOTHING: Mapping[str, str] = MappingProxyType({})
NUMBERS = {"bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
NUMBERS |= {"float16", "float32", "float64"}


def detect(path: Path) -> bool:
    return (path / INFO).is_file()


def read(folder: Path | str, given: Mapping[str, str] = NOTHING) -> list[Record]:
    """The episodes in order, whether one or many to a file, with images or video.

    An episode that can't be read, as its files were not downloaded, is left out and counted, as are frames whose wheel
    is no number; a pause of over a second that they leave ends a record. UserError where there is no episode, or where
    what is named is not there.
    """
    folder = Path(folder)
    info = _info(_inside(folder / INFO, folder))
    episodes = _listed(folder, info) if info["codebase_version"].startswith("v2.") else _episodes(folder)
    if not episodes:
        raise UserError(f"{folder} holds no whole episode; record some, or give another folder")
    chosen = lerobot_wheel.episodes(folder, given, [episode["episode_index"] for episode in episodes])
    episodes = [episode for episode in episodes if episode["episode_index"] in chosen]
    recording = json_of(_inside(folder / RECORDING, folder)) if (folder / RECORDING).exists() else {}
    about = recording.get("about") if isinstance(recording, dict) else None
    about = about if isinstance(about, dict) else {}
    source = _source(folder, info, episodes, given)
    found, lost = _all(source, episodes)
    if source.steer and lost.beyond > FAULTS_SHARE * sum(episode["length"] for episode in episodes):
        if "steer" in given:
            raise UserError(
                f"{folder}: {source.steer.said} goes up to {lost.furthest:g}, beyond full lock, which is 1; name what "
                "makes it a fraction, as scale=0.01"
            )
        found, lost = _all(_without(source), episodes)
    if not found and lost.first:
        raise lost.first
    told = lost.about()
    return [replace(record, about=record.about | told | about) for record in found]


def _all(source: "_Source", episodes: list[dict]) -> tuple[list[Record], "_Lost"]:
    found, lost = [], _Lost()
    for episode in episodes:
        try:
            found += _records(source, episode, lost)
        except UserError as error:
            lost.add(episode["length"], f"episode {episode['episode_index']}", error)
            lost.first = lost.first or error
    return found, lost


@dataclass
class _Lost:
    """What was left out of a dataset, with the reasons."""

    frames: int = 0
    found: list[str] = field(default_factory=list)
    first: UserError | None = None
    beyond: int = 0
    """Frames whose wheel is beyond full lock."""
    furthest: float = 0.0

    def add(self, frames: int, where: str, what: object) -> None:
        self.frames += frames
        self.found.append(f"{where}, {frames} frames: {what}" if frames > 1 else f"{where}: {what}")

    def about(self) -> JsonObject:
        return {"faults": self.found[:FAULTS_SHOWN], "num_faults": self.frames}


@dataclass(frozen=True)
class _Source:
    """What holds of all episodes of a dataset."""

    folder: Path
    info: dict
    specs: dict[str, dict]
    names: dict[str, list[str]]
    steer: Steer | None
    about: JsonObject
    hint: JsonObject
    """What is told where nothing steers."""


def _source(folder: Path, info: dict, episodes: list[dict], given: Mapping[str, str]) -> _Source:
    specs = {feature: spec for feature, spec in info["features"].items() if _usable(spec)}
    absent = [f for f, spec in specs.items() if spec["dtype"] == "video" and not _downloaded(folder, info, episodes, f)]
    if len(absent) < sum(spec["dtype"] == "video" for spec in specs.values()):
        specs = {feature: spec for feature, spec in specs.items() if feature not in absent}
    names = stream_names(specs)
    if not names:
        raise UserError(f"{folder} has no feature of numbers or pictures; give another dataset")
    flat = {feature: specs[feature] for feature in names if specs[feature]["dtype"] in NUMBERS}
    has = any("steer" in streams for streams in names.values())
    steer = None if has and "steer" not in given else steer_of(folder, flat, given)
    about: JsonObject = {
        "format": f"LeRobotDataset {info['codebase_version']}",
        "rate_hz": info["fps"],
        "clock": "frame_index / fps",
        "steer_range_rad": None,
        "sign": f"steer = {steer.said}, {steer.sign}" if steer else "as recorded",
        "features": {name: feature for feature, streams in names.items() for name in streams},
        "skipped": sorted(set(info["features"]) - set(names) - set(INDEXES)),
    }
    hint = {} if has else {"hint": f"name what steers, quoted: '{folder.name}?steer=NUMBER', of {listed(flat)}"}
    return _Source(folder, info, specs, names, steer, about if steer else about | hint, hint)


def _without(source: _Source) -> _Source:
    """The source with nothing that steers."""
    return replace(source, steer=None, about=source.about | {"sign": "as recorded"} | source.hint)


def _downloaded(folder: Path, info: dict, episodes: list[dict], feature: str) -> bool:
    """Whether any video of a camera is here."""
    for episode in episodes:
        with suppress(UserError, OSError, ValueError):
            if _video_place(folder, info, episode, feature).exists():
                return True
    return False


def _records(source: _Source, episode: dict, lost: _Lost) -> list[Record]:
    """The episode, or its parts between pauses that frames without a wheel leave."""
    folder, info, specs, names = source.folder, source.info, source.specs, source.names
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
    if source.steer:
        angle = source.steer.of({feature: column[part] for feature, column in columns.items()})
        values["steer"], beyond = full_lock(angle)
        if beyond.any():
            lost.beyond += int(beyond.sum())
            lost.furthest = max(lost.furthest, *angle[beyond].tolist(), key=abs)
    # A log that was converted brings its own clock.
    clock = columns["frame_index"][part] / info["fps"]
    own = values.pop("time_s", None)
    if own is not None and own.ndim == 1 and own.dtype.kind == "f" and not clock_fault(own):
        clock = own
    kept = _kept(values, episode, lost)
    first = sorted(values, key=lambda name: name != "picture")
    name = str(episode.get("name") or f"episode_{episode['episode_index']:06d}")
    tasks = episode.get("tasks")
    task = ", ".join(map(str, tasks)) if isinstance(tasks, list) else str(tasks)
    about = source.about | {"episode": episode["episode_index"], "task": task}
    if kept is None:
        return [Record(name, {n: Stream(values[n], clock) for n in first}, about)]
    usual = float(np.median(np.diff(clock))) if len(clock) > 1 else 0.0
    parts = np.split(kept, np.flatnonzero(np.diff(clock[kept]) > max(GAP_S, 1.5 * usual)) + 1)
    found = []
    for number, rows in enumerate(parts):
        own = clock[rows] - (clock[rows[0]] if number else 0.0)
        streams = {n: Stream(picked(values[n], rows), own) for n in first}
        found.append(Record(name + (f"/{number}" if len(parts) > 1 else ""), streams, about))
    return found


def _kept(values: Mapping[str, Any], episode: dict, lost: _Lost) -> np.ndarray | None:
    """The rows whose controls are numbers; None where all are. UserError where none are.

    Of a control other than the wheel that is often none, none is asked.
    """
    controls = [name for name in values if name in CONTROLS] or [name for name in values if name.startswith("action")]
    bad = np.zeros(episode["length"], bool)
    for name in controls:
        missing = ~np.isfinite(values[name]).reshape(len(bad), -1).all(1)
        if name == "steer" or missing.mean() <= FAULTS_SHARE:
            bad |= missing
    if not bad.any():
        return None
    if bad.all():
        raise UserError("its wheel is never a number of the range that it should have")
    for row in np.flatnonzero(bad).tolist():
        said = ", ".join(f"{name} {values[name][row]}" for name in controls)
        lost.add(1, f"episode {episode['episode_index']}, frame {row}", f"not all of it is a number: {said}")
    return np.flatnonzero(~bad)


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
    for path in entries(folder, "meta/episodes/*/*.parquet"):
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


def _video_place(folder: Path, info: dict, episode: dict, feature: str) -> Path:
    return _place(folder, info.get("video_path"), episode, f"videos/{feature}", feature)


def _video(folder: Path, info: dict, episode: dict, feature: str) -> "Video":
    path = _video_place(folder, info, episode, feature)
    start_s = episode.get(f"videos/{feature}/from_timestamp")
    if not isinstance(start_s, int | float) or not math.isfinite(start_s):
        raise UserError(f"{folder} doesn't say where episode {episode['episode_index']} begins in {path}")
    last_s, end_s = start_s + (episode["length"] - 1) / info["fps"], _end_s(path, stamp(path))
    if last_s > end_s:
        raise UserError(f"{path} ends at {end_s:.3f} s, but has to show {last_s:.3f} s; copy the dataset anew")
    return Video(path, start_s, info["fps"], (episode["length"], *_size(info["features"][feature]), 3))


@lru_cache(maxsize=256)
def _end_s(path: Path, stamp: str) -> float:
    """The second at which a video ends by its own account."""
    with reading(path), _film(path) as (_, stream):
        if stream.duration is None or stream.time_base is None:
            return math.inf
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _film(path: Path) -> AbstractContextManager[tuple[Any, Any]]:
    """A film of a dataset, opened as what its name says it is."""
    return opened(path, DEMUXERS.get(path.suffix.lower(), "mov"))


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
        with _film(self.path) as (container, stream):
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
