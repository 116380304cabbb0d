"""CSV files of any dialect: one table, whatever wrote it; and clocks in any form."""

import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steersman.sources.csv_tables import Clock, header, read_table

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def table(folder: Path, text: str | bytes, columns=(), limits=None) -> tuple[list[list[str]], list[str]]:
    """Cells of the rows, and what was said of the lines that are none."""
    path = folder / "a.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    faults: list[str] = []
    found = read_table(path, columns)
    if not columns:
        assert header(path) in (list(found.columns), [])
    rows = [
        list(cells.values()) for _, cells in found.rows(lambda place, what: faults.append(f"{place}: {what}"), limits)
    ]
    return rows, faults


PLAIN = [["t", "name", "x"], ["0.05", "a b.jpg", "-1.5"], ["1000.25", "c.jpg", "2"], ["3", "d.jpg", "1e-3"]]


@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("parted", [",", ";", "\t", "|", "; "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("before", ["", "sep=;\n", "# made by hand\n", "\n\n"])
def test_a_table_reads_the_same_in_every_dialect(decimal, parted, end, before, tmp_path):
    if before == "sep=;\n":
        parted = ";"
    quote = '"' if parted == decimal else ""

    def cell(text: str) -> str:
        return f"{quote}{text if text.endswith('jpg') else text.replace('.', decimal)}{quote}"

    lines = [parted.join(map(cell, row)) for row in PLAIN]
    rows, faults = table(tmp_path, (before + "\n".join(lines)).replace("\n", end))
    assert (rows, faults) == (PLAIN[1:], [])


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("x\n0,5\n-1,25\n", [["0.5"], ["-1.25"]]),  # A single column has nothing to be parted by.
        ("a;b\n1.234,5;2\n", [["1234.5", "2"]]),
        ("a  b\n1  2\n3 4\n", [["1", "2"], ["3", "4"]]),
        ("#a,b\n1,2\n", [["1", "2"]]),
        ('a,b\n"1,5",x\n', [["1.5", "x"]]),
        ("a,b\n1.5,x;y\n", [["1.5", "x;y"]]),
    ],
)
def test_what_parts_and_points(text, rows, tmp_path):
    assert table(tmp_path, text) == (rows, [])


def test_a_bad_line_spoils_itself_alone(tmp_path):
    rows, faults = table(tmp_path, 'a,b\n1,2\n"3,4\n5\n6,7,8\n9,10\n')
    assert rows == [["1", "2"], ["9", "10"]]
    assert faults == [
        "a.csv line 3: has 1 cells, not 2",
        "a.csv line 4: has 1 cells, not 2",
        "a.csv line 5: has 3 cells, not 2",
    ]


UDACITY = ("center", "steering", "throttle", "brake", "speed")
LIMITS = {"steering": (-1.001, 1.001), "throttle": (-1.0, 1.0), "brake": (0.0, 1.0)}


@FUZZ
@given(st.data())
def test_decimal_commas_between_commas_never_give_another_angle(tmp_path_factory, data):
    decimals = data.draw(st.sampled_from([None, 2, 6]))

    def written(value: float) -> str:
        text = f"{value:.7g}" if decimals is None else f"{value:.{decimals}f}"
        return text.replace(".", ",")

    angles = st.one_of(st.just(0.0), st.floats(-1, 1).filter(lambda x: x == 0 or abs(x) > 1e-3))
    drives = data.draw(
        st.lists(st.tuples(angles, st.floats(0.01, 1), st.just(0.0), st.floats(0.1, 30)), min_size=1, max_size=12)
    )
    text = "\n".join(",".join([f"{i}.jpg", *map(written, drive)]) for i, drive in enumerate(drives)) + "\n"
    rows, faults = table(tmp_path_factory.mktemp("commas"), text, UDACITY, LIMITS)
    assert len(rows) + len(faults) == len(drives)
    for name, steering, *_ in rows:
        truth = written(drives[int(name.removesuffix(".jpg"))][0]).replace(",", ".")
        assert float(steering) == float(truth)


def test_decimal_commas_of_a_simulator_are_all_told(tmp_path):
    angles = [round(0.3 * math.sin(i / 7), 7) for i in range(80)]
    rows = [f"{i}.jpg,{angle:g},0.3,0,15.2".replace(".", ",").replace(",jpg", ".jpg") for i, angle in enumerate(angles)]
    found, faults = table(tmp_path, "\n".join(rows), UDACITY, LIMITS)
    assert faults == []
    assert [float(row[1]) for row in found] == [float(f"{angle:g}") for angle in angles]
    assert {tuple(row[2:]) for row in found} == {("0.3", "0", "15.2")}


def test_many_ways_to_join_a_row_are_soon_looked_through(tmp_path):
    columns = [f"c{i}" for i in range(9)]
    begin = time.process_time()
    table(tmp_path, "\n".join([",".join(["1"] * 13)] * 20), columns)
    assert time.process_time() - begin < 2


# Clocks

BEGIN = datetime(2024, 3, 31, 23, 59, 59, 250_000, UTC)


def moments(num: int = 30) -> list[datetime]:
    return [BEGIN + timedelta(milliseconds=50 * i) for i in range(num)]


def seconds(name: str, cells: list[str]) -> tuple[np.ndarray, str]:
    clock = Clock(name, cells)
    return clock.seconds(np.array([clock.tick(cell) for cell in cells]))


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d %H:%M:%S.%f",
        "%Y-%m-%dT%H:%M:%S.%fZ",
        "%Y-%m-%dT%H:%M:%S,%f+02:00",
        "%Y/%m/%d %H:%M:%S.%f",
        "%Y-%m-%d %H:%M:%S:%f",
        "%Y_%m_%d_%H_%M_%S_%f",
        "%Y%m%dT%H%M%S.%f",
        "%Y%m%d_%H%M%S_%f",
        "%d.%m.%Y %H:%M:%S,%f",
        "%m/%d/%Y %I:%M:%S.%f %p",
        "%d/%m/%y %H:%M:%S.%f",
        "%H:%M:%S.%f",
    ],
)
@pytest.mark.parametrize("digits", [3, 6])
def test_dates_and_times_of_day_are_seconds(form, digits, tmp_path):
    cells = [moment.strftime(form.replace("%f", f"{moment:%f}"[:digits])) for moment in moments()]
    time_s, told = seconds("stamp", cells)
    np.testing.assert_allclose(time_s - time_s[0], np.arange(30) / 20, atol=1e-5)
    assert told.startswith("stamp, ")
    if "%Y" in form and "+02" not in form:
        assert time_s[0] == pytest.approx(BEGIN.timestamp(), abs=1e-3)


@pytest.mark.parametrize(("unit_s", "rate"), [(1, 20), (1e-3, 20), (1e-6, 20), (1e-9, 20), (1, 0.5), (1e-3, 0.2)])
@pytest.mark.parametrize("name", ["t", "stamp"])
def test_seconds_since_1970_tell_their_unit(unit_s, rate, name):
    cells = [repr((BEGIN.timestamp() + i / rate) / unit_s) for i in range(30)]
    time_s, told = seconds(name, cells)
    np.testing.assert_allclose(time_s - time_s[0], np.arange(30) / rate, atol=1e-5)
    assert told == f"{name}, in units of {unit_s:g} s since 1970"


@pytest.mark.parametrize("name", ["Time [ms]", "time (ms)", "clock_ms"])
def test_a_unit_in_the_name_of_a_clock_counts(name):
    np.testing.assert_allclose(seconds(name, ["0", "5000", "10000"])[0], [0, 5, 10])


@pytest.mark.parametrize("cell", ["", "nan", "1e400", "2024-13-01 00:00:00", "half past nine", "2024-01-01 9"])
def test_what_is_no_time_is_refused(cell):
    dates = Clock("t", ["2024-01-01 00:00:00"] * 3)
    for clock in (dates, Clock("t", ["1", "2"])):
        with pytest.raises(ValueError, match=r".+"):
            clock.tick(cell)


@FUZZ
@given(st.binary(max_size=300), st.lists(st.text(max_size=20), max_size=5))
def test_whatever_a_file_holds_is_a_table_or_none(tmp_path_factory, content, cells):
    table(tmp_path_factory.mktemp("any"), content)
    table(tmp_path_factory.mktemp("any"), content, UDACITY, LIMITS)
    clock = Clock("t", cells)
    for cell in cells:
        try:
            clock.tick(cell)
        except ValueError:
            continue


def test_a_mark_of_utf_8_before_other_bytes_is_one_sentence_and_nothing_else(tmp_path, capfd):
    from steersman.errors import UserError
    from steersman.sources.tables import read

    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2\n3,\xff,4\n5,6\n")
    with pytest.raises(UserError, match="begins as UTF-8 and holds bytes that are none"):
        read(tmp_path / "a.csv")
    assert capfd.readouterr() == ("", "")
