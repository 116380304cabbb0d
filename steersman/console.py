"""What all commands share: where they print, how they read names and options."""

import itertools
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.text import Text

from .config import check_bounds, did_you_mean
from .errors import UserError

HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that steer a terminal, or that no file takes."""


def visible(text: str) -> str:
    """The text with escapes for characters that are not to reach a terminal."""
    return HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


class Plain(Console):
    """A console on which text stands as it is: a folder may be called `[/bold]` or `:car:`."""

    def __init__(self, stderr: bool = False, soft_wrap: bool = True, width: int | None = None):
        super().__init__(stderr=stderr, soft_wrap=soft_wrap, width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


OUT = Plain()
ERR = Plain(stderr=True)
BREAK = "\v"
"""Stands for the end of a line where tyro would join it to the next."""
T = TypeVar("T")


def counted(number: int, noun: str) -> str:
    """A number of things, the noun given for one of them."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def parsed(kind: type[T], arguments: list[str], command: str) -> T:
    """Options of a command. UserError where a number is beyond the bounds of its dataclass."""
    import tyro

    return _bounded(tyro.cli(kind, args=arguments, prog=f"steersman {command}"))


def _bounded(options: T) -> T:
    check_bounds(options, lambda name: f"--{name.replace('_', '-')}")
    return options


def changed(default: T, arguments: list[str], command: str, text: str) -> T:
    """Options with what the command line changes of them; the types of their parts are fixed.

    `text` stands in the help, line by line as it is written.
    """
    import tyro

    with redirect_stdout(_Lines(sys.stdout)):
        found = tyro.cli(
            type(default),
            default=default,
            config=(tyro.conf.AvoidSubcommands,),
            args=arguments,
            prog=f"steersman {command}",
            description=text.replace("\n", BREAK),
        )
    return _bounded(found)


class _Lines:
    """A stream to which the ends of lines come back."""

    def __init__(self, there: TextIO):
        self.there = there

    def write(self, text: str) -> int:
        return self.there.write(text.replace(BREAK, "\n"))

    def flush(self) -> None:
        self.there.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.there, name)


def named(
    command: str, what: str, arguments: list[str], known: Mapping[str, object], own: bool = False
) -> tuple[str | None, list[str]]:
    """The name a command begins with and the rest; None after help was printed.

    With `own`, path.py:function is a name, too.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        more = "; or path.py:function for one of your own" if own else ""
        OUT.print(f"usage: steersman {command} {what} [OPTIONS]\n\n{what} is one of: {', '.join(known)}{more}")
        OUT.print(f"steersman {command} {next(iter(known))} --help lists its options.")
        return None, []
    if not arguments or arguments[0].startswith("-"):
        raise UserError(
            f"{command} needs a name first: steersman {command} {next(iter(known))}; there are {', '.join(known)}"
        )
    name = arguments[0]
    if name not in known and not (own and ".py:" in name):
        raise UserError(f"no {what.lower()} {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")
    return name, arguments[1:]


def renamed(arguments: list[str], names: Mapping[str, str]) -> list[str]:
    """The arguments with options of an older version under their present names, which are said in a line each.

    A name that ends in a dot stands for all options that begin so.
    """
    found = []
    for word in arguments:
        option, mark, rest = word.partition("=")
        plain = option.replace("_", "-")
        old = next((n for n in names if plain == n or (n.endswith(".") and plain.startswith(n))), None)
        if old is None:
            found.append(word)
            continue
        new = names[old] + plain.removeprefix(old)
        if new in names:
            new = names[new]
        say(f"{option} is called {new} now")
        found.append(new + mark + rest)
    return found


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
    ERR.print(text)
