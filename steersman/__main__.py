"""The commands."""

import sys
from collections.abc import Callable, Sequence

from . import __version__
from .config import did_you_mean
from .console import ERR, OUT, escape
from .doctor.command import doctor
from .errors import UserError
from .evaluation.command import evaluate
from .experiments.command import bench, compare, quickstart
from .explain.command import explain
from .export.command import export_run
from .live.command import live
from .logs.command import convert_, inspect_, score
from .nn.cores import NotFinite
from .plugins import own_file
from .recipes.command import recipes, train
from .recipes.text.command import sample
from .recipes.translate.command import translate
from .training.trainer import Interrupted
from .worlds.command import drive, record


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 and one message on what the user can mend."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        ERR.print(f"[bold red]steersman:[/] {escape(str(error))}")
        sys.exit(2)
    except NotFinite:
        ERR.print(
            "[bold red]steersman:[/] the model's state grows to NaN or infinity on these records; "
            "ask `steersman doctor` why, and train anew with a lower --training.rate or longer windows"
        )
        sys.exit(2)
    except (KeyboardInterrupt, Interrupted) as stop:
        ERR.print(escape(str(stop) or "stopped"))
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:
        ERR.print_exception()
        ERR.print(
            f"This is a bug in steersman {__version__}: please report it with the lines above (see CONTRIBUTING.md)"
        )
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    arguments = _imported(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        OUT.print(_overview())
        return
    if arguments[0] in ("--version", "version"):
        OUT.print(f"steersman {__version__}")
        return
    command = COMMANDS.get(arguments[0])
    if command is None:
        known = ", ".join(COMMANDS)
        raise UserError(f"no command {arguments[0]!r}{did_you_mean(arguments[0], COMMANDS)}; there are {known}")
    command(arguments[1:])


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "quickstart": quickstart,
    "recipes": recipes,
    "record": record,
    "train": train,
    "evaluate": evaluate,
    "score": score,
    "inspect": inspect_,
    "convert": convert_,
    "compare": compare,
    "explain": explain,
    "doctor": doctor,
    "drive": drive,
    "sample": sample,
    "translate": translate,
    "export": export_run,
    "live": live,
    "bench": bench,
}


def _overview() -> str:
    lines = [f"  {name:<12}{command.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "steersman: recurrent networks that steer through time",
            "",
            *lines,
            "",
            "A run that is made of parts of your own needs their file: --import path.py, with any command.",
            "steersman COMMAND --help says more of each. Where to begin: steersman drive steer --video drive.mp4",
        ]
    )


def _imported(arguments: list[str]) -> list[str]:
    """The arguments without `--import path.py`, which brings in parts of the user's own for any command."""
    rest, words = [], iter(arguments)
    for word in words:
        if word == "--import":
            own_file(next(words, ""))
        else:
            rest.append(word)
    return rest


if __name__ == "__main__":
    main()
