"""A converted log reads back as it was, but for the loss of its videos, and is never taken for whole before it is."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.logs import convert as converting
from steersman.logs.convert import convert
from steersman.sources import read
from steersman.sources.lerobot_writer import Writer


def drive(name: str = "one", length: int = 50, size: tuple[int, int] = (24, 32), hz: float = 10.0) -> Record:
    """A bright bar that wanders over a dark ground, on a clock that is not quite regular."""
    rng = np.random.default_rng(len(name) + length)
    time_s = np.arange(length) / hz + rng.uniform(-0.01, 0.01, length)
    time_s -= time_s[0]
    pictures = np.full((length, *size, 3), (40, 60, 50), np.uint8)
    for i in range(length):
        pictures[i, :, i % (size[1] - 6) : i % (size[1] - 6) + 6] = (180, 160, 200)
    steer = rng.uniform(-1, 1, length).astype(np.float32)
    streams = {"picture": Stream(pictures, time_s), "steer": Stream(steer, time_s)}
    streams["pose"] = Stream(rng.random((length, 3)), time_s)
    about = {"format": "a test", "clock": "made up", "sign": "positive left", "faults": ["line 3: bad"]}
    about["num_faults"] = 1
    return Record(name, streams, about)


@pytest.fixture
def log(monkeypatch):
    """Makes `convert` read the records it is given."""
    return lambda *records: monkeypatch.setattr(converting, "read", lambda path: list(records))


def error_of(found, wanted) -> float:
    """Root of the mean squared difference of pictures, of 255."""
    return float(np.sqrt(np.mean((np.asarray(found, float) - np.asarray(wanted, float)) ** 2)))


@pytest.mark.parametrize("size", [(24, 32), (23, 31)])
def test_a_log_comes_back_as_it_was_but_for_the_loss_of_video(log, tmp_path, size):
    records = [drive("one", 70, size), drive("two/b", 1, size), drive("three", 30, size)]
    log(*records)
    done = convert("log", tmp_path / "out", "drive a lap")
    assert (done.episodes, done.frames, done.fps, done.dropped, done.uneven) == (3, 101, 10, {}, 0)
    for found, wanted in zip(read(tmp_path / "out"), records, strict=True):
        assert found.name == wanted.name
        assert set(found.streams) == {"picture", "steer", "pose"}
        for name in ("steer", "pose"):
            assert np.asarray(found[name].values[:]).tobytes() == wanted[name].values[:].tobytes()
        np.testing.assert_array_equal(found["steer"].time_s, wanted["steer"].time_s)
        assert error_of(found["picture"].values[:], wanted["picture"].values[:]) < 8
        if len(wanted) > 1:  # Frames are where they were, not one beside.
            assert error_of(found["picture"].values[:-1], wanted["picture"].values[1:]) > 12
        assert found.about["converted_from"] == ["a test"]
        assert (found.about["num_faults"], found.about["faults"]) == (1, ["line 3: bad"])
        assert found.about["task"] == "drive a lap"


def test_the_layout_is_that_of_lerobot_with_videos(log, tmp_path):
    log(drive("one"), drive("two"))
    convert("log", tmp_path / "out")
    info = json.loads((tmp_path / "out" / "meta" / "info.json").read_text())
    camera = info["features"]["observation.images.front"]
    assert (camera["dtype"], camera["shape"], camera["info"]["video.fps"]) == ("video", [24, 32, 3], 10)
    assert isinstance(info["fps"], int)
    rows = pq.read_table(tmp_path / "out" / "meta" / "episodes").to_pylist()
    key = "videos/observation.images.front"
    for number, row in enumerate(rows):
        place = {"chunk_index": row[f"{key}/chunk_index"], "file_index": row[f"{key}/file_index"]}
        film = tmp_path / "out" / info["video_path"].format(video_key="observation.images.front", **place)
        assert film.is_file()
        assert (row[f"{key}/from_timestamp"], row[f"{key}/to_timestamp"]) == (0.0, 5.0)
        data = pq.read_table(tmp_path / "out" / info["data_path"].format(**place))
        assert "observation.images.front" not in data.column_names
        assert data["episode_index"].to_pylist() == [number] * 50
    stats = json.loads((tmp_path / "out" / "meta" / "stats.json").read_text())
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_conversion_that_was_cut_is_gone_on_with_and_never_passes_as_whole(log, tmp_path, monkeypatch, after):
    records = [drive("one"), drive("two"), drive("three")]
    log(*records)
    add, added = Writer.add, []

    def cut(self, episode, name=None):
        if len(added) == after:
            raise KeyboardInterrupt
        added.append(name)
        add(self, episode, name)

    monkeypatch.setattr(Writer, "add", cut)
    with pytest.raises(KeyboardInterrupt):
        convert("log", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="no recording"):
        read(tmp_path)
    monkeypatch.setattr(Writer, "add", lambda self, episode, name=None: (added.append(name), add(self, episode, name)))
    convert("log", tmp_path / "out")
    assert added == ["one", "two", "three"]
    convert("log", tmp_path / "again")
    files = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file
    assert [r.name for r in read(tmp_path / "out")] == ["one", "two", "three"]


def test_streams_that_cannot_come_along_are_told(log, tmp_path, capsys):
    one, two = drive("one"), drive("two", hz=20.0)
    clock = one["steer"].time_s
    slow = Stream(np.arange(5, dtype=np.int64), clock[::10])
    grid = Stream(np.ones((50, 2, 2)), clock)
    log(
        replace(one, streams=one.streams | {"count": slow, "extra": one["steer"], "grid": grid}),
        replace(two, streams=two.streams | {"count": two["steer"], "grid": two["steer"]}),
    )
    main(["convert", "log", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert "stream extra was left out: 1 of 2 records lack it" in said.err
    assert "stream grid was left out: neither" in said.err
    assert "of another rate than 15 Hz: 2 records" in said.err
    assert "2 episodes, 100 frames at 15 Hz" in said.out
    first, second = read(tmp_path / "out")
    np.testing.assert_array_equal(first["count"].values[:], np.repeat(np.arange(5), 10))
    np.testing.assert_array_equal(second["count"].values[:], two["steer"].values)
    assert set(first.about["left_out"]) == {"extra", "grid"}


def test_numbers_that_are_missing_now_and_then_come_along(log, tmp_path, capsys):
    one, two = drive("one"), drive("two")
    place = np.full((50, 2), np.nan)
    place[20:] = [48.1, 11.5]
    never = np.full(50, np.nan)
    more = {"place": Stream(place, one["steer"].time_s), "never": Stream(never, one["steer"].time_s)}
    log(*(replace(record, streams=record.streams | more) for record in (one, two)))
    main(["convert", "log", str(tmp_path / "out")])
    assert "stream never was left out: in 2 of 2 records a number of it is never known" in capsys.readouterr().err
    for record in read(tmp_path / "out"):
        np.testing.assert_array_equal(record["place"].values, place)
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    assert stats["label.place"]["mean"] == pytest.approx([48.1, 11.5])


def test_what_cannot_be_converted_is_refused_and_leaves_no_out(log, tmp_path):
    (tmp_path / "taken").mkdir()
    log(drive())
    with pytest.raises(UserError, match="exists already"):
        convert("log", tmp_path / "taken")
    log(drive("one"), drive("two", size=(12, 16)))
    with pytest.raises(UserError, match=r"24x32x3 in one, 12x16x3 in two"):
        convert("log", tmp_path / "out")
    log(replace(drive(), streams={"steer": drive()["steer"]}), replace(drive(), streams={"speed": drive()["steer"]}))
    with pytest.raises(UserError, match="no stream stands in all of 2"):
        convert("log", tmp_path / "out")
    bad = drive()
    log(replace(bad, streams=bad.streams | {"steer": Stream(np.full(50, np.nan, np.float32), bad["steer"].time_s)}))
    with pytest.raises(UserError, match="not a finite number"):
        convert("log", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_real_tub_converts(shared_data, tmp_path):
    folder = shared_data("donkeycar_test_tub")
    convert(folder, tmp_path / "out")
    (found,), (wanted,) = read(tmp_path / "out"), read(folder)
    np.testing.assert_array_equal(found["steer"].values[:], wanted["steer"].values[:])
    for i in (0, 1, 499, 999):
        assert error_of(found["picture"].values[i], wanted["picture"].values[i]) < 6
