"""Tables: a column a quantity, a row a moment; CSV of any dialect, JSON, Parquet, Arrow, NumPy, UCR/UEA, ARFF.

A record is a file, or a case of a `.ts` or ARFF file. Streams are the columns by name: numbers with NaN where a cell is
blank, `datetime64` where it holds dates, else text. Their clock counts rows; what the time is, which rows are one
series and what is learned, says the recipe.
"""

import bz2
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.records import Record, Stream
from ..errors import UserError
from ..files import read_most
from ..progress import Watch, silent
from .csv_tables import EPOCH_S, SAMPLE, Clock, Dialect, dialect_of
from .safety import entries, own
from .source import SourceSpec

LAYOUT = "a table (*.csv, *.tsv, *.jsonl, *.parquet, *.arrow, *.npz, *.ts, *.arff), or a folder of them"
PACKED = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
LARGE = 2**26
"""Bytes from which on a CSV file is read in blocks."""
JOINED = 64
"""Blocks, of a MiB, that are joined before their numbers are kept."""
MOST_BYTES = 2**33
"""Bytes that a packed table may unpack to."""
NUMBERS = 0.8
"""Share of a column's cells that must be numbers, for the others to be mistakes and the column no text."""
BLANK = (
    "",
    "NA",
    "N/A",
    "NaN",
    "nan",
    "nil",
    "NULL",
    "null",
    "None",
    "-",
    "--",
    "?",
    "#N/A",
    "#DIV/0!",
    "-nan",
    "n/a",
    "<NA>",
)
"""Cells that hold nothing."""

Columns = dict[str, np.ndarray]
"""Columns by name: float64, datetime64[ns] or text (object), all of one length."""


@dataclass(frozen=True)
class Tables(SourceSpec):
    """Tables that a user names; it has none of its own."""

    def read(self, watch: Watch = silent) -> list[Record]:
        raise UserError(f"there is no data of this recipe's own; name yours: --data FILE ({LAYOUT})")

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        return [record for path in data for record in read(Path(path), watch)]


def read(path: Path, watch: Watch = silent) -> list[Record]:
    """A record a table; one in a folder knows its name as `folder`. UserError where one can't be read."""
    if not path.exists():
        raise UserError(f"there is no {path}; give {LAYOUT}")
    files = [path] if path.is_file() else _tables(path)
    if not files:
        raise UserError(f"{path} holds no table; give {LAYOUT}")
    records = []
    for done, file in enumerate(files):
        watch("reading tables", done, len(files))
        reader = READERS[_format(file) or ".csv"]
        place = file.relative_to(path) if file != path else Path(file.name)
        about = {"format": "table", "file": str(file)}
        if file != path:
            about["folder"] = file.parent.name
        try:
            records += [
                table_record(str(place) + (f"[{case}]" if case is not None else ""), columns, about)
                for case, columns in reader(own(file, path if path.is_dir() else None))
            ]
        except UnicodeDecodeError as error:
            raise UserError(f"{file} holds text that is not in UTF-8 ({error}); write it anew in UTF-8") from error
    watch("reading tables", len(files), len(files))
    return records


def detect(path: Path) -> bool:
    """Whether a path is a table by its name, or a folder of tables."""
    return bool(_format(path)) if path.is_file() else path.is_dir() and bool(_tables(path))


def table_record(name: str, columns: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> Record:
    """The record of columns of one length. UserError where they are not, or where there is none."""
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1:
        what = "has no column" if not columns else f"has columns of {' and '.join(map(str, sorted(lengths)))} rows"
        raise UserError(f"{name} {what}")
    clock = np.arange(float(lengths.pop()))
    return Record(name, {column: Stream(values, clock) for column, values in columns.items()}, dict(about or {}))


def word(cell: Any) -> str:
    """A cell as a word: 3.0 is called 3."""
    if isinstance(cell, float):
        return f"{cell:g}" if cell == cell else ""
    return "" if cell is None else str(cell)


def _tables(folder: Path) -> list[Path]:
    """The tables in a folder and in its folders."""
    found = [path for path in entries(folder) if path.is_file() and _format(path)]
    return found or [p for child in entries(folder) if child.is_dir() for p in entries(child) if _format(p)]


def _format(path: Path) -> str | None:
    """The ending of a table's name that tells its format; None: no table."""
    ending, *before = reversed(path.suffixes or [""])
    if ending.lower() in (*PACKED, ".zst") and before:
        ending = before[0]
    return ending.lower() if ending.lower() in READERS else None


# Formats

Cases = Iterable[tuple[int | None, Columns]]
"""A table's columns, or those of each of its numbered cases."""


def _bytes(path: Path) -> bytes:
    try:
        suffix = path.suffix.lower()
        if suffix == ".zst":
            import pyarrow as pa

            with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
                data = read_most(stream, MOST_BYTES)
        elif suffix in PACKED:
            with PACKED[suffix](path) as stream:
                data = read_most(stream, MOST_BYTES)
        else:
            return path.read_bytes()
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} unpacks to more than {MOST_BYTES >> 30} GiB; divide it")
    return data


def _csv(path: Path) -> Cases:
    """By Arrow's reader, in the dialect that the first lines tell."""
    import pyarrow as pa
    from pyarrow import csv

    large = path.suffix.lower() not in (*PACKED, ".zst") and path.stat().st_size > LARGE
    data = _head(path) if large else _bytes(path)
    dialect, names, skipped, encoding = dialect_of(path, data)
    if large and (dialect.delimiter == " " or encoding != "utf-8"):
        large, data = False, _bytes(path)
        dialect, names, skipped, encoding = dialect_of(path, data)
    parse = csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True)
    wrong: list[str] = []

    def bad(row: Any) -> str:
        wrong.append(f"row {row.text[:60]!r} has {row.actual_columns} cells, not {row.expected_columns}")
        return "skip"

    parse.invalid_row_handler = bad
    if dialect.delimiter == " ":
        data = re.sub(rb"[ \t]+", b" ", re.sub(rb"(?m)^[ \t]+|[ \t]+$", b"", data))
    convert = csv.ConvertOptions(
        decimal_point=dialect.decimal,
        null_values=list(BLANK),
        strings_can_be_null=True,
        timestamp_parsers=[csv.ISO8601],
        include_missing_columns=False,
    )
    options = csv.ReadOptions(column_names=names, skip_rows=skipped, encoding=encoding, use_threads=True)
    columns = _in_blocks(path, options, parse, convert) if large else None
    if columns is None:
        wrong.clear()
        try:
            table = csv.read_csv(pa.BufferReader(_bytes(path) if large else data), options, parse, convert)
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
            raise UserError(f"{path} can't be read: {_line(error)}") from error
        columns = table.columns
    del data  # Its numbers take as much again.
    if len(columns) != len(names):
        raise UserError(
            f"{path}: its first line names {len(names)} columns, its rows hold {len(columns)}; mend that line"
        )
    if len(wrong) > len(columns[0]) / 20:
        raise UserError(f"{path}: {len(wrong)} rows can't be used, the first: {wrong[0]}")
    yield None, _columns(path, names, columns, dialect)


def _head(path: Path) -> bytes:
    """What tells a file's dialect, and a byte more."""
    try:
        with path.open("rb") as file:
            return file.read(SAMPLE + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error


def _in_blocks(path: Path, options: Any, parse: Any, convert: Any) -> list[Any] | None:
    """Columns of a CSV file that is never held as a whole, numbers as arrays of NumPy, others as Arrow's.

    None where later blocks hold other kinds than the first. Whole numbers are read as others, for those may follow.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        with csv.open_csv(path, options, parse, convert) as blocks:
            kinds = {f.name: pa.float64() if pa.types.is_integer(f.type) else f.type for f in blocks.schema}
        if pa.null() in kinds.values() or len(kinds) < len(options.column_names):
            return None
        convert.column_types = kinds
        found: list[list[Any]] = [[] for _ in kinds]
        with csv.open_csv(path, options, parse, convert) as blocks:
            # Joined before they are kept: small pieces of memory are not given back.
            while some := [*islice(blocks, JOINED)]:
                for parts, column in zip(found, pa.Table.from_batches(some).columns, strict=True):
                    # A copy: Arrow keeps what it has freed.
                    parts.append(column.to_numpy().copy() if column.type == pa.float64() else column)
        columns = []
        while found:
            parts = found.pop(0)
            is_array = isinstance(parts[0], np.ndarray)
            columns.append(
                np.concatenate(parts) if is_array else pa.chunked_array([c for p in parts for c in p.chunks])
            )
        return columns
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError):
        return None
    finally:
        convert.column_types = {}


def arrow_columns(path: Path | str, table: Any, dialect: Dialect | None = None) -> Columns:
    """Columns of an Arrow table; spans of time are seconds. UserError where two have one name, or one can't be used."""
    return _columns(path, table.column_names, table.columns, dialect)


def _columns(path: Path | str, names: Sequence[str], columns: list[Any], dialect: Dialect | None = None) -> Columns:
    """The same of columns of Arrow; those that are arrays of NumPy stay."""
    import pyarrow as pa

    names = [str(name).strip() for name in names]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has two columns {twice!r}; rename one")
    found: Columns = {}
    for name, column in zip(names, columns, strict=True):
        if isinstance(column, np.ndarray):
            found[name] = column
            continue
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind)
        ):
            found[name] = column.cast(pa.float64(), safe=False).to_numpy()
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            found[name] = column.cast(pa.timestamp("ns"), safe=False).to_numpy()
        elif pa.types.is_duration(kind):
            ticks = column.cast(pa.duration("ns")).cast(pa.int64())
            found[name] = ticks.cast(pa.float64(), safe=False).to_numpy() / 1e9
        elif pa.types.is_null(kind):
            found[name] = np.full(len(column), np.nan)
        elif kind in (pa.string(), pa.large_string(), pa.string_view()) or pa.types.is_time(kind):
            texts = np.array(column.cast(pa.string()).to_pylist(), object)
            found[name] = _numbers_or_text(path, name, texts, dialect)
        else:
            raise UserError(f"{path}: column {name!r} holds {kind}; give numbers, times or text")
    return found


def _numbers_or_text(path: Path | str, name: str, cells: np.ndarray, dialect: Dialect | None) -> np.ndarray:
    """A column of text; as numbers where nearly all are. UserError names the first cell that is none."""
    given = np.array([cell is not None and cell != "" for cell in cells])
    if not given.any():
        return np.full(len(cells), np.nan)
    numbers = np.full(len(cells), np.nan)
    wrong = None
    right = 0
    for row in np.flatnonzero(given):
        try:
            numbers[row] = float(_plain(cells[row], dialect))
            right += 1
        except ValueError:
            wrong = row if wrong is None else wrong
    if right < NUMBERS * given.sum():
        return np.where(given, cells, "").astype(object)
    if wrong is not None:
        raise UserError(
            f"{path}: column {name!r} holds numbers, but {cells[wrong]!r} in row {wrong + 1}; mend or blank it"
        )
    return numbers


def _plain(cell: str, dialect: Dialect | None) -> str:
    """A number without signs between its thousands, or a unit behind it."""
    cell = cell.strip().replace("\u2212", "-").replace("\u00a0", "").removesuffix("%")
    return cell.replace(".", "").replace(",", ".") if dialect and dialect.decimal == "," else cell.replace(",", "")


def _parquet(path: Path) -> Cases:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
        table.validate(full=True)  # What is damaged could point anywhere.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {_line(error)}") from error
    yield None, arrow_columns(path, table)


def _arrow(path: Path) -> Cases:
    import pyarrow as pa
    from pyarrow import feather

    try:
        try:
            table = feather.read_table(path, memory_map=False)
        except pa.ArrowInvalid:
            table = pa.ipc.open_stream(path.read_bytes()).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} can't be read: {_line(error)}") from error
    yield None, arrow_columns(path, table)


def _json_lines(path: Path) -> Cases:
    """An object a line. Not by Arrow's reader, which damaged lines bring down with the whole process."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_bytes(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is no JSON: {_line(error)}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is no JSON object with a value for each column")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path} can't be read: {_line(error)}") from error
    yield None, arrow_columns(path, table)


def _npz(path: Path) -> Cases:
    """Arrays by name: (row), or (row number) as columns `name[0]`, `name[1]` ...; an `.npy` is called `x`."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {"x": loaded} if isinstance(loaded, np.ndarray) else {n: np.asarray(loaded[n]) for n in loaded.files}
    except Exception as error:  # zipfile raises what it likes on damaged archives.
        raise UserError(f"{path} can't be read: {_line(error)}") from error
    columns: Columns = {}
    for name, values in arrays.items():
        if values.ndim not in (1, 2):
            raise UserError(f"{path}: {name!r} has shape {values.shape}; give (row) or (row, number)")
        parts = {name: values} if values.ndim == 1 else {f"{name}[{i}]": v for i, v in enumerate(values.T)}
        columns |= {column: plain_array(f"{path}: {column!r}", part) for column, part in parts.items()}
    yield None, columns


def plain_array(where: str, values: np.ndarray) -> np.ndarray:
    """An array as a column: float64, datetime64[ns] or text. UserError where it holds anything else."""
    if values.dtype.kind in "biuf":
        return values.astype(np.float64)
    if values.dtype.kind == "M":
        return values.astype("datetime64[ns]")
    if values.dtype.kind in "US":
        return np.array([v.decode(errors="replace") if isinstance(v, bytes) else v for v in values.tolist()], object)
    raise UserError(f"{where} holds {values.dtype}; give numbers, times or text")


def _ts(path: Path) -> Cases:
    """Cases of the UCR/UEA archive: each a line, its dimensions parted by colons, its class behind the last."""
    text = _bytes(path).decode(errors="replace")
    header, _, body = text.partition("@data")
    if not body:
        body, header = (header, "") if "@DATA" not in text else (text.partition("@DATA")[2], text.partition("@DATA")[0])
    labelled = re.search(r"(?mi)^@(classlabel|targetlabel)\s+true", header) is not None
    timed = re.search(r"(?mi)^@timestamps\s+true", header) is not None
    for case, line in enumerate(line for line in body.splitlines() if line.strip() and not line.startswith(("#", "%"))):
        *dimensions, label = line.strip().split(":") if labelled and not timed else (*_timed(line, labelled),)
        if not labelled:
            dimensions, label = [*dimensions, label], ""
        where = f"{path}, case {case + 1}"
        series = [_values(where, d, timed) for d in dimensions]
        longest = max((len(values) for values in series), default=0)
        columns = {
            f"dim_{i}": np.concatenate((values, np.full(longest - len(values), np.nan)))
            for i, values in enumerate(series)
        }
        if labelled:
            columns["label"] = np.array([label.strip()] * longest, object)
        yield case, columns


def _timed(line: str, labelled: bool) -> list[str]:
    """Dimensions of a line whose values are (time,value), and its class."""
    parts = re.split(r":(?=\s*\()", line.strip())
    if not labelled:
        return [*parts]
    last, _, label = parts[-1].rpartition(":")
    return [*parts[:-1], last, label]


def _values(where: str, text: str, timed: bool) -> np.ndarray:
    cells = [pair.rpartition(",")[2] for pair in re.findall(r"\(([^()]*)\)", text)] if timed else text.split(",")
    try:
        return np.array([np.nan if cell.strip() in BLANK else float(cell) for cell in cells])
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _arff(path: Path) -> Cases:
    """Cases of an ARFF file, a series a row: its numbers in their order, and the nominal attribute as its class."""
    lines = [line.strip() for line in _bytes(path).decode(errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("%")]
    begin = next((i for i, line in enumerate(lines) if line.lower().startswith("@data")), None)
    if begin is None:
        raise UserError(f"{path} has no @data; it is no ARFF file")
    kinds = [line.split(None, 2)[-1].strip() for line in lines[:begin] if line.lower().startswith("@attribute")]
    nominal = [i for i, kind in enumerate(kinds) if kind.startswith("{") or kind.lower() == "string"]
    for case, line in enumerate(lines[begin + 1 :]):
        cells = [cell.strip().strip("'\"") for cell in re.split(r",(?=(?:[^']*'[^']*')*[^']*$)", line)]
        if kinds and len(cells) != len(kinds):
            raise UserError(f"{path}, case {case + 1} has {len(cells)} values, not {len(kinds)}")
        values = _values(
            f"{path}, case {case + 1}", ",".join(c for i, c in enumerate(cells) if i not in nominal), False
        )
        columns = {"dim_0": values}
        if nominal:
            columns["label"] = np.array([cells[nominal[-1]]] * len(values), object)
        yield case, columns


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


READERS: dict[str, Callable[[Path], Cases]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".tab": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".pq": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".ipc": _arrow,
    ".npz": _npz,
    ".npy": _npz,
    ".ts": _ts,
    ".arff": _arff,
}
"""Readers by the ending of a table's name."""


# Clocks

_CALLED = "date|datetime|time|timestamp|clock|ds|zeit|datum|heure|fecha|epoch|t|when"
CLOCK_NAMES = re.compile(rf"(?i)({_CALLED})([ _.(\[-].*)?|.*[ _](date|time|timestamp|datetime|at)")
"""What columns that tell the time are called."""
ZONE = re.compile(r"\d(Z|[+-]\d\d:?\d\d)$")
"""End of a moment that says its time zone."""
UNITS_S = {"s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0,
           "mins": 60.0, "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0,
           "days": 86400.0}  # fmt: skip


def find_clock(columns: Mapping[str, np.ndarray]) -> str:
    """The column that tells the time; "": none, rows are counted."""
    dated = [name for name, values in columns.items() if values.dtype.kind == "M"]
    called = [name for name in columns if CLOCK_NAMES.fullmatch(name) and _tells_time(name, columns[name])]
    return next(iter([*(n for n in called if n in dated), *dated, *called]), "")


def _tells_time(name: str, values: np.ndarray) -> bool:
    if values.dtype.kind == "f":
        step = np.diff(values)
        rises = (step >= 0).all() and (step > 0).sum() > 1  # Also where it stands still for some series.
        return bool(np.isfinite(values).all()) and (len(values) < 2 or bool(rises or (step != 0).mean() > 0.5))
    if values.dtype.kind == "O":
        sample = [str(value) for value in values[:200] if value]
        return bool(sample) and Clock(name, sample).kind != "numbers"
    return True


def clock_seconds(where: str, name: str, values: np.ndarray) -> tuple[np.ndarray, str]:
    """Seconds of a column of times, and what it was taken for. UserError where a cell is no time."""
    if values.dtype.kind == "M":
        if np.isnat(values).any():
            raise UserError(
                f"{where}: {name!r} is blank in row {int(np.isnat(values).argmax()) + 1}; every row needs a time"
            )
        return values.astype("datetime64[ns]").astype(np.int64) / 1e9, "dates"
    if values.dtype.kind == "O":
        cells = [str(value) for value in values]
        zoned = np.array([bool(ZONE.search(cell.strip())) for cell in cells])
        if zoned.any() and not zoned.all():
            row = int((zoned != zoned[0]).argmax()) + 1
            raise UserError(
                f"{where}: some of {name!r} have a time zone, others none, first {cells[row - 1]!r} in row {row}; give "
                "all of them theirs"
            )
        clock = Clock(name, cells)
        ticks = np.empty(len(values))
        for row, cell in enumerate(values):
            try:
                ticks[row] = clock.tick(str(cell))
            except ValueError:
                raise UserError(f"{where}: {name!r} holds {cell!r} in row {row + 1}, which is no time") from None
        return ticks, clock.kind
    if not np.isfinite(values).all():
        raise UserError(
            f"{where}: {name!r} is blank in row {int((~np.isfinite(values)).argmax()) + 1}; every row needs a time"
        )
    unit = re.search(r"[_ (\[]([a-z]+)[)\]]?$", name.lower())
    if unit and unit[1] in UNITS_S:
        return values * UNITS_S[unit[1]], f"in {unit[1]}, as its name says"
    middle = float(np.median(values)) if len(values) else 0.0
    for size in (1.0, 1e-3, 1e-6, 1e-9):
        if EPOCH_S[0] <= middle * size <= EPOCH_S[1]:
            return values * size, f"seconds since 1970, in units of {size:g} s"
    return values, "numbers, taken for seconds"
