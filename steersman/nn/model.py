"""The flavours of sequence model, built of an encoder, a core and a head."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..config import Spec
from ..data.batches import Batch
from ..data.examples import Example
from ..data.inputs import Inputs, blank, tensors
from ..errors import UserError
from .cores import Core, CoreSpec, Memoryless, State, reset
from .encoders import Encoder, EncoderSpec
from .heads import Head, HeadSpec, Regression, tells_classes, tells_labels

Flavour = Literal["one-to-one", "many-to-one", "many-to-many"]


@dataclass(frozen=True)
class Network(Spec):
    """What a model is made of.

    one-to-one: each step on its own. many-to-one: one answer a sequence, at its last step.
    many-to-many: an answer at every step.
    """

    encoder: EncoderSpec
    core: CoreSpec
    head: HeadSpec
    flavour: Flavour = "many-to-many"
    skip: bool = False
    """Whether the head sees the encoder's feature beside the core's."""
    feedback: bool = False
    """Whether the core is fed the head's answer of the step before; in training every other row gets the truth."""

    def build(self, raw: Any, sizes: Sequence[int] = ()) -> "Model":
        """The model for raw steps of this shape (of several inputs, by name), and targets of so many numbers each."""
        if self.flavour == "one-to-one" and not isinstance(self.core, Memoryless):
            raise UserError(f"one-to-one has no memory, but the core is {type(self.core).__name__}; use Memoryless")
        encoder = self.encoder.build(raw)
        if self.feedback and not isinstance(self.head, Regression):
            raise UserError(
                f"feedback needs a head whose outputs are the numbers themselves, not {type(self.head).__name__}; "
                "use Regression"
            )
        said = sum(sizes or [1] * len(self.head.targets)) if self.feedback else 0
        core = self.core.build(encoder.size + said)
        if said and not core.causal:
            raise UserError(f"feedback needs a causal core, not {type(self.core).__name__}: what it says it reads next")
        features = core.size + (encoder.size if self.skip else 0)
        head = self.head.build(features, sizes) if sizes else self.head.build(features)
        return (Model if not said else FeedbackModel)(encoder, core, head, self.flavour, self.skip)


class Prediction(dict[str, float]):
    """Estimates of one step by name: of a class its number, and beside it its name and how likely each is."""

    def __init__(self, head: Head, raw: Tensor):
        """`raw` is what the head said of one step (1 output)."""
        super().__init__(zip(head.targets, head.point(raw)[0].tolist(), strict=True))
        self._head, self._raw = head, raw

    @property
    def said(self) -> dict[str, float | str]:
        """The same for people: classes and symbols by their names."""
        return self._head.said(self)

    @property
    def chances(self) -> dict[str, float]:
        """How likely it thinks each class, by name; of numbers none."""
        if not (tells_classes(self._head) or tells_labels(self._head)):
            return {}
        chances = self._head.probabilities(self._raw)[0].tolist()
        return dict(zip(self._head.names() or map(str, range(len(chances))), chances, strict=True))


class SequenceModel(nn.Module):
    """What training, doctor, export and live ask of a model; the state goes in and comes out."""

    head: Head
    no_step: str = ""
    """Why it can't be run a step at a time; empty: it can."""
    aligned: bool = True
    """Whether it answers on the clock of its inputs."""
    feedback: bool = False
    """Whether its core is fed what the head said of the step before."""
    inputs: tuple[str, ...] = ()
    """Names of its inputs, where there are several; none: a step is its only one."""

    @property
    def causal(self) -> bool:
        """Whether an output depends only on what came before it."""
        return True

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def initial(self, batch: int = 1) -> State:
        """The state before the first step."""
        raise NotImplementedError(f"{type(self).__name__} has no initial state")

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Raw outputs of the head at every step of a batch, and the state after it."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def loss(self, batch: Batch, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the weighted losses and sum of the weights."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def pretrained(self) -> list[nn.Parameter]:
        """Parameters that do not begin at random."""
        return []

    def held_out_loss(self, examples: Sequence[Any]) -> float:
        """Mean loss over whole examples."""
        raise NotImplementedError(f"{type(self).__name__} has no held-out loss")


class Model(SequenceModel):
    """Encoder, core and head; the state of the first two goes in and comes out."""

    def __init__(self, encoder: Encoder, core: Core, head: Head, flavour: Flavour, skip: bool):
        super().__init__()
        self.encoder, self.core, self.head = encoder, core, head
        self.flavour, self.skip = flavour, skip
        self.inputs = encoder.inputs
        if not core.causal:
            self.no_step = f"its {type(core).__name__} is not causal: it reads a sequence from its end"

    @property
    def causal(self) -> bool:
        return self.core.causal

    def initial(self, batch: int = 1) -> State:
        return (self.encoder.initial(batch), self.core.initial(batch))

    def forward(self, batch: Batch, state: State) -> tuple[Float[Tensor, "batch time output"], State]:
        # What reads forwards has said all that counts before it comes to padding.
        return self.run(batch.x, state, batch.fresh, None if self.causal else batch.steps)

    def run(
        self,
        x: Tensor | Inputs,
        state: State,
        fresh: Bool[Tensor, "batch"] | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], State]:
        """Raw outputs of the head for prepared inputs, a tensor or Inputs; rows that are `fresh` begin anew.

        `lengths` of the rows, by default all of `time`; a core that is not causal begins at the end of each.
        """
        if fresh is not None:
            state = reset(state, self.initial(len(x)), fresh)
        feature, encoder_state = self.encoder(x, state[0])
        y, core_state = self.core(feature, state[1], lengths)
        if self.skip:
            y = torch.cat((y, feature), -1)
        return self.head(y), (encoder_state, core_state)

    def pretrained(self) -> list[nn.Parameter]:
        return self.encoder.pretrained()

    def loss(self, batch: Batch, raw: Float[Tensor, "batch time output"]) -> tuple[Tensor, Tensor]:
        y, weight = batch.y, batch.mask
        if self.flavour == "many-to-one":
            last = batch.steps.clamp_min(1) - 1
            rows = torch.arange(len(last), device=last.device)
            raw, weight = raw[rows, last], weight[rows, last]
        # Padding may hold anything: it is taken out first, for zero times NaN would still be NaN.
        there = (weight > 0).unsqueeze(-1)
        losses = self.head.loss(torch.where(there, raw, 0.0), torch.where(there, y, 0.0))
        return (losses * weight).sum(), weight.sum()

    def checked(self, frame: Any) -> Any:
        """One raw step as an array. UserError where it is not of the shape and type that the model takes."""
        return self.encoder.checked(frame)

    @torch.inference_mode()
    def step(self, frame: object, state: State | None = None) -> tuple[Prediction, State]:
        """One raw step (no batch, no time axis) to named predictions; without a state, the first step.

        Of classes `prediction.said` has their names, and `prediction.chances` how likely each is.

        A model with several inputs takes a dict of them by name.
        """
        state = self.initial() if state is None else state
        raw, state = self.run(self.encoder.prepare_step(frame, self.device), state)
        return Prediction(self.head, raw[0]), state

    def stream(self, examples: Sequence[Example], steps: int = 64, rows: int = 16) -> list[Tensor]:
        """Raw outputs (time output) for whole records, in the order given; each from the state before its start."""
        parts: list[list[Tensor]] = [[] for _ in examples]
        for place, _, raw in self.streamed(examples, steps, rows):
            parts[place].append(raw)
        return [torch.cat(part) for part in parts]

    def streamed(
        self, examples: Sequence[Example], steps: int = 64, rows: int = 16
    ) -> Iterator[tuple[int, int, Tensor]]:
        """The same piece by piece: which record, at which step, raw outputs; a long text's are too many to hold."""
        training = self.training
        self.eval()
        try:
            for first in range(0, len(examples), rows):
                for row, start, raw in self._streamed(examples[first : first + rows], steps):
                    yield first + row, start, raw
        finally:
            self.train(training)

    @torch.no_grad()
    def _streamed(self, examples: Sequence[Example], steps: int) -> Iterator[tuple[int, int, Tensor]]:
        state = self.initial(len(examples))
        longest, lengths = max(map(len, examples)), None
        if not self.causal:  # It reads from the end of a record: all of it at once.
            steps, lengths = longest, torch.tensor([len(example) for example in examples], device=self.device)
        for start in range(0, longest, steps):
            x = blank(examples[0].x, len(examples), min(steps, longest - start))
            for row, example in enumerate(examples):
                part = example.x[start : start + steps]
                x[row, : len(part)] = part
            raw, state = self.run(tensors(x).to(self.device), state, lengths=lengths)
            raw = raw.float().cpu()
            for row, example in enumerate(examples):
                if len(example) > start:
                    yield row, start, raw[row, : len(example) - start]

    @torch.no_grad()
    def encoded(self, examples: Sequence[Example]) -> Iterator[Tensor]:
        """Features (time feature) of whole records, as the encoder gives them to the core."""
        for example in examples:
            x = blank(example.x, 1, len(example))
            x[0, :] = example.x
            feature, _ = self.encoder(tensors(x).to(self.device), self.encoder.initial(1))
            yield feature[0].float().cpu()

    @torch.no_grad()
    def held_out_loss(self, examples: Sequence[Example]) -> float:
        """Mean loss over whole records, streamed; a step counts what its example says, or all alike."""
        head = copy.deepcopy(self.head).cpu() if self.device.type != "cpu" else self.head
        total, count = 0.0, 0
        for place, start, raw in self.streamed(examples):
            y, end = examples[place].y, start + len(raw)
            if self.flavour == "many-to-one":
                if end < len(examples[place]):
                    continue
                raw, y, start = raw[-1:], y[None], end - 1
            else:
                y = y[start:end]
            losses = head.loss(raw[None], torch.from_numpy(np.ascontiguousarray(y))[None])
            losses = losses.double().flatten()
            weight = examples[place].weight
            counts = torch.ones_like(losses) if weight is None else torch.from_numpy(weight[start:end]).double()
            total, count = total + (losses * counts).sum().item(), count + counts.sum().item()
        return total / max(count, 1e-8)

    def answers(self, examples: Sequence[Example]) -> list[Tensor]:
        """Raw outputs (time output) for whole records; one row for many-to-one."""
        last = slice(-1, None) if self.flavour == "many-to-one" else slice(None)
        return [raw[last] for raw in self.stream(examples)]

    def predict(self, examples: Sequence[Example]) -> list[np.ndarray]:
        """Point estimates (time target) for whole records; one row for many-to-one."""
        return self.points(self.answers(examples))

    @torch.no_grad()
    def points(self, raws: Sequence[Tensor]) -> list[np.ndarray]:
        """Point estimates of raw outputs."""
        head = copy.deepcopy(self.head).cpu() if self.device.type != "cpu" else self.head
        return [head.point(raw).numpy() for raw in raws]


class FeedbackModel(Model):
    """A model whose core also sees what the head said of the step before, standardised; at first, the mean."""

    feedback = True

    def initial(self, batch: int = 1) -> State:
        said = torch.zeros(batch, len(self.head.targets), device=self.device)
        return (*super().initial(batch), said)

    def forward(self, batch: Batch, state: State) -> tuple[Float[Tensor, "batch time output"], State]:
        """Outputs and state; while training, every other row is fed the truth (teacher forcing)."""
        return self.run(batch.x, state, batch.fresh, truth=batch.y if self.training else None)

    def run(
        self,
        x: Tensor | Inputs,
        state: State,
        fresh: Bool[Tensor, "batch"] | None = None,
        lengths: Int[Tensor, "batch"] | None = None,
        truth: Float[Tensor, "batch time target"] | None = None,
    ) -> tuple[Float[Tensor, "batch time output"], State]:
        """Outputs and state; where the truth is told, every other row is fed that instead (Williams & Zipser 1989)."""
        if fresh is not None:
            state = reset(state, self.initial(len(x)), fresh)
        feature, encoder_state = self.encoder(x, state[0])
        forced = torch.arange(len(x), device=x.device).unsqueeze(1) % 2 == 0
        core_state, said, shown = state[1], state[2], []
        for t in range(x.shape[1]):
            y, core_state = self.core.step(torch.cat((feature[:, t], said.to(feature.dtype)), -1), core_state)
            raw = self.head(torch.cat((y, feature[:, t]), -1) if self.skip else y)
            shown.append(raw)
            said = raw.float() if truth is None else torch.where(forced, self.head.standard(truth[:, t]), raw.float())
        return torch.stack(shown, 1), (encoder_state, core_state, said)
