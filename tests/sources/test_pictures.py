"""Pictures and films as cameras and phones write them: upright, deep grey in its own range, at their own times."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_driving_logs import film
from test_folder import drive

from steersman.data.frames import Frames
from steersman.errors import UserError
from steersman.sources import read
from steersman.sources.films import Film
from steersman.sources.lerobot import Video

SHOWN = np.zeros((40, 60, 3), np.uint8)
SHOWN[:20, :30] = 200  # one corner bright, one half so
SHOWN[20:, :30] = 100
ENDS = ("JPEG", "PNG", "TIFF")


def stored(orientation: int) -> np.ndarray:
    """What a camera held that way stores of SHOWN, as EXIF defines it: where row 0 and column 0 are shown."""
    turned = SHOWN.swapaxes(0, 1) if orientation >= 5 else SHOWN
    rows = orientation in (3, 4, 6, 7)
    columns = orientation in (2, 3, 7, 8)
    return np.ascontiguousarray(turned[:: -1 if rows else 1, :: -1 if columns else 1])


def encoded(picture: np.ndarray, kind: str, orientation: int | None = None) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.fromarray(picture).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ENDS)
def test_a_picture_stands_upright_however_the_camera_was_held(orientation, kind):
    (shown,) = Frames([encoded(stored(orientation), kind, orientation)])[:]
    assert np.abs(shown.astype(int) - SHOWN).mean() <= 3 * (kind == "JPEG")


def test_an_orientation_that_makes_no_sense_turns_nothing():
    for orientation in (0, 9, 77):
        assert np.array_equal(Frames([encoded(SHOWN, "PNG", orientation)])[0], SHOWN)
    data = encoded(SHOWN, "JPEG", 6).replace(b"Exif\0\0", b"Exif\0\0\xff\xff", 1)
    assert Frames([data]).shape == (1, 40, 60, 3)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_deep_grey_is_scaled_by_the_bits_of_its_camera(bits, kind):
    """The same for all pictures of a recording: a dark one stays dark."""
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (20, 12, 16)).astype(np.uint16)
    values[0] //= 8
    values[5, 0, 0] = 2**bits - 1
    shown = Frames([encoded(v, kind) for v in values])[:]
    wanted = values / (2 ** (16 if kind == "PPM" else bits) - 1) * 255
    if kind != "PPM":  # Pillow scales these itself, by the largest value that the file names.
        assert np.abs(shown[..., 0] - wanted).max() <= 1
    assert shown[0].mean() < shown[1].mean() / 4
    assert (shown == shown[..., :1]).all()


def test_grey_of_floats_is_scaled_too():
    values = np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)
    (shown,) = Frames([encoded(values, "TIFF")])[:]
    np.testing.assert_allclose(shown[..., 0], values * 255, atol=1)
    values[3, 3] = np.nan
    assert Frames([encoded(values, "TIFF")])[0][3, 3].tolist() == [0, 0, 0]


def test_a_log_of_deep_grey_pictures_is_not_white(tmp_path):
    log = drive(tmp_path, 30)
    for i in range(30):
        Image.fromarray(np.full((48, 64), i * 100, np.uint16)).save(log / f"{i}.png")
    table = (log / "drive.csv").read_text().replace(".jpg", ".png")
    (log / "drive.csv").write_text(table)
    pictures = read(log)[0]["picture"].values[:]
    assert np.array_equal(pictures[:, 0, 0, 0], np.arange(30) * 100 >> 4)


ONE = 2**16
MATRICES = {
    "as it is": (ONE, 0, 0, ONE),
    "mirrored": (-ONE, 0, 0, ONE),
    "upside down": (-ONE, 0, 0, -ONE),
    "flipped": (ONE, 0, 0, -ONE),
    "clockwise": (0, ONE, -ONE, 0),
    "anticlockwise": (0, -ONE, ONE, 0),
    "transposed": (0, ONE, ONE, 0),
    "transverse": (0, -ONE, -ONE, 0),
}


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """The film with another display matrix in its track's header."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    numbers = (a, b, 0, c, d, 0, 0, 0, 2**30)
    content[at : at + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in numbers)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("way", MATRICES)
def test_a_film_stands_upright_however_the_phone_was_held(way, tmp_path):
    a, b, c, d = (n // ONE for n in MATRICES[way])
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 60, 40, "yuv444p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(SHOWN, format="rgb24")))
        container.mux(stream.encode(None))
    pictures = Film(with_matrix(tmp_path / "a.mp4", *MATRICES[way]))
    # Where a pixel of the file is shown, by the matrix alone: x' = a x + c y, y' = b x + d y.
    y, x = np.mgrid[:40, :60]
    column, row = a * x + c * y, b * x + d * y
    wanted = np.zeros((np.ptp(row) + 1, np.ptp(column) + 1, 3))
    wanted[row - row.min(), column - column.min()] = SHOWN
    assert pictures.shape == (3, *wanted.shape)
    assert np.abs(pictures[:] - wanted).mean() < 3
    video = Video(tmp_path / "a.mp4", 0, 20, (3, *wanted.shape))
    assert np.array_equal(video[:], pictures[:])


def test_a_film_at_any_other_angle_is_refused(tmp_path):
    path = with_matrix(film(tmp_path / "a.mp4", 3), 46341, 46341, -46341, 46341)
    with pytest.raises(UserError, match="stand at an angle of -45"):
        Film(path)


def timed(path: Path, times_ms: list[int], rate: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for time_ms in times_ms:
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("end", ["mp4", "mkv"])
def test_pictures_of_a_variable_rate_have_their_own_times(end, tmp_path):
    times_ms = [*range(0, 1000, 40), *range(1000, 2000, 100), *range(2000, 3000, 40)]
    shown = [i for i in range(60) if i != 7]
    timed(tmp_path / f"a.{end}", [ms + 500 for ms in times_ms], 30)
    (tmp_path / "a.csv").write_text("frame,steer\n" + "".join(f"{i},{i / 100}\n" for i in shown))
    (record,) = read(tmp_path)
    np.testing.assert_allclose(record["steer"].time_s, np.array(times_ms)[shown] / 1000, atol=1e-6)
    assert "own pictures" in record.about["clock"]
    (record,) = read(f"{tmp_path}?rate=20")
    np.testing.assert_allclose(record["steer"].time_s, np.array(shown) / 20)
    assert Film(timed(tmp_path / f"b.{end}", list(range(0, 2000, 40)), 25)).time_s is None
    assert Film(timed(tmp_path / f"c.{end}", [i * 1000 // 30 for i in range(90)], 30)).time_s is None


def test_a_drive_is_cut_where_the_camera_was_turned(tmp_path):
    log = drive(tmp_path, 30)
    for i in range(15, 30):
        (log / f"{i}.jpg").write_bytes(encoded(np.zeros((48, 64, 3), np.uint8), "JPEG", 6))
    first, second = read(log)
    assert first["picture"].values[:].shape == (15, 48, 64, 3)
    assert second["picture"].values[:].shape == (15, 64, 48, 3)
