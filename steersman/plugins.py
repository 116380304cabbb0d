"""Files of the user's own, and where the package's own parts are found, imported when they are asked for."""

import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from .errors import UserError

T = TypeVar("T")

OWN: list[str] = []
"""Files of the user's own that were imported; worker processes import them too."""

PARTS = (
    "training.recipe",
    "training.sequence_to_sequence",
    "training.task",
    "training.trainer",
    "data.augment",
    "data.batches",
    "data.pairs",
    "data.splits",
    "data.vocabulary",
    "nn.attention",
    "nn.cores",
    "nn.decoding",
    "nn.encoder_decoder",
    "nn.drawing",
    "nn.encoders",
    "nn.foreground",
    "nn.glimpses",
    "nn.heads",
    "nn.model",
    "nn.picture_sources",
    "nn.pictures",
    "nn.pretrained",
    "nn.sounds",
    "evaluation.tasks",
    "evaluation.labels",
    "evaluation.said",
    "sources.catalogues",
    "sources.counted",
    "sources.digits",
    "sources.labelled",
    "sources.moving_digits",
    "sources.sound",
    "sources.order_books",
    "sources.pictures",
    "sources.songs",
    "sources.synthetic",
    "sources.tables",
    "sources.told_pictures",
    "sources.text",
    "worlds",
    "worlds.recording",
    "recipes.listen.sounds",
    "recipes.listen.task",
    "recipes.listen.voices",
    "recipes.glucose.source",
    "recipes.glucose.task",
    "recipes.market.kinds",
    "recipes.market.source",
    "recipes.market.task",
    "recipes.market.ticks",
    "recipes.diagnose.task",
    "recipes.draw.draw",
    "recipes.draw.task",
    "recipes.glance.glance",
    "recipes.glance.task",
    "recipes.series.kinds",
    "recipes.series.series",
    "recipes.series.task",
    "recipes.sight.task",
    "recipes.song.recipes",
    "recipes.song.task",
    "recipes.steer.labels",
    "recipes.steer.task",
    "recipes.text.classify",
    "recipes.text.dynamic",
    "recipes.text.recipes",
    "recipes.text.task",
    "recipes.translate.task",
    "live.learner",
    "live.limits",
    "doctor.selftest",
    "experiments.quickstart",
)
"""Modules whose specs a config.json may name, in the order in which they are looked through for one."""


def part(place: str) -> Any:
    """What stands at `room.module:name` of the package; without a name, the module."""
    module, _, name = place.partition(":")
    found = import_module(f"{__package__}.{module}")
    return getattr(found, name) if name else found


def import_parts() -> None:
    """Imports whatever a config.json may name."""
    for place in PARTS:
        part(place)


class Registry(Mapping[str, T]):
    """Parts of the package by name, each with a line of help; one is imported when it is asked for."""

    def __init__(self, rows: Mapping[str, tuple[str, str]], room: str = ""):
        """A row is (`module:name` in the room, line of help)."""
        self.rows, self.room = rows, room

    def __getitem__(self, name: str) -> T:
        place, _ = self.rows[name]
        return part(f"{self.room}.{place}" if self.room else place)

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        return name in self.rows

    def table(self) -> str:
        """A line a part: its name, and what it is."""
        width = max(map(len, self.rows)) + 2
        return "\n".join(f"  {name:<{width}}{line}" for name, (_, line) in self.rows.items())


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
        place = f" (line {frame.lineno})" if (frame := _frame_in(Path(path), error)) else ""
        raise UserError(f"{path} can't be imported: {type(error).__name__}: {error}{place}") from error
    OWN.append(str(Path(path).resolve()))
    return module


def own_lines(error: BaseException) -> str:
    """Where code of the user's own raised an error, and the lines it came by; "" where the package's own code did.

    The user's are files that were imported with `own_file`, and what lies beside or below them.
    """
    frames = traceback.extract_tb(error.__traceback__)
    folders = {Path(path).parent for path in OWN}
    package = Path(__file__).resolve().parent

    def whose(frame: traceback.FrameSummary) -> str:
        path = Path(frame.filename).resolve()
        if path.is_relative_to(package):
            return "package"
        return "own" if "site-packages" not in path.parts and not folders.isdisjoint(path.parents) else ""

    kinds = [whose(frame) for frame in frames]
    ours = max((place for place, kind in enumerate(kinds) if kind == "package"), default=-1)
    theirs = [place for place, kind in enumerate(kinds) if kind == "own" and place > ours]
    if not theirs:
        return ""
    last = frames[theirs[-1]]
    told = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {type(error).__name__}: {error}"
    return told + "\n" + "".join(traceback.format_list(frames[theirs[0] :])).rstrip()


def _frame_in(path: Path, error: BaseException) -> traceback.FrameSummary | None:
    """The last place in a file that an error came by."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f for f in reversed(frames) if Path(f.filename).resolve() == path.resolve()), None)
