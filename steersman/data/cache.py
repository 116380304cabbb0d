"""Prepared frames kept on disk."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import UserError
from ..files import disk_error, flush, sync_folder
from .frames import DECODED, _digest
from .records import Values


def cache_folder() -> Path:
    """Where prepared inputs are kept."""
    try:
        return Path.home() / ".cache" / "steersman"
    except RuntimeError:  # A user without a home, as in some containers.
        return Path(tempfile.gettempdir()) / "steersman"


CHUNK = 256
"""Frames prepared at a time."""


FLUSHED = 16 * CHUNK
"""Frames after which a cache is flushed to the disk, from where it goes on after a kill."""


MOST_BYTES = 2**34
"""Size of all prepared frames that are kept: 16 GiB, six hours at 20 Hz and 66x200."""


def cached(
    values: Values,
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`prepare` of every frame, done once and read from then on as a memory-mapped array.

    `prepare` takes uint8 (n height width 3) and gives uint8 (n ...); `key` says which preparation it is.
    `progress` is told (frames done, frames in all). A cache half written is never used, but resumed. What was
    not used for longest is deleted before the folder grows over MOST_BYTES.
    """
    identity = getattr(values, "fingerprint", None) or _digest(values)
    path = Path(folder) / (hashlib.sha256(f"{identity}|{key}|{DECODED}".encode()).hexdigest() + ".npy")
    kept = _kept(path)
    if kept is None:
        # One process at a time, so that the ranks of one training don't all do the same work.
        with locked(path.parent):
            kept = _kept(path)
            if kept is None:
                _write(path, values, prepare, progress)
                kept = np.load(path, mmap_mode="r")
    return kept


def _kept(path: Path) -> np.ndarray | None:
    with suppress(OSError):
        os.utime(path)  # It was used just now.
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:  # Another process may delete it at any time.
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Waits until no other process works in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "wb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}; make it writable") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(path: Path, values: Values, prepare, progress) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "r+b" if part.exists() else "w+b") as file:
            for start in range(_done(file), len(values), CHUNK):
                batch = prepare(np.asarray(values[start : start + CHUNK]))
                assert batch.dtype == np.uint8, batch.dtype
                assert len(batch) == min(CHUNK, len(values) - start), batch.shape
                if start == 0:
                    _make_room(path.parent, part, len(values) * batch[0].nbytes)
                    header = {"descr": "|u1", "fortran_order": False, "shape": (len(values), *batch.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(np.ascontiguousarray(batch).data)
                if (start + len(batch)) % FLUSHED == 0:
                    flush(file)
                if progress:
                    progress(start + len(batch), len(values))
            flush(file)
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise disk_error(error, path) from error


def _done(file: BinaryIO) -> int:
    """Frames of a file half written that are surely on the disk; the file is cut behind them.

    Beyond a multiple of FLUSHED nothing is written before that many are flushed: one frame more proves them.
    """
    done, end = 0, 0
    with suppress(ValueError):  # No header, or half of one.
        np.lib.format.read_magic(file)
        shape, _, _ = np.lib.format.read_array_header_1_0(file)
        begin, size = file.tell(), int(np.prod(shape[1:]))
        done = max(0, (file.seek(0, os.SEEK_END) - begin) // size - 1) // FLUSHED * FLUSHED
        end = begin + done * size if done else 0
    file.truncate(end)
    file.seek(end)
    return done


def _make_room(folder: Path, part: Path, size: int) -> None:
    """Deletes what was not used for longest, so that `size` more bytes fit; who has it mapped may go on reading."""
    found = [(p.stat(), p) for p in folder.iterdir() if p.suffixes[-2:] in ([".npy"], [".npy", ".part"]) and p != part]
    taken = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
        if taken + size <= MOST_BYTES:
            return
        path.unlink()
        taken -= status.st_size
