"""How much stands before a background that does not move, counted in people: who stands further up is smaller."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from .cores import State
from .encoders import EncoderSpec
from .pictures import Picture, PictureEncoder

LOOKED_AT = 256
"""Pictures of the training data from which the background is taken."""


@dataclass(frozen=True)
class Foreground(EncoderSpec):
    """What differs from a camera's background, the median of the pictures it learned from, as one number a picture.

    Each pixel counts as much as it is of a person there: on flat ground heights and widths grow with the distance below
    a horizon, so it counts by one over that distance squared, and a whole person as much wherever they stand.
    """

    pixels: Picture = Picture(96, 128)
    threshold: float = 25.0
    """Difference from the background, of 255, from which a pixel counts as foreground."""
    horizon: float = -0.2
    """Where a person would have no height left, as a share of the picture's from its top; from here it is learned."""

    BOUNDS = {"threshold": (1, 255), "horizon": (-100, -0.01)}

    def build(self, raw: tuple[int, ...]) -> "ForegroundEncoder":
        if len(raw) != 3:
            raise UserError(f"Foreground needs pictures (height, width, channels), found steps of shape {raw}")
        return ForegroundEncoder(self, raw)


class ForegroundEncoder(PictureEncoder):
    background: Tensor
    rows: Tensor
    """Where each row lies, as a share of the height from the top."""

    def __init__(self, spec: Foreground, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.spec, self.past, self.size = raw, spec, 0, 1
        self.picture = spec.pixels.shape(raw)
        self.depth = nn.Parameter(torch.tensor(-spec.horizon).log())
        self.register_buffer("background", torch.full(self.picture, 120.0))
        self.register_buffer("rows", (torch.arange(self.picture[0]) + 0.5) / self.picture[0])
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("deviation", torch.ones(1))

    @torch.no_grad()
    def fit(self, x: Any) -> None:
        """Takes the background from training pictures (steps first), and how much usually stands before it."""
        seen = torch.as_tensor(x[:: max(1, len(x) // LOOKED_AT)])
        self.background.copy_(seen.float().median(0).values)
        super().fit(torch.cat([self.people(part[None])[0] for part in seen.split(32)]))

    def sizes(self) -> Float[Tensor, "row"]:
        """How large a person is at each row, 1 in the middle of the picture."""
        return ((self.rows + self.depth.exp()) / (0.5 + self.depth.exp())).square()

    def people(self, x: UInt8[Tensor, "batch time height width channel"]) -> Float[Tensor, "batch time 1"]:
        """The foreground over a person's size where it is, as a share of the picture's."""
        apart = (x.to(self.background.dtype) - self.background).abs().amax(-1)
        # A pixel's neighbours have a say: noise of the camera is no foreground.
        smooth = F.avg_pool2d(apart.flatten(0, 1)[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        rows = torch.sigmoid(smooth - self.spec.threshold).mean(2)
        return (rows / self.sizes()).mean(1).unflatten(0, x.shape[:2]).unsqueeze(2)

    def forward(
        self, x: UInt8[Tensor, "batch time height width channel"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        return self.normal(self.people(x)), state
