"""Raw logs to Records: one reader a file, found by what a folder holds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from steersman.errors import UserError
from steersman.records import Record

from . import donkeycar, lerobot, text, udacity_sim

READERS: dict[str, ModuleType] = {
    "lerobot": lerobot,
    "donkeycar": donkeycar,
    "udacity_sim": udacity_sim,
}
"""Each has `detect(path) -> bool` and `read(path) -> list[Record]` and `LAYOUT`, what it looks for."""
DEPTH = 3
"""Levels of folders below the one given that are looked into."""


def read(path: Path | str) -> list[Record]:
    """All recordings of a log, or of a folder of logs of whatever formats, sorted by place.

    UserError where there is none, or where a log can't be read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no {path}; give the folder of a recording")
    # Many a folder of logs has a README.txt: texts are what is left when there is nothing else.
    logs = list(_logs(path, DEPTH)) or ([(path, text)] if text.detect(path) else [])
    if not logs:
        layouts = "; ".join(reader.LAYOUT for reader in (*READERS.values(), text))
        raise UserError(f"no recording in {path}; give a folder with one of these in it: {layouts}")
    return [_placed(record, log, path) for log, reader in logs for record in reader.read(log)]


def _logs(path: Path, depth: int) -> Iterator[tuple[Path, ModuleType]]:
    for reader in READERS.values():
        if reader.detect(path):
            yield path, reader
            return
    if depth and path.is_dir():
        for folder in _folders(path):
            yield from _logs(folder, depth - 1)


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
