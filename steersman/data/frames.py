"""Pictures decoded when asked for."""

import hashlib
import io
import re
import struct
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..files import read_most
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
MOST_BYTES = 2**28
"""Bytes of one encoded picture."""
MOST_SCANS = 64
"""Scans of a JPEG, each of which may go through all its pixels again; progressive ones usually have about ten."""
MOST_PARTS = 2**14
"""Segments before the first scan of a JPEG, and chunks of a PNG, which are read one by one."""
MOST_PROFILES = 16
"""Colour profiles in a PNG, each of which may unpack to a thousand times its size."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
"""Encodings that are decoded; among Pillow's others is one that runs a program."""


class TooLarge(ValueError):
    """What decoding a picture would cost more than it may."""


def decoded(data: bytes, most_pixels: int = MOST_PIXELS, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """RGB uint8 (height width 3) of an encoded picture, upright. Raises as `stored` does."""
    picture = stored(data, most_pixels, formats)
    return picture if picture.dtype == np.uint8 else of_bits(picture, bits_of(picture))


def stored(data: bytes, most_pixels: int = MOST_PIXELS, formats: tuple[str, ...] = FORMATS) -> np.ndarray:
    """An encoded picture as `pixels` gives it: the one way to decode what others wrote.

    TooLarge before anything is decoded that would take longer than its pixels and bytes account for; a damaged picture
    raises anything.
    """
    Image = _pillow()
    if excess := _excess(data):
        raise TooLarge(excess)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > most_pixels:
                raise TooLarge(f"{image.width}x{image.height} is over {most_pixels} pixels")
            return pixels(image)
    except Image.DecompressionBombError:  # Of its own accord, from twice its own limit on.
        raise TooLarge(f"it is over {most_pixels} pixels") from None


@cache
def _pillow() -> ModuleType:
    """Pillow, which would warn the terminal of sizes that are refused here."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def _excess(data: bytes) -> str:
    """What there is too much of in an encoded picture; empty where there is not."""
    if len(data) > MOST_BYTES:
        return f"{len(data)} bytes are over {MOST_BYTES}"
    counted = []
    if data.startswith(b"\xff\xd8"):
        parts, scans = _jpeg(data)
        counted = [("segments", parts, MOST_PARTS), ("scans", scans, MOST_SCANS)]
    elif data.startswith(b"\x89PNG"):
        profiles = data.count(b"iCCP")
        counted = [("chunks", _chunks(data), MOST_PARTS), ("colour profiles", profiles, MOST_PROFILES)]
    elif data[:2] in (b"P1", b"P2", b"P3"):
        counted = [("comments", data.count(b"#"), MOST_PARTS)]  # Each has the rest of the file copied.
    return "; ".join(f"it has over {most} {what}" for what, number, most in counted if number > most)


MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""A marker of a JPEG other than those by which a scan is restarted."""
BARE = re.compile(rb"[\x01-\xbf\xc8\xd8\xd9\xf0-\xfd]")
"""Second bytes of markers that begin no segment with a length."""


def _jpeg(data: bytes) -> tuple[int, int]:
    """How many segments, and bytes between them, stand before the first scan of a JPEG; and how many scans it has.

    What a segment holds, such as a small picture, does not count.
    """
    at, parts, scans = 2, 0, 0
    while (parts <= MOST_PARTS and scans <= MOST_SCANS) and (marker := MARKER.search(data, at)):
        kind = data[marker.end() - 1 : marker.end()]
        parts += 0 if scans else 1 + marker.start() - at
        scans += kind == b"\xda"
        if kind == b"\xd9" and scans:
            break
        at = marker.end()
        if not BARE.match(kind) and at + 2 <= len(data):
            at += max(2, *struct.unpack_from(">H", data, at))
    return parts if scans else parts + len(data) - at, scans


def _chunks(data: bytes) -> int:
    """How many chunks a PNG has."""
    at, found = 8, 0
    while at + 8 <= len(data) and found <= MOST_PARTS:
        at += 12 + struct.unpack_from(">I", data, at)[0]
        found += 1
    return found


class Frames:
    """Pictures (time height width 3) uint8 RGB, decoded from files or encoded bytes each time they are read.

    `sources` are all paths, all bytes or all decoded (RGB uint8, or deeper colours or grey), and may be any sequence
    that fetches them lazily. Pictures stand upright, as their EXIF orientation says; grey of more than 8 bits is
    scaled by the bits that some of them take. UserError names the frame that can't be decoded, is over MOST_PIXELS or
    has another size than the first.
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
        """Bits of pixels in a recording that has more than 8, as far as a few of its pictures tell."""
        found = [8]
        for i in np.unique(np.linspace(0, len(self.sources) - 1, SAMPLED).astype(int)).tolist():
            with suppress(UserError):
                found += [bits_of(picture)] if (picture := self._read(i)).dtype != np.uint8 else []
        return max(found)

    def _decode(self, i: int) -> np.ndarray:
        picture = self._read(i)
        return picture if picture.dtype == np.uint8 else of_bits(picture, self.bits)

    def _read(self, i: int) -> np.ndarray:
        """A picture as it is stored: RGB uint8 (height width 3), or deeper, as grey (height width) too."""
        source = self.sources[i]
        if isinstance(source, np.ndarray):
            return source
        try:
            return stored(source if isinstance(source, bytes) else _encoded(source))
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


def bits_of(picture: np.ndarray) -> int:
    """Bits of the camera that took a deep picture: 8, or the next even number that holds its values."""
    return max(8, int(picture.max()).bit_length() + 1 & ~1)


def of_bits(picture: np.ndarray, bits: int) -> np.ndarray:
    """A deep picture of so many bits, colours or grey (height width), as RGB uint8 (height width 3)."""
    scaled = (picture >> (bits - 8)).clip(0, 255).astype(np.uint8)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, -1)


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


def _encoded(path: Path) -> bytes:
    """The bytes of a file, and few more than may be decoded."""
    with open(path, "rb") as file:
        return read_most(file, MOST_BYTES)


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
