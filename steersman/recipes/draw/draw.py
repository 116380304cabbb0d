"""Recipe of pictures that are learned to be drawn."""

import zlib
from dataclasses import dataclass

import numpy as np

from ...nn.drawing import Canvas, DrawModel, Sketch, draw_model
from ...training.recipe import Shapes
from ..stills import Still


@dataclass(frozen=True, kw_only=True)
class Drawing(Still):
    """An encoder that reads with attention, a core of a kind for reading and for writing, and a canvas.

    Every pixel is made black or white once, white with the chance that is its grey, as Salakhutdinov & Murray 2008 did.
    """

    encoder: Sketch = Sketch()
    head: Canvas = Canvas()
    steps: int = 10
    binary_seed: int = 0
    """Seed of what is made white."""

    def build(self, raw: Shapes) -> DrawModel:
        assert isinstance(raw, tuple)
        return draw_model(self.encoder, self.core, self.head, raw)

    def shown(self, name: str, pictures: np.ndarray) -> np.ndarray:
        chance = np.random.default_rng((self.binary_seed, zlib.crc32(name.encode(errors="surrogateescape"))))
        threshold = chance.random(pictures.shape[1:], np.float32) * 255
        if pictures.strides[0]:
            return np.where(pictures > threshold, np.uint8(255), np.uint8(0))
        once = np.where(pictures[0] > threshold, np.uint8(255), np.uint8(0))
        return np.lib.stride_tricks.as_strided(once, pictures.shape, (0, *once.strides))
