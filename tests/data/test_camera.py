"""Faults of a camera: what each does to a picture, and that an episode of them is a pure function of its seed."""

import itertools

import numpy as np
import pytest

from steersman.data.camera import Camera, CameraFaults, blurred, disturbed, exposure, moved
from steersman.data.records import Record, Stream
from steersman.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


def seen(faults, steps=20, seed=3):
    camera = Camera(faults, np.random.default_rng(seed), steps)
    return np.stack([camera.see(PICTURE + np.uint8(step), step) for step in range(steps)])


def test_without_faults_a_picture_is_itself():
    assert all((picture == PICTURE + np.uint8(step)).all() for step, picture in enumerate(seen(CameraFaults())))


@pytest.mark.parametrize(
    "faults", [{"noise": 9}, {"light": 0.7}, {"drift": 0.4}, {"blur": 1}, {"shake": 2}, {"drop": 0.5}]
)
def test_an_episode_is_a_pure_function_of_its_seed(faults):
    first, again, other = (seen(CameraFaults(**faults), seed=seed) for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != seen(CameraFaults())).any()
    assert (first != other).any() or not {"noise", "drift", "shake", "drop"} & set(faults)


def test_noise_has_its_standard_deviation_and_differs_from_picture_to_picture():
    grey = np.full((84, 96, 3), 128, np.uint8)
    camera = Camera(CameraFaults(noise=10), np.random.default_rng(0), 2)
    one, two = (camera.see(grey, step).astype(float) - 128 for step in range(2))
    assert abs(one.mean()) < 0.3
    assert abs(one.std() - 10) < 0.2
    assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < 0.03


def test_light_contrast_and_gamma_are_the_curves_they_say():
    levels = np.arange(256) / 255
    for (gain, contrast, gamma), want in (
        ((0.5, 1, 1), levels / 2),
        ((2, 1, 1), np.minimum(1, 2 * levels)),
        ((1, 1, 1.6), levels**1.6),
        ((1, 0.5, 1), (levels - 0.5) / 2 + 0.5),
    ):
        assert np.abs(exposure(gain, contrast, gamma) - 255 * want).max() < 0.501


def test_a_lost_picture_is_the_one_before():
    kept = seen(CameraFaults(drop=0.5), 200)
    repeats = [(a == b).all() for a, b in itertools.pairwise(kept)]
    assert 0.4 < np.mean(repeats) < 0.6


def test_a_move_and_a_blur_are_what_scipy_makes_of_them():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is the reference")
    assert (moved(PICTURE, 2, -3, 0) == ndimage.shift(PICTURE, (2, -3, 0), order=0, mode="nearest")).all()
    want = ndimage.gaussian_filter(PICTURE.astype(float), (1.2, 1.2, 0), mode="nearest", radius=(3, 3, 0))
    assert np.abs(blurred(PICTURE, 1.2) - want).max() <= 0.51


def test_a_strength_out_of_range_is_refused():
    with pytest.raises(UserError, match="CameraFaults: noise must be from 0"):
        CameraFaults(noise=-1)


def test_a_record_is_spoiled_as_an_episode_is_whatever_part_is_asked_for():
    pictures = np.stack([PICTURE + np.uint8(step) for step in range(30)])
    faults = CameraFaults(noise=5, shake=1, drop=0.4, light=0.8)
    record = Record("a", {"picture": Stream(pictures, np.arange(30.0)), "y": Stream(np.zeros(30), np.arange(30.0))})
    (spoiled,) = disturbed([record], "picture", faults)
    whole = np.asarray(spoiled["picture"].values)
    camera = Camera(faults, np.random.default_rng((0, 2)), 30)
    assert (whole == np.stack([camera.see(picture, step) for step, picture in enumerate(pictures)])).all()
    assert (spoiled["picture"].values[7] == whole[7]).all()
    assert (spoiled["picture"].values[[9, 3]] == whole[[9, 3]]).all()
    with pytest.raises(UserError, match="holds no pictures in 'y'"):
        disturbed([record], "y", faults)
