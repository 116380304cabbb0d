"""Pictures decoded when asked for, and their prepared form kept on disk."""

import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from steersman.errors import UserError
from steersman.files import written_whole
from steersman.records import Values

CHUNK = 256
"""Frames prepared at a time."""
MOST_PIXELS = 2**25
"""Of one picture (8192x4096); a larger one is refused before it is decoded."""
TAIL = 64
"""Bytes at the end of a file in which its end marker must stand."""
MARKS = {
    ".jpg": (b"\xff\xd8", b"\xff\xd9"),
    ".jpeg": (b"\xff\xd8", b"\xff\xd9"),
    ".png": (b"\x89PNG", b"IEND"),
}


class Frames:
    """Pictures (time height width 3) uint8 RGB, decoded from files or encoded bytes each time they are read.

    `sources` are all paths, all bytes or all decoded, and may be any sequence that fetches them lazily. UserError
    names the frame that can't be decoded, is over MOST_PIXELS or has another size than the first.
    """

    def __init__(
        self, sources: Sequence[Path | bytes | np.ndarray], size: tuple[int, int] | None = None, origin: str = ""
    ):
        """`size` is (height, width), by default the first frame's; `origin` names bytes in errors."""
        self.sources, self.origin = sources, origin
        self.shape: tuple[int, ...] = (len(sources), *(size or self._decode(0).shape[:2]), 3)
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        if wanted.ndim == 0:
            return self._frame(int(wanted))
        pictures = np.empty((len(wanted), *self.shape[1:]), np.uint8)
        for place, i in enumerate(wanted):
            pictures[place] = self._frame(int(i))
        return pictures

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the pictures are: of files the names, sizes and times, of bytes the bytes."""
        lazily = getattr(self.sources, "fingerprint", None)
        if lazily:
            return lazily
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(
                stamp(source).encode() if isinstance(source, Path) else hashlib.sha256(bytes(source)).digest()
            )
        return digest.hexdigest()

    def _frame(self, i: int) -> np.ndarray:
        picture = self._decode(i)
        if picture.shape != self.shape[1:]:
            height, width = picture.shape[:2]
            raise UserError(
                f"{self._name(i)} is {width}x{height}, its recording {self.shape[2]}x{self.shape[1]}; "
                "remove it from its log"
            )
        return picture

    def _decode(self, i: int) -> np.ndarray:
        source = self.sources[i]
        if isinstance(source, np.ndarray):
            return source
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} is over {MOST_PIXELS} pixels")
                return np.asarray(image.convert("RGB"))
        except Exception as error:  # Pillow raises anything from SyntaxError to struct.error here.
            raise UserError(f"{self._name(i)} can't be decoded ({error}); remove it from its log") from error

    def _name(self, i: int) -> str:
        source = self.sources[i]
        return str(source) if isinstance(source, Path) else f"frame {i} of {self.origin or 'a recording'}"


class Chosen:
    """Some of the pictures of another stream, still decoded when asked for."""

    def __init__(self, values: Values, rows: np.ndarray):
        self.values, self.rows = values, rows
        self.shape: tuple[int, ...] = (len(rows), *values.shape[1:])
        self.dtype = values.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.values[self.rows[index]]

    @cached_property
    def fingerprint(self) -> str:
        """Of the whole and of which are chosen."""
        whole = getattr(self.values, "fingerprint", None) or _digest(self.values)
        return hashlib.sha256(whole.encode() + np.asarray(self.rows, np.int64).tobytes()).hexdigest()


def stamp(path: Path) -> str:
    """Name, size and time of change of a file: what tells it from another without reading it."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have.
        raise UserError(f"{path} can't be read ({error}); copy its folder anew") from error
    return f"{path.name}|{status.st_size}|{status.st_mtime_ns}\n"


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
    """Whether symbolic links on the way to `path` lead out of the folder `log`."""
    return not path.resolve().is_relative_to(log.resolve())


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


def cached(
    values: Values,
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`prepare` of every frame, done once and read from then on as a memory-mapped array.

    `prepare` takes uint8 (n height width 3) and gives uint8 (n ...); `key` says which preparation it is.
    `progress` is told (frames done, frames in all). A cache half written is never used.
    """
    identity = getattr(values, "fingerprint", None) or _digest(values)
    path = Path(folder) / (hashlib.sha256(f"{identity}|{key}".encode()).hexdigest() + ".npy")
    if not path.exists():
        # One process at a time, so that the ranks of one training don't all do the same work.
        with locked(path.parent):
            if not path.exists():
                _write(path, values, prepare, progress)
    return np.load(path, mmap_mode="r")


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
    with written_whole(path) as file:
        for start in range(0, len(values), CHUNK):
            batch = prepare(np.asarray(values[start : start + CHUNK]))
            assert batch.dtype == np.uint8, batch.dtype
            assert len(batch) == min(CHUNK, len(values) - start), batch.shape
            if start == 0:
                _write_header(file, (len(values), *batch.shape[1:]))
            file.write(np.ascontiguousarray(batch).data)
            if progress:
                progress(start + len(batch), len(values))


def _write_header(file, shape: tuple[int, ...]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _digest(values: Values) -> str:
    array = np.ascontiguousarray(values[:])
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
