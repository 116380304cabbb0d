"""Files of a log: whether they are whole, and lie where they say."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from ..data.frames import MOST_BYTES, ORIENTATION
from ..errors import UserError

TAIL = 64
"""Bytes at the end of a file in which its end marker usually stands."""
HEAD = 4096
"""Bytes at its start in which its size usually stands."""
FAR = 2**20
"""Bytes in which it stands behind previews and the like."""
JPEG, PNG = b"\xff\xd8", b"\x89PNG"
JPEG_END = b"\xff\xd9"
EXIF = b"Exif\0\0"
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations of pictures that lie on their side."""

MARKS = {
    ".jpg": (JPEG,),
    ".jpeg": (JPEG,),
    ".png": (PNG,),
    ".webp": (b"RIFF",),
    ".bmp": (b"BM",),
    ".ppm": (b"P6", b"P3"),
    ".pgm": (b"P5", b"P2"),
    ".tif": (b"II*\0", b"MM\0*"),
    ".tiff": (b"II*\0", b"MM\0*"),
}
"""What files of pictures begin with, by their suffix."""
SOUNDS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac", ".aif", ".aiff", ".au", ".mka", ".webm")
"""Suffixes of the files of a folder that are sounds."""


def shown(path: Path, log: Path | None = None) -> tuple[int, int] | None:
    """Height and width, upright, of a picture that is whole as far as its start and end tell; None where only decoding
    tells.

    ValueError says what is wrong with it. A file that is a link out of `log` (default: its folder) is not followed.
    """
    try:
        if path.is_symlink() and strays(path, log or path.parent):
            raise ValueError(f"{path.name} is a link that leads out of its log")
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(f"{path.name} is not a file")  # Opening a pipe would wait for ever.
        with open(path, "rb") as file:
            begin = file.read(HEAD)
            starts = MARKS.get(path.suffix.lower())
            if starts and not begin.startswith(starts):
                raise ValueError(f"{path.name} is not a picture")
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            tail = file.read()
            if not tail or not _ends(begin, tail, size):
                file.seek(0)
                # Cameras pad their JPEGs: the end may stand anywhere behind the start of the scan.
                if not begin.startswith(JPEG) or size > MOST_BYTES or not _jpeg_ends(file.read()):
                    raise ValueError(f"{path.name} is cut short")
            if begin.startswith(JPEG):
                file.seek(0)
                return (_pillow(path) if EXIF in begin else None) or _jpeg(begin)[0] or _jpeg(file.read(FAR))[0]
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    except OSError as error:
        raise ValueError(f"{path.name} is {error}") from error
    return (int.from_bytes(begin[20:24]), int.from_bytes(begin[16:20])) if begin.startswith(PNG) else _pillow(path)


def damage(path: Path, log: Path | None = None) -> str | None:
    """What is wrong with a picture as far as its start and end tell, else None."""
    try:
        shown(path, log)
    except ValueError as error:
        return str(error).removeprefix(f"{path.name} is ")
    return None


def _ends(head: bytes, tail: bytes, size: int) -> bool:
    """Whether a file is whole by its last bytes, or by the length that its first ones give."""
    if head.startswith(JPEG):
        return JPEG_END in tail
    if head.startswith(PNG):
        return b"IEND" in tail
    if head.startswith(b"RIFF"):
        return size >= 8 + int.from_bytes(head[4:8], "little")
    return size >= int.from_bytes(head[2:6], "little") if head.startswith(b"BM") else True


def _jpeg(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """Height and width, None where they lie beyond the data, and the place where the scan begins, 0 the same."""
    size, at = None, 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark == 0xFF or mark == 0x01 or 0xD0 <= mark <= 0xD7:
            at += 1 if mark == 0xFF else 2
            continue
        if 0xC0 <= mark <= 0xCF and mark not in (0xC4, 0xC8, 0xCC):
            size = (int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9]))
        if mark == 0xDA:
            return size, at
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return size, 0


def _jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG has an end, which a preview in its header is not."""
    scan = _jpeg(data)[1]
    return scan > 0 and data.find(JPEG_END, scan) > 0


def _pillow(path: Path) -> tuple[int, int] | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION, 1) in SIDEWAYS
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception:  # Pillow raises anything here; decoding will say what.
        return None


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


def head(path: Path, num: int) -> bytes:
    """The first bytes of a plain file that no link leads out of its folder; none of what is none, or can't be read."""
    try:
        if not path.is_file() or strays(path, path.parent):
            return b""
        with open(path, "rb") as file:
            return file.read(num)
    except (OSError, ValueError):
        return b""


def encoded_damage(encoded: bytes) -> str | None:
    """What is wrong with the bytes of a JPEG or PNG as far as their start and end tell, else None."""
    if not encoded.startswith((JPEG, PNG)):
        return "neither JPEG nor PNG"
    whole = _ends(encoded[:HEAD], encoded[-TAIL:], len(encoded))
    return None if whole or (encoded.startswith(JPEG) and _jpeg_ends(encoded)) else "cut short"


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """What is in a folder, sorted, without the companions that macOS writes beside the files (`._name`)."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("._"))


def within(folder: Path, depth: int) -> Iterator[Path]:
    """All files of a folder and of so many levels below it, in order, without what is linked."""
    for child in entries(folder):
        if child.is_dir():
            if depth and not child.is_symlink():
                yield from within(child, depth - 1)
        else:
            yield child
