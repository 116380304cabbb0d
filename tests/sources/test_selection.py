"""Parts of logs, several logs, and what is no log: chosen, read in order, or said what it seems to be."""

import gzip
import sqlite3
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from test_driving_logs import bag, comma2016
from test_folder import drive
from test_sources import companions, line, row, tub, udacity

from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.sources import expanded, read
from steersman.sources.selection import asked, selected


def seen(records: list[Record]) -> list[list[int]]:
    """Numbers of the frames of each record, by their angles."""
    return [np.round(record["steer"].values * -100).astype(int).tolist() for record in records]


@pytest.fixture
def log(tmp_path) -> Path:
    """A drive of 60 frames, 20 a second."""
    return tub(tmp_path / "drive", [line(i) for i in range(60)])


@pytest.mark.parametrize(
    ("named", "parts"),
    [
        ("keep=1:2", [range(20, 40)]),
        ("keep=:0.5", [range(10)]),
        ("drop=2.5:", [range(50)]),
        ("drop=1:1.5", [range(20), range(30, 60)]),
        ("keep=0:1,2:3&drop=0.5:2.5", [range(10), range(50, 60)]),
        ("keep=0:3", [range(60)]),
        ("records=0", [range(60)]),
        ("records=dr*&keep=2.9:", [range(58, 60)]),
    ],
)
def test_spans_of_seconds_are_kept_and_dropped(named, parts, log):
    records = read(f"{log}?{named}")
    assert seen(records) == [list(part) for part in parts]
    for record, part in zip(records, parts, strict=True):
        np.testing.assert_allclose(record["steer"].time_s, np.arange(len(part)) / 20, atol=1e-6)
        shades = record["picture"].values[:][:, 0, 0, 0].astype(int)
        assert np.abs(shades - np.array(part)).max() < 4
    assert [r.name for r in records] == (["drive"] if len(parts) == 1 else ["drive/0", "drive/1"])


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ("keep=5:9", r"keep=5:9 leaves nothing: its 1 records last 3\.0 seconds|last 2\.9"),
        ("keep=2:1", "keep=2:1 is no span of seconds"),
        ("drop=7", "drop=7 is no span of seconds"),
        ("records=1", "records=1 is none of its 1, counted from 0: drive"),
        ("records=lap*", r"records=lap\* is none"),
    ],
)
def test_what_can_not_be_chosen_is_said(named, why, log):
    with pytest.raises(UserError, match=why):
        read(f"{log}?{named}")


def test_records_are_chosen_by_number_and_name(tmp_path):
    tub(tmp_path / "a", [line(i) for i in range(80)], deleted=range(20, 60))
    udacity(tmp_path / "b", [row(i) for i in range(3)])
    names = [record.name for record in read(tmp_path)]
    assert names == ["a/0", "a/1", "b"]
    for named, chosen in {"1:": [1, 2], "0,2": [0, 2], ":2": [0, 1], "a/*": [0, 1], "2,a/0": [0, 2]}.items():
        assert [r.name for r in read(f"{tmp_path}?records={named}")] == [names[i] for i in chosen]


def test_streams_of_other_clocks_are_cut_at_the_same_seconds():
    record = Record(
        "r", {"a": Stream(np.arange(10), np.arange(10.0)), "b": Stream(np.arange(50), np.arange(50) / 5 - 0.1)}
    )
    (part,) = selected([record], {"keep": "3:6"}, Path("r"))
    assert part["a"].time_s.tolist() == [0, 1, 2]
    at = part["b"].at(part["a"].time_s)
    assert at.tolist() == record["b"].at(np.array([3.0, 4.0, 5.0])).tolist()
    assert part.about["kept_s"] == [3, 5]


def test_options_of_a_command_hold_for_all_logs_but_those_that_say_otherwise(log, capsys):
    assert asked(["a", "b?drop=1:2&mode=user"], drop="3:4", keep="") == ("a?drop=3:4", "b?drop=1:2&mode=user")
    assert asked(["a"]) == ("a",)
    with pytest.raises(UserError, match="--keep chooses from logs; name them with --data"):
        asked([], keep="1:2")
    main(["inspect", str(log), f"{log}?keep=2:3", "--keep", "0:1", "--json"])
    assert '"frames": 40' in capsys.readouterr().out


def test_several_logs_are_a_pattern_or_a_list(tmp_path, monkeypatch):
    for place in ("mon/tub", "tue/tub", "tue/other"):
        tub(tmp_path / place, [line(i) for i in range(3)])
    assert [r.name for r in read(f"{tmp_path}/*/tub")] == ["mon/tub", "tue/tub"]
    assert [r.name for r in read(tmp_path / "tue/other", tmp_path / "mon/tub")] == ["other", "tub"]
    (tmp_path / "logs.txt").write_text("# those of May\nmon/tub?records=0\n\ntue/*\n")
    assert [r.name for r in read(f"@{tmp_path}/logs.txt")] == ["mon/tub", "other", "tue/tub"]
    assert expanded("drive.mcap?steer=/a.b") == ["drive.mcap?steer=/a.b"]
    with pytest.raises(UserError, match="stands for no log"):
        read(f"{tmp_path}/*/none")
    with pytest.raises(UserError, match="can't be read as a list"):
        read(f"@{tmp_path}/none.txt")


# Texts, and what is none


PROSE = "It was a bright cold day in April, and the 2 clocks were striking 13.\n" * 9


@pytest.mark.parametrize("name", ["a.txt", "a.md", "novel", "a.srt"])
def test_prose_is_a_text(name, tmp_path):
    (tmp_path / name).write_text(PROSE)
    assert read(tmp_path / name)[0].about["format"] == "text"


def archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as made:
        made.add(__file__, "a.py")


def database(path: Path) -> None:
    with sqlite3.connect(path) as made:
        made.execute("create table a (b)")
    made.close()


DATA = {
    "a.sqlite": (database, "an SQLite database; .*metadata.yaml"),
    "a.tar.gz": (archive, "a gzip archive; unpack it"),
    "a.npz": (lambda path: np.savez(path, a=np.zeros(3)), "a table; steersman train forecast"),
    "a.npy": (lambda path: np.save(path, np.zeros(3)), "a table; steersman train forecast"),
    "a.bin": (lambda path: path.write_bytes(bytes(99)), "bytes that are no text"),
    "a.csv": (lambda path: path.write_text("t,angle_rad\n0,1\n1,2\n"), r"a table \(t, angle_rad\).*\?steer=COLUMN"),
    "a.txt": (lambda path: path.write_text("0.1 2 3.5\n0.2 3 4.5\n"), r"a table \(0\.1, 2, 3\.5\)"),
    "a.json": (lambda path: path.write_text('{"steer": 1}'), "JSON"),
    "a.jsonl": (lambda path: path.write_text('{"steer": 1}\n'), "a table; steersman train"),
    "a.jpg": (lambda path: path.write_bytes(b"\xff\xd8\xff\xd9"), "a picture; give the folder"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_is_no_text_unless_it_is_wished(name, tmp_path):
    make, why = DATA[name]
    make(tmp_path / name)
    with pytest.raises(
        UserError, match=rf"no recording in .*: it seems to .*{why}.*as a text all the same: .*\?as=text"
    ):
        read(tmp_path / name)
    (record,) = read(f"{tmp_path / name}?as=text")
    assert len(record["byte"]) == (tmp_path / name).stat().st_size - 1


def test_part_of_a_log_is_no_text_and_its_folder_is_named(tmp_path):
    tub(tmp_path / "tub", [line(i) for i in range(3)])
    for name in ("catalog_0.catalog", "manifest.json"):
        with pytest.raises(
            UserError, match=r"part of a log \(donkeycar tub.*give its folder, .*/tub; to read it as a text"
        ):
            read(tmp_path / "tub" / name)


def test_a_folder_of_pictures_with_a_readme_is_no_text(tmp_path):
    drive(tmp_path)
    (tmp_path / "drive.csv").unlink()
    (tmp_path / "README.txt").write_text(PROSE)
    with pytest.raises(UserError, match=r"holds pictures \(0\.jpg, \.\.\.\) but nothing known that says the wheel"):
        read(tmp_path)
    assert read(f"{tmp_path}?as=text")[0].name == "README.txt"
    (tmp_path / "drive.csv").write_text("a,b\n0.jpg,1\n")
    with pytest.raises(UserError, match=r"drive\.csv is a table \(a, b\).*columns of a drive can be named"):
        read(tmp_path)


def test_a_reader_can_be_named(tmp_path):
    udacity(tmp_path, [row(i) for i in range(3)])
    assert read(f"{tmp_path}?as=udacity_sim")[0].about["format"] == "Udacity simulator"
    with pytest.raises(UserError, match="can't be read as donkeycar: it lacks donkeycar tub"):
        read(f"{tmp_path}?as=donkeycar")
    with pytest.raises(UserError, match="as=novel is none of text, lerobot"):
        read(f"{tmp_path}?as=novel")


def test_columns_of_a_known_table_can_be_named_too(tmp_path):
    folder = udacity(tmp_path, [row(i) for i in range(3)])
    (record,) = read(f"{folder}?steer=steering&picture=left&rate=10&sign=right")
    assert record.about["format"] == "frames and a CSV"
    assert record["steer"].values.tolist() == [-0.25] * 3


def test_a_text_of_one_long_word_takes_no_longer_than_another(tmp_path):
    (tmp_path / "a.txt").write_text("1" * 60_000 + "x " + "word " * 100)
    begin = time.process_time()
    read(tmp_path / "a.txt")
    assert time.process_time() - begin < 1


# comma.ai 2016, whose logs and cameras are of unequal lengths


@pytest.mark.parametrize(("num", "frames"), [(30, 20), (20, 30)])
def test_a_log_and_a_camera_of_unequal_lengths_are_used_where_they_overlap(num, frames, tmp_path):
    (record,) = read(comma2016(tmp_path, num, frames))
    assert len(record) == 20
    assert record.about["num_faults"] == 0
    assert bool(record.about.get("notes")) == (frames < num)


def test_columns_of_unequal_lengths_are_used_where_they_overlap(tmp_path):
    whole = read(comma2016(tmp_path / "a"))[0]
    samples = len(whole["speed_mps"])
    (record,) = read(comma2016(tmp_path / "b", speed=np.full(samples // 2, 9.0)))
    assert 10 <= len(record) <= 16
    assert "samples: the first of all are used" in record.about["notes"][0]


def test_companions_that_macos_writes_hide_no_format(tmp_path):
    comma2016(tmp_path / "h5")
    drive(tmp_path / "csv")
    (tmp_path / "ros").mkdir()
    bag(tmp_path / "ros" / "a.bag", num=6)
    before = [len(record) for record in read(tmp_path)]
    companions(tmp_path)
    assert [len(record) for record in read(tmp_path)] == before


def test_a_gzip_in_a_text_by_name_is_bytes_and_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(gzip.compress(PROSE.encode()))
    with pytest.raises(UserError, match="a gzip archive"):
        read(tmp_path / "a.txt")
