"""What a model does inside at one step of a stream: its gates, and where it looked."""

from collections.abc import Sequence

import numpy as np
import torch

from ..explain.gates import CANDIDATE, Belt, belts
from ..explain.saliency import integrated_gradients, last_output
from ..nn.cores import State, map_state, state_tensors
from ..nn.model import Model
from ..nn.pictures import PictureEncoder

MOST_UNITS = 64
"""Shown of a layer, evenly chosen."""
POINTS = 4
"""Of the path from a picture that says nothing to the one that is seen."""


class Insight:
    """Looks into a model beside the stream; what it can't look into it says nothing of."""

    def __init__(self, model: Model):
        self.model = model.requires_grad_(False)
        plain = not model.feedback  # Its core is also fed what was said before.
        self.has_gates = plain and model.causal
        self.has_look = plain and isinstance(model.encoder, PictureEncoder)
        self.layers = self._layers()

    def _layers(self) -> list[dict]:
        """The layers and their gates, as `hello` tells them."""
        blank = np.zeros(self.model.encoder.raw, np.uint8 if len(self.model.encoder.raw) == 3 else np.float32)
        shown = self._belts(blank, [t.numpy() for t in state_tensors(self.model.initial(1))]) if self.has_gates else []
        return [
            {"layer": number, "gates": _names(belt), "units": belt.state.shape[1]} for number, belt in enumerate(shown)
        ]

    def gates(self, raw: np.ndarray, state: Sequence[np.ndarray]) -> list[list[list[float]]] | None:
        """By layer and gate, a number from 0 to 1 a unit, for a step from the state before it."""
        if not self.has_gates:
            return None
        return [
            [np.round(belt.gates[name][0, _chosen(belt)], 2).tolist() for name in _names(belt)]
            for belt in self._belts(raw, state)
        ]

    def look(self, raw: np.ndarray, state: Sequence[np.ndarray]) -> np.ndarray | None:
        """How much each place of the whole picture moved the first target, uint8 (height width) of any size."""
        if not self.has_look:
            return None
        states = self._nested(state)
        x = self.model.encoder.prepare(torch.as_tensor(raw).unsqueeze(0)).to(self.model.encoder.mean.dtype)
        plain = self.model.encoder.mean.expand_as(x)
        found = integrated_gradients(
            lambda line: self.model.head.point(last_output(self.model, line, states))[:, 0], x, plain, POINTS
        )
        moved = np.abs(found.values[0].sum(-1))
        high = float(np.quantile(moved, 0.995)) or 1.0
        return self._whole((np.clip(moved / high, 0, 1) ** 0.7 * 255).astype(np.uint8))

    def _whole(self, seen: np.ndarray) -> np.ndarray:
        """With what was cut away of the picture above and below, where nothing was looked at."""
        pixels = self.model.encoder.spec.pixels  # pyright: ignore[reportAttributeAccessIssue]
        top, bottom = getattr(pixels, "top", 0.0), getattr(pixels, "bottom", 0.0)
        rows = len(seen) / (1 - top - bottom)
        return np.pad(seen, ((round(top * rows), round(bottom * rows)), (0, 0)))

    @torch.no_grad()
    def _belts(self, raw: np.ndarray, state: Sequence[np.ndarray]) -> list[Belt]:
        encoder_state, core_state = self._nested(state)
        x = self.model.encoder.prepare(torch.as_tensor(raw).unsqueeze(0))
        feature, _ = self.model.encoder(x.unsqueeze(1), encoder_state)
        return belts(self.model.core, feature[0], core_state)

    def _nested(self, state: Sequence[np.ndarray]) -> State:
        """A session's state as the model's own."""
        arrays = iter(state)
        return map_state(lambda _: torch.from_numpy(next(arrays)), self.model.initial(1))


def _names(belt: Belt) -> list[str]:
    return [name for name in belt.gates if name != CANDIDATE]


def _chosen(belt: Belt) -> np.ndarray:
    units = belt.state.shape[1]
    return np.linspace(0, units - 1, min(units, MOST_UNITS)).round().astype(int)
