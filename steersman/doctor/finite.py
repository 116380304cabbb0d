"""Whether weights, losses and gradients are numbers at all."""

import torch

from ..training.checkpoints import not_finite
from .findings import Finding, Patient
from .surface import mean_loss, smaller


def examine_weights(patient: Patient) -> list[Finding]:
    """Weights and normalisers that are NaN or infinite."""
    what = not_finite(patient.model.state_dict())
    return [Finding("not-finite", 1.0, 1.0, what)] if what else []


def examine_numbers(patient: Patient) -> list[Finding]:
    """Losses and gradients that are, of weights that are not."""
    model = patient.sequence_model()
    loss = mean_loss(model, smaller(patient.held))
    weights = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    for what, numbers in (("loss", [loss]), ("gradient", slopes)):
        if not all(n.isfinite().all() for n in numbers if n is not None):
            return [Finding("not-finite", 1.0, 1.0, f"the {what} of a stretch of held-out records is NaN or infinite")]
    return []
