"""Encoded pictures: decoding one costs no more than its bytes and pixels account for, whoever reads it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from steersman.data.frames import MOST_PARTS, MOST_SCANS, Frames, TooLarge, decoded
from steersman.errors import UserError


def segment(kind: int, data: bytes) -> bytes:
    return bytes((0xFF, kind)) + struct.pack(">H", len(data) + 2) + data


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def many_scans(number: int, frame: int = 0xC2, between: bytes = b"") -> bytes:
    """A JPEG of 16x16 grey pixels: one scan for the mean of each block, and empty ones for all the rest."""
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    tables += segment(frame, struct.pack(">BHHB", 8, 16, 16, 1) + b"\1\x11\0")
    one = bytes([1] + [0] * 15)
    tables += segment(0xC4, b"\0" + one + b"\0") + segment(0xC4, b"\x10" + one + b"\0")
    progressive = frame in (0xC2, 0xCA)
    first = segment(0xDA, b"\1\1\0\0\0\0" if progressive else b"\1\1\0\0\x3f\0") + b"\0"
    again = segment(0xDA, b"\1\1\0\1\x3f\0") + b"\0" if progressive else first
    return b"\xff\xd8" + tables + first + (between + again) * (number - 1) + b"\xff\xd9"


def png(before: bytes = b"", body: bytes = b"", after: bytes = b"", size: tuple[int, int] = (8, 8)) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    body += chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
    return b"\x89PNG\r\n\x1a\n" + header + before + body + after + chunk(b"IEND")


MANY = MOST_PARTS + 1
COSTLY = {
    "progressive": many_scans(MOST_SCANS + 1),
    "arithmetic": many_scans(MOST_SCANS + 1, 0xCA),
    "sequential": many_scans(MOST_SCANS + 1, 0xC1),
    "scans behind fill bytes": many_scans(MOST_SCANS + 1, between=b"\xff" * 9),
    "scans behind comments": many_scans(MOST_SCANS + 1, between=segment(0xFE, b"\xff\xd9")),
    "segments": b"\xff\xd8" + segment(0xE5, b"") * MANY + many_scans(1)[2:],
    "bare markers": b"\xff\xd8" + b"\xff\xf0" * MANY + many_scans(1)[2:],
    "fill bytes": b"\xff\xd8" + b"\xff" * MANY + many_scans(1)[2:],
    "nothing but fill bytes": b"\xff\xd8" + b"\xff" * MANY,
    "chunks before": png(chunk(b"teSt") * MANY),
    "chunks within": png(body=chunk(b"IDAT") * MANY),
    "chunks after": png(after=chunk(b"teSt") * MANY),
    "profiles": png(chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(2**20))) * 17),
    "comments": b"P3 8 8 255\n" + b"#\n" * MANY + b"0 " * 192,
    "pixels": png(size=(2**14, 2**12)),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_more_than_its_bytes_and_pixels_is_refused_undecoded(kind, monkeypatch):
    def never(*_, **__):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    with pytest.raises(TooLarge, match="over"):
        decoded(COSTLY[kind])
    with pytest.raises(UserError, match=r"frame 0 of a recording can't be decoded \(.* over .*; remove it"):
        Frames([COSTLY[kind]])


@pytest.mark.parametrize(
    "data",
    [
        many_scans(MOST_SCANS),
        many_scans(MOST_SCANS, 0xCA),
        many_scans(2, between=segment(0xE1, b"\xff\xda" * (MOST_SCANS + 1))),  # A small picture.
        many_scans(2) + many_scans(MOST_SCANS),  # Behind the end: a second picture.
        many_scans(2) + bytes(MANY) + b"\xff\xe5\0\2" * MANY,
        png(chunk(b"tEXt", b"k\0v") * 100, after=chunk(b"teSt") * 100),
        b"P3 8 8 255 # by hand\n" + b"0 " * 192,
    ],
)
def test_what_does_not_is_decoded(data):
    assert decoded(data).shape in ((16, 16, 3), (8, 8, 3))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
def test_pictures_of_many_frames_and_formats_are_read_as_their_first(form):
    picture = np.full((16, 24, 3), 128, np.uint8)
    file, more = io.BytesIO(), {}
    if form in ("PNG", "WEBP", "GIF", "TIFF"):
        more = {"save_all": True, "append_images": [Image.new("RGB", (24, 16), (i, 0, 0)) for i in range(100)]}
    Image.fromarray(picture).save(file, form, **more)
    np.testing.assert_allclose(Frames([file.getvalue()])[0], picture, atol=2)


def test_no_format_is_decoded_by_another_program():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    with pytest.raises(UserError, match="can't be decoded"):
        Frames([file.getvalue()])
