"""Predictions of a run on new data, as columns beside their clock; rows of a pipe answered one by one."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from ..data.records import DATED, Record
from ..errors import UserError
from ..files import write_file
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.recipe import RowByRow, open_records
from ..training.run import Run

DECIMAL = re.compile(r"^(\s*[+-]?\d*),(\d+\s*)$")
"""A number with a decimal comma."""
FORMATS = (".csv", ".parquet", ".jsonl")
"""Endings of the files that predictions are written into."""


def predictions(
    run: Run, records: Sequence[Record], watch: Watch = silent
) -> Iterator[tuple[Record, dict[str, np.ndarray]]]:
    """Each record with what the run says of it: `time_s`, where it has dates `time`, a column a number, class, chance.

    One row a step, or a single one where a record has one answer. Records are as they were read.
    """
    recipe, model = run.steps, run.model()
    assert isinstance(model, Model)
    for record in recipe.transform_records(list(records)):
        (example,) = recipe.examples(model, [record], watch, answers=False)
        (raw,) = model.stream([example])
        time_s = np.asarray(example.time_s, float)
        dates = {"time": np.round(time_s * 1e6).astype("datetime64[us]")} if record.about.get(DATED) else {}
        found = {**dates, "time_s": time_s, **recipe.said(model, record, example, raw)}
        yield record, {k: v[-1:] for k, v in found.items()} if recipe.flavour == "many-to-one" else found


def class_chances(run: Run, records: Sequence[Record], watch: Watch = silent) -> np.ndarray:
    """How likely each class is for records as the recipe looks at them, one below the other (item class)."""
    model = run.model()
    assert tells_classes(model.head)
    raws = model.answers(run.steps.examples(model, records, watch, answers=False))
    return model.head.probabilities(torch.cat(raws).double()).numpy()


def predict(run: Run, data: Sequence[str], watch: Watch = silent) -> dict[str, np.ndarray]:
    """The predictions of all records of some data, one below the other; `record` names each row's."""
    return stacked(predictions(run, open_records(run.recipe, data, watch), watch))


def stacked(found: Iterable[tuple[Record, dict[str, np.ndarray]]]) -> dict[str, np.ndarray]:
    """Predictions of records one below the other; `record` names each row's."""
    each = list(found)
    names = np.concatenate([np.array([record.name] * len(said["time_s"]), object) for record, said in each])
    return {"record": names, **{name: np.concatenate([said[name] for _, said in each]) for name in each[0][1]}}


def check_format(out: Path) -> None:
    """UserError where a file's ending says no format that predictions can be written in."""
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"{out}: predictions are written as {', '.join(FORMATS)}; give the file one of these endings")


def write_predictions(out: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes them as CSV, Parquet or JSON lines, by the file's ending."""
    import pyarrow as pa
    from pyarrow import parquet

    check_format(out)
    plain = {name: values.astype(str) if values.dtype.kind == "O" else values for name, values in columns.items()}
    buffer = io.BytesIO()
    if out.suffix.lower() == ".parquet":
        parquet.write_table(pa.table(plain), buffer)
    else:
        text = "".join(csv_lines(plain) if out.suffix.lower() == ".csv" else json_lines(plain))
        buffer.write(text.encode())
    write_file(out, buffer.getvalue())


def rows_of(columns: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """Rows of columns, their values as Python's."""
    for row in zip(*(values.tolist() for values in columns.values()), strict=True):
        yield dict(zip(columns, row, strict=True))


def csv_lines(columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Lines of a CSV file; times keep nine digits, other numbers seven."""
    yield _line(list(columns))
    for row in rows_of(columns):
        yield _line([_cell(name, value) for name, value in row.items()])


def json_lines(columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A JSON object a row."""
    for row in rows_of(columns):
        yield json.dumps(row, default=str) + "\n"


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.9f}".rstrip("0").rstrip(".") if name == "time_s" else f"{value:.7g}"


def follow(lines: Iterable[str], answer: RowByRow, out: TextIO) -> None:
    """Answers each row of a pipe (CSV with a header, or JSON objects) with a line of JSON, as soon as it is read.

    UserError names the row that can't be read.
    """
    header: list[str] = []
    delimiter, template = ",", ""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        if text.startswith("{"):
            try:
                row = json.loads(text)
            except ValueError as error:
                raise UserError(f"row {number} is no JSON object: {error}") from None
        else:
            if not header:
                delimiter = max(",;\t", key=text.count)
            quoted = '"' in text
            cells = next(csv.reader([text], delimiter=delimiter)) if quoted else text.split(delimiter)
            if delimiter == ";" and "," in text:
                cells = [DECIMAL.sub(r"\1.\2", cell) for cell in cells]
            if not header:
                header = [cell.strip() for cell in cells]
                if missing := sorted(set(answer.columns) - set(header)):
                    raise UserError(f"the header lacks {', '.join(missing)}; it has {', '.join(header)}")
                continue
            if len(cells) != len(header):
                raise UserError(f"row {number} has {len(cells)} cells, not {len(header)}")
            row = dict(zip(header, cells, strict=True))
        said = answer(row)
        template = template or _template(said)
        out.write(_json_line(template, said))
        out.flush()


def _template(said: Mapping[str, Any]) -> str:
    """A line of JSON with holes for the values: numbers keep seven digits, times all."""
    kinds = ("%s" if isinstance(v, str) else "%r" if n == "time_s" else "%.7g" for n, v in said.items())
    names = (json.dumps(name).replace("%", "%%") for name in said)
    return "{" + ", ".join(f"{name}: {kind}" for name, kind in zip(names, kinds, strict=True)) + "}\n"


def _json_line(template: str, said: Mapping[str, Any]) -> str:
    values = said.values()
    if "%s" in template:
        values = [json.dumps(value) if isinstance(value, str) else value for value in values]
    line = template % tuple(values)
    # Of what is no number JSON has its own notion, as has json.dumps.
    return json.dumps(said) + "\n" if "nan" in line or "inf" in line else line
