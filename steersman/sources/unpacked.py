"""What is packed with zstd: files of a log, unpacked once into a folder of this process's own, and single messages."""

import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from ..data.frames import stamp
from ..errors import UserError
from ..files import read_most
from .lerobot_layout import reading
from .safety import own

MAGIC = b"\x28\xb5\x2f\xfd"
"""The first bytes of what zstd packed; a message of ROS begins with others."""
MOST_BYTES = 2**30
"""Bytes of one message when unpacked."""
SPARE = 2**30
"""Bytes of the disk that stay free."""
PIECE = 2**22


def plain(path: Path) -> Path:
    """A file of a log, unpacked where its name ends in .zstd. UserError where there is no room for that."""
    path = own(path)
    return _file(path, stamp(path)) if path.suffix == ".zstd" else path


@cache
def _folder() -> Any:
    """A folder that only this user can read, gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="steersman-")


@cache
def _file(path: Path, stamp: str) -> Path:
    place = Path(tempfile.mkdtemp(dir=_folder().name)) / path.stem
    try:
        with reading(path), open(path, "rb") as packed, open(place, "xb") as file:
            stream = _zstandard().ZstdDecompressor().stream_reader(packed, read_across_frames=True)
            while piece := stream.read(PIECE):
                if shutil.disk_usage(place.parent).free < SPARE + len(piece):
                    raise UserError(
                        f"{path} needs more room when unpacked than {place.parent} has; unpack it elsewhere"
                    )
                file.write(piece)
    except BaseException:
        place.unlink(missing_ok=True)
        raise
    return place


def unzipped(data: bytes) -> bytes:
    """A message, unpacked if it was packed on its own. ValueError where it is over MOST_BYTES then."""
    if not data.startswith(MAGIC):
        return data
    found = read_most(_zstandard().ZstdDecompressor().stream_reader(data, read_across_frames=True), MOST_BYTES)
    if len(found) > MOST_BYTES:
        raise ValueError(f"it is over {MOST_BYTES} bytes when unpacked")
    return found


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise UserError("what zstd packed needs its package; run: pip install 'steersman[logs]'") from error
    return zstandard
