"""A look during training: cheap figures every so many steps, and a word when one is out of the ordinary."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..data.batches import Batch
from ..training.trainer import Trainer
from .findings import Finding, Stretch
from .gradients import flow_findings
from .surface import update_findings, update_sizes
from .units import unit_findings

ROWS, STEPS, LAGS = 4, 32, 16
"""Sequences, steps and lags looked at in the batch that was just trained on."""
COST = 0.03
"""Share of the training's time that looking may take: when it took more, the next look is put off."""


@dataclass
class Live:
    """Looks every `every` steps; says each kind of finding once, and gives figures for the log."""

    say: Callable[[str], None]
    every: int = 200
    told: set[str] = field(default_factory=set)
    began: float = field(default_factory=time.perf_counter)
    spent: float = 0.0

    def __call__(self, trainer: Trainer, batch: Batch) -> dict[str, float]:
        """Figures for the log's row of a step: none where no look is due."""
        if trainer.at.step % self.every or self.spent > COST * (time.perf_counter() - self.began):
            return {}
        start = time.perf_counter()
        generator, training = torch.get_rng_state(), trainer.model.training
        try:
            trainer.model.eval()
            found, figures = _look(trainer, batch)
        finally:
            trainer.model.train(training)
            torch.set_rng_state(generator)  # Training goes on as if nobody had looked.
        for f in found:
            if f.kind not in self.told:
                self.told.add(f.kind)
                self.say(f"doctor, step {trainer.at.step}: {f.kind}: {f.evidence}. {f.advice}")
        self.spent += time.perf_counter() - start
        return figures


def _look(trainer: Trainer, batch: Batch) -> tuple[list[Finding], dict[str, float]]:
    model: Any = trainer.model
    sizes = update_sizes(trainer)
    found, figures = update_findings(sizes), {}
    if sizes:
        figures["update_to_weight"] = float(torch.tensor([s for s, _ in sizes.values()]).median())
    if not model.aligned:
        return found, figures
    part = batch.to(model.device)
    cut = STEPS if part.y.ndim == 3 else part.mask.shape[1]
    x, mask = part.x[:ROWS, :cut], part.mask[:ROWS, :cut]
    with torch.no_grad():
        feature = model.encoder(x, model.encoder.initial(len(x)))[0].float()
    held = Stretch(x, feature, part.y[:ROWS, :cut] if part.y.ndim == 3 else part.y[:ROWS], mask)
    found += unit_findings(model, held)
    if model.causal and model.core.remembers and float(mask.sum(1).min()) > 2:
        late, figures["gradient_horizon"], _ = flow_findings(model, held, LAGS, 1)
        found += late
    return found, figures
