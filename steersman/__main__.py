"""The commands: where each stands, and a line of help; one is imported when it is asked for."""
# ruff: noqa: E402 (what is imported first is what can stop the rest)

import os
import signal
import sys


def _stop(*_: object) -> None:
    """Ctrl-C ends the process there and then: of what is being imported, some make an ImportError of it, some abort."""
    os.write(2, b"stopped\n")
    os._exit(130)


if (__name__ == "__main__" or os.path.basename(sys.argv[0]) == "steersman") and (
    signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, _stop)  # A program has no time in which it can't be stopped quietly.

import errno
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from .config import did_you_mean
from .errors import Interrupted, NotFinite, UserError
from .plugins import Registry, own_file, own_lines
from .version import __version__

# Threads that wait for each other sleep: spinning, they would take the cores from whatever runs beside. OpenMP reads it
# once, when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS: Registry[Callable[[list[str]], None]] = Registry(
    {
        "quickstart": ("experiments.command:quickstart", "record, train and drive: the whole way at once"),
        "recipes": ("recipes.listing:recipes", "list the recipes"),
        "record": ("worlds.command:record", "record drives of an expert in a simulator"),
        "train": ("recipes.command:train", "train a recipe"),
        "evaluate": ("evaluation.command:evaluate", "score a run beside its baselines"),
        "backtest": ("recipes.series.command:backtest", "walk a forecast forward over time, beside its rivals"),
        "predict": ("evaluation.command:predict_", "say what a run makes of new data"),
        "challenge": ("logs.command:challenge", "score a submission to Udacity's Challenge 2"),
        "inspect": ("logs.command:inspect_", "say what a log holds, and what is wrong with it"),
        "convert": ("logs.command:convert_", "write a log as a LeRobot dataset"),
        "compare": ("experiments.command:compare", "train recipes side by side"),
        "explain": (
            "explain.command:explain",
            "show how gradients flow: in a formula, a run, or the lecture's pictures",
        ),
        "doctor": ("doctor.command:doctor", "say what went wrong in training"),
        "drive": ("worlds.command:drive", "let a model act in its world, closed loop, and score it"),
        "sample": ("recipes.text.command:sample", "let a text model write"),
        "draw": ("recipes.draw.command:draw", "draw pictures as a run of `draw` learned to"),
        "compose": ("recipes.song.command:compose", "go on with a piece of music, as MIDI"),
        "tell": ("recipes.sight.command:tell", "say a caption of a picture, or answer a question about it"),
        "translate": ("recipes.translate.command:translate", "translate standard input"),
        "export": ("export.command:export_run", "write one step of a model in ONNX"),
        "live": ("live.command:live", "serve a model live, and a page to watch it on"),
        "bench": ("experiments.command:bench", "measure the cores against their peers"),
        "cache": ("data.command:cache", "say where prepared pictures are kept, and clear them away"),
        "completion": ("completion:completion", "print a script that completes commands in a shell"),
    }
)
RENAMED = {"score": "challenge"}
"""Commands by the names that they had before."""
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""Errors of the system that are no bug of this package, wherever they come up."""
OVERVIEW = f"""steersman: recurrent networks that steer through time

{COMMANDS.table()}

A run that is made of parts of your own needs their file: --import path.py, with any command.
steersman COMMAND --help says more of each. Where to begin: steersman drive steer --video drive.mp4"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; exits with 2 and one message on what the user can mend."""
    warnings.showwarning = _one_line
    try:
        try:
            _run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            print(end="", flush=True)  # A pipe that broke is heard of here, not when Python ends.
    except UserError as error:
        _refuse(str(error))
    except NotFinite:
        _refuse(
            "the model's state, or what it says, grows to NaN or infinity on these records; "
            "ask `steersman doctor` why, and train anew with a lower --training.learning-rate or longer windows"
        )
    except (KeyboardInterrupt, Interrupted) as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # What is left in it goes nowhere.
        sys.exit(0)
    except Exception as error:
        from .console import ERR

        if isinstance(error, OSError) and error.errno in NO_PLACE:
            _refuse(f"{error.filename or 'a file'}: {error.strerror}; make room, or choose a place that you may use")

        if theirs := own_lines(error):
            _refuse(theirs)
        ERR.print_exception()
        ERR.print(
            f"This is a bug in steersman {__version__}: please report it with the lines above (see CONTRIBUTING.md)"
        )
        sys.exit(1)


def _run(arguments: list[str]) -> None:
    arguments = _imported(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(OVERVIEW)
        return
    name, *rest = arguments
    if name in ("-V", "--version", "version"):
        print(f"steersman {__version__}")
        return
    if name in RENAMED:
        print(f"steersman: `{name}` is called `{RENAMED[name]}` now", file=sys.stderr)
        name = RENAMED[name]
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}{did_you_mean(name, COMMANDS)}; there are {', '.join(COMMANDS)}")
    with _stopped_at_once():
        command = COMMANDS[name]
    command(rest)


@contextmanager
def _stopped_at_once() -> Iterator[None]:
    """What is imported in the block is stopped by Ctrl-C at once; what comes after it may clean up."""
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, _stop):
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _imported(arguments: list[str]) -> list[str]:
    """The arguments without `--import path.py`, which brings in parts of the user's own for any command."""
    rest, words = [], iter(arguments)
    for word in words:
        if word == "--import":
            own_file(next(words, ""))
        else:
            rest.append(word)
    return rest


def _one_line(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
    """What another package warns of, without its line of code; errors are still told by themselves."""
    told = " ".join(str(message).split())
    print(f"steersman: warning: {told} ({os.path.basename(filename)}, line {lineno})", file=sys.stderr)


def _refuse(why: str) -> None:
    from rich.text import Text

    from .console import ERR, visible

    ERR.print(Text.assemble(("steersman:", "bold red"), f" {visible(why)}"))
    sys.exit(2)


if __name__ == "__main__":
    main()
