"""Scikit-learn's handwritten digits (Alpaydin & Kaynak 1998), a record each, one row of pixels a step."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.records import Record, Stream
from ..errors import UserError
from ..progress import Watch, silent
from .source import SourceSpec


@dataclass(frozen=True)
class Digits(SourceSpec):
    """Streams `row` (8 steps of 8 pixels, 0 to 16) and `digit` (one label)."""

    def read(self, watch: Watch = silent) -> list[Record]:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise UserError(
                'the digits come with scikit-learn, which is not installed; run: pip install "steersman[digits]"'
            ) from None
        found: Any = load_digits()
        clock = np.arange(8, dtype=float)
        return [
            Record(f"digit-{i}", {"row": Stream(picture, clock), "digit": Stream(label[None], clock[:1])})
            for i, (picture, label) in enumerate(
                zip(found.images.astype(np.float32), found.target.astype(np.float32), strict=True)
            )
        ]
