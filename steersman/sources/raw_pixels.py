"""Raw pictures of ROS (sensor_msgs/Image) and Foxglove as RGB: packed colours, Bayer mosaics, YUV, 8 or 16 bits."""

import re
from typing import Any

import numpy as np

from ..data.frames import MOST_PIXELS

PACKED = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2], "bgra": [2, 1, 0], "mono": [0]}
"""Where red, green and blue are."""
PLAIN = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "16UC3": "bgr16", "16UC4": "bgra16"}
"""OpenCV's names of types, in the order in which OpenCV has colours."""
DEPTH = ("16UC1", "16SC1", "32FC1", "64FC1")
"""Encodings of distances, which are no pictures to look at."""
YUV = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv", "nv12": "nv12", "nv21": "nv21"}
"""Names of YUV with colours at half the resolution, by how its bytes lie."""
KERNEL = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32)
"""Weights of a pixel's neighbours, of which a mosaic has some in each colour."""


def rgb(message: Any, data: bytes) -> np.ndarray:
    """The picture (height width 3), or grey of 16 bits (height width); uint8, or uint16 where its bits are not known.

    ValueError says what is wrong with it, that it is of distances too.
    """
    given = str(message.encoding)
    name = PLAIN.get(given, given)
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not (height > 0 and width > 0 and height * width <= MOST_PIXELS):
        raise ValueError(f"its pictures are {width}x{height}")
    if name in YUV:
        return _yuv(YUV[name], data, height, width, step)
    packed, mosaic = re.fullmatch(r"(rgba?|bgra?|mono)(8|16)", name), re.fullmatch(r"bayer_([rgb]{4})(8|16)", name)
    found = packed or mosaic
    if not found:
        what = "are distances" if given in DEPTH else f"are {given[:40]!r}"
        raise ValueError(f"its pixels {what}, not colours or grey in an encoding that is known")
    depth = int(found[2]) // 8
    channels = len(found[1]) if packed and found[1] != "mono" else 1
    kind = np.dtype(f"{'>' if getattr(message, 'is_bigendian', 0) else '<'}u{depth}")
    rows = _rows(data, height, width * channels * depth, step).view(kind).reshape(height, width, channels)
    if mosaic:
        return _demosaiced(rows[..., 0], mosaic[1])
    if channels == 1 and depth == 2:
        return rows[..., 0].astype(np.uint16)
    picture = rows[..., PACKED[found[1]]]
    return np.ascontiguousarray(np.broadcast_to(picture, (height, width, 3)).astype(f"u{depth}"))


def is_grey(message: Any) -> bool:
    """Whether a raw picture has no colours."""
    return str(getattr(message, "encoding", "")) in ("mono8", "mono16", "8UC1")


def is_depth(message: Any) -> bool:
    """Whether a picture, raw or compressed, is one of distances."""
    how = str(getattr(message, "encoding", "") or getattr(message, "format", ""))
    return "compressedDepth" in how or how.split(";")[0].strip() in DEPTH


def _rows(data: bytes, height: int, used: int, step: int) -> np.ndarray:
    """(height, used) bytes of rows that may be longer."""
    if step < used or len(data) < height * step:
        raise ValueError(f"{len(data)} bytes are not {height} rows of {step}, of which {used} are used")
    return np.ascontiguousarray(np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, :used])


def _demosaiced(mosaic: np.ndarray, order: str) -> np.ndarray:
    """(height width 3) of a mosaic (height width), whose first two rows begin with the four colours of `order`."""
    height, width = mosaic.shape
    at = np.array(list(order)).reshape(2, 2)[np.arange(height)[:, None] % 2, np.arange(width) % 2]
    values = mosaic.astype(np.float32)
    found = []
    for colour in "rgb":
        mask = at == colour
        if not mask.any():
            raise ValueError(f"a mosaic of {width}x{height} pixels in order {order} has no {colour}")
        between = _blurred(values * mask) / _blurred(mask.astype(np.float32)).clip(1)
        found.append(np.where(mask, values, np.round(between)))
    return np.stack(found, -1).astype(mosaic.dtype.newbyteorder("="))


def _blurred(values: np.ndarray) -> np.ndarray:
    padded, (height, width) = np.pad(values, 1), values.shape
    return sum(
        (KERNEL[y, x] * padded[y : y + height, x : x + width] for y in range(3) for x in range(3)),
        np.zeros_like(values),
    )


def _yuv(layout: str, data: bytes, height: int, width: int, step: int) -> np.ndarray:
    """RGB (height width 3) of YUV by BT.601 in video range, as OpenCV and cameras have it."""
    if width % 2 or (layout.startswith("nv") and height % 2):
        raise ValueError(f"{width}x{height} can't have colours at half the resolution")
    if layout.startswith("nv"):
        rows = _rows(data, height * 3 // 2, width, step).astype(np.float32)
        y, chroma = rows[:height], rows[height:].reshape(height // 2, width // 2, 2)
        first, second = (chroma[..., i].repeat(2, 0).repeat(2, 1) for i in (0, 1))
        u, v = (first, second) if layout == "nv12" else (second, first)
    else:
        pairs = _rows(data, height, width * 2, step).astype(np.float32).reshape(height, width // 2, 4)
        places = (1, 0, 2) if layout == "uyvy" else (0, 1, 3)
        y = pairs[..., places[0] :: 2].reshape(height, width)
        u, v = (pairs[..., place].repeat(2, 1) for place in places[1:])
    y, u, v = 1.164383 * (y - 16), u - 128, v - 128
    colours = np.stack([y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u], -1)
    return np.round(colours).clip(0, 255).astype(np.uint8)
