"""Recurrent networks that steer through time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .config import Spec
    from .data.records import Record, Stream
    from .errors import UserError
    from .nn.model import Model
    from .recipes import RECIPES
    from .recipes.fitted import Fitted, fit, read
    from .sources.source import SourceSpec
    from .training.recipe import Recipe, StepRecipe
    from .training.run import Run, load

__all__ = [
    "RECIPES",
    "Fitted",
    "Model",
    "Recipe",
    "Record",
    "Run",
    "SourceSpec",
    "Spec",
    "StepRecipe",
    "Stream",
    "UserError",
    "__version__",
    "fit",
    "load",
    "read",
]
_ROOMS = {
    "RECIPES": "recipes",
    "Model": "nn.model",
    "Recipe": "training.recipe",
    "Record": "data.records",
    "Run": "training.run",
    "SourceSpec": "sources.source",
    "Spec": "config",
    "StepRecipe": "training.recipe",
    "Stream": "data.records",
    "UserError": "errors",
    "Fitted": "recipes.fitted",
    "fit": "recipes.fitted",
    "load": "training.run",
    "read": "recipes.fitted",
}
"""The module of each name; its module is imported when it is first asked for."""


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
