"""Whether the state stays where training saw it when a stream goes on and on."""

import numpy as np
import torch
from torch import Tensor

from ..nn.cores import State, state_tensors
from ..nn.model import Model
from .findings import Curve, Finding, Patient, Stretch, above

DRIFTED = 3.0
"""Times the state's norm at the end of a training window."""
MOST_NORM = 1e12
"""Norm of the state beyond which nothing is to be learned from going on."""
LONGER = 16
"""Windows that the stream goes on for."""


@torch.no_grad()
def state_norms(model: Model, held: Stretch, windows: int = LONGER) -> list[float]:
    """Norm of the core's state a row, after each of many stretches that follow on each other in turn."""
    state, norms = model.core.initial(len(held.feature)), []
    for turn in range(windows):
        # Each row goes on with the stretch of the next row: new inputs of the same kind.
        state = model.core(held.feature.roll(turn, 0), state)[1]
        norms.append(_norm(state))
        if not np.isfinite(norms[-1]) or norms[-1] > MOST_NORM:
            break
    return norms


def _norm(state: State) -> float:
    parts: list[Tensor] = state_tensors(state)
    return float(sum(p.double().square().sum() for p in parts) / len(parts[0])) ** 0.5


def examine_state(patient: Patient) -> list[Finding]:
    model, held = patient.causal(), patient.held
    norms = state_norms(model, held)
    ratio = norms[-1] / max(norms[0], 1e-12)
    evidence = (
        f"over {len(norms) * held.steps} steps the state's norm goes from {norms[0]:.3g} to {norms[-1]:.3g}, "
        f"{ratio:.3g} times"
    )
    curve = patient.keep(Curve([held.steps * (i + 1) for i in range(len(norms))], norms, "steps", "norm of the state"))
    return above("state-drift", ratio, DRIFTED, evidence, curve)
