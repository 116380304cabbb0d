"""Raw logs to Records: one reader a file, found by what a folder holds."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qsl

from ..data.records import Record
from ..errors import UserError
from ..plugins import Registry, part

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
        "openpilot": ("openpilot", "openpilot"),
        "folder": ("folder", "a table, and pictures or a video"),
    },
    room="sources",
)
"""Readers: each has `detect(path) -> bool` and `read(path) -> list[Record]` and `LAYOUT`, what it looks for.

One whose logs need naming has `OPTIONS`, the names that it knows, and `read(path, given)`; what is found only
by them it tells by `named(path, given)`.
"""
DEPTH = 3
"""Levels of folders below the one given that are looked into."""


def read(path: Path | str) -> list[Record]:
    """All recordings of a log, or of a folder of logs of whatever formats, sorted by place.

    Where a format leaves something open it is named behind the path; see `options`. UserError where there is no log,
    or where one can't be read.
    """
    path, given = options(path)
    if not path.exists():
        raise UserError(f"there is no {path}; give the folder of a recording")
    # Many a folder of logs has a README.txt: texts are what is left when there is nothing else.
    text: ModuleType = part("sources.text")
    logs = list(_logs(path, DEPTH, given)) or ([(path, text)] if text.detect(path) else [])
    if not logs:
        layouts = "; ".join(reader.LAYOUT for reader in (*READERS.values(), text))
        raise UserError(f"no recording in {path}; give a folder with one of these in it: {layouts}")
    return [_placed(record, log, path) for log, reader in logs for record in _read(log, reader, given)]


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
        found = next((reader for reader in READERS.values() if reader.detect(path)), None)
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
        return sorted(child for child in path.iterdir() if child.is_dir() and child.suffix != ".part")
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
