"""What turns one raw step into a feature.

An encoder has the contract of a core, `(x, state) -> (y, state)`, for some look at a few steps at once.
Its `prepare` is the part without weights: it is done once per recording and kept, and again live."""

from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..config import Spec
from ..data.symbols import Symbols
from ..errors import UserError
from .cores import State


class Encoder(nn.Module):
    """What every encoder offers, beside the contract of a core."""

    size: int
    """Features it gives for a step."""
    raw: tuple[int, ...]
    """Shape of one raw step."""
    mean: Tensor
    deviation: Tensor
    symbols: Symbols | None = None
    """The symbols of a text, where it reads one."""

    def prepare(self, raw: Tensor) -> Tensor:
        """Raw steps (any number first) to what is kept and fed to `forward`."""
        return raw

    def fit(self, x: np.ndarray) -> None:
        """Takes the normaliser from training inputs (steps first)."""
        flat = torch.as_tensor(x.reshape(-1, x.shape[-1])).double()
        self.mean.copy_(flat.mean(0))
        deviation = flat.std(0, correction=0)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))  # A constant becomes 0.

    def normal(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def initial(self, batch: int) -> State:
        return ()

    def pretrained(self) -> list[nn.Parameter]:
        """Parameters that do not begin at random."""
        return []


class EncoderSpec(Spec):
    """Spec of an encoder."""

    def build(self, raw: tuple[int, ...]) -> Encoder:
        """The encoder of raw steps of this shape."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


@dataclass(frozen=True)
class Identity(EncoderSpec):
    """The numbers themselves, brought to mean 0 and deviation 1."""

    def build(self, raw: tuple[int, ...]) -> "IdentityEncoder":
        return IdentityEncoder(raw)


class IdentityEncoder(Encoder):
    def __init__(self, raw: tuple[int, ...]):
        super().__init__()
        self.raw = raw
        self.size = raw[-1]
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))

    def forward(
        self, x: Float[Tensor, "batch time feature"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        return self.normal(x), state


@dataclass(frozen=True)
class Embedding(EncoderSpec):
    """A vector for each character, learned."""

    symbols: str = ""
    """The characters that are known; none: the 256 bytes."""
    features: int = 64
    """Of a vector."""
    dropout: float = 0.1
    """Share of its numbers dropped while training."""

    BOUNDS = {"features": (1, inf), "dropout": (0, 1)}

    def build(self, raw: tuple[int, ...]) -> "EmbeddingEncoder":
        if raw != (1,):
            raise UserError(f"Embedding needs a text, a number a step; found steps of shape {raw}")
        return EmbeddingEncoder(self, raw)


class EmbeddingEncoder(Encoder):
    symbols: Symbols  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, spec: Embedding, raw: tuple[int, ...]):
        super().__init__()
        self.raw, self.size, self.symbols = raw, spec.features, Symbols(spec.symbols)
        self.vectors = nn.Embedding(len(self.symbols), spec.features)
        self.dropout = nn.Dropout(spec.dropout)

    def prepare(self, raw: Int[Tensor, "n 1"]) -> Int[Tensor, "n 1"]:
        """Classes of code points, or of bytes."""
        return torch.from_numpy(self.symbols.classes(raw.cpu().numpy()).astype(np.int32)).to(raw.device)

    def fit(self, x: np.ndarray) -> None:
        """There is no normaliser."""

    def forward(
        self, x: Int[Tensor, "batch time 1"], state: State
    ) -> tuple[Float[Tensor, "batch time feature"], State]:
        return self.dropout(self.vectors(x[..., 0].long())), state


def prepare_batch(encoder: Any, raw: np.ndarray) -> np.ndarray:
    """`encoder.prepare` for NumPy."""
    with torch.inference_mode():
        return encoder.prepare(torch.as_tensor(raw)).numpy()
