"""Video files as pictures by their number, decoded when asked for."""

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from ..data.frames import MOST_PIXELS, stamp
from ..data.records import Index
from ..errors import UserError
from .lerobot_layout import reading
from .safety import own

REORDERED = 16
"""Frames by which, at most, the order in a file differs from that in which they are shown (H.264 and H.265)."""
ROUNDED_S = 1e-3
"""Seconds by which the times of a film of one rate may be off it."""
SLANT = 0.01
"""Part of a turn's matrix that is only rounding."""
MATRIX = "DISPLAYMATRIX"
"""What a player turns a frame by: nine whole numbers, of which a b, c d stand at 0 1, 3 4."""
DEMUXERS = {
    ".mkv": "matroska", ".webm": "matroska", ".avi": "avi", ".mp4": "mov", ".mov": "mov", ".m4v": "mov", ".3gp": "mov",
    ".hevc": "hevc", ".h265": "hevc", ".h264": "h264", ".264": "h264", ".ts": "mpegts", ".mts": "mpegts",
    ".m2ts": "mpegts", ".mpg": "mpeg", ".mpeg": "mpeg", ".wmv": "asf", ".mjpeg": "mjpeg", ".mjpg": "mjpeg",
}  # fmt: skip
"""Demuxers by a film's suffix: guessing one would let a playlist fetch other files."""

UNSEEKABLE = ("mpegts", "mpeg")
"""Those that land between key frames, from where nothing can be decoded."""


class Film:
    """All pictures of a video file: (time height width 3) uint8 RGB, in the order in which they are shown.

    A file cut short has the pictures that are left. One without time stamps of its pictures (.hevc, .h264, some .avi)
    or of a stream (.ts) can't be sought in: it is decoded from its start. UserError where it is not a video or one over
    MOST_PIXELS.
    """

    def __init__(self, path: Path):
        self.path, self.dtype = own(path), np.dtype(np.uint8)
        self._going: tuple[int, Iterator[np.ndarray]] | None = None
        with self._opened() as (container, stream):
            self.fps, self._tick_s = float(stream.average_rate or 0), float(stream.time_base or 0)
            size = (stream.height, stream.width)
            packets = [packet for packet in container.demux(stream) if packet.size]
        size, shown = self._first(size)
        times = [packet.pts for packet in packets if packet.pts is not None]
        # A packet without a time, or times that are not the pictures' (.avi), mean that they can only be counted.
        counted = len(set(times)) < len(packets) or DEMUXERS[path.suffix.lower()] in UNSEEKABLE
        self.pts = None if counted else np.array(sorted(times))
        if self.pts is not None:
            told = shown == self.pts[: len(shown)].tolist()
            self.pts = _without_loose_end(self.pts) if told else None
        self.shape: tuple[int, ...] = (self._last_whole(len(packets)), *size, 3)
        self.fingerprint = hashlib.sha256(f"{stamp(path)}{self.shape}".encode()).hexdigest()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def time_s(self) -> np.ndarray | None:
        """Seconds from the first picture to each, of a film whose rate varies; else None."""
        if self.pts is None or not self.fps or not len(self):
            return None
        found = (self.pts[: len(self)] - self.pts[0]) * self._tick_s
        even = np.abs(found - np.arange(len(self)) / self.fps).max() <= 1.5 * self._tick_s + ROUNDED_S
        return None if even else found

    def __getitem__(self, index: Index) -> np.ndarray:
        wanted = np.arange(len(self))[index]
        numbers, places = np.unique(wanted.reshape(-1), return_inverse=True)
        pictures = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for place, picture in enumerate(self._decoded(numbers)):
            pictures[place] = picture
        if not np.array_equal(numbers, wanted.reshape(-1)):
            pictures = pictures[places]
        return pictures.reshape(*wanted.shape, *self.shape[1:])

    def _decoded(self, wanted: np.ndarray) -> Iterator[np.ndarray]:
        """The wanted pictures, in order. Reading on where the last reading ended costs no seeking."""
        if not len(wanted):
            return
        going, self._going = self._going, None
        at, running = going or (-1, iter(()))
        first = int(wanted[0])
        if not (at == first or (self.pts is None and 0 <= at < first)):
            at, running = (first if self.pts is not None else 0), self._from(first)
        chosen = set(wanted.tolist())
        while at <= wanted[-1]:
            picture = next(running, None)
            if picture is None or picture.shape != self.shape[1:]:
                what = "can't be decoded" if picture is None else "has another size than the first"
                raise UserError(f"{self.path}: frame {at} {what}; copy the file anew or leave it out")
            if at in chosen:
                yield picture
            at += 1
        # At its end a film is closed.
        self._going = (at, running) if at < len(self) else None

    def _from(self, first: int) -> Iterator[np.ndarray]:
        """Pictures from number `first` on, of a film without time stamps from its start; ends where one is lacking."""
        with self._opened() as (container, stream):
            if self.pts is not None:
                container.seek(int(self.pts[first]), stream=stream)
            for frame in container.decode(stream):
                if self.pts is not None:
                    if frame.pts is None or frame.pts < self.pts[first]:
                        continue
                    if first == len(self.pts) or frame.pts != self.pts[first]:
                        return
                    first += 1
                yield upright(frame.to_ndarray(format="rgb24"), frame)

    def _first(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], list[int | None]]:
        """Size of the pictures as they are shown, and the times of the first few."""
        shown = []
        with self._opened() as (container, stream):
            for frame, _ in zip(container.decode(stream), range(REORDERED), strict=False):
                size = size if shown else upright(np.empty(size, np.uint8), frame).shape
                shown.append(frame.pts)
        return size, shown

    def _last_whole(self, num_packets: int) -> int:
        """How many pictures there are, without those at the end that don't decode."""
        if self.pts is None or not num_packets:
            return num_packets
        last = -1
        with self._opened() as (container, stream):
            container.seek(int(self.pts[-1]), stream=stream)
            try:
                for frame in container.decode(stream):
                    last = max(last, frame.pts if frame.pts is not None else -1)
            except av.error.FFmpegError:
                pass  # What came before the fault counts.
        return int(np.searchsorted(self.pts, last, side="right"))

    @contextmanager
    def _opened(self):
        """The container and its first video stream."""
        with reading(self.path), opened(self.path, DEMUXERS[self.path.suffix.lower()]) as found:
            yield found


@contextmanager
def opened(path: Path, demuxer: str | None = None) -> Iterator[tuple[Any, Any]]:
    """A film's container and its first video stream; raises anything where it is none, or over MOST_PIXELS.

    Without a `demuxer`, whose format it has is guessed: for a file that the user named, never one that a log names.
    """
    with av.open(f"file:{path}", format=demuxer) as container:
        stream = container.streams.video[0]
        if not 0 < stream.width * stream.height <= MOST_PIXELS:
            raise ValueError(f"its pictures are {stream.width}x{stream.height}")
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        yield container, stream


def numbered_from(frames: Collection[int], length: int, named: str | None) -> tuple[int, str]:
    """The number that a table gives a film's first picture, 0 or 1, and what is said of it where that is 1.

    `frames` are all that it names. Where 0 is not among them but 1 is, or the one behind the last, it counts from 1.
    ValueError where what is `named` is neither.
    """
    if named not in (None, "0", "1"):
        raise ValueError(f"first={named} is neither 0 nor 1, the number of the video's first picture")
    least, most = min(frames, default=0), max(frames, default=0)
    first = int(named) if named else int(least == 1 or (least > 0 and most == length))
    return first, f"frames count from 1, as {'named' if named else 'their numbers tell'}" if first else ""


def upright(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """A frame's picture (height width ...) turned and mirrored as its film tells players to.

    ValueError where that is no quarter of a turn.
    """
    held: Any = frame.side_data
    matrix = next((bytes(data) for data in held if data.type.name == MATRIX), None)
    if matrix is None:
        return picture
    parts = np.frombuffer(matrix, np.int32)[[0, 1, 3, 4]].astype(float)
    a, b, c, d = np.where(np.abs(parts) < SLANT * np.abs(parts).max(), 0, np.sign(parts)).astype(int).tolist()
    if not (b or c) and bool(a) == bool(d):
        return picture[:: d or 1, :: a or 1]
    if b and c and not (a or d):
        return picture.swapaxes(0, 1)[::b, ::c]
    raise ValueError(f"its pictures stand at an angle of {frame.rotation} degrees")


def _without_loose_end(pts: np.ndarray) -> np.ndarray:
    """The frames of a file cut short before the first one lost, for those after it can't be numbered."""
    step = np.diff(pts)
    gaps = np.flatnonzero(step > 1.5 * np.median(step)) + 1 if len(step) else step
    gaps = gaps[gaps > len(pts) - REORDERED]
    return pts[: gaps[0]] if len(gaps) else pts
