"""Driving logs of many formats: radians positive left, seconds, RGB; what is bad is listed or refused."""

import base64
import io
import json
import math
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_sources import scene_shift

from steersman.data.frames import Frames
from steersman.errors import UserError
from steersman.sources import options, read
from steersman.sources.films import Film
from steersman.sources.messages import ros_types
from steersman.sources.safety import damage

FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SIZE = (64, 48)
"""Of the pictures that the tests write: width and height."""


def picture(i: int) -> np.ndarray:
    """A flat grey that says which picture it is."""
    return np.full((SIZE[1], SIZE[0], 3), 20 + i % 50 * 4, np.uint8)


def shades(pictures: np.ndarray) -> np.ndarray:
    """The numbers of pictures, as their grey tells."""
    return np.round((pictures[:, 20, 20, 0].astype(float) - 20) / 4).astype(int)


def encoded(i: int, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture(i)).save(file, kind)
    return file.getvalue()


def film(path: Path, num: int, rate: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, kind = ("libx265", "hevc") if path.suffix == ".hevc" else ("libx264", None)
    with av.open(str(path), "w", format=kind) as container:
        options = {"x265-params": "log-level=none"} if kind else {"crf": "10", "g": "12"}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(num):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def flipped(content: bytes, data: st.DataObject) -> bytes:
    """The content with some bytes changed and cut short at a place."""
    broken = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=6)):
        broken[place] = data.draw(st.integers(0, 255))
    return bytes(broken[: data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken))))])


def used(path: Path | str) -> None:
    """Reads a log and its pictures, as training would; a UserError is fine, anything else is not."""
    with suppress(UserError):
        for record in read(path):
            json.dumps(record.about)
            assert np.abs(record["steer"].values[:]).max() <= 1 + 1e-5
            assert (np.diff(record["steer"].time_s) >= 0).all()
            if "picture" in record.streams:
                assert record["picture"].values[:2].dtype == np.uint8


# Films


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4", "a.hevc", "a.h264", "a.ts", "a.m4v"])
def test_a_film_is_indexed_like_an_array(name, tmp_path):
    pictures = Film(film(tmp_path / name, 40))
    assert pictures.shape == (40, 48, 64, 3)
    for index in (slice(None), slice(0, 12), slice(12, 30), slice(30, 20, -3), np.array([39, 0, 7, 7])):
        assert np.array_equal(shades(pictures[index]), np.arange(40)[index])
    assert pictures[-1].shape == (48, 64, 3)
    assert pictures[5:5].shape == (0, 48, 64, 3)
    assert Film(tmp_path / name).fingerprint == pictures.fingerprint


def test_a_film_cut_short_keeps_the_numbers_of_what_is_left(tmp_path):
    content = film(tmp_path / "a.mkv", 48).read_bytes()
    for share in (0.7, 0.8, 0.9, 0.97):
        (tmp_path / "b.mkv").write_bytes(content[: int(share * len(content))])
        pictures = Film(tmp_path / "b.mkv")
        # What the last packet holds of its picture may be half of it.
        assert 12 < len(pictures) <= 48
        assert np.array_equal(shades(pictures[:-1]), np.arange(len(pictures) - 1))


def test_a_playlist_in_place_of_a_film_is_not_followed(tmp_path):
    film(tmp_path / "secret.mp4", 5)
    for text in ("ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXTINF:1\nsecret.mp4\n#EXT-X-ENDLIST\n"):
        (tmp_path / "a.mkv").write_text(text)
        with pytest.raises(UserError, match=r"a\.mkv can't be read"):
            Film(tmp_path / "a.mkv")


def test_a_film_of_too_many_pixels_is_refused_undecoded(tmp_path, monkeypatch):
    monkeypatch.setattr("steersman.sources.films.MOST_PIXELS", 1000)
    with pytest.raises(UserError, match="its pictures are 64x48"):
        Film(film(tmp_path / "a.mkv", 3))


@FUZZ
@given(st.data())
def test_damaged_films_decode_or_give_a_user_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("films")
    name = data.draw(st.sampled_from(["a.mkv", "a.avi", "a.mp4"]))
    path = film(folder / name, 6)
    path.write_bytes(flipped(path.read_bytes(), data))
    with suppress(UserError):
        pictures = Film(path)
        assert pictures[:].shape == pictures.shape


# DeepTesla and DeepPicar


def deeptesla(folder: Path, num: int = 40, frames: int = 40, lines: dict[int, str] | None = None) -> Path:
    film(folder / "epoch07_front.mkv", frames)
    rows = [f"{1464650070285914 + 33333 * i},{i},{i / 2}" for i in range(num)]
    for place, row in (lines or {}).items():
        rows[place] = row
    (folder / "epoch07_steering.csv").write_text("\n".join(["ts_micro,frame_index,wheel", *rows]) + "\n")
    return folder


def test_deeptesla_is_degrees_to_the_right(tmp_path):
    (record,) = read(deeptesla(tmp_path))
    assert (record.name, list(record.streams)) == ("epoch07", ["picture", "steer", "angle_rad"])
    np.testing.assert_allclose(record["angle_rad"].values, -np.radians(np.arange(40) / 2), rtol=1e-6)
    steer = record["angle_rad"].values / record.about["steer_range_rad"]
    np.testing.assert_allclose(record["steer"].values, steer, rtol=1e-6)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(40))
    assert record["steer"].time_s[-1] == pytest.approx(1.3, abs=1e-3)
    assert read(tmp_path / "epoch07_front.mkv")[0].name == "epoch07"


def test_a_bad_line_keeps_the_pictures_beside_their_angles(tmp_path):
    (record,) = read(deeptesla(tmp_path, lines={20: "half a li"}))
    assert np.array_equal(shades(record["picture"].values[:]), np.delete(np.arange(40), 20))
    assert record.about["faults"] == ["epoch07_steering.csv line 22: has 1 cells, not 3"]
    assert record.about["num_unlabelled"] == 1


TICKS = "1464650070285914"


@pytest.mark.parametrize("bad", ["nan,5,1", f"{TICKS},5,1e9", f"{TICKS},5.5,1", f"{TICKS},-1,1", "1,2"])
def test_a_line_that_makes_no_sense_is_a_fault(bad, tmp_path):
    (record,) = read(deeptesla(tmp_path, lines={7: bad}))
    assert (len(record), record.about["num_faults"]) == (39, 1)


def test_a_film_that_ends_early_or_late(tmp_path):
    (record,) = read(deeptesla(tmp_path / "late", num=38))
    assert (len(record), record.about["num_unlabelled"], record.about["num_faults"]) == (38, 2, 0)
    (record,) = read(deeptesla(tmp_path / "early", frames=39))
    assert record.about["faults"] == ["epoch07_steering.csv line 41: epoch07_front.mkv ends after 39 frames"]
    with pytest.raises(UserError, match=r"20 of 40 frames .* ends after 20 frames"):
        read(deeptesla(tmp_path / "half", frames=20))


@pytest.mark.parametrize(("step", "clock"), [(100, "milliseconds"), (100_000, "microseconds")])
def test_deeppicar_is_radians_to_the_right_and_its_clock_is_told_by_the_film(step, clock, tmp_path):
    film(tmp_path / "out-video-3.avi", 30, rate=15)
    rows = [f"{1504099832774 + step * i},{i + 1},{0.5236 * (i % 3 - 1)}" for i in range(30)]
    (tmp_path / "out-key-3.csv").write_text("\r\n".join(["ts_micro,frame,wheel", *rows]))
    (record,) = read(tmp_path)
    assert record.about["clock"] == f"ts_micro, in {clock}"
    assert record.about["rate_hz"] == pytest.approx(10)
    np.testing.assert_allclose(record["steer"].values, [1 - i % 3 for i in range(30)], atol=1e-4)


def test_a_table_that_lacks_a_column_is_explained(tmp_path):
    film(tmp_path / "epoch01_front.mkv", 3)
    (tmp_path / "epoch01_steering.csv").write_text("ts_micro,wheel\n1,2\n")
    with pytest.raises(UserError, match="it needs ts_micro,frame,wheel"):
        read(tmp_path)


def test_the_real_deeptesla_and_deeppicar_are_read_whole(shared_data):
    (tesla,) = read(shared_data("deeptesla_sample"))
    assert (tesla.name, len(tesla), tesla.about["num_faults"]) == ("epochs/epoch01", 755, 0)
    assert tesla["angle_rad"].values[0] == np.float32(math.radians(1))
    picar = read(shared_data("deeppicar_lane"))
    assert sum(map(len, picar)) == 4017
    assert {record.about["clock"] for record in picar} == {"ts_micro, in milliseconds"}
    assert {record.about["num_faults"] for record in picar} == {0}
    assert set(np.unique(np.concatenate([r["steer"].values for r in picar])).round(3)) == {-1, 0, 1}
    # The scene moves to the right five frames after the key for the left.
    record = picar[1]
    shift = np.convolve(scene_shift(record["picture"].values[:][:, :, ::3]), np.ones(5) / 5, "valid")
    steer = np.convolve(record["steer"].values, np.ones(5) / 5, "valid")
    assert np.corrcoef(steer[: len(shift) - 5], shift[5:])[0, 1] > 0.8


# Udacity's Challenge 2


def interpolated(folder: Path, num: int = 30) -> Path:
    """All three cameras, each with its own clock, as udacity-driving-reader writes them."""
    rows = ["index,timestamp,width,height,frame_id,filename,angle,torque,speed,lat,long,alt"]
    for i in range(num):
        for place, side in enumerate(("left", "center", "right")):
            time_ns = 1479425441182877835 + 50_000_000 * i + 7_000_000 * place
            path = folder / side / f"{time_ns}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(i))
            cells = f"{time_ns},640,480,{side}_camera,{side}/{time_ns}.jpg,{i / 100},0.5,{i},37.4,-122.1,{i}"
            rows.append(f"{cells.split(',')[0]},{cells}")
    (folder / "interpolated.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_challenge_2_has_three_cameras_with_their_own_clocks(tmp_path):
    (record,) = read(interpolated(tmp_path))
    assert record.name == "interpolated"
    assert list(record.streams)[:3] == ["picture", "picture_left", "picture_right"]
    assert record.about["rate_hz"] == 20
    np.testing.assert_allclose(record["angle_rad"].values, np.arange(30) / 100)
    assert np.array_equal(record["speed_mps"].values, np.arange(30))
    assert (record["longitude_deg"].values == -122.1).all()
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    left = record["picture_left"]
    assert left.time_s[1] - record["picture"].time_s[1] == pytest.approx(-0.007, abs=1e-5)
    assert np.array_equal(shades(left.values[:]), np.arange(30))


@FUZZ
@given(st.data())
def test_damaged_tables_are_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tables")
    make, name = data.draw(st.sampled_from([(deeptesla, "epoch07_steering.csv"), (interpolated, "interpolated.csv")]))
    make(folder, 4)
    (folder / name).write_bytes(flipped((folder / name).read_bytes(), data))
    used(folder)


def test_names_in_a_table_never_lead_out_of_its_folder(tmp_path):
    folder = interpolated(tmp_path / "log")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(49))
    lines = (folder / "interpolated.csv").read_text().splitlines()
    lines[2] = lines[2].replace("center/1479425441189877835.jpg", "../../secret.jpg")
    assert "secret" in lines[2]
    (folder / "interpolated.csv").write_text("\n".join(lines))
    (record,) = read(folder)
    assert record.about["faults"] == ["interpolated.csv line 3: secret.jpg is missing"]
    (folder / "center/secret.jpg").symlink_to(secret)
    (record,) = read(folder)
    assert record.about["faults"] == ["interpolated.csv line 3: secret.jpg is a link that leads out of its log"]
    shutil.move(folder / "center", tmp_path / "elsewhere")
    (folder / "center").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out of its log"):
        read(folder)


def test_stamps_that_a_spreadsheet_rounded_are_read_from_the_names_of_the_pictures(tmp_path):
    folder = interpolated(tmp_path)
    text = (folder / "interpolated.csv").read_text()
    (folder / "interpolated.csv").write_text(re.sub(r"\n(\d+),\d+,", r"\n\1,1.47943E+18,", text))
    (record,) = read(folder)
    np.testing.assert_allclose(record["picture"].time_s, np.arange(30) / 20, atol=1e-6)
    (folder / "interpolated.csv").write_text(re.sub(r"\d+\.jpg", "a.jpg", (folder / "interpolated.csv").read_text()))
    with pytest.raises(UserError, match=r"'1\.47943E\+18' is not a whole number; spreadsheets round it"):
        read(folder)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert damage(tmp_path / "a.jpg") == "not a file"
    os.mkfifo(tmp_path / "interpolated.csv")
    os.mkfifo(tmp_path / "a.bag")
    with pytest.raises(UserError, match=r"a\.bag is not a file of this log"):
        read(tmp_path)


def test_a_picture_of_too_many_pixels_is_refused_undecoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (8193, 4096)).save(path)
    with pytest.raises(UserError, match=r"bomb\.png .* is over 33554432 pixels"):
        Frames([path])


def test_real_labels_and_pictures_of_challenge_2(shared_data, tmp_path):
    folder = shared_data("udacity_ch2_scores")
    labels = read(folder / "train_labels_20hz")
    assert (len(labels), sum(map(len, labels))) == (5, 33_808)
    assert [r.name for r in labels] == ["HMB_1", "HMB_2", "HMB_4", "HMB_5", "HMB_6"]
    assert next(iter(labels[0].streams)) == "steer"
    # Ten of the pictures are here, so ten rows of the truth make a whole log.
    lines = (folder / "CH2_final_evaluation.csv").read_text().splitlines()[:11]
    shutil.copytree(folder / "frames", tmp_path / "frames")
    (tmp_path / "CH2_final_evaluation.csv").write_text("\n".join(lines))
    shutil.copytree(folder / "submissions", tmp_path / "submissions")
    (record,) = read(tmp_path)
    assert record["picture"].values.shape == (10, 480, 640, 3)
    assert record["angle_rad"].values[0] == np.float32(-0.0169280299332)
    with pytest.raises(UserError, match="5604 of 5614 frames"):
        read(folder)


# ROS bags


HEADER = "Header header\n"
DEFINITIONS = {
    "std_msgs/Header": "uint32 seq\ntime stamp\nstring frame_id\n",
    "sensor_msgs/CompressedImage": HEADER + "string format\nuint8[] data\n",
    "sensor_msgs/Image": HEADER
    + "uint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data\n",
    "dbw_mkz_msgs/SteeringReport": HEADER
    + "float32 steering_wheel_angle\nfloat32 steering_wheel_torque\nfloat32 speed\nbool enabled\n",
}


def definition(kind: str) -> str:
    """With the definitions that it rests on behind it, as logs hold them."""
    return f"{DEFINITIONS[kind]}{'=' * 80}\nMSG: std_msgs/Header\n{DEFINITIONS['std_msgs/Header']}"


def ros_store():
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.EMPTY)
    for kind in DEFINITIONS:
        store.register(typesys.get_types_from_msg(DEFINITIONS[kind], kind.replace("/", "/msg/")))
    return store


def ros(store, kind: str, time_ns: int, **fields):
    types = store.types
    stamp = types["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
    return types[kind.replace("/", "/msg/")](header=types["std_msgs/msg/Header"](0, stamp, "camera"), **fields)


def image(store, time_ns: int, i: int, raw: bool):
    if not raw:
        data = np.frombuffer(encoded(i), np.uint8)
        return "sensor_msgs/CompressedImage", ros(
            store, "sensor_msgs/CompressedImage", time_ns, format="jpeg", data=data
        )
    shown = picture(i)
    shown[..., 2] = 7  # the blue of a picture that is stored as BGR
    padded = np.zeros((SIZE[1], SIZE[0] * 3 + 5), np.uint8)
    padded[:, : SIZE[0] * 3] = shown[..., ::-1].reshape(SIZE[1], -1)
    fields = {"height": SIZE[1], "width": SIZE[0], "encoding": "bgr8", "is_bigendian": 0, "step": padded.shape[1]}
    return "sensor_msgs/Image", ros(store, "sensor_msgs/Image", time_ns, data=padded.reshape(-1), **fields)


BEGIN_NS = 1479425441_000_000_000


REPORT = "/vehicle/steering_report"


def bag(path: Path, raw: bool = False, num: int = 30, report: str = REPORT, late_ns: int = 0) -> Path:
    """Cameras at 20 Hz and a report at 50 Hz; recorded `late_ns` after the messages' own stamps."""
    store, writing = ros_store(), pytest.importorskip("rosbags.rosbag1")
    end = "" if raw else "/compressed"
    with writing.Writer(path) as out:
        connections = {}

        def write(topic: str, kind: str, time_ns: int, message) -> None:
            name = kind.replace("/", "/msg/")
            if topic not in connections:
                connections[topic] = out.add_connection(topic, name, typestore=store)
            out.write(connections[topic], time_ns + late_ns, store.serialize_ros1(message, name))

        for i in range(num):
            time_ns = BEGIN_NS + 50_000_000 * i
            for side in ("center", "left"):
                write(f"/{side}_camera/image_color{end}", *with_time(image(store, time_ns, i, raw), time_ns))
        for i in range(num * 5 // 2):
            time_ns = BEGIN_NS + 20_000_000 * i
            fields = {"steering_wheel_angle": i / 100, "steering_wheel_torque": 0.5, "speed": 9.0, "enabled": False}
            kind = "dbw_mkz_msgs/SteeringReport"
            write(report, kind, time_ns, ros(store, kind, time_ns, **fields))
    return path


def with_time(image: tuple, time_ns: int) -> tuple:
    kind, message = image
    return kind, time_ns, message


@pytest.mark.parametrize("raw", [False, True])
def test_a_bag_of_challenge_2_needs_no_names(raw, tmp_path):
    (record,) = read(bag(tmp_path / "drive.bag", raw))
    names = ["picture", "picture_left", "steer", "angle_rad", "torque_nm", "speed_mps"]
    assert (record.name, list(record.streams)) == ("drive", names)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    assert np.array_equal(shades(record["picture_left"].values[np.array([20, 3, 3, 29])]), [20, 3, 3, 29])
    at_pictures = record["angle_rad"].at(record["picture"].time_s)
    np.testing.assert_allclose(at_pictures, np.floor(np.arange(30) * 2.5) / 100, rtol=1e-5)
    assert record.about["rate_hz"] == 20
    assert "time stamps in the messages" in record.about["clock"]
    if raw:
        assert (record["picture"].values[4][..., 2] == 7).all()


def test_stamps_of_a_clock_that_was_never_set_are_not_used(tmp_path):
    (record,) = read(bag(tmp_path / "drive.bag", late_ns=10**11))
    assert "time of recording" in record.about["clock"]
    assert record["picture"].time_s[-1] == pytest.approx(29 / 20)


def test_topics_of_a_bag_can_be_named(tmp_path):
    path = bag(tmp_path / "drive.bag", report="/wheel")
    with pytest.raises(UserError, match=r"which topics .*/wheel \(dbw_mkz_msgs/msg/SteeringReport\)"):
        read(path)
    (record,) = read(f"{path}?steer=/wheel.steering_wheel_angle&scale=-0.5&picture=/left_camera/image_color/compressed")
    assert list(record.streams) == ["picture", "steer", "angle_rad"]
    np.testing.assert_allclose(record["angle_rad"].values[:3], [0, -0.005, -0.01], rtol=1e-6)
    assert record.about["skipped"] == ["/center_camera/image_color/compressed"]
    for wrong in ("steer=/wheel", "steer=/nothing.x", "steer=/wheel.nothing", "steer=/wheel.speed&scale=x"):
        with pytest.raises(UserError):
            read(f"{path}?{wrong}")
    with pytest.raises(UserError, match=r"no colour; .*: picture, steer, scale, range_rad"):
        read(f"{path}?colour=red")


def test_a_bag_cut_short_is_refused(tmp_path):
    content = bag(tmp_path / "drive.bag").read_bytes()
    for share in (0, 0.1, 0.5, 0.99):
        (tmp_path / "drive.bag").write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"drive\.bag can't be read"):
            read(tmp_path / "drive.bag")


@FUZZ
@given(st.data())
def test_damaged_bags_are_read_or_refused(tmp_path_factory, data):
    path = bag(tmp_path_factory.mktemp("bags") / "drive.bag", num=3)
    path.write_bytes(flipped(path.read_bytes(), data))
    used(path)


# MCAP


def mcap(path: Path, encoding: str, num: int = 30, bad: int | None = None) -> Path:
    """A camera at 20 Hz and a wheel in degrees, positive = right, each 5 ms after it."""
    writing = pytest.importorskip("mcap.writer")
    store = ros_store()
    with open(path, "wb") as file:
        out = writing.Writer(file)
        out.start()
        kinds = {"json": ("jsonschema", "json"), "ros1": ("ros1msg", "ros1"), "ros2": ("ros2msg", "cdr")}
        of_schema, of_message = kinds[encoding]
        named = {"camera": "sensor_msgs/CompressedImage", "wheel": "dbw_mkz_msgs/SteeringReport"}
        channels = {}
        for topic, kind in named.items():
            name, text = kind, definition(kind)
            if encoding == "ros2":
                name, text = kind.replace("/", "/msg/"), text.replace("Header header", "std_msgs/Header header")
                # ROS 2's header has no sequence number, and its time is a message.
                text = text.replace("uint32 seq\ntime stamp", "builtin_interfaces/Time stamp")
                text += f"{'=' * 80}\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec\n"
            if encoding == "json":
                name, text = {"camera": "foxglove.CompressedImage", "wheel": "Wheel"}[topic], "{}"
            schema = out.register_schema(name, of_schema, text.encode())
            channels[topic] = out.register_channel(f"/{topic}", of_message, schema)
        if encoding == "ros2":
            from rosbags.typesys import Stores, get_types_from_msg, get_typestore

            store = get_typestore(Stores.ROS2_HUMBLE)
            kind = "dbw_mkz_msgs/SteeringReport"
            text = DEFINITIONS[kind].replace("Header header", "std_msgs/Header header")
            store.register(get_types_from_msg(text, kind.replace("/", "/msg/")))
        for i in range(num):
            time_ns = BEGIN_NS + 50_000_000 * i
            for topic, later in (("camera", 0), ("wheel", 5_000_000)):
                data = message(store, encoding, topic, i, time_ns + later)
                out.add_message(channels[topic], time_ns + later, b"{" if i == bad else data, time_ns + later)
        out.finish()
    return path


def message(store, encoding: str, topic: str, i: int, time_ns: int) -> bytes:
    if encoding == "json":
        stamp = {"sec": time_ns // 10**9, "nsec": time_ns % 10**9}
        body = {"data": base64.b64encode(encoded(i)).decode(), "format": "jpeg"} if topic == "camera" else {"deg": [i]}
        return json.dumps(body | {"timestamp": stamp}).encode()
    kind = {"camera": "sensor_msgs/CompressedImage", "wheel": "dbw_mkz_msgs/SteeringReport"}[topic]
    fields = (
        {"format": "jpeg", "data": np.frombuffer(encoded(i), np.uint8)}
        if topic == "camera"
        else {"steering_wheel_angle": float(i), "steering_wheel_torque": 0.0, "speed": 0.0, "enabled": True}
    )
    types, name = store.types, kind.replace("/", "/msg/")
    stamp = types["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
    header = types["std_msgs/msg/Header"](*([0] if encoding == "ros1" else []), stamp, "x")
    whole = types[name](header=header, **fields)
    return bytes(store.serialize_ros1(whole, name) if encoding == "ros1" else store.serialize_cdr(whole, name))


@pytest.mark.parametrize(
    ("encoding", "field"), [("json", "deg.0"), ("ros1", "steering_wheel_angle"), ("ros2", "steering_wheel_angle")]
)
def test_an_mcap_with_a_named_wheel(encoding, field, tmp_path):
    path = mcap(tmp_path / "drive.mcap", encoding)
    # The first picture comes before the first angle, so nothing is known at it.
    (record,) = read(f"{path}?steer=/wheel.{field}&scale=-0.017453292519943295")
    assert (record.name, record.about["num_unlabelled"]) == ("drive", 1)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(1, 30))
    at_pictures = record["angle_rad"].at(record["picture"].time_s)
    np.testing.assert_allclose(at_pictures, -np.radians(np.arange(29)), rtol=1e-6)
    assert record["angle_rad"].time_s[0] == pytest.approx(-0.045, abs=1e-5)
    with pytest.raises(UserError, match=r"steer=/TOPIC\.FIELD.*/wheel"):
        read(path)


def test_an_mcap_of_protobuf(tmp_path):
    writing, pb = pytest.importorskip("mcap.writer"), pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory, timestamp_pb2

    file = pb.FileDescriptorProto(name="test.proto", package="foxglove", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    kinds = {"timestamp": (11, ".google.protobuf.Timestamp"), "data": (12, None), "deg": (1, None)}
    for name, fields in {"CompressedImage": ("timestamp", "data"), "Wheel": ("deg",)}.items():
        made = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            kind, of = kinds[field]
            made.field.add(name=field, number=number, label=1, type=kind, type_name=of)
    stamp_file = pb.FileDescriptorProto.FromString(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(stamp_file)
    pool.Add(file)
    camera, wheel = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"foxglove.{name}"))
        for name in ("CompressedImage", "Wheel")
    )
    with open(tmp_path / "drive.mcap", "wb") as out_file:
        out = writing.Writer(out_file)
        out.start()
        channels = {}
        for name in ("CompressedImage", "Wheel"):
            # What needs the other comes first, as some writers have it.
            described = pb.FileDescriptorSet(file=[file, stamp_file]).SerializeToString()
            schema = out.register_schema(f"foxglove.{name}", "protobuf", described)
            channels[name] = out.register_channel(f"/{name}", "protobuf", schema)
        for i in range(20):
            time_ns = BEGIN_NS + 50_000_000 * i
            shown = camera(data=encoded(i), timestamp={"seconds": time_ns // 10**9, "nanos": time_ns % 10**9})
            for name, body in (("CompressedImage", shown), ("Wheel", wheel(deg=i))):
                out.add_message(channels[name], time_ns + 10_000_000, body.SerializeToString(), time_ns)
        out.finish()
    (record,) = read(f"{tmp_path}/drive.mcap?steer=/Wheel.deg&scale=0.01")
    # The pictures bear a stamp 10 ms before the recording; the wheel bears none.
    assert record["picture"].time_s[0] - record["angle_rad"].time_s[0] == pytest.approx(0.04, abs=1e-5)
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(1, 20))


def test_a_bad_message_is_listed_and_skipped(tmp_path):
    path = mcap(tmp_path / "drive.mcap", "json", bad=12)
    (record,) = read(f"{path}?steer=/wheel.deg.0&scale=0.01")
    assert record.about["num_faults"] == 2
    assert np.array_equal(shades(record["picture"].values[:]), np.delete(np.arange(1, 30), 11))
    with pytest.raises(UserError, match=r"1000000\.0 at .* is not a number from"):
        read(f"{mcap(tmp_path / 'b.mcap', 'json')}?steer=/wheel.deg.0&scale=1000000")


@FUZZ
@given(st.data())
def test_damaged_mcaps_are_read_or_refused(tmp_path_factory, data):
    path = mcap(tmp_path_factory.mktemp("mcaps") / "drive.mcap", "json", num=3)
    path.write_bytes(flipped(path.read_bytes(), data))
    used(f"{path}?steer=/wheel.deg.0&scale=0.01")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"data": 10**12}, "its data is of type int"),
        ({"data": "not base64!"}, "Only base64 data"),
        ({"data": base64.b64encode(b"no picture").decode()}, "neither JPEG nor PNG"),
        ({"data": base64.b64encode(encoded(1)[:-30]).decode()}, "cut short"),
        ({"format": "jpeg"}, "has no 'data'"),
        ([], "has no 'data'"),
    ],
)
def test_a_message_of_the_wrong_kind_says_what_is_wrong(body, why, tmp_path, monkeypatch):
    whole = message

    def broken(store, encoding, topic, i, time_ns):
        return json.dumps(body).encode() if (topic, i) == ("camera", 9) else whole(store, encoding, topic, i, time_ns)

    monkeypatch.setitem(globals(), "message", broken)
    (record,) = read(f"{mcap(tmp_path / 'a.mcap', 'json')}?steer=/wheel.deg.0&scale=0.01")
    (fault,) = record.about["faults"]
    assert fault.startswith("/camera message 10: ")
    assert why in fault


def test_names_stand_behind_a_question_mark(tmp_path):
    assert options("a/b.mcap?steer=/x/y.z&scale=-1") == (Path("a/b.mcap"), {"steer": "/x/y.z", "scale": "-1"})
    assert options("a/b.mcap") == (Path("a/b.mcap"), {})
    (tmp_path / "what?a=b").mkdir()
    assert options(tmp_path / "what?a=b") == (tmp_path / "what?a=b", {})
    with pytest.raises(UserError, match="is not name=value"):
        options("a/b.mcap?steer")


@pytest.mark.parametrize(
    ("package", "log"),
    [
        ("rosbags.rosbag1", "a.bag"),
        ("mcap.reader", "a.mcap?steer=/wheel.deg.0"),
        ("rosbags.typesys", "ros.mcap?steer=/wheel.speed"),
        ("h5py", "h5"),
    ],
)
def test_a_package_that_is_not_installed_is_named(package, log, tmp_path, monkeypatch):
    bag(tmp_path / "a.bag")
    mcap(tmp_path / "a.mcap", "json")
    mcap(tmp_path / "ros.mcap", "ros1")
    comma2016(tmp_path / "h5")
    ros_types.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=r"pip install 'steersman\[logs\]'"):
        read(f"{tmp_path}/{log}")


# comma2k19


def segment(folder: Path, num_frames: int | None = 60, video: bool = False) -> Path:
    arrays = {
        "processed_log/CAN/steering_angle/t": 100 + np.arange(240) / 80,
        "processed_log/CAN/steering_angle/value": np.arange(240) / 10,
        "processed_log/CAN/speed/t": 100 + np.arange(240) / 80,
        "processed_log/CAN/speed/value": np.full((240, 1), 8.0),
        "processed_log/CAN/radar/t": np.arange(3.0),
        "processed_log/CAN/radar/value": np.zeros((3, 5)),
        "global_pose/frame_times": 100.1 + np.arange(56) / 20,
        "global_pose/frame_velocities": np.ones((56, 3)),
    }
    for place, array in arrays.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        with open(folder / place, "wb") as file:
            np.save(file, array)
    if video:
        film(folder / "video.hevc", num_frames, 20)
    return folder


def test_comma2k19_without_video_has_the_angle_first(tmp_path):
    (record,) = read(segment(tmp_path / "drive" / "3"))
    assert list(record.streams) == ["steer", "angle_rad", "speed_mps", "velocity_ecef_mps"]
    assert (record.name, len(record), record.about["rate_hz"]) == ("3", 240, 80)
    np.testing.assert_allclose(record["angle_rad"].values, np.radians(np.arange(240) / 10), rtol=1e-6)
    assert record["velocity_ecef_mps"].time_s[0] == pytest.approx(0.1)
    assert record.about["skipped"] == ["processed_log/CAN/radar"]
    assert [r.name for r in read(tmp_path)] == ["drive/3"]


def test_comma2k19_with_video_has_the_clock_of_its_frames(tmp_path):
    (record,) = read(segment(tmp_path, num_frames=58, video=True))
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(56) % 50)
    assert record.about["frames_without_time"] == 2
    assert (record.about["rate_hz"], record["angle_rad"].time_s[0]) == (20, pytest.approx(0, abs=1e-6))
    at_pictures = np.degrees(record["angle_rad"].at(record["picture"].time_s))
    np.testing.assert_allclose(at_pictures, (8 + 4 * np.arange(56)) / 10, atol=0.11)
    with pytest.raises(UserError, match="ends after 20 frames"):
        read(segment(tmp_path, num_frames=20, video=True))


def test_nothing_of_comma2k19_is_unpickled(tmp_path):
    place = segment(tmp_path) / "processed_log/CAN/steering_angle/value"
    with open(place, "wb") as file:
        np.save(file, np.array([{"a": 1}] * 240, object), allow_pickle=True)
    with pytest.raises(UserError, match="steering_angle/value can't be read"):
        read(tmp_path)
    place.unlink()
    (tmp_path / "outside").write_bytes(b"")
    place.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="not a file of this log"):
        read(tmp_path)


@FUZZ
@given(st.data())
def test_damaged_arrays_are_read_or_refused(tmp_path_factory, data):
    folder = segment(tmp_path_factory.mktemp("segments"))
    names = st.sampled_from(["steering_angle/t", "steering_angle/value", "speed/t"])
    place = folder / "processed_log/CAN" / data.draw(names)
    place.write_bytes(flipped(place.read_bytes(), data))
    used(folder)


def test_the_real_comma2k19_turns_to_the_left_where_its_pose_does(shared_data):
    (record,) = read(shared_data("comma2k19_example"))
    assert (len(record), record.about["num_faults"]) == (4974, 0)
    velocity, place = record["velocity_ecef_mps"], record["position_ecef_m"].values
    # The turn of the velocity about the vertical, counter-clockwise from above, is that of a wheel turned left.
    before, after = velocity.values[:-20], velocity.values[20:]
    up = place[:-20] / np.linalg.norm(place[:-20], axis=1, keepdims=True)
    turn = (np.cross(before, after) * up).sum(1) / (np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1))
    wheel = record["angle_rad"].at(velocity.time_s[10:-10])
    assert np.corrcoef(turn, wheel)[0, 1] > 0.5


# comma.ai 2016


def comma2016(folder: Path, num: int = 30, frames: int = 30, **columns) -> Path:
    h5py = pytest.importorskip("h5py")
    for kind in ("camera", "log"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "camera/2016-01-30--11-24-51.h5", "w") as file:
        pictures = np.stack([np.moveaxis(picture(i), -1, 0) for i in range(frames)])
        file.create_dataset("X", data=pictures, chunks=(4, *pictures.shape[1:]), compression="gzip")
    log = {
        "times": 5 + np.arange(num * 5) / 100,
        "cam1_ptr": np.arange(num * 5) // 5,
        "steering_angle": np.arange(num * 5) * 2.0,
        "speed": np.full(num * 5, 9.0),
        "rpm": np.zeros(num * 5),
    } | columns
    with h5py.File(folder / "log/2016-01-30--11-24-51.h5", "w") as file:
        for name, values in log.items():
            file[name] = values
    return folder


def test_comma2016_is_tenths_of_a_degree_to_the_right(tmp_path):
    (record,) = read(comma2016(tmp_path))
    assert (record.name, record.about["rate_hz"], record.about["skipped"]) == ("2016-01-30--11-24-51", 20, ["rpm"])
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    assert np.array_equal(shades(record["picture"].values[np.array([29, 0, 3, 3])]), [29, 0, 3, 3])
    at_pictures = np.degrees(record["angle_rad"].at(record["picture"].time_s))
    np.testing.assert_allclose(at_pictures, -np.arange(30), atol=1e-4)
    (record,) = read(comma2016(tmp_path / "b", frames=29))
    assert record.about["notes"] == ["2016-01-30--11-24-51.h5 has 29 frames and its log 30: the 29 of both are used"]


def test_an_hdf5_file_never_leads_to_another(tmp_path):
    h5py = pytest.importorskip("h5py")
    folder = comma2016(tmp_path / "log")
    path = folder / "camera/2016-01-30--11-24-51.h5"
    shutil.move(path, tmp_path / "secret.h5")
    for kind in ("link", "virtual", "raw"):
        with h5py.File(path, "w") as file:
            if kind == "link":
                file["X"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "X")
            elif kind == "virtual":
                layout = h5py.VirtualLayout((30, 3, 48, 64), np.uint8)
                layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "X", (30, 3, 48, 64))
                file.create_virtual_dataset("X", layout)
            else:
                external = [(str(tmp_path / "secret.h5"), 0, 3 * 48 * 64)]
                file.create_dataset("X", (1, 3, 48, 64), np.uint8, external=external)
        with pytest.raises(UserError, match="holds no X of its own"):
            read(folder)


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("steering_angle", np.zeros((150, 2)), "steering_angle is"),
        ("steering_angle", np.full(150, 1e7), "150 of 150 frames"),
        ("speed", np.array([b"fast"] * 150), "speed is"),
        ("cam1_ptr", np.full(150, np.nan), "0 of 0 frames"),
    ],
)
def test_wrong_columns_of_comma2016_are_explained(column, values, why, tmp_path):
    with pytest.raises(UserError, match=why):
        read(comma2016(tmp_path, **{column: values}))


@FUZZ
@given(st.data())
def test_damaged_hdf5_is_read_or_refused(tmp_path_factory, data):
    folder = comma2016(tmp_path_factory.mktemp("hdf5"), num=4, frames=4)
    path = next((folder / data.draw(st.sampled_from(["camera", "log"]))).iterdir())
    path.write_bytes(flipped(path.read_bytes(), data))
    used(folder)


# openpilot


SCHEMA = """@0xa2a2a2a2a2a2a2a2;
struct CarState { vEgo @0 :Float32; steeringAngleDeg @1 :Float32; steeringTorque @2 :Float32; }
struct EncodeIndex { segmentId @0 :UInt32; timestampSof @1 :UInt64; }
struct Event {
  logMonoTime @0 :UInt64;
  union { carState @1 :CarState; roadEncodeIdx @2 :EncodeIndex; initData @3 :Text; }
}
"""


def test_openpilot_without_its_schema_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "rlog.bz2").write_bytes(b"BZh9")
    with pytest.raises(UserError, match=r"pip install pycapnp.*schema=cereal/log\.capnp.*MCAP"):
        read(tmp_path)


@pytest.mark.parametrize("end", ["", ".bz2", ".zst"])
def test_openpilot_with_its_schema(end, tmp_path):
    import bz2

    capnp = pytest.importorskip("capnp")
    schema = tmp_path / "log.capnp"
    schema.write_text(SCHEMA)
    parser = capnp.SchemaParser()  # must outlive what it makes
    event, content = parser.load(str(schema)).Event, b""
    for i in range(300):
        time_ns = 10**9 + 10_000_000 * i
        state = {"vEgo": 9.0, "steeringAngleDeg": i / 10, "steeringTorque": 1.0}
        content += event.new_message(logMonoTime=time_ns, carState=state).to_bytes()
        if i % 5 == 0:
            index = {"segmentId": i // 5, "timestampSof": time_ns}
            content += event.new_message(logMonoTime=time_ns, roadEncodeIdx=index).to_bytes()
    pack = {"": bytes, ".bz2": bz2.compress, ".zst": lambda raw: pytest.importorskip("zstandard").compress(raw)}[end]
    folder = tmp_path / "route--3"
    film(folder / "fcamera.hevc", 60, 20)
    (folder / f"rlog{end}").write_bytes(pack(content))
    (record,) = read(f"{folder}?schema={schema}")
    assert (record.name, len(record), record.about["num_faults"]) == ("route--3", 60, 0)
    np.testing.assert_allclose(np.degrees(record["angle_rad"].values), np.arange(296) / 10, atol=1e-4)
    assert np.array_equal(shades(record["picture"].values[:10]), np.arange(10))
    (folder / f"rlog{end}").write_bytes(pack(content[:-100]))
    assert read(f"{folder}?schema={schema}")[0].about["num_faults"] == 1
    (folder / f"rlog{end}").write_bytes(pack(content)[:-50] if end else b"")
    with suppress(UserError):
        assert read(f"{folder}?schema={schema}")[0].about["num_faults"]
