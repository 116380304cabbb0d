"""Attention that moves: a sensor that sees little of a picture, and a model that says where it looks next.

The recurrent attention model of Mnih et al. 2014 (arXiv 1406.6247): a hard glimpse has no gradient, so where to look
is learned by REINFORCE (Williams 1992) with a learned baseline, what is seen by its likelihood. Places are (row,
column) from -1 to 1, the borders of the picture.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Spec
from ..data.batches import Batch
from ..errors import UserError
from .cores import Core, CoreSpec, State, reset
from .encoders import Encoder, EncoderSpec
from .forms import Graph, onnx_form
from .heads import Head, HeadSpec, tells_classes
from .model import Flavour, Model


@dataclass(frozen=True)
class Sensor(Spec):
    """Squares of a picture around a place, each twice as wide as the one before and seen as coarsely."""

    size: int = 8
    """Rows and columns of each square as it is seen."""
    scales: int = 1
    """Squares, one around the other."""

    BOUNDS = {"size": (1, inf), "scales": (1, 8)}

    @property
    def numbers(self) -> int:
        """Numbers of a glimpse."""
        return self.scales * self.size**2

    def __call__(self, pictures: Tensor, places: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch scale*size*size"]:
        """Glimpses of pictures (*batch height width); beyond their borders is 0. All scales are one gather."""
        height, width = pictures.shape[-2:]
        ends = torch.tensor([height, width], device=places.device)
        middle = (places + 1) / 2 * ends
        parts = []
        for scale in range(self.scales):
            side = self.size << scale
            first = (middle - side / 2).round().long()
            row, column = (first[..., i, None] + torch.arange(side, device=places.device) for i in (0, 1))
            inside = (_within(row, height).unsqueeze(-1) & _within(column, width).unsqueeze(-2)).flatten(-2)
            at = (row.clamp(0, height - 1).unsqueeze(-1) * width + column.clamp(0, width - 1).unsqueeze(-2)).flatten(-2)
            parts.append((at, inside))
        seen = pictures.flatten(-2).gather(-1, torch.cat([at for at, _ in parts], -1))
        seen = seen.to(places.dtype) * torch.cat([inside for _, inside in parts], -1)
        found = []
        for scale, part in enumerate(seen.split([at.shape[-1] for at, _ in parts], -1)):
            if scale:
                part = part.unflatten(-1, (self.size, 1 << scale, self.size, 1 << scale)).mean((-3, -1)).flatten(-2)
            found.append(part)
        return torch.cat(found, -1) if len(found) > 1 else found[0]


def _within(places: Tensor, size: int) -> Bool[Tensor, "*place"]:
    return (places >= 0) & (places < size)


@dataclass(frozen=True)
class Glimpse(EncoderSpec):
    """What is seen of a grey picture at a place, and where that is; its model tells it the next place."""

    sensor: Sensor = Sensor()
    hidden: int = 128
    """Units that look at the glimpse."""
    place: int = 32
    """Units that look at the place."""
    features: int = 256
    """Units that look at both."""
    deviation: float = 0.1
    """Deviation of the places that are tried while training; a picture is 2 wide."""

    BOUNDS = {**dict.fromkeys(("hidden", "place", "features"), (1, inf)), "deviation": (1e-3, 1)}

    def build(self, raw: tuple[int, ...]) -> "GlimpseEncoder":
        if len(raw) != 2:
            raise UserError(f"Glimpse takes a grey picture (row column) a step, found steps of shape {raw}")
        return GlimpseEncoder(self, raw)


class GlimpseEncoder(Encoder):
    """State: where it looks, (row, column)."""

    def __init__(self, spec: Glimpse, raw: tuple[int, ...]):
        super().__init__()
        self.spec, self.raw, self.size = spec, raw, spec.features
        self.what = nn.Linear(spec.sensor.numbers, spec.hidden)
        self.where = nn.Linear(2, spec.place)
        self.both = nn.Linear(spec.hidden + spec.place, spec.features)

    def fit(self, x: object) -> None:
        """Nothing to fit: a picture is brought to 0 to 1."""

    def initial(self, batch: int) -> State:
        """The middle of the picture."""
        return (self.where.weight.new_zeros(batch, 2),)

    def looks_at(self, state: State) -> Float[Tensor, "height width"]:
        """The squares of the sensor around the place, each scale as bright as the others."""
        middle, sensor = (state[0][0] + 1) / 2, self.spec.sensor
        off = [(torch.arange(n) + 0.5 - m * n).abs() for n, m in zip(self.raw, middle, strict=True)]
        far = torch.maximum(off[0].unsqueeze(1), off[1])
        return torch.stack([far <= sensor.size * 2**scale / 2 for scale in range(sensor.scales)]).float().mean(0)

    def at(
        self, x: Float[Tensor, "*batch height width"], places: Float[Tensor, "*batch 2"]
    ) -> Float[Tensor, "*batch feature"]:
        """Features of what is seen of pictures, from 0 to 255, at places."""
        seen = self.spec.sensor(x, places) / 255
        what, where = F.relu(self.what(seen)), F.relu(self.where(places))
        return F.relu(self.both(torch.cat((what, where), -1)))

    def forward(
        self, x: Float[Tensor, "batch time height width"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        """It looks at one place at every step; where to look next it is told by its model."""
        return self.at(x, state[0].unsqueeze(1).expand(-1, x.shape[1], -1)), state


class GlimpseModel(Model):
    """A model whose core's output says where its encoder looks at the next step.

    Otherwise it looks where it thinks best; while training places are drawn around those, and `forward` gives beside
    the head's outputs the baseline's guess of what is still to be won, and how likely the next place was drawn.
    """

    encoder: GlimpseEncoder

    def __init__(self, encoder: GlimpseEncoder, core: Core, head: Head, flavour: Flavour, skip: bool, share: float):
        super().__init__(encoder, core, head, flavour, skip)
        if not tells_classes(head) or not core.causal:
            raise UserError("where to look is learned by what classes are told rightly, with a core that is causal")
        self.share = share
        self.look, self.baseline = nn.Linear(core.size, 2), nn.Linear(core.size, 1)
        nn.init.zeros_(self.look.bias)

    def run(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        x: Tensor,
        state: State,
        fresh: Bool[Tensor, "batch"] | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], State]:
        if fresh is not None:
            state = reset(state, self.initial(len(x)), fresh)
        ((place,), core_state), shown = state, []
        for t in range(x.shape[1]):
            feature = self.encoder.at(x[:, t], place)
            y, core_state = self.core.step(feature, core_state)
            shown.append(self.head(torch.cat((y, feature), -1) if self.skip else y))
            place = self.next_place(y)
        return torch.stack(shown, 1), ((place,), core_state)

    def next_place(self, y: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch 2"]:
        """Where it thinks it should look next."""
        return torch.tanh(self.look(y))

    @torch.no_grad()
    def places(self, x: Tensor, state: State, draw: bool) -> Float[Tensor, "batch time_and_one 2"]:
        """Where it looks at every step, and would after the last one; with `draw`, around where it thinks best."""
        (place,), core_state = state
        shown = [place + self.drawn(place) if draw else place]
        for t in range(x.shape[1]):
            y, core_state = self.core.step(self.encoder.at(x[:, t], shown[-1]), core_state)
            place = self.next_place(y)
            shown.append(place + self.drawn(place) if draw else place)
        return torch.stack(shown, 1)

    def drawn(self, place: Tensor) -> Tensor:
        return torch.randn_like(place) * self.encoder.spec.deviation

    def forward(self, batch: Batch, state: State) -> tuple[Float[Tensor, "batch time output"], State]:
        if not self.training:
            return super().forward(batch, state)
        x = batch.x
        state = reset(state, self.initial(len(x)), batch.fresh)
        # Once it is known where it looks, all steps are done at once.
        places = self.places(x, state, draw=True)
        feature = self.encoder.at(x, places[:, :-1])
        y, core_state = self.core(feature, state[1], batch.steps)
        said = self.head(torch.cat((y, feature), -1) if self.skip else y)
        off = (places[:, 1:] - self.next_place(y).float()) / self.encoder.spec.deviation
        log_probability = -0.5 * off.square().sum(-1, keepdim=True)
        return torch.cat((said, self.baseline(y.detach()), log_probability), -1), ((places[:, -1],), core_state)

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time output"]) -> tuple[Tensor, Tensor]:
        """While training also that of the places (REINFORCE) and of the baseline, a step that counts a reward."""
        classes = self.head.classes
        total, weight = super().loss(batch, raw[..., :classes])
        if raw.shape[-1] == classes:
            return total, weight
        counts = batch.mask
        if self.flavour == "many-to-one":
            counts = F.one_hot(batch.steps.clamp_min(1) - 1, raw.shape[1]) * batch.mask
        truth = batch.y if batch.y.ndim == 3 else batch.y.unsqueeze(1)
        with torch.no_grad():
            right = raw[..., :classes].argmax(-1) == truth[..., 0]
            still = counts.flip(1).cumsum(1).flip(1) - counts
            won = (counts * right).flip(1).cumsum(1).flip(1) - counts * right
        return total + reinforce(raw[..., classes], raw[..., classes + 1], won, still > 0, self.share), weight


@onnx_form(GlimpseEncoder)
def _glimpse_graph(graph: Graph, encoder: GlimpseEncoder, raw: str, state: tuple) -> tuple[str, tuple]:
    (height, width), sensor, parts = encoder.raw, encoder.spec.sensor, []
    ends = np.array([height, width], np.float32)
    middle = graph.op("Mul", graph.op("Div", graph.op("Add", state[0], np.float32(1)), np.float32(2)), ends)
    flat = graph.op("Reshape", raw, np.array([0, height * width]))
    for scale in range(sensor.scales):
        side = sensor.size << scale
        first = graph.op("Cast", graph.op("Round", graph.op("Sub", middle, np.float32(side / 2))), to=7)
        places = []
        for axis, (size, start) in enumerate(zip((height, width), graph.split(first, 2), strict=True)):
            at, shape = graph.op("Add", start, np.arange(side)[None]), np.array([0, 1, -1] if axis else [0, -1, 1])
            inside = graph.op("And", graph.op("GreaterOrEqual", at, np.int64(0)), graph.op("Less", at, np.int64(size)))
            kept = graph.op("Max", graph.op("Min", at, np.int64(size - 1)), np.int64(0))
            places.append([graph.op("Reshape", x, shape) for x in (inside, kept)])
        (inside, row), (also, column) = places
        at = graph.op("Add", graph.op("Mul", row, np.int64(width)), column)
        seen = graph.op("GatherElements", flat, graph.op("Reshape", at, np.array([0, side * side])), axis=1)
        there = graph.op("Reshape", graph.floats(graph.op("And", inside, also)), np.array([0, side * side]))
        seen = graph.op("Mul", seen, there)
        if scale:
            cells = graph.op("Reshape", seen, np.array([0, sensor.size, 1 << scale, sensor.size, 1 << scale]))
            seen = graph.op("Reshape", graph.op("ReduceMean", cells, np.array([2, 4])), np.array([0, sensor.size**2]))
        parts.append(seen)
    seen = graph.op("Div", graph.op("Concat", *parts, axis=1), np.float32(255))
    both = [(seen, encoder.what), (state[0], encoder.where)]
    shown = [graph.op("Relu", graph.linear(x, layer.weight, layer.bias)) for x, layer in both]
    both_seen = graph.linear(graph.op("Concat", *shown, axis=1), encoder.both.weight, encoder.both.bias)
    return graph.op("Relu", both_seen), state


@onnx_form(GlimpseModel)
def _next_place_graph(graph: Graph, model: GlimpseModel, y: str, state: tuple) -> tuple:
    return (graph.op("Tanh", graph.linear(y, model.look.weight, model.look.bias)),)


def reinforce(
    guess: Float[Tensor, "*batch"],
    log_probability: Float[Tensor, "*batch"],
    won: Float[Tensor, "*batch"],
    counts: Bool[Tensor, "*batch"],
    share: float = 1.0,
) -> Tensor:
    """Loss, summed over what counts, whose gradient is that of what is expected to be won, upwards, times `share`.

    The estimate of Williams 1992: (won - guess) times the gradient of the log-probability of what was drawn; the
    baseline's `guess` lowers its variance and learns by its squared error.
    """
    better = won - guess.detach()
    each = -share * better * log_probability + (won - guess).square()
    return torch.where(counts, each, 0.0).sum()


def glimpse_model(
    encoder: Glimpse, core: CoreSpec, head: HeadSpec, flavour: Flavour, skip: bool, raw: tuple[int, ...], share: float
) -> GlimpseModel:
    """The model of three specs for raw steps of this shape."""
    eye = encoder.build(raw)
    memory = core.build(eye.size)
    return GlimpseModel(eye, memory, head.build(memory.size + eye.size * skip), flavour, skip, share)
