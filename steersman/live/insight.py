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
"""Units shown of a layer, evenly chosen."""
POINTS = 4
"""Points of the path from a picture that says nothing to the one that is seen."""


class Insight:
    """Looks into a model beside the stream."""

    def __init__(self, model: Model):
        self.model = model.requires_grad_(False)
        self.has_look = isinstance(model.encoder, PictureEncoder)
        blank = np.zeros(model.encoder.raw, np.uint8 if len(model.encoder.raw) == 3 else np.float32)
        belts = self.at(blank, [t.numpy() for t in state_tensors(model.initial(1))]).belts
        self.layers = [
            {"layer": number, "gates": list(_shown(belt)), "units": belt.state.shape[1]}
            for number, belt in enumerate(belts)
        ]
        """The layers and their gates, as `hello` tells them."""

    def at(self, raw: np.ndarray, state: Sequence[np.ndarray]) -> "Step":
        """A raw step, from the state of a session before it."""
        return Step(self, raw, state)


class Step:
    """One step, looked into in several ways; its input is prepared once for all of them."""

    def __init__(self, insight: Insight, raw: np.ndarray, state: Sequence[np.ndarray]):
        self._insight, self._model = insight, insight.model
        self._x = self._model.encoder.prepare(torch.as_tensor(raw).unsqueeze(0))
        arrays = iter(state)
        self._state: State = map_state(lambda _: torch.from_numpy(next(arrays)), self._model.initial(1))

    def gates(self) -> list[list[list[float]]]:
        """Gates by layer and name, a number from 0 to 1 a unit."""
        return [[np.round(gate[0, _chosen(belt)], 2).tolist() for gate in _shown(belt).values()] for belt in self.belts]

    @property
    @torch.no_grad()
    def belts(self) -> list[Belt]:
        """The gates of each layer."""
        encoder_state, core_state = self._state
        feature, _ = self._model.encoder(self._x.unsqueeze(1), encoder_state)
        return belts(self._model.core, feature[0], core_state)

    def look(self) -> np.ndarray | None:
        """How much each place of the whole picture moved the first target, uint8 (height width) of any size.

        Of a model that sees a part of it, which part. None where nothing is seen.
        """
        if (part := self._model.encoder.looks_at(self._state[0])) is not None:
            return (part * 255).byte().numpy()
        if not self._insight.has_look:
            return None
        model = self._model
        x = self._x.to(model.encoder.mean.dtype)
        found = integrated_gradients(
            lambda line: model.head.point(last_output(model, line, self._state))[:, 0],
            x,
            model.encoder.mean.expand_as(x),
            POINTS,
        )
        moved = np.abs(found.values[0].sum(-1))
        high = float(np.quantile(moved, 0.995)) or 1.0
        return self._whole((np.clip(moved / high, 0, 1) ** 0.7 * 255).astype(np.uint8))

    def _whole(self, seen: np.ndarray) -> np.ndarray:
        """The whole picture, with what was cut away above and below, where nothing was looked at."""
        pixels = self._model.encoder.spec.pixels  # pyright: ignore[reportAttributeAccessIssue]
        top, bottom = getattr(pixels, "top", 0.0), getattr(pixels, "bottom", 0.0)
        rows = len(seen) / (1 - top - bottom)
        return np.pad(seen, ((round(top * rows), round(bottom * rows)), (0, 0)))


def _shown(belt: Belt) -> dict[str, np.ndarray]:
    """Its gates (time unit) by what they are called."""
    return {belt.titles[name]: gate for name, gate in belt.gates.items() if name != CANDIDATE}


def _chosen(belt: Belt) -> np.ndarray:
    units = belt.state.shape[1]
    return np.linspace(0, units - 1, min(units, MOST_UNITS)).round().astype(int)
