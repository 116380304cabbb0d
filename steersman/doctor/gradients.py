"""How far back a step's gradient goes, along time and depth."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..nn.cores import state_tensors
from ..nn.model import Model
from .findings import Curve, Finding, Patient, Stretch, above, below, losses

FALLEN = 0.01
"""A gradient that small beside that at its own step is as good as none."""
VANISHED = 2.5
"""Steps to a hundredth: a core that has learned any memory passes it in more (the least of healthy runs is 3)."""
EXPLODED = 20.0
"""Times the gradient at its own step: gates and a trained tanh stay below a few."""
LAGS = 32
ENDS = 3
"""Steps whose gradient is followed, over which norms are averaged."""


def gradient_by_lag(
    model: Model, feature: Tensor, target: Tensor, ends: Sequence[int], lags: int = LAGS
) -> tuple[Tensor, Tensor]:
    """Norms of the gradient of the loss at a step t with respect to state (layer lag) and feature (lag) at t - lag.

    Means over `ends` of the norm over rows and units. The gradient is the whole one, through all later steps; that of
    lag 0, which no state has passed, is with respect to the core's output, for every layer.
    """
    core = model.core
    sizes = [len(state_tensors(layer.state)) for layer in core.layers(core.initial(1))]
    state_norm, feature_norm = torch.zeros(len(sizes), lags + 1), torch.zeros(lags + 1)
    for end in ends:
        assert end >= lags
        with torch.no_grad():
            state = core(feature[:, : end - lags], core.initial(len(feature)))[1]
        given = [feature[:, t : t + 1].detach().requires_grad_() for t in range(end - lags, end + 1)]
        y, states = given[0], []
        for x in given:
            y, state = core(x, state)
            states.append(state)
        answer = target if target.ndim == 2 else target[:, end]
        loss = losses(model, y, given[-1], answer[:, None]).sum()
        held = [t for s in states[:-1] for t in state_tensors(s)]
        found = list(torch.autograd.grad(loss, [y, *given, *held], allow_unused=True))
        state_norm[:, 0] += _norm(found[:1])
        for lag in range(lags + 1):
            feature_norm[lag] += _norm([found[1 + lags - lag]])
        for lag in range(1, lags + 1):
            parts = iter(found[len(given) + 1 + (lags - lag) * sum(sizes) :])
            for layer, size in enumerate(sizes):
                state_norm[layer, lag] += _norm([next(parts) for _ in range(size)])
    return state_norm / len(ends), feature_norm / len(ends)


def _norm(parts: Sequence[Tensor | None]) -> float:
    """Norm of all parts together; of none, zero."""
    return sum(float(p.double().square().sum()) for p in parts if p is not None) ** 0.5


def horizon(norms: Tensor) -> float:
    """Steps until the norm is a hundredth of that at lag 0, on a line of its logarithm; inf: not within."""
    share = (norms / norms[0].clamp_min(1e-30)).clamp_min(1e-12)
    fallen = (share < FALLEN).nonzero()
    if not len(fallen):
        return float("inf")
    lag = int(fallen[0])
    if lag == 0:
        return 0.0  # There is no gradient even at its own step.
    high, low = float(share[lag - 1].log()), float(share[lag].log())
    return lag - 1 + (high - np.log(FALLEN)) / max(high - low, 1e-12)


def examine_gradients(patient: Patient) -> list[Finding]:
    found, _, curve = flow_findings(patient.causal(), patient.held)
    patient.keep(curve)
    return found


def flow_findings(
    model: Model, held: Stretch, lags: int = LAGS, ends: int = ENDS
) -> tuple[list[Finding], float, Curve]:
    """Vanishing and exploding, by the layer that passes it furthest, and most; the furthest horizon, at most `lags`.

    The curve is that of the layer that passes it furthest.
    """
    norms, _ = flow(model, held, lags, ends)
    furthest = max(range(len(norms)), key=lambda i: horizon(norms[i]))
    steps = list(range(norms.shape[1]))
    share = norms / norms[:, :1].clamp_min(1e-30)

    def curve(layer: int) -> Curve:
        return Curve(steps, share[layer].tolist(), "steps back", "gradient, beside that at its own step")

    where = f" in layer {furthest + 1} of {len(norms)}" if len(norms) > 1 else ""
    distance = horizon(norms[furthest])
    evidence = f"the gradient falls to a hundredth over {distance:.1f} steps{where}"
    found = below("vanishing-gradient", distance, VANISHED, evidence, curve(furthest))
    most = int(share.amax(1).argmax())
    peak = float(share[most].max())
    evidence = f"the gradient {int(share[most].argmax())} steps back is {peak:.3g} times that at its own step"
    found += above("exploding-gradient", peak, EXPLODED, evidence, curve(most))
    return found, min(distance, float(steps[-1])), curve(furthest)


def flow(model: Model, held: Stretch, lags: int = LAGS, ends: int = ENDS) -> tuple[Tensor, Tensor]:
    """`gradient_by_lag` at some ends of a stretch, the last among them."""
    lags = min(lags, held.steps - 1)
    if model.flavour == "many-to-one":
        # The answer comes at each row's own end: only rows of the commonest length are followed.
        length = int(held.mask.sum(1).mode().values)
        rows = held.mask.sum(1) == length
        lags = min(lags, length - 1)
        return gradient_by_lag(model, held.feature[rows], held.y[rows], [length - 1], lags)
    there = held.mask[:, -1] > 0
    there = there if there.any() else held.mask[:, lags] > 0
    last = int(held.mask[there].sum(1).min()) - 1
    lags = min(lags, last)
    at = np.unique(np.linspace(lags, last, ends).astype(int)).tolist()
    return gradient_by_lag(model, held.feature[there], held.y[there], at, lags)
