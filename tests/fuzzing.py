"""What all fuzzers share: which code counts as covered, and which exceptions are no fault."""

import contextlib
import gc
import sys
from collections.abc import Callable
from types import FunctionType

import atheris

from steersman.errors import UserError

OWN = ("steersman.", "__main__")
LEAST = 100
"""Functions of the package below which a fuzzer would go on blindly."""


def watch(own: tuple[str, ...] = OWN) -> int:
    """Has all functions of the package that were imported tell what of them was run; how many there are.

    Not as they are imported: an editable installation brings an importer of its own, which atheris leaves alone.
    """
    found = [f for f in gc.get_objects() if type(f) is FunctionType and str(f.__module__).startswith(own)]
    for function in found:
        atheris.instrument_func(function)
    assert len(found) >= LEAST, f"{len(found)} functions of the package were found: the fuzzer would see nothing"
    return len(found)


def fuzz(one: Callable[[bytes], object], refused: tuple[type[Exception], ...] = (UserError,)) -> None:
    """Runs `one` on whatever libFuzzer makes, by the options of the command line; what is refused is no fault."""

    def tried(data: bytes) -> None:
        with contextlib.suppress(refused):
            one(data)

    print(f"{watch()} functions are watched", file=sys.stderr)
    atheris.Setup(sys.argv, tried)
    atheris.Fuzz()
