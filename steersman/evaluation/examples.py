"""Single records on a page: which tell most, and how they look."""

import numpy as np

from ..data.lazy import is_lazy
from ..data.records import Record
from ..training.recipe import StepRecipe
from .page import Block, Pictures
from .plots import columns_over_time

EXAMPLES = (
    "Two that it is surest of and right, two that it is surest of and wrong, and the one that it is least sure of."
)
MOST_COLUMNS = 6
"""Columns of an example that are drawn: those that are measured most often."""
PIXELS = 160
"""Rows of the picture of an example whose numbers have no names."""


def telling_examples(said: np.ndarray, labels: np.ndarray) -> list[int]:
    """Places of the examples worth a look, by probabilities (item class)."""
    sure, right = said.max(1), said.argmax(1) == labels
    order = np.argsort(-sure, kind="stable")
    found = [*order[right[order]][:2], *order[~right[order]][:2], order[-1]]
    return list(dict.fromkeys(map(int, found)))


def inputs_block(recipe: StepRecipe, record: Record, caption: str) -> Block | None:
    """What a model sees of a record: named columns as lines, other numbers as a picture, of a film its middle."""
    stream = recipe.seen(record, answers=False)[recipe.inputs]
    if is_lazy(stream.values):
        return None
    if len(stream.values.shape) == 4:
        return Pictures([np.asarray(stream.values[len(stream.values) // 2])], [caption])
    values = np.asarray(stream.values[:])
    if values.dtype.kind != "f" or not 1 <= values.ndim <= 2:
        return None
    columns = values.reshape(len(values), -1).T.astype(float)
    names = recipe.numbers(recipe.inputs)
    if not names and len(columns) > MOST_COLUMNS:
        return Pictures([_picture(columns)], [f"{caption} Time to the right."])
    names = names or [recipe.inputs] if len(columns) == 1 else names or [f"{i}" for i in range(len(columns))]
    known = (~np.isnan(columns)).sum(1)
    kept = sorted(np.argsort(-known, kind="stable")[:MOST_COLUMNS])
    if not known.max():
        return None
    if len(kept) < len(columns):
        caption += f" The {len(kept)} of its {len(columns)} columns that were measured most often."
    return columns_over_time(stream.time_s, {names[i]: columns[i] for i in kept if known[i]}, caption)


def _picture(columns: np.ndarray) -> np.ndarray:
    """Numbers (number time) as grey levels, uint8 (row column 3)."""
    low, high = np.nanmin(columns), np.nanmax(columns)
    grey = np.nan_to_num((columns - low) / ((high - low) or 1.0)) * 255
    grey = grey.astype(np.uint8).repeat(max(1, PIXELS // len(grey)), 0)
    return np.repeat(grey.repeat(max(1, PIXELS // grey.shape[1]), 1)[..., None], 3, -1)
