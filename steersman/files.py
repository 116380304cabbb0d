"""Files that are either whole or not there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it appears under its name when the block ends, flushed, and not at all after an error.

    UserError where the disk is full or the folder can't be written to: what was there before is unharmed.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            flush(file)
        os.replace(part, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """A reader sees the old file or the new one."""
    with written_whole(path) as file:
        file.write(data)


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
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
        return UserError(f"{path} can't be written ({error.strerror}); choose a folder you may write to")
    return error
