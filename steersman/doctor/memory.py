"""What of the past the model in fact uses."""

import torch

from ..nn.model import Model
from .findings import Curve, Finding, Patient, Stretch, above, below, losses
from .probes import fitted, lagged, regression_rows
from .surface import blank_loss

UNUSED = 0.01
"""What forgetting everything must cost for a memory to be used, as a share of the loss of a model without a clue."""
OLDER = 0.15
"""Share of the target's variance that inputs older than a window must add to a linear probe."""
REACHES = (1, 2, 4, 8, 16, 32)


def loss_by_reach(model: Model, held: Stretch, replace: bool, reaches=REACHES) -> list[tuple[int, float]]:
    """The loss where only the last `reach` inputs are known, by reach; the last entry is that of the whole past.

    Older inputs are left out (the state begins at zero), or with `replace` those of other moments, at random.
    """
    most = held.steps - 1
    rows = [(k, _mean(model, held, k, replace)) for k in reaches if k <= most]
    return [*rows, (held.steps, _mean(model, held, held.steps, False))]


@torch.no_grad()
def _mean(model: Model, held: Stretch, reach: int, replace: bool) -> float:
    """Mean loss over the same steps whatever the reach: those with the longest past there is to compare."""
    feature, rows, steps = held.feature, *held.mask.shape
    once = model.flavour == "many-to-one"
    first = min(steps - 1, max(k for k in REACHES if k <= max(1, steps // 2)))
    lengths = held.mask.sum(1).long()
    if reach >= steps:
        y = model.core(feature, model.core.initial(rows))[0]
    else:
        prefix = min(16, steps) if replace else 0
        padded = torch.cat((feature.new_zeros(rows, reach - 1, feature.shape[2]), feature), 1)
        cut = padded.unfold(1, reach, 1).transpose(2, 3).flatten(0, 1)
        if prefix:
            generator = torch.Generator().manual_seed(0)
            flat = feature.flatten(0, 1)
            noise = flat[torch.randint(len(flat), (len(cut), prefix), generator=generator)]
            cut = torch.cat((noise, cut), 1)
        y = model.core(cut, model.core.initial(len(cut)))[0][:, -1].unflatten(0, (rows, steps))
    if once:
        at = (lengths - 1).clamp_min(0)
        index = torch.arange(rows)
        return float(losses(model, y[index, at][:, None], feature[index, at][:, None], held.y[:, None]).mean())
    weight = held.mask[:, first:]
    loss = losses(model, y[:, first:], feature[:, first:], held.y[:, first:])
    return float((loss * weight).sum() / weight.sum().clamp_min(1))


def examine_memory(patient: Patient) -> list[Finding]:
    """The loss without any past, and what lies beyond a training window."""
    model, held = patient.causal(), patient.held
    rows = loss_by_reach(model, held, replace=False)
    alone, whole = rows[0][1], rows[-1][1]
    curve = patient.keep(
        Curve([k for k, _ in rows], [loss for _, loss in rows], "inputs known, up to the last", "loss")
    )
    noisy = loss_by_reach(model, held, replace=True, reaches=REACHES[:1])[0][1]
    # A state of zero may never have been seen, so that forgetting hurts whatever is kept in it; noise has been.
    cost = (min(alone, noisy) - whole) / max(blank_loss(model, held), 1e-12)
    evidence = (
        f"forgetting all but the last input changes the loss from {whole:.4g} to {alone:.4g}; "
        f"noise in the place of what is older, to {noisy:.4g}"
    )
    return below("memory-unused", cost, UNUSED, evidence, curve)


def memory_used(rows: list[tuple[int, float]]) -> int:
    """The least reach whose loss is within a twentieth, of the way from the first to the last, of the last."""
    first, last = rows[0][1], rows[-1][1]
    return next(k for k, loss in rows if abs(loss - last) <= 0.05 * abs(first - last) + 1e-12)


def examine_windows(patient: Patient) -> list[Finding]:
    """Whether inputs older than a training window tell of the target."""
    patient.recurrent()
    window = getattr(patient.batches.spec, "window", 0)
    if not window or window > 32:
        return []
    x, y, lengths = regression_rows(patient)
    near = fitted(*lagged(x, y, lengths, range(window), skip=2 * window))
    far = fitted(*lagged(x, y, lengths, range(2 * window), skip=2 * window))
    gain = far - near
    evidence = (
        f"training windows are {window} steps; a linear probe that also sees the {window} before them tells "
        f"{far:.0%} of the target's variance instead of {near:.0%}"
    )
    return above("window-too-short", gain, OLDER, evidence)
