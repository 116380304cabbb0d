"""Files of a log: whether they are whole, and lie where they say."""

import os
import re
import stat
from pathlib import Path

from ..errors import UserError

TAIL = 64
"""Bytes at the end of a file in which its end marker must stand."""


MARKS = {
    ".jpg": (b"\xff\xd8", b"\xff\xd9"),
    ".jpeg": (b"\xff\xd8", b"\xff\xd9"),
    ".png": (b"\x89PNG", b"IEND"),
}


def damage(path: Path, log: Path | None = None) -> str | None:
    """What is wrong with a JPEG or PNG file as far as its size and its two ends tell, else None.

    A file that is a link out of `log` (default: its folder) is not followed.
    """
    start, end = MARKS.get(path.suffix.lower(), (b"", b""))
    try:
        if path.is_symlink() and strays(path, log or path.parent):
            return "a link that leads out of its log"
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "not a file"  # Opening a pipe would wait for ever.
        with open(path, "rb") as file:
            if file.read(len(start)) != start:
                return "not a picture"
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            return None if size and end in file.read() else "cut short"
    except FileNotFoundError:
        return "missing"
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have.
        return str(error)


def strays(path: Path, log: Path) -> bool:
    """Whether symbolic links on the way to `path` lead out of the folder `log`.

    One that lies in the cache of the Hugging Face hub may have its files in the folder `blobs` of that very cache.
    """
    real, root = path.resolve(), log.resolve()
    allowed = [root, *(found.parent.parent / "blobs" for found in (root, *root.parents) if _is_revision(found))]
    return not any(real.is_relative_to(folder) for folder in allowed)


def _is_revision(folder: Path) -> bool:
    """Whether a folder is named as one revision of a dataset in the hub's cache."""
    return folder.parent.name == "snapshots" and bool(re.fullmatch("[0-9a-f]{40}", folder.name))


def own_folder(path: Path, log: Path) -> Path:
    """The folder, which no link may lead out of `log`; else UserError."""
    if strays(path, log):
        raise UserError(f"{path} is a link that leads out of its log; copy the pictures themselves there")
    return path


def own(path: Path, log: Path | None = None) -> Path:
    """The path of a plain file that no link leads out of `log` (default: the file's folder); else UserError."""
    try:
        if path.is_file() and not strays(path, log or path.parent):
            return path
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    raise UserError(f"{path} is not a file of this log; copy the file itself there")


def encoded_damage(encoded: bytes) -> str | None:
    """What is wrong with the bytes of a JPEG or PNG as far as their two ends tell, else None."""
    for start, end in MARKS.values():
        if encoded.startswith(start):
            return None if end in encoded[-TAIL:] else "cut short"
    return "neither JPEG nor PNG"
