"""Recipe: all that makes a scored model out of data."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeGuard

import numpy as np
import torch
from torch import Tensor

from ..config import Spec
from ..data.augment import Augment
from ..data.batches import Batches, Lanes, Windows
from ..data.cache import cache_folder
from ..data.examples import ELAPSED, Example, Reading, Wanted, check, check_weights, examples
from ..data.inputs import joined
from ..data.lazy import Chain, is_lazy
from ..data.records import Record
from ..data.splits import Split, unsaid
from ..errors import UserError
from ..nn.cores import CoreSpec
from ..nn.encoders import EncoderSpec, Joined, prepare_batch, prepare_named
from ..nn.heads import HeadSpec, calibrates, tells_classes, tells_distribution
from ..nn.model import Flavour, Model, Network, SequenceModel
from ..progress import Watch, silent
from ..sources.source import SourceSpec
from .task import TaskSpec, task_of
from .trainer import Training

PREPARED = 1
"""Version of the cache of prepared inputs; counted up when an encoder's `prepare` changes what it gives."""
INTERVAL = (0.1, 0.9)
"""Quantiles that a head which says a distribution is asked for beside its estimate."""
Shapes = tuple[int, ...] | dict[str, tuple[int, ...]]
"""Shape of a raw step; of several streams by name."""


class RowByRow(Protocol):
    """Answers to the rows of one series."""

    columns: list[str]
    """Columns that a row must have."""

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the model says after this row."""
        ...


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

    def check(self, model: Any, records: Sequence[Record]) -> None:
        """UserError where one of these records can't be made an example, found before the work of training."""

    def fit_normalisers(self, model: Any, examples: Sequence[Any]) -> None:
        """Takes normalisers from training examples."""

    def make_batches(self, model: Any, examples: Sequence[Any], rank: int = 0, ranks: int = 1) -> Any:
        """The batches of one of `ranks` processes."""
        raise NotImplementedError(f"{type(self).__name__} has no batches")

    def calibrate(self, model: Any, examples: Sequence[Any]) -> bool:
        """Fits how sure a trained model says it is to validation examples; whether that changed anything."""
        return False

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
    """Changes of `inputs` and of the targets; other inputs stay as they are."""

    @property
    def overlap(self) -> int:
        """Steps in a row whose answers tell of the same moments."""
        return 1

    @property
    def named(self) -> Joined | None:
        """The encoder of several inputs by name; None where there is one, without a name."""
        return self.encoder.named(self.inputs)

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
        first, named = self.seen(records[0]), self.named
        vectors = [name for name in self.head.targets if name in first.streams] if self._vectors else []
        sizes = {name: shape[1:] for name in vectors if len(shape := first[name].values.shape) == 2 and shape[1] > 1}
        if not named and not sizes:
            return _shape(first, self.inputs)
        return {name: _shape(first, name) for name in (named.streams if named else [self.inputs])} | sizes

    @property
    def _vectors(self) -> bool:
        """Whether a target may be several numbers a step."""
        return self.head.vectors

    def wanted(self, model: Model) -> Wanted:
        """What its examples are made of."""
        if (named := self.named) is None:
            shape = _numbers_shape(model.encoder.raw)
            inputs = [Reading(self.inputs, partial(prepare_batch, model.encoder), _key(self.encoder), shape=shape)]
        else:
            of = {part.stream: part for part in named.parts}
            inputs = [
                Reading(
                    name,
                    partial(prepare_named, model.encoder, name),
                    _key(of[name].encoder) if name in of else "",
                    name in of and of[name].once,
                    name in of and of[name].encoder.gaps,
                    _numbers_shape(model.encoder.raw[name]),
                )
                for name in named.streams
            ]
        head, once = model.head, self.flavour == "many-to-one"
        return Wanted(inputs, self.inputs, head.streams, head.sizes, named is not None, once)

    def examples(
        self, model: Model, records: Sequence[Record], watch: Watch = silent, answers: bool = True
    ) -> list[Example]:
        """Records as the model sees them; without `answers`, of such that need not hold what is learned."""
        wanted = self.wanted(model)
        wanted = wanted if answers else replace(wanted, targets=(), sizes=())
        shown = examples([self.seen(record, answers) for record in records], wanted, cache_folder(), watch)
        for example in shown if answers else ():
            try:
                model.head.check(example.y)
            except UserError as error:
                raise UserError(f"record {example.name!r}: {error}") from None
        return shown

    def seen(self, record: Record, answers: bool = True) -> Record:
        """A record with the streams that the model reads and, with `answers`, learns; as it is, where it has them."""
        return record

    def numbers(self, stream: str) -> list[str]:
        """Names of the numbers that a step of one of the model's streams has; empty: they have none."""
        return []

    def row_by_row(self, model: Model) -> "RowByRow":
        """What answers rows one by one. UserError where a step is no row of named numbers."""
        raise UserError("only models of tables answer row by row; this one's steps have no columns")

    def said(self, model: Model, record: Record, example: Example, raw: Tensor) -> dict[str, np.ndarray]:
        """What the model's raw outputs (step output) of a record say, a column each, for people and programs."""
        head = model.head
        point = head.point(raw).numpy()
        if not tells_classes(head):
            found = dict(zip(head.targets, point.T, strict=True))
            if tells_distribution(head):
                ends = head.quantiles(raw, INTERVAL).numpy()
                for name, number in zip(head.targets, ends.swapaxes(0, 1), strict=True):
                    found |= {f"{name} {level:.0%}": column for level, column in zip(INTERVAL, number.T, strict=True)}
            return found
        names = head.names() or [str(number) for number in range(head.classes)]
        chances = head.probabilities(raw).numpy()
        labels = np.array(names, object)[head.labels(point[:, 0])]
        return {head.targets[0]: labels, **{f"p({name})": chances[:, i] for i, name in enumerate(names)}}

    def check(self, model: Model, records: Sequence[Record]) -> None:
        check([self.seen(record) for record in records], self.wanted(model))

    def fit_normalisers(self, model: Model, examples: Sequence[Example]) -> None:
        fit_normalisers(model, examples)

    def make_batches(self, model: Model, examples: Sequence[Example], rank: int = 0, ranks: int = 1) -> Batches:
        check_weights(examples, "training")
        # What reads from the end of a record needs all of it.
        spec = self.batches if model.causal or not self.batches.carry else Windows(self.batches.batch_size)
        seed, targets = self.training.seed, model.head.targets
        return Batches(spec, examples, targets, self.augment, seed, rank, ranks, self.inputs)

    @torch.no_grad()
    def calibrate(self, model: Model, examples: Sequence[Example]) -> bool:
        """Where the head allows it, bands between the levels of INTERVAL hold their share of the examples' steps."""
        if not calibrates(model.head):
            return False
        model.head.stretch.fill_(1)
        head, found = copy.deepcopy(model.head).cpu(), []
        for example, raw in zip(examples, model.answers(examples), strict=True):
            y = torch.from_numpy(np.atleast_2d(example.y))
            counts = slice(None)
            if example.weight is not None:
                counts = torch.from_numpy(np.atleast_1d(example.weight)[-len(y) :]) > 0
            found.append(head.reach(raw[counts], y[counts], INTERVAL))
        model.head.calibrate(torch.cat(found).to(model.device), INTERVAL[1] - INTERVAL[0], self.overlap)
        return True

    def validation(self, examples: Sequence[Example]) -> Callable[[Any], float]:
        check_weights(examples, "validation")
        return super().validation(examples)


def fit_normalisers(model: Model, examples: Sequence[Example]) -> None:
    """Input and target normalisers from training examples; long ones are looked at every few steps."""
    total = sum(map(len, examples))
    every = max(1, total // 4096)

    model.encoder.fit(joined([e.x[::every] for e in examples]))
    if any(is_lazy(e.y) for e in examples):
        y: Any = Chain([e.y for e in examples])
    else:
        y = np.stack([e.y for e in examples]) if examples[0].y.ndim == 1 else np.concatenate([e.y for e in examples])
    model.head.fit(y)


def is_recipe(what: object) -> TypeGuard[Recipe]:
    """Whether it is a recipe, and not a name or a function of one."""
    return isinstance(what, Recipe)


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


def _numbers_shape(raw: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a raw step of numbers; () for pictures, which are brought to one size."""
    return raw if len(raw) < 3 else ()


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
