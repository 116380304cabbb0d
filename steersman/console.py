"""What all commands share: where they print, how they read names and options."""

import importlib
import itertools
from collections.abc import Mapping
from typing import Any

import tyro
from rich.console import Console

from .config import did_you_mean
from .errors import UserError

OUT = Console(highlight=False, soft_wrap=True)


FIXED = (tyro.conf.AvoidSubcommands,)
"""The recipe fixes types; the command line changes values."""


ERR = Console(stderr=True, highlight=False, soft_wrap=True)


def live_part(name: str) -> Any:
    """A module of what is live. UserError where what it needs is not installed."""
    try:
        return importlib.import_module(f".live.{name}", __package__)
    except ImportError as error:
        package = str(error.name).split(".")[0]
        raise UserError(f"{package} is not installed; run: pip install 'steersman[live]'") from None


def named(
    command: str, what: str, arguments: list[str], known: Mapping[str, Any], also: str = "\0"
) -> tuple[str | None, list[str]]:
    """The name a command begins with and the rest; None after help was printed."""
    if arguments and arguments[0] in ("-h", "--help"):
        more = "; or path.py:function for one of your own" if also in ".py:" else ""
        OUT.print(f"usage: steersman {command} {what} [OPTIONS]\n\n{what} is one of: {', '.join(known)}{more}")
        OUT.print(f"steersman {command} {next(iter(known))} --help lists its options.")
        return None, []
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"{command} needs a name first: steersman {command} {next(iter(known))}; there are {', '.join(known)}"
        )
    name = arguments[0]
    if name not in known and also not in name:
        raise UserError(f"no {what.lower()} {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return name, arguments[1:]


def values(arguments: list[str], name: str) -> list[str]:
    """The values of an option that has to be known before the others are read."""
    found: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == name:
            found += itertools.takewhile(lambda a: not a.startswith("--"), arguments[i + 1 :])
        elif argument.startswith(name + "="):
            found.append(argument.partition("=")[2])
    return found


def say(text: str) -> None:
    """A line for the user beside the bars."""
    ERR.print(escape(text))


def escape(text: str) -> str:
    return text.replace("[", "\\[")
