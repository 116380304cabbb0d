"""Films with counts: made scenes, and a video beside its table."""

from pathlib import Path

import numpy as np
import pytest

from steersman.errors import UserError
from steersman.sources.counted import Counted

MADE = Counted(films=6, frames=30, people=(1, 3), test_people=(4, 5), height=48, width=64)


def video(folder: Path, frames: int = 12) -> Path:
    import av

    with av.open(str(folder / "film.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), 20 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode())
    return folder


def test_made_scenes_have_as_many_people_as_was_asked_and_no_more():
    records = MADE.read()
    assert [record.about["part"] for record in records] == ["test", "validation"] + ["train"] * 4
    for record in records:
        counts = np.asarray(record["people"].values)
        low, high = (4, 5) if record.about["part"] == "test" else (1, 3)
        assert counts.min() >= low - 1
        assert counts.max() <= high
        assert record["picture"].values.shape == (30, 48, 64, 3)


def test_made_scenes_are_a_pure_function_of_the_seed():
    one, two = MADE.read(), MADE.read()
    assert all((a["picture"].values == b["picture"].values).all() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("first", [0, 1])
def test_a_video_and_its_table_are_read_from_whichever_frame_is_the_first(tmp_path, first):
    rows = "".join(f"{number + first},{number % 4}\n" for number in range(12))
    (video(tmp_path) / "counts.csv").write_text("frame,people\n" + rows)
    (record,) = Counted().open([str(tmp_path)])
    assert np.asarray(record["people"].values).tolist() == [number % 4 for number in range(12)]
    assert np.abs(np.asarray(record["picture"].values[5]).mean() - 100) < 6
    assert record["picture"].time_s[5] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("frame,people\n0,1\n1,many\n", "line 3"),
        ("frame,people\n0,1\n0,2\n", "stands there twice"),
        ("frame,people\n0,1\n1,-2\n", "frame 1 with -2 people"),
        ("frame,people\n0,1\n", "at least 2"),
        ("frame,people\n90,1\n91,1\n", "none of the 12"),
        ("frame,sheep\n0,1\n1,1\n", "0 tables with a column called people"),
    ],
)
def test_a_bad_table_is_one_sentence_with_its_place(tmp_path, table, said):
    (video(tmp_path) / "counts.csv").write_text(table)
    with pytest.raises(UserError, match=said):
        Counted().open([str(tmp_path)])


def test_frames_that_the_video_lacks_are_counted(tmp_path):
    rows = "".join(f"{number},1\n" for number in range(20))
    (video(tmp_path) / "counts.csv").write_text("frame,people\n" + rows)
    (record,) = Counted().open([str(tmp_path)])
    assert len(record) == 12
    assert record.about["frames_without_picture"] == 8
