"""Prepared frames kept on disk."""

import atexit
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..console import say
from ..files import disk_error, flush, locked, sync_folder
from .frames import DECODED, _digest
from .records import Values


def cache_folder() -> Path:
    """Where prepared inputs are kept."""
    try:
        return Path.home() / ".cache" / "steersman"
    except RuntimeError:  # A user without a home, as in some containers.
        return _homeless() / "steersman"


@cache
def _homeless() -> Path:
    """A folder of this process alone: a name in a folder that all share could be anybody's."""
    folder = tempfile.mkdtemp(prefix="steersman-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


CHUNK = 256
"""Frames prepared at a time."""


FLUSHED = 16 * CHUNK
"""Frames after which a cache is flushed to the disk, from where it goes on after a kill."""


MOST_BYTES = 2**34
"""Size of all prepared frames that are kept: 16 GiB, six hours at 20 Hz and 66x200."""


def prepared(
    values: Values,
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`prepare` of every frame: in memory where they are decoded already, or are one; of others as `cached` does."""
    if type(values) is not np.ndarray and len(values) > 1:
        return cached(values, prepare, key, folder, progress)
    parts = [prepare(np.asarray(values[start : start + CHUNK])) for start in range(0, len(values), CHUNK)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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
    kept = _kept(path, len(values))
    if kept is None:
        # One process at a time, so that the ranks of one training don't all do the same work.
        with locked(path.parent):
            kept = _kept(path, len(values))
            if kept is None:
                if path.exists():
                    say(f"prepared frames are made anew: {path} is damaged")
                _write(path, values, prepare, progress)
                kept = np.lib.format.open_memmap(path, "r")
    return kept


def _kept(path: Path, num: int) -> np.ndarray | None:
    """So many prepared frames of the file; None where it is not there, or damaged."""
    with suppress(OSError):
        os.utime(path)  # It was used just now.
    try:
        found = np.lib.format.open_memmap(path, "r")
    except Exception:  # Another process may delete it at any time; damage makes NumPy raise anything.
        return None
    return found if found.dtype == np.uint8 and found.shape[:1] == (num,) else None


def _write(path: Path, values: Values, prepare, progress) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        # Its name is known beforehand, since it is gone on with; a link of that name is not followed.
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666), "r+b") as file:
            for start in range(_done(file, len(values)), len(values), CHUNK):
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


def _done(file: BinaryIO, num: int) -> int:
    """Frames of so many, in a file half written, that are surely on the disk; the file is cut behind them.

    Beyond a multiple of FLUSHED nothing is written before that many are flushed: one frame more proves them.
    """
    done, end = 0, 0
    with suppress(ValueError):  # No header, or half of one.
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        begin, size = file.tell(), math.prod(shape[1:])
        if shape[:1] == (num,) and size and dtype == np.uint8:
            done = max(0, (file.seek(0, os.SEEK_END) - begin) // size - 1) // FLUSHED * FLUSHED
            end = begin + done * size if done else 0
    file.truncate(end)
    file.seek(end)
    return done


def _make_room(folder: Path, part: Path, size: int) -> None:
    """Deletes what was not used for longest, so that `size` more bytes fit; who has it mapped may go on reading."""
    found = [(p.stat(), p) for p in kept_files(folder) if p != part]
    taken = sum(status.st_size for status, _ in found)
    for status, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
        if taken + size <= MOST_BYTES:
            return
        path.unlink()
        taken -= status.st_size


def kept_files(folder: Path) -> list[Path]:
    """The files that `cached` made in a folder, whole or not."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{64}\.npy(\.part)?", path.name)]
