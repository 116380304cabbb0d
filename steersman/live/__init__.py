"""A model live: a server of steps for other programs, and one show with a page to watch it on."""

from importlib import import_module
from types import ModuleType

from ..errors import UserError


def live_part(name: str) -> ModuleType:
    """A module of this room. UserError where what it needs is not installed."""
    try:
        return import_module(f".{name}", __package__)
    except ImportError as error:
        package = str(error.name).split(".")[0]
        raise UserError(f"{package} is not installed; run: pip install 'steersman[live]'") from None
