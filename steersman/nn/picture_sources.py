"""Encoders of pictures that are read as a source: what is said about them looks at their parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UserError
from .encoder_decoder import Memory, SourceEncoder, SourceEncoderSpec, Sources
from .pictures import Picture, check_layers, he, normal_pictures, picture_normaliser


@dataclass(frozen=True)
class Grid(SourceEncoderSpec):
    """Convolutions over each picture of a source; the cells of the last one's grid are steps (Xu et al. 2015).

    As it stands, a picture of 56x56 is a grid of 7x7. Several pictures, such as a film, are read one after the other.
    """

    stream: str = "picture"
    """Name of the pictures among the record's streams."""
    channels: tuple[int, ...] = (32, 64, 128)
    kernels: tuple[int, ...] = (5, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2)
    pixels: Picture = Picture(56, 56)
    """Preparation of a picture before the first convolution."""

    BOUNDS = dict.fromkeys(("channels", "kernels", "strides"), (1, inf))

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "GridEncoder":
        check_layers(self, shapes[self.stream])
        if even := [kernel for kernel in self.kernels if kernel % 2 == 0]:
            raise UserError(f"Grid: a kernel of {even[0]} has no middle; give odd ones")
        return GridEncoder(self, shapes[self.stream])

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.stream,)


class GridEncoder(SourceEncoder):
    """The cells of a picture exist where the picture does."""

    mean: Tensor
    deviation: Tensor

    MOST = 1000
    """Pictures that the normaliser is taken from."""

    def __init__(self, spec: Grid, raw: tuple[int, ...]):
        super().__init__()
        self.spec, self.sources = spec, (spec.stream,)
        height, width, depth = spec.pixels.shape(raw)
        picture_normaliser(self, depth)
        self.convolutions = nn.Sequential()
        for out, kernel, stride in zip(spec.channels, spec.kernels, spec.strides, strict=True):
            self.convolutions.append(he(nn.Conv2d(depth, out, kernel, stride, kernel // 2)))
            self.convolutions.append(nn.ReLU(inplace=True))
            height, width, depth = -(-height // stride), -(-width // stride), out
        self.size = self.summary = depth
        self.cells = height * width
        # A cell's feature says what is there; this, where it is.
        self.places = nn.Parameter(torch.randn(self.cells, depth) * 0.1)

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        return self.spec.pixels.prepare(raw)

    def fit(self, name: str, values: Sequence[np.ndarray]) -> None:
        chosen = values[:: max(1, len(values) // self.MOST)]
        taken = np.concatenate([v[:: max(1, len(v) * len(chosen) // self.MOST)] for v in chosen])
        pixels = torch.as_tensor(taken.reshape(-1, taken.shape[-1])).double()
        self.mean.copy_(pixels.mean(0))
        self.deviation.copy_(pixels.std(0, correction=0).clamp_min(1e-6))

    def forward(self, sources: Sources) -> Memory:
        """The summary is the mean of the cells."""
        pictures = (source := sources[self.spec.stream]).values
        rows, count = pictures.shape[:2]
        normal = normal_pictures(pictures, self.mean, self.deviation)
        y = self.convolutions(normal.flatten(0, 1).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2) + self.places
        mask = source.mask.repeat_interleave(self.cells, 1)
        values = torch.where(mask.unsqueeze(2), y.reshape(rows, count * self.cells, -1), 0.0)
        return Memory(values, mask, values.sum(1) / mask.sum(1, keepdim=True).clamp_min(1))
