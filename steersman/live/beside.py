"""A process that works beside this one and tells of it, as JSON through a pipe: nothing of it is unpickled."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from ..drive import start_worker
from ..errors import UserError


def stand_back(nice: int, own: Sequence[str]) -> None:
    """What such a process does first: one thread, behind all others, deaf to the Ctrl-C that is meant for its parent.

    It ends with its parent. `own` are the files of the user's own that it needs, too.
    """
    os.setpgid(0, 0)
    os.nice(nice)
    start_worker(own)


def send(there: Connection, kind: str, text: str = "", **message: Any) -> None:
    there.send_bytes(json.dumps({"type": kind, "text": text, **message}).encode())


@contextmanager
def failures_sent(there: Connection) -> Iterator[None]:
    """What goes wrong is told as `failed`."""
    try:
        yield
    except Exception as error:
        send(there, "failed", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def heard(here: Connection) -> Iterator[dict[str, Any]]:
    """Messages, until the other side is gone."""
    try:
        while True:
            yield json.loads(here.recv_bytes())
    except (EOFError, OSError):
        return
