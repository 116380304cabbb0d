"""The flavours of sequence model, built of an encoder, a core and a head."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .config import Spec
from .cores import Core, Memoryless, State, reset
from .data import Batch, Example
from .encoders import Encoder
from .errors import UserError
from .heads import Head

Flavour = Literal["one-to-one", "many-to-one", "many-to-many"]


@dataclass(frozen=True)
class Network(Spec):
    """What a model is made of.

    one-to-one: each step on its own. many-to-one: one answer a sequence, at its last step.
    many-to-many: an answer at every step.
    """

    encoder: Spec
    core: Spec
    head: Spec
    flavour: Flavour = "many-to-many"
    skip: bool = False
    """The head sees the encoder's feature beside the core's."""

    def build(self, raw: tuple[int, ...]) -> "Model":
        """The model for raw steps of this shape."""
        if self.flavour == "one-to-one" and not isinstance(self.core, Memoryless):
            raise UserError(f"one-to-one has no memory, but the core is {type(self.core).__name__}; use Memoryless")
        encoder: Encoder = _built("encoder", self.encoder, Encoder, raw)
        core: Core = _built("core", self.core, Core, encoder.size)
        head: Head = _built("head", self.head, Head, core.size + (encoder.size if self.skip else 0))
        return Model(encoder, core, head, self.flavour, self.skip)


def _built(part: str, spec: Spec, kind: type, size: Any) -> Any:
    """The module of a part. UserError where the spec is of another part, as in a config edited by hand."""
    try:
        module = spec.build(size)  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError) as error:
        raise UserError(f"{part}: {type(spec).__name__} can't be built as one ({error})") from error
    if not isinstance(module, kind):
        raise UserError(f"{part}: {type(spec).__name__} is no {part}")
    return module


class Model(nn.Module):
    """Encoder, core and head; the state of the first two goes in and comes out."""

    def __init__(self, encoder: Encoder, core: Core, head: Head, flavour: Flavour, skip: bool):
        super().__init__()
        self.encoder, self.core, self.head = encoder, core, head
        self.flavour, self.skip = flavour, skip

    @property
    def causal(self) -> bool:
        return self.core.causal

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def initial(self, batch: int = 1) -> State:
        """The state before the first step."""
        return (self.encoder.initial(batch), self.core.initial(batch))

    def forward(
        self, x: Tensor, state: State, fresh: Bool[Tensor, "batch"] | None = None
    ) -> tuple[Float[Tensor, "batch time output"], State]:
        """Raw outputs of the head for prepared inputs at every step; rows that are `fresh` begin anew."""
        if fresh is not None:
            state = reset(state, self.initial(len(x)), fresh)
        feature, encoder_state = self.encoder(x, state[0])
        y, core_state = self.core(feature, state[1])
        if self.skip:
            y = torch.cat((y, feature), -1)
        return self.head(y), (encoder_state, core_state)

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time output"]) -> tuple[Tensor, Tensor]:
        """Sum of the weighted losses and sum of the weights."""
        y, weight = batch.y, batch.mask
        if self.flavour == "many-to-one":
            last = (weight > 0).sum(1).clamp_min(1) - 1
            rows = torch.arange(len(last), device=last.device)
            raw, weight = raw[rows, last], weight[rows, last]
        # Padding may hold anything: it is taken out first, for nought times NaN would still be NaN.
        there = (weight > 0).unsqueeze(-1)
        losses = self.head.loss(torch.where(there, raw, 0.0), torch.where(there, y, 0.0))
        return (losses * weight).sum(), weight.sum()

    def checked(self, frame: np.ndarray | Tensor) -> np.ndarray:
        """One raw step as an array. UserError where it is not of the shape and type that the model takes."""
        step = np.ascontiguousarray(frame)
        if step.shape != self.encoder.raw or (step.ndim == 3 and step.dtype != np.uint8):
            kind = " uint8" if len(self.encoder.raw) == 3 else ""
            raise UserError(
                f"this model takes steps of shape {self.encoder.raw}{kind}, "
                f"not {step.shape} {step.dtype}; give it what it was trained on"
            )
        return step

    @torch.inference_mode()
    def step(self, frame: np.ndarray | Tensor, state: State | None = None) -> tuple[dict[str, Any], State]:
        """One raw step (no batch, no time axis) to named predictions; without a state, the first step."""
        state = self.initial() if state is None else state
        raw_step = self.checked(frame)
        x = self.encoder.prepare(torch.as_tensor(raw_step).unsqueeze(0).to(self.device))
        raw, state = self(x.unsqueeze(1), state)
        point = self.head.point(raw)[0, 0].tolist()
        return dict(zip(self.head.targets, point, strict=True)), state

    @torch.no_grad()
    def stream(self, examples: Sequence[Example], steps: int = 64, rows: int = 16) -> list[Tensor]:
        """Raw outputs (time output) for whole records, in the order given; each from the state before its start."""
        training = self.training
        self.eval()
        try:
            groups = [examples[i : i + rows] for i in range(0, len(examples), rows)]
            return [out for group in groups for out in self._stream(group, steps)]
        finally:
            self.train(training)

    def _stream(self, examples: Sequence[Example], steps: int) -> list[Tensor]:
        state, parts = self.initial(len(examples)), []
        longest = max(map(len, examples))
        for start in range(0, longest, steps):
            x = np.zeros((len(examples), min(steps, longest - start), *examples[0].x.shape[1:]), examples[0].x.dtype)
            for row, example in enumerate(examples):
                part = example.x[start : start + steps]
                x[row, : len(part)] = part
            raw, state = self(torch.from_numpy(x).to(self.device), state)
            parts.append(raw.float().cpu())
        return [raw[: len(e)] for raw, e in zip(torch.cat(parts, 1), examples, strict=True)]

    def held_out_loss(self, examples: Sequence[Example]) -> float:
        """Mean loss over whole records, streamed; every step counts alike."""
        head = copy.deepcopy(self.head).cpu() if self.device.type != "cpu" else self.head
        total, count = 0.0, 0
        for raw, example in zip(self.stream(examples), examples, strict=True):
            y = torch.from_numpy(np.ascontiguousarray(example.y))
            losses = head.loss(raw[-1:], y[None]) if self.flavour == "many-to-one" else head.loss(raw, y)
            total, count = total + losses.double().sum().item(), count + len(losses)
        return total / count

    def predict(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Point estimates (time target) for whole records; one row for many-to-one."""
        head = copy.deepcopy(self.head).cpu() if self.device.type != "cpu" else self.head
        last = slice(-1, None) if self.flavour == "many-to-one" else slice(None)
        with torch.no_grad():
            return [head.point(raw[last]).numpy() for raw in self.stream(examples)]
