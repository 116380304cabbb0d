"""Encoders of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..errors import UserError
from .cores import State
from .encoders import Encoder, EncoderSpec


@dataclass(frozen=True)
class Picture(Spec):
    """Crop, then resize by area."""

    height: int = 66
    width: int = 200
    top: float = 0.0
    """Share of the picture cut away above."""
    bottom: float = 0.0
    """Share of the picture cut away below."""

    BOUNDS = {"height": (1, inf), "width": (1, inf), "top": (0, 1), "bottom": (0, 1)}

    def shape(self, raw: Sequence[int]) -> tuple[int, ...]:
        if round(self.top * raw[0]) >= raw[0] - round(self.bottom * raw[0]):
            raise UserError(f"Picture: top {self.top} and bottom {self.bottom} leave nothing of the picture")
        return (self.height, self.width, raw[-1])

    def prepare(self, frames: UInt8[Tensor, "n h w c"]) -> UInt8[Tensor, "n height width c"]:
        height = frames.shape[1]
        rows = frames[:, round(self.top * height) : height - round(self.bottom * height)]
        planes = rows.permute(0, 3, 1, 2).float()
        small = F.interpolate(planes, size=(self.height, self.width), mode="area")
        return small.round().to(torch.uint8).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class RoadTexture(Spec):
    """CarRacing at half size in two channels: green, and red with the tiles' faint texture amplified.

    The road's tiles differ by two or three steps of red; how they pass by is all that shows the speed.
    """

    def shape(self, raw: Sequence[int]) -> tuple[int, ...]:
        return (raw[0] // 2, raw[1] // 2, 2)

    def prepare(self, frames: UInt8[Tensor, "n h w 3"]) -> UInt8[Tensor, "n h//2 w//2 2"]:
        n, h, w, _ = frames.shape
        small = frames[:, : h // 2 * 2, : w // 2 * 2, :2].reshape(n, h // 2, 2, w // 2, 2, 2).float().mean((2, 4))
        red, green = small[..., 0], small[..., 1]
        texture = ((red - 102) * 12 + 90).clamp(0, 255)
        return torch.stack((green, texture), -1).round().to(torch.uint8)


@dataclass(frozen=True)
class Texture(Spec):
    """A picture at half size in its colours, and a channel of what is finer than its surroundings, amplified.

    What `RoadTexture` sees in CarRacing's own colours, in any colours and any light.
    """

    gain: float = 12.0
    """Factor of the difference from the mean of the 5 x 5 pixels around."""

    BOUNDS = {"gain": (0, inf)}

    def shape(self, raw: Sequence[int]) -> tuple[int, ...]:
        return (raw[0] // 2, raw[1] // 2, 4)

    def prepare(self, frames: UInt8[Tensor, "n h w 3"]) -> UInt8[Tensor, "n h//2 w//2 4"]:
        """Sums of whole numbers are exact in whatever order; each is scaled once."""
        n, h, w, _ = frames.shape
        small = frames[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, 3).float().sum((2, 4))
        grey = small.sum(-1)
        wide = F.pad(grey[:, None], (2, 2, 2, 2), mode="replicate")
        around = F.avg_pool2d(wide, 5, stride=1, divisor_override=1)[:, 0]
        fine = ((25 * grey - around) * self.scale + 128).clamp(0, 255)
        return torch.cat((small / 4, fine[..., None]), -1).round().to(torch.uint8)

    @property
    def scale(self) -> float:
        """Gain of the sum of 25 times 12 numbers."""
        return float(np.float32(self.gain / 300))


@dataclass(frozen=True)
class Motion(Spec):
    """How far the scene moved sideways since the picture before, in bands of rows: how the camera turns.

    Nothing is learned: of each band's mean row the shift of least squared difference is taken, softly.
    """

    furthest: int = 10
    """Furthest shift that is looked for, in pixels of the prepared picture."""
    rows: int = 5
    """Rows of the picture in a band."""
    sharpness: float = 8.0
    """How much likelier the better shift is."""

    BOUNDS = {**dict.fromkeys(("furthest", "rows"), (1, inf)), "sharpness": (0, inf)}
    UNIT: ClassVar[float] = 2.5
    """Pixels that count as 1, so that usual turns are about as large as other features."""

    def size(self, picture: Sequence[int]) -> int:
        """Features it gives for a picture. UserError where the picture is too small to look for a shift."""
        if picture[0] < self.rows:
            raise UserError(f"Motion: a picture of {picture[0]} rows has no band of {self.rows}; lower rows")
        return picture[0] // self.rows

    @torch.no_grad()
    def shifts(
        self, line: UInt8[Tensor, "batch past_and_time height width channel"], time: int
    ) -> Float[Tensor, "batch time feature"]:
        """Shifts to the left of the last `time` pictures of a line, which has at least one more."""
        bands = line.shape[2] // self.rows
        near = line[:, -time - 1 :, : bands * self.rows]
        profile = near.float().mean(-1).unflatten(2, (bands, self.rows)).mean(3)
        profile = profile - profile.mean(-1, keepdim=True)
        profile = profile / (profile.square().mean(-1, keepdim=True).sqrt() + 3)  # Another exposure changes nothing.
        width = profile.shape[-1]
        reach = min(self.furthest, (width - 1) // 4)
        before, middle = profile[:, :-1], profile[:, 1:, :, reach : width - reach]
        scores = [-(before[..., d : d + middle.shape[-1]] - middle).square().mean(-1) for d in range(2 * reach + 1)]
        chance = torch.softmax(torch.stack(scores, -1) * self.sharpness, -1)
        return chance @ torch.arange(-reach, reach + 1, device=line.device).float() / self.UNIT


@dataclass(frozen=True)
class Conv(EncoderSpec):
    """Convolutions over each picture, then one dense layer (Bojarski et al. 2016, figure 4)."""

    channels: tuple[int, ...] = (24, 36, 48, 64, 64)
    kernels: tuple[int, ...] = (5, 5, 5, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2, 1, 1)
    features: int = 128
    """Units of the dense layer."""
    frames: int = 1
    """Pictures stacked into one input, this one and those before it."""
    dropout: float = 0.0
    """Share of the dense layer's units dropped while training."""
    pixels: Picture | RoadTexture | Texture = Picture()
    """Preparation of a picture before the first convolution."""
    differences: bool = False
    """Whether only what changes from each stacked picture to the next is seen: the flow, not the scene."""
    motion: Motion | None = None
    """Motion of the scene as further features, beside those of the dense layer; None: without."""

    BOUNDS = {
        **dict.fromkeys(("channels", "kernels", "strides", "features", "frames"), (1, inf)),
        "dropout": (0, 1),
    }

    def build(self, raw: tuple[int, ...]) -> "ConvEncoder":
        check_layers(self, raw)
        if self.differences and self.frames == 1:
            raise UserError("Conv: differences need at least 2 frames; set --encoder.frames")
        return ConvEncoder(self, raw)


class PictureEncoder(Encoder):
    """One that sees a prepared picture and maybe some before it, which are its state."""

    spec: Any
    picture: tuple[int, ...]
    past: int
    """Pictures it remembers."""

    def prepare(self, raw: UInt8[Tensor, "n h w c"]) -> UInt8[Tensor, "n height width channel"]:
        return self.spec.pixels.prepare(raw)

    def initial(self, batch: int) -> State:
        """The pictures before the first: black ones."""
        return () if self.past == 0 else (_black(self, batch, self.past),)


class ConvEncoder(PictureEncoder):
    def __init__(self, spec: Conv, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.spec = raw, spec
        self.picture = spec.pixels.shape(raw)
        self.size = spec.features + (spec.motion.size(self.picture) if spec.motion else 0)
        self.past = max(spec.frames - 1, 1 if spec.motion else 0)
        channels = self.picture[-1]
        picture_normaliser(self, channels)
        flat, layers = _layers(spec, self.picture, channels * (spec.frames - spec.differences))
        self.convolutions = nn.Sequential()
        for before, out, kernel, stride in layers:
            self.convolutions.append(he(nn.Conv2d(before, out, kernel, stride)))
            self.convolutions.append(nn.ReLU(inplace=True))
        self.dense = nn.Linear(flat, spec.features)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(
        self, x: UInt8[Tensor, "batch time height width channel"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        batch, time = x.shape[:2]
        line = torch.cat((state[0], x), 1) if state else x
        # Under autocast the pictures are made small before they are stacked, not after.
        kind = self.mean.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.mean.dtype
        normal = normal_pictures(line, self.mean, self.deviation).to(dtype)
        seen = [normal[:, i : i + time] for i in range(self.past - self.spec.frames + 1, self.past + 1)]
        if self.spec.differences:
            seen = [b - a for a, b in pairwise(seen)]
        stacked = seen[0] if len(seen) == 1 else torch.cat(seen, -1)
        # A picture lies in memory with its channels last; permuted, it is what channels_last kernels want.
        y = self.convolutions(stacked.flatten(0, 1).permute(0, 3, 1, 2)).flatten(1)
        y = self.dropout(torch.relu(self.dense(y))).unflatten(0, (batch, time))
        if self.spec.motion:
            y = torch.cat((y, self.spec.motion.shifts(line, time).to(y.dtype)), -1)
        return y, (line[:, time:],) if state else ()


@dataclass(frozen=True)
class Conv3d(EncoderSpec):
    """Convolutions over pictures and the steps before them at once, then one dense layer; causal."""

    channels: tuple[int, ...] = (24, 32, 48)
    kernels: tuple[int, ...] = (5, 3, 3)
    strides: tuple[int, ...] = (2, 2, 2)
    times: int = 3
    """Steps that each convolution looks at: this one and those before it."""
    features: int = 128
    """Units of the dense layer."""
    dropout: float = 0.0
    """Share of the dense layer's units dropped while training."""
    pixels: Picture | RoadTexture | Texture = Picture()
    """Preparation of a picture before the first convolution."""

    BOUNDS = {
        **dict.fromkeys(("channels", "kernels", "strides", "times", "features"), (1, inf)),
        "dropout": (0, 1),
    }

    def build(self, raw: tuple[int, ...]) -> "Conv3dEncoder":
        check_layers(self, raw)
        return Conv3dEncoder(self, raw)


class Conv3dEncoder(PictureEncoder):
    def __init__(self, spec: Conv3d, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.size, self.spec = raw, spec.features, spec
        self.picture = spec.pixels.shape(raw)
        self.past = (spec.times - 1) * len(spec.channels)
        picture_normaliser(self, self.picture[-1])
        flat, layers = _layers(spec, self.picture, self.picture[-1])
        self.convolutions = nn.Sequential()
        for before, out, kernel, stride in layers:
            size = (spec.times, kernel, kernel)
            self.convolutions.append(he(nn.Conv3d(before, out, size, (1, stride, stride))))
            self.convolutions.append(nn.ReLU(inplace=True))
        self.dense = nn.Linear(flat, spec.features)
        self.dropout = nn.Dropout(spec.dropout)

    def forward(
        self, x: UInt8[Tensor, "batch time height width channel"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        time = x.shape[1]
        line = torch.cat((state[0], x), 1) if state else x
        normal = normal_pictures(line, self.mean, self.deviation).permute(0, 4, 1, 2, 3)
        y = self.convolutions(normal).transpose(1, 2).flatten(2)
        return self.dropout(torch.relu(self.dense(y))), (line[:, time:],) if state else ()


def check_layers(spec: Any, raw: tuple[int, ...]) -> None:
    """Raises UserError where the layers are not told alike, or the steps are not pictures."""
    name = type(spec).__name__
    if not len(spec.channels) == len(spec.kernels) == len(spec.strides):
        raise UserError(
            f"{name}: {len(spec.channels)} channels, {len(spec.kernels)} kernels and "
            f"{len(spec.strides)} strides; give as many of each, one a layer"
        )
    if len(raw) != 3:
        raise UserError(f"{name} needs pictures (height, width, channels), found steps of shape {raw}")


def _layers(spec: Conv | Conv3d, picture: Sequence[int], depth: int) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Numbers that the last layer gives, and each layer's depth, channels, kernel and stride."""
    (height, width), layers = picture[:2], []
    for out, kernel, stride in zip(spec.channels, spec.kernels, spec.strides, strict=True):
        layers.append((depth, out, kernel, stride))
        height, width, depth = (height - kernel) // stride + 1, (width - kernel) // stride + 1, out
        if height < 1 or width < 1:
            raise UserError(
                f"{type(spec).__name__}: a picture of {tuple(picture)} is too small for kernels {spec.kernels}"
            )
    return height * width * depth, layers


def he(layer: nn.Conv2d | nn.Conv3d) -> nn.Module:
    """The layer with weights that suit rectified units (He et al. 2015)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def normal_pictures(
    x: UInt8[Tensor, "*picture height width channel"],
    mean: Float[Tensor, "channel"],
    deviation: Float[Tensor, "channel"],
) -> Float[Tensor, "*picture height width channel"]:
    """Pixels less their mean, over their deviation: a whole row at once, for two or three channels are no long loop."""
    width = x.shape[-2]
    rows = x.to(mean.dtype, copy=True).flatten(-2)
    return rows.sub_(mean.repeat(width)).div_(deviation.repeat(width)).unflatten(-1, (width, -1))


def picture_normaliser(encoder: nn.Module, channels: int) -> None:
    """Usual mean and deviation of pixels, until it is fitted."""
    encoder.register_buffer("mean", torch.full((channels,), 120.0))
    encoder.register_buffer("deviation", torch.full((channels,), 50.0))


def _black(encoder: "PictureEncoder", batch: int, past: int) -> Tensor:
    return torch.zeros((batch, past, *encoder.picture), dtype=torch.uint8, device=encoder.mean.device)
