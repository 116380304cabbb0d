"""The commands."""

import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from . import __version__
from .config import did_you_mean
from .errors import UserError
from .progress import bars
from .recipes import RECIPES
from .runs import Recipe, Run, find, fit
from .train import Interrupted

OUT = Console(highlight=False, soft_wrap=True)
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
BUGS = "https://github.com/steersman/steersman/issues"


@dataclass(frozen=True)
class Train:
    """Every option of the recipe can be changed; what is said of it stands in the run's config.json."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    data: tuple[str, ...] = ()
    """Recordings to learn from: folders of any format that is known. None: the recipe's own source."""
    run: str = ""
    """Folder of the run; one that exists is gone on with. Empty: a new one below `runs`."""
    rounds: int = 0
    """Rounds of DAgger: the model drives, the expert labels, the data grows, training goes on."""
    device: str = "auto"
    """auto, cpu or cuda."""


@dataclass(frozen=True)
class Evaluate:
    """Scores a run on its own test records, or on other data, beside its baselines; writes its report."""

    run: Annotated[str, tyro.conf.Positional]
    """Folder of a run, or the name of a model that ships with the package."""
    data: tuple[str, ...] = ()
    """Recordings to score on instead, all of them."""
    beside: tuple[str, ...] = ()
    """Other runs to stand among the baselines, such as the single-frame model."""
    json: bool = False
    """Print one JSON object and nothing else."""


@dataclass(frozen=True)
class Recipes:
    """Lists the recipes, or shows one in full."""

    name: Annotated[str, tyro.conf.Positional] = ""
    """A recipe to show."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 and one message on what the user can mend."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        ERR.print(f"[bold red]steersman:[/] {_escape(str(error))}")
        sys.exit(2)
    except (KeyboardInterrupt, Interrupted) as stop:
        ERR.print(_escape(str(stop) or "stopped"))
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:
        ERR.print_exception()
        ERR.print(f"This is a bug in steersman {__version__}; please report it, with the lines above, at {BUGS}")
        sys.exit(1)
