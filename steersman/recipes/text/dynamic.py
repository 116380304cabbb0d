"""Dynamic evaluation of a text."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from torch import Tensor

from ...config import Spec
from ...errors import UserError
from ...nn.cores import map_state
from ...nn.model import Model
from .reading import text_head

SEGMENTS = 400
"""Segments at the beginning of the training text by which dynamic evaluation knows how large gradients are."""


LEAST = 0.1
"""Share of the average below which no weight's usual gradient is taken to be: it would be moved too far."""


@dataclass(frozen=True)
class Dynamic(Spec):
    """Dynamic evaluation: a model that goes on learning from the text it is scored on.

    After each segment has been scored, weights move against its gradient, divided by how large that weight's gradients
    were at the beginning of the training text, and a little back to where they began (Krause et al. 2018, arXiv
    1709.07432, section 4).
    """

    rate: float = 5e-4
    """Step of a weight whose gradient is as large as usual; one too long makes the score worse than none."""
    decay: float = 1e-3
    """Share of the way back at each segment, for a weight whose gradients are as large as the average; 1 at most."""
    steps: int = 20
    """Characters of a segment."""

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
    """Summed loss of each segment, the state carried, and the gradients of its mean."""
    text_head(model)
    state = model.initial(1)
    x, y = (torch.from_numpy(c.astype(np.int64)[None, :, None]) for c in (codes[:-1], codes[1:]))
    for part_x, part_y in zip(x.split(steps, 1), y.split(steps, 1), strict=True):
        raw, state = model.run(model.encoder.prepare(part_x), state)
        loss = model.head.loss(raw.float(), part_y)
        yield float(loss.detach().double().sum()), torch.autograd.grad(loss.mean(), weights)
        state = map_state(Tensor.detach, state)
