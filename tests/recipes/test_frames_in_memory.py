"""Frames of pandas and polars, and dialects of CSV, beside pandas' own reader."""

import csv
import datetime
import io
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import steersman as sm
from steersman.errors import UserError
from steersman.recipes.fitted import in_memory
from steersman.sources.tables import read

HOURS = np.datetime64("2024-01-01", "ns") + np.arange(24) * np.timedelta64(1, "h")


@pytest.fixture
def pd():
    return pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture
def pl():
    return pytest.importorskip("polars", reason="polars is not installed")


def columns(table) -> dict[str, np.ndarray]:
    (record,) = in_memory(table)
    return {name: np.asarray(stream.values) for name, stream in record.streams.items()}


def test_a_clock_in_an_index_of_pandas_is_a_column(pd):
    clock = pd.DatetimeIndex(HOURS)
    for index in (clock, clock.tz_localize("UTC"), clock.to_period("h")):
        found = columns(pd.DataFrame({"v": np.arange(24.0)}, index=index))
        np.testing.assert_array_equal(found["time"], HOURS)
    berlin = columns(pd.DataFrame({"when": clock.tz_localize("Europe/Berlin"), "v": 1.0}))
    np.testing.assert_array_equal(berlin["when"], HOURS - np.timedelta64(1, "h"))
    both = pd.MultiIndex.from_product([["a", "b"], clock], names=["id", "when"])
    assert list(columns(pd.DataFrame({"v": np.arange(48.0)}, index=both))) == ["id", "when", "v"]
    assert list(columns(pd.Series(np.arange(24.0), index=clock, name="v"))) == ["time", "v"]


def test_nullable_and_categorical_columns_of_pandas_are_read(pd):
    frame = pd.DataFrame(
        {
            "whole": pd.array([1, None, 3], dtype="Int64"),
            "yes": pd.array([True, None, False], dtype="boolean"),
            "word": pd.array(["x", None, "y"], dtype="string"),
            "kind": pd.Categorical(["a", "b", None]),
            "span": pd.to_timedelta([1, 2, 3], unit="min"),
        }
    )
    found = columns(frame)
    np.testing.assert_array_equal(found["whole"], [1, np.nan, 3])
    np.testing.assert_array_equal(found["yes"], [1, np.nan, 0])
    np.testing.assert_array_equal(found["span"], [60, 120, 180])
    assert found["word"].tolist() == ["x", "", "y"]
    assert found["kind"].tolist() == ["a", "b", ""]
    np.testing.assert_array_equal(columns({"a": frame["whole"]})["a"], [1, np.nan, 3])
    for wrong in (pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame({"a": [1j]})):
        with pytest.raises(UserError, match="this DataFrame can't be read"):
            in_memory(wrong)


def test_frames_of_polars_are_read(pl):
    frame = pl.DataFrame({"when": HOURS[:3], "a": [1, None, 3], "s": ["x", None, "y"]})
    frame = frame.with_columns(pl.col("s").cast(pl.Categorical).alias("c"))
    for given_ in (frame, frame.lazy()):
        found = columns(given_)
        np.testing.assert_array_equal(found["when"], HOURS[:3])
        np.testing.assert_array_equal(found["a"], [1, np.nan, 3])
        assert found["s"].tolist() == found["c"].tolist() == ["x", "", "y"]
    with pytest.raises(UserError, match="'a' holds large_list"):
        in_memory(pl.DataFrame({"a": [[1], [2]]}))


def test_times_with_a_zone_and_without_one_are_not_mixed():
    noon = datetime.datetime(2024, 1, 1, 12)
    moments = [noon, noon.replace(tzinfo=datetime.UTC)] * 20
    table = {"time": np.array(moments, object), "v": np.arange(40.0)}
    with pytest.raises(UserError, match="some of 'time' have a time zone"):
        sm.fit("forecast", table, target="v", say=lambda text: None)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_run_answers_a_frame_with_a_frame(tmp_path, library):
    made = pytest.importorskip(library, reason=f"{library} is not installed")
    frame = made.DataFrame({"time": np.arange(90.0), "v": np.sin(np.arange(90.0))})
    options = {"horizon": 2, "context": 4, "training": {"steps": 2, "validate_every": 2}}
    run = sm.fit("forecast", frame, folder=tmp_path / "run", say=lambda text: None, target="v", **options)
    found = run.predict(frame)
    assert isinstance(found, made.DataFrame)
    assert found.shape[0] == 90


def test_records_and_inspections_show_themselves():
    record = replace(in_memory({"<v>": np.arange(3.0)})[0], name="a&b")
    assert "<b>a&amp;b</b>" in record._repr_html_()
    assert "<td>&lt;v&gt;</td><td>3 float64</td><td>0</td><td>2</td>" in record._repr_html_()


CELLS = st.one_of(
    st.none(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.floats(-1000, 1000).map(lambda v: round(v, 2)),
)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=3, max_size=12),
    delimiter=st.sampled_from(",;\t|"),
    decimal=st.sampled_from(".,"),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.booleans(),
    quoted=st.booleans(),
)
def test_what_pandas_reads_is_read_to_the_same_numbers(rows, delimiter, decimal, end, mark, quoted):
    made = pytest.importorskip("pandas", reason="pandas is not installed")
    decimal = "." if delimiter == "," else decimal
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["first", "second", "row"])
    for number, cells in enumerate(rows):
        writer.writerow(["" if c is None else str(c).replace(".", decimal) for c in (*cells, number)])
    data = ("\ufeff" if mark else "").encode() + text.getvalue().encode()
    theirs = made.read_csv(io.BytesIO(data), sep=delimiter, decimal=decimal, encoding="utf-8-sig")
    with TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        path.write_bytes(data)
        (ours,) = read(path)
    assert list(ours.streams) == list(theirs.columns)
    for name in theirs.columns:
        expected = theirs[name].to_numpy(float)
        np.testing.assert_allclose(np.asarray(ours[name].values), expected, rtol=1e-13)  # Its default parser rounds.
