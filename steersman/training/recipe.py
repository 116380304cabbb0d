"""Recipe: all that makes a scored model out of data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..config import Spec
from ..data.batches import Batches, Lanes, Windows
from ..data.cache import cache_folder
from ..data.examples import Example, examples
from ..data.records import Record
from ..data.splits import Split, unsaid
from ..nn.encoders import prepare_batch
from ..nn.model import Flavour, Model, Network
from ..progress import Watch, silent
from ..sources import read
from .trainer import Training

PREPARED = 1
"""Of the cache of prepared inputs; counted up when an encoder's `prepare` changes what it gives."""


@dataclass(frozen=True)
class Recipe(Spec):
    """All that makes a scored model out of data."""

    encoder: Spec
    core: Spec
    head: Spec
    source: Spec
    """Where records come from when no data is given."""
    inputs: str = "picture"
    """The stream that the model sees."""
    flavour: Flavour = "many-to-many"
    skip: bool = False
    """The head sees the encoder's feature beside the core's."""
    feedback: bool = False
    """The core is fed what the head said of the step before; in training every other row is told the truth instead."""
    batches: Lanes | Windows = Lanes()
    augment: tuple[Spec, ...] = ()
    split: Split = Split()
    training: Training = Training()

    learned_files: ClassVar[tuple[str, ...]] = ()
    """What `learn` writes into the run's folder."""

    def build(self, raw: tuple[int, ...]) -> Model:
        return Network(self.encoder, self.core, self.head, self.flavour, self.skip, self.feedback).build(raw)

    def examples(self, model: Model, records: Sequence[Record], watch: Watch = silent) -> list[Example]:
        """Records as the model sees them."""
        key = f"{PREPARED} {getattr(self.encoder, 'pixels', self.encoder)}"  # Whatever else sees the same pictures.
        prepare = partial(prepare_batch, model.encoder)
        once = self.flavour == "many-to-one"
        return examples(records, self.inputs, model.head.targets, prepare, key, cache_folder(), once, watch)

    def read(self, data: Sequence[str]) -> list[Record]:
        """The records of some folders."""
        return [record for path in data for record in read(Path(path))]

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """`train`, `validation` and `test`; tells of what is left out."""
        return self.split.divide(records, say)

    def seen(self, records: list[Record]) -> list[Record]:
        """All records as this recipe looks at them, whatever they are for."""
        return records

    def taught(self, part: str, records: list[Record]) -> list[Record]:
        """Records of a part (`train`, `validation`) as they are learned from; what is scored stays as it is."""
        return records

    def learn(self, records: Sequence[Record], folder: Path) -> None:
        """Keeps in the run's folder what the model is built with and training records tell, such as a vocabulary."""

    def model(self, raw: tuple[int, ...], folder: Path) -> Model:
        """The model for raw steps of this shape, before its weights are read."""
        return self.build(raw)

    def fit(self, model: Model, shown: Sequence[Example]) -> None:
        """Takes normalisers from training examples."""
        fit_normalisers(model, shown)

    def batched(self, model: Model, shown: Sequence[Example], rank: int, ranks: int) -> Batches:
        """The batches of one of `ranks` processes."""
        augment: Any = self.augment
        return Batches(self.batches, shown, model.head.targets, augment, self.training.seed, rank, ranks)

    def validation(self, shown: Sequence[Example]) -> Callable[[Model], float]:
        """A score on validation examples, the lower the better."""
        return partial(Model.held_out_loss, examples=shown)


def fit_normalisers(model: Model, shown: Sequence[Example]) -> None:
    """Input and target normalisers from training records; long ones are looked at every few steps."""
    total = sum(map(len, shown))
    every = max(1, total // 4096)

    model.encoder.fit(np.concatenate([e.x[::every] for e in shown]))
    model.head.fit(np.stack([e.y for e in shown]) if shown[0].y.ndim == 1 else np.concatenate([e.y for e in shown]))


def read_records(recipe: Recipe, data: Sequence[str], watch: Watch = silent) -> list[Record]:
    """All records of some folders, or of the recipe's own source."""
    if not data:
        return recipe.seen(recipe.source.read(watch))  # pyright: ignore[reportAttributeAccessIssue]
    records = recipe.seen(recipe.read(data))
    names = [r.name for r in records]
    if len(set(names)) < len(names):
        # The same names in two folders are two recordings: number them.
        records = [replace(r, name=f"{i}/{r.name}") for i, r in enumerate(records)]
    return records
