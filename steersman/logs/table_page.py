"""What was found in a table, for the terminal and as a page."""

from pathlib import Path

from rich.table import Table as Terminal

from ..console import counted
from ..evaluation.page import Block, Fact, Report, Section, Table, figure, write_report
from ..evaluation.plots import values_over_time
from ..evaluation.sections import percent
from ..json_types import JsonMapping
from .page import duration
from .tables import TableInspection

DRAWN = 12
"""Columns of numbers that are drawn."""
WORDS = 6
"""Words of a column that are named."""


def table_rows(found: JsonMapping) -> list[tuple[str, str]]:
    """What is known of the whole table, a name and a value each."""
    lengths = f"of {found['shortest']:,} to {found['longest']:,} rows" if found["series"] > 1 else ""
    by = f", told apart by {found['series_column']}" if found["series_column"] else ""
    rows = [
        ("table", f"{found['rows']:,} rows, {counted(len(found['columns']), 'column')}"),
        ("series", f"{found['series']:,} {lengths}{by}".replace("  ", " ").strip()),
        ("clock", found["clock"]),
        ("rate", _rate(found)),
        ("gaps", f"{found['num_gaps']:,}{_longest(found['gaps'])}"),
    ]
    for name, classes in found["classes"].items():
        rows.append((f"classes of {name}", _counts(classes)))
    return rows


def column_tables(found: JsonMapping) -> list[Terminal]:
    """The whole table, then its columns."""
    whole = Terminal(box=None, show_header=False)
    whole.add_column(style="dim", no_wrap=True)
    whole.add_column(overflow="fold")
    for row in table_rows(found):
        whole.add_row(*(cell.replace("[", "\\[") for cell in row))
    each = Terminal(*COLUMNS, box=None)
    for row in column_rows(found):
        each.add_row(*(cell.replace("[", "\\[") for cell in row))
    return [whole, each]


COLUMNS = ("column", "kind", "unit", "missing", "from", "to", "mean", "distinct", "season")


def column_rows(found: JsonMapping) -> list[list[str]]:
    """A row a column, its cells those of COLUMNS."""
    return [
        [
            name,
            column["kind"],
            column["unit"] or "",
            f"{column['missing']:,} ({column['missing'] / column['rows']:.0%})" if column["missing"] else "0",
            *(figure(column[key]) if column.get(key) is not None else "" for key in ("min", "max", "mean")),
            f"{column['distinct']:,}",
            f"{column['season']} rows" if column.get("season") else "",
        ]
        for name, column in found["columns"].items()
    ]


def _rate(found: JsonMapping) -> str:
    period = found["period_s"]
    if not period:
        return "none"
    if found["clock"] == "rows are counted":
        return "a row a step"
    uneven = f"; {found['uneven']:.1%} of the steps are of another length" if found["uneven"] else ", even"
    return f"a row every {duration(period)}{uneven}; {duration(found['seconds'])} in all"


def _longest(gaps: list[JsonMapping]) -> str:
    if not gaps:
        return ""
    first = gaps[0]
    return f", the longest {duration(first['seconds'])}, {duration(first['time_s'])} into {first['record']}"


def _counts(classes: JsonMapping) -> str:
    which = "series" if "series" in classes else "rows"
    counts = classes[which]
    shown = [f"{word} {count:,}" for word, count in sorted(counts.items(), key=lambda item: -item[1])]
    return ", ".join(shown[:WORDS]) + (f" and {len(shown) - WORDS} more" if len(shown) > WORDS else "") + f" ({which})"


def write_table_page(path: Path, inspection: TableInspection) -> None:
    """The page, whole or not at all."""
    write_report(path, table_report(inspection))


def table_report(inspection: TableInspection) -> Report:
    """Findings, columns, and the columns of the longest series over time."""
    found = inspection.found
    said = [*found["warnings"], *found["questions"]]
    blocks: list[Block] = [Table(("to know before training",), [[text] for text in said], wraps=True)] if said else []
    blocks.append(Table(("what", "found"), [list(row) for row in table_rows(found)], wraps=True))
    missing = sum(column["missing"] for column in found["columns"].values())
    facts = [
        Fact("Rows", f"{found['rows']:,}", counted(found["series"], "series").removesuffix("s") + "s"),
        Fact("Columns", str(len(found["columns"]))),
        Fact("Blank cells", percent(missing / max(1, sum(c["rows"] for c in found["columns"].values())))),
        Fact("Gaps", f"{found['num_gaps']:,}", "over three usual steps"),
    ]
    outcome = f"{counted(len(said), 'thing')} to know before training on it." if said else "Nothing in it looks wrong."
    sections = [
        Section("Findings", "What the table is, and what may spoil a training on it.", blocks),
        Section("Columns", "Season: after how many rows it repeats itself.", [Table(COLUMNS, column_rows(found))]),
    ]
    if drawn := _over_time(inspection):
        sections.append(Section("Over time", f"Columns of the longest series, {inspection.longest.name}.", drawn))
    name = Path(found["log"].partition(",")[0]).name
    return Report(f"Table: {name}", f"{counted(found['rows'], 'row')} of {name}. {outcome}", facts, sections)


def _over_time(inspection: TableInspection) -> list[Block]:
    one = inspection.longest
    numbers = {n: v for n, v in one.columns.items() if v.dtype.kind == "f" and len(v) > 1}
    time_s = one.time_s - one.time_s[0] if len(one.time_s) else one.time_s
    return [values_over_time(time_s, v, name, f"{name} over time.") for name, v in list(numbers.items())[:DRAWN]]
