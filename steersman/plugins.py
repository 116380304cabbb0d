"""Files of the user's own, and where the package's own parts are found."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .errors import UserError

OWN: list[str] = []
"""Files of the user's own that were imported; worker processes import them too."""


PARTS = (
    "steersman.recipes.text.task",
    "steersman.recipes.translate.task",
    "steersman.recipes.steer.recipes",
    "steersman.evaluation.tasks",
    "steersman.nn.cores",
    "steersman.nn.pretrained",
)
"""Modules with parts that a run may name."""


def import_parts() -> None:
    """Imports the package's own parts, so that each is known by its name."""
    for name in PARTS:
        importlib.import_module(name)


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
