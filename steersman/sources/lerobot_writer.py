"""Recording drives as a LeRobotDataset v3 that any cut leaves whole."""

import io
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..data.records import Values
from ..errors import UserError
from ..files import inside, is_hidden, plain, write_file, written_whole
from . import lerobot_layout as layout
from .lerobot_layout import CHUNK, DATA, EPISODES, INFO, RECORDING, STATS, TASKS, VERSION, VIDEO, Kind

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
PNG_LEVEL = 3
"""Compression level of zlib: the quickest here, and smaller than 1."""
FILM = {"preset": "veryfast", "crf": "16", "g": "2", "bf": "0", "mbtree": "0"}
"""Settings of H.264: hardly any loss; a key frame every second picture, so that any is quickly found.

x264 with its mbtree reads memory it never set: pictures of the same bits became files of other bytes.
"""
FILMED = 64
"""Pictures encoded at a time."""
BESIDE = (".journal", ".damaged")
"""Ends of the names of files that a recording in the making has beside it."""

Statistics = dict[str, dict[str, np.ndarray]]
"""Statistics by feature, then by name."""


def begun_with(folder: Path) -> dict[str, Any]:
    """Task and `about` of a recording in a folder; empty where none was begun."""
    path = folder / RECORDING
    found = layout.json_of(plain(path)) if path.exists() else None
    return {name: found[name] for name in ("task", "about") if name in found} if isinstance(found, dict) else {}


class Writer:
    """Writes whole episodes; cut at any moment, even by `kill -9`, it leaves all earlier ones readable.

    Opened on the folder of a cut recording it goes on from there, and the files come out byte for byte as if
    there had been no cut. UserError where the folder holds something else or was begun with other settings. What it
    did not write it neither deletes nor writes over, and it follows no link out of the folder.
    """

    def __init__(
        self,
        folder: Path | str,
        fps: float,
        features: Mapping[str, Kind],
        task: str,
        about: dict | None = None,
        video: bool = False,
    ):
        """`features` gives each stream's dtype and shape (`lerobot_layout.kinds`).

        `about` (JSON values) comes back with every record. With `video` pictures go into mp4 files, small but with
        a loss, and may be decoded as they are read; without it they are kept as they are.
        """
        self.folder, self.fps, self.kinds, self.task = Path(folder), fps, dict(features), task
        self.features = layout.features(self.kinds)
        if video:
            self.features = layout.filmed(self.features, fps)
        self.films = [feature for feature, spec in self.features.items() if spec["dtype"] == "video"]
        self.names: set[str] = set()
        self.num_frames = 0
        self.stats: Statistics = {}
        recording = {"fps": fps, "streams": self.kinds, "task": task, "about": about or {}}
        self._open(recording | ({"video": True} if video else {}))

    @property
    def num_episodes(self) -> int:
        """Whole episodes in the folder."""
        return len(self.names)

    def add(self, episode: Mapping[str, Values], name: str | None = None) -> None:
        """Writes one episode; when this returns it is on the disk."""
        length, number = self._check(episode), self.num_episodes
        name = name or f"episode_{number:06d}"
        if name in self.names:
            raise UserError(f"{self.folder} has an episode {name!r} already; give each a name of its own")
        streams = layout.feature_streams(self.kinds)
        films: dict[str, Any] = {feature: episode[streams[feature][0]] for feature in self.films}
        columns: dict[str, Any] = _columns(self.kinds, episode, films) | {
            "timestamp": (np.arange(length) / self.fps).astype(np.float32),
            "frame_index": np.arange(length),
            "episode_index": np.full(length, number),
            "index": np.arange(self.num_frames, self.num_frames + length),
            "task_index": np.zeros(length, np.int64),
        }
        stats = {feature: statistics(values) for feature, values in (films | columns).items()}
        for feature, pictures in films.items():
            _write_film(self._path(VIDEO, number, feature), pictures, self.fps)
        # The data comes first: an episode counts from the moment its row is there.
        write_file(self._path(DATA, number), _parquet(_frames_table(columns, self.features)))
        write_file(self._path(EPISODES, number), _parquet(self._episode_table(number, length, name, stats)))
        self._count(name, length, stats)
        self._write_totals()

    def _open(self, recording: dict) -> None:
        recording, path = json.loads(json.dumps(recording)), self._own(RECORDING)
        if path.exists():
            self._compare(layout.json_of(plain(path)), recording)
        elif self.folder.is_dir() and (others := self._others()):
            raise UserError(
                f"{self.folder} holds a dataset of another origin, or other files ({others[0]}); "
                "choose a folder that is new or empty"
            )
        write_file(path, _text(recording))
        write_file(self._own(TASKS), _parquet(_tasks_table(self.task)))
        while (path := self._path(EPISODES, self.num_episodes)).exists():
            self._count(*_recorded(path))
        self._path(DATA, self.num_episodes).unlink(missing_ok=True)
        self._write_totals()

    def _others(self) -> list[str]:
        """What the folder holds that is not the beginning of a recording."""
        found = [p for p in self.folder.iterdir() if p.name[0] != "." and p.suffix not in BESIDE]
        meta = (self.folder / RECORDING).parent
        if meta in found and all(is_hidden(p.name, Path(RECORDING).name) for p in meta.iterdir()):
            found.remove(meta)
        return sorted(path.name for path in found)

    def _compare(self, found: object, recording: dict) -> None:
        found = found if isinstance(found, dict) else {}
        other = [key for key in {**recording, **found} if found.get(key) != recording.get(key)]
        if other:
            raise UserError(
                f"{self.folder} was begun with another {' and another '.join(other)}; "
                "resume with the same settings, or record into another folder"
            )

    def _check(self, episode: Mapping[str, Values]) -> int:
        """Length of the episode; UserError where the streams are not those announced."""
        found = layout.kinds(episode)
        if found != self.kinds:
            raise UserError(f"the episode has streams {found}, the recording {self.kinds}; make them the same")
        lengths = {len(values) for values in episode.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise UserError(f"an episode's streams must be equally long and not empty, not {sorted(lengths)}")
        for name, values in episode.items():
            # Beside the controls a number may be missing, as a place before the first fix.
            sound = all_finite if name in layout.CONTROLS else is_measured
            if values.dtype.kind == "f" and not sound(values):
                raise UserError(f"stream {name!r} of the episode holds a value that is not a finite number")
        return lengths.pop()

    def _path(self, template: str, number: int, video_key: str = "") -> Path:
        chunk, file = divmod(number, CHUNK)
        return self._own(template.format(chunk_index=chunk, file_index=file, video_key=video_key))

    def _own(self, name: str) -> Path:
        """A file of the recording. UserError where a link on the way to it leads out of its folder."""
        path = self.folder / name
        inside(path.parent, self.folder)
        return path

    def _episode_table(self, number: int, length: int, name: str, stats: Statistics) -> pa.Table:
        chunk, file = divmod(number, CHUNK)
        row = {
            "episode_index": number,
            "tasks": [self.task],
            "length": length,
            "name": name,
            "data/chunk_index": chunk,
            "data/file_index": file,
            **{
                f"videos/{feature}/{key}": value
                for feature in self.films
                for key, value in (
                    ("chunk_index", chunk),
                    ("file_index", file),
                    ("from_timestamp", 0.0),
                    ("to_timestamp", length / self.fps),
                )
            },
            "dataset_from_index": self.num_frames,
            "dataset_to_index": self.num_frames + length,
            **{f"stats/{f}/{stat}": value for f, found in _plain(stats).items() for stat, value in found.items()},
            "meta/episodes/chunk_index": chunk,
            "meta/episodes/file_index": file,
        }
        return pa.Table.from_pylist([row])

    def _count(self, name: str, length: int, stats: Statistics) -> None:
        self.names.add(name)
        self.num_frames += length
        self.stats = {f: joined(self.stats[f], stats[f]) for f in stats} if self.stats else stats

    def _write_totals(self) -> None:
        if self.stats:
            write_file(self._own(STATS), _text(_plain(self.stats)))
        info = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": self.num_episodes,
            "total_frames": self.num_frames,
            "total_tasks": 1,
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.fps) if self.fps == int(self.fps) else self.fps,
            "splits": {"train": f"0:{self.num_episodes}"},
            "data_path": DATA,
            "video_path": VIDEO if self.films else None,
            "features": self.features,
        }
        write_file(self._own(INFO), _text(info))


def _columns(streams: Mapping[str, Kind], episode: Mapping[str, Values], films: Mapping) -> dict[str, np.ndarray]:
    """The values of each feature that is not in a film; the streams of `action` side by side."""
    columns = {}
    for feature, names in layout.feature_streams(streams).items():
        if feature in films:
            continue
        values = [np.asarray(episode[name]) for name in names]
        columns[feature] = values[0] if len(values) == 1 else np.stack(values, -1)
    return columns


def _frames_table(columns: Mapping[str, np.ndarray], specs: Mapping[str, dict]) -> pa.Table:
    arrays = {feature: _array(values) for feature, values in columns.items()}
    # What the `datasets` library reads a column as; lerobot is built on it.
    hints = {"info": {"features": {feature: _hint(specs[feature]) for feature in columns}}}
    return pa.table(arrays).replace_schema_metadata({"huggingface": json.dumps(hints)})


def _array(values: np.ndarray) -> pa.Array:
    if values.ndim == 4:
        names = [f"frame-{i:06d}.png" for i in range(len(values))]
        encoded = pa.array([_png(picture) for picture in values], pa.binary())
        return pa.StructArray.from_arrays([encoded, pa.array(names)], ["bytes", "path"])
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.array(values)


def _hint(spec: dict) -> dict:
    if spec["dtype"] == "image":
        return {"_type": "Image"}
    value = {"dtype": spec["dtype"], "_type": "Value"}
    if spec["shape"] == [1]:
        return value
    return {"feature": value, "length": spec["shape"][0], "_type": "Sequence"}


def _write_film(path: Path, pictures: Values, fps: float) -> None:
    """An mp4 with one frame a picture, at multiples of 1 / fps from zero."""
    height, width = pictures.shape[1:3]
    with written_whole(path) as file, av.open(file, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=FILM)
        stream.width, stream.height, stream.pix_fmt = width, height, layout.pixel_format(height, width)
        for start in range(0, len(pictures), FILMED):
            for picture in np.asarray(pictures[start : start + FILMED]):
                film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        film.mux(stream.encode())


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _tasks_table(task: str) -> pa.Table:
    """lerobot reads this with pandas, the sentence as the index."""
    types = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"field_name": name, "name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, (kind, dtype) in types.items()
    ]
    notes = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    table = pa.table({"task_index": [0], "task": [task]})
    return table.replace_schema_metadata({"pandas": json.dumps(notes)})


def statistics(values: Values) -> dict[str, np.ndarray]:
    """What lerobot keeps of a feature: a number for each part of a vector, each colour of pictures / 255."""
    if len(values.shape) == 4:
        return _picture_statistics(values)
    rows = values[:].reshape(len(values), -1).astype(np.float64)
    shares = list(QUANTILES.values())
    if np.isfinite(rows).all():
        found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
        quantiles = zip(QUANTILES, np.quantile(rows, shares, axis=0), strict=True)
    else:  # Of what there is.
        rows[~np.isfinite(rows)] = np.nan
        found = {"min": np.nanmin(rows, 0), "max": np.nanmax(rows, 0)}
        found |= {"mean": np.nanmean(rows, 0), "std": np.nanstd(rows, 0)}
        quantiles = zip(QUANTILES, np.nanquantile(rows, shares, axis=0), strict=True)
    return found | {"count": np.array([len(rows)])} | dict(quantiles)


def all_finite(values: Values) -> bool:
    return bool(np.isfinite(values[:]).all())


def is_measured(values: Values) -> bool:
    """Whether each number of a stream (time ...) is a finite one now and then."""
    return bool(np.isfinite(values[:]).reshape(len(values), -1).any(0).all())


def _picture_statistics(pictures: Values) -> dict[str, np.ndarray]:
    """Statistics of some 100 pictures or more, as lerobot samples them; large ones thinned out."""
    num = max(min(len(pictures), 100), min(int(len(pictures) ** 0.75), 10_000))
    thin = max(1, max(pictures.shape[1:3]) // 150)
    sample = np.asarray(pictures[np.linspace(0, len(pictures) - 1, num).round().astype(int)])[:, ::thin, ::thin]
    level = np.arange(256) / 255
    found = []
    for colour in range(3):
        share = np.bincount(sample[..., colour].reshape(-1), minlength=256)
        seen, below = level[share > 0], np.cumsum(share)
        mean = share @ level / below[-1]
        spread = np.sqrt(share @ (level - mean) ** 2 / below[-1])
        quantiles = level[np.searchsorted(below, np.array(list(QUANTILES.values())) * below[-1])]
        found.append([seen[0], seen[-1], mean, spread, *quantiles])
    names = ("min", "max", "mean", "std", *QUANTILES)
    stats = dict(zip(names, np.array(found).T.reshape(len(names), 3, 1, 1), strict=True))
    return stats | {"count": np.array([num])}


def joined(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of both together; quantiles as a weighted mean, which is how lerobot joins them."""
    a, b = first["count"][0], second["count"][0]

    def mean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x * a + y * b) / (a + b)

    both = mean(first["mean"], second["mean"])
    spread = mean(*(s["std"] ** 2 + (s["mean"] - both) ** 2 for s in (first, second)))
    return {
        "min": np.minimum(first["min"], second["min"]),
        "max": np.maximum(first["max"], second["max"]),
        "mean": both,
        "std": np.sqrt(spread),
        "count": first["count"] + second["count"],
        **{q: mean(first[q], second[q]) for q in QUANTILES},
    }


def _plain(stats: Statistics) -> dict[str, dict[str, list]]:
    return {feature: {stat: value.tolist() for stat, value in found.items()} for feature, found in stats.items()}


def _recorded(path: Path) -> tuple[str, int, Statistics]:
    """Name, length and statistics of an episode written before."""
    stats: Statistics = {}
    with layout.reading(path):
        row = pq.read_table(path).to_pylist()[0]
        for key, value in row.items():
            if key.startswith("stats/"):
                _, feature, stat = key.split("/")
                stats.setdefault(feature, {})[stat] = np.array(value)
        return row["name"], row["length"], stats


def _text(value: object) -> bytes:
    return json.dumps(value, indent=4, ensure_ascii=False).encode()


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="snappy", row_group_size=max(1, len(table)))
    return sink.getvalue().to_pybytes()
