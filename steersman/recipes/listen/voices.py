"""Augmentation of sounds: other voices, other rooms."""

from dataclasses import dataclass
from math import inf

import numpy as np

from ...data.augment import Augment


@dataclass(frozen=True)
class Voices(Augment):
    """Another voice in another room, in every pass: faster or slower, louder or softer, later, with noise.

    Faster by resampling is higher, too, as with a tape (Ko et al. 2015).
    """

    speed: float = 0.2
    """Largest share by which it is faster or slower."""
    gain_db: float = 15.0
    """Most by which it is louder or softer."""
    noise_db: tuple[float, float] = (5.0, 35.0)
    """Least and most by which the sound stands above white noise."""
    shift: int = 6
    """Most steps of silence before and after."""
    tilt: float = 0.0
    """Largest share of each sample that is added to the next, or taken from it: low frequencies are stronger, or high
    ones, as microphones differ."""

    BOUNDS = {"speed": (0, 0.9), "gain_db": (0, 60), "shift": (0, inf), "tilt": (0, 1)}

    def apply(self, x, y, targets, rng):
        length, sound = x.shape[1], x.reshape(-1)
        places = np.arange(0, len(sound) - 1, 1 + self.speed * rng.uniform(-1, 1))
        sound = np.interp(places, np.arange(len(sound)), sound)
        sound[1:] += self.tilt * rng.uniform(-1, 1) * sound[:-1]
        before, after = rng.integers(0, self.shift * length, 2, endpoint=True).tolist()
        sound = np.concatenate((np.zeros(before), sound, np.zeros(after + -(before + len(sound) + after) % length)))
        noise = rng.standard_normal(len(sound), np.float32)
        noise *= np.sqrt(np.square(sound).mean()) * 10 ** (-rng.uniform(*self.noise_db) / 20)
        sound = (sound + noise) * 10 ** (self.gain_db * rng.uniform(-1, 1) / 20)
        return sound.astype(np.float32).reshape(-1, length), y
