"""Pictures decoded when asked for."""

import hashlib
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ..errors import UserError
from .records import Index, Values

MOST_PIXELS = 2**25
"""Pixels of one picture (8192x4096); a larger one is refused before it is decoded."""


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

    def __getitem__(self, index: Index) -> np.ndarray:
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
        from PIL import Image

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

    def __getitem__(self, index: Index) -> np.ndarray:
        return self.values[self.rows[index]]

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole and of which frames are chosen."""
        whole = getattr(self.values, "fingerprint", None) or _digest(self.values)
        return hashlib.sha256(whole.encode() + np.asarray(self.rows, np.int64).tobytes()).hexdigest()


def stamp(path: Path) -> str:
    """Name, size and time of change of a file: what tells it from another without reading it."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have.
        raise UserError(f"{path} can't be read ({error}); copy its folder anew") from error
    return f"{path.name}|{status.st_size}|{status.st_mtime_ns}\n"


def _digest(values: Values) -> str:
    array = np.ascontiguousarray(values[:])
    return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
