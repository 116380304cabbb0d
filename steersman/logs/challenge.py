"""Scoring of Udacity's Challenge 2: one steering angle a frame, RMSE over all frames, public and private.

Format: github.com/udacity/self-driving-car, challenges/challenge-2. The truth has the columns frame_id,
steering_angle and public (1 or 0), a submission frame_id and steering_angle: radians at the steering wheel,
positive = left.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from ..errors import UserError
from ..evaluation.metrics import Scores, rmse

FRAME, ANGLE, PUBLIC = "frame_id", "steering_angle", "public"
PARTS = ("rmse", "public", "private")


def score_submission(truth: Path, submission: Path) -> Scores:
    """`rmse` of all frames, of the `public` and of the `private` ones, beside baselines.

    `mean` is the truth's own mean, the best that any constant can do. UserError where the two files do not hold
    the same frames, each once.
    """
    true, said = _table(truth, (FRAME, ANGLE, PUBLIC)), _table(submission, (FRAME, ANGLE))
    _check_frames(true, said, truth, submission)
    angle = np.array([row[0] for row in true.values()])
    public = np.array([row[1] for row in true.values()])
    if (bad := next((f for f, row in true.items() if row[1] not in (0, 1)), None)) is not None:
        raise UserError(f"{truth}: frame {bad} has {PUBLIC} {true[bad][1]:g}; it must be 1 or 0")
    guesses = {
        "zero": np.zeros(len(angle)),
        "mean": np.full(len(angle), angle.mean()),
    }
    return {
        "frames": len(angle),
        **_parts(np.array([said[frame][0] for frame in true]), angle, public == 1),
        "baselines": {name: _parts(guess, angle, public == 1) for name, guess in guesses.items()},
    }


def submission_table(name: str, scores: Scores) -> Table:
    """A submission beside the baselines, best first."""
    table = Table("RMSE (rad)", "all", "public", "private", box=None)
    rows = {name: scores, **scores["baselines"]}
    for key in sorted(rows, key=lambda key: rows[key]["rmse"]):
        cells = ("" if (value := rows[key][part]) is None else f"{value:.5f}" for part in PARTS)
        table.add_row(key, *cells, style="bold" if rows[key] is scores else None)
    return table


def _parts(said: np.ndarray, true: np.ndarray, public: np.ndarray) -> dict[str, float | None]:
    parts = zip(PARTS, (np.ones_like(public), public, ~public), strict=True)
    return {name: rmse(said[part], true[part]) if part.any() else None for name, part in parts}


def _check_frames(true: Mapping[int, object], said: Mapping[int, object], truth: Path, submission: Path) -> None:
    if missing := [frame for frame in true if frame not in said]:
        raise UserError(
            f"{submission} lacks {len(missing)} of the {len(true)} frames of {truth}, the first: {missing[0]}; "
            "give an angle for every frame"
        )
    if foreign := [frame for frame in said if frame not in true]:
        raise UserError(
            f"{submission} has {len(foreign)} frames that {truth} has not, the first: {foreign[0]}; remove them"
        )


def _table(path: Path, columns: Sequence[str]) -> dict[int, list[float]]:
    """The other columns by frame, in the order of the file. UserError names the line that can't be used."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
        rows = list(csv.reader(lines))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV of text ({error}); it needs {','.join(columns)}") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if missing := [name for name in columns if name not in header]:
        raise UserError(f"{path} has no column {', '.join(missing)} in its first line; it needs {','.join(columns)}")
    found: dict[int, list[float]] = {}
    for place, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            if len(row) != len(header):
                raise ValueError(f"has {len(row)} columns, the first line {len(header)}")
            cells = dict(zip(header, row, strict=True))
            frame, values = _frame(cells[FRAME]), [_finite(cells[name], name) for name in columns[1:]]
            if frame in found:
                raise ValueError(f"gives frame {frame} a second time")
        except ValueError as error:
            raise UserError(f"{path} line {place} {error}; mend it and score anew") from None
        found[frame] = values
    if not found:
        raise UserError(f"{path} holds no frames; give a line for each below its header")
    return found


def _frame(cell: str) -> int:
    try:
        return int(cell)
    except ValueError:
        raise ValueError(f"has the {FRAME} {cell[:40]!r}, which is not a whole number") from None


def _finite(cell: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e6:
        raise ValueError(f"has the {name} {cell[:40]!r}, which is not a number")
    return value
