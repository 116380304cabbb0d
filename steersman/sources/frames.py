"""Pictures decoded when asked for, and their prepared form kept on disk."""

import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from steersman.errors import UserError
from steersman.files import disk_error, flush, sync_folder
from steersman.records import Values

CHUNK = 256
"""Frames prepared at a time."""
FLUSHED = 16 * CHUNK
"""Frames after which a cache is flushed to the disk, from where it goes on after a kill."""
MOST_BYTES = 2**34
"""Of all prepared frames that are kept: 16 GiB, six hours at 20 Hz and 66x200."""
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
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
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


def cached(
    values: Values,
    prepare: Callable[[np.ndarray], np.ndarray],
    key: str,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`prepare` of every frame, done once and read from then on as a memory-mapped array.

    `prepare` takes uint8 (n height width 3) and gives uint8 (n ...); `key` says which preparation it is.
    `progress` is told (frames done, frames in all). A cache half written is never used, but gone on with. What was
    not used for longest is deleted before the folder grows over MOST_BYTES.
    """
    identity = getattr(values, "fingerprint", None) or _digest(values)
    path = Path(folder) / (hashlib.sha256(f"{identity}|{key}".encode()).hexdigest() + ".npy")
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


def _digest(values: Values) -> str:
    array = np.ascontiguousarray(values[:])
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
