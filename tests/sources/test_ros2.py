"""ROS 2 bags in every container, raw pictures in every encoding, and which camera is taken."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from test_driving_logs import BEGIN_NS, DEFINITIONS, encoded, picture, ros, ros_store, shades

from steersman.data.frames import Frames
from steersman.errors import UserError
from steersman.sources import raw_pixels, read, unpacked
from steersman.sources.messages import Log

COLOUR, WHEEL = "/center_camera/image_color/compressed", "/vehicle/steering_report"


def messages(num: int = 30):
    """(nanoseconds, topic, type, message) by time: camera at 20 Hz, wheel at 50."""
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    kind = "dbw_mkz_msgs/msg/SteeringReport"
    store.register(typesys.get_types_from_msg(DEFINITIONS["dbw_mkz_msgs/SteeringReport"], kind))
    types = store.types

    def header(time_ns: int):
        stamp = types["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
        return types["std_msgs/msg/Header"](stamp, "car")

    found = []
    for i in range(num):
        time_ns, jpeg = BEGIN_NS + 50_000_000 * i, np.frombuffer(encoded(i), np.uint8)
        shown = types["sensor_msgs/msg/CompressedImage"](header(time_ns), "jpeg", jpeg)
        found.append((time_ns, COLOUR, "sensor_msgs/msg/CompressedImage", shown))
    for i in range(num * 5 // 2):
        time_ns = BEGIN_NS + 20_000_000 * i
        found.append((time_ns, WHEEL, kind, types[kind](header(time_ns), i / 100, 0.5, 9.0, False)))
    return store, sorted(found, key=lambda row: row[:2])


def write(folder: Path, store, rows, storage: str = "SQLITE3", packed: str = "") -> Path:
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    writer = rosbag2.Writer(folder, version=9, storage_plugin=rosbag2.StoragePlugin[storage])
    if packed:
        writer.set_compression(rosbag2.CompressionMode[packed], rosbag2.CompressionFormat.ZSTD)
    with writer:
        known = {}
        for time_ns, topic, kind, message in rows:
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(known[topic], time_ns, store.serialize_cdr(message, kind))
    return folder


def right(record, num: int = 30) -> None:
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(num))
    assert np.array_equal(shades(record["picture"].values[np.array([num - 1, 0, 3, 3])]), [num - 1, 0, 3, 3])
    at_pictures = record["angle_rad"].at(record["picture"].time_s)
    np.testing.assert_allclose(at_pictures, np.floor(np.arange(num) * 2.5) / 100, rtol=1e-5)


CONTAINERS = [("SQLITE3", ""), ("SQLITE3", "FILE"), ("SQLITE3", "MESSAGE"), ("MCAP", ""), ("MCAP", "FILE")]


@pytest.mark.parametrize(("storage", "packed"), CONTAINERS)
def test_a_bag_is_read_from_every_container(storage, packed, tmp_path):
    folder = write(tmp_path / "rosbag2_2024", *messages(), storage, packed)
    (record,) = read(folder)
    right(record)
    assert record.name == "rosbag2_2024"
    (file,) = (path for path in folder.iterdir() if path.suffix != ".yaml")
    assert file.suffix == (".zstd" if packed == "FILE" else {"SQLITE3": ".db3", "MCAP": ".mcap"}[storage])
    right(read(file)[0])  # A file alone, without its metadata.
    assert sorted(path.name for path in folder.iterdir()) == sorted(["metadata.yaml", file.name])


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
def test_split_files_are_one_drive(storage, tmp_path):
    """Their names don't sort as their numbers do; messages overlap at the seam."""
    store, rows = messages()
    folder, half = tmp_path / "drive", len(rows) // 2
    folder.mkdir()
    rows[half - 1], rows[half + 2] = rows[half + 2], rows[half - 1]
    for number, part in ((9, rows[:half]), (10, rows[half:])):
        made = write(tmp_path / f"part_{number}", store, sorted(part, key=lambda row: row[0]), storage)
        (file,) = (path for path in made.iterdir() if path.suffix != ".yaml")
        file.rename(folder / f"drive_{number}{file.suffix}")
    for beside in (False, True):
        if beside:
            (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: {}\n")
        (record,) = read(folder)
        right(record)
        assert record.name == "drive"
    pictures = record["picture"].values
    before = pictures.fingerprint
    (folder / f"drive_9{file.suffix}").touch()
    assert read(folder)[0]["picture"].values.fingerprint != before


def test_files_of_other_names_are_drives_of_their_own(tmp_path):
    store, rows = messages(10)
    for name in ("a", "b"):
        made = write(tmp_path / f"made_{name}", store, rows)
        next(made.glob("*.db3")).rename(tmp_path / f"{name}.db3")
    assert [record.name.split("/")[-1] for record in read(tmp_path)][:2] == ["a", "b"]


def test_a_bag_without_definitions_has_the_standard_types_alone(tmp_path):
    """As ROS 2 Humble and older write it: the camera is known, a car maker's report is not."""
    store, rows = messages()
    joy = store.types["sensor_msgs/msg/Joy"]
    header = rows[0][3].header
    rows = [row for row in rows if row[1] == COLOUR] + [
        (time_ns, "/joy", "sensor_msgs/msg/Joy", joy(header, np.array([i / 100, 0], np.float32), np.zeros(1, np.int32)))
        for i, (time_ns, topic, _, _) in enumerate(row for row in rows if row[1] == WHEEL)
    ]
    rows.append((rows[-1][0], WHEEL, *messages(1)[1][-1][2:]))
    folder = write(tmp_path / "old", store, sorted(rows, key=lambda row: row[0]))
    with sqlite3.connect(next(folder.glob("*.db3"))) as database:
        database.execute("update schema set schema_version = 3")
        database.execute("drop table message_definitions")
    database.close()
    (record,) = read(f"{folder}?steer=/joy.axes.0")
    assert np.array_equal(shades(record["picture"].values[:]), np.arange(30))
    np.testing.assert_allclose(record["angle_rad"].values, np.arange(73) / 100, rtol=1e-5)
    with pytest.raises(UserError, match="does not define its type dbw_mkz_msgs/msg/SteeringReport"):
        read(folder)


def test_the_topics_are_listed_where_none_is_known(tmp_path):
    store, rows = messages(5)
    folder = write(tmp_path / "bag", store, [(t, topic.replace("vehicle", "car"), k, m) for t, topic, k, m in rows])
    with pytest.raises(UserError, match=r"which topics .*/car/steering_report \(dbw_mkz_msgs/msg/SteeringReport\)"):
        read(folder)


def test_a_packed_file_never_fills_the_disk(tmp_path, monkeypatch):
    import zstandard

    (tmp_path / "a.db3.zstd").write_bytes(zstandard.compress(bytes(2**24)))
    monkeypatch.setattr(unpacked, "SPARE", 2**62)
    with pytest.raises(UserError, match="needs more room when unpacked"):
        unpacked.plain(tmp_path / "a.db3.zstd")
    monkeypatch.setattr(unpacked, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="over 1000 bytes when unpacked"):
        unpacked.unzipped(zstandard.compress(bytes(2000)))


def test_a_name_that_sqlite_would_follow_elsewhere_is_refused(tmp_path):
    folder = write(tmp_path / "bag", *messages(3))
    file = next(folder.glob("*.db3"))
    file.rename(folder / "..%2Fa.db3")
    with pytest.raises(UserError, match="rename it"):
        read(folder)


def test_messages_of_many_files_come_by_time_whatever_their_order():
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 100, 20)) for _ in range(5)]

    def walk(path, wanted, start_ns):
        yield from ((f"{path}", int(t), lambda: None) for t in times[int(path.name)] if t >= start_ns)

    files = tuple(Path(str(i)) for i in range(5))
    log = Log(Path("all"), files, tuple(int(t[0]) for t in times), walk, {})
    whole = [message[:2] for message in log.walk([], 0)]
    assert [time for _, time in whole] == sorted(np.concatenate(times).tolist())
    assert [message[:2] for message in log.walk([], 50)] == [message for message in whole if message[1] >= 50]


# Cameras and encodings


def test_the_colour_camera_comes_before_depth_grey_and_what_cannot_be_read(tmp_path):
    store, writing = ros_store(), pytest.importorskip("rosbags.rosbag1")

    def raw(time_ns: int, encoding: str, kind: str):
        pixels = np.zeros((48, 64), kind)
        fields = {"height": 48, "width": 64, "encoding": encoding, "is_bigendian": 0, "step": pixels.strides[0]}
        return ros(store, "sensor_msgs/Image", time_ns, data=pixels.view(np.uint8).reshape(-1), **fields)

    def packed(time_ns: int, form: str, data: bytes):
        values = np.frombuffer(data, np.uint8)
        return ros(store, "sensor_msgs/CompressedImage", time_ns, format=form, data=values)

    compressed, plain = "sensor_msgs/CompressedImage", "sensor_msgs/Image"
    cameras = {
        "/a/range/image": (plain, lambda t, i: raw(t, "16UC1", "u2")),
        "/b/aligned_depth_to_color": (plain, lambda t, i: raw(t, "mono8", "u1")),
        "/c/compressedDepth": (compressed, lambda t, i: packed(t, "16UC1; compressedDepth png", encoded(i))),
        "/d/video": (compressed, lambda t, i: packed(t, "h264", b"\0\0\0\1")),
        "/e/eye": (plain, lambda t, i: raw(t, "mono8", "u1")),
        "/z/front": (compressed, lambda t, i: packed(t, "jpeg", encoded(i) if i else b"cut")),
    }
    for gone, wanted in (("", "/z/front"), ("/z/front", "/e/eye")):
        path = tmp_path / f"{wanted[1]}.bag"
        with writing.Writer(path) as out:
            for topic, (kind, make) in cameras.items():
                if topic != gone:
                    name = kind.replace("/", "/msg/")
                    connection = out.add_connection(topic, name, typestore=store)
                    for i in range(30):
                        time_ns = BEGIN_NS + 50_000_000 * i
                        out.write(connection, time_ns, store.serialize_ros1(make(time_ns, i), name))
            kind = "dbw_mkz_msgs/SteeringReport"
            name = kind.replace("/", "/msg/")
            connection = out.add_connection(WHEEL, name, typestore=store)
            for i in range(75):
                time_ns = BEGIN_NS + 20_000_000 * i
                fields = {"steering_wheel_torque": 0.5, "speed": 9.0, "enabled": False}
                message = ros(store, kind, time_ns, steering_wheel_angle=i / 100, **fields)
                out.write(connection, time_ns, store.serialize_ros1(message, name))
        (record,) = read(path)
        assert set(cameras) - {wanted, gone} == set(record.about["skipped"])


class Image:
    is_bigendian = 0

    def __init__(self, encoding: str, pixels: np.ndarray, pad: int = 0):
        self.encoding, (self.height, self.width) = encoding, pixels.shape[:2]
        rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(len(pixels), -1)
        self.step, self.data = rows.shape[1] + pad, np.pad(rows, ((0, 0), (0, pad))).tobytes()


def scene(dtype: str = "u1") -> np.ndarray:
    """A smooth scene of all colours (24 32 3)."""
    y, x = np.mgrid[:24, :32]
    most = np.iinfo(dtype).max
    return np.stack([most * x // 31, most * y // 23, most * (x + y) // 54], -1).astype(dtype)


@pytest.mark.parametrize("pad", [0, 7])
@pytest.mark.parametrize("name", ["rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgra16", "8UC3", "8UC4", "16UC3"])
def test_packed_colours(name, pad):
    depth = 16 if "16" in name else 8
    shown = scene(f"u{depth // 8}")
    pixels = shown if name.startswith("rgb") else shown[..., ::-1]
    if "a" in name or name.endswith("4"):
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 9)], -1)
    message = Image(name, pixels, pad)
    found = Frames([raw_pixels.rgb(message, message.data)])[0]
    assert np.abs(found.astype(int) - scene()).max() <= (depth == 16)


@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", [8, 16])
def test_mosaics(order, depth):
    shown = scene(f"u{depth // 8}")
    places = np.array(["rgb".index(colour) for colour in order]).reshape(2, 2)
    y, x = np.mgrid[:24, :32]
    message = Image(f"bayer_{order}{depth}", shown[y, x, places[y % 2, x % 2]])
    found = Frames([raw_pixels.rgb(message, message.data)])[0].astype(int)
    assert np.abs(found - scene())[2:-2, 2:-2].max() <= 2
    assert np.abs(found - scene()).max() <= 12  # At the edge a colour may lie two pixels away.


def as_yuv(picture: np.ndarray) -> np.ndarray:
    """BT.601 in video range, by its definition."""
    r, g, b = np.moveaxis(picture / 255, -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([16 + 219 * y, 128 + 224 * (b - y) / 1.772, 128 + 224 * (r - y) / 1.402], -1)


@pytest.mark.parametrize("name", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv", "nv12", "nv21"])
def test_yuv(name):
    shown = np.repeat(np.repeat(scene()[::2, ::2], 2, 0), 2, 1)  # Colours are kept at half the resolution.
    y, u, v = np.moveaxis(np.round(as_yuv(shown)).astype(np.uint8), -1, 0)
    if name.startswith("nv"):
        chroma = np.stack([u, v] if name == "nv12" else [v, u], -1)[::2, ::2].reshape(12, 32)
        pixels = np.concatenate([y, chroma])
    else:
        halves = np.where(np.arange(32) % 2, v, u)
        pixels = np.stack([halves, y] if name in ("yuv422", "uyvy") else [y, halves], -1)
    message = Image(name, pixels)
    message.height = 24
    assert np.abs(raw_pixels.rgb(message, message.data).astype(int) - shown).max() <= 3


def test_deep_grey_and_big_ends():
    values = np.arange(24 * 32).reshape(24, 32) * 5  # of 12 bits
    little, big = Image("mono16", values.astype("<u2")), Image("mono16", values.astype(">u2"))
    big.is_bigendian = 1
    for message in (little, big):
        found = Frames([raw_pixels.rgb(message, message.data)])[0]
        assert np.array_equal(found[..., 1], values >> 4)
    assert np.array_equal(raw_pixels.rgb(Image("8UC1", picture(3)[..., 0]), picture(3)[..., 0].tobytes()), picture(3))


@pytest.mark.parametrize(
    ("encoding", "change", "why"),
    [
        ("16UC1", {}, "are distances"),
        ("32FC1", {}, "are distances"),
        ("jpeg2000", {}, "'jpeg2000', not colours or grey"),
        ("bayer_rrrr8", {}, "has no g"),
        ("bayer_rgbx8", {}, "not colours"),
        ("rgb8", {"width": 33}, "rows of"),
        ("rgb8", {"height": 25}, "rows of"),
        ("rgb8", {"height": 0}, "32x0"),
        ("rgb8", {"width": 2**16, "height": 2**16}, "65536x65536"),
        ("nv12", {"height": 23}, "half the resolution"),
        ("nv12", {"step": 10**9}, "rows of"),
        ("yuyv", {"width": 31}, "half the resolution"),
    ],
)
def test_a_raw_picture_that_makes_no_sense_is_refused(encoding, change, why):
    message = Image(encoding, scene())
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=why):
        raw_pixels.rgb(message, message.data)
