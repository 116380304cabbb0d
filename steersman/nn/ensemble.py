"""Several models of one question as one that says the mean of their probabilities."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..data.examples import Example
from ..errors import UserError
from .heads import tells_classes
from .model import Flavour, Model


class Ensemble(Model):
    """The first model, with raw outputs that are the logarithms of the mean of all models' probabilities.

    The models read the same examples, and their heads tell the same classes. UserError where they tell none.
    """

    def __init__(self, models: Sequence[Model]):
        first = models[0]
        if not all(tells_classes(model.head) for model in models):
            raise UserError("only models that tell classes are averaged; these say something else")
        flavour = cast(Flavour, first.flavour)
        super().__init__(first.encoder, first.core, first.head, flavour, first.skip)
        self.models = nn.ModuleList(models)
        self.no_step = "it is several models, each with a state of its own"

    def streamed(
        self, examples: Sequence[Example], steps: int = 64, rows: int = 16
    ) -> Iterator[tuple[int, int, Tensor]]:
        each: list[Any] = list(self.models)
        for pieces in zip(*(model.streamed(examples, steps, rows) for model in each), strict=True):
            said = [model.head.probabilities(raw.double()) for model, (*_, raw) in zip(each, pieces, strict=True)]
            place, start, _ = pieces[0]
            yield place, start, torch.stack(said).mean(0).clamp_min(1e-300).log().float()
