"""What a table holds before anything is learned from it: columns, clock, series, seasons, and what may leak."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ..config import did_you_mean
from ..console import counted
from ..data.records import Record, html_table, last_known
from ..errors import UserError
from ..evaluation.seasons import find_season
from ..json_types import JsonObject
from ..progress import Watch, silent
from ..sources import expanded
from ..sources.tables import clock_seconds, find_clock, read
from .inspect import GAP_STEPS, SHOWN

UNEVEN = 0.05
"""Share by which a step of the clock may differ from the usual one."""
LOOKED_AT = 20_000
"""Rows of the longest series over which columns are compared, and from which seasons are told."""
COMPARED = 64
"""Columns at most that are compared, each with each."""
SHIFTS = 24
"""Rows up to which a column is looked for in another, earlier or later."""
NEARLY = 0.999
"""Correlation from which two columns may be one."""
MANY = 64
"""Different words from which a column holds no classes."""
MOSTLY = 0.5
"""Share of blank cells from which a column is said to be mostly blank."""
UNITS = re.compile(
    "(?i)s|ms|us|ns|min|h|d|mps|kmh|kph|mph|rad|deg|c|f|k|degc|degf|kw|kwh|mw|mwh|w|wh|v|mv|a|ma|hz|khz|mhz|rpm|pa|kpa|"
    "hpa|bar|mbar|mm|cm|m|km|kg|g|mg|ug|l|ml|pct|percent|ppm|ppb|n|nm|j|kj|lux|db|usd|eur|gbp|bpm|mmhg|mmol|mgdl"
)
"""Units as the last part of a column's name says them: load_kw."""


@dataclass(frozen=True)
class Told:
    """One series: its clock in seconds, and its columns."""

    name: str
    time_s: np.ndarray
    columns: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TableInspection:
    """`found` is ready for JSON; `longest` is the series that the page draws."""

    found: JsonObject
    longest: Told

    def _repr_html_(self) -> str:
        from .table_page import COLUMNS, column_rows, table_rows

        said = [(kind, text) for kind in ("warning", "question") for text in self.found[f"{kind}s"]]
        whole = html_table([("table", self.found["log"]), *table_rows(self.found), *said])
        return whole + html_table([COLUMNS, *column_rows(self.found)])


def inspect_tables(
    paths: Sequence[str], target: str = "", series: str = "", time: str = "", watch: Watch = silent
) -> TableInspection:
    """What tables hold. UserError where one can't be read, or lacks a column that is named."""
    records = [record for path in paths for place in expanded(path) for record in read(Path(place), watch)]
    names = list(dict.fromkeys(name for record in records for name in record.streams))
    for option, name in (("target", target), ("series", series), ("time", time)):
        if name and name not in names:
            raise UserError(f"--{option}: there is no column {name!r}{did_you_mean(name, names)}; {', '.join(names)}")
    whole = {name: [np.asarray(r[name].values) for r in records if name in r.streams] for name in names}
    warnings: list[str] = []
    clock = time or find_clock({n: np.asarray(s.values) for n, s in records[0].streams.items() if n != target})
    said, seconds = "rows are counted", [np.arange(float(len(record))) for record in records]
    if clock:
        try:
            found = [clock_seconds(record.name, clock, np.asarray(record[clock].values)) for record in records]
            seconds, said = [one for one, _ in found], f"{clock}, {found[0][1]}"
        except UserError as error:
            warnings.append(f"{error}; until then rows are counted")
            clock = ""
    guessed = "" if series else _series_column(records, seconds, {clock, target})
    told = _series(records, seconds, series or guessed, clock)
    if guessed:
        warnings.append(f"times repeat, but within each {guessed} they rise: --series {guessed}")
    warnings += _order(told)
    longest = max(told, key=lambda one: len(one.time_s))
    columns = {
        name: {"unit": _unit(name), "rows": sum(map(len, values)), **_column(values, longest.columns.get(name))}
        for name, values in whole.items()
    }
    if clock:
        columns[clock]["kind"] = "times"
    steps = [np.diff(one.time_s) for one in told]
    every = np.concatenate(steps)
    usual = float(np.median(every[every > 0])) if (every > 0).any() else 0.0
    gaps = [
        {"record": one.name, "time_s": float(one.time_s[i] - one.time_s[0]), "seconds": float(step[i])}
        for one, step in zip(told, steps, strict=True)
        for i in np.flatnonzero(step > GAP_STEPS * usual)
        if usual
    ]
    gaps.sort(key=lambda gap: -gap["seconds"])
    lengths = [len(one.time_s) for one in told]
    compared = {n: v for n, v in longest.columns.items() if n != clock}
    warnings += _columns_that_teach_nothing(columns, {clock, series or guessed})
    leaks, questions = _leaks(compared, target)
    found = {
        "log": ", ".join(paths),
        "format": "table",
        "tables": len(records),
        "rows": sum(lengths),
        "series": len(told),
        "series_column": series or guessed or None,
        "shortest": min(lengths),
        "longest": max(lengths),
        "clock": said,
        "seconds": float(sum(one.time_s[-1] - one.time_s[0] for one in told if len(one.time_s))),
        "period_s": usual or None,
        "uneven": float((np.abs(every - usual) > UNEVEN * usual).mean()) if usual else 0.0,
        "gaps": gaps[:SHOWN],
        "num_gaps": len(gaps),
        "columns": columns,
        "target": target or None,
        "classes": _classes(told, columns, {clock, series or guessed}),
        "warnings": warnings + leaks,
        "questions": questions,
    }
    return TableInspection(found, longest)


def _series_column(records: Sequence[Record], seconds: Sequence[np.ndarray], used: set[str]) -> str:
    """The column within whose values the times of each table rise, where they do not by themselves."""
    risen = [(np.diff(time_s) > 0).all() for time_s in seconds]
    if all(risen):
        return ""
    for name in records[0].streams:
        if name in used or not all(name in record.streams for record in records):
            continue
        for record, time_s in zip(records, seconds, strict=True):
            values = np.asarray(record[name].values)
            if values.dtype.kind == "f" and (np.isnan(values).any() or (values != np.round(values)).any()):
                break
            _, place = np.unique(values.astype(str) if values.dtype.kind == "O" else values, return_inverse=True)
            if not 1 < place.max() + 1 <= len(values) / 2:
                break
            order = np.lexsort((np.arange(len(values)), place))
            same = np.diff(place[order]) == 0
            if not (np.diff(time_s[order])[same] > 0).all():
                break
        else:
            return name
    return ""


def _series(records: Sequence[Record], seconds: Sequence[np.ndarray], column: str, clock: str) -> list[Told]:
    """Each series by itself."""
    found = []
    for record, time_s in zip(records, seconds, strict=True):
        columns = {n: np.asarray(s.values) for n, s in record.streams.items() if n not in (clock, column)}
        if not column or column not in record.streams:
            found.append(Told(record.name, time_s, columns))
            continue
        ids = np.asarray(record[column].values)
        names, place = np.unique(ids.astype(str), return_inverse=True)
        order = np.argsort(place, kind="stable")
        parts = np.split(order, np.searchsorted(place[order], np.arange(1, len(names))))
        for name, rows in zip(names.tolist(), parts, strict=True):
            found.append(Told(name, time_s[rows], {n: v[rows] for n, v in columns.items()}))
    return found


def _order(told: Sequence[Told]) -> list[str]:
    """What is wrong with the order of times."""
    for one in told:
        step = np.diff(one.time_s)
        if (step <= 0).any():
            row = int((step <= 0).argmax()) + 2
            what = "repeats" if step[row - 2] == 0 else "goes back"
            return [f"{one.name}: the time {what} in row {row}: training refuses it but with --sort"]
    return []


def _unit(name: str) -> str | None:
    """The unit that a column's name says."""
    if bracketed := re.search(r"[\[(]([^\])]+)[\])]\s*$", name):
        return bracketed[1].strip()
    last = re.split(r"[_ .]", name)[-1]
    return last if last != name and UNITS.fullmatch(last) else None


def _column(parts: Sequence[np.ndarray], longest: np.ndarray | None) -> JsonObject:
    """What a column holds over all tables; its season is that of the longest series."""
    mixed = len({part.dtype.kind for part in parts}) > 1
    values = np.concatenate([part.astype(object) for part in parts] if mixed else parts)
    if values.dtype.kind == "M":
        return {"kind": "times", "missing": int(np.isnat(values).sum()), "distinct": len(np.unique(values))}
    if values.dtype.kind == "O":
        cells, counts = np.unique(np.array(["" if v is None else str(v) for v in values.tolist()]), return_counts=True)
        given = {cell: int(count) for cell, count in zip(cells.tolist(), counts, strict=True) if cell}
        words = {"words": given} if len(given) <= MANY else {}
        missing = int(counts[cells == ""].sum())
        return {"kind": "words", "missing": missing, "distinct": len(given)} | words
    known = values[~np.isnan(values)]
    found: JsonObject = {"kind": "numbers", "missing": len(values) - len(known)}
    if not len(known):
        return found | {"distinct": 0}
    distinct = np.unique(known)
    if (distinct == np.round(distinct)).all():
        found["kind"] = "yes or no" if np.array_equal(distinct, [0, 1]) else "integers"
    found |= {"distinct": len(distinct), "min": float(distinct[0]), "max": float(distinct[-1])}
    found |= {"mean": float(known.mean()), "sd": float(known.std())}
    season = 1
    if longest is not None and longest.dtype.kind == "f" and len(distinct) > 2 and not np.isnan(longest).all():
        season = find_season([longest[:LOOKED_AT]])
    return found | {"season": season if season > 1 else None}


def _columns_that_teach_nothing(columns: Mapping[str, JsonObject], used: set[str]) -> list[str]:
    said = []
    for name, column in columns.items():
        if name in used:
            continue
        share = column["missing"] / max(1, column["rows"])
        if column["distinct"] == 0:
            said.append(f"{name} is blank throughout: --leave-out {name}")
        elif column["distinct"] == 1:
            what = f"{column['min']:g}" if "min" in column else next(iter(column.get("words", {""})))
            said.append(f"{name} is {what} throughout: there is nothing in it; --leave-out {name}")
        elif column["kind"] == "words" and column["distinct"] > MANY:
            said.append(
                f"{name} holds {column['distinct']:,} different words: --series {name} where it names the series, else "
                f"--leave-out {name}"
            )
        elif share > MOSTLY:
            said.append(f"{name} is blank in {share:.0%} of its rows")
    return said


def _classes(told: Sequence[Told], columns: Mapping[str, JsonObject], used: set[str]) -> dict[str, JsonObject]:
    """Columns of words: rows of each class and, where a series has but one, how many series."""
    found = {}
    for name, column in columns.items():
        if name in used or "words" not in column:
            continue
        each = [set(np.unique(one.columns[name].astype(str))) - {"", "None"} for one in told if name in one.columns]
        rows: JsonObject = {"rows": column["words"]}
        if len(told) > 1 and all(len(words) == 1 for words in each):
            names = [words.pop() for words in each]
            rows["series"] = {word: names.count(word) for word in column["words"]}
        found[name] = rows
    return found


def _leaks(columns: Mapping[str, np.ndarray], target: str) -> tuple[list[str], list[str]]:
    """Columns that are others, or others of some rows later; what only looks so is a question."""
    numbers = {n: v[:LOOKED_AT].astype(float) for n, v in columns.items() if v.dtype.kind == "f"}
    numbers = {n: v for n, v in numbers.items() if len(v) > 2 * SHIFTS and np.nanstd(v) > 0}
    names = list(numbers)
    if target and target in names:
        pairs = [(target, other) for other in names if other != target]
    else:
        pairs = list(combinations(names[:COMPARED], 2))
    warnings, questions = [], []
    if target and target in columns and target not in numbers:
        warnings += _tells_class(columns[target], {n: v for n, v in columns.items() if n != target}, target)
    known = {n: last_known(v) for n, v in numbers.items()}
    for one, other in pairs:
        shift, correlation = _best_shift(known[one], known[other])
        if abs(correlation) < NEARLY:
            continue
        a, b = _shifted_pair(numbers[one], numbers[other], shift)
        both = ~np.isnan(a) & ~np.isnan(b)
        same = both.any() and np.isclose(a, b, rtol=1e-6, atol=1e-9)[both].mean() > 0.99
        if shift:
            what = f"what {one} {'will be' if shift > 0 else 'was'} {counted(abs(shift), 'row')} "
            what += "later" if shift > 0 else "before"
        else:
            what = f"the same as {one}"
        if not same:
            questions.append(f"does {other} hold {what}? Their correlation is {correlation:.4f}")
        elif shift < 0:
            warnings.append(f"{other} holds {what}")
        else:
            warnings.append(f"{other} holds {what}: --leave-out {other}")
    return warnings, questions


def _best_shift(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The shift at which `other` goes along with `one` best; above 0, it knows what `one` will be that much later."""
    best = (0, 0.0)
    for shift in sorted(range(-SHIFTS, SHIFTS + 1), key=abs):
        a, b = _shifted_pair(one, other, shift)
        both = ~np.isnan(a) & ~np.isnan(b)
        a, b = a[both] - a[both].mean(), b[both] - b[both].mean()
        size = float(np.sqrt((a @ a) * (b @ b)))
        correlation = float(a @ b) / size if size > 0 else 0.0
        if abs(correlation) > abs(best[1]) + 1e-6:
            best = (shift, correlation)
    return best


def _shifted_pair(one: np.ndarray, other: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `one`, and those of `other` that stand `shift` rows before them."""
    rows = len(one) - abs(shift)
    return (one[shift:], other[:rows]) if shift >= 0 else (one[:rows], other[-shift:])


def _tells_class(label: np.ndarray, columns: Mapping[str, np.ndarray], target: str) -> list[str]:
    """Columns of few values, each of which goes with one class alone."""
    said = []
    classes = np.array(["" if v is None else str(v) for v in label.tolist()])
    for name, values in columns.items():
        cells = values.astype(str)
        pairs = np.unique(np.stack((cells, classes), 1), axis=0)
        num = len(np.unique(cells))
        if 1 < num <= MANY and num < len(cells) / 4 and len(pairs) == num and len(np.unique(classes)) > 1:
            said.append(f"{name} alone tells {target}, row by row: --leave-out {name}, unless it is measured")
    return said
