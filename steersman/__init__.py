"""Recurrent networks that steer through time."""

from .config import Spec
from .errors import UserError
from .model import Model
from .recipes import RECIPES
from .records import Record, Stream
from .runs import Recipe, Run, fit, load
from .sources import read

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
