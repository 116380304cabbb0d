"""Ridge regression finds what is linear in the pixels, is not misled by what is not, and is the textbook's."""

import numpy as np
import pytest

from steersman.data.examples import Example
from steersman.evaluation.ridge import PENALTIES, ridge


def example(seed: int, length: int = 200, shape: tuple[int, ...] = (24, 32, 3), noise: float = 0.0) -> Example:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (length, *shape)).astype(np.uint8)
    left = x[:, :, : shape[1] // 2].mean((1, 2, 3)) / 255
    y = np.stack([3 * left + 0.7 + noise * rng.standard_normal(length), np.full(length, 9.0)], -1)
    return Example(f"e{seed}", x, y.astype(np.float32), np.arange(length) / 20)


def test_what_is_linear_in_the_pixels_is_found_in_records_never_seen():
    train = [example(seed) for seed in range(8)]
    test = [example(90), example(91, 30)]
    found = ridge(train, [example(50)], test)
    assert [len(part) for part in found] == [200, 30]
    for said, shown in zip(found, test, strict=True):
        error = np.sqrt(np.mean((said - shown.y[:, 0]) ** 2))
        assert error < 0.2 * shown.y[:, 0].std()


def test_a_target_that_is_noise_is_answered_with_its_mean():
    rng = np.random.default_rng(0)
    parts = [example(seed, 60) for seed in range(3)]
    parts = [Example(e.name, e.x, rng.standard_normal((60, 1)).astype(np.float32) + 5, e.time_s) for e in parts]
    (said,) = ridge(parts[:1], parts[1:2], parts[2:])
    assert said.std() < 0.7
    assert said.mean() == pytest.approx(5, abs=0.5)


def test_numbers_give_what_the_normal_equations_give():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 4)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5, 0.0] + rng.standard_normal(300) * 0.1)[:, None].astype(np.float32)
    parts = [Example("e", x[a:b], y[a:b], np.arange(b - a) / 20) for a, b in ((0, 200), (200, 250), (250, 300))]
    (said,) = ridge(parts[:1], parts[1:2], parts[2:])
    centred, answers = x[:200] - x[:200].mean(0), y[:200, 0] - y[:200].mean()
    candidates = []
    for penalty in PENALTIES:
        size = penalty * np.trace(centred.T @ centred) / 4
        weights = np.linalg.solve(centred.T @ centred + size * np.eye(4), centred.T @ answers)
        guess = (x[200:] - x[:200].mean(0)) @ weights + y[:200].mean()
        candidates.append((np.mean((guess[:50] - y[200:250, 0]) ** 2), guess[50:]))
    np.testing.assert_allclose(said, min(candidates, key=lambda pair: pair[0])[1], atol=1e-4)


def test_a_camera_that_never_changes_is_no_trouble():
    still = [Example("e", np.full((20, 24, 32, 3), 7, np.uint8), np.ones((20, 1), np.float32), np.arange(20) / 20)]
    np.testing.assert_allclose(ridge(still, still, still)[0], 1)
