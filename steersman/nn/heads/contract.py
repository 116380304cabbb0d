"""What turns a feature into a prediction, with its own loss and point estimate."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...config import Spec
from ...data.symbols import Symbols


class Head(nn.Module):
    """What every head offers; `forward` gives raw outputs that only the head itself interprets."""

    targets: tuple[str, ...]
    """Names of the numbers it says, in the order of `point`."""
    streams: tuple[str, ...]
    """Names of the streams it learns."""
    sizes: tuple[int, ...] = ()
    """Numbers a step of each stream; none: 1 each, which is then its target."""
    classes: int = 0
    """How many classes it tells apart; 0: it says numbers."""
    below_zero: bool = False
    """Whether its loss may fall below 0, as that of a density may: how near it is to 0 then means nothing."""

    @property
    def symbols(self) -> Symbols | None:
        """What its classes are, where they are the symbols of a text."""
        return None

    def check(self, y: np.ndarray) -> None:
        """Raises UserError where targets (steps first) are none that it can learn."""

    def fit(self, y: np.ndarray) -> None:
        """Takes the normaliser from training targets (steps first)."""

    def loss(self, raw: Tensor, y: Tensor) -> Tensor:
        """The loss of each step."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def point(self, raw: Tensor) -> Tensor:
        """The estimate in the units of the targets."""
        raise NotImplementedError(f"{type(self).__name__} has no point estimate")

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """What it says beside its estimate, by name, in the units of the targets; an exported step gives it too."""
        return {}

    def standard(self, y: Tensor) -> Tensor:
        """Targets as `forward` gives them."""
        raise NotImplementedError(f"{type(self).__name__} has no standard targets")

    def usual(self) -> dict[str, tuple[float, float]]:
        """Bounds between which each target that is a quantity usually lies."""
        return {}

    def said(self, prediction: Mapping[str, float]) -> dict[str, float | str]:
        """A point estimate for people: classes and symbols by their names."""
        return dict(prediction)

    def sample(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw from what it says, in the units of the targets; of one that says no distribution, its estimate."""
        return self.point(raw)


class HeadSpec(Spec):
    """Spec of a head."""

    targets: tuple[str, ...]
    """Names of the streams it learns."""
    vectors: ClassVar[bool] = False
    """Whether a step of a target may be several numbers."""

    def build(self, features: int, sizes: Sequence[int] = ()) -> Head:
        """The head on so many features; with vectors, for targets of so many numbers each (none given: 1 each)."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")


def numbers(target: str, size: int) -> list[str]:
    """Names of a target's numbers."""
    return [target] if size == 1 else [f"{target}[{i}]" for i in range(size)]


def named(streams: Sequence[str], sizes: Sequence[int]) -> tuple[str, ...]:
    """Names of the numbers of all targets."""
    return tuple(name for each in map(numbers, streams, sizes) for name in each)


RowRead = Callable[[Float[np.ndarray, "feature"]], np.ndarray]
"""What a feature says: chances (class), or estimate and quantiles (target number)."""


def product(linear: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a layer, for NumPy."""
    weight, bias = (p.detach().float().cpu().numpy().copy() for p in (linear.weight, linear.bias))
    return weight, bias


def wide(raw: Tensor) -> Tensor:
    """Outputs in float32 at least: a head reckons in no less, whatever a model computes in."""
    return raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
