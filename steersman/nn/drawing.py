"""Pictures drawn step by step: a variational autoencoder that reads and writes with attention.

DRAW, of Gregor et al. 2015 (arXiv 1502.04623): at every step an encoder reads the picture and what is still wrong with
the canvas, a few numbers are drawn from what it says, and a decoder adds to the canvas. Attention is a grid of
Gaussians; to read and to write is two batched products each. The loss, in nats, bounds the negative log-likelihood:
the Kullback-Leibler divergence of every step's code from a standard normal, and that of the pixels at the last step.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.batches import Batch
from ..data.examples import Example
from ..data.inputs import blank
from ..errors import UserError
from .cores import Core, CoreSpec, State, reset
from .encoders import Encoder, EncoderSpec
from .heads import Head, HeadSpec
from .model import Model

LEAST = 0.005
"""Least chance of a pixel before anything is drawn."""
FAINT = -30.0
"""Least logarithm of a Gaussian beside its middle."""


def filters(
    parameters: Float[Tensor, "batch 5"], grid: int, height: int, width: int
) -> tuple[Float[Tensor, "batch grid height"], Float[Tensor, "batch grid width"], Float[Tensor, "batch 1"]]:
    """Rows of Gaussians over rows and over columns of a picture, and the intensity.

    Parameters: centre (column, row), log variance, log stride, log intensity (equations 19 to 26).
    """
    column, row, log_variance, log_stride, log_intensity = parameters.unsqueeze(-1).unbind(1)
    stride = (max(height, width) - 1) / max(grid - 1, 1) * log_stride.exp()
    offsets = (torch.arange(grid, device=parameters.device) - (grid - 1) / 2) * stride
    precision = (-log_variance).exp().unsqueeze(-1) / 2

    def over(centre: Tensor, size: int) -> Tensor:
        middle = (size + 1) / 2 * (centre + 1) - 1 + offsets
        at = torch.arange(size, device=parameters.device) - middle.unsqueeze(-1)
        # Far away a Gaussian is as good as nothing; kept from numbers so small that products of them are slow.
        weights = (-at.square() * precision).clamp_min(FAINT).exp()
        return weights / weights.sum(-1, keepdim=True).clamp_min(1e-8)

    return over(row, height), over(column, width), log_intensity.exp()


@dataclass(frozen=True)
class Sketch(EncoderSpec):
    """How a picture is read and its copy written."""

    read: int = 5
    """Rows and columns of the grid of Gaussians that reads; 0: the whole picture is read, without attention."""
    write: int = 5
    """Rows and columns of the grid that writes; 0: the whole canvas is written at once."""
    latent: int = 10
    """Numbers of the code of a step."""

    BOUNDS = {"read": (0, 64), "write": (0, 64), "latent": (1, inf)}

    def build(self, raw: tuple[int, ...]) -> "SketchEncoder":
        if len(raw) != 2:
            raise UserError(f"Sketch takes a grey picture (row column) a step, found steps of shape {raw}")
        return SketchEncoder(self, raw)


class SketchEncoder(Encoder):
    blank: Tensor
    """Logit of each pixel's mean in the training pictures: the canvas before the first step."""

    def __init__(self, spec: Sketch, raw: tuple[int, ...]):
        super().__init__()
        self.spec, self.raw = spec, raw
        self.size = 2 * (spec.read**2 or raw[0] * raw[1])
        self.register_buffer("blank", torch.zeros(raw[0] * raw[1]))

    def fit(self, x: np.ndarray) -> None:
        """Takes the mean of training pictures (steps first)."""
        mean = self.light(torch.as_tensor(x.mean(0)))
        self.blank.copy_(torch.logit(mean.flatten().clamp(LEAST, 1 - LEAST)))

    def light(self, x: Tensor) -> Float[Tensor, "*batch height width"]:
        """A picture from 0 to 1."""
        return x / 255

    def see(
        self,
        picture: Float[Tensor, "batch height width"],
        wrong: Float[Tensor, "batch height width"],
        parameters: Float[Tensor, "batch 5"] | None,
    ) -> Float[Tensor, "batch feature"]:
        """What is read of a picture and of what is wrong with its copy."""
        if parameters is None:
            return torch.cat((picture.flatten(1), wrong.flatten(1)), 1)
        grid = self.spec.read
        rows, columns, intensity = filters(parameters, grid, *self.raw)
        seen = torch.bmm(rows, torch.cat((picture, wrong), 2)).view(len(picture), 2 * grid, -1)
        return torch.bmm(seen, columns.transpose(1, 2)).flatten(1) * intensity


@dataclass(frozen=True)
class Canvas(HeadSpec):
    """Pixels that are each black or white, by binary cross-entropy summed over a picture (nats)."""

    targets: ClassVar[tuple[str, ...]] = ()  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self, features: int, sizes: Sequence[int] = ()) -> "CanvasHead":
        """The head of a canvas of so many pixels."""
        return CanvasHead(features)


class CanvasHead(Head):
    """Raw outputs are a canvas of logits, and the step's share of the divergence behind them."""

    streams = ()

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels, self.targets = pixels, tuple(f"pixel[{i}]" for i in range(pixels))

    def loss(self, raw: Float[Tensor, "*batch out"], y: Float[Tensor, "*batch pixel"]) -> Float[Tensor, "*batch"]:
        """Nats of the pixels, without the divergence."""
        logits = raw[..., : self.pixels].float()
        return F.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(-1)

    def point(self, raw: Float[Tensor, "*batch out"]) -> Float[Tensor, "*batch pixel"]:
        """How likely each pixel is white."""
        return raw[..., : self.pixels].float().sigmoid()

    def sample(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pixels drawn, 0 or 1."""
        return torch.bernoulli(self.point(raw), generator=generator)


class DrawModel(Model):
    """An autoencoder with two cores; a step reads, draws a code and writes.

    State: the two cores', the decoder's output and the canvas. The code is drawn while training; else it is the mean
    of what the encoder says, unless `noise` is given. The last step of a record counts for its pixels, all for their
    codes.
    """

    encoder: SketchEncoder
    head: CanvasHead

    def __init__(self, encoder: SketchEncoder, reader: Core, writer: Core, head: CanvasHead):
        super().__init__(encoder, writer, head, "many-to-one", skip=False)
        if not reader.causal or not writer.causal:
            raise UserError("a picture is drawn step by step; take a core that is causal")
        spec, (height, width) = encoder.spec, encoder.raw
        self.reader = reader
        self.code = nn.Linear(reader.size, 2 * spec.latent)
        self.reads = nn.Linear(writer.size, 5) if spec.read else None
        self.aims = nn.Linear(writer.size, 5) if spec.write else None
        self.writes = nn.Linear(writer.size, spec.write**2 or height * width)

    def initial(self, batch: int = 1) -> State:
        zeros = self.code.weight.new_zeros
        cores = (self.reader.initial(batch), self.core.initial(batch))
        return (*cores, zeros(batch, self.core.size), self.encoder.blank.expand(batch, -1))

    def forward(self, batch: Batch, state: State) -> tuple[Float[Tensor, "batch time output"], State]:
        x = batch.x
        noise = torch.randn(*x.shape[:2], self.encoder.spec.latent, device=x.device) if self.training else None
        return self.run(x, state, batch.fresh, noise=noise)

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        state: State,
        fresh: Bool[Tensor, "batch"] | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
        noise: Float[Tensor, "batch time latent"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], State]:
        if fresh is not None:
            state = reset(state, self.initial(len(x)), fresh)
        pictures, shown = self.encoder.light(x), []
        reading, writing, said, canvas = state
        for t in range(x.shape[1]):
            wrong = pictures[:, t] - canvas.sigmoid().view_as(pictures[:, t])
            seen = self.encoder.see(pictures[:, t], wrong, None if self.reads is None else self.reads(said))
            read, reading = self.reader.step(torch.cat((seen, said), 1), reading)
            mean, log_deviation = self.code(read).float().chunk(2, 1)
            code = mean if noise is None else mean + log_deviation.exp() * noise[:, t]
            each = (mean.square() + (2 * log_deviation).exp() - 1) / 2 - log_deviation
            divergence = each.sum(1, keepdim=True)
            said, writing = self.core.step(code, writing)
            canvas = canvas + self.written(said)
            shown.append(torch.cat((canvas, divergence), 1))
        return torch.stack(shown, 1), (reading, writing, said, canvas)

    def written(self, said: Float[Tensor, "batch feature"]) -> Float[Tensor, "batch pixel"]:
        """What is added to the canvas."""
        patch = self.writes(said)
        if self.aims is None:
            return patch
        grid = self.encoder.spec.write
        rows, columns, intensity = filters(self.aims(said), grid, *self.encoder.raw)
        spread = torch.bmm(torch.bmm(rows.transpose(1, 2), patch.view(-1, grid, grid)), columns)
        return spread.flatten(1) / intensity

    def nats(
        self, raw: Float[Tensor, "batch time output"], x: Tensor, steps: Int[Tensor, "batch"]
    ) -> Float[Tensor, "batch 2"]:
        """Nats of each row's pixels at its last step, and of its codes up to there."""
        rows, last = torch.arange(len(steps), device=steps.device), steps.clamp_min(1) - 1
        pixels = self.head.loss(raw[rows, last], self.encoder.light(x[rows, last]).flatten(1))
        counts = torch.arange(raw.shape[1], device=steps.device) < steps.unsqueeze(1)
        return torch.stack((pixels, torch.where(counts, raw[..., -1], 0.0).sum(1)), 1)

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time output"]) -> tuple[Tensor, Tensor]:
        rows, last = torch.arange(len(raw), device=raw.device), batch.steps.clamp_min(1) - 1
        weight = batch.mask[rows, last]
        there = (weight > 0).unsqueeze(-1)
        raw = torch.where(there.unsqueeze(-1), raw, 0.0)
        return (self.nats(raw, batch.x, batch.steps).sum(1) * weight).sum(), weight.sum()

    def held_out_loss(self, examples: Sequence[Example]) -> float:
        return float(np.concatenate(list(self.bounds(examples))).sum(1).mean())

    @torch.no_grad()
    def bounds(
        self, examples: Sequence[Example], generator: torch.Generator | None = None, rows: int = 256
    ) -> Iterator[np.ndarray]:
        """Nats (record 2) of the pixels and of the codes of records, some at a time; with a generator codes are drawn.

        Only of drawn codes is their sum, in the mean, a bound.
        """
        for start in range(0, len(examples), rows):
            part = examples[start : start + rows]
            lengths = torch.tensor([len(example) for example in part], device=self.device)
            x = blank(part[0].x, len(part), int(lengths.max()))
            for row, example in enumerate(part):
                x[row, : len(example)] = example.x
            shown, noise = torch.from_numpy(x).to(self.device), None
            if generator is not None:
                noise = torch.randn(*x.shape[:2], self.encoder.spec.latent, generator=generator).to(self.device)
            raw, _ = self.run(shown, self.initial(len(part)), noise=noise)
            yield self.nats(raw, shown, lengths).double().cpu().numpy()

    @torch.no_grad()
    def drawings(
        self, number: int, steps: int, generator: torch.Generator | None = None
    ) -> Iterator[Float[Tensor, "number height width"]]:
        """Pictures drawn from codes of the prior: how likely each pixel is white, after every step."""
        _, writing, _, canvas = self.initial(number)
        for _ in range(steps):
            code = torch.randn(number, self.encoder.spec.latent, generator=generator).to(self.device)
            said, writing = self.core.step(code, writing)
            canvas = canvas + self.written(said)
            yield canvas.sigmoid().view(number, *self.encoder.raw).cpu()


def draw_model(encoder: Sketch, core: CoreSpec, head: Canvas, raw: tuple[int, ...]) -> DrawModel:
    """The model of specs, the cores of its reader and its writer alike, for pictures of this shape."""
    eye, canvas = encoder.build(raw), raw[0] * raw[1]
    writer = core.build(encoder.latent)
    return DrawModel(eye, core.build(eye.size + writer.size), writer, head.build(canvas))
