"""What long work tells of itself, and the bars that show it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .console import Plain


class Watch(Protocol):
    """A function called with what is being done, how much of it is done, how much there is, and perhaps a note."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Watches nothing."""


@contextmanager
def bars() -> Iterator[Watch]:
    """A bar with the time left for each kind of work, on stderr; plain lines where that is no terminal."""
    console = Plain(stderr=True, soft_wrap=False)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        "{task.fields[note]}",
    )
    shown = Progress(*(TextColumn(c, markup=False) if isinstance(c, str) else c for c in columns), console=console)
    tasks = {}

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        if what not in tasks:
            tasks[what] = shown.add_task(what, note=note)
        shown.update(tasks[what], completed=done, total=total, note=note)

    with shown:
        yield watch


class Lines:
    """A line every ten seconds, for logs; Ctrl-C and pipes leave nothing half drawn."""

    def __init__(self, console: Console, every_s: float = 10.0):
        self.console, self.every_s = console, every_s
        self.last: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last.setdefault(what, now) >= self.every_s or done == total:
            self.last[what] = now
            self.console.print(f"{what} {done}/{total} {note}".rstrip(), highlight=False, soft_wrap=True)
