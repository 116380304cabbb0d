"""Recipe: all that makes a scored model out of data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from ..config import Spec
from ..data.augment import Augment
from ..data.batches import Batches, Lanes, Windows
from ..data.cache import cache_folder
from ..data.examples import ELAPSED, Example, Reading, Wanted, examples
from ..data.inputs import joined
from ..data.records import Record
from ..data.splits import Split, unsaid
from ..errors import UserError
from ..nn.cores import CoreSpec
from ..nn.encoders import EncoderSpec, Joined, prepare_batch, prepare_named
from ..nn.heads import HeadSpec
from ..nn.model import Flavour, Model, Network, SequenceModel
from ..progress import Watch, silent
from ..sources.source import SourceSpec
from .task import TaskSpec, task_of
from .trainer import Training

PREPARED = 1
"""Version of the cache of prepared inputs; counted up when an encoder's `prepare` changes what it gives."""
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]]
"""Shape of a raw step; of several streams by name."""
Parts = Mapping[str, list[Record]]
"""Records of `train`, `validation` and `test`."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Spec):
    """What the pipeline asks of a recipe; it reads no data itself."""

    source: SourceSpec
    """Where records come from when no data is given, and how given data is read."""
    head: HeadSpec
    task: TaskSpec | None = None
    """How it is scored and told; None: as what its head says usually is."""
    split: Split = Split()
    training: Training = Training()

    renamed_options: ClassVar[dict[str, str]] = {}
    """Options of version 0.1 on the command line, and what they are called now."""
    learned_files: ClassVar[tuple[str, ...]] = ()
    """Files that `fit_vocabulary` writes into the run's folder."""

    def for_records(self, records: Sequence[Record]) -> Self:
        """The variant of this recipe for such records, before options are read and anything is divided."""
        return self

    def transform_records(self, records: list[Record]) -> list[Record]:
        """All records as this recipe looks at them, whatever they are for."""
        return records

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        """`train`, `validation` and `test`; tells of what is left out."""
        return self.split.divide(records, say)

    def adapt(self, parts: Parts) -> Self:
        """The recipe with what it learns from divided records: an alphabet, the names of classes."""
        return self

    def shapes(self, records: Sequence[Record]) -> Shapes:
        """Shape of a raw step of such records."""
        raise NotImplementedError(f"{type(self).__name__} has no shapes")

    def fit_vocabulary(self, records: Sequence[Record], folder: Path) -> None:
        """Keeps in the run's folder what training records teach and config.json is too small for."""

    def load_skeleton(self, raw: Shapes, folder: Path) -> SequenceModel:
        """The model for raw steps of these shapes, before its weights are read."""
        raise NotImplementedError(f"{type(self).__name__} builds nothing")

    def training_records(self, part: str, records: list[Record]) -> list[Record]:
        """Records of a part (`train`, `validation`) as they are learned from; what is scored stays as it is."""
        return records

    def examples(self, model: Any, records: Sequence[Record], watch: Watch = silent) -> list[Any]:
        """Records as the model sees them."""
        raise NotImplementedError(f"{type(self).__name__} has no examples")

    def fit_normalisers(self, model: Any, examples: Sequence[Any]) -> None:
        """Takes normalisers from training examples."""

    def make_batches(self, model: Any, examples: Sequence[Any], rank: int = 0, ranks: int = 1) -> Any:
        """The batches of one of `ranks` processes."""
        raise NotImplementedError(f"{type(self).__name__} has no batches")

    def validation(self, examples: Sequence[Any]) -> Callable[[Any], float]:
        """A score on validation examples, the lower the better."""
        task = task_of(self)
        return lambda model: task.validation(self, model, examples)


@dataclass(frozen=True, kw_only=True)
class StepRecipe(Recipe):
    """A model that takes a step and says something of it: encoder, core, head."""

    encoder: EncoderSpec
    core: CoreSpec
    inputs: str = "picture"
    """Stream that the model sees; of several, the one on whose clock the others are read."""
    flavour: Flavour = "many-to-many"
    skip: bool = False
    """Whether the head sees the encoder's feature beside the core's."""
    feedback: bool = False
    """Whether the core is fed the head's answer of the step before; in training every other row gets the truth."""
    batches: Lanes | Windows = Lanes()
    augment: tuple[Augment, ...] = ()

    @property
    def named(self) -> Joined | None:
        """The encoder of several inputs by name; None where there is one, without a name."""
        # What is not an encoder is refused when the model is built.
        return self.encoder.named(self.inputs) if isinstance(self.encoder, EncoderSpec) else None

    def build(self, raw: Shapes) -> Model:
        """The model for raw steps of this shape; of several inputs and of targets that are vectors, by name."""
        named, sizes = self.named, ()
        if isinstance(raw, dict):
            sizes = [raw[name][-1] if name in raw else 1 for name in self.head.targets] if self._vectors else ()
            raw = raw if named else raw[self.inputs]
        network = Network(named or self.encoder, self.core, self.head, self.flavour, self.skip, self.feedback)
        return network.build(raw, sizes)

    def load_skeleton(self, raw: Shapes, folder: Path) -> Model:
        return self.build(raw)

    def shapes(self, records: Sequence[Record]) -> Shapes:
        first, named = records[0], self.named
        vectors = [name for name in self.head.targets if name in first.streams] if self._vectors else []
        sizes = {name: shape[1:] for name in vectors if len(shape := first[name].values.shape) == 2 and shape[1] > 1}
        if not named and not sizes:
            return _shape(first, self.inputs)
        return {name: _shape(first, name) for name in (named.streams if named else [self.inputs])} | sizes

    @property
    def _vectors(self) -> bool:
        """Whether a target may be several numbers a step."""
        return isinstance(self.head, HeadSpec) and self.head.vectors

    def wanted(self, model: Model) -> Wanted:
        """What its examples are made of."""
        if (named := self.named) is None:
            inputs = [Reading(self.inputs, partial(prepare_batch, model.encoder), _key(self.encoder))]
        else:
            of = {part.stream: part for part in named.parts}
            inputs = [
                Reading(
                    name,
                    partial(prepare_named, model.encoder, name),
                    _key(of[name].encoder) if name in of else "",
                    name in of and of[name].once,
                    name in of and of[name].encoder.gaps,
                )
                for name in named.streams
            ]
        head, once = model.head, self.flavour == "many-to-one"
        return Wanted(inputs, self.inputs, head.streams, head.sizes, named is not None, once)

    def examples(self, model: Model, records: Sequence[Record], watch: Watch = silent) -> list[Example]:
        return examples(records, self.wanted(model), cache_folder(), watch)

    def fit_normalisers(self, model: Model, examples: Sequence[Example]) -> None:
        fit_normalisers(model, examples)

    def make_batches(self, model: Model, examples: Sequence[Example], rank: int = 0, ranks: int = 1) -> Batches:
        return Batches(self.batches, examples, model.head.targets, self.augment, self.training.seed, rank, ranks)


def fit_normalisers(model: Model, examples: Sequence[Example]) -> None:
    """Input and target normalisers from training examples; long ones are looked at every few steps."""
    total = sum(map(len, examples))
    every = max(1, total // 4096)

    model.encoder.fit(joined([e.x[::every] for e in examples]))
    model.head.fit(
        np.stack([e.y for e in examples]) if examples[0].y.ndim == 1 else np.concatenate([e.y for e in examples])
    )


def checked(recipe: object, name: str) -> Recipe:
    """What a function of that name gave, where it is a recipe. UserError where it is not."""
    if not isinstance(recipe, Recipe):
        raise UserError(f"{name} gives a {type(recipe).__name__}, not a Recipe; return a StepRecipe, for example")
    return recipe


def _shape(record: Record, name: str) -> tuple[int, ...]:
    """Shape of a raw step of a stream."""
    if name == ELAPSED and name not in record.streams:
        return (1,)
    return tuple(record[name].values.shape[1:]) or (1,)


def _key(encoder: EncoderSpec) -> str:
    """Key of the cache of its prepared pictures, which whatever else sees the same pictures shares."""
    return f"{PREPARED} {getattr(encoder, 'pixels', encoder)}"


def read_records(recipe: Recipe, data: Sequence[str], watch: Watch = silent, look: bool = False) -> list[Record]:
    """All records of some data, or of the recipe's own source, as the recipe looks at them."""
    return recipe.transform_records(open_records(recipe, data, watch, look))


def open_records(recipe: Recipe, data: Sequence[str], watch: Watch = silent, look: bool = False) -> list[Record]:
    """The same as they were recorded, numbered where two recordings have the same name.

    With `look` nothing is made in a folder that the recipe names.
    """
    if not data:
        return recipe.source.look(watch) if look else recipe.source.read(watch)
    records = recipe.source.open(data, watch)
    names = [r.name for r in records]
    if len(set(names)) < len(names):
        records = [replace(r, name=f"{i}/{r.name}") for i, r in enumerate(records)]
    return records
