"""CSV files of any dialect: what parts their cells, how numbers are written, and clocks in any form.

`read_table(path)` gives the columns and, a row each, the cells by column, numbers with a decimal point. `Clock(name,
cells)` turns a column of times into seconds, be they dates, times of day or counts of any unit. A line is a row: a
stray quote spoils its own line and not the file.
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import UserError
from .safety import own, strays

SAMPLE = 2**16
"""Bytes of a file from which its dialect is told."""
PART = 2**20
"""Bytes that are decoded at a time."""
LONGEST_HEADER = 10_000
LINES = 100
"""Lines of the sample that are looked at."""
STEADY = 0.9
"""Share of the lines that what parts their cells must part into as many as the first."""
TRIES = 2_000
"""Steps after which it is given up to tell decimal commas from those between cells."""

Bad = Callable[[str, object], None]
"""What is told of a line that can't be used: its place, and why."""
Limits = Mapping[str, tuple[float, float]]
"""Bounds of columns that are known."""


@dataclass(frozen=True)
class Dialect:
    """How a file writes its cells: what parts them (" " stands for any blanks), and the sign of its decimals."""

    delimiter: str
    decimal: str


@dataclass(frozen=True)
class Table:
    """The columns of a CSV file, and its rows."""

    path: Path
    columns: tuple[str, ...]
    dialect: Dialect
    lines: Sequence[tuple[int, str]]
    """Number and text of each line behind the header that is not blank."""

    def rows(self, bad: Bad, limits: Limits | None = None) -> Iterator[tuple[str, dict[str, str]]]:
        """Each row's place and its cells by column; `bad` is told of lines that have another number of cells.

        Where a comma parts both the cells and the decimals, what belongs together is told by `limits`, and the first
        of these columns has to be certain.
        """
        cells = [(f"{self.path.name} line {place}", _split(line, self.dialect)) for place, line in self.lines]
        joined: Iterator[list[str] | str] = iter(found for _, found in cells)
        halved = sum(len(found) > len(self.columns) for _, found in cells)
        if self.dialect == Dialect(",", ",") and halved > len(cells) / 2:
            joined = iter(_joined([found for _, found in cells], self.columns, limits or {}))
        for (place, _), found in zip(cells, joined, strict=True):
            if isinstance(found, str):
                bad(place, found)
            elif len(found) != len(self.columns):
                bad(place, f"has {len(found)} cells, not {len(self.columns)}")
            else:
                yield place, dict(zip(self.columns, found, strict=True))


def read_table(path: Path, columns: Sequence[str] = ()) -> Table:
    """The table in a file whose first line names its columns, or in one without such a line that has `columns`.

    UserError where the file can't be read.
    """
    try:
        data = own(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    lines, delimiter = _lines(_text(data))
    dialect = _dialect([line for _, line in lines[: LINES + 1]], delimiter, len(columns))
    if not columns and lines:
        columns, lines = _split(lines[0][1].removeprefix("#"), dialect), lines[1:]
    return Table(path, tuple(columns), dialect, lines)


def header(path: Path) -> list[str]:
    """The cells of a CSV file's first line; none where it is no text, or is a link out of its folder."""
    try:
        if not path.is_file() or strays(path, path.parent):
            return []
        status = path.stat()
    except (OSError, ValueError):
        return []
    return list(_header(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1024)
def _header(path: Path, changed_ns: int, size: int) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            data = file.read(SAMPLE)
    except OSError:
        return ()
    # What is cut at the end of the sample is half a line.
    lines, delimiter = _lines(_text(data[: data.rfind(b"\n") + 1] if len(data) == SAMPLE else data))
    if not lines or len(lines[0][1]) >= LONGEST_HEADER or "\ufffd" in lines[0][1]:
        return ()
    shown = [line for _, line in lines[: LINES + 1]]
    return tuple(_split(lines[0][1].removeprefix("#"), _dialect(shown, delimiter, 0)))


# Text and lines

MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def _text(data: bytes) -> str:
    """The text of a file by its mark, else UTF-8, else that of Western Windows; what can't be read is marked."""
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    head = data[:256]
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) > 8 and not any(head[start::2]) and all(head[1 - start :: 2]):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _lines(text: str) -> tuple[list[tuple[int, str]], str]:
    """Lines that are not blank with their numbers, and what parts their cells where Excel says so.

    Remarks before the header are left out.
    """
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = [(place, line) for place, line in enumerate(text.split("\n"), 1) if line.strip()]
    delimiter = ""
    if lines and (said := re.fullmatch(r'"?sep=(.)"?', lines[0][1].strip("\r"))):
        delimiter, lines = said[1], lines[1:]
    # The last line with a # is the header, if its cells are as many as the next line's.
    remarks = next((i for i, (_, line) in enumerate(lines) if not line.startswith("#")), 0)
    if remarks:
        last, following = lines[remarks - 1][1], lines[remarks][1]
        parts = _dialect([last, following], delimiter, 0)
        is_header = len(_split(last, parts)) == len(_split(following, parts)) > 1
        lines = lines[remarks - is_header :]
    return lines, delimiter


def _split(line: str, dialect: Dialect) -> list[str]:
    """The cells of a line, numbers with a decimal point; [] where it can't be divided."""
    if dialect.delimiter == " ":
        cells = line.split()
    else:
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], delimiter=dialect.delimiter), [])]
        except csv.Error:
            return []
    return [_pointed(cell) for cell in cells] if dialect.decimal == "," else cells


# Dialects

DECIMAL = {sign: re.compile(rf"[+-]?\d*{re.escape(sign)}\d+([eE][+-]?\d+)?") for sign in ".,"}
GROUPED = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")


def _pointed(cell: str) -> str:
    """A number with a decimal comma as one with a decimal point; else the cell."""
    if GROUPED.fullmatch(cell):
        cell = cell.replace(".", "")
    return cell.replace(",", ".") if DECIMAL[","].fullmatch(cell) else cell


def _dialect(lines: Sequence[str], delimiter: str, num: int) -> Dialect:
    """The dialect of some lines, of which the first is the header, unless their number of cells is known."""
    delimiter = delimiter or (_delimiter(lines) if lines else ",")
    cells = [_split(line, Dialect(delimiter, ".")) for line in lines]
    num, rows = (num, cells) if num else (len(cells[0]) if cells else 0, cells[1:])
    found = [cell for row in rows for cell in row]
    commas = sum(bool(DECIMAL[","].fullmatch(cell) or GROUPED.fullmatch(cell)) for cell in found)
    points = sum(bool(DECIMAL["."].fullmatch(cell)) for cell in found)
    # Cells that are too many hold halves of numbers.
    halved = delimiter == "," and rows and sum(len(row) > num for row in rows) > len(rows) / 2
    return Dialect(delimiter, "," if commas > points or (halved and not points) else ".")


def _delimiter(lines: Sequence[str]) -> str:
    for one in "\t;|":
        if one in lines[0] and _steady(lines, one):
            return one
    if "," not in lines[0]:
        if " " in lines[0].strip() and _steady(lines, " "):
            return " "
        if lines[1:] and all(DECIMAL[","].fullmatch(line.strip()) for line in lines[1:]):
            return ";"  # A single column.
    return ","


def _steady(lines: Sequence[str], delimiter: str) -> bool:
    counts = [len(_split(line, Dialect(delimiter, "."))) for line in lines]
    return counts[0] > 1 and sum(count == counts[0] for count in counts) >= STEADY * len(counts)


# Decimal commas between commas

WHOLE, REST = re.compile(r"[+-]?(0|[1-9]\d*)"), re.compile(r"\d+([eE][+-]?\d+)?")
Way = tuple[bool, ...]
"""Which of the columns take two cells."""


def _joined(rows: Sequence[list[str]], columns: Sequence[str], limits: Limits) -> Iterator[list[str] | str]:
    """The cells of each row with the halves of its numbers joined, or what is wrong with it.

    Where there are several ways to join them, what the rows with only one do counts, then numbers that don't end in
    zeros, then the last columns. The first of `limits` must be the same in the best ways.
    """
    ways = [_ways(row, columns, limits) for row in rows]
    votes: Counter[tuple[int, bool]] = Counter()
    for found in ways:
        for column in range(len(columns)):
            if len(said := {way[column] for way in found}) == 1:
                votes[column, said.pop()] += 1
    certain = columns.index(next(iter(limits))) if limits else None
    for row, found in zip(rows, ways, strict=True):
        if len(row) <= len(columns):
            yield row
            continue
        if not found:
            yield f"has {len(row)} cells, not {len(columns)}, and its decimal commas can't be told from the others"
            continue
        rated = [(_rating(way, row, votes), way) for way in found]
        highest = max(rating for rating, _ in rated)
        best = [way for rating, way in rated if rating == highest]
        if certain is not None and len({tuple(way[: certain + 1]) for way in best}) > 1:
            yield f"has {len(row)} cells, not {len(columns)}: a decimal comma may also be one between cells"
            continue
        yield _join(row, min(best))


def _ways(row: Sequence[str], columns: Sequence[str], limits: Limits) -> list[Way]:
    """All ways to join pairs of neighbours so that there are as many cells as columns."""
    tries, found = 0, []

    def extend(way: Way, at: int) -> None:
        nonlocal tries
        tries += 1
        column, left = len(way), len(row) - at
        if column == len(columns):
            found.extend([way] if not left else [])
            return
        least = len(columns) - column
        if tries > TRIES or not least <= left <= 2 * least:
            return
        low, high = limits.get(columns[column], (-np.inf, np.inf))
        for two in (False, True):
            if two and not (at + 1 < len(row) and WHOLE.fullmatch(row[at]) and REST.fullmatch(row[at + 1])):
                continue
            if columns[column] in limits:
                try:
                    if not low <= float(".".join(row[at : at + 1 + two])) <= high:
                        continue
                except ValueError:
                    continue
            # Half a number is no cell: nothing is written 007.
            if not two and re.fullmatch(r"[+-]?0\d+", row[at]):
                continue
            if at + 1 + two <= len(row):
                extend((*way, two), at + 1 + two)

    extend((), 0)
    return found if tries <= TRIES else []


def _rating(way: Way, row: Sequence[str], votes: Counter[tuple[int, bool]]) -> tuple[int, int]:
    cells = _join(row, way)
    zeros = sum(two and cell.endswith("0") for two, cell in zip(way, cells, strict=True))
    return sum(votes[column, two] for column, two in enumerate(way)), -zeros


def _join(row: Sequence[str], way: Way) -> list[str]:
    cells, at = [], 0
    for two in way:
        cells.append(".".join(row[at : at + 1 + two]))
        at += 1 + two
    return cells


# Clocks

ENDINGS_S = {"_s": 1.0, "_ms": 1e-3, "_us": 1e-6, "_micro": 1e-6, "_ns": 1e-9}
BRACKETS = re.compile(r"\s*[\[(](s|ms|us|ns|µs)[\])]$")
SLOWEST_S, FASTEST_S = 1.0, 1 / 200
"""Bounds of the usual step of a clock whose column doesn't name its unit."""
EPOCH_S = (9.4e8, 4.2e9)
"""Seconds since 1970 that are taken for a date: of 2000 to 2100."""
EPOCH_STEP_S = 10.0
"""Longest usual step of such a clock."""
_TIME = r"(?P<hour>\d{1,2})[:h._-](?P<minute>\d{2})(?:[:m._-](?P<second>\d{2})s?(?:[.,:_-](?P<part>\d{1,9}))?)?"
_ZONE = r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?(?:\s*[A-Z]{3,4})?"
DATE = re.compile(rf"(?P<a>\d{{1,4}})[-/._](?P<b>\d{{1,2}})[-/._](?P<c>\d{{1,4}})[T,_ -]+{_TIME}{_ZONE}")
COMPACT = re.compile(
    r"(?P<a>\d{4})(?P<b>\d\d)(?P<c>\d\d)[T_ -](?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)"
    r"(?:[.,:_-]?(?P<part>\d{1,9}))?(?P<half>)(?P<zone>Z|[+-]\d{2}:?\d{2})?"
)
OF_DAY = re.compile(r"(?P<hour>\d{1,3}):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,:](?P<part>\d{1,9}))?")
DAY_S = 86_400.0


class Clock:
    """A column of times. `tick` gives a cell as a number; `seconds` gives ticks in seconds, and says what they were.

    Cells may be numbers of any unit, dates with a time (ISO 8601 and what is usual beside it) or times of day.
    """

    def __init__(self, name: str, cells: Sequence[str]):
        self.name = name
        sample = [cell for cell in cells if cell]
        kinds = {"dates": (DATE, COMPACT), "times of day": (OF_DAY,)}
        self.kind = next(
            (
                kind
                for kind, patterns in kinds.items()
                if sum(any(one.fullmatch(cell) for one in patterns) for cell in sample) > len(sample) / 2
            ),
            "numbers",
        )
        dates = [found for cell in sample if self.kind == "dates" and (found := DATE.fullmatch(cell))]
        self._day_first = any(int(found["a"]) > 12 for found in dates) or (
            all("." in found.string[: found.end("c")] for found in dates)
            and all(int(found["b"]) <= 12 for found in dates)
        )

    def tick(self, cell: str) -> float:
        """The number that a cell is: of dates and times of day the seconds. ValueError where it is none."""
        if self.kind == "numbers":
            value = float(cell)
            if not abs(value) <= 1e30:
                raise ValueError(f"{cell[:40]!r} is not a time")
            return value
        found = DATE.fullmatch(cell) or COMPACT.fullmatch(cell) if self.kind == "dates" else OF_DAY.fullmatch(cell)
        if not found:
            raise ValueError(f"{cell[:40]!r} is not one of the {self.kind}")
        part = found["part"]
        second = float(f"{found['second'] or 0}.{part or 0}")
        # Behind a colon or the like stand milliseconds, not a fraction: 9:44:7 is 7 ms.
        if part and found.string[found.start("part") - 1] in ":_-" and len(part) < 3:
            second = float(found["second"]) + int(part) / 1000
        of_day = int(found["hour"]) * 3600 + int(found["minute"]) * 60 + second
        if self.kind != "dates":
            return of_day
        year, month, day = self._date(found)
        if half := (found["half"] or "").lower():
            of_day += DAY_S / 2 * ((half[0] == "p") - (int(found["hour"]) == 12))
        zone = found["zone"] or ""
        shift = timedelta()
        if zone[:1] in ("+", "-"):
            digits = zone.replace(":", "")
            shift = timedelta(hours=int(digits[:3]), minutes=int(digits[0] + digits[3:]))
        return datetime(year, month, day, tzinfo=UTC).timestamp() + of_day - shift.total_seconds()

    def seconds(self, ticks: np.ndarray) -> tuple[np.ndarray, str]:
        """Seconds of ticks, and where they come from. ValueError where their unit isn't clear."""
        if self.kind == "times of day":
            # Behind midnight goes on the next day.
            nights = np.cumsum(np.append(0, np.diff(ticks) < -DAY_S / 2))
            return ticks + nights * DAY_S, f"{self.name}, times of day"
        if self.kind != "numbers":
            return ticks, f"{self.name}, {self.kind}"
        low = BRACKETS.sub(lambda found: f"_{found[1].replace('µ', 'u')}", self.name.lower())
        if ending := next((e for e in ENDINGS_S if low.endswith(e)), None):
            return ticks * ENDINGS_S[ending], f"{self.name}, in units of {ENDINGS_S[ending]:g} s as its name says"
        step = np.diff(ticks)
        usual = float(np.median(step[step > 0])) if (step > 0).any() else 0.0
        units = sorted(set(ENDINGS_S.values()), reverse=True)
        for unit_s in units:
            if EPOCH_S[0] <= float(np.median(ticks)) * unit_s <= EPOCH_S[1] and 0 < usual * unit_s <= EPOCH_STEP_S:
                return ticks * unit_s, f"{self.name}, in units of {unit_s:g} s since 1970"
        for unit_s in units:
            if FASTEST_S <= usual * unit_s <= SLOWEST_S:
                return ticks * unit_s, f"{self.name}, in units of {unit_s:g} s by its usual step of {usual:g}"
        raise ValueError(f"the steps of {self.name} are {usual:g}, no frame rate of 1 to 200 Hz in any unit")

    def _date(self, found: re.Match[str]) -> tuple[int, int, int]:
        """Year, month and day, in whatever order they stand."""
        a, b, c = int(found["a"]), int(found["b"]), int(found["c"])
        if len(found["a"]) == 4:
            return a, b, c
        day, month = (a, b) if self._day_first else (b, a)
        return (c if c > 99 else 2000 + c), month, day


def _is_utf8(data: bytes) -> bool:
    """Whether it is UTF-8; a part at a time, for its text may take several times its memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(data), PART):
            decoder.decode(data[start : start + PART], start + PART >= len(data))
    except UnicodeDecodeError:
        return False
    return True


def dialect_of(path: Path, data: bytes) -> tuple[Dialect, list[str], int, str]:
    """Dialect, names of the columns, lines up to the end of the header, and encoding, by a file's first lines.

    UserError where they name no columns.
    """
    encoding = next((e for mark, e in MARKS if data.startswith(mark)), None)
    sample = data[:SAMPLE]
    text = _text(sample[: sample.rfind(b"\n") + 1] if len(data) > SAMPLE and b"\n" in sample else sample)
    lines, delimiter = _lines(text)
    if len(lines) < 2:
        raise UserError(f"{path} is no table: it has {len(lines)} lines; give one that names its columns")
    dialect = _dialect([line for _, line in lines[: LINES + 1]], delimiter, 0)
    names = _split(lines[0][1].removeprefix("#"), Dialect(dialect.delimiter, "."))
    if encoding is None:
        encoding = "utf-8" if data.isascii() or _is_utf8(data) else "cp1252"
    elif encoding.startswith("utf-8") and not _is_utf8(data):
        raise UserError(f"{path} begins as UTF-8 and holds bytes that are none; write it anew in UTF-8")
    return dialect, names, lines[0][0], encoding
