"""The loss surface around the weights: curvature by Lanczos, and how far a step goes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..data.batches import Batch
from ..errors import NotFinite
from ..nn.heads import tells_classes
from ..nn.model import Model
from ..training.trainer import Trainer, Training
from .findings import Curve, Finding, Patient, Stretch, above, below

FLAT = 0.15
"""Gradient's norm beside the first one's below which the place counts as level; a sample alone makes a twentieth."""
DESCENDS = 0.1
"""Curvature of the steepest way down beside the sharpest way up: at a minimum it is noise of Hessian and sample."""
LEARNED = 0.9
"""Share of the untrained loss above which what is level is no solution."""
HIGH_UPDATE, LOW_UPDATE = 0.12, 2e-5
"""An update beside the weights: at most (healthy bold rates stay below 0.06), and as it is (usually 0.001 to 0.01)."""
ITERATIONS = 20


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> np.ndarray:
    """Eigenvalues of a symmetric matrix given by its product, ascending; the outermost come out first (Lanczos 1950).

    Every vector is made orthogonal to all before it, twice, so that none comes up again.
    """
    vectors = [start / start.norm()]
    diagonal, beside = [], []
    for _ in range(min(iterations, len(start))):
        w = product(vectors[-1])
        if not w.isfinite().all():
            raise NotFinite("a second derivative is NaN or infinite")
        diagonal.append(float(w @ vectors[-1]))
        for _ in range(2):
            for v in vectors:
                w = w - (w @ v) * v
        size = float(w.norm())
        if size < 1e-8 * max(map(abs, diagonal)) or size == 0:
            break
        beside.append(size)
        vectors.append(w / size)
    beside = beside[: len(diagonal) - 1]
    return np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))


def mean_loss(model: Model, held: Stretch) -> Tensor:
    """Mean loss with its graph, from the raw inputs on."""
    batch = Batch(held.x, held.y, held.mask, torch.ones(len(held.x), dtype=torch.bool))
    raw, _ = model(batch, model.initial(len(held.x)))
    total, weight = model.loss(batch, raw)
    return total / weight


def curvature(model: Model, held: Stretch, iterations: int = ITERATIONS, seed: int = 0) -> tuple[float, np.ndarray]:
    """Norm of the gradient of the mean loss, and eigenvalues of its Hessian, the outermost exact first."""
    weights = [p for p in model.parameters() if p.requires_grad]
    loss = mean_loss(model, held)
    slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
    slopes = [torch.zeros_like(w) if s is None else s for s, w in zip(slopes, weights, strict=True)]
    slope = torch.cat([s.flatten() for s in slopes])
    if not slope.isfinite().all():
        raise NotFinite("the gradient is NaN or infinite")

    def product(v: Tensor) -> Tensor:
        found = torch.autograd.grad(slope, weights, v, retain_graph=True, allow_unused=True)
        return torch.cat([(w * 0 if f is None else f).detach().flatten() for f, w in zip(found, weights, strict=True)])

    start = torch.randn(len(slope), generator=torch.Generator().manual_seed(seed), dtype=slope.dtype)
    return float(slope.detach().norm()), lanczos(product, start, iterations)


def smaller(held: Stretch, rows: int = 8, steps: int = 32) -> Stretch:
    """A part that second derivatives are quick on; whole sequences where the answer comes last."""
    cut = steps if held.y.ndim == 3 else held.steps
    y = held.y[:rows, :cut] if held.y.ndim == 3 else held.y[:rows]
    return Stretch(held.x[:rows, :cut], held.feature[:rows, :cut], y, held.mask[:rows, :cut])


def examine_surface(patient: Patient) -> list[Finding]:
    """A saddle told from a minimum: level, no better than untrained, and curved downwards."""
    model, held = patient.recurrent(), smaller(patient.learned)
    with torch.no_grad():
        now = float(mean_loss(model, held))
        idle = blank_loss(model, held, informed=True)
    if now < LEARNED * idle:
        return []
    slope, eigenvalues = curvature(model, held)
    down, up = float(eigenvalues[0]), float(eigenvalues[-1])
    first = max((row["gradient_norm"] for row in patient.log[:20]), default=max(1.0, slope))
    if slope > FLAT * max(first, 1.0):
        return []
    share = -down / max(up, 1e-12)
    evidence = (
        f"gradient {slope:.2g}, loss {now:.3g} as untrained ({idle:.3g}); curvature from {down:.3g} to {up:.3g} "
        f"(a step of that rate stays stable up to {2 / max(up, 1e-12):.2g})"
    )
    curve = patient.keep(Curve(list(range(len(eigenvalues))), eigenvalues.tolist(), "eigenvalue, sorted", "curvature"))
    return above("saddle", share, DESCENDS, evidence, curve)


def blank_loss(model: Model, held: Stretch, informed: bool = False) -> float:
    """Loss of a model that says the same whatever comes: the mean; of classes, that all are as likely.

    An `informed` one knows how common each class is.
    """
    once = held.y.ndim == 2
    steps, target = (1, held.y[:, None]) if once else (held.steps, held.y)
    raw = held.feature.new_zeros(len(held.y), steps, *model.head(_nothing(model)).shape[1:])
    if informed and tells_classes(model.head):
        raw = raw + (model.head.counts + 1).log()
    weight = held.mask[:, :1] if once else held.mask
    return float((model.head.loss(raw, target) * weight).sum() / weight.sum())


def _nothing(model: Model) -> Tensor:
    return torch.zeros(1, model.core.size + (model.encoder.size if model.skip else 0))


def examine_rate(patient: Patient) -> list[Finding]:
    """Update beside weight. What has leapt to large weights is told by the most that AdamW may change them by."""
    return update_findings(patient.updates)


def update_findings(updates: Mapping[str, tuple[float, float]]) -> list[Finding]:
    """Findings on `update_sizes`; of none, none."""
    if not updates:
        return []
    size, most = (float(np.median(part)) for part in zip(*updates.values(), strict=True))
    text = f"in the median layer an update at the full rate is {size:.2g} of the weights, and at most {most:.2g}"
    return [*above("rate-too-high", most, HIGH_UPDATE, text), *below("rate-too-low", size, LOW_UPDATE, text)]


def checkpoint_updates(
    model: nn.Module, tensors: Mapping[str, Mapping[str, Tensor]], training: Training
) -> dict[str, tuple[float, float]]:
    """`update_sizes` of a checkpoint: its moments and weights in the order of the model's parameters."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors["optimiser"].items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    names = [name for name, _ in model.named_parameters()]
    weights = [tensors["model"][name] for name in names]
    return _sizes(names, weights, [moments.get(i, {}) for i in range(len(names))], training)


def update_sizes(trainer: Trainer) -> dict[str, tuple[float, float]]:
    """AdamW's step at the full rate beside the weight, in norm, by matrix (biases begin at zero).

    And the most it can be, where all gradients of a weight are alike: the rate.
    """
    names, weights = zip(*trainer.model.named_parameters(), strict=True)
    return _sizes(names, weights, [trainer.optimiser.state.get(w, {}) for w in weights], trainer.training)


def _sizes(
    names: Sequence[str], weights: Sequence[Tensor], moments: Sequence[Mapping[str, Tensor]], training: Training
) -> dict[str, tuple[float, float]]:
    sizes = {}
    for name, weight, known in zip(names, weights, moments, strict=True):
        norm = float(weight.detach().norm())
        # Beside weights of zero, or without any gradient so far, a size says nothing.
        if weight.ndim < 2 or "exp_avg" not in known or norm < 1e-6 or not known["exp_avg_sq"].any():
            continue
        step = float(known["step"])
        mean = known["exp_avg"] / (1 - training.betas[0] ** step)
        square = known["exp_avg_sq"] / (1 - training.betas[1] ** step)
        size = float((training.learning_rate * mean / (square.sqrt() + 1e-8)).norm())
        sizes[name] = size / norm, training.learning_rate * weight.numel() ** 0.5 / norm
    return sizes
