"""A CSV with pictures or a video beside it: its columns, units and clock are found, named, or refused."""

import json
import math
import os
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_driving_logs import FUZZ, encoded, film, flipped, shades, used

from steersman.errors import UserError
from steersman.sources import read


def drive(folder: Path, num: int = 30, header: str = "image,steering,time_s", row=None, place: str = "") -> Path:
    """Pictures and a CSV; `row` gives the cells of a number."""
    row = row or (lambda i: f"{place}{i}.jpg,{i / 100},{i / 20}")
    (folder / place).mkdir(parents=True, exist_ok=True)
    for i in range(num):
        (folder / place / f"{i}.jpg").write_bytes(encoded(i))
    (folder / "drive.csv").write_text("\n".join([header, *map(row, range(num))]) + "\n")
    return folder


def filmed(folder: Path, header: str = "steering", row=None, num: int = 30, frames: int = 30) -> Path:
    film(folder / "drive.mp4", frames)
    (folder / "drive.csv").write_text("\n".join([header, *map(row or (lambda i: f"{i / 100}"), range(num))]))
    return folder


@pytest.mark.parametrize("place", ["", "img/", "a/b/"])
def test_pictures_and_a_csv_become_a_record(place, tmp_path):
    (record,) = read(drive(tmp_path / "lap", place=place))
    assert (record.name, list(record.streams)) == ("lap", ["picture", "steer"])
    np.testing.assert_allclose(record["steer"].values, np.arange(30) / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(30) / 20, atol=1e-9)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    assert (record.about["rate_hz"], record.about["num_faults"], record.about["steer_range_rad"]) == (20, 0, None)
    json.dumps(record.about)
    assert len(read(tmp_path / "lap/drive.csv")[0]) == 30


def test_a_video_and_a_csv_become_a_record(tmp_path):
    (record,) = read(filmed(tmp_path))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    assert record.about["clock"] == "30 frames a second, as its video says"
    np.testing.assert_allclose(record["steer"].time_s, np.arange(30) / 30, atol=1e-6)
    (record,) = read(f"{tmp_path}?rate=10")
    assert record["steer"].time_s[-1] == pytest.approx(2.9)
    (record,) = read(filmed(tmp_path, "frame,steer", lambda i: f"{i + 5},{i / 100}", frames=35))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(5, 35))


def test_a_column_of_file_names_that_are_no_pictures_does_not_hide_the_video(tmp_path):
    (record,) = read(filmed(tmp_path, "file,steer", lambda i: f"drive.mp4,{i / 100}"))
    assert len(record) == 30


@pytest.mark.parametrize("bad", ["", "1,2", "nan", "1e308", "left", '"', "\0"])
def test_a_bad_line_keeps_the_frames_of_a_video_beside_their_angles(bad, tmp_path):
    filmed(tmp_path, row=lambda i: (bad or "x") if i == 7 else f"{i / 100}")
    (record,) = read(tmp_path)
    assert record.about["num_faults"] == 1
    assert record.about["faults"][0].startswith("drive.csv line 9: ")
    kept = np.delete(np.arange(30), 7)
    assert np.array_equal(shades(record["picture"].values[:]), kept)
    np.testing.assert_allclose(record["steer"].values, kept / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, kept / 30, atol=1e-6)


@pytest.mark.parametrize("frame", ["30", "-1", "3.5", "nan", "1e30"])
def test_a_frame_that_the_video_does_not_have_is_a_fault(frame, tmp_path):
    (record,) = read(filmed(tmp_path, "frame,steer", lambda i: f"{frame if i == 3 else i},0.1"))
    assert (len(record), record.about["num_faults"]) == (29, 1)


def test_a_video_that_ends_early_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"10 of 30 frames .*line 22: drive\.mp4 ends after 20 frames"):
        read(filmed(tmp_path, frames=20))


# Columns


@pytest.mark.parametrize(
    "header",
    ["Filename,Steering_Angle,Timestamp", "cam/image_array,user/angle,t", "center,angle,seconds", "path,wheel,ts"],
)
def test_columns_are_found_by_their_usual_names(header, tmp_path):
    (record,) = read(drive(tmp_path, header=header))
    assert record["steer"].time_s[-1] == pytest.approx(1.45)


def test_columns_can_be_named(tmp_path):
    drive(tmp_path, header="shown,volant,when,steer", row=lambda i: f"{i}.jpg,{i / 100},{i / 20},0.9")
    with pytest.raises(UserError, match="no clock among its columns"):
        read(tmp_path)
    (record,) = read(f"{tmp_path}?picture=shown&steer=volant&time=when")
    assert record["steer"].values[-1] == np.float32(0.29)
    assert record.about["skipped"] == ["steer"]
    # A column of an unusual name is enough to find the log by.
    drive(tmp_path / "a" / "b", header="image,my wheel,t")
    for place in ("a/b", "a", "a/b/drive.csv"):
        (record,) = read(f"{tmp_path / place}?steer=my wheel")
        assert record["steer"].values[-1] == np.float32(0.29)


def test_what_is_named_wrongly_is_explained(tmp_path):
    drive(tmp_path)
    for wrong, why in {
        "steer=wheels": r"drive\.csv: steer=wheels is not a column; there are image, steering, time_s",
        "unit=turns": "unit=turns is none of fraction, rad, deg",
        "sign=up": "sign=up is none of left, right",
        "range_deg=x": "range_deg=x",
        "range_deg=-5": "range_deg=-5.*not a number from",
        "rate=fast": "rate=fast",
        "rate=0": "rate=0.*not a number from",
        "colour=red": "knows no colour",
    }.items():
        with pytest.raises(UserError, match=why):
            read(f"{tmp_path}?{wrong}")


def test_other_columns_come_along_if_all_rows_have_numbers_and_the_rest_is_listed(tmp_path):
    header = "image,steering,time_s,throttle,brake,speed_mps,note"
    (record,) = read(
        drive(tmp_path, header=header, row=lambda i: f"{i}.jpg,0,{i / 20},{i},{'x' if i == 3 else 0},1e300,hello")
    )
    assert list(record.streams) == ["picture", "steer", "throttle"]
    assert record["throttle"].values[7] == 7
    assert record.about["skipped"] == ["brake", "note", "speed_mps"]


def test_several_drives_in_a_folder_are_named_by_their_tables(tmp_path):
    drive(tmp_path)
    (tmp_path / "lap.csv").write_text((tmp_path / "drive.csv").read_text())
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert [record.name for record in read(tmp_path)] == ["drive", "lap"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("parted", [";", "\t", "|"])
def test_tables_of_any_dialect_are_read(encoding, parted, tmp_path):
    def cells(i: int) -> str:
        return parted.join([f"fähre/{i}.jpg", f"{i / 100}".replace(".", ","), f"{i / 20}".replace(".", ",")])

    drive(tmp_path, place="fähre/")
    text = "\r\n".join([parted.join(["image", "steering", "time_s"]), *map(cells, range(30))])
    (tmp_path / "drive.csv").write_bytes(text.encode(encoding))
    (record,) = read(tmp_path)
    np.testing.assert_allclose(record["steer"].values, np.arange(30) / 100, rtol=1e-6)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(30) / 20, atol=1e-9)
    assert record.about["num_faults"] == 0


def test_a_clock_may_be_of_dates(tmp_path):
    begin = datetime(2024, 1, 31, 23, 59, 59)
    drive(tmp_path, row=lambda i: f"{i}.jpg,0,{begin + timedelta(seconds=i / 20)}", header="image,steering,time")
    (record,) = read(tmp_path)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(30) / 20, atol=1e-6)
    assert record.about["clock"] == "time, dates"


def test_pictures_are_found_by_what_a_column_holds(tmp_path):
    (record,) = read(drive(tmp_path, header="nombre,steering,time_s"))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))


def test_a_drive_is_cut_where_its_pictures_change_their_size(tmp_path):
    drive(tmp_path)
    Image.new("RGB", (32, 24)).save(tmp_path / "29.jpg")
    assert [len(record) for record in read(tmp_path)] == [29, 1]


def test_equal_names_in_many_folders_take_no_longer_than_others(tmp_path, monkeypatch):
    made = [tmp_path / f"run_{i // 4:03d}" / f"{i % 4}.jpg" for i in range(400)]
    for path in made:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(1))
    rows = [f"{path.relative_to(tmp_path)},0,{i / 20}" for i, path in enumerate(made)]
    (tmp_path / "drive.csv").write_text("\n".join(["image,steering,time_s", *rows]))
    asked = Counter()
    plain = Path.relative_to
    monkeypatch.setattr(Path, "relative_to", lambda *args, **kw: asked.update(["once"]) or plain(*args, **kw))
    assert len(read(tmp_path)[0]) == 400
    assert asked["once"] <= 3 * 400


# Angles


def test_an_angle_a_hair_over_full_lock_is_clipped_and_said(tmp_path):
    (record,) = read(drive(tmp_path, row=lambda i: f"{i}.jpg,{-32768 / 32767 if i % 2 else 0.1},{i / 20}"))
    assert record["steer"].values.min() == -1
    assert record.about["notes"] == ["15 angles of up to -1.0000305 were taken for full lock, which is 1"]
    with pytest.raises(UserError, match="over full lock"):
        read(f"{drive(tmp_path, row=lambda i: f'{i}.jpg,-1.0011,{i / 20}')}?unit=fraction")


@pytest.mark.parametrize(
    ("column", "named", "factor", "range_rad"),
    [
        ("steering", "", 1.0, None),
        ("steering", "unit=rad", 1.0, 3 * math.pi),
        ("steering", "unit=deg", math.radians(1), 3 * math.pi),
        ("steer_deg", "", math.radians(1), 3 * math.pi),
        ("angle_rad", "", 1.0, 3 * math.pi),
        ("angle_deg", "range_deg=90", math.radians(1), math.pi / 2),
        ("angle_deg", "unit=rad&range_deg=180", 1.0, math.pi),
    ],
)
@pytest.mark.parametrize("sign", ["left", "right"])
def test_angles_have_a_unit_a_range_and_a_sign(column, named, factor, range_rad, sign, tmp_path):
    drive(tmp_path, header=f"image,{column},time_s")
    (record,) = read(f"{tmp_path}?sign={sign}{'&' if named else ''}{named}")
    wanted = np.arange(30) / 100 * factor * (-1 if sign == "right" else 1)
    np.testing.assert_allclose(record["steer"].values, wanted / (range_rad or 1), rtol=1e-5)
    assert not np.signbit(record["steer"].values[0])
    assert record.about["steer_range_rad"] == (range_rad and pytest.approx(range_rad))
    assert ("angle_rad" in record.streams) == (range_rad is not None)
    if range_rad:
        np.testing.assert_allclose(record["angle_rad"].values, wanted, rtol=1e-5)


def test_a_unit_that_numbers_do_not_tell_is_asked_for(tmp_path):
    wide = drive(tmp_path / "wide", row=lambda i: f"{i}.jpg,{i},{i / 20}")
    (record,) = read(wide)
    np.testing.assert_allclose(record["angle_rad"].values, np.radians(np.arange(30)), rtol=1e-6)
    assert record.about["sign"] == (
        "steering in deg, as it goes up to 29; sign taken for granted: the file does not tell"
    )
    between = drive(tmp_path / "between", row=lambda i: f"{i}.jpg,{i / 10},{i / 20}")
    with pytest.raises(UserError, match=r"up to 2\.9 \(drive\.csv line 31\), which may be radians or degrees.*unit="):
        read(between)
    assert "angle_rad" in read(f"{between}?unit=deg")[0].streams
    for named in ("unit=fraction", "unit=rad&range_deg=90"):
        with pytest.raises(UserError, match=r"up to 2\.9 .*over full lock"):
            read(f"{between}?{named}")


# Clocks


@pytest.mark.parametrize(
    ("column", "step", "seconds"),
    [
        ("time", 0.05, 0.05),
        ("t", 50, 0.05),
        ("ts", 33_333, 0.033333),
        ("timestamp", 50_000_000, 0.05),
        ("time_s", 0.5, 0.5),
        ("time_ms", 500, 0.5),
        ("ts_micro", 500_000, 0.5),
        ("time_us", 500_000, 0.5),
        ("timestamp_ns", 500_000_000, 0.5),
    ],
)
def test_the_unit_of_a_clock_is_in_its_name_or_told_by_its_steps(column, step, seconds, tmp_path):
    drive(tmp_path, header=f"image,steering,{column}", row=lambda i: f"{i}.jpg,0,{1_000_000 + step * i}")
    (record,) = read(tmp_path)
    np.testing.assert_allclose(record["steer"].time_s, np.arange(30) * seconds, atol=1e-5)


def test_a_clock_that_tells_no_rate_is_refused_and_a_named_rate_replaces_it(tmp_path):
    drive(tmp_path, row=lambda i: f"{i}.jpg,0,7", header="image,steering,time")
    with pytest.raises(UserError, match=r"steps of time are 0, no frame rate.*rate=20"):
        read(tmp_path)
    (record,) = read(f"{tmp_path}?rate=20")
    assert (record.about["rate_hz"], record.about["clock"]) == (20, "20 frames a second, as named")
    drive(tmp_path, row=lambda i: f"{i}.jpg,0", header="image,steering")
    with pytest.raises(UserError, match=r"no clock among its columns.*rate=20"):
        read(tmp_path)
    assert len(read(f"{tmp_path}?rate=20")[0]) == 30


def test_a_pause_and_a_missing_line_show_in_the_clock(tmp_path):
    drive(tmp_path, row=lambda i: f"{i}.jpg,0,{i / 20 + (5 if i >= 10 else 0)}")
    assert [(r.name[-2:], len(r)) for r in read(tmp_path)] == [("/0", 10), ("/1", 20)]
    drive(tmp_path, row=lambda i: "x" if i == 5 else f"{i}.jpg,0", header="image,steering")
    (record,) = read(f"{tmp_path}?rate=10")
    assert record["steer"].time_s[4:6] == pytest.approx([0.4, 0.6])


# Pictures


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("../../secret.jpg", "is missing"),
        ("/etc/passwd", "is missing"),
        ("C:\\drive\\99.jpg", "is missing"),
        ("", "is missing"),
        ("twice.jpg", "is the name of 2 pictures"),
        ("cut.jpg", "cut.jpg is cut short"),
        ("link.jpg", "link.jpg is a link that leads out of its log"),
        ("pipe.jpg", "pipe.jpg is not a file"),
        ("text.jpg", "text.jpg is not a picture"),
    ],
)
def test_a_picture_that_is_not_of_the_log_is_a_fault(cell, why, tmp_path):
    folder = drive(tmp_path / "log", row=lambda i: f"{cell if i == 3 else f'{i}.jpg'},0,{i / 20}")
    for path in (tmp_path / "secret.jpg", folder / "a/twice.jpg", folder / "b/twice.jpg"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(49))
    (folder / "cut.jpg").write_bytes(encoded(1)[:-5])
    (folder / "text.jpg").write_text("hello")
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (record,) = read(folder)
    (fault,) = record.about["faults"]
    assert fault.startswith("drive.csv line 5: ")
    assert why in fault
    assert len(record) == 29


def test_paths_of_another_machine_are_found_by_the_pictures_names(tmp_path):
    (record,) = read(drive(tmp_path, place="img/", row=lambda i: f"C:\\Users\\Ann\\img\\{i}.jpg,0,{i / 20}"))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))


def test_equal_names_in_two_folders_are_told_apart_by_the_path(tmp_path):
    drive(tmp_path, place="left/")
    drive(tmp_path, place="center/", row=lambda i: f"center/{29 - i}.jpg,0,{i / 20}")
    (record,) = read(tmp_path)
    assert shades(record["picture"].values[:1]) == [29]


def test_a_folder_that_links_out_of_the_log_is_not_looked_into(tmp_path):
    drive(tmp_path / "elsewhere")
    folder = drive(tmp_path / "log", num=1)
    (folder / "drive.csv").write_bytes((tmp_path / "elsewhere/drive.csv").read_bytes())
    (folder / "img").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"29 of 30 frames .*'1\.jpg' is missing"):
        read(folder)


def test_two_videos_beside_a_table_without_pictures_are_not_guessed_between(tmp_path):
    filmed(tmp_path)
    (tmp_path / "drive.mp4").rename(tmp_path / "a.mp4")
    assert len(read(tmp_path)[0]) == 30
    film(tmp_path / "b.mp4", 3)
    with pytest.raises(UserError, match="no recording in"):
        read(tmp_path)


# Whatever the files hold


@FUZZ
@given(st.data())
def test_damaged_tables_are_read_or_refused(tmp_path_factory, data):
    folder = drive(tmp_path_factory.mktemp("folder"), num=4)
    path = folder / data.draw(st.sampled_from(["drive.csv", "drive.csv", "1.jpg"]))
    path.write_bytes(flipped(path.read_bytes(), data))
    used(f"{folder}{data.draw(st.sampled_from(['', '?rate=20', '?unit=deg', '?sign=right&unit=fraction']))}")


CELLS = st.one_of(
    st.text(max_size=8), st.floats().map(str), st.integers().map(str), st.sampled_from(["0.jpg", "../0.jpg"])
)


@FUZZ
@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=4), st.integers(0, 4))
def test_any_cells_are_read_or_refused(tmp_path_factory, rows, good):
    folder = drive(tmp_path_factory.mktemp("folder"), num=4)
    lines = (folder / "drive.csv").read_text().splitlines()[: 1 + good] + [",".join(cells) for cells in rows]
    (folder / "drive.csv").write_text("\n".join(lines), encoding="utf-8", errors="replace")
    used(folder)


@pytest.mark.parametrize(
    ("numbers", "frames", "named", "first"),
    [
        (range(1, 31), 30, "", 1),
        (range(1, 28), 30, "", 1),
        (range(5, 31), 30, "", 1),
        (range(0, 30), 30, "", 0),
        (range(5, 30), 30, "", 0),
        (range(1, 30), 30, "?first=0", 0),
        (range(5, 28), 30, "?first=1", 1),
    ],
)
def test_frames_are_counted_from_one_where_their_numbers_tell(numbers, frames, named, first, tmp_path):
    rows = list(numbers)
    filmed(tmp_path, "frame,steer", lambda i: f"{rows[i]},{i / 100}", num=len(rows), frames=frames)
    (record,) = read(f"{tmp_path}{named}")
    assert np.array_equal(shades(record["picture"].values[:]), np.array(rows) - first)
    assert ("count from 1" in record.about["clock"]) == bool(first)


def test_a_bad_first_line_does_not_make_frames_count_from_one(tmp_path):
    for header, row in (
        ("frame,steer", lambda i: f"{i},{i / 100 if i else 'nan'}"),
        ("steer", lambda i: "0.5" * (i > 0) or "x"),
    ):
        (record,) = read(filmed(tmp_path, header, row))
        assert np.array_equal(shades(record["picture"].values[:]), np.arange(1, 30))
    with pytest.raises(UserError, match="first=2 is neither 0 nor 1"):
        read(f"{filmed(tmp_path, 'frame,steer', lambda i: f'{i},0.5')}?first=2")
