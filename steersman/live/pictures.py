"""Pictures that come from outside, decoded with care, and pictures that go out."""

import io

import numpy as np
import torch
from PIL import Image

from ..data.frames import TooLarge, decoded
from ..nn.pictures import Picture
from .limits import Refused

FORMATS = ("JPEG", "PNG")
SHOWN = 640
"""Pixels of a picture's longer side, on its way to people."""


def decode(data: bytes, most_pixels: int) -> np.ndarray:
    """RGB uint8 (height width 3) of a JPEG or PNG; what it would cost is looked at before anything is decoded."""
    try:
        return decoded(data, most_pixels, FORMATS)
    except TooLarge as error:
        raise Refused(f"this picture is too large: {error}", "send smaller ones", 413) from None
    except Exception:  # Pillow raises anything from SyntaxError to struct.error here.
        raise Refused("this is not a whole picture", "send a JPEG or PNG as it is in its file") from None


def cut(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of a picture, as large as it goes in the proportions of `shape`."""
    (high, wide), (height, width) = picture.shape[:2], shape[:2]
    if high * width > wide * height:
        wanted = max(1, round(wide * height / width))
        return picture[(high - wanted) // 2 :][:wanted]
    wanted = max(1, round(high * width / height))
    return picture[:, (wide - wanted) // 2 :][:, :wanted]


def fitted(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture of any size as one of the shape a model was trained on: unchanged, or its middle shrunk by area."""
    if picture.shape == shape:
        return picture
    middle = torch.from_numpy(np.array(cut(picture, shape))).unsqueeze(0)
    return Picture(*shape[:2]).prepare(middle)[0].numpy()


def jpeg(picture: np.ndarray) -> bytes:
    """A picture for people: no larger than SHOWN."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.thumbnail((SHOWN, SHOWN), Image.Resampling.BILINEAR)
    return _encoded(image, "JPEG", quality=80)


def png(picture: np.ndarray) -> bytes:
    """Lossless, and quick rather than small."""
    return _encoded(Image.fromarray(np.ascontiguousarray(picture)), "PNG", compress_level=1)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()
