"""The benchmarks tell what is wrong with what they are given, as the commands do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import BENCHMARKS, benchmark

from steersman.errors import UserError


@pytest.mark.parametrize(
    "given",
    [
        "by_hand.py --run nowhere",
        "chars.py scores nowhere",
        "chars.py race --text nowhere",
        "choices.py --data nowhere",
        "frames.py --log nowhere",
        "listen.py nowhere",
        "live.py same nowhere",
        "pictures.py --run nowhere",
        "searching.py --run nowhere --data nowhere",
        "translate.py --data nowhere --test nowhere nowhere",
        "watching.py --data nowhere",
    ],
)
def test_what_is_not_there_ends_in_a_message(given: str, tmp_path: Path) -> None:
    name, *rest = given.split()
    ended = subprocess.run([sys.executable, BENCHMARKS / name, *rest], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "nowhere" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not any(tmp_path.iterdir())


def test_a_camera_beside_the_car_sees_the_road_moved_and_leaves_the_world_as_it_is():
    pytest.importorskip("gymnasium")
    side_cameras = benchmark("side_cameras")
    world = side_cameras.CarRacing().build()
    picture, _ = world.reset(seed=3)
    for _ in range(60):  # Until it has zoomed in.
        picture, *_ = world.step(np.zeros(3, np.float32))

    def road(seen: np.ndarray) -> float:
        """The middle column of the grey pixels of a row ahead of the car."""
        row = seen[40].astype(int)
        return float(np.flatnonzero(np.ptp(row, 1) < 8).mean())

    left, right = (side_cameras.beside(world, metres) for metres in (2.0, -2.0))
    assert road(left) > road(picture) + 1 > road(right) + 2
    np.testing.assert_array_equal(side_cameras.beside(world, 0.0), picture)


def test_warping_of_time_is_that_of_the_recursion():
    listen, rng = benchmark("listen"), np.random.default_rng(0)
    line, others = rng.normal(size=(6, 3)), [rng.normal(size=(n, 3)) for n in (4, 9)]
    held = np.stack([np.pad(other, ((0, 9 - len(other)), (0, 0))) for other in others])
    found = listen._warped(line, held, np.array([3, 8]))
    for other, least in zip(others, found, strict=True):
        best = np.full((len(line) + 1, len(other) + 1), np.inf)
        best[0, 0] = 0
        for i, a in enumerate(line):
            for j, b in enumerate(other):
                before = min(best[i, j], best[i, j + 1], best[i + 1, j])
                best[i + 1, j + 1] = np.linalg.norm(a - b) + before
        assert least == pytest.approx(best[-1, -1] / (len(line) + len(other)))


def test_without_the_package_of_the_archive_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "aeon", None)
    with pytest.raises(UserError, match=r"pip install '\.\[peers\]'"):
        benchmark("archive").shipped()
