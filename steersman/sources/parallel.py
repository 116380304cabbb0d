"""Texts that say the same in two languages, line by line: two files, or one with a tab between the languages."""

import gzip
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..data.records import Record, text_stream
from ..errors import UserError
from ..progress import Watch, silent
from . import WISH, options, tables, unknown
from .source import SourceSpec
from .text import HEAD
from .text import is_table as of_numbers


def read(data: Sequence[str]) -> list[Record]:
    """A record a pair of lines: streams `source` and `target`, the bytes of its UTF-8.

    Files come in twos, source before target; a lone one has both languages, with a tab between. All may be gz or xz.
    Lines that are empty on a side are left out and counted. UserError where files are not aligned, or no UTF-8, or
    where one is a table over time and no text, unless it is named `FILE?as=text`.
    """
    paths = [_text_file(path) for path in data]
    alone = [path for path in paths if is_table(path)]
    others = [path for path in paths if not is_table(path)]
    if len(others) % 2:
        if len(paths) == 1:
            alone, others = paths, []
        else:
            raise UserError(
                f"{others[-1]} has no partner: give text files in twos, the source's before the target's, "
                "or one .tsv with a tab between the two"
            )
    lone = [(path, list(_columns(path))) for path in alone]
    aligned = [(s, _aligned(s, t)) for s, t in zip(others[::2], others[1::2], strict=True)]
    found = [record for path, pairs in [*lone, *aligned] for record in _records(path, pairs)]
    if not found:
        raise UserError(f"no pair of lines in {', '.join(map(str, paths))}: every line is empty on a side")
    return found


def _text_file(log: str) -> Path:
    """The path of a text. UserError where it is a table of another kind."""
    path, given = options(log)
    if given == {WISH: "text"} or not tables.detect(path):
        return path
    if is_table(path) and not of_numbers(_bytes(path)[:HEAD].decode(errors="replace")):
        return path
    raise UserError(
        f"{path} seems to be a table, not texts; {unknown.FOR_TABLES.format(path)}; to read it as a text all the same: "
        f"{path}?{WISH}=text"
    )


def is_table(path: Path) -> bool:
    return ".tsv" in path.suffixes


def lines(path: Path) -> list[str]:
    """The lines of a text file, plain, gz or xz. UserError names the byte that is not UTF-8."""
    text = decoded(_bytes(path), str(path))
    if not text:
        raise UserError(f"{path} is empty")
    return split(text)


def decoded(data: bytes, name: str) -> str:
    """UTF-8 as text. UserError names the byte that is none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name} is not UTF-8: byte {error.start}, in line {line}, is wrong; convert it, for example with iconv"
        ) from None


def split(text: str) -> list[str]:
    """The lines of a text; a last line end begins no further line."""
    # Not splitlines: it also splits at signs that belong to a line.
    return [line.removesuffix("\r") for line in text.removeprefix("\ufeff").removesuffix("\n").split("\n")]


class PairSource(SourceSpec):
    """Source of pairs of texts."""

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """Two texts aligned line by line, or one file with a pair a line."""
        return read(data)


def record(name: str, source: str, target: str, about: dict | None = None) -> Record:
    """A pair of texts as a record."""
    return Record(name, {"source": text_stream(source), "target": text_stream(target)}, about or {})


def noted(records: list[Record], faults: Sequence[str], what: str = "pairs") -> list[Record]:
    """The same records; the first tells of what was left out."""
    if records and faults:
        records[0].about.update({"num_faults": len(faults), "faults": list(faults[:10]), "lost": what})
    return records


def _records(path: Path, pairs: Iterable[tuple[str, str]]) -> list[Record]:
    found, faults = [], []
    for number, (source, target) in enumerate(pairs, 1):
        if source.strip() and target.strip():
            found.append(record(f"{path.name}:{number}", source.strip(), target.strip()))
        else:
            side = "both sides" if not (source.strip() or target.strip()) else "one side"
            faults.append(f"line {number} is empty on {side}")
    return noted(found, faults)


def _aligned(source: Path, target: Path) -> list[tuple[str, str]]:
    left, right = lines(source), lines(target)
    if len(left) != len(right):
        raise UserError(
            f"{source} has {len(left)} lines but {target} has {len(right)}; "
            "line for line they must say the same, so give files of one length"
        )
    return list(zip(left, right, strict=True))


def _columns(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines(path), 1):
        source, tab, rest = line.partition("\t")
        if not tab and line.strip():
            raise UserError(f"{path}, line {number}: there is no tab; give source, tab, target on every line")
        yield source, rest.partition("\t")[0]


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path} is a folder; give two text files, or one .tsv")
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            return gzip.decompress(data)
        return lzma.decompress(data) if data[:6] == b"\xfd7zXZ\x00" else data
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} can't be read ({error})") from None
