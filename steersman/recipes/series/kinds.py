"""The three kinds: what comes next, which class a series is of, what is true at every step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from ...data.examples import WEIGHT, Example
from ...data.records import Record, Stream, last_known
from ...errors import UserError
from ...evaluation.ridge import closed_form
from ...evaluation.seasons import find_season
from ...nn.heads import Classification, Regression, StretchedHead, calibrates, tells_distribution
from ...nn.model import Model
from ...training.recipe import INTERVAL, Parts
from .bands import AdaptiveBands
from .series import FOLDER, MOST_NAMES, SEASON, VALUES, Series, shifted, word

PENALTIES = tuple(10.0**power for power in range(-7, 2))
"""Penalties of ridge regression that are tried: lags are so much alike that small ones matter."""
ROWS = 20_000
"""Rows at most that it learns from, evenly taken."""


@dataclass(frozen=True, kw_only=True)
class Forecast(Series):
    """Forecast of some columns, so many steps ahead, at every step."""

    target: tuple[str, ...] = ()
    """Columns to forecast; empty: the last column of numbers."""
    horizon: int = 12
    """Steps ahead, each of which is forecast."""
    change: bool = True
    """Whether what is learned is the change from the last value that is known: levels that drift stay in range."""
    drifting: tuple[str, ...] = ()
    """Targets that drift away, of which changes are seen in place of levels; learned, with --change: those of which
    over a tenth of the validation part lies beyond what the training part holds."""

    season: int = 0
    """Steps of a season: what each target was one season before the steps to come is an input; 1: none; 0: found in
    the training part, by its autocorrelation and spectrum."""
    lags: int = 0
    """Steps back at each of which what each target was is an input. With --skip what is said begins as a ridge
    regression on the inputs, fitted to the training part, and the network learns beside it what is left."""
    band_rate: float = 0.0
    """How fast bands grow after what they missed, and shrink after what they held, as a series is gone through; 0:
    they stay as the validation part calibrated them."""

    BOUNDS = {**Series.BOUNDS, "horizon": (1, inf), "season": (0, inf), "lags": (0, inf), "band_rate": (0, 1)}

    @property
    def answers(self) -> tuple[str, ...]:
        return self.target

    @property
    def hidden(self) -> tuple[str, ...]:
        return ()  # What has been is known.

    @property
    def future_inputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.horizon

    @property
    def overlap(self) -> int:
        return self.horizon

    def with_answers(self, parts: Parts) -> Self:
        first = parts["train"][0]
        numbers = [name for name, stream in first.streams.items() if np.asarray(stream.values).dtype.kind == "f"]
        usable = [name for name in numbers if name not in (*self.ahead, *self.static, *self.leave_out, WEIGHT)]
        target = self.target or tuple(usable[-1:])
        if not target:
            raise UserError(f"{first.name} has no column of numbers to forecast; it has {', '.join(first.streams)}")
        for name in target:
            if name not in numbers:
                raise UserError(f"column {name!r} holds no numbers: it can be no target of a forecast")
            for part, records in parts.items():
                values = np.concatenate([np.asarray(record[name].values) for record in records] or [np.zeros(1)])
                known = values[~np.isnan(values)]
                if not len(known):
                    raise UserError(f"target {name!r} is blank in the whole {part} part; give data that holds it")
                if part == "train" and known.min() == known.max():
                    raise UserError(f"target {name!r} is {known[0]:g} throughout: there is nothing to learn")
        drifting = tuple(name for name in target if self.change and _drifts(name, parts))
        season = self.season or find_season([np.asarray(record[target[0]].values) for record in parts["train"]])
        return replace(self, target=target, drifting=drifting, season=season, head=replace(self.head, targets=target))

    def seen(self, record: Record, answers: bool = True) -> Record:
        arranged = super().seen(record, answers)
        values = np.asarray(arranged[VALUES].values)
        for place, name in self.drifting_places:
            level = np.asarray(record[name].values, np.float64)
            before = np.append(np.nan, last_known(level)[:-1])
            values[:, place] = np.where(np.isnan(before), level * 0, level - before)
        if not self.derived_inputs:
            return arranged
        earlier = Stream(self.season_ago(record), arranged[VALUES].time_s)
        return replace(arranged, streams={**arranged.streams, SEASON: earlier})

    @property
    def derived_inputs(self) -> tuple[str, ...]:
        return (SEASON,) if self.steps_back else ()

    @property
    def steps_back(self) -> list[int]:
        """Steps before the present one at which a whole number of seasons lies before each step ahead, and lags."""
        ahead = range(1, self.horizon + 1) if self.season > 1 else ()
        return [*(self.season * -(-step // self.season) - step for step in ahead), *range(1, self.lags + 1)]

    def season_ago(self, record: Record) -> np.ndarray:
        """What each target was then, less what it is where changes are learned (step number); NaN before there was."""
        found = []
        for name in self.target:
            level, base = last_known(np.asarray(record[name].values, np.float64)), self.base(record, name)
            for back in self.steps_back:
                before = np.full(len(level), np.nan)
                before[back:] = level[: max(0, len(level) - back)]
                found.append(before - base)
        return np.stack(found, 1).astype(np.float32)

    def numbers(self, stream: str) -> list[str]:
        if stream != SEASON:
            return super().numbers(stream)
        ahead = [f"a season before +{step + 1}" for step in range(self.horizon if self.season > 1 else 0)]
        return [f"{name} {at}" for name in self.target for at in (*ahead, *(f"-{n + 1}" for n in range(self.lags)))]

    def fit_normalisers(self, model: Model, examples: Sequence[Example]) -> None:
        super().fit_normalisers(model, examples)
        if self.lags and self.skip and calibrates(model.head):
            _begin_linear(model, model.head, examples)

    @property
    def drifting_places(self) -> list[tuple[int, str]]:
        own = [column for column in self.columns if column not in self.static]
        return [(own.index(name), name) for name in self.drifting if name in own]

    def answer_streams(self, record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The next steps of each target, less its last known value where changes are learned."""
        streams, known = {}, np.ones(len(record), bool)
        for name in self.target:
            values, base = np.asarray(record[name].values, np.float64), self.base(record, name)
            # A step at a time: all of them in float64 would take three times the memory of what is kept.
            streams[name] = later = np.empty((len(values), self.horizon), np.float32)
            for step in range(self.horizon):
                change = shifted(values, step + 1) - base
                known &= ~np.isnan(change)
                later[:, step] = np.nan_to_num(change)
        if not known.any():
            raise UserError(
                f"record {record.name!r} has no step of which the next {self.horizon} are known; give a longer one, or "
                "lower --horizon"
            )
        return streams, known

    def in_units(self, record: Record, said: np.ndarray) -> np.ndarray:
        """What the model said (step target ahead) in the units of the targets."""
        return said + np.stack([self.base(record, name) for name in self.target], 1)[:, :, None]

    def said(self, model: Model, record: Record, example: Example, raw: Tensor) -> dict[str, np.ndarray]:
        """Each step ahead of each target, and where the head says a distribution, the bounds of its middle 80 %."""
        point, bounds = self.forecasts(model, record, raw)
        numbers = np.stack((point, *bounds), -1).reshape(len(raw), -1)
        return dict(zip(self.row_names(model), numbers.T, strict=True))

    @property
    def changing(self) -> tuple[str, ...]:
        return self.target if self.change else ()

    def row_names(self, model: Model) -> list[str]:
        ends = ["", *map(" {:.0%}".format, self.bounds(model))]
        return [f"{name} +{step + 1}{end}" for name in self.target for step in range(self.horizon) for end in ends]

    def forecasts(self, model: Model, record: Record, raw: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
        """Raw outputs (step output) of a record as estimates, and the bounds of INTERVAL, each (step target ahead)."""
        shape = (len(raw), len(self.target), self.horizon)
        bounds = []
        if tells_distribution(model.head):
            bounds = [part.reshape(shape) for part in model.head.quantiles(raw, INTERVAL).unbind(-1)]
        point, *bounds = (
            self.in_units(record, values.numpy()) for values in (model.head.point(raw).reshape(shape), *bounds)
        )
        if adapt := self.adaptive_bands(model):
            now = np.stack([np.asarray(record[name].values, float) for name in self.target], 1)
            found = np.stack([adapt(*step) for step in zip(now, point, np.stack(bounds, -1), strict=True)])
            bounds = [found[..., 0], found[..., 1]]
        return point, bounds

    def adaptive_bands(self, model: Model) -> AdaptiveBands | None:
        if not self.band_rate or not self.bounds(model):
            return None
        return AdaptiveBands(len(self.target), self.horizon, self.band_rate)

    def base(self, record: Record, name: str) -> np.ndarray:
        """The last known value of a target at every step (step); zeros where changes are not learned."""
        values = np.asarray(record[name].values, np.float64)
        return last_known(values) if self.change else np.zeros(len(values))


def _begin_linear(model: Model, head: StretchedHead, examples: Sequence[Example]) -> None:
    """Sets what a model says at first to a ridge regression on its inputs, in closed form; the core has no say yet.

    As the autoregressive part of Lai et al. (2018, LSTNet), but fitted before the network is. Its penalty is chosen on
    the last fifth of the training part.
    """
    rows, answers = [], []
    every = max(1, sum(map(len, examples)) // ROWS)
    for example, feature in zip(examples, model.encoded(examples), strict=True):
        at = np.flatnonzero(np.ones(len(example)) if example.weight is None else example.weight)[::every]
        rows.append(feature.double().numpy()[at])
        answers.append(head.standard(torch.from_numpy(example.y[at])).double().numpy())
    x, y = np.concatenate(rows), np.concatenate(answers)
    cut = len(x) * 4 // 5
    if cut < 2:
        return
    fitted = closed_form(x[:cut], y[:cut], x[cut:], y[cut:], PENALTIES)
    offset = fitted(np.zeros((1, x.shape[1])))[0]
    head.begin_linear(fitted(np.eye(x.shape[1])) - offset, offset)


def _drifts(name: str, parts: Parts) -> bool:
    """Whether over a tenth of the validation part lies beyond what the training part holds."""
    known = np.concatenate([np.asarray(record[name].values) for record in parts["train"]])
    later = np.zeros(0)
    for record in parts.get("validation", ()):
        counts = np.asarray(record[WEIGHT].values) > 0 if WEIGHT in record.streams else slice(None)
        later = np.append(later, np.asarray(record[name].values)[counts])
    later = later[~np.isnan(later)]
    beyond = (later < np.nanmin(known)) | (later > np.nanmax(known))
    return bool(len(later)) and bool(beyond.mean() > 0.1)


@dataclass(frozen=True, kw_only=True)
class Labelled(Series):
    """Answers that stand in a column of their own."""

    label: tuple[str, ...] = ()
    """Columns of the answer: one of words or whole numbers is a class, others are quantities; empty: a column called
    label, class or target; folder: the name of a table's folder."""
    answer: Literal["auto", "class", "number"] = "auto"
    """What the answers are; auto: classes where they are words or few whole numbers."""
    classes: tuple[str, ...] = ()
    """Names of the classes; learned from the training part."""

    @property
    def answers(self) -> tuple[str, ...]:
        return self.label

    @property
    def once(self) -> bool:
        return self.flavour == "many-to-one"

    def transform_records(self, records: list[Record]) -> list[Record]:
        """With the label found, where it is not named; a folder's name becomes a column."""
        found = self if self.label else replace(self, label=(_label_of(records[0]),))
        folders = FOLDER in found.label and not self.columns
        shown = [found._with_folder(record) if folders else record for record in records]
        return super(Labelled, found).transform_records(shown)

    def _with_folder(self, record: Record) -> Record:
        folder = record.about.get(FOLDER)
        if folder is None:
            raise UserError(f"{record.name} lies in no folder that says its class; name a column with --label")
        clock = next(iter(record.streams.values()))
        named = Stream(np.array([folder] * len(clock), object), clock.time_s)
        return replace(record, streams={**record.streams, FOLDER: named})

    def with_answers(self, parts: Parts) -> Self:
        label: tuple[str, ...] = self.label or (_label_of(parts["train"][0]),)
        records = parts["train"]
        for name in label:
            for part, held in parts.items():
                if held and all(not word(v) for r in held for v in np.asarray(r[name].values).tolist()):
                    raise UserError(f"label {name!r} is blank in the whole {part} part; give data that holds it")
        if not self._tells_classes(records, label):
            return replace(self, label=label, head=Regression(targets=label))
        one = next(iter(label))
        if len(label) > 1:
            raise UserError(f"one column of classes can be learned, not {len(label)}: {', '.join(label)}")
        if self.once and len(everyone := [record for part in parts.values() for record in part]) > 1:
            self._check_classes(everyone, one)
        names = self.classes or tuple(_names(records, one))
        if len(names) < 2:
            raise UserError(f"label {one!r} is {' '.join(names)!r} throughout: there is nothing to tell apart")
        unknown = {w for p in ("validation", "test") for w in _names(parts.get(p, ()), one)} - set(names)
        if unknown:
            raise UserError(
                f"class {sorted(unknown)[0]!r} of {one!r} is not in the training part: it has too few series; "
                "give more of them, or leave them out"
            )
        head = self.head if isinstance(self.head, Classification) else Classification()
        head = replace(head, targets=(one,), classes=len(names), names=names)
        return replace(self, label=label, classes=names, head=head)

    def _check_classes(self, records: Sequence[Record], label: str) -> None:
        """UserError for a class that a single series has: it can't be learned and scored."""
        each = [_names([record], label) for record in records]
        for name in sorted({one for words in each for one in words}):
            if sum(name in words for words in each) < 2:
                raise UserError(
                    f"class {name!r} of {label!r} has one series; give it two at least, or leave that series out"
                )

    def _tells_classes(self, records: Sequence[Record], label: Sequence[str]) -> bool:
        if self.answer != "auto":
            return self.answer == "class"
        values = [np.asarray(r[name].values) for r in records for name in label]
        if any(v.dtype.kind == "O" for v in values):
            return True
        known = np.concatenate([v[~np.isnan(v)] for v in values])
        return bool((known == np.round(known)).all()) and len(np.unique(known)) <= MOST_NAMES // 2

    def numbers_of_classes(self, records: Sequence[Record]) -> np.ndarray:
        """The class of each whole series by its number (record)."""
        return np.array([int(self.answer_streams(record)[0][self.label[0]][-1]) for record in records])

    def answer_streams(self, record: Record) -> tuple[dict[str, np.ndarray], np.ndarray]:
        streams, known = {}, np.ones(len(record), bool)
        for name in self.label:
            values = np.asarray(record[name].values)
            if self.classes:
                words = np.array([word(v) for v in values.tolist()])
                place = {known: number for number, known in enumerate(self.classes)}
                if wrong := sorted({*words.tolist()} - {"", *place}):
                    raise UserError(
                        f"record {record.name!r}: {name!r} is {wrong[0]!r}; the classes are {', '.join(self.classes)}"
                    )
                numbers = np.array([place.get(w, np.nan) for w in words.tolist()])
            else:
                numbers = values.astype(np.float64)
            if self.once:  # One answer, wherever in the series it stands.
                given = numbers[~np.isnan(numbers)]
                if not len(given):
                    raise UserError(f"record {record.name!r} has no {name}; leave it out, or give it one")
                if self.classes and (given != given[0]).any():
                    raise UserError(
                        f"record {record.name!r} has several classes of {name!r}; an answer at every step is learned "
                        "by the recipe label"
                    )
                numbers = np.full(len(numbers), given[-1])
            known &= ~np.isnan(numbers)
            streams[name] = np.nan_to_num(numbers).astype(np.float32)
        return streams, known


def _names(records: Sequence[Record], label: str) -> list[str]:
    """The words of a column, numbers in their order."""
    found = {word(v) for r in records for v in np.asarray(r[label].values).tolist()} - {""}
    try:
        return sorted(found, key=float)
    except ValueError:
        return sorted(found)


def _label_of(record: Record) -> str:
    columns = {name.lower(): name for name in record.streams}
    for called in ("label", "class", "target", "state", "y"):
        if called in columns:
            return columns[called]
    if FOLDER in record.about:
        return FOLDER
    raise UserError(f"which column holds the class? Name it with --label; there are {', '.join(record.streams)}")
