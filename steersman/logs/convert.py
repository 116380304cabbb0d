"""A log of any format as a LeRobotDataset v3: numbers in parquet, pictures in mp4."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.records import Record, Values
from ..errors import UserError
from ..files import check_output, disk_error, inside, sync_folder
from ..json_types import JsonObject
from ..progress import Watch, silent
from ..sources import lerobot, read
from ..sources.lerobot_layout import CONTROLS
from ..sources.lerobot_writer import is_measured

CLOCK = "time_s"
"""Stream of the record's own clock: a dataset's is regular, a log's hardly ever."""
FAR = 0.1
"""Share by which a record's rate may differ from the dataset's before it is said."""


@dataclass(frozen=True)
class Converted:
    """What was written, and what of the log could not be."""

    episodes: int
    frames: int
    fps: int
    dropped: dict[str, str]
    """Streams left out, and why."""
    uneven: int
    """Records whose rate is not the dataset's."""


def convert(log: Path | str, out: Path | str, task: str = "drive", watch: Watch = silent) -> Converted:
    """Writes the folder `out`, which appears when it is whole; cut short, the same call goes on with it.

    UserError where `out` exists already, or where the log's records can't stand in one dataset.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out} exists already; name another folder, or remove it first")
    check_output(out, folder=True)
    records = read(log)
    names, dropped = _streams(records)
    kinds = {name: _kind(records, name) for name in names} | {CLOCK: ("float64", ())}
    rates = [rate for record in records if (rate := _rate_hz(record))]
    fps = max(1, round(float(np.median(rates)))) if rates else 1
    # A folder whose name ends so is never taken for a log.
    part = out.with_name(f"{out.name}.part")
    inside(part, part.parent)
    writer = lerobot.Writer(part, fps, kinds, task, _about(records, dropped), video=True)
    for i, record in enumerate(records):
        if i >= writer.num_episodes:
            writer.add(_episode(record, kinds), record.name)
        watch("converting", i + 1, len(records), record.name)
    try:
        os.rename(part, out)
    except OSError as error:
        raise disk_error(error, out) from error
    sync_folder(out.parent)
    uneven = sum(abs(rate / fps - 1) > FAR for rate in rates)
    return Converted(len(records), sum(map(len, records)), fps, dropped, uneven)


def _streams(records: Sequence[Record]) -> tuple[list[str], dict[str, str]]:
    """Names of the streams that all records have in a form that can be stored; the others, each with the reason."""
    names, dropped = [], {}
    for name in dict.fromkeys(name for record in records for name in record.streams):
        missing = sum(name not in record.streams for record in records)
        if missing:
            dropped[name] = f"{missing} of {len(records)} records lack it"
        elif not all(_storable(record.streams[name].values) for record in records):
            dropped[name] = "neither pictures, numbers nor vectors of two or more"
        elif name not in CONTROLS and (unknown := sum(not _is_measured(r[name].values) for r in records)):
            dropped[name] = f"in {unknown} of {len(records)} records a number of it is never known"
        elif name != CLOCK:
            names.append(name)
    if not names:
        raise UserError(f"no stream stands in all of {len(records)} records; convert their logs one by one")
    return names, dropped


def _storable(values: Values) -> bool:
    shape = values.shape[1:]
    if len(shape) == 3:
        return values.dtype == np.uint8 and shape[2] == 3
    return values.dtype.kind in "biuf" and (not shape or (len(shape) == 1 and shape[0] > 1))


def _is_measured(values: Values) -> bool:
    return values.dtype.kind != "f" or is_measured(values)


def _kind(records: Sequence[Record], name: str) -> lerobot.Kind:
    shapes = {tuple(record[name].values.shape[1:]): record.name for record in records}
    if len(shapes) > 1:
        said = ", ".join(f"{'x'.join(map(str, shape))} in {record}" for shape, record in shapes.items())
        raise UserError(f"{name} has several shapes ({said}); convert these logs into folders of their own")
    dtype = np.result_type(*(record[name].values.dtype for record in records))
    return str(dtype), next(iter(shapes))


def _episode(record: Record, kinds: Mapping[str, lerobot.Kind]) -> dict[str, Values]:
    """All streams on the clock of the first; pictures that stand on it already are not decoded yet."""
    clock = next(iter(record.streams.values())).time_s
    episode: dict[str, Values] = {}
    for name, (dtype, shape) in kinds.items():
        if name == CLOCK:
            episode[name] = np.asarray(clock, np.float64)
        elif len(shape) == 3 and np.array_equal(record[name].time_s, clock):
            episode[name] = record[name].values
        else:
            episode[name] = record[name].at(clock).astype(dtype)
    return episode


def _about(records: Sequence[Record], dropped: Mapping[str, str]) -> JsonObject:
    """What the readers said; a dataset has room for what holds of all its episodes."""
    logs = {str(r.about.get("faults")): r.about for r in records if r.about.get("num_faults")}

    def all_of(key: str) -> object:
        values = [record.about.get(key) for record in records]
        return values[0] if all(value == values[0] for value in values) else None

    return {
        "converted_from": sorted({str(record.about.get("format")) for record in records}),
        "clock": f"{CLOCK} of the log it was converted from ({all_of('clock')})",
        "sign": all_of("sign") or "steer is positive to the left",
        "steer_range_rad": all_of("steer_range_rad"),
        "left_out": dict(dropped),
        "faults": [fault for about in logs.values() for fault in about["faults"]],
        "num_faults": sum(about["num_faults"] for about in logs.values()),
        "notes": sorted({note for record in records for note in record.about.get("notes", [])}),
    }


def _rate_hz(record: Record) -> float:
    step = np.diff(next(iter(record.streams.values())).time_s)
    return float(1 / np.median(step[step > 0])) if (step > 0).any() else 0.0
