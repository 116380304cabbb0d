"""A model in one line of Python: from a table in memory, or a file, to a run that predicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..config import did_you_mean
from ..data.records import Record, html_table
from ..errors import UserError
from ..evaluation.outcome import ranked
from ..evaluation.plots import trace_figure
from ..evaluation.predict import predictions, stacked, write_predictions
from ..evaluation.report import report_run, write_outcome
from ..progress import bars
from ..sources import are_tables, expanded
from ..sources import read as read_logs
from ..sources.tables import Tables, arrow_columns, plain_array, table_record
from ..training.checkpoints import read_json
from ..training.fit import fit as train
from ..training.material import material
from ..training.recipe import Recipe, is_recipe, open_records
from ..training.run import Run, new_folder
from ..training.task import task_of
from . import make_of

Data = Any
"""Paths; or a table (of pandas, polars or Arrow, a dict of arrays, an array (row number)); or a list of either."""


class Fitted(Run):
    """A run that predicts, is scored, and shows itself in a notebook."""

    def predict(self, data: Data) -> Any:
        """What it says of new data, a row a step, or one a series: a table of the kind that was given, else a dict."""
        records = self._records(data)
        found = stacked(predictions(self, records))
        return _as_given(data, found)

    def evaluate(self, data: Sequence[str] = ()) -> dict[str, Any]:
        """Its scores beside its baselines; report.html in its folder tells more."""
        with bars() as watch:
            return report_run(self, tuple(data), watch=watch)

    def backtest(self, folds: int = 5, refit: bool = False, data: Sequence[str] = ()) -> dict[str, Any]:
        """Its scores walking forward over time, beside its rivals; backtest/report.html in its folder tells more.

        With `refit` the recipe is trained anew before each fold. UserError where it is no forecast.
        """
        with bars() as watch:
            outcome = task_of(self.recipe).backtest(self, folds, refit, tuple(data), watch)
            write_outcome(self, outcome, f"{self.name}, walked forward", self.folder / "backtest")
        return outcome.scores

    def plot(self, data: Sequence[str] = ()) -> Any:
        """A figure of matplotlib: its forecasts and their band over what came. UserError where it is no forecast."""
        return trace_figure(task_of(self.recipe).traces(self, material(self, tuple(data))))

    def __repr__(self) -> str:
        return f"<run of {self.name} in {self.folder}>"

    def _records(self, data: Data) -> list[Record]:
        paths = _paths(data)
        return open_records(self.recipe, paths) if paths else in_memory(data)

    def _repr_html_(self) -> str:
        """A table of its scores, where it was evaluated."""
        where = self.folder / "metrics.json"
        head = f"<b>{escape(self.name)}</b> in {escape(str(self.folder))}"
        if not where.exists():
            return f"<p>{head}; not yet evaluated</p>"
        scores = read_json(where)
        rows = [(name, *(_figure(row.get(column)) for column in scores["columns"])) for name, row in ranked(scores)]
        return f"<p>{head}</p>{html_table([('', *scores['columns']), *rows])}"


def fit(
    recipe: str | Recipe | Callable[[Sequence[Record]], Recipe],
    given: Data | Recipe = (),
    folder: Path | str | None = None,
    data: Data = (),
    say: Callable[[str], None] = print,
    **options: Any,
) -> Fitted:
    """Trains a recipe, by its name or as it is, on a table in memory or on files.

    `options` are the recipe's own, such as `target="load_kw"`; of its parts as a dict, `training={"steps": 100}`. A
    table in memory is kept in the run's folder, so that the run stands on its own. `fit(name, recipe, folder, data)`
    trains a recipe as it is. UserError as the command `train` would end with.
    """
    if is_recipe(given):
        place = Path(folder or new_folder(str(recipe)))
        return Fitted(**vars(train(str(recipe), given, place, _paths(data), say=say, **options)))
    data = given if _is_nothing(data) else data
    name = recipe if isinstance(recipe, str) else getattr(recipe, "__name__", type(recipe).__name__.lower())
    made: Any = make_of(recipe) if isinstance(recipe, str) else recipe
    place = Path(folder) if folder else new_folder(name)
    paths = _paths(data)
    if not paths and not _is_nothing(data):
        paths = _kept(in_memory(data), place)
    if not is_recipe(made):
        first = made(())
        made = made(open_records(first, paths) if paths else ())
    changed = with_options(made, options)
    with bars() as watch:
        run = train(name, changed, place, paths, say=say, watch=watch)
    return Fitted(**vars(run))


def with_options(spec: Any, options: Mapping[str, Any]) -> Any:
    """A spec with fields changed by name; of a part by a dict of its own. UserError where there is no such field."""
    known = {f.name for f in fields(spec)}
    changed = {}
    for name, value in options.items():
        if name not in known:
            raise UserError(f"{type(spec).__name__} has no option {name!r}{did_you_mean(name, known)}")
        before = getattr(spec, name)
        if isinstance(value, Mapping) and is_dataclass(before):
            value = with_options(before, value)
        elif isinstance(before, tuple) and isinstance(value, str):
            value = (value,)
        elif isinstance(before, tuple) and isinstance(value, list):
            value = tuple(value)
        changed[name] = value
    return replace(spec, **changed)


def read(*paths: Path | str) -> list[Record]:
    """All recordings of logs, as `steersman.sources.read` gives them; of tables over time a record a table.

    UserError where there is nothing that can be read.
    """
    if paths and are_tables(paths):
        return Tables().open([log for path in paths for log in expanded(path)])
    return read_logs(*paths)


def in_memory(data: Data) -> list[Record]:
    """Records of tables in memory. UserError where they are none."""
    several = data if isinstance(data, list | tuple) else [data]
    return [table_record(f"table_{i}", _columns(table), {"format": "table"}) for i, table in enumerate(several)]


def _columns(table: Any) -> dict[str, np.ndarray]:
    if isinstance(table, np.ndarray):
        if table.ndim not in (1, 2):
            raise UserError(f"an array of shape {table.shape} is no table; give (row) or (row, number)")
        named = {f"x{i}": column for i, column in enumerate(np.atleast_2d(table.T))}
    elif isinstance(table, Mapping):
        named = {str(name): np.asarray(values) for name, values in table.items()}
    else:
        try:
            arrow = _arrow(table)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise UserError(f"this {type(table).__name__} can't be read: {' '.join(str(error).split())}") from error
        if arrow is None:
            raise UserError(
                f"a {type(table).__name__} is no table; give a data frame, a dict of arrays, an array, or a path"
            )
        return arrow_columns("the table", arrow)
    return {name: _plain(name, values) for name, values in named.items()}


def _arrow(table: Any) -> pa.Table | None:
    """A table of Arrow, pandas or polars as Arrow's; None for anything else. None of them is imported."""
    table = table.collect() if hasattr(table, "collect") else table
    table = table.to_frame() if hasattr(table, "to_frame") and not hasattr(table, "columns") else table
    if hasattr(table, "iloc"):
        for name, kind in table.dtypes.items():
            if getattr(kind, "kind", "") == "O":
                _check_zones(str(name), table[name])
        return pa.Table.from_pandas(_without_index(table), preserve_index=False)
    if hasattr(table, "to_arrow"):
        return table.to_arrow()
    return pa.table(table) if hasattr(table, "__arrow_c_stream__") else None


def _without_index(table: Any) -> Any:
    """A frame of pandas whose index, where it says something, stands in columns; a clock without a name is `time`."""
    index = table.index
    if hasattr(index, "to_timestamp"):  # Periods, by their beginning.
        table = table.set_axis(index.to_timestamp(), axis=0)
        index = table.index
    is_clock = np.asarray(index[:0]).dtype.kind == "M" or getattr(index, "tz", None) is not None
    if not is_clock and all(name is None for name in index.names):
        return table
    if is_clock:
        name = index.name or "time"
        return table.rename_axis("index" if name in table.columns else name).reset_index()
    return table.reset_index()


def _check_zones(name: str, values: Iterable[Any]) -> None:
    """UserError where some moments have a time zone and others none: Arrow would take these for UTC."""
    zoned = {value.tzinfo is not None for value in values if hasattr(value, "tzinfo") and value == value}
    if len(zoned) > 1:
        raise UserError(f"some of {name!r} have a time zone, others none; give all of them theirs")


def _plain(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim != 1:
        raise UserError(f"column {name!r} has shape {values.shape}; give a number a row")
    if values.dtype.kind != "O":
        return plain_array(name, values)
    _check_zones(name, values)
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError):  # Cells of several kinds.
        column = pa.array([None if value is None or value != value else str(value) for value in values.tolist()])
    return arrow_columns("the table", pa.table({name: column}))[name]


def _paths(data: Data) -> tuple[str, ...]:
    several = data if isinstance(data, list | tuple) else [data]
    return tuple(map(str, several)) if several and all(isinstance(one, str | Path) for one in several) else ()


def _is_nothing(data: Data) -> bool:
    return data is None or (isinstance(data, list | tuple) and not data)


def _kept(records: Sequence[Record], folder: Path) -> tuple[str, ...]:
    """Files in the run's folder that hold the tables."""
    kept = folder / "data"
    kept.mkdir(parents=True, exist_ok=True)
    paths = []
    for record in records:
        path = kept / f"{record.name}.parquet"
        write_predictions(path, {name: np.asarray(stream.values) for name, stream in record.streams.items()})
        paths.append(str(path))
    return tuple(paths)


def _as_given(data: Data, columns: Mapping[str, np.ndarray]) -> Any:
    one = data[0] if isinstance(data, list | tuple) and data else data
    library = type(one).__module__.partition(".")[0]
    if library in ("pandas", "polars"):
        from importlib import import_module

        return import_module(library).DataFrame(dict(columns))
    return dict(columns)


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.4g}"
