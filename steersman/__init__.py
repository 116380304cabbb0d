"""Recurrent networks that steer through time."""

from .config import Spec
from .data.records import Record, Stream
from .errors import UserError
from .nn.model import Model
from .recipes import RECIPES
from .sources import read
from .sources.source import SourceSpec
from .training.fit import fit
from .training.recipe import Recipe, StepRecipe
from .training.run import Run, load
from .version import __version__

__all__ = [
    "RECIPES",
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
