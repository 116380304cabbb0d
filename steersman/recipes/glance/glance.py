"""Recipe of pictures of which little is seen at a time, and whose label is told in the end."""

from dataclasses import dataclass, replace
from math import inf
from typing import Self

import numpy as np

from ...data.records import Record, Stream
from ...errors import UserError
from ...nn.glimpses import Glimpse, GlimpseModel, glimpse_model
from ...nn.heads import Classification
from ...sources.pictures import label_of
from ...training.recipe import Parts, Shapes
from ..stills import Still


@dataclass(frozen=True, kw_only=True)
class Glance(Still):
    """Glimpses, a core that says where the next one is, and a class in the end."""

    encoder: Glimpse = Glimpse()
    head: Classification
    reward: float = 0.01
    """Weight of learning where to look, beside learning what is seen."""
    classes: tuple[str, ...] = ()
    """Names of the classes; learned from the training part."""

    BOUNDS = {**Still.BOUNDS, "reward": (0, inf)}

    def adapt(self, parts: Parts) -> Self:
        names = self.classes or tuple(sorted({label_of(record) for record in parts["train"]}))
        if len(names) < 2:
            raise UserError(f"all pictures are {' '.join(names)!r}: there is nothing to tell apart; give two classes")
        for record in (record for part in parts.values() for record in part):
            if (label := label_of(record)) not in names:
                raise UserError(
                    f"{record.name} is of class {label!r}, which no picture of the training part is; give more of "
                    "them, or leave them out"
                )
        return replace(self, classes=names, head=replace(self.head, classes=len(names), names=names))

    def build(self, raw: Shapes) -> GlimpseModel:
        assert isinstance(raw, tuple)
        return glimpse_model(self.encoder, self.core, self.head, self.flavour, self.skip, raw, self.reward)

    def answers(self, record: Record) -> dict[str, Stream]:
        label = np.array([self.classes.index(label_of(record))], np.float32)
        return {self.head.targets[0]: Stream(label, np.zeros(1))}
