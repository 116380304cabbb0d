"""What the measured motion of the scene alone says of the wheel: how far it moved sideways, in the last pictures."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from ...data.examples import Example
from ...data.inputs import Inputs
from ...evaluation.ridge import closed_form
from ...nn.pictures import Motion

PAST = 10
"""Pictures whose motion is known, this one and those before it."""
AT_ONCE = 256
"""Pictures that are looked at together."""


def motion_rivals(
    train: Sequence[Example], held: Sequence[Example], shown: Sequence[Example], stream: str
) -> dict[str, list[np.ndarray]]:
    """Ridge regression and, where scikit-learn is installed, gradient boosting on the motion; the first target of each.

    None of pictures too small for a shift to be measured. The ridge's penalty and the boosting's rounds are chosen on
    what is held.
    """
    pictures = _pictures(train[0], stream)
    motion = Motion()
    if pictures.ndim != 4 or pictures.shape[1] < motion.rows or pictures.shape[2] < 9:
        return {}
    (x, y), (held_x, held_y) = (
        (np.concatenate([_features(e, stream, motion) for e in part]), np.concatenate([e.y[:, 0] for e in part]))
        for part in (train, held)
    )
    fitted = {"ridge on motion": closed_form(x, y, held_x, held_y)}
    if (boosted := _boosted(x, y, held_x, held_y)) is not None:
        fitted["boosting on motion"] = boosted
    seen = [_features(e, stream, motion) for e in shown]
    return {name: [say(part) for part in seen] for name, say in fitted.items()}


def _pictures(example: Example, stream: str) -> np.ndarray:
    return np.asarray(example.x.streams[stream] if isinstance(example.x, Inputs) else example.x)


def _features(example: Example, stream: str, motion: Motion) -> np.ndarray:
    """Shifts of each band in the last pictures (step band x PAST); before the first picture nothing moved."""
    pictures = torch.tensor(_pictures(example, stream))
    parts = []
    for start in range(1, len(pictures), AT_ONCE):
        line = pictures[start - 1 : start + AT_ONCE]
        parts.append(motion.shifts(line[None], len(line) - 1)[0])
    bands = motion.size(tuple(pictures.shape[1:]))
    shifts = np.concatenate([np.zeros((1, bands)), *(part.numpy() for part in parts)])
    line = np.concatenate((np.zeros((PAST, bands)), shifts))
    return np.concatenate([line[PAST - back : len(line) - back] for back in range(PAST)], 1)


def _boosted(
    x: np.ndarray, y: np.ndarray, held_x: np.ndarray, held_y: np.ndarray
) -> Callable[[np.ndarray], np.ndarray] | None:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError:
        return None
    model = HistGradientBoostingRegressor(max_iter=300, learning_rate=0.05, max_leaf_nodes=15, random_state=0)
    model.fit(x, y)
    errors = [np.mean((said - held_y) ** 2) for said in model.staged_predict(held_x)]
    rounds = 1 + int(np.argmin(errors))
    model = HistGradientBoostingRegressor(max_iter=rounds, learning_rate=0.05, max_leaf_nodes=15, random_state=0)
    return model.fit(x, y).predict
