"""Raw logs to Records: one reader a file, found by what a folder holds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from glob import glob
from os.path import commonpath
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl

from ..data.records import Record
from ..errors import UserError
from ..plugins import Registry, part
from . import selection, tables, unknown

READERS: Registry[ModuleType] = Registry(
    {
        "lerobot": ("lerobot", "LeRobotDataset v3 or v2"),
        "donkeycar": ("donkeycar", "tub of donkeycar, version 2 or 1"),
        "udacity_sim": ("udacity_sim", "Udacity's simulator"),
        "udacity_ch2": ("udacity_ch2", "Udacity's Challenge 2"),
        "deeptesla": ("deeptesla", "DeepTesla or DeepPicar"),
        "comma2k19": ("comma2k19", "comma2k19"),
        "comma2016": ("comma2016", "comma.ai 2016"),
        "ros_bag": ("ros_bag", "ROS 1"),
        "mcap": ("mcap_log", "MCAP"),
        "ros2_bag": ("ros2_bag", "ROS 2"),
        "openpilot": ("openpilot", "openpilot"),
        "sullychen": ("sullychen", "SullyChen's driving datasets"),
        "airsim": ("airsim", "AirSim's recordings"),
        "rollouts": ("rollouts", "CarRacing rollouts of World Models"),
        "carla": ("carla", "CARLA's dataset of imitation learning"),
        "openbot": ("openbot", "OpenBot's sessions"),
        "folder": ("folder", "a table, and pictures or a video"),
    },
    room="sources",
)
"""Readers: each has `detect(path) -> bool` and `read(path) -> list[Record]` and `LAYOUT`, what it looks for.

One whose logs need naming has `OPTIONS`, the names that it knows, and `read(path, given)`; what is found only
by them it tells by `named(path, given)`.
"""
WISH = "as"
"""What names the reader that a log is to be read by: `FILE?as=text`."""
DEPTH = 3
"""Levels of folders below the one given that are looked into."""


def read(*paths: Path | str) -> list[Record]:
    """All recordings of a log, or of a folder of logs of whatever formats, sorted by place; of several, one by one.

    A path may be a pattern, `drives/*/tub`, or a file of paths, `@logs.txt`. Where a format leaves something open it is
    named behind the path; see `options`. UserError where there is no log, or where one can't be read.
    """
    logs = [log for path in paths for log in expanded(path)]
    if len(logs) == 1:
        return _records(logs[0])
    found = [(log, _records(log)) for log in logs]
    names = Counter(record.name for _, records in found for record in records)
    # Logs of the same name are told apart by where they lie.
    places = [options(log)[0].resolve() for log in logs]
    base = Path(commonpath([place.parent for place in places])) if places else Path()
    return [
        replace(record, name=_below(record.name, place, base)) if names[record.name] > 1 else record
        for place, (_, records) in zip(places, found, strict=True)
        for record in records
    ]


def expanded(path: Path | str) -> list[str]:
    """The logs that a path stands for: those of a pattern with `*`, or the lines of a file behind an `@`.

    UserError where there are none.
    """
    text = str(path)
    place, mark, named = text.partition("?")
    if text.startswith("@") and not Path(text).exists():
        listed = Path(text[1:])
        try:
            lines = [line.strip() for line in listed.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise UserError(f"{listed} can't be read as a list of logs: {error}") from error
        found = [str(listed.parent / line) for line in lines if line and not line.startswith("#")]
        found = [one for line in found for one in expanded(line)]
    elif set(place) & set("*[") and not Path(place).exists() and not Path(text).exists():
        found = [
            one + mark + named for one in sorted(glob(place, recursive=True)) if not Path(one).name.startswith("._")
        ]
    else:
        return [text]
    if not found:
        raise UserError(f"{path} stands for no log: nothing fits it")
    return found


def are_tables(paths: Sequence[Path | str]) -> bool:
    """Whether these are tables over time rather than recordings of a drive: tables, none of which a reader takes."""
    found = [options(log) for path in paths for log in expanded(path)]
    return all(not given and tables.detect(path) and not any(_logs(path, DEPTH, {})) for path, given in found)


def _records(log: str) -> list[Record]:
    path, given = options(log)
    if not path.exists():
        raise UserError(f"there is no {path}; give the folder of a recording")
    chosen = {name: given.pop(name) for name in selection.NAMES if name in given}
    wish = given.pop(WISH, "")
    # Many a folder of logs has a README.txt: texts are what is left when there is nothing else.
    text: ModuleType = part("sources.text")
    if wish:
        logs = [(path, _wished(wish, path, given, text))]
    else:
        logs = list(_logs(path, DEPTH, given)) or ([(path, text)] if text.detect(path) else [])
    if not logs:
        raise UserError(_unknown(path, text))
    found = [_placed(record, log, path) for log, reader in logs for record in _read(log, reader, given)]
    return selection.selected(found, chosen, path) if chosen else found


def _wished(name: str, path: Path, given: Mapping[str, str], text: ModuleType) -> ModuleType:
    """The reader of a name; UserError where there is none, or where the path holds nothing for it."""
    if name != "text" and name not in READERS:
        raise UserError(f"{path}: {WISH}={name} is none of text, {', '.join(READERS)}")
    if name == "text":
        fits = path.is_file() or any(path.glob("*.txt"))
        reader = text
    else:
        reader = READERS[name]
        fits = reader.detect(path) or (hasattr(reader, "named") and reader.named(path, given))
    if not fits:
        raise UserError(f"{path} can't be read as {name}: it lacks {reader.LAYOUT}")
    return reader


def _unknown(path: Path, text: ModuleType) -> str:
    """What is wrong with a path that no reader takes, and what to do."""
    unless = f"; to read it as a text all the same: {path}?{WISH}=text" if path.is_file() else ""
    owner = next((reader for reader in READERS.values() if path.is_file() and reader.detect(path.parent)), None)
    if owner:
        return f"{path} seems to be part of a log ({owner.LAYOUT}); give its folder, {path.parent}{unless}"
    if said := unknown.seems(path):
        return f"no recording in {path}: {said}{unless}"
    layouts = "; ".join(reader.LAYOUT for reader in (*READERS.values(), text))
    return f"no recording in {path}; give a folder with one of these in it: {layouts}{unless}"


def _below(name: str, place: Path, base: Path) -> str:
    """The name of a record of one of several logs, with where the log lies."""
    where = place.relative_to(base).as_posix()
    return where + name.removeprefix(place.name) if name.startswith(place.name) else f"{where}/{name}"


def options(path: Path | str) -> tuple[Path, dict[str, str]]:
    """Divides `LOG?name=value&name=value` into the log's path and what is named; a file of that very name comes first.

    UserError where what follows the question mark is not of that form.
    """
    place, mark, rest = str(path).partition("?")
    if not mark or Path(path).exists():
        return Path(path), {}
    try:
        return Path(place), dict(parse_qsl(rest, strict_parsing=True))
    except ValueError:
        raise UserError(f"there is no {path}, and what follows the ? is not name=value&name=value") from None


def _read(log: Path, reader: ModuleType, given: Mapping[str, str]) -> list[Record]:
    known = getattr(reader, "OPTIONS", ())
    if unknown := sorted(set(given) - set(known)):
        names = ", ".join(known) or "none"
        raise UserError(f"{log}: its format knows no {', '.join(unknown)}; the names that it knows: {names}")
    return reader.read(log, given) if known else reader.read(log)


def _logs(path: Path, depth: int, given: Mapping[str, str]) -> Iterator[tuple[Path, ModuleType]]:
    try:
        fitting = (reader for reader in READERS.values() if reader.detect(path))
        found = next(fitting, None)
        if found and given:
            # One that knows what is named comes first: the columns of any table can be named.
            known = (one for one in (found, *fitting) if set(given) <= set(getattr(one, "OPTIONS", ())))
            found = next(known, found)
        if given and not found:
            found = next((r for r in READERS.values() if hasattr(r, "named") and r.named(path, given)), None)
    except OSError as error:
        raise UserError(f"{path} can't be looked into: {error.strerror}") from error
    if found:
        yield path, found
        return
    if depth and path.is_dir():
        for folder in _folders(path):
            yield from _logs(folder, depth - 1, given)


def _folders(path: Path) -> list[Path]:
    try:
        # What is half written, by `convert`, passes for no log.
        return sorted(
            child for child in path.iterdir() if child.is_dir() and child.suffix != ".part" and child.name != "__MACOSX"
        )
    except OSError as error:
        raise UserError(f"{path} can't be looked into: {error.strerror}") from error


def _placed(record: Record, log: Path, path: Path) -> Record:
    """The same record; one of several logs is named by its place below `path`."""
    if log == path:
        return record
    place = log.relative_to(path).as_posix()
    if record.name == log.name or record.name.startswith(f"{log.name}/"):
        return replace(record, name=place + record.name.removeprefix(log.name))
    return replace(record, name=f"{place}/{record.name}")
