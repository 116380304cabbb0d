"""A drive in the making, appended row by row: cut at any byte, it leaves every row before the cut readable."""

import fcntl
import json
import math
import os
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import disk_error
from ..sources.lerobot import Kind

SUFFIX = ".journal"
FRAME = struct.Struct("<II")
"""Header of each payload: how many bytes it has, and their CRC-32."""
LEVEL = 1
"""Level of zlib: a picture of the simulator shrinks to a tenth, in a third of a millisecond."""


class Journal:
    """Frames of bytes: the first says which streams there are, each other one holds a row of them.

    Every row is handed to the system at once, so a `kill -9` loses none that was appended; `sync` makes them last
    through a power cut. The file is locked while it is open: who finds it unlocked finds what was left behind.
    """

    def __init__(self, path: Path, kinds: Mapping[str, Kind]):
        self.path, self.kinds = path, dict(kinds)
        self.num_rows = 0
        try:
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise disk_error(error, path) from error
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._write(json.dumps({"streams": self.kinds}).encode())

    def append(self, row: Mapping[str, object]) -> None:
        """One value of every stream."""
        parts = []
        for name, (dtype, shape) in self.kinds.items():
            value = np.asarray(row[name], np.dtype(dtype).newbyteorder("<"))
            assert value.shape == tuple(shape), (name, value.shape)
            parts.append(value.tobytes())
        self._write(zlib.compress(b"".join(parts), LEVEL))
        self.num_rows += 1

    def sync(self) -> None:
        """What was appended is on the disk when this returns. Another thread may close the file meanwhile."""
        with suppress(ValueError, OSError):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, payload: bytes) -> None:
        frame = FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            # One call a row; the system may take less of it where the disk is full.
            while frame:
                frame = frame[self._file.write(frame) :]
        except OSError as error:
            raise disk_error(error, self.path) from error


def left_behind(folder: Path) -> list[Path]:
    """The journals in a folder that no living process writes, oldest first."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            found.append(path)
    return found


def read(path: Path) -> tuple[dict[str, np.ndarray], int]:
    """The streams up to the first byte that is not as it was written, and how many bytes are left out from there on.

    UserError where not even the beginning can be read.
    """
    data = path.read_bytes()
    first, end = _frame(data, 0)
    try:
        kinds = _kinds(json.loads(first or b""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not a journal of a drive, or damaged from its beginning; move it away") from error
    widths = [dtype.itemsize * math.prod(shape) for dtype, shape in kinds.values()]
    rows: list[bytes] = []
    while True:
        payload, after = _frame(data, end)
        row = _unpacked(payload, sum(widths)) if payload else None
        if row is None:
            break
        rows.append(row)
        end = after
    table = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), sum(widths))
    streams, cuts = {}, np.cumsum(widths)[:-1]
    for (name, (dtype, shape)), part in zip(kinds.items(), np.split(table, cuts, 1), strict=True):
        values = np.ascontiguousarray(part).reshape(-1).view(dtype)
        streams[name] = values.reshape(len(rows), *shape).astype(dtype.newbyteorder("="))
    return streams, len(data) - end


def _kinds(header: Any) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    found = {}
    for name, (dtype, shape) in header["streams"].items():
        dtype = np.dtype(dtype).newbyteorder("<")
        if dtype.kind not in "biuf" or not all(isinstance(n, int) and 0 < n < 2**16 for n in shape):
            raise ValueError(f"stream {name!r} can't be {dtype} of shape {shape}")
        found[name] = dtype, tuple(shape)
    if not found:
        raise ValueError("no stream")
    return found


def _frame(data: bytes, start: int) -> tuple[bytes | None, int]:
    """The payload of the frame that begins at `start`, and where the next begins; None where it is not whole."""
    begin = start + FRAME.size
    if begin > len(data):
        return None, start
    length, checksum = FRAME.unpack_from(data, start)
    payload = data[begin : begin + length]
    whole = len(payload) == length and zlib.crc32(payload) == checksum
    return (payload, begin + length) if whole else (None, start)


def _unpacked(payload: bytes, size: int) -> bytes | None:
    """A row of so many bytes; None where it is none."""
    try:
        row = zlib.decompressobj().decompress(payload, size + 1)
    except zlib.error:
        return None
    return row if len(row) == size else None
