"""Files that are either whole or not there, and stand where they are said to and nowhere else."""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, TextIO

from .errors import UserError

MOST_BYTES = 2**28
"""Size of a file that is read at once (256 MiB)."""
PIECE = 2**20
"""Bytes that are read at a time."""


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears under its name when the block ends, flushed, and not at all after an error.

    Until then it has a name that nobody can foretell (`file.name`); a link in its place is replaced, not followed.
    UserError where the disk is full or the folder can't be written to: what was there before is unharmed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(path) and not mode_of_file(os.lstat(path).st_mode):
            raise UserError(f"{path} can't be written (it is not a file); choose another name")
        _clear(path.parent, path.name)
        file = _part(path)
        try:
            with file:
                yield file
                flush(file)
                os.replace(file.name, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(file.name)
            raise
    except OSError as error:
        raise disk_error(error, path) from error
    sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """A reader sees the old file or the new one."""
    with written_whole(path) as file:
        file.write(data)


def hidden_name(name: str) -> str:
    """A name for what is to be called `name` once it is whole; no other call gives it."""
    return f".{name[:40]}.{secrets.token_hex(8)}.part"


def is_hidden(found: str, name: str) -> bool:
    """Whether `hidden_name` made the one of the other."""
    return re.fullmatch(rf"\.{re.escape(name[:40])}\.[0-9a-f]{{16}}\.part", found) is not None


def _part(path: Path) -> BinaryIO:
    """A new file beside `path`, locked for as long as it is open: who finds it unlocked finds what a kill left."""
    while True:
        file = open(path.with_name(hidden_name(path.name)), "xb")  # noqa: SIM115
        if _lock(file.fileno(), wait=False) and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # Another process cleared it away before it was locked.


def _clear(parent: Path, name: str) -> None:
    """Removes what processes that were killed left of a file or folder of that name."""
    for found in os.listdir(parent):
        if is_hidden(found, name):
            with suppress(OSError):
                handle = os.open(parent / found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stat.S_ISDIR(os.fstat(handle).st_mode):
                        shutil.rmtree(parent / found, ignore_errors=True)
                    else:
                        os.unlink(parent / found)
                finally:
                    os.close(handle)


@contextmanager
def folder_written_whole(path: Path, kind: str = "") -> Iterator[Path]:
    """A folder to write files into; it appears as `path` when the block ends, in the place of what was there.

    `kind` is a name for all that are written in turn beside it: what a kill left of one is removed with the next.
    UserError as of `written_whole`.
    """
    kind = kind or path.name
    part, old = (path.with_name(hidden_name(kind)) for _ in range(2))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path.parent, kind)
        part.mkdir()
        handle = os.open(part, os.O_RDONLY)
        try:
            _lock(handle, wait=False)
            yield part
            if os.path.lexists(path):
                os.replace(path, old)
            os.replace(part, path)
        finally:
            os.close(handle)
            for rest in (part, old):
                shutil.rmtree(rest, ignore_errors=True)
    except OSError as error:
        raise disk_error(error, path) from error
    except UserError as error:
        raise UserError(str(error).replace(str(part), str(path))) from error
    sync_folder(path.parent)


@contextmanager
def locked(folder: Path, busy: str = "") -> Iterator[None]:
    """Waits until no other process works in a folder, which is made if need be.

    With `busy`, what that means, there is no waiting: UserError says so. UserError, too, where it can't be written to.
    """
    path, there = folder / ".lock", folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
            if not _lock(handle, wait=not busy):
                os.close(handle)
                raise UserError(busy)
            if os.fstat(handle).st_nlink:
                break
            os.close(handle)  # Who had it has removed it since.
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}; make it writable") from error
    try:
        yield
    finally:
        if busy and not os.fstat(handle).st_size:  # Where one has words in it, it is somebody else's.
            path.unlink(missing_ok=True)
            if not there:
                with suppress(OSError):  # Nothing came of it.
                    folder.rmdir()
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    """Whether the lock of an open file was had; a file system that knows none gives it to everybody."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def plain(path: Path) -> Path:
    """The path of a regular file that no link leads out of its folder.

    UserError where it is something else, such as a pipe that would be waited for; FileNotFoundError where nothing is.
    """
    real = inside(path, path.parent)
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise UserError(f"{path} can't be read: it is not a file")
    return real


def inside(path: Path, folder: Path) -> Path:
    """The path without its links. UserError where one of them leads out of `folder`."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(folder)):
        raise UserError(f"{path} is a link that leads out of {folder}; put there what it leads to")
    return real


def read_file(path: Path, most: int = MOST_BYTES) -> bytes:
    """What a plain file holds. UserError where it is none, or larger than `most` bytes."""
    real = plain(path)
    handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        data = read_most(file, most)
    if len(data) > most:
        raise UserError(f"{path} can't be read: it is larger than {most:,} bytes")
    return data


def read_most(stream: IO[bytes], most: int) -> bytes:
    """What a stream holds, and no more than one byte beyond `most`.

    A piece at a time: a read takes all the memory that it might need, however little there is.
    """
    pieces, size = [], 0
    while size <= most and (piece := stream.read(min(PIECE, most + 1 - size))):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def appended(path: Path) -> TextIO:
    """A text file to write on at its end. OSError where a link stands there."""
    return open(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def check_output(path: Path, folder: bool = False, otherwise: str = "choose another place") -> None:
    """UserError where a file can't be written there, or files into that folder: asked before the work that fills it.

    `otherwise` says what to do about it.
    """
    at = path
    while not os.path.lexists(at) and at != at.parent:
        at = at.parent
    try:
        # A link that stands where a file is to be is replaced.
        mode = (os.stat if folder or at != path else os.lstat)(at).st_mode
    except OSError as error:
        raise UserError(f"{path} can't be written ({at}: {error.strerror}); {otherwise}") from None
    wrong = ""
    if at == path and not folder:
        wrong = "it is a folder" if stat.S_ISDIR(mode) else "" if mode_of_file(mode) else "it is not a file"
        at = at.parent
    elif not stat.S_ISDIR(mode):
        wrong = f"{at} is not a folder"
    if not wrong and not os.access(at, os.W_OK | os.X_OK):
        wrong = f"{at} may only be read"
    if wrong:
        raise UserError(f"{path} can't be written ({wrong}); {otherwise}")


def mode_of_file(mode: int) -> bool:
    """Whether it is that of a file, or of a link in its place."""
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def flush(file: BinaryIO) -> None:
    """What was written is on the disk when this returns."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Makes renames in a folder last through a power cut."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise disk_error(error, folder) from None


def disk_error(error: OSError, path: Path) -> Exception:
    """What a full disk or a missing permission means to the user; another error is given back as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the disk is full: {path} was not written, what was there before is unharmed; free some space"
        )
    if error.errno in UNWRITABLE:
        return UserError(f"{path} can't be written ({error.strerror}); choose a folder you may write to")
    return error


UNWRITABLE = (
    errno.EACCES,
    errno.EROFS,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
"""Errors that are about where a file was to stand."""
