import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from steersman.worlds.film import (
    BARS,
    FULL_LOCK_DEG,
    MODEL,
    SEEN,
    TRUTH,
    WHEELS,
    WORLD,
    Dashboard,
    DriveVideo,
    readouts,
    turned_wheel,
    wheel_degrees,
)

GREEN = (102, 204, 80)
INFO = {"time_s": 1.5, "speed_mps": 42.0, "score": 310.4, "progress": 0.5, "lap": False, "blind": False}


def picture(height=400, width=600, colour=GREEN):
    return np.full((height, width, 3), colour, np.uint8)


def wish(steer, gas=0.5, brake=0.0):
    return {"steer": steer, "gas": gas, "brake": brake}


def near(frame, colour, tolerance=60):
    return np.abs(frame.astype(int) - colour).sum(-1) < tolerance


def mark_degrees(marked):
    """Where the marked part of a wheel stands: 0 on top, counter-clockwise."""
    rows, columns = np.nonzero(marked)
    middle_row, middle_column = (np.array(marked.shape) - 1) / 2
    return np.rad2deg(np.arctan2(-(columns.mean() - middle_column), -(rows.mean() - middle_row)))


def decoded(path):
    with av.open(str(path)) as film:
        return [
            frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709).to_ndarray()
            for frame in film.decode(video=0)
        ]


def box(frame, place):
    x, y, width, height = place
    return frame[y : y + height, x : x + width]


@given(st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_a_wheel_turns_counter_clockwise_to_the_left(steer):
    wheel = np.asarray(turned_wheel(112, MODEL, wheel_degrees(steer)))
    marked = near(wheel[..., :3], MODEL) & (wheel[..., 3] > 128)
    assert mark_degrees(marked) == pytest.approx(FULL_LOCK_DEG * steer, abs=1.5)


def test_a_film_decodes_to_what_was_added(tmp_path):
    steers = np.linspace(-0.6, 0.6, 30)
    with DriveVideo(tmp_path / "drive.mp4", fps=25) as film:
        for steer in steers:
            film.add(picture(), picture(84, 96), wish(float(steer)), wish(-float(steer)), INFO)
        film.still(tmp_path / "still.png")
    frames = decoded(tmp_path / "drive.mp4")
    assert [frame.shape for frame in frames] == [(540, 960, 3)] * 30
    assert np.abs(box(frames[9], WORLD).mean((0, 1)) - GREEN).max() < 4
    x, y, width, height = WHEELS
    for steer, frame in zip(steers, frames, strict=True):
        for start, colour, sign in ((0, MODEL, 1), (width // 2, TRUTH, -1)):
            hub = x + start + width // 4
            wheel = frame[y : y + height, hub - height // 2 : hub + height // 2]
            turned = mark_degrees(near(wheel, colour, 120))
            assert turned == pytest.approx(sign * FULL_LOCK_DEG * steer, abs=6)
    still = np.asarray(Image.open(tmp_path / "still.png"))
    assert np.abs(still.astype(int) - frames[-1]).mean() < 3


def test_a_film_plays_in_browsers_and_starts_before_it_is_all_there(tmp_path):
    with DriveVideo(tmp_path / "drive.mp4", fps=50, width=500) as film:
        for _ in range(5):
            film.add(picture(), picture(84, 96), wish(0.1), None, {})
    with av.open(str(tmp_path / "drive.mp4")) as read:
        video = read.streams.video[0]
        assert (video.codec_context.name, video.pix_fmt, video.average_rate) == ("h264", "yuv420p", 50)
        assert (video.width % 2, video.height % 2) == (0, 0)
    data = (tmp_path / "drive.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def interrupted_drive(path):
    with DriveVideo(path) as film:
        film.add(picture(), picture(84, 96), wish(0.1), None, INFO)
        raise KeyboardInterrupt


def test_an_error_leaves_the_older_film_and_nothing_else(tmp_path):
    path = tmp_path / "drive.mp4"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        interrupted_drive(path)
    assert [each.name for each in tmp_path.iterdir()] == ["drive.mp4"]
    assert path.read_bytes() == b"older"


@given(st.integers(1, 300), st.integers(1, 300), st.integers(160, 1300), st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_any_picture_fits_any_width(height, width, film_width, steer):
    dashboard = Dashboard(film_width)
    frame = dashboard.draw(picture(height, width), picture(width, height), wish(steer), wish(-steer), INFO)
    assert frame.shape == (dashboard.size[1], dashboard.size[0], 3)
    assert frame.dtype == np.uint8
    assert {size % 2 for size in dashboard.size} == {0}


def test_what_the_model_sees_is_enlarged_without_smoothing():
    seen = np.random.default_rng(0).integers(0, 256, (84, 96, 3), np.uint8)
    frame = Dashboard().draw(picture(), seen, wish(0.0), None, INFO)
    np.testing.assert_array_equal(box(frame, SEEN)[1::3, 1::3], seen)


def test_a_blackout_is_marked_where_the_model_looks():
    frames = [Dashboard().draw(picture(), picture(84, 96), wish(0.0), None, {"blind": b}) for b in (False, True)]
    changed = (frames[0] != frames[1]).any(-1)
    assert changed.any()
    x, y, width, height = SEEN
    changed[y : y + height, x : x + width] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["gas", "brake", "pace"])
def test_bars_grow_with_the_pedals_and_mark_the_experts_choice(name):
    lengths, marks = [], []
    for value in (0.2, 0.6, 1.0):
        frame = Dashboard().draw(
            picture(), picture(84, 96), {"steer": 0.0, name: value}, {"steer": 0.0, name: 1 - value}, INFO
        )
        row = box(frame, BARS)[5]
        lengths.append(near(row, MODEL, 5).sum())
        marks.append(np.flatnonzero(near(row, TRUTH, 5)).mean())
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[2]
    assert marks[0] > marks[1] > marks[2]


def test_readouts_say_what_is_known_and_no_more():
    assert readouts({}) == []
    assert readouts(INFO) == [("time", "1.5 s"), ("speed", "42 m/s"), ("score", "310"), ("lap", "50 %")]
    assert readouts(INFO | {"lap": True})[-1] == ("lap", "finished")
