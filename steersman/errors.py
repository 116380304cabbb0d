"""What may end a command: an error the user can mend, Ctrl-C, numbers beyond all bounds; everything else is a bug."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """What was wrong, where, and what to do; the command line prints it and exits with 2."""


class NotFinite(ValueError):
    """The state holds NaN or infinity: it grew beyond all bounds, or what was read did."""


class Interrupted(Exception):
    """Ctrl-C: a checkpoint has been written and training can go on from it."""


@contextmanager
def exit_with_message(program: str) -> Iterator[None]:
    """Ends a program in the message of a UserError and exit code 2, in place of a traceback."""
    try:
        yield
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(2)
