"""A run is a folder: recipe, weights with their normaliser, log, checkpoints, metrics, report."""

import atexit
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist

from .checkpoints import load_weights, read_json, write_json
from .config import Spec, to_json, value
from .data import Batches, Example, Lanes, Split, Windows, examples, unsaid
from .encoders import prepare_batch
from .errors import UserError
from .files import write_file
from .model import Flavour, Model, Network
from .progress import Watch, silent
from .records import Record
from .sources import read
from .train import Look, Trainer, Training

FORMAT = 1
"""Of config.json; a run with a higher one was written by a newer version."""
PREPARED = 1
"""Of the cache of prepared inputs; counted up when an encoder's `prepare` changes what it gives."""


def cache_folder() -> Path:
    """Where prepared inputs are kept."""
    try:
        return Path.home() / ".cache" / "steersman"
    except RuntimeError:  # A user without a home, as in some containers.
        return Path(tempfile.gettempdir()) / "steersman"


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


@dataclass(frozen=True)
class Run:
    """What config.json says: the recipe, the shape of a raw step, and what it was trained on."""

    folder: Path
    name: str
    recipe: Recipe
    raw: tuple[int, ...]
    data: tuple[str, ...] = ()
    """Folders it was trained on; none: the recipe's own source."""
    extra: tuple[str, ...] = ()
    """Folders that were only trained on, with nothing held out."""
    rounds: int = 0
    """Rounds of DAgger behind it."""

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fields = {"name": self.name, "raw": self.raw, "data": self.data, "extra": self.extra, "rounds": self.rounds}
        write_json(self.folder / "config.json", {"format": FORMAT, **fields, "recipe": to_json(self.recipe)})

    def adopted(self, folder: Path) -> "Run":
        """The same run in another folder, without its checkpoints."""
        run = replace(self, folder=folder)
        run.write()
        for name in ("model.safetensors", "log.jsonl", *self.recipe.learned_files):
            write_file(folder / name, (self.folder / name).read_bytes())
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """UserError where the folder is no run, a half-written one, or one of a newer version."""
        if not folder.is_dir():
            raise UserError(f"there is no run {folder}; `steersman train` makes one")
        where = folder / "config.json"
        written = read_json(where)
        if not isinstance(written, dict) or not isinstance(written.get("format"), int):
            raise UserError(f"{where} is not the config of a run")
        if written["format"] > FORMAT:
            raise UserError(f"{folder} was written by a newer version of steersman; upgrade this one")
        kinds = {
            "name": str,
            "recipe": Recipe,
            "raw": tuple[int, ...],
            "data": tuple[str, ...],
            "extra": tuple[str, ...],
            "rounds": int,
        }
        return cls(folder, **{name: value(written.get(name), kind, f"{where}: {name}") for name, kind in kinds.items()})

    def model(self) -> Model:
        """The trained model, ready to predict."""
        model = self.recipe.model(self.raw, self.folder)
        load_weights(model, self.folder / "model.safetensors")
        return model.eval()

    def records(self, watch: Watch = silent) -> dict[str, list[Record]]:
        """Training, validation and test records, divided as when it was trained."""
        return self.recipe.divide(read_records(self.recipe, self.data, watch))


def new_folder(name: str, below: Path = Path("runs")) -> Path:
    """The first free `name-N` below a folder; `path.py:function` gives the function's name."""
    stem = name.rpartition(":")[2]
    numbers = [int(n) for p in below.glob(f"{stem}-*") if (n := p.name.removeprefix(f"{stem}-")).isdigit()]
    return below / f"{stem}-{max(numbers, default=0) + 1}"


def load(folder: Path | str) -> Model:
    """The model of a run, or one that ships with the package by its name (`"steer"`)."""
    return Run.open(find(folder)).model()


def find(run: Path | str) -> Path:
    """The folder of a run, or of the trained model of that name in the package."""
    shipped = Path(__file__).parent / "trained" / str(run)
    return shipped if not Path(run).exists() and shipped.is_dir() else Path(run)


def fit(
    name: str,
    recipe: Recipe,
    folder: Path | str,
    data: Sequence[str] = (),
    device: str = "auto",
    start: Path | None = None,
    extra: Sequence[str] = (),
    say: Callable[[str], None] = print,
    watch: Watch = silent,
    look: Look | None = None,
) -> Run:
    """Trains a recipe in `folder`, or goes on with the training begun there.

    `start` is a run to begin from; `extra` data is only trained on, never held out; `look` is called after each step.
    Under torchrun every process takes its share of each batch.
    """
    folder, data, extra = Path(folder), _absolute(data), _absolute(extra)
    rank, ranks = join_processes()
    torch.manual_seed(recipe.training.seed)
    with _first_alone(rank, ranks):
        everything = read_records(recipe, data, watch)
        for fault in faults(everything) if rank == 0 else ():
            say(fault)
        records = recipe.divide(everything, say if rank == 0 else unsaid)
        records["train"] += read_records(recipe, extra, watch) if extra else []
        raw = tuple(records["train"][0][recipe.inputs].values.shape[1:]) or (1,)
        run = Run(folder, name, recipe, raw, data, extra)
        _same_run(run)
        recipe.learn(records["train"], folder)
        model = recipe.model(raw, folder)
        taught = {part: recipe.taught(part, records[part]) for part in ("train", "validation")}
        shown = {part: recipe.examples(model, those, watch) for part, those in taught.items()}
    if start is None:
        recipe.fit(model, shown["train"])
    else:
        load_weights(model, start / "model.safetensors")
    if rank == 0:
        run.write()
    batches = recipe.batched(model, shown["train"], rank, ranks)
    torch.manual_seed(recipe.training.seed + 1 + rank)
    validate = recipe.validation(shown["validation"]) if shown["validation"] else None
    Trainer(model.to(pick_device(device)), batches, recipe.training, folder, validate, say, watch, look).run()
    return run


def faults(records: Sequence[Record]) -> list[str]:
    """What their logs held that could not be read and was left out, a line a log."""
    lines = {}
    for record in records:
        if number := record.about.get("num_faults", 0):
            first = record.about["faults"][0]
            what = record.about.get("lost", "frames")
            lines.setdefault(
                str(record.about["faults"]), f"{record.name}: {number} {what} left out, the first: {first}"
            )
    return list(lines.values())


def fit_normalisers(model: Model, shown: Sequence[Example]) -> None:
    """Input and target normalisers from training records; long ones are looked at every few steps."""
    total = sum(map(len, shown))
    every = max(1, total // 4096)

    model.encoder.fit(np.concatenate([e.x[::every] for e in shown]))
    model.head.fit(np.stack([e.y for e in shown]) if shown[0].y.ndim == 1 else np.concatenate([e.y for e in shown]))


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one. UserError where the device is not to be had."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and dist.is_initialized():
        name = f"cuda:{dist.get_node_local_rank()}"  # pyright: ignore[reportPrivateImportUsage]
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}; use auto, cpu or cuda") from None


def _absolute(data: Sequence[str]) -> tuple[str, ...]:
    """So that a run is evaluated from anywhere."""
    return tuple(str(Path(path).resolve()) for path in data)


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


def _same_run(run: Run) -> None:
    """A folder that already holds a run is gone on with only by the same recipe and data."""
    if not (run.folder / "config.json").exists():
        return
    old = Run.open(run.folder)
    if (old.recipe, old.data) != (run.recipe, run.data):
        what = "recipe" if old.recipe != run.recipe else "data"
        raise UserError(
            f"{run.folder} holds a run with another {what}; leave the options out to go on with it, "
            "or name a new folder with --run"
        )


def join_processes() -> tuple[int, int]:
    """Rank and number of processes under torchrun, else (0, 1)."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)  # Its threads must not outlive the interpreter.
    return dist.get_rank(), dist.get_world_size()


@contextmanager
def _first_alone(rank: int, ranks: int) -> Iterator[None]:
    """The first process records and prepares what is missing; the others then find it done."""
    if rank > 0:
        dist.barrier()
    yield
    if rank == 0 and ranks > 1:
        dist.barrier()


OWN: list[str] = []
"""Files of the user's own that were imported; worker processes import them too."""


def own_file(path: str) -> ModuleType:
    """Imports a Python file with a recipe or parts of the user's own. UserError where that fails."""
    # Not by its bare name: a recipe may be called steer.py, or torch.py.
    spec = importlib.util.spec_from_file_location(f"own_{Path(path).stem}", path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise UserError(f"there is no Python file {path}")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} can't be imported: {type(error).__name__}: {error}") from error
    OWN.append(str(Path(path).resolve()))
    return module
