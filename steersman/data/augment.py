"""Augmentation: a stretch of a record changed anew in every pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from ..config import Spec


class Augment(Spec):
    """Changes a stretch of a record; the generator is seeded alike for every stretch of one pass.

    Of whole records that have one answer it may change the number of steps.
    """

    def apply(
        self, x: np.ndarray, y: np.ndarray, targets: Sequence[str], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError(f"{type(self).__name__} changes nothing")


@dataclass(frozen=True)
class Mirror(Augment):
    """Left and right exchanged: half of all passes over a drive are driven in its mirror image."""

    negate: tuple[str, ...] = ("steer",)
    """Targets that change their sign."""
    share: float = 0.5
    """Share of the passes that are changed."""

    BOUNDS = {"share": (0, 1)}

    def apply(self, x, y, targets, rng):
        if rng.random() >= self.share:
            return x, y
        sign = np.array([-1.0 if t in self.negate else 1.0 for t in targets], np.float32)
        return x[:, :, ::-1], y * sign


@dataclass(frozen=True)
class Light(Augment):
    """Another exposure: every pass over a drive has a brightness and a contrast of its own."""

    contrast: float = 0.4
    """Largest change of the contrast, as a share."""
    brightness: float = 40.0
    """Largest change of the brightness, of 255."""

    BOUNDS = {"contrast": (0, 1), "brightness": (0, 255)}

    def apply(self, x, y, targets, rng):
        gain, lift = 1 + self.contrast * rng.uniform(-1, 1), self.brightness * rng.uniform(-1, 1)
        exposed = np.clip((np.arange(256) - 128) * gain + 128 + lift, 0, 255).round().astype(np.uint8)
        return exposed[x], y


@dataclass(frozen=True)
class Shift(Augment):
    """Another mounting of the camera: every pass over a drive sees its pictures moved by a few pixels."""

    pixels: int = 3
    """Furthest move of the prepared picture, up or down and to a side; the edge is repeated."""

    BOUNDS = {"pixels": (0, inf)}

    def apply(self, x, y, targets, rng):
        down, right = rng.integers(-self.pixels, self.pixels, 2, endpoint=True)
        rows = np.clip(np.arange(x.shape[1]) - down, 0, x.shape[1] - 1)
        columns = np.clip(np.arange(x.shape[2]) - right, 0, x.shape[2] - 1)
        return x[:, rows][:, :, columns], y


@dataclass(frozen=True)
class Shadow(Augment):
    """A shadow across the picture: in half of all passes what lies on one side of a slanting line is darker."""

    darkest: float = 0.6
    """Largest share of the light that is taken away."""
    share: float = 0.5
    """Share of the passes that are changed."""

    BOUNDS = {"darkest": (0, 1), "share": (0, 1)}

    def apply(self, x, y, targets, rng):
        if rng.random() >= self.share:
            return x, y
        height, width = x.shape[1:3]
        above, below = rng.uniform(0, width, 2)
        edge = above + (below - above) * np.arange(height) / max(1, height - 1)
        dark = (np.arange(width) < edge[:, None]) == (rng.random() < 0.5)
        light = np.where(dark, 1 - self.darkest * rng.random(), 1.0).astype(np.float32)
        return (x * light[..., None]).astype(np.uint8), y


@dataclass(frozen=True)
class Unmeasured(Augment):
    """Numbers that were not measured: each is missing (NaN) in so large a share of all passes over a record."""

    share: float = 0.1
    """Share of the passes in which a number is missing throughout."""

    BOUNDS = {"share": (0, 1)}

    def apply(self, x, y, targets, rng):
        return np.where(rng.random(x.shape[-1]) < self.share, np.float32(np.nan), x), y
