"""Run: a folder with recipe, weights and their normaliser, log, checkpoints, metrics and report."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch.random import fork_rng

from ..config import to_json, value
from ..errors import UserError
from ..files import check_output, inside, read_file, write_file
from ..json_types import JsonObject
from ..progress import Watch, silent
from ..version import __version__
from .checkpoints import built_for, last_weights, load_weights, not_finite, read_json, write_json
from .old_runs import FORMAT, upgraded
from .recipe import Parts, Recipe, Shapes, StepRecipe, read_records


@dataclass(frozen=True)
class Run:
    """What config.json says: the recipe, the shape of a raw step, and what it was trained on."""

    folder: Path
    name: str
    recipe: Recipe
    raw: Shapes
    data: tuple[str, ...] = ()
    """Folders it was trained on; none: the recipe's own source."""
    extra: tuple[str, ...] = ()
    """Folders that were only trained on, with nothing held out."""
    rounds: int = 0
    """Rounds of DAgger behind it."""
    command: str = ""
    """Command that makes it again, where a command made it."""
    created: str = ""
    """Time at which it was begun, in ISO 8601."""
    version: str = __version__
    """Version that began it."""
    parts: Parts | None = field(default=None, compare=False, repr=False)
    """Records of the run, where they were read already."""

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        fields = {name: getattr(self, name) for name in FIELDS if name != "recipe"}
        write_json(self.folder / "config.json", {"format": FORMAT, **fields, "recipe": to_json(self.recipe)})

    def adopted(self, folder: Path) -> "Run":
        """The same run in another folder, without its checkpoints."""
        run = replace(self, folder=folder)
        run.write()
        for name in ("model.safetensors", "log.jsonl", *self.recipe.learned_files):
            write_file(folder / name, read_file(self.folder / name, 2**40))
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """The run in a folder; UserError where it is not a run, a half-written one, or one of a newer version."""
        if not folder.is_dir():
            raise UserError(f"there is no run {folder}; `steersman train` makes one")
        where = folder / "config.json"
        written = read_json(where)
        if not isinstance(written, dict) or not isinstance(written.get("format"), int):
            raise UserError(f"{where} is not the config of a run")
        if written["format"] > FORMAT:
            raise UserError(f"{folder} was written by a newer version of steersman; upgrade this one")
        try:
            written = upgraded(written)
            fields = {name: value(written.get(name), kind, f"{where}: {name}") for name, kind in FIELDS.items()}
        except RecursionError:
            raise UserError(f"{where}: its parts are nested too deep; it is damaged") from None
        _check_shapes(fields["raw"], where)
        return cls(folder, **fields)

    @property
    def steps(self) -> StepRecipe:
        """The recipe of a model that takes a step at a time. UserError where it is of another kind."""
        if not isinstance(self.recipe, StepRecipe):
            raise UserError(f"{self.folder} is a run of {self.name}, which reads a whole source and has no single step")
        return self.recipe

    def model(self, whole: bool = True) -> Any:
        """The trained model, ready to predict. UserError where its weights are no numbers, unless not to be `whole`."""
        weights = self.folder / "model.safetensors"
        model = self.built_for(weights)
        load_weights(model, weights)
        if whole and (what := not_finite(model.state_dict())):
            raise UserError(f"{weights}: {what}; ask `steersman doctor {self.folder}` what to do")
        return model.eval()

    def built_for(self, weights: Path) -> Any:
        """The model before its weights are read. UserError where it is larger than their file: then none is made."""
        return built_for(partial(self.recipe.load_skeleton, self.raw, self.folder), weights)

    def records(self, watch: Watch = silent) -> Parts:
        """Training, validation and test records, divided as when it was trained; read once."""
        if self.parts is None:
            parts = self.recipe.divide(read_records(self.recipe, self.data, watch, look=True))
            object.__setattr__(self, "parts", parts)
        assert self.parts is not None
        return self.parts


FIELDS: JsonObject = {
    "name": str,
    "raw": Shapes,
    "data": tuple[str, ...],
    "extra": tuple[str, ...],
    "rounds": int,
    "command": str,
    "created": str,
    "version": str,
    "recipe": Recipe,
}
"""What config.json holds beside its format."""


def new_folder(name: str, below: Path = Path("runs")) -> Path:
    """The first free `name-N` below a folder; `path.py:function` gives the function's name."""
    stem = name.rpartition(":")[2]
    numbers = [int(n) for p in below.glob(f"{stem}-*") if (n := p.name.removeprefix(f"{stem}-")).isdigit()]
    return below / f"{stem}-{max(numbers, default=0) + 1}"


def load(folder: Path | str) -> Any:
    """The model of a run, or one that ships with the package by its name (`"steer"`)."""
    return Run.open(find(folder)).model()


def find(run: Path | str) -> Path:
    """The folder of a run, or of the trained model of that name in the package."""
    shipped = Path(__file__).resolve().parents[1] / "trained" / str(run)
    return shipped if not Path(run).exists() and shipped.is_dir() else Path(run)


def own_home(run: Run, name: str) -> Path:
    """Where what is made of a run goes: its folder, but below `runs` for one that ships and is left as it is."""
    return run.folder if run.folder == Path(name) else Path("runs") / name


def output_of(run: Run, name: str, out: str, below: Path = Path()) -> Path:
    """The folder that is named for what is made of a run, else its own home; asked before the work that fills it.

    UserError where it can't be written to, or where a link leads out of the run.
    """
    home = own_home(run, name)
    folder = Path(out) if out else home / below
    check_output(folder, folder=True, otherwise="name a folder of your own with --out")
    if not out:
        inside(folder, home)
    return folder


def absolute(data: Sequence[str]) -> tuple[str, ...]:
    """Absolute paths, so that a run is evaluated from anywhere."""
    return tuple(str(Path(path).resolve()) for path in data)


def _check_shapes(raw: Shapes, where: Path) -> None:
    """UserError where a shape of steps is empty, or not of numbers from 1 on."""
    shapes = list(raw.values()) if isinstance(raw, dict) else [raw]
    if not all(shape and all(0 < n < 2**20 for n in shape) for shape in shapes):
        raise UserError(f"{where}: raw: expected whole numbers from 1 on, found {str(raw)[:60]}; it is damaged")


def check_same_run(run: Run) -> Run:
    """The run as it was begun, where its folder holds it already. UserError where that is of another recipe or data.

    It may be trained longer: for more steps, or with another patience.
    """
    if not (run.folder / "config.json").exists():
        return run
    old = Run.open(run.folder)
    run = replace(run, extra=run.extra or old.extra)
    before, now = old.recipe.training, run.recipe.training
    longer = replace(before, steps=max(before.steps, now.steps), patience=now.patience)
    same = replace(old.recipe, training=longer) == run.recipe
    if not same or old.data != run.data:
        what = "data" if same else "recipe"
        raise UserError(
            f"{run.folder} holds a run with another {what}; leave the options out to resume it, "
            "raise --training.steps to train it longer, or name a new folder with --run"
        )
    if weights := last_weights(run.folder):
        with fork_rng(()):
            run.built_for(weights)
    command = old.command or run.command
    if old.command and now.steps > before.steps:
        command += f" --training.steps {now.steps}"  # Of an option that is given twice the last one counts.
    return replace(run, command=command, created=old.created, version=old.version)
