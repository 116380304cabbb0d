"""Recurrent networks that steer through time."""

from .config import Spec
from .data.records import Record, Stream
from .errors import UserError
from .nn.model import Model
from .recipes import RECIPES
from .sources import read
from .training.fit import fit
from .training.recipe import Recipe
from .training.run import Run, load

__all__ = [
    "RECIPES",
    "Model",
    "Recipe",
    "Record",
    "Run",
    "Spec",
    "Stream",
    "UserError",
    "fit",
    "load",
    "read",
]
__version__ = "0.1.0"
