"""Every reader on logs that are cut, flipped, emptied, linked away or absurd: faults are listed, or a UserError tells.

A log that a new reader takes is one line in LOGS.
"""

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_driving_logs import bag, comma2016, deeptesla, flipped, interpolated, mcap, segment
from test_folder import drive, filmed
from test_lerobot import write_theirs, write_version_2
from test_other_recorders import airsim, carla, openbot, rollout, sullychen
from test_sources import line, row, tub, udacity

from steersman.data.frames import Frames
from steersman.errors import UserError
from steersman.sources import options, read

LOGS: dict[str, Callable[[Path], object]] = {
    "lerobot v3": lambda path: write_theirs(path, video=True),
    "lerobot v2": lambda path: write_version_2(path, video=False),
    "donkeycar": lambda path: tub(path, [line(i) for i in range(8)]),
    "udacity_sim": lambda path: udacity(path, [row(i) for i in range(8)]),
    "udacity_ch2": lambda path: interpolated(path, 4),
    "deeptesla": lambda path: deeptesla(path, 8, 8),
    "comma2k19": lambda path: segment(path, video=True),
    "comma2016": lambda path: comma2016(path, 8, 8),
    "ros_bag": lambda path: bag(path / "a.bag", num=3),
    "mcap": lambda path: mcap(path / "a.mcap", "json", num=6),
    "sullychen": lambda path: sullychen(path, 8),
    "airsim": lambda path: (path.rmdir(), airsim(path, 8)),
    "rollouts": lambda path: rollout(path, 8),
    "carla": lambda path: carla(path, 2, 4),
    "openbot": lambda path: (path.rmdir(), openbot(path, 8)),
    "pictures": lambda path: drive(path, 8),
    "video": lambda path: filmed(path, num=8, frames=8),
}
NAMED = {"mcap": "?steer=/wheel.deg.0&scale=0.01"}
"""What a reader needs beside the folder."""
ABSURD = ("1e308", "-1e308", "nan", "inf", "", "[]", "9" * 400, "../../secret.jpg", "\\\\host\\x.jpg", "/dev/zero")


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of few bytes that decodes to many gigabytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(10**6))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name, write in LOGS.items():
        path = tmp_path_factory.mktemp("originals") / "log"
        path.mkdir()
        with suppress(pytest.skip.Exception):
            if name.startswith("lerobot"):
                path.rmdir()
            write(path)
            made[name] = path
    return made


def files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def use(path: Path, named: str = "") -> None:
    """Reads a log and some pictures; a UserError is fine, anything else is a bug."""
    with suppress(UserError):
        for record in read(f"{path}{named}"):
            json.dumps(record.about)
            assert record.about.get("num_faults", 0) >= len(record.about.get("faults", []))
            for stream in record.streams.values():
                assert len(stream.time_s) == len(stream.values)
                assert stream.values[:2].dtype.kind in "buif"


def changed(original: Path, folder: Path) -> Path:
    copy = folder / "log"
    shutil.copytree(original, copy)
    return copy


@pytest.mark.parametrize("name", LOGS)
def test_the_logs_are_read_when_whole(name, originals):
    if name not in originals:
        pytest.skip(f"what {name} needs is not installed")
    for record in read(f"{originals[name]}{NAMED.get(name, '')}"):
        assert record.about["num_faults"] == 0
        assert len(record["picture"].values[:]) == len(record["picture"])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", LOGS)
@given(st.data())
def test_cut_and_flipped_logs(name, originals, tmp_path_factory, data):
    if name not in originals:
        return
    path = changed(originals[name], tmp_path_factory.mktemp("broken"))
    file = data.draw(st.sampled_from(files(path)))
    content = file.read_bytes()
    match data.draw(st.sampled_from(["flip", "line", "absurd", "empty", "noise"])):
        case "line":  # Cut between two lines.
            lines = content.split(b"\n")
            content = b"\n".join(lines[: data.draw(st.integers(0, len(lines)))])
        case "absurd":  # Something else in place of a cell.
            lines = content.split(b"\n")
            place = data.draw(st.integers(0, len(lines) - 1))
            cells = lines[place].split(b",")
            cells[data.draw(st.integers(0, len(cells) - 1))] = data.draw(st.sampled_from(ABSURD)).encode()
            lines[place] = b",".join(cells)
            content = b"\n".join(lines)
        case "empty":
            content = b""
        case "noise":
            content = data.draw(st.binary(max_size=200))
        case _:
            content = flipped(content, data) if content else b""
    file.write_bytes(content)
    use(path, NAMED.get(name, ""))


@pytest.mark.parametrize("name", LOGS)
def test_files_that_link_out_of_a_log_are_never_read(name, originals, tmp_path):
    """Every file in turn is moved out and linked to, and every folder: nothing that was opened lies out there."""
    if name not in originals:
        pytest.skip(f"what {name} needs is not installed")
    opened: list[str] = []
    WATCHING.append(lambda path: opened.append(os.path.realpath(path)))
    try:
        kinds = {file.suffix + file.parent.name: file for file in files(originals[name])}.values()
        folders = {file.parent for file in kinds} - {originals[name]}
        for number, place in enumerate([*kinds, *folders]):
            case = tmp_path / str(number)
            path = changed(originals[name], case)
            secret = case / f"secret{place.suffix}"
            inside = path / place.relative_to(originals[name])
            shutil.move(inside, secret)
            inside.symlink_to(secret)
            opened.clear()
            use(path, NAMED.get(name, ""))
            found = [p for p in opened if p.startswith(str(secret))]
            assert not found, f"{place.relative_to(originals[name])} was followed to {found[0]}"
    finally:
        WATCHING.clear()


WATCHING: list[Callable[[str], object]] = []


def _opened(event: str, args: tuple) -> None:
    if event == "open" and WATCHING and isinstance(args[0], str | bytes | os.PathLike):
        WATCHING[0](os.fsdecode(args[0]))


sys.addaudithook(_opened)  # It can't be taken off again, and does nothing while nobody watches.


@pytest.mark.parametrize("name", ["donkeycar", "udacity_sim", "udacity_ch2", "pictures"])
@pytest.mark.parametrize("place", [0, 5])
def test_a_picture_that_is_a_bomb_is_refused_undecoded(name, place, originals, tmp_path):
    path = changed(originals[name], tmp_path)
    pictures = [file for file in files(path) if file.suffix == ".jpg" and file.parent.name not in ("left", "right")]
    picture = pictures[place % len(pictures)]
    # The whole of it would be ten gigabytes; its ends are those that a JPEG should have.
    picture.write_bytes(bomb())
    use(path)
    encoded = Frames([bomb()], (4, 4))
    with pytest.raises(UserError, match="can't be decoded"):
        encoded[0]


def test_options_of_any_form_are_read_or_refused():
    for text in ("log?", "log?a", "log?a=b&", "log?%zz=1", "log?steer=\0"):
        with suppress(UserError):
            assert isinstance(options(text), tuple)


def test_numbers_of_a_log_stay_within_what_float32_holds(tmp_path):
    for value in ABSURD:
        folder = tmp_path / str(abs(hash(value)))
        rows = [row(i) for i in range(30)]
        rows[3] = rows[3].replace("30.19", value.replace(",", ""))
        (record,) = read(udacity(folder, rows))
        assert np.isfinite(record["speed_mps"].values).all()
        assert record.about["num_faults"] == 1
