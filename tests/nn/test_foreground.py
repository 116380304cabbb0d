"""What stands before a background: how much, in people, wherever they stand."""

import numpy as np
import pytest
import torch

from steersman.errors import UserError
from steersman.nn.foreground import Foreground
from steersman.nn.pictures import Picture

SPEC = Foreground(pixels=Picture(200, 160), horizon=-0.25)
GROUND = np.random.default_rng(0).integers(60, 180, (200, 160, 3), np.uint8)


def film(*people, steps=9):
    """Noise, and in every third picture people: their feet's row, and their column."""
    pictures = GROUND + np.random.default_rng(1).normal(0, 2, (steps, 200, 160, 3))
    for feet, column in people:
        tall = round((feet + 50) * 0.4)
        pictures[::3, feet - tall : feet, column : column + tall // 3] = 255
    return np.clip(pictures, 0, 255).astype(np.uint8)


def encoder():
    made = SPEC.build((200, 160, 3))
    made.fit(film((120, 40)))
    return made


def people(made, pictures):
    with torch.no_grad():
        return made.people(torch.as_tensor(pictures[None]))[0, :, 0]


def test_the_background_is_the_median_of_what_it_learned_from():
    apart = np.abs(encoder().background.numpy() - GROUND)
    assert apart.mean() < 1.5
    assert apart.max() < 10


def test_a_person_counts_as_much_near_as_far():
    made = encoder()
    near, far = (people(made, film((feet, 20)))[0] for feet in (190, 70))
    assert near > 0.001
    assert far == pytest.approx(float(near), rel=0.12)
    both = people(made, film((190, 20), (70, 110)))[0]
    assert both == pytest.approx(float(near + far), rel=0.02)
    assert people(made, film())[1] < near / 20


def test_the_horizon_is_learned():
    made = encoder()
    made(torch.as_tensor(film((150, 30))[None]), ())[0].sum().backward()
    assert abs(made.depth.grad) > 0


def test_what_is_no_picture_is_refused():
    with pytest.raises(UserError, match="needs pictures"):
        SPEC.build((4,))
