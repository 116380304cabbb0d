"""A log is described as it is: what was planted in a drive is found, and nothing else is claimed."""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.logs import inspect as looking
from steersman.logs.inspect import duplicates, inspect_log
from steersman.logs.motion import Motion, find_lag
from steersman.logs.page import duration, inspection_report, inspection_table, write_inspection
from steersman.sources import READERS

RATE_HZ = 20.0


def wheel(length: int, seed: int) -> np.ndarray:
    """A smooth angle."""
    noise = np.random.default_rng(seed).standard_normal(length + 20)
    return np.convolve(noise, np.hanning(21) / 10, "valid")[:length].clip(-1, 1)


def drive(length: int = 200, lag: int = 0, sign: int = 1, seed: int = 0, gain: float = 4.0) -> Record:
    """A scene that moves right when the wheel was left `lag` frames ago, seen by a camera."""
    angle = wheel(length, seed)
    moves = gain * sign * np.roll(angle, lag)
    at = np.concatenate([[0], np.cumsum(moves)[:-1]])
    scene = np.random.default_rng(seed + 1).random((12, 40)) * 255
    scene = np.repeat(scene, 8, axis=1)
    columns = (np.arange(64)[None] - at[:, None]) % scene.shape[1]
    low = np.floor(columns).astype(int)
    share = (columns - low)[:, None]
    rows = scene[:, low].swapaxes(0, 1) * (1 - share) + scene[:, (low + 1) % scene.shape[1]].swapaxes(0, 1) * share
    pictures = np.repeat(rows[..., None], 3, -1).astype(np.uint8)
    time_s = np.arange(length) / RATE_HZ
    return Record(
        f"drive {seed}", {"picture": Stream(pictures, time_s), "steer": Stream(angle.astype(np.float32), time_s)}
    )


@pytest.fixture
def log(monkeypatch):
    """Makes `inspect_log` read the records it is given."""

    def inspected(*records: Record):
        monkeypatch.setattr(looking, "read", lambda path: list(records))
        return inspect_log("a log")

    return inspected


@settings(max_examples=12, deadline=None)
@given(st.integers(-8, 8), st.sampled_from([-1, 1]), st.integers(0, 99))
def test_a_planted_lag_and_sign_are_found(lag, sign, seed):
    record = drive(lag=lag, sign=sign, seed=seed)
    motion = Motion().add(record["picture"].values[:])
    found = find_lag([motion], [np.asarray(record["steer"].values)], [RATE_HZ])
    assert found is not None
    assert abs(found.frames - lag) <= 1
    assert found.least_s <= lag / RATE_HZ + 1e-9 <= found.most_s + 1 / RATE_HZ
    assert math.copysign(1, found.correlation) == sign


def test_motion_is_the_same_however_the_pictures_are_cut():
    pictures = drive(60)["picture"].values[:]
    whole, cut = Motion().add(pictures), Motion()
    parts = np.concatenate([cut.add(pictures[:1]), cut.add(pictures[1:23]), cut.add(pictures[23:])])
    np.testing.assert_allclose(parts, whole, atol=1e-4)
    assert np.isnan(whole[0]).all()
    assert np.isfinite(whole[1:]).all()


def test_a_label_that_has_nothing_to_do_with_the_scene_tells_no_lag(log):
    record = drive(400)
    noise = np.random.default_rng(5).standard_normal(400)
    strange = replace(record, streams=record.streams | {"steer": Stream(noise, record["steer"].time_s)})
    assert log(strange).found["lag"] is None


def test_records_of_other_rates_agree_in_seconds(log):
    slow = drive(300, lag=4, seed=3)
    fast = drive(300, lag=8, seed=4)
    time_s = fast["steer"].time_s / 2
    fast = replace(fast, streams={name: Stream(s.values, time_s) for name, s in fast.streams.items()})
    assert log(slow, fast).found["lag"]["seconds"] == pytest.approx(0.2, abs=0.04)


def test_a_sign_turned_around_and_a_late_camera_are_warned_of(log):
    said = " ".join(log(drive(300, lag=5, sign=-1)).found["warnings"])
    assert "probably turned around" in said
    assert "0.25 s after the label" in said
    assert log(drive(300)).found["warnings"] == []


def test_no_advice_is_given_that_was_measured_to_do_harm(log):
    (said,) = log(drive(300, lag=5)).found["warnings"]
    assert "consider" not in said
    assert "leave the labels as they are" in said
    assert "--lag.seconds -0.25" in said
    (turned,) = log(drive(300, sign=-1)).found["warnings"]
    assert "?sign=right" in turned


def printed(table) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def test_numbers_are_told_as_a_person_would(log):
    record = drive(300, lag=1)
    pictures = record["picture"].values[:].copy()
    pictures[100] = pictures[99]
    time_s = record["steer"].time_s.copy()
    time_s[200:] += 0.3
    tiny = np.full(300, -2.78e-17)  # What is left of a difference of two angles.
    tiny[150:160] = 0.5
    tiny[160:170] = -0.5
    streams = {"picture": Stream(pictures, time_s), "steer": Stream(tiny, time_s)}
    inspection = log(replace(record, streams=streams), replace(record, name="drive 1"))
    told = "".join(printed(table) for table in inspection_table(inspection.found)) + inspection_page(inspection)
    told += " ".join(inspection.found["warnings"])
    assert inspection.found["label"]["zeros"] > 0.4
    assert "1 frame equals" in told
    assert "skips 1 time " in told
    assert not re.search(r"\b1 (frames|times|gaps|records|pictures|things)\b", told)
    assert not re.search(r"[-\N{MINUS SIGN}]0\.?0*(?![\d.])|e[-\N{MINUS SIGN}]1\d", told.replace("e-in", ""))


def inspection_page(inspection) -> str:
    report = inspection_report(inspection)
    text = report.summary + "".join(f"{fact.value} {fact.note}" for fact in report.facts)
    return text + "".join(
        block.html() for section in report.sections for block in section.blocks if not hasattr(block, "wide")
    )


class Holed:
    """Pictures of which some can't be decoded."""

    def __init__(self, values: np.ndarray, holes: set[int]):
        self.values, self.holes = values, holes
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index):
        wanted = np.arange(len(self))[index]
        if bad := self.holes & set(wanted.reshape(-1).tolist()):
            raise UserError(f"frame {min(bad)} can't be decoded")
        return self.values[index]


def test_frames_that_cannot_be_decoded_are_counted_and_the_rest_is_used(log):
    record = drive(300, lag=3)
    holes = {0, 10, 11, 64, 130, 299}
    holed = Stream(Holed(record["picture"].values[:], holes), record["picture"].time_s)
    found = log(replace(record, streams=record.streams | {"picture": holed})).found
    assert found["num_undecodable"] == len(holes)
    assert found["undecodable"][0] == "drive 0: frame 0 can't be decoded"
    assert abs(found["lag"]["frames"] - 3) <= 1
    assert any("6 pictures can't be decoded" in text for text in found["warnings"])


def test_gaps_duplicates_zeros_and_constants_are_found(log):
    one, two = drive(100), drive(100, seed=9)
    pictures = one["picture"].values[:].copy()
    pictures[51:54] = pictures[50]
    time_s = one["picture"].time_s.copy()
    time_s[70:] += 0.5
    still = Stream(np.zeros(100, np.float32), time_s)
    first = replace(one, streams={"picture": Stream(pictures, time_s), "steer": still})
    other = two["picture"].values[:].copy()
    other[7] = pictures[3]
    second = replace(two, streams={"picture": Stream(other, time_s), "steer": still})
    found = log(first, second).found
    assert found["num_gaps"] == 2
    assert found["gaps"][0] == {"record": "drive 0", "time_s": pytest.approx(69 / 20), "seconds": pytest.approx(0.55)}
    assert found["duplicates"] == {"consecutive": 3, "across_records": 2}
    assert found["label"]["constant"]
    said = " ".join(found["warnings"])
    for part in ("skips 2 times", "3 frames equal", "2 frames stand in more than one", "never changes"):
        assert part in said
    streams = first.streams | {"steer": Stream((np.arange(100) % 10 == 0) * 0.5, time_s)}
    lazy = log(replace(first, streams=streams)).found
    assert lazy["label"]["zeros"] == 0.9
    assert sum(lazy["label"]["histogram"]["counts"]) == 100
    assert any("90% of steer is zero" in text for text in lazy["warnings"])


@given(st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", None]), max_size=6), max_size=4))
def test_duplicates_are_what_comparing_every_pair_finds(records):
    found = duplicates(records)
    flat = [(r, i, d) for r, digests in enumerate(records) for i, d in enumerate(digests) if d]
    assert found["consecutive"] == sum((r, i - 1, d) in flat for r, i, d in flat)
    assert found["across_records"] == sum(any(d == e and r != q for q, _, e in flat) for r, _, d in flat)


def test_the_page_and_the_table_show_what_was_found_and_the_json_is_strict(log, tmp_path):
    inspection = log(drive(300, lag=5), drive(200, lag=5, seed=3))
    write_inspection(tmp_path / "page.html", inspection)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 12
    assert "the camera sees a turn 0.25 s after the label" in page
    assert "scene's motion" in page.replace("&#x27;", "'")
    json.dumps(inspection.found, allow_nan=False)
    whole, each = inspection_table(inspection.found)
    assert each.row_count == 2
    assert whole.row_count > 10


def test_what_a_reader_noted_is_said_once(log):
    noted = [replace(drive(seed=seed), about={"notes": ["18 angles were clipped"]}) for seed in range(2)]
    assert log(*noted).found["warnings"].count("18 angles were clipped") == 1


@pytest.mark.parametrize(("seconds", "said"), [(5, "5.0 s"), (300, "5.0 min"), (7200, "2.0 h")])
def test_durations_are_told_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_a_log_without_pictures_is_inspected_too(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("What the sea said.\n" * 30)
    main(["inspect", str(tmp_path), "--json", "--page", str(tmp_path / "page.html")])
    found = json.loads(capsys.readouterr().out)
    assert (found["label"], found["lag"], found["num_undecodable"]) == (None, None, 0)
    assert "<html" in (tmp_path / "page.html").read_text()


def test_a_picture_that_is_broken_inside_is_found_in_a_real_tub(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    lines = []
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.jpg", "JPEG")
        row = {"_index": i, "_timestamp_ms": 50 * i, "cam/image_array": f"{i}.jpg", "user/angle": 0.1}
        lines.append(json.dumps(row))
    broken = tmp_path / "images" / "17.jpg"
    data = bytearray(broken.read_bytes())
    data[2:40] = bytes(38)
    broken.write_bytes(data)
    (tmp_path / "catalog_0.catalog").write_text("\n".join(lines))
    main(["inspect", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["num_undecodable"] == 1
    assert "17.jpg" in found["undecodable"][0]
    main(["inspect", str(tmp_path)])
    assert "warning: 1 picture can't be decoded" in capsys.readouterr().out


REAL = [
    ("donkeycar", "donkey_lab_real/tmdpi01car_drive1", 3, 1),
    ("donkeycar", "donkeycar_test_tub", 4, 1),
    ("udacity_sim", "udacity_sim/lake_driverB", 0, 1),
    ("deeptesla", "deeppicar_lane", 5, 0),
    ("deeptesla", "deeptesla_sample", 7, 2),
]


@pytest.mark.parametrize(("reader", "name", "frames", "within"), REAL)
def test_the_lag_of_real_logs_is_the_measured_one_and_left_is_positive(shared_data, reader, name, frames, within):
    if reader not in READERS:
        pytest.skip(f"no reader {reader} yet")
    folder: Path = shared_data(name.split("/")[0]) / "/".join(name.split("/")[1:])
    found = inspect_log(folder).found
    assert abs(found["lag"]["frames"] - frames) <= within
    assert found["lag"]["least_s"] <= frames / found["rate_hz"] + 1e-3
    assert found["lag"]["most_s"] >= (frames - within) / found["rate_hz"] - 1e-3
    assert found["lag"]["correlation"] > 0.7
