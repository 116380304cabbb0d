"""Worker processes: results in order from many, and messages from one, as JSON: nothing of it is unpickled."""

import ctypes
import itertools
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import torch

from .errors import Interrupted, UserError
from .json_types import JsonObject
from .plugins import OWN, own_file
from .progress import Watch

Given = TypeVar("Given")
Made = TypeVar("Made")


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> None:
    """Memory that is freed stays with the process, up to 256 MiB, where its C library can do that (glibc).

    A training asks for the same blocks in every step; anew from the system, a page at a time, they cost a fifth of it.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        # Larger blocks go on coming from the system: glibc before 2.38 does not use a freed aligned block for the next.
        mallopt(M_MMAP_THRESHOLD, 2**25)
        mallopt(M_TRIM_THRESHOLD, 2**28)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of the options in glibc's malloc.h."""


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """PyTorch, and the kernels, on so many threads; 0: as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(
    function: Callable[..., Made], tasks: Sequence[Given], workers: int, watch: Watch | None = None
) -> Iterator[Made]:
    """Results in the order of the tasks, from so many processes, each on one thread.

    With `watch`, the function is given it by name, and what it tells there arrives here while it works.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from (function(task) if watch is None else function(task, watch=watch) for task in tasks)
        return
    with _listening(watch) as there:
        yield from _in_pool(partial(_work, function), tasks, workers, there)


@contextmanager
def _listening(watch: Watch | None) -> Iterator[Connection | None]:
    """The end of a pipe for workers, what comes out of which is told to `watch`."""
    if watch is None:
        yield None
        return
    here, there = multiprocessing.Pipe(duplex=False)

    def listen() -> None:
        for message in heard(here):
            watch(message["text"], message["done"], message["total"], message["note"])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield there
    finally:
        there.close()
        listener.join()


_told: Connection | None = None
"""In a worker: where its parent listens. One pipe for all of them, into which such short messages go whole."""


def _work(function: Callable[..., Made], task: Any) -> Made:
    try:
        return function(task) if _told is None else function(task, watch=Teller(_told))
    except Interrupted:
        os._exit(1)  # What was asked to stop has saved what it had; a pool would have it wait for other work.


class Teller:
    """Watch of a worker: tells its parent, of each work five times a second at most, and of its end."""

    def __init__(self, there: Connection):
        self.there, self.last = there, {}

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self.last.get(what, 0.0) >= 0.2 or done == total:
            self.last[what] = now
            send(self.there, "watch", what[:200], done=done, total=total, note=note[:200])


def _in_pool(
    function: Callable[[Given], Made], tasks: Sequence[Given], workers: int, there: Connection | None
) -> Iterator[Made]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, start_worker, (tuple(OWN), there))
    waiting, running = iter(tasks), deque()
    try:
        with _deaf():
            # A few tasks ahead of the reader and no more: a recorded drive is 24 MB.
            running.extend(pool.submit(function, task) for task in itertools.islice(waiting, 2 * workers))
        while running:
            yield running.popleft().result()
            running.extend(pool.submit(function, task) for task in itertools.islice(waiting, 1))
    except BrokenProcessPool:
        raise UserError(
            "a worker process died: perhaps for want of memory (try --workers 1), or because a script of your own "
            'starts work at its top level (put that under `if __name__ == "__main__":`)'
        ) from None
    except BaseException:
        ended = list(pool._processes.values())
        for process in ended:
            process.terminate()
        for process in ended:
            process.join()
        # One that was ended in the middle of a result would have the pool wait for the rest of it for ever.
        pool._result_queue._writer.close()  # pyright: ignore[reportAttributeAccessIssue]
        raise
    finally:
        pool.shutdown()


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started here never hear Ctrl-C, which is their parent's to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def start_worker(files: Sequence[str], there: Connection | None = None) -> None:
    global _told
    _told = there
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    for file in files:
        own_file(file)


def _die_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def stand_back(nice: int, own: Sequence[str]) -> None:
    """What such a process does first: one thread, behind all others, deaf to the Ctrl-C that is meant for its parent.

    It ends with its parent. `own` are the files of the user's own that it needs, too.
    """
    os.setpgid(0, 0)
    os.nice(nice)
    start_worker(own)


def send(there: Connection, kind: str, text: str = "", **message: object) -> None:
    there.send_bytes(json.dumps({"type": kind, "text": text, **message}).encode())


@contextmanager
def failures_sent(there: Connection) -> Iterator[None]:
    """What goes wrong is told as `failed`."""
    try:
        yield
    except Exception as error:
        send(there, "failed", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def heard(here: Connection) -> Iterator[JsonObject]:
    """Messages, until the other side is gone."""
    try:
        while True:
            yield json.loads(here.recv_bytes())
    except (EOFError, OSError):
        return
