"""A recording is whole at every moment, the same however often it was cut, and comes back as it was written."""

import json
import os
import re
import shutil
import signal
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steersman.errors import UserError
from steersman.files import hidden_name
from steersman.sources import lerobot, lerobot_layout, lerobot_writer, read
from steersman.sources.lerobot_layout import features, stream_names

FAST = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
FPS = 50


def episode(seed: int, length: int = 9) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = {n: rng.standard_normal(length).astype(np.float32) for n in ("steer", "gas", "speed_mps", "pace")}
    pictures = rng.integers(0, 256, (length, 6, 8, 3), np.uint8)
    return {"picture": pictures, **numbers, "blind": rng.random(length) < 0.5, "pose": rng.random((length, 3))}


def writer(folder: Path, about: dict | None = None) -> lerobot.Writer:
    return lerobot.Writer(folder, FPS, lerobot.kinds(episode(0)), "drive one lap", about)


def record_up_to(folder: Path, episodes: int) -> None:
    recording = writer(folder)
    while recording.num_episodes < episodes:
        recording.add(episode(recording.num_episodes, 5 + recording.num_episodes))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same(record, streams: dict[str, np.ndarray]) -> None:
    assert set(record.streams) == set(streams)
    for name, wanted in streams.items():
        found = np.asarray(record[name].values[:])
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape == tuple(record[name].values.shape)
        assert found.tobytes() == wanted.tobytes(), name


# Round trip


def test_streams_come_back_bit_equal_under_their_own_names(tmp_path):
    recording = writer(tmp_path, {"world": {"kind": "CarRacing"}, "steer_range_rad": 0.4})
    episodes = [episode(seed, length) for seed, length in enumerate((30, 1, 400))]
    for number, streams in enumerate(episodes):
        recording.add(streams, "the long one" if number == 2 else None)
    found = read(tmp_path)
    assert [r.name for r in found] == ["episode_000000", "episode_000001", "the long one"]
    for record, streams in zip(found, episodes, strict=True):
        same(record, streams)
        assert next(iter(record.streams)) == "picture"
        assert np.array_equal(record["steer"].time_s, np.arange(len(record)) / FPS)
        assert record.about["world"] == {"kind": "CarRacing"}
        assert record.about["steer_range_rad"] == 0.4
        assert record.about["task"] == "drive one lap"


@FAST
@given(st.data())
def test_any_streams_a_recording_takes_come_back(tmp_path_factory, data):
    length = data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    known = ["steer", "throttle", "brake", "speed_mps", "timestamp", "action", "a.b", "état", "picture_of"]
    streams: dict[str, np.ndarray] = {}
    for name in data.draw(st.lists(st.sampled_from(known), unique=True, min_size=1)):
        shape = (length, *data.draw(st.sampled_from([(), (2,), (5,)])))
        dtype = np.dtype(data.draw(st.sampled_from(["float32", "float64", "int64", "uint8", "int16", "bool"])))
        streams[name] = (rng.random(shape) * 100).astype(dtype)
    for name in data.draw(st.lists(st.sampled_from(["picture", "picture_left", "picture_x"]), unique=True)):
        if name == "picture" or "picture" in streams:
            streams[name] = rng.integers(0, 256, (length, 3, 4, 3), np.uint8)
    folder = tmp_path_factory.mktemp("any")
    lerobot.Writer(folder, 12.5, lerobot.kinds(streams), "é").add(streams)
    same(lerobot.read(folder)[0], streams)


@pytest.mark.parametrize(
    "streams",
    [
        {"cam": ("uint8", (4, 4, 3))},
        {"picture_left": ("uint8", (4, 4, 3))},
        {"picture": ("uint8", (4, 4, 3)), "picture_front": ("uint8", (4, 4, 3))},
        {"a/b": ("float32", ())},
        {"grid": ("float32", (2, 2))},
        {"column": ("float32", (1,))},
        {"words": ("<U3", ())},
    ],
)
def test_streams_that_would_not_come_back_are_refused(streams, tmp_path):
    with pytest.raises(UserError):
        lerobot.Writer(tmp_path, FPS, streams, "x")
    assert not files(tmp_path)


def test_scalars_are_read_without_touching_pictures(tmp_path, monkeypatch):
    record_up_to(tmp_path, 2)
    monkeypatch.setattr(lerobot, "_pictures", lambda *_: pytest.fail("pictures were read"))
    records = read(tmp_path)
    assert all(r["picture"].values.shape == (len(r), 6, 8, 3) for r in records)
    assert np.isfinite(records[1]["steer"].values).all()


def test_fingerprints_tell_episodes_apart_and_stay(tmp_path):
    record_up_to(tmp_path, 3)
    first, again = ([r["picture"].values.fingerprint for r in read(tmp_path)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3


# What lerobot expects (checked by loading such a folder with lerobot 0.4.4 itself)


def test_the_files_are_those_of_the_published_layout(tmp_path):
    record_up_to(tmp_path, 2)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (2, 11, FPS)
    assert info["splits"] == {"train": "0:2"}
    action = info["features"]["action"]
    assert action == {"dtype": "float32", "shape": [2], "names": ["steer", "gas"]}
    schema = pq.read_schema(tmp_path / info["data_path"].format(chunk_index=0, file_index=1))
    assert schema.field("observation.images.front").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert schema.field("action").type == pa.list_(pa.float32(), 2)
    assert set(schema.names) == set(info["features"])
    row = pq.read_table(tmp_path / "meta/episodes/chunk-000/file-001.parquet").to_pylist()[0]
    assert (row["dataset_from_index"], row["dataset_to_index"], row["length"]) == (5, 11, 6)
    assert row["tasks"] == ["drive one lap"]
    tasks = pq.read_table(tmp_path / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    assert tasks.to_pydict() == {"task_index": [0], "task": ["drive one lap"]}


def test_statistics_are_those_of_all_episodes_together(tmp_path):
    record_up_to(tmp_path, 4)
    stats = json.loads((tmp_path / "meta/stats.json").read_text())
    episodes = [episode(n, 5 + n) for n in range(4)]
    whole = np.concatenate([np.stack([e["steer"], e["gas"]], -1) for e in episodes]).astype(np.float64)
    for name, wanted in {"min": whole.min(0), "max": whole.max(0), "mean": whole.mean(0), "std": whole.std(0)}.items():
        np.testing.assert_allclose(stats["action"][name], wanted, rtol=1e-12)
    assert stats["action"]["count"] == [26]
    pixels = np.concatenate([e["picture"] for e in episodes]).reshape(-1, 3) / 255
    front = stats["observation.images.front"]
    np.testing.assert_allclose(np.ravel(front["mean"]), pixels.mean(0), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(front["std"]), pixels.std(0), rtol=1e-9)
    assert np.shape(front["q50"]) == (3, 1, 1)


@given(st.integers(0, 2**32), st.integers(1, 300))
@settings(max_examples=15, deadline=None)
def test_statistics_of_pictures_are_exact_for_few_of_them(seed, length):
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (min(length, 99), 2, 3, 3), np.uint8)
    found, flat = lerobot_writer.statistics(pictures), pictures.reshape(-1, 3) / 255
    assert np.array_equal(found["min"].ravel(), flat.min(0))
    assert np.array_equal(found["max"].ravel(), flat.max(0))
    np.testing.assert_allclose(found["mean"].ravel(), flat.mean(0))
    wanted = np.quantile(flat, 0.5, axis=0, method="inverted_cdf")
    np.testing.assert_allclose(found["q50"].ravel(), wanted)


# Cuts


class Cut(BaseException):
    """Stands for `kill -9`: nothing gets to clean up."""


def cut_at(monkeypatch, step: int, half: bool) -> None:
    """Ends the process at the `step`-th file written, before it or with half of it in its temporary file."""
    write, number = lerobot_writer.write_file, count()

    def cut(path: Path, content: bytes) -> None:
        if next(number) == step:
            if half:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_name(hidden_name(path.name)).write_bytes(content[: len(content) // 2])
            raise Cut
        write(path, content)

    monkeypatch.setattr(lerobot_writer, "write_file", cut)


@pytest.fixture(scope="module")
def uncut(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("uncut")
    record_up_to(folder, 3)
    return files(folder)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("step", range(15))
def test_a_cut_between_any_two_files_loses_no_whole_episode(step, half, tmp_path, monkeypatch, uncut):
    with monkeypatch.context() as patch:
        cut_at(patch, step, half)
        with pytest.raises(Cut):
            record_up_to(tmp_path, 3)
    rows = len(list(tmp_path.glob("meta/episodes/*/*.parquet")))
    assert rows == max(0, (step - 1) // 4)
    if rows:
        for number, record in enumerate(read(tmp_path)):
            same(record, episode(number, 5 + number))
    elif lerobot.detect(tmp_path):
        with pytest.raises(UserError, match="no whole episode"):
            read(tmp_path)
    record_up_to(tmp_path, 3)
    assert files(tmp_path) == uncut


def test_a_recording_cut_after_its_last_episode_is_put_in_order_by_opening_it(tmp_path, monkeypatch, uncut):
    with monkeypatch.context() as patch:
        cut_at(patch, 13, True)
        with pytest.raises(Cut):
            record_up_to(tmp_path, 3)
    shutil.copy(tmp_path / "data/chunk-000/file-002.parquet", tmp_path / "data/chunk-000/file-003.parquet")
    assert writer(tmp_path).num_episodes == 3
    assert files(tmp_path) == uncut


def test_kill_9_at_any_moment_and_the_resumed_recording_is_byte_for_byte_the_same(tmp_path):
    wanted, cut, whole, kills = tmp_path / "uncut", tmp_path / "cut", 0, 0
    record_up_to(wanted, 40)
    rng = np.random.default_rng(0)
    while whole < 40 and kills < 20:
        if not (child := os.fork()):
            try:
                record_up_to(cut, 40)
            finally:
                os._exit(0)
        aim = min(40, whole + int(rng.integers(1, 4)))
        for _ in range(20_000):
            if len(list(cut.glob("meta/episodes/*/*.parquet"))) >= aim:
                break
            time.sleep(3e-3)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        records = read(cut)
        assert len(records) >= aim
        for number in range(whole, whole := len(records)):
            same(records[number], episode(number, 5 + number))
    assert kills
    record_up_to(cut, 40)
    assert files(cut) == files(wanted)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    record_up_to(tmp_path, 2)
    before = files(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full"):
        record_up_to(tmp_path, 3)
    assert files(tmp_path) == before


# What can't be resumed


def test_other_settings_are_refused(tmp_path):
    record_up_to(tmp_path, 1)
    kinds = lerobot.kinds(episode(0))
    with pytest.raises(UserError, match="another fps"):
        lerobot.Writer(tmp_path, 25, kinds, "drive one lap")
    with pytest.raises(UserError, match="another about"):
        writer(tmp_path, {"seed": 1})
    with pytest.raises(UserError, match="another streams and another task"):
        lerobot.Writer(tmp_path, FPS, {"steer": ("float32", ())}, "park")


def test_a_dataset_from_elsewhere_is_not_written_into(tmp_path):
    write_theirs(tmp_path, video=False)
    before = files(tmp_path)
    with pytest.raises(UserError, match="another origin"):
        writer(tmp_path)
    assert files(tmp_path) == before


def test_episodes_that_do_not_fit_are_refused(tmp_path):
    recording, streams = writer(tmp_path), episode(0)
    for bad, why in [
        ({k: v for k, v in streams.items() if k != "gas"}, "make them the same"),
        (streams | {"gas": streams["gas"].astype(np.float64)}, "make them the same"),
        (streams | {"gas": streams["gas"][1:]}, "equally long"),
        ({k: v[:0] for k, v in streams.items()}, "not empty"),
        (streams | {"gas": np.full_like(streams["gas"], np.nan)}, "finite"),
        (streams | {"pace": np.full_like(streams["pace"], np.nan)}, "finite"),
    ]:
        with pytest.raises(UserError, match=why):
            recording.add(bad)
    recording.add(streams, "one")
    with pytest.raises(UserError, match="already"):
        recording.add(streams, "one")
    assert recording.num_episodes == 1


# Datasets as lerobot writes them: several episodes to a file, cameras as video

LENGTHS = (7, 20, 13)
VIDEO = "observation.images.top"


def their_pictures() -> np.ndarray:
    """(time 32 48 3), each with its number readable."""
    number = np.arange(sum(LENGTHS))
    pictures = np.random.default_rng(1).integers(0, 256, (len(number), 32, 48, 3), np.uint8)
    pictures[:, :8] = (number * 6)[:, None, None, None]
    return pictures


def encode(path: Path, pictures: np.ndarray, codec: str, pixels: str, options: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, 25, options=options)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = pixels
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def write_theirs(folder: Path, video: bool, codec: str = "libx264rgb", pixels: str = "rgb24") -> None:
    pictures, ends = their_pictures(), np.cumsum(LENGTHS)
    starts = ends - LENGTHS
    number = np.repeat(np.arange(3), LENGTHS)
    frame = np.concatenate([np.arange(n) for n in LENGTHS])
    columns = {
        "observation.state": pa.array([[float(i), float(e)] for i, e in zip(frame, number, strict=True)]),
        "grid": pa.array([[[float(i)] * 3] * 2 for i in frame]),
        "action": pa.array([[i / 10, -1.0] for i in frame], pa.list_(pa.float32())),
        "instruction": pa.array(["go"] * len(frame)),
        "timestamp": pa.array(frame / 25, pa.float32()),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(number),
        "index": pa.array(np.arange(len(frame))),
        "task_index": pa.array(np.zeros(len(frame), np.int64)),
    }
    specs = {
        VIDEO: {"dtype": "video" if video else "image", "shape": [3, 32, 48], "names": ["c", "h", "w"]},
        "observation.state": {"dtype": "float64", "shape": [2], "names": {"motors": ["a", "b"]}},
        "grid": {"dtype": "float64", "shape": [2, 3], "names": None},
        "action": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
        "instruction": {"dtype": "string", "shape": [1], "names": None},
    }
    rows = {
        "episode_index": [0, 1, 2],
        "tasks": [["go"]] * 3,
        "length": list(LENGTHS),
        "data/chunk_index": [0] * 3,
        "data/file_index": [0] * 3,
        "dataset_from_index": starts.tolist(),
        "dataset_to_index": ends.tolist(),
        "stats/action/min": [[0.0, -1.0]] * 3,
    }
    if video:
        encode(folder / f"videos/{VIDEO}/chunk-000/file-000.mp4", pictures, codec, pixels, {"qp": "0", "g": "6"})
        rows |= {f"videos/{VIDEO}/{part}_index": [0] * 3 for part in ("chunk", "file")}
        rows |= {f"videos/{VIDEO}/from_timestamp": (starts / 25).tolist()}
        rows |= {f"videos/{VIDEO}/to_timestamp": (ends / 25).tolist()}
    else:
        png = [{"bytes": lerobot_writer._png(p), "path": "frame.png"} for p in pictures]
        columns = {VIDEO: pa.array(png), **columns}
    info = {
        "codebase_version": "v3.0",
        "fps": 25,
        "total_episodes": 3,
        "features": specs,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    for path in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / path).mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    # Row groups end within episodes, as in files of older versions.
    pq.write_table(pa.table(columns), folder / "data/chunk-000/file-000.parquet", row_group_size=9)


def write_version_2(folder: Path, video: bool) -> None:
    """The same as version 2.1 has it: a file an episode, two episodes to a chunk."""
    write_theirs(folder, video)
    table = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    shutil.rmtree(folder / "data")
    shutil.rmtree(folder / "meta/episodes")
    shutil.rmtree(folder / "videos", ignore_errors=True)
    start, lines = 0, []
    for number, length in enumerate(LENGTHS):
        chunk, name = f"chunk-{number // 2:03d}", f"episode_{number:06d}"
        (folder / "data" / chunk).mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, length), folder / "data" / chunk / f"{name}.parquet")
        if video:
            path = folder / "videos" / chunk / VIDEO / f"{name}.mp4"
            encode(path, their_pictures()[start : start + length], "libx264rgb", "rgb24", {"qp": "0"})
        lines.append(json.dumps({"episode_index": number, "tasks": ["go"], "length": length}))
        start += length
    (folder / "meta/episodes.jsonl").write_text("\n".join(lines[::-1]) + "\n")
    info = json.loads((folder / "meta/info.json").read_text()) | {
        "codebase_version": "v2.1",
        "chunks_size": 2,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (folder / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("write", [write_theirs, write_version_2])
def test_episodes_are_told_apart_whether_they_share_files_or_not(write, video, tmp_path):
    write(tmp_path, video)
    pictures, start = their_pictures(), 0
    for number, record in enumerate(read(tmp_path)):
        length = LENGTHS[number]
        wanted = pictures[start : start + length]
        frames = record["picture"].values
        assert list(record.streams) == ["picture", "state", "grid", "action"]
        assert frames.shape == (length, 32, 48, 3)
        assert np.array_equal(frames[:], wanted)
        assert np.array_equal(frames[np.array([length - 1, 2, 2])], wanted[[length - 1, 2, 2]])
        assert np.array_equal(frames[-1], wanted[-1])
        assert frames[3:3].shape == (0, 32, 48, 3)
        assert np.array_equal(record["state"].values[:, 0], np.arange(length))
        assert record["grid"].values.shape == (length, 2, 3)
        assert np.array_equal(record["picture"].time_s, np.arange(length) / 25)
        assert record.about["skipped"] == ["instruction"]
        start += length


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"episode_index": 1, "len', r"episodes\.jsonl can't be read \(line 3: "),
        (b'{"episode_index": 1}', "line 3: a row lacks"),
        (b"[" * 100_000, "line 3"),
    ],
)
def test_a_wrong_line_of_episodes_is_explained(line, why, tmp_path):
    write_version_2(tmp_path, video=False)
    path = tmp_path / "meta/episodes.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[2], lines[0], line]))
    with pytest.raises(UserError, match=why):
        read(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"episodes\.jsonl can't be read"):
        read(tmp_path)


@pytest.mark.parametrize("way", ["template", "link"])
def test_a_dataset_never_leads_out_of_its_folder(way, tmp_path):
    folder = tmp_path / "set"
    write_theirs(folder, video=False)
    shutil.move(folder / "data", tmp_path / "data")
    if way == "link":
        (folder / "data").symlink_to(tmp_path / "data")
    else:
        path = folder / "meta/info.json"
        path.write_text(path.read_text().replace('"data/chunk', '"../data/chunk'))
    with pytest.raises(UserError, match="lies outside its dataset"):
        read(folder)


def test_frames_of_a_lossy_video_are_the_right_ones(tmp_path):
    write_theirs(tmp_path, video=True, codec="libx264", pixels="yuv420p")
    start = 0
    for record in read(tmp_path):
        length = len(record)
        number = record["picture"].values[np.arange(length)[::-1]][::-1, :6].mean((1, 2, 3)) / 6
        assert np.abs(number - np.arange(start, start + length)).max() < 0.5
        start += length


@pytest.mark.parametrize(
    "text", ["ffconcat version 1.0\nfile real.mp4\n", "#EXTM3U\n#EXTINF:1\nreal.mp4\n#EXT-X-ENDLIST\n"]
)
def test_a_playlist_in_place_of_a_video_is_not_followed(text, tmp_path):
    write_theirs(tmp_path, video=True)
    for video in tmp_path.rglob("*.mp4"):
        video.rename(video.with_name("real.mp4"))
        video.write_text(text)
    with pytest.raises(UserError, match="can't be read"):
        lerobot.read(tmp_path)[0]["picture"].values[0]


def test_a_video_that_ends_early_is_named(tmp_path):
    write_theirs(tmp_path, video=True)
    path = tmp_path / f"videos/{VIDEO}/chunk-000/file-000.mp4"
    last = read(tmp_path)[2]
    shutil.rmtree(path.parent)
    encode(path, their_pictures()[:30], "libx264rgb", "rgb24", {"qp": "0"})
    with pytest.raises(UserError, match=r"file-000\.mp4 has no picture at 1\.2"):
        last["picture"].values[:]
    left_out(tmp_path, 2, r"episode 2, 13 frames: .*file-000\.mp4 ends at 1\.200 s, but has to show 1\.560 s")


def left_out(folder: Path, episode: int, why: str) -> None:
    """That episode is left out for that reason, the others are read."""
    records = read(folder)
    assert [record.about["episode"] for record in records] == [e for e in range(3) if e != episode]
    for record in records:
        (fault,) = record.about["faults"]
        assert re.search(why, fault)
        assert record.about["num_faults"] == LENGTHS[episode]


@pytest.mark.parametrize(
    ("line", "why", "num"),
    [
        ('{"episode_index": 1, "length": 21}', "holds 20 rows of episode 1 where 21", 21),
        ('{"episode_index": 9, "length": 2}', r"episode_000009\.parquet can't be read", 2),
        ('{"episode_index": -1, "length": 2}', "can't be read", 2),
    ],
)
def test_an_episode_that_can_not_be_read_is_left_out_with_its_reason(line, why, num, tmp_path):
    write_version_2(tmp_path, video=False)
    path = tmp_path / "meta/episodes.jsonl"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([lines[2], lines[0], line]))
    records = read(tmp_path)
    assert [record.about["episode"] for record in records] == [0, 2]
    assert re.search(why, records[0].about["faults"][0])
    assert records[0].about["num_faults"] == num


def test_a_partial_download_is_read_as_far_as_it_goes(tmp_path):
    write_version_2(tmp_path / "two", video=True)
    next((tmp_path / "two").rglob("episode_000001.parquet")).unlink()
    left_out(tmp_path / "two", 1, r"episode 1, 20 frames: .*episode_000001\.parquet can't be read")
    write_version_2(tmp_path / "film", video=True)
    next((tmp_path / "film").rglob("episode_000002.mp4")).unlink()
    left_out(tmp_path / "film", 2, r"episode 2, 13 frames: .*episode_000002\.mp4")
    shutil.rmtree(tmp_path / "two/data")
    with pytest.raises(UserError, match=r"episode_000000\.parquet can't be read"):
        read(tmp_path / "two")


def test_a_camera_of_which_nothing_was_downloaded_is_left_out(tmp_path):
    write_theirs(tmp_path, video=True)
    path = tmp_path / "meta/info.json"
    info = json.loads(path.read_text())
    info["features"] = {"observation.images.front": info["features"][VIDEO], **info["features"]}
    path.write_text(json.dumps(info))
    for record in read(tmp_path):
        assert record.about["features"]["picture"] == VIDEO
        assert "observation.images.front" in record.about["skipped"]
        assert record.about["num_faults"] == 0


def hub(tmp_path: Path, revision: str = "a" * 40) -> Path:
    """A dataset as the hub's cache has it, and a file beside that cache."""
    write_theirs(tmp_path / "plain", video=True)
    for number, path in enumerate(filter(Path.is_file, (tmp_path / "plain").rglob("*"))):
        blob, link = tmp_path / f"hub/blobs/{number:040x}", tmp_path / "hub/snapshots" / revision
        link = link / path.relative_to(tmp_path / "plain")
        blob.parent.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return tmp_path / "hub"


def test_the_cache_of_the_hub_is_read_through_its_links(tmp_path):
    folder = hub(tmp_path)
    assert [len(record) for record in read(folder)] == list(LENGTHS)
    assert read(folder / "snapshots" / ("a" * 40))[0]["picture"].values[:].shape == (7, 32, 48, 3)


@pytest.mark.parametrize("way", ["file", "blobs", "revision", "name"])
def test_links_of_a_cache_lead_into_its_own_blobs_alone(way, tmp_path):
    folder = hub(tmp_path, "main" if way == "revision" else "a" * 40)
    data = next(folder.rglob("data/*/*.parquet"))
    if way == "file":
        shutil.move(data.resolve(), tmp_path / "elsewhere")
        data.unlink()
        data.symlink_to(tmp_path / "elsewhere")
    elif way == "blobs":
        shutil.move(folder / "blobs", tmp_path / "elsewhere")
        (folder / "blobs").symlink_to(tmp_path / "elsewhere")
    elif way == "name":
        shutil.move(folder / "blobs", folder / "blobs2")
        (folder / "blobs").symlink_to(folder / "blobs2")
    with pytest.raises(UserError, match="lies outside its dataset"):
        read(data.parents[2])


# The wheel of datasets made elsewhere


def driven(folder: Path, action: np.ndarray, names: object, key: str = "action.continuous", **more) -> Path:
    """An episode a row of `action` (episode frame number), without pictures."""
    columns = {key: action.reshape(-1, action.shape[-1]), **more}
    lengths = [action.shape[1]] * len(action)
    specs = {k: {"dtype": str(v.dtype), "shape": list(v.shape[1:]) or [1]} for k, v in columns.items()}
    specs[key]["names"] = names
    table = {k: pa.array(v.tolist()) for k, v in columns.items()}
    table |= {
        "frame_index": np.tile(np.arange(lengths[0]), len(lengths)),
        "episode_index": np.repeat(np.arange(len(lengths)), lengths),
    }
    rows = {"episode_index": np.arange(len(lengths)), "length": lengths, "tasks": [["go"]] * len(lengths)}
    rows |= {"data/chunk_index": [0] * len(lengths), "data/file_index": [0] * len(lengths)}
    info = {"codebase_version": "v3.0", "fps": 10, "features": specs, "data_path": lerobot_layout.DATA}
    for path in ("data/chunk-000", "meta/episodes/chunk-000"):
        (folder / path).mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table(rows), folder / "meta/episodes/chunk-000/file-000.parquet")
    pq.write_table(pa.table(table), folder / "data/chunk-000/file-000.parquet")
    return folder


ACTION = np.random.default_rng(0).uniform(-1, 1, (3, 40, 3)).astype(np.float32)
NAMES = ["gas", "brake", "steering_angle_normalized"]


@pytest.mark.parametrize("names", [NAMES, {"axes": NAMES}, {"pedals": NAMES[:2], "wheel": NAMES[2:]}])
def test_the_number_that_says_it_steers_does(names, tmp_path):
    records = read(driven(tmp_path, ACTION, names))
    for record, action in zip(records, ACTION, strict=True):
        assert np.array_equal(record["steer"].values, action[:, 2])
        assert np.array_equal(record["action.continuous"].values, action)
        assert "action.continuous[steering_angle_normalized], positive taken for left" in record.about["sign"]


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ("action.continuous[2]", lambda a: a[:, 2]),
        ("action.continuous[x-left]", lambda a: a[:, 0]),
        ("action.continuous[1]&sign=right", lambda a: -a[:, 1]),
        ("action.continuous[1] - action.continuous[x-left]&scale=0.5", lambda a: (a[:, 1] - a[:, 0]) / 2),
        ("action.continuous[x-left]-action.continuous[y]&scale=0.5", lambda a: (a[:, 0] - a[:, 1]) / 2),
        ("lone", lambda a: a[:, 0] / 4),
    ],
)
def test_the_number_that_steers_is_named(named, wanted, tmp_path):
    folder = driven(tmp_path, ACTION, ["x-left", "y", "z"], lone=ACTION[..., 0].reshape(-1) / 4)
    for record, action in zip(read(f"{folder}?steer={named}"), ACTION, strict=True):
        np.testing.assert_allclose(record["steer"].values, wanted(action), atol=1e-6)


def test_what_can_steer_is_listed_where_nothing_does(tmp_path):
    folder = driven(tmp_path, ACTION, ["x", "y", "z"])
    listed = r"action\.continuous\[x\], action\.continuous\[y\], action\.continuous\[z\]"
    with pytest.raises(UserError, match=rf"no stream 'steer'.*\?steer=NUMBER', of {listed}"):
        read(folder)[0]["steer"]
    for wrong, why in [
        ("steer=action.continuous[3]", listed),
        ("steer=action.continuous[w]", listed),
        ("steer=action.continuous", listed),
        ("steer=action.continuous[0]-", listed),
        ("steer=action.continuous[0]&sign=up", "left or right"),
        ("steer=action.continuous[0]&scale=0", "scale"),
        ("steer=action.continuous[0]&scale=x", "float"),
        ("steer=action.continuous[0]&scale=40", r"goes up to -?\d+.*beyond full lock, which is 1; name .* scale=0.01"),
        ("unit=deg", "knows no unit"),
        ("episodes=7", "has no episode 7; it has 3, from 0 to 2"),
        ("episodes=a", "not of the form"),
    ]:
        with pytest.raises(UserError, match=why):
            read(f"{folder}?{wrong}")
    # A name alone is not believed against the numbers.
    (record, *_) = read(driven(tmp_path / "far", ACTION * 400, NAMES))
    assert "steer" not in record.streams
    assert record.about["num_faults"] == 0


@pytest.mark.parametrize(
    ("named", "wanted"), [("1", [1]), ("0:2", [0, 1]), ("2,0", [0, 2]), ("1:", [1, 2]), (":1", [0])]
)
def test_episodes_are_chosen_by_number(named, wanted, tmp_path):
    records = read(f"{driven(tmp_path, ACTION, NAMES)}?episodes={named}")
    assert [record.about["episode"] for record in records] == wanted


@pytest.mark.parametrize("names", [NAMES, ["throttle", "gas", "steer"], None])
def test_a_frame_whose_action_is_no_number_is_left_out_alone(names, tmp_path):
    action = ACTION.copy()
    action[1, 20, 2] = np.nan
    records = read(driven(tmp_path, action, names, "action"))
    assert [len(record) for record in records] == [40, 39, 40]
    rows = np.delete(np.arange(40), 20)
    np.testing.assert_allclose(next(iter(records[1].streams.values())).time_s, rows / 10)
    for record in records:
        assert all(np.isfinite(stream.values).all() for stream in record.streams.values())
        assert record.about["num_faults"] == 1
        assert "episode 1, frame 20: not all of it is a number" in record.about["faults"][0]


def test_a_pause_of_the_wheel_ends_a_record_and_what_is_never_known_is_not_asked(tmp_path):
    action, place = ACTION.copy(), np.full((120, 2), np.nan, np.float32)
    action[0, 10:25, 2], action[1, :, 2], action[..., 0] = np.nan, np.nan, np.nan
    place[60:] = 48.1
    records = read(driven(tmp_path, action, ["throttle", "gas", "steer"], "action", **{"observation.gps": place}))
    assert [(record.name[-2:], len(record)) for record in records] == [("/0", 10), ("/1", 15), ("02", 40)]
    assert np.array_equal(records[1]["steer"].values, action[0, 25:, 2])
    assert records[1]["steer"].time_s[0] == 0
    assert records[0].about["num_faults"] == 55
    assert "wheel is never a number" in records[0].about["faults"][-1]


def test_action_is_split_only_by_names_that_are_known():
    spec = {"dtype": "float32", "shape": [2]}
    assert stream_names({"action": {**spec, "names": ["steer", "brake"]}}) == {"action": ["steer", "brake"]}
    for names in (["wheel", "brake"], ["steer"], ["steer", "steer"], {"motors": ["a", "b"]}, None):
        assert stream_names({"action": {**spec, "names": names}}) == {"action": ["action"]}


def test_names_that_meet_keep_their_whole_feature_name():
    spec = {"dtype": "float32", "shape": [1]}
    found = stream_names({"observation.speed": spec, "label.speed": spec})
    assert found == {"observation.speed": ["speed"], "label.speed": ["label.speed"]}
    assert "timestamp" in features({"steer": ("float32", ())})


# Damage


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"codebase_version": "v1.6"}, "convert it"),
        ({"codebase_version": "v2.1"}, r"episodes\.jsonl can't be read"),
        ({"codebase_version": "v2.1", "chunks_size": 0}, "chunks_size is 0"),
        ({"codebase_version": None}, "codebase_version"),
        ({"fps": 0}, "fps"),
        ({"fps": "50"}, "fps"),
        ({"features": {"a": {"dtype": "float32"}}}, "shape"),
        ({"features": {"b": {"dtype": "float32", "shape": [1]}}}, "no column b"),
        ({"data_path": "data/{nothing}.parquet"}, "nothing"),
        ({"data_path": "data/other.parquet"}, "other.parquet can't be read"),
    ],
)
def test_a_wrong_info_is_explained(change, why, tmp_path):
    record_up_to(tmp_path, 1)
    path = tmp_path / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=why):
        read(tmp_path)


def test_depth_is_left_out_and_is_never_the_picture(tmp_path):
    write_theirs(tmp_path, video=False)
    path = tmp_path / "meta/info.json"
    info = json.loads(path.read_text())
    depth = {"dtype": "image", "shape": [32, 48, 1], "names": None, "info": {"is_depth_map": True}}
    info["features"] = {"observation.images.depth": depth, **info["features"]}
    path.write_text(json.dumps(info))
    record = read(tmp_path)[0]
    assert record.about["features"]["picture"] == VIDEO
    assert record.about["skipped"] == ["instruction", "observation.images.depth"]
    info["features"] = {"instruction": {"dtype": "string", "shape": [1]}}
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match="no feature of numbers or pictures"):
        read(tmp_path)


def test_rows_missing_from_a_data_file_are_noticed(tmp_path):
    write_theirs(tmp_path, video=False)
    path = tmp_path / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).slice(3), path)
    left_out(tmp_path, 0, "4 rows of episode 0 where 7")


def use(folder: Path) -> None:
    for record in read(folder):
        for stream in record.streams.values():
            assert len(stream.values[:]) == len(record)


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> list[Path]:
    ours, images, video, older = (tmp_path_factory.mktemp(name) for name in ("ours", "images", "video", "older"))
    record_up_to(ours, 2)
    write_theirs(images, video=False)
    write_theirs(video, video=True)
    write_version_2(older, video=True)
    return [ours, images, video, older]


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_damaged_files_give_records_or_a_user_error(tmp_path_factory, originals, data):
    original = data.draw(st.sampled_from(originals))
    folder = tmp_path_factory.mktemp("damaged") / "set"
    shutil.copytree(original, folder)
    path = folder / data.draw(st.sampled_from(list(files(original))))
    content = bytearray(path.read_bytes())
    match data.draw(st.sampled_from(["cut", "flip", "noise", "gone"])):
        case "cut":
            content = content[: data.draw(st.integers(0, len(content)))]
        case "flip":
            for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
                content[place] ^= data.draw(st.integers(1, 255))
        case "noise":
            content = bytearray(data.draw(st.binary(max_size=200)))
        case "gone":
            path.unlink()
            content = None
    if content is not None:
        path.write_bytes(content)
    with suppress(UserError):
        use(folder)


KEYS = st.sampled_from(["fps", "features", "codebase_version", "data_path", "dtype", "shape", "names"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@FAST
@given(JSON, st.data())
def test_any_json_in_info_gives_records_or_a_user_error(originals, tmp_path_factory, value, data):
    folder = tmp_path_factory.mktemp("info") / "set"
    shutil.copytree(originals[0], folder)
    info = json.loads((folder / "meta/info.json").read_text())
    key = data.draw(st.sampled_from(["", *info]))
    (folder / "meta/info.json").write_text(json.dumps(info | {key: value} if key else value))
    with suppress(UserError):
        use(folder)
