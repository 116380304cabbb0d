"""What the scene's motion says of the wheel, where the wheel is the motion."""

import numpy as np
import pytest

from steersman.data.examples import Example
from steersman.recipes.steer.rivals import motion_rivals


def drive(seed: int, steps: int = 300) -> Example:
    """A scene that moves sideways by whole pixels, and the wheel that moved it, seen a step late."""
    rng = np.random.default_rng(seed)
    scene = np.kron(rng.integers(0, 256, (10, 120, 1)), np.ones((1, 4, 1))).astype(np.uint8)
    shifts = np.clip(np.round(3 * np.sin(np.arange(steps) / 9 + seed) + rng.normal(0, 0.4, steps)), -5, 5).astype(int)
    places = 200 + np.concatenate(([0], np.cumsum(shifts[:-1]))) % 40
    x = np.stack([scene[:, place : place + 48] for place in places])
    y = (np.concatenate(([0], shifts[:-1])) / 10).astype(np.float32)[:, None]
    return Example(f"drive-{seed}", x, y, np.arange(steps) / 10)


def test_ridge_and_boosting_find_the_wheel_in_the_motion():
    pytest.importorskip("sklearn")
    shown = [drive(9)]
    said = motion_rivals([drive(0), drive(1)], [drive(2)], shown, "picture")
    assert list(said) == ["ridge on motion", "boosting on motion"]
    for lines in said.values():
        assert np.corrcoef(lines[0], shown[0].y[:, 0])[0, 1] > 0.9
        assert np.sqrt(np.mean((lines[0] - shown[0].y[:, 0]) ** 2)) < 0.5 * shown[0].y.std()


def test_pictures_too_small_for_a_shift_have_no_such_rivals():
    small = [Example("a", np.zeros((20, 3, 5, 1), np.uint8), np.zeros((20, 1)), np.arange(20.0))]
    assert motion_rivals(small, small, small, "picture") == {}
