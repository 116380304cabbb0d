"""Pictures decoded when asked for."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .records import Index, Values

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 2**25
"""Pixels of one picture (8192x4096); a larger one is refused before it is decoded."""
DECODED = 2
"""Version of what decoding a picture gives; one prepared by an older is not taken from the cache."""
SAMPLED = 8
"""Pictures of a recording that tell how many bits its deep grey has."""
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""Pillow's names of what turns a picture upright, by its EXIF orientation."""
ORIENTATION = 0x0112


class Frames:
    """Pictures (time height width 3) uint8 RGB, decoded from files or encoded bytes each time they are read.

    `sources` are all paths, all bytes or all decoded, and may be any sequence that fetches them lazily. Pictures stand
    upright, as their EXIF orientation says; grey of more than 8 bits is scaled by the bits that some of them take.
    UserError names the frame that can't be decoded, is over MOST_PIXELS or has another size than the first.
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

    @cached_property
    def bits(self) -> int:
        """Bits of grey in a recording that has more than 8, as far as a few of its pictures tell."""
        found = [8]
        for i in np.unique(np.linspace(0, len(self.sources) - 1, SAMPLED).astype(int)).tolist():
            with suppress(UserError):
                found += [grey_bits(picture)] if (picture := self._read(i)).ndim == 2 else []
        return max(found)

    def _decode(self, i: int) -> np.ndarray:
        picture = self._read(i)
        return picture if picture.ndim == 3 else of_grey(picture, self.bits)

    def _read(self, i: int) -> np.ndarray:
        """A picture as it is stored: RGB, or grey of more than 8 bits (height width)."""
        source = self.sources[i]
        if isinstance(source, np.ndarray):
            return source
        from PIL import Image

        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} is over {MOST_PIXELS} pixels")
                return pixels(image)
        except Exception as error:  # Pillow raises anything from SyntaxError to struct.error here.
            raise UserError(f"{self._name(i)} can't be decoded ({error}); remove it from its log") from error

    def _name(self, i: int) -> str:
        source = self.sources[i]
        return str(source) if isinstance(source, Path) else f"frame {i} of {self.origin or 'a recording'}"


def pixels(image: "Image") -> np.ndarray:
    """An opened picture, upright: RGB uint8 (height width 3), or grey of more than 8 bits (height width)."""
    image.load()  # A TIFF turns itself.
    turn = 1
    with suppress(Exception):  # Damaged notes on a picture are no fault of its pixels.
        turn = image.getexif().get(ORIENTATION, 1)
    if turn in TURNS:
        from PIL.Image import Transpose

        image = image.transpose(Transpose[TURNS[turn]])
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
        return (values * (2**16 - 1 if values.max() <= 1 else 1)).clip(0, 2**31 - 1).astype(np.int64)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64).clip(0)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def grey_bits(picture: np.ndarray) -> int:
    """Bits of the camera that took a grey picture (height width): 8, or the next even number that holds its values."""
    return max(8, int(picture.max()).bit_length() + 1 & ~1)


def of_grey(picture: np.ndarray, bits: int) -> np.ndarray:
    """Grey of so many bits (height width) as RGB uint8 (height width 3)."""
    return np.repeat((picture >> (bits - 8)).clip(0, 255).astype(np.uint8)[..., None], 3, -1)


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
