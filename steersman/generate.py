"""One to many: a model of what comes next, its own words fed back to it."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from .config import Spec
from .cores import map_state
from .decoding import Sampling
from .encoders import EmbeddingEncoder
from .errors import UserError
from .heads import NextSymbolHead
from .model import Model
from .stepper import Stepper

SEGMENTS = 400
"""Segments at the beginning of the training text by which dynamic evaluation knows how large gradients are."""
LEAST = 0.1
"""Share of the average below which no weight's usual gradient is taken to be: it would be moved too far."""


class Speaker:
    """A text model one symbol at a time, without torch in a step: `logits = speaker.hear(symbol)`.

    UserError where the model is none of a text.
    """

    def __init__(self, model: Model):
        if not isinstance(model.encoder, EmbeddingEncoder) or not isinstance(model.head, NextSymbolHead):
            raise UserError("this run is no model of a text; `steersman train chars` makes one")
        if model.skip:
            raise UserError("a text model whose head sees the encoder, too, can't be streamed; train it without skip")
        self.symbols = model.head.symbols
        self._vectors = model.encoder.vectors.weight.detach().float().cpu().numpy()
        self._weight = model.head.linear.weight.detach().float().cpu().numpy()
        self._bias = model.head.linear.bias.detach().float().cpu().numpy()
        self._stepper = Stepper(model.core)

    def hear(self, symbol: int) -> np.ndarray:
        """What may come after a symbol: a logit a class."""
        return self._weight @ self._stepper.step(self._vectors[symbol]) + self._bias

    def beginning(self) -> str:
        """A prompt where none is given: a new line or a space, if it is known, else the first character that is."""
        return next((c for c in "\n " if c in self.symbols.characters), self.symbols.characters[:1] or "\n")

    def reset(self) -> None:
        """Forgets all it heard."""
        self._stepper.reset()

    def speak(self, prompt: str, length: int, sampling: Sampling, seed: int = 0) -> Iterator[int]:
        """Classes that follow on a prompt, one after the other. UserError where it has unknown characters."""
        heard = self.symbols.encode(prompt)
        if not len(heard):
            raise UserError("--prompt is empty; give the model something to go on from")
        self.reset()
        generator = torch.Generator().manual_seed(seed)
        logits = np.zeros(len(self.symbols))
        for symbol in heard:
            logits = self.hear(int(symbol))
        for _ in range(length):
            if self.symbols.characters:
                logits[0] = -inf  # What is not known can't be said.
            symbol = int(sampling.draw(torch.from_numpy(logits)[None], generator))
            yield symbol
            logits = self.hear(symbol)


def written(speaker: Speaker, symbols: Iterator[int], write: Callable[[bytes], object]) -> int:
    """Writes symbols as UTF-8 as they come; how many there were."""
    count = 0
    for symbol in symbols:
        code = int(speaker.symbols.codes(np.array([symbol]))[0])
        write(chr(code).encode() if speaker.symbols.characters else bytes([code]))
        count += 1
    return count


@torch.no_grad()
def nats_in_blocks(model: Model, codes: np.ndarray, block: int, rows: int = 256) -> float:
    """Mean loss over a text cut into blocks, each from a zero state; `codes` as the model's streams hold them."""
    assert isinstance(model.head, NextSymbolHead)
    whole = (len(codes) - 1) // block * block
    x = model.encoder.prepare(torch.from_numpy(codes[:whole].astype(np.int64)[:, None])).view(-1, block, 1)
    y = torch.from_numpy(codes[1 : whole + 1].astype(np.int64)).view(-1, block, 1)
    total = 0.0
    for part_x, part_y in zip(x.split(rows), y.split(rows), strict=True):
        raw, _ = model(part_x, model.initial(len(part_x)))
        total += float(model.head.loss(raw.float(), part_y).double().sum())
    return total / whole


@dataclass(frozen=True)
class Dynamic(Spec):
    """Dynamic evaluation: a model that goes on learning from the text it is scored on.

    After each segment has been scored, weights move against its gradient, divided by how large that weight's gradients
    were at the beginning of the training text, and a little back to where they began (Krause et al. 2018, arXiv
    1709.07432, section 4).
    """

    rate: float = 5e-4
    """How far a weight moves whose gradient is as large as usual; too far makes the score worse than none."""
    decay: float = 1e-3
    """Share of the way back at each segment, for a weight whose gradients are as large as the average; 1 at most."""
    steps: int = 20
    """Of a segment."""

    BOUNDS = {"rate": (0, inf), "decay": (0, 1), "steps": (1, inf)}


@torch.inference_mode(False)
@torch.enable_grad()
def dynamic_evaluation(model: Model, codes: np.ndarray, known: np.ndarray, dynamic: Dynamic = Dynamic()) -> float:
    """Mean loss over a text in one pass, every character foretold before it is learned from; the model is left as is.

    `codes` and `known`, a text that was trained on, are as the model's streams hold them. UserError where `known` is no
    longer than a segment, where there is nothing to foretell, or no weight to train.
    """
    if len(codes) < 2:
        raise UserError("there is no character to foretell; give a text of two or more")
    if len(known) <= dynamic.steps:
        raise UserError(
            f"the training text has {len(known)} characters, no more than a segment; give more, or fewer steps"
        )
    model = deepcopy(model).eval()
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise UserError("no weight of this model can be trained; set requires_grad")
    squares, seen = [torch.zeros_like(w) for w in weights], 0
    for _, gradients in _segments(model, weights, known[: SEGMENTS * dynamic.steps + 1], dynamic.steps):
        seen += 1
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
    usual = [(square / seen).sqrt_() for square in squares]
    mean = float(torch.cat([u.flatten() for u in usual]).mean()) or 1.0
    usual = [u.clamp_min_(LEAST * mean) for u in usual]
    first = [w.detach().clone() for w in weights]
    decay = [(dynamic.decay * u / mean).clamp_max_(1) for u in usual]
    total = 0.0
    for nats, gradients in _segments(model, weights, codes, dynamic.steps):
        total += nats
        with torch.no_grad():
            for w, gradient, u, share, begun in zip(weights, gradients, usual, decay, first, strict=True):
                w.add_(share * (begun - w)).sub_(gradient / u, alpha=dynamic.rate)
    return total / (len(codes) - 1)


def _segments(
    model: Model, weights: Sequence[Tensor], codes: np.ndarray, steps: int
) -> Iterator[tuple[float, tuple[Tensor, ...]]]:
    """Of each segment, the state carried: its summed loss, and the gradients of its mean."""
    assert isinstance(model.head, NextSymbolHead)
    state = model.initial(1)
    x, y = (torch.from_numpy(c.astype(np.int64)[None, :, None]) for c in (codes[:-1], codes[1:]))
    for part_x, part_y in zip(x.split(steps, 1), y.split(steps, 1), strict=True):
        raw, state = model(model.encoder.prepare(part_x), state)
        loss = model.head.loss(raw.float(), part_y)
        yield float(loss.detach().double().sum()), torch.autograd.grad(loss.mean(), weights)
        state = map_state(Tensor.detach, state)
