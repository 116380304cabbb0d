"""Raw logs become Records: what is good in them is kept, what is not is listed, and nothing else is raised."""

import json
import os
import re
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from steersman.data.cache import cached
from steersman.data.frames import Frames
from steersman.errors import UserError
from steersman.sources import READERS, read
from steersman.sources.safety import damage, encoded_damage, shown
from steersman.sources.synthetic import Echo, Road

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def jpeg(path: Path, shade: int = 100, size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, shade // 2, 255 - shade)).save(path, "JPEG", quality=95)
    return path


# A donkeycar tub, made by hand


def line(i: int, **changes) -> dict:
    return {
        "_index": i,
        "_session_id": "22-05-11_0",
        "_timestamp_ms": 1652239276783 + 50 * i,
        "cam/image_array": f"{i}_cam_image_array_.jpg",
        "user/angle": i % 100 / 100,
        "user/mode": "user",
        "user/throttle": 0.5,
    } | changes


def tub(folder: Path, lines: list, deleted=(), per_catalog: int = 1000) -> Path:
    """Lines are objects, or bytes as they are."""
    for i in range(len(lines)):
        jpeg(folder / "images" / f"{i}_cam_image_array_.jpg", i % 200)
    encoded = [row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in lines]
    parts = [encoded[i : i + per_catalog] for i in range(0, len(lines), per_catalog)]
    for number, part in enumerate(parts):
        (folder / f"catalog_{number}.catalog").write_bytes(b"".join(part))
    meta = [["cam/image_array"], ["image_array"], {}, {}, {"deleted_indexes": list(deleted)}]
    (folder / "manifest.json").write_text("\n".join(map(json.dumps, meta)) + "\n")
    return folder


def test_a_tub_becomes_one_record(tmp_path):
    (record,) = read(tub(tmp_path / "drive", [line(i) for i in range(25)], per_catalog=2))
    assert record.name == "drive"
    assert list(record.streams) == ["picture", "steer", "throttle"]
    assert record["picture"].values.shape == (25, 12, 16, 3)
    assert record["picture"].values.dtype == np.uint8
    assert record["steer"].values.dtype == np.float32
    np.testing.assert_array_equal(record["steer"].values, -np.arange(25, dtype=np.float32) / np.float32(100))
    assert not np.signbit(record["steer"].values[0])
    np.testing.assert_allclose(record["steer"].time_s, np.arange(25) / 20, atol=1e-6)
    assert (record.about["rate_hz"], record.about["clock"]) == (20.0, "time stamps")
    assert (record.about["faults"], record.about["num_faults"]) == ([], 0)
    shades = record["picture"].values[:][:, 0, 0, 0].astype(int)
    assert np.abs(shades - np.arange(25)).max() < 4


def old_tub(folder: Path, number: int = 12) -> Path:
    """Of version 1."""
    for i in range(1, number + 1):
        name = jpeg(folder / f"{i}_cam-image_array_.jpg", 10 * i).name
        row = {
            "cam/image_array": name,
            "user/angle": i / 100,
            "user/throttle": 0.5,
            "user/mode": "user",
            "milliseconds": 40 * i,
        }
        (folder / f"record_{i}.json").write_text(json.dumps(row))
    (folder / "meta.json").write_text(
        json.dumps({"inputs": ["cam/image_array"], "types": ["image_array"], "start": 1.6e9})
    )
    return folder


def test_a_tub_of_the_first_version_is_read_in_the_order_of_its_numbers(tmp_path):
    folder = old_tub(tmp_path / "drive")
    (record,) = read(folder)
    assert list(record.streams) == ["picture", "steer", "throttle"]
    np.testing.assert_array_equal(record["steer"].values, -np.arange(1, 13, dtype=np.float32) / np.float32(100))
    np.testing.assert_allclose(record["steer"].time_s, np.arange(12) / 25, atol=1e-6)
    assert (record.about["format"], record.about["rate_hz"]) == ("donkeycar tub v1", 25.0)
    shades = record["picture"].values[:][:, 0, 0, 0].astype(int)
    assert np.abs(shades - 10 * np.arange(1, 13)).max() < 4


def test_frames_of_an_old_tub_that_were_deleted_or_are_half_written(tmp_path):
    folder = old_tub(tmp_path / "drive", 60)
    (folder / "record_5.json").unlink()
    (folder / "record_7.json").write_text('{"cam/image_array": "7_cam')
    (folder / "9_cam-image_array_.jpg").write_bytes(b"\xff\xd8")
    (folder / "record_x.json").write_text("{}")
    (record,) = read(folder)
    assert len(record) == 57
    assert record.about["num_faults"] == 2
    assert record.about["faults"][0].startswith("record_7.json: ")
    assert record.about["faults"][1].startswith("record_9.json: 9_cam-image_array_.jpg is ")


def test_deleted_frames_are_dropped_and_cut_the_tub_only_where_the_gap_is_over_a_second(tmp_path):
    deleted = [5, *range(30, 60)]
    first, second = read(tub(tmp_path / "drive", [line(i) for i in range(80)], deleted))
    assert (first.name, second.name) == ("drive/0", "drive/1")
    assert (len(first), len(second)) == (29, 20)
    assert second["steer"].time_s[0] == 0
    assert first["steer"].values[5] == np.float32(-0.06)


def test_sessions_pauses_and_clocks_set_back_cut_a_tub(tmp_path):
    lines = [line(i) for i in range(40)]
    for row in lines[10:]:
        row["_session_id"] = "22-05-11_1"
    for row in lines[20:]:
        row["_timestamp_ms"] += 1500
    for row in lines[30:]:
        row["_timestamp_ms"] -= 100_000
    records = read(tub(tmp_path / "drive", lines))
    assert [len(r) for r in records] == [10, 10, 10, 10]
    assert all((np.diff(r["steer"].time_s) > 0).all() for r in records)


def test_time_stamps_of_a_conversion_are_replaced_by_the_nominal_rate(tmp_path):
    lines = [line(i, _timestamp_ms=1_600_000_000_000 + 3 * i) for i in range(30)]
    (record,) = read(tub(tmp_path, lines, deleted=[4]))
    assert record["steer"].time_s[4] == 5 / 20
    assert record.about["rate_hz"] == 20.0
    assert "333.33 Hz" in record.about["clock"]
    for row in lines:
        del row["_timestamp_ms"]
    (record,) = read(tub(tmp_path, lines))
    assert record["steer"].time_s[-1] == 29 / 20


def test_other_numbers_come_along_if_all_rows_have_them(tmp_path):
    lines = [line(i) | {"imu/gyr_z": i, "pilot/angle": 0.5, "note": "x", "flag": True} for i in range(30)]
    lines[3]["car/speed"] = 1.0
    lines[4] |= {"imu/acl_x": float("nan"), "steer": 9.0}
    (record,) = read(tub(tmp_path, lines))
    assert list(record.streams) == ["picture", "steer", "imu_gyr_z", "pilot_steer", "throttle"]
    assert record["imu_gyr_z"].values[7] == 7
    assert (record["pilot_steer"].values == -0.5).all()


BAD_LINES = [
    pytest.param(b'\0\0\0{"_index": 1}\n', "NUL", id="NUL"),
    pytest.param(json.dumps(line(7)).encode()[:40] + b"\n", "cut short", id="half a line"),
    pytest.param(b"\xff\xfe garbage\n", "cut short or not JSON", id="garbage"),
    pytest.param(b"[" * 100_000 + b"\n", "", id="too deep"),
    pytest.param(b"[1, 2]\n", "not an object", id="not an object"),
    pytest.param(line(7, **{"user/angle": 3}), "not a number from -1 to 1", id="angle out of range"),
    pytest.param(line(7, **{"user/angle": None}), "not a number", id="no angle"),
    pytest.param(line(7, _index=10**400), "not a number", id="huge index"),
    pytest.param(line(7, **{"cam/image_array": "nothing.jpg"}), "missing", id="no picture"),
    pytest.param(line(7, **{"cam/image_array": "a\0b.jpg"}), "null", id="no file name"),
    pytest.param(line(7, **{"cam/image_array": 7}), "not a file name", id="number for a file name"),
]


@pytest.mark.parametrize(("bad", "why"), BAD_LINES)
def test_a_bad_line_is_listed_and_skipped(bad, why, tmp_path):
    lines: list = [line(i) for i in range(30)]
    lines[7] = bad
    (record,) = read(tub(tmp_path, lines))
    assert len(record) == 29
    assert record.about["num_faults"] == 1
    (fault,) = record.about["faults"]
    assert fault.startswith("catalog_0.catalog line 8: ")
    assert why in fault
    json.dumps(record.about)


@pytest.mark.parametrize("keep", [0, 1, 2, 300, -2])
def test_a_picture_cut_short_is_listed_and_skipped(keep, tmp_path):
    folder = tub(tmp_path, [line(i) for i in range(30)])
    path = folder / "images/9_cam_image_array_.jpg"
    path.write_bytes(path.read_bytes()[:keep])
    (record,) = read(folder)
    assert len(record) == 29
    assert "9_cam_image_array_.jpg is " in record.about["faults"][0]


def test_the_last_line_of_a_car_that_lost_power_is_skipped(tmp_path):
    lines = [*(line(i) for i in range(30)), json.dumps(line(30)).encode()[:-20]]
    (record,) = read(tub(tmp_path, lines))
    assert (len(record), record.about["num_faults"]) == (30, 1)


def test_only_the_first_faults_are_listed_and_a_twentieth_is_the_most(tmp_path):
    lines: list = [line(i) for i in range(1000)]
    lines[100:150] = [b"{\n"] * 50
    first, second = read(tub(tmp_path, lines))
    assert first.about["num_faults"] == second.about["num_faults"] == 50
    assert len(first.about["faults"]) == 20
    lines[150] = b"{\n"
    with pytest.raises(UserError, match=r"51 of 1000 frames .* line 101: .*5%"):
        read(tub(tmp_path, lines))


def test_a_tub_without_a_good_frame_is_refused(tmp_path):
    with pytest.raises(UserError, match="can't be read"):
        read(tub(tmp_path, [b"\0\0\n"]))
    (tmp_path / "catalog_0.catalog").write_bytes(b"")
    with pytest.raises(UserError, match="0 of 0 frames"):
        read(tmp_path)


def test_a_broken_manifest_is_a_fault(tmp_path):
    folder = tub(tmp_path, [line(i) for i in range(30)])
    (folder / "manifest.json").write_bytes(b"\0\0\0")
    (record,) = read(folder)
    assert "manifest.json" in record.about["faults"][0]
    (folder / "manifest.json").unlink()
    assert read(folder)[0].about["num_faults"] == 0


def test_frames_that_the_owner_of_an_old_tub_struck_out_are_dropped(tmp_path):
    folder = old_tub(tmp_path, 60)
    (folder / "exclude.json").write_text("[4, 5, 60]")
    (record,) = read(folder)
    assert (len(record), record.about["num_faults"]) == (57, 0)
    assert record["steer"].values[3] == np.float32(-0.06)
    (folder / "exclude.json").write_text("[4, ")
    assert read(folder)[0].about["faults"][0].startswith("exclude.json: ")


@pytest.mark.parametrize("share", [0.03, 1.0])
def test_a_joystick_at_full_lock_is_clipped_and_said(share, tmp_path):
    edge = -32768 / 32767
    lines = [line(i, **({"user/angle": edge} if i < share * 100 else {})) for i in range(100)]
    (record,) = read(tub(tmp_path, lines))
    assert (len(record), record.about["num_faults"], record["steer"].values.max()) == (100, 0, 1)
    (note,) = record.about["notes"]
    assert note.startswith(f"{round(share * 100)} angles of up to -1.0000305 were taken for full lock")


def test_while_the_pilot_drove_its_angle_is_what_was_on_the_car(tmp_path):
    lines = [line(i, **{"user/angle": 0.3, "pilot/angle": 0.0}) for i in range(30)]
    lines[10:20] = [
        line(
            i, **{"user/angle": 0.0, "user/throttle": 0, "user/mode": "local", "pilot/angle": 0.5, "pilot/throttle": 1}
        )
        for i in range(10, 20)
    ]
    (record,) = read(tub(tmp_path / "a", lines))
    assert record["steer"].values.tolist() == np.repeat(np.float32([-0.3, -0.5, -0.3]), 10).tolist()
    assert record["throttle"].values[[9, 10]].tolist() == [0.5, 1]
    assert record.about["notes"] == [
        "in 10 of 30 frames the pilot drove: their steer is what it put on the car",
    ]
    for row in lines:
        row.pop("pilot/angle", None)
    (record,) = read(tub(tmp_path / "b", lines))
    assert (len(record), set(record["steer"].values)) == (20, {np.float32(-0.3)})
    assert "10 of 30 frames the pilot drove and its angle is not known" in record.about["notes"][0]
    (record,) = read(f"{tmp_path / 'a'}?mode=local")
    assert (len(record), set(record["steer"].values)) == (10, {np.float32(-0.5)})
    with pytest.raises(UserError, match="no frame is of mode fly; its modes are local, user"):
        read(f"{tmp_path / 'a'}?mode=fly")


def test_other_keys_of_the_angle_are_known_or_named(tmp_path):
    lines = [line(i) for i in range(20)]
    for name, row in enumerate(lines):
        row["user/steering"] = row.pop("user/angle")
        row["mine"] = name / 100
    (record,) = read(tub(tmp_path, lines))
    assert record["steer"].values[7] == np.float32(-0.07)
    assert read(f"{tmp_path}?steer=mine")[0]["steer"].values[7] == np.float32(-0.07)
    with pytest.raises(UserError, match="has no 'wheel'; its keys are _index"):
        read(f"{tmp_path}?steer=wheel")


def test_a_tub_whose_camera_changed_its_size_is_cut_there(tmp_path):
    folder = tub(tmp_path, [line(i) for i in range(30)])
    for i in range(12, 30):
        jpeg(folder / "images" / f"{i}_cam_image_array_.jpg", size=(32, 24))
    assert [r["picture"].values[:].shape[:3] for r in read(folder)] == [(12, 12, 16), (18, 24, 32)]


def companions(folder: Path) -> None:
    """What macOS writes beside every file on a disk that is not its own."""
    for file in [file for file in folder.rglob("*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X\n" + bytes(100))


def test_companions_of_files_that_macos_writes_are_no_part_of_a_log(tmp_path):
    whole = read(tub(tmp_path / "v2", [line(i) for i in range(10)]))
    companions(tmp_path / "v2")
    (again,) = read(tmp_path / "v2")
    assert (again.about, len(again)) == (whole[0].about, 10)
    old_tub(tmp_path / "v1")
    companions(tmp_path / "v1")
    assert read(tmp_path / "v1")[0].about["num_faults"] == 0


# An Udacity log, made by hand

HEADER = "center,left,right,steering,throttle,brake,speed"


def stamp_of(i: int) -> str:
    milliseconds = 100 * i
    return f"2019_11_28_22_{milliseconds // 60_000:02d}_{milliseconds // 1000 % 60:02d}_{milliseconds % 1000:03d}"


def row(i: int, prefix: str = "IMG/", sides: bool = True, steering: float = 0.25) -> str:
    left, right = (f"{prefix}{s}_{stamp_of(i)}.jpg" if sides else "" for s in ("left", "right"))
    return f"{prefix}center_{stamp_of(i)}.jpg, {left}, {right}, {steering}, 0.5, 0, 30.19"


def udacity(folder: Path, rows: list[str], header: str | None = HEADER, end: str = "\n") -> Path:
    for i in range(len(rows)):
        for side in ("center", "left", "right"):
            jpeg(folder / "IMG" / f"{side}_{stamp_of(i)}.jpg", {"center": 30, "left": 90, "right": 150}[side])
    text = end.join([header, *rows] if header else rows) + end
    (folder / "driving_log.csv").write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("header", [HEADER, None])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["IMG/", "/Users/ann/sim/IMG/", "C:\\Users\\Ann\\Desktop\\data\\IMG\\"])
def test_logs_of_any_machine_are_read(header, end, prefix, tmp_path):
    folder = udacity(tmp_path / "lake", [row(i, prefix) for i in range(20)], header, end)
    (record,) = read(folder)
    names = ["picture", "steer", "throttle", "brake", "speed_mps", "picture_left", "picture_right"]
    assert list(record.streams) == names
    assert record.name == "lake"
    assert (record["steer"].values == -0.25).all()
    np.testing.assert_allclose(record["speed_mps"].values, 13.4961, rtol=1e-4)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(20) / 10, atol=1e-6)
    assert record.about["rate_hz"] == 10.0
    assert record.about["steer_range_rad"] == pytest.approx(0.43633, abs=1e-5)
    shades = [record[n].values[3][0, 0, 0] for n in ("picture", "picture_left", "picture_right")]
    assert np.abs(np.array(shades, int) - [30, 90, 150]).max() < 4
    assert read(folder / "driving_log.csv")[0].name == "lake"


def test_side_cameras_are_left_out_unless_every_row_has_them(tmp_path):
    folder = udacity(tmp_path, [row(i, sides=i != 4) for i in range(20)])
    assert "picture_left" not in read(folder)[0].streams
    folder = udacity(tmp_path, [row(i) for i in range(20)])
    (folder / "IMG" / f"left_{stamp_of(2)}.jpg").unlink()
    assert {"picture_left", "picture_right"} & set(read(folder)[0].streams) == {"picture_right"}


def test_pauses_cut_a_log(tmp_path):
    rows = [row(i) for i in range(40)]
    del rows[15:30]
    folder = udacity(tmp_path / "log", [row(i) for i in range(40)])
    (folder / "driving_log.csv").write_text("\n".join(rows))
    assert [(r.name, len(r)) for r in read(folder)] == [("log/0", 15), ("log/1", 10)]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (row(7)[:60], "cells, not 7"),
        (row(7).replace("0.25", "0,25"), "8 cells, not 7"),
        (row(7).replace("0.25", "nan"), "not a number"),
        (row(7).replace("0.25", "-1.5"), "not a number from -1 to 1"),
        (row(7).replace("2019_11_28", "2019_13_28"), "month"),
        (row(7).replace("center_2019", "centre"), "holds no time"),
        (row(7).replace("_22_", "_23_"), "missing"),
        ("\0" + row(7)[1:], "NUL"),
        ('"' + row(7), "cells"),
    ],
)
def test_a_bad_row_is_listed_and_skipped(bad, why, tmp_path):
    rows = [row(i) for i in range(30)]
    rows[7] = bad
    (record,) = read(udacity(tmp_path, rows))
    assert len(record) == 29
    (fault,) = record.about["faults"]
    assert fault.startswith("line 9: ")
    assert why in fault


@pytest.mark.parametrize(
    ("header", "change"),
    [
        (HEADER.replace("brake", "reverse"), str),
        (HEADER.title(), str),
        (f",{HEADER}", lambda cells: f"7,{cells}"),
        ("steering,center,note", lambda cells: f"{cells.split(', ')[3]},{cells.split(',')[0]},hello"),
        (HEADER.replace(",", ";"), lambda cells: cells.replace(",", ";").replace(".", ",").replace(",jpg", ".jpg")),
        (None, lambda cells: re.sub(r"(\d)\.(\d)", r"\1,\2", cells)),
    ],
)
def test_a_header_of_another_program_will_do(header, change, tmp_path):
    (record,) = read(udacity(tmp_path, [change(row(i, steering=i / 100)) for i in range(20)], header))
    np.testing.assert_allclose(record["steer"].values, -np.arange(20) / 100, rtol=1e-6)
    assert record.about["num_faults"] == 0
    assert ("brake" in record.streams) == (header is None or "brake" in header.lower())
    if "speed_mps" in record.streams:
        np.testing.assert_allclose(record["speed_mps"].values, 13.4961, rtol=1e-4)


def test_a_driving_log_of_another_recorder_is_read_by_its_columns(tmp_path):
    jpeg(tmp_path / "IMG" / "a.jpg")
    (tmp_path / "driving_log.csv").write_text("timestamp,image,steering_angle\n0.1,IMG/a.jpg,0.5\n0.2,IMG/a.jpg,0.5\n")
    (record,) = read(tmp_path)
    assert record.about["format"] == "frames and a CSV"
    assert record["steer"].values.tolist() == [0.5, 0.5]


def test_pictures_that_were_renamed_need_a_rate(tmp_path):
    folder = udacity(tmp_path, [row(i) for i in range(20)])
    log = folder / "driving_log.csv"
    for i in range(20):
        (folder / "IMG" / f"center_{stamp_of(i)}.jpg").rename(folder / "IMG" / f"center_{i}.jpg")
        log.write_text(log.read_text().replace(f"center_{stamp_of(i)}.jpg", f"center_{i}.jpg"))
    with pytest.raises(UserError, match=r"'center_0\.jpg' holds no time; name the rate with LOG\?rate=10"):
        read(folder)
    (record,) = read(f"{folder}?rate=5")
    np.testing.assert_allclose(record["steer"].time_s, np.arange(20) / 5)


# Finding logs


def test_a_folder_of_logs_gives_all_of_them_sorted(tmp_path):
    tub(tmp_path / "b" / "tub", [line(i) for i in range(3)])
    udacity(tmp_path / "a", [row(i) for i in range(3)])
    tub(tmp_path / "c", [line(i) for i in range(80)], deleted=range(20, 60))
    (tmp_path / "README.txt").write_text("not a log")
    assert [r.name for r in read(str(tmp_path))] == ["a", "b/tub", "c/0", "c/1"]


def test_nothing_to_read_is_explained(tmp_path):
    with pytest.raises(UserError, match=r"driving_log\.csv.*") as caught:
        read(tmp_path)
    assert all(reader.LAYOUT in str(caught.value) for reader in READERS.values())
    with pytest.raises(UserError, match="there is no"):
        read(tmp_path / "nowhere")


# Real logs


def scene_shift(pictures: np.ndarray) -> np.ndarray:
    """Pixels by which the far scene moved to the right since the frame before, by matching column profiles."""
    height, reach = pictures.shape[1], 12
    edges = np.diff(pictures[:, height // 5 : height // 2].astype(np.float32).mean((1, 3)), axis=1)
    shifts = []
    for before, after in pairwise(edges):
        seen = np.lib.stride_tricks.sliding_window_view(after, len(after) - 2 * reach)
        match = seen @ before[reach:-reach] / (np.linalg.norm(seen, axis=1) + 1e-6)
        shifts.append(int(np.argmax(match)) - reach)
    return np.array(shifts)


@pytest.mark.parametrize(
    ("name", "records", "frames"),
    [
        ("donkey_lab_real", 4, 8000),
        ("donkeycar_test_tub", 1, 1000),
        ("donkey_tub_v1_converted", 1, 300),
        ("udacity_sim", 4, 7576),
    ],
)
def test_real_logs_are_read_whole(name, records, frames, shared_data):
    found = read(shared_data(name))
    assert (len(found), sum(map(len, found))) == (records, frames)
    assert len({r.name for r in found}) == records
    for record in found:
        assert next(iter(record.streams)) == "picture"
        assert record.about["num_faults"] == 0
        assert np.abs(record["steer"].values).max() <= 1
        assert (np.diff(record["steer"].time_s) > 0).all()
        assert record["picture"].values[-1].std() > 10
        json.dumps(record.about)


@pytest.mark.parametrize(
    ("name", "number"), [("donkey_lab_real", 0), ("donkey_lab_real", 3), ("donkeycar_test_tub", 0), ("udacity_sim", 2)]
)
def test_steering_left_moves_the_scene_to_the_right(name, number, shared_data):
    record, lag = read(shared_data(name))[number], 3
    shift = np.convolve(scene_shift(record["picture"].values[200:800]), np.ones(5) / 5, "valid")
    steer = np.convolve(record["steer"].values[200:800], np.ones(5) / 5, "valid")
    assert np.corrcoef(steer[: len(shift) - lag], shift[lag:])[0, 1] > 0.7


def test_real_clocks(shared_data):
    lab, converted = read(shared_data("donkey_lab_real"))[0], read(shared_data("donkeycar_test_tub"))[0]
    assert lab.about["clock"] == "time stamps"
    assert lab["steer"].time_s[-1] == pytest.approx(101.8, abs=0.1)
    assert converted["steer"].time_s[-1] == pytest.approx(999 / 20)
    sim = read(shared_data("udacity_sim"))
    assert [r.about["rate_hz"] for r in sim] == pytest.approx([9.8, 12.82, 14.08, 13.89], abs=0.02)
    assert set(sim[3].streams) > {"picture_left", "picture_right"}


# Frames


def test_frames_are_indexed_like_an_array(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (7, 5, 4, 3), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    for frames in (Frames(paths), Frames([p.read_bytes() for p in paths])):
        assert (frames.shape, frames.dtype, len(frames)) == (pictures.shape, np.uint8, 7)
        indexes = (3, -1, np.int64(2), slice(None), slice(5, 1, -2), slice(9, 12), np.array([6, 0, 0]), [1, 2])
        for index in indexes:
            assert np.array_equal(frames[index], pictures[index])
        with pytest.raises(IndexError):
            frames[7]


def test_grey_pictures_become_three_equal_channels(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(path)
    assert np.array_equal(Frames([path])[0][..., 2], np.arange(12).reshape(3, 4))


def test_fingerprints_follow_content(tmp_path):
    paths = [jpeg(tmp_path / f"{i}.jpg", i) for i in range(3)]
    first = Frames(paths).fingerprint
    assert Frames(paths).fingerprint == first
    assert Frames(paths[:2]).fingerprint != first
    os.utime(paths[1], ns=(0, 0))
    assert Frames(paths).fingerprint != first
    encoded = [p.read_bytes() for p in paths]
    assert Frames(encoded).fingerprint == Frames(list(encoded)).fingerprint
    assert Frames(encoded[::-1]).fingerprint != Frames(encoded).fingerprint


@pytest.mark.parametrize("padding", [1, 512, 5000])
@pytest.mark.parametrize("byte", [0, 0xFF, 0x55])
def test_a_jpeg_that_its_camera_padded_is_whole_and_one_that_is_cut_is_not(padding, byte, tmp_path):
    preview = jpeg(tmp_path / "preview.jpg").read_bytes()
    content = jpeg(tmp_path / "a.jpg", size=(64, 48)).read_bytes()
    # A preview within the header has an end of its own.
    content = content[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2) + preview + content[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(content + bytes([byte]) * padding)
    assert (damage(path), shown(path), encoded_damage(path.read_bytes())) == (None, (48, 64), None)
    path.write_bytes(content[:-2] + bytes([byte]) * padding)
    assert damage(path) == encoded_damage(path.read_bytes()) == "cut short"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "ppm", "pgm", "tif"])
def test_pictures_of_any_kind_tell_their_size_and_whether_they_are_cut(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).convert("L" if suffix == "pgm" else "RGB").save(path)
    assert shown(path) == (40, 30)
    assert Frames([path])[0].shape == (40, 30, 3)
    if suffix in ("jpg", "png", "webp", "bmp"):
        path.write_bytes(path.read_bytes()[:-300])
        assert damage(path) == "cut short"
    path.write_bytes(b"hello")
    assert damage(path) == "not a picture"


def test_a_frame_that_does_not_decode_or_fit_is_named(tmp_path):
    paths = [jpeg(tmp_path / f"{i}.jpg") for i in range(3)]
    paths[1].write_bytes(b"\xff\xd8 nothing at all \xff\xd9")
    jpeg(paths[2], size=(20, 12))
    frames = Frames(paths)
    assert damage(paths[1]) is None
    with pytest.raises(UserError, match=r"1\.jpg can't be decoded"):
        frames[:2]
    with pytest.raises(UserError, match=r"2\.jpg is 20x12, its recording 16x12"):
        frames[2]
    with pytest.raises(UserError, match="frame 1 of a recording can't be decoded"):
        Frames([paths[0].read_bytes(), b"nothing"])[1]


@FUZZ
@given(st.data())
def test_damaged_pictures_decode_or_give_a_user_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("pictures")
    path = jpeg(folder / "0.jpg")
    if data.draw(st.booleans()):
        path = folder / "0.png"
        Image.new("RGB", (16, 12), (1, 2, 3)).save(path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    damage(path)
    with suppress(UserError):
        assert Frames([path], (12, 16))[0].shape == (12, 16, 3)


# The cache of prepared frames


def halves(pictures: np.ndarray) -> np.ndarray:
    return pictures[:, ::2, ::2, :1] // 2


@pytest.fixture
def frames(tmp_path) -> Frames:
    return Frames([jpeg(tmp_path / f"{i}.jpg", i % 250) for i in range(600)])


def test_frames_are_prepared_once_and_then_mapped(frames, tmp_path):
    calls, told = [], []

    def prepare(pictures):
        calls.append(len(pictures))
        return halves(pictures)

    first = cached(frames, prepare, "halves", tmp_path / "cache", lambda done, total: told.append((done, total)))
    assert calls == [256, 256, 88]
    assert told == [(256, 600), (512, 600), (600, 600)]
    assert np.array_equal(first, halves(frames[:]))
    assert isinstance(first, np.memmap)
    assert not first.flags.writeable
    assert np.array_equal(cached(frames, prepare, "halves", tmp_path / "cache"), first)
    assert len(calls) == 3
    cached(frames, prepare, "other", tmp_path / "cache")
    cached(Frames(frames.sources[1:]), prepare, "halves", tmp_path / "cache")
    assert len(calls) == 9


def test_plain_arrays_are_known_by_their_bytes(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)
    first = cached(pictures, halves, "k", tmp_path)
    assert np.array_equal(first, halves(pictures))
    again = cached(pictures.copy(), lambda _: pytest.fail("prepared again"), "k", tmp_path)
    assert np.array_equal(again, first)
    pictures[0, 0, 0, 0] ^= 255
    assert not np.array_equal(cached(pictures, halves, "k", tmp_path), first)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_a_cache_cut_short_is_never_used(frames, tmp_path):
    def broken(pictures):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(frames, broken, "k", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy"))
    whole = cached(frames, halves, "k", tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.npy")
    # As `kill -9` leaves it: half of the temporary file.
    path.with_name(path.name + ".part").write_bytes(path.read_bytes()[:1000])
    path.unlink()
    assert np.array_equal(cached(frames, halves, "k", tmp_path / "cache"), whole)
    assert not list((tmp_path / "cache").glob("*.part"))


@pytest.mark.parametrize(("cut", "kept"), [(0, 0), (60, 0), (257, 256), (300, 256), (512, 256), (513, 512)])
def test_a_cache_that_was_killed_goes_on_from_what_is_surely_on_the_disk(cut, kept, frames, tmp_path, monkeypatch):
    monkeypatch.setattr("steersman.data.cache.FLUSHED", 256)
    whole = cached(frames, halves, "k", tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.npy")
    begin = path.stat().st_size - whole.size
    content = path.read_bytes()[: begin + cut * whole[0].size + 5]
    # What was not flushed may be nonsense after a power cut.
    sure = begin + kept * whole[0].size
    path.with_name(path.name + ".part").write_bytes(content[:sure] + b"x" * (len(content) - sure))
    path.unlink()
    calls = []

    def prepare(pictures):
        calls.append(len(pictures))
        return halves(pictures)

    assert np.array_equal(cached(frames, prepare, "k", tmp_path / "cache"), whole)
    assert sum(calls) == 600 - kept


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"nothing at all" * 1000])
def test_a_part_that_is_no_cache_is_written_anew(content, frames, tmp_path):
    whole = cached(frames, halves, "k", tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.npy")
    path.with_name(path.name + ".part").write_bytes(content)
    path.unlink()
    assert np.array_equal(cached(frames, halves, "k", tmp_path / "cache"), whole)


def test_the_cache_is_bounded_and_forgets_what_was_not_used_for_longest(frames, tmp_path, monkeypatch):
    folder = tmp_path / "cache"

    def use(key: str) -> np.ndarray:
        found = cached(frames, halves, key, folder)
        for age, path in enumerate(sorted(folder.glob("*.npy"), key=lambda p: p.stat().st_mtime_ns, reverse=True)):
            os.utime(path, (1e9 - age, 1e9 - age))  # Clocks of file systems are coarse.
        return found

    size = use("a").nbytes
    monkeypatch.setattr("steersman.data.cache.MOST_BYTES", int(3.5 * size))
    mapped = use("b")
    use("c")
    use("a")
    part = folder / f"{'0' * 64}.npy.part"
    part.write_bytes(b"x")
    os.utime(part, (0, 0))
    for other in ("else.txt", "else.npy", "else.npy.part"):  # Not of the cache, and not its own to delete.
        (folder / other).write_bytes(b"")
        os.utime(folder / other, (0, 0))
    use("d")  # The oldest is now b.
    assert sum(path.stat().st_size for path in folder.glob("*.npy*")) <= 3.5 * size
    assert not part.exists()
    assert all((folder / other).exists() for other in ("else.txt", "else.npy", "else.npy.part"))
    assert len(list(folder.glob("*.npy"))) == 4
    assert np.array_equal(mapped, halves(frames[:]))
    monkeypatch.setattr("steersman.data.cache._write", lambda *_: pytest.fail("prepared again"))
    for key in "acd":
        use(key)
    with pytest.raises(pytest.fail.Exception):
        use("b")


def test_a_full_disk_is_told_and_its_part_is_removed(frames, tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("steersman.data.cache.flush", full)
    with pytest.raises(UserError, match="the disk is full"):
        cached(frames, halves, "k", tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_several_at_once_prepare_the_frames_once(frames, tmp_path):
    calls = []

    def prepare(pictures):
        calls.append(1)
        return halves(pictures)

    threads = [threading.Thread(target=cached, args=(frames, prepare, "k", tmp_path / "c")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 3


# Made-up data


@given(st.integers(0, 9), st.integers(2, 60), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_echo_repeats_its_first_feature(seed, steps, delay):
    spec = Echo(records=3, steps=steps, delay=delay, seed=seed)
    for record, again in zip(spec.read(), spec.read(), strict=True):
        x, y = record["x"].values, record["y"].values
        assert x.shape == (len(record), 4)
        assert x.dtype == y.dtype == np.float32
        assert steps // 2 <= len(record) <= steps
        assert not y[:delay].any()
        assert np.array_equal(y[delay:], x[: max(0, len(record) - delay), 0])
        assert np.array_equal(again["x"].values, x)
    assert len({len(r) for r in Echo().read()}) > 10


def ridge_error(records: list, steps: int) -> float:
    """RMSE on the last drives of a linear fit to the last `steps` pictures, as a share of the mean's."""
    rows, targets = [], []
    for record in records:
        seen = record["picture"].values[:, 6:12].astype(np.float32).mean(1).reshape(len(record), -1)
        late = [np.concatenate([np.repeat(seen[:1], k, 0), seen[: len(seen) - k]]) for k in range(steps)]
        rows.append(np.concatenate(late, 1))
        targets.append(record["steer"].values)
    x, y = np.concatenate(rows[:-3]), np.concatenate(targets[:-3])
    weights = np.linalg.solve(
        (x - x.mean(0)).T @ (x - x.mean(0)) + 1e4 * np.eye(x.shape[1]), (x - x.mean(0)).T @ (y - y.mean())
    )
    truth = np.concatenate(targets[-3:])
    error = (np.concatenate(rows[-3:]) - x.mean(0)) @ weights + y.mean() - truth
    return float(np.sqrt((error**2).mean() / ((truth - y.mean()) ** 2).mean()))


@pytest.mark.parametrize("seed", range(3))
def test_the_road_must_be_remembered(seed):
    records = Road(seed=seed).read()
    assert ridge_error(records, 1) > 0.6
    assert ridge_error(records, 8) < 0.5
    assert records[0]["picture"].values.shape[1:] == (24, 32, 3)
    assert len({len(r) for r in records}) > 3


# Whatever the files hold


@FUZZ
@given(st.lists(st.binary(max_size=60) | st.just(json.dumps(line(0)).encode()), max_size=40), st.binary(max_size=40))
def test_any_bytes_in_a_tub_give_records_or_a_user_error(tmp_path_factory, lines, manifest):
    folder = tub(tmp_path_factory.mktemp("fuzz"), [line(i) for i in range(5)])
    (folder / "catalog_1.catalog").write_bytes(b"\n".join(lines))
    (folder / "manifest.json").write_bytes(manifest)
    with suppress(UserError):
        assert read(folder)


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)


@FUZZ
@given(st.sampled_from(sorted(line(0))), VALUES, st.integers(1, 30), VALUES)
def test_any_json_in_a_tub_gives_records_or_a_user_error(tmp_path_factory, key, value, num_bad, deleted):
    lines = [line(i) | ({key: value} if i < num_bad else {}) for i in range(30)]
    folder = tub(tmp_path_factory.mktemp("fuzz"), lines)
    (folder / "manifest.json").write_text(json.dumps({"deleted_indexes": deleted}))
    with suppress(UserError):
        assert read(folder)


@FUZZ
@given(st.lists(st.binary(max_size=80) | st.just(row(1).encode()), max_size=12), st.integers(0, 3))
def test_any_bytes_in_a_csv_give_records_or_a_user_error(tmp_path_factory, lines, num_good):
    folder = udacity(tmp_path_factory.mktemp("fuzz"), [row(i) for i in range(2)])
    good = [row(i % 2).encode() for i in range(20 * num_good)]
    (folder / "driving_log.csv").write_bytes(b"\n".join(good + lines))
    with suppress(UserError):
        assert read(folder)


@FUZZ
@given(st.lists(st.text(max_size=12), min_size=7, max_size=7))
def test_any_cells_in_a_csv_give_records_or_a_user_error(tmp_path_factory, cells):
    folder = udacity(tmp_path_factory.mktemp("fuzz"), [row(i) for i in range(25)])
    with open(folder / "driving_log.csv", "a", encoding="utf-8", errors="replace") as log:
        log.write(",".join(cells))
    with suppress(UserError):
        assert read(folder)
