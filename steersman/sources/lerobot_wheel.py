"""Which number of a LeRobotDataset steers: one that is named, as in `action.continuous[2]`, or told by its name.

A number is `FEATURE[PLACE]` or `FEATURE[NAME]`, by the names in info.json, a lone one `FEATURE`; the difference of two,
as of a right and a left wheel, `A - B`. It becomes `steer`: a fraction of full lock, positive = LEFT.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .drives import OVER, number

OPTIONS = ("steer", "sign", "scale", "episodes")
"""What can be named behind the path, as in `LOG?steer=action[wheel]&sign=right&scale=0.04&episodes=0:10`."""
SHOWN = 40
"""Numbers of a dataset that are listed."""


@dataclass(frozen=True)
class Term:
    """A number of a feature, by its place; -1 in one of a single number."""

    feature: str
    place: int

    def of(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """(row,) of columns (row ...)."""
        column = columns[self.feature]
        return np.asarray(column if self.place < 0 else column[:, self.place], np.float64)


@dataclass(frozen=True)
class Steer:
    """What steers: a term, less another perhaps, times a factor."""

    said: str
    term: Term
    less: Term | None = None
    factor: float = 1.0
    sign: str = "positive taken for left: the dataset does not tell"

    def of(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Fractions of full lock (row,), positive left, as they are in columns (row ...)."""
        value = self.term.of(columns)
        return self.factor * (value if self.less is None else value - self.less.of(columns))


def full_lock(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fractions as float32, clipped where a hair over full lock, NaN where beyond it; and where that is."""
    with np.errstate(invalid="ignore"):
        beyond = np.abs(value) > 1 + OVER
    return np.where(beyond, np.nan, np.clip(value, -1, 1) + 0.0).astype(np.float32), beyond


def steer_of(log: object, features: Mapping[str, dict], given: Mapping[str, str]) -> Steer | None:
    """What is named, or else the only number of an action whose name says that it steers. UserError lists them all."""
    try:
        factor = number(float(given.get("scale", 1)), -1e9, 1e9) * (-1 if given.get("sign") == "right" else 1)
        if not factor or given.get("sign", "left") not in ("left", "right"):
            raise ValueError("scale must not be 0, and sign be left or right")
    except ValueError as error:
        raise UserError(f"{log}: {error}") from error
    sign = f"positive {given['sign']}, as named" if "sign" in given else Steer.sign
    if "steer" in given:
        terms = _terms(given["steer"], features)
        if not terms:
            raise UserError(
                f"{log} has no number {given['steer']!r}; name one, or A - B of two, of these: {listed(features)}"
            )
        return Steer(given["steer"], terms[0], terms[1] if len(terms) > 1 else None, factor, sign)
    told = [(name, term) for name, term in numbers(features) if _is_wheel(name)]
    if len(told) != 1:
        return None
    return Steer(told[0][0], told[0][1], None, factor, sign)


def numbers(features: Mapping[str, dict]) -> Iterator[tuple[str, Term]]:
    """All numbers of features that are numbers or vectors, as they are named."""
    for feature, spec in features.items():
        if spec["shape"] == [1]:
            yield feature, Term(feature, -1)
        elif len(spec["shape"]) == 1:
            names = part_names(spec) or list(map(str, range(spec["shape"][0])))
            yield from ((f"{feature}[{name}]", Term(feature, place)) for place, name in enumerate(names))


def listed(features: Mapping[str, dict]) -> str:
    """The numbers of a dataset, for a message."""
    names = [name for name, _ in numbers(features)]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "") or "it has none"


def part_names(spec: dict) -> list[str]:
    """The names of a vector's numbers, in a list or in lists under any keys; none where they are not as many."""
    names = spec.get("names")
    lists = list(names.values()) if isinstance(names, dict) else [names]
    found = [str(name) for part in lists if isinstance(part, list) for name in part]
    return found if spec["shape"] == [len(found)] else []


def episodes(log: object, given: Mapping[str, str], found: list[int]) -> set[int]:
    """The episodes that are named as `0:10,15`, or all. UserError where one of these is not there."""
    if "episodes" not in given:
        return set(found)
    wanted: set[int] = set()
    for part in given["episodes"].split(","):
        first, colon, last = part.strip().partition(":")
        try:
            low, high = (int(first or 0), int(last) if last else math.inf) if colon else (int(first), int(first) + 1)
        except ValueError:
            raise UserError(f"{log}: episodes={given['episodes']} is not of the form 0:10,15") from None
        chosen = {number for number in found if low <= number < high}
        if not chosen:
            raise UserError(f"{log} has no episode {part.strip()}; it has {len(found)}, from {found[0]} to {found[-1]}")
        wanted |= chosen
    return wanted


def _terms(text: str, features: Mapping[str, dict]) -> list[Term]:
    """The one or two numbers that a text names; none where it names something else. A feature may have a `-` in it."""
    known = dict(numbers(features))
    known |= {f"{term.feature}[{term.place}]": term for term in known.values() if term.place >= 0}
    if text.strip() in known:
        return [known[text.strip()]]
    for place in (place for place, sign in enumerate(text) if sign == "-"):
        pair = [known.get(part.strip()) for part in (text[:place], text[place + 1 :])]
        if all(pair):
            return [term for term in pair if term]
    return []


def _is_wheel(name: str) -> bool:
    return name.startswith("action") and "steer" in name.lower()
