"""Tasks of any application: numbers are estimated, classes are told apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..config import did_you_mean
from ..data.examples import Example, counted
from ..data.records import Record, Stream
from ..errors import UserError
from ..nn.heads import (
    Classification,
    Counts,
    DistributionHead,
    Gaussian,
    Head,
    MixtureDensity,
    Quantiles,
    Regression,
    StudentT,
    tells_classes,
    tells_distribution,
    tells_numbers,
)
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.material import Material
from ..training.run import Run
from ..training.task import Scores, TaskSpec
from .calibration import (
    BANDS,
    calibration_error,
    distribution_facts,
    distribution_scores,
    distribution_section,
    normal_scores,
    reliability,
    reliability_section,
)
from .examples import EXAMPLES, inputs_block, telling_examples
from .metrics import by_size, classification_scores, quantile_edges, regression_scores
from .outcome import Scored, Told, contract, run_name, scores_beside, task_beside
from .page import Block, Fact, Pictures, Section, figure
from .plots import Trace
from .ranking import macro_auroc, ranking_curves, two_class_scores
from .ridge import ridge
from .sections import (
    Words,
    classification_facts,
    classification_sections,
    classification_summary,
    percent,
    ranking_section,
    regression_facts,
    regression_sections,
    regression_summary,
)


@dataclass(frozen=True)
class Estimate(TaskSpec):
    """A number is estimated, at every step or once a record; the head's first target is the one that is scored.

    Of a target of several numbers the error is over all of them, and each is a series of its own. A head that says a
    distribution is scored by its point estimate, and beside it by its likelihood, its CRPS and its bands.
    """

    quantity: str = ""
    """What is estimated, in words; empty: the target's name."""
    unit: str = ""
    """Unit of the quantity, in words; empty: as in the data."""

    measure: ClassVar[str] = "rmse"
    heads = (Regression, Gaussian, StudentT, Quantiles, MixtureDensity, Counts)
    usual: ClassVar[bool] = True
    words: ClassVar[Words] = Words()
    """What its page says that an application says otherwise."""
    edges: ClassVar[tuple[float, ...]] = ()
    """Bounds of the true value's size by which errors are sorted; none: five bins of as many steps each."""
    columns: ClassVar[tuple[str, ...]] = ("rmse", "mae")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        model: Model = run.model()
        examples = run.recipe.examples(model, material.test, watch)
        target, size = model.head.streams[0], (model.head.sizes or (1,))[0]
        examples, raws = counted(examples, model.answers(examples))
        predictions = _series(model.points(raws), size)
        truths = _series([np.atleast_2d(e.y) for e in examples], size)
        for other in beside:
            task_beside(self, other)
        others: dict[str, Sequence[np.ndarray]] = {run_name(o): _beside(o, model, material.test) for o in beside}
        for name, theirs in others.items():
            if [len(t) for t in theirs] != [len(t) for t in truths]:
                raise UserError(f"{name} sees other steps of these records than this run does: it can't stand beside")
        others |= self.rivals(run, model, examples, material, watch)
        once = model.flavour == "many-to-one"
        periods = np.concatenate([np.diff(e.time_s) for e in examples])
        rate_hz = 1 / float(np.median(periods)) if len(periods) and np.median(periods) > 0 else 1.0
        names = [name for e in examples for name in _names(e, model)]
        edges = self.edges or quantile_edges(np.concatenate(truths))
        head = model.head
        assert tells_numbers(head)
        means = head.mean[:size].tolist() * len(examples)
        scores = regression_scores(predictions, truths, means, rate_hz, others, names, () if once else (1, 10), edges)
        clocks = {name: e.time_s - e.time_s[0] for e in examples for name in _names(e, model)}
        for row in scores["worst"]:  # Not every clock is even.
            row["time_s"] = float(clocks[row["record"]][row["step"]])
        sizes = {name: by_size(np.concatenate(o), np.concatenate(truths), edges) for name, o in others.items()}
        scores |= {
            "target": self.quantity or target,
            "unit": self.unit,
            "data": material.name,
            "others": sizes,
            "once": once,
            "also": {} if once else {"best lag (s)": scores["best_lag_s"]},
        }
        columns = self.columns
        if tells_distribution(head):
            columns = (*columns, *SURE)
            scores |= _sure(head, raws, examples, size)
            _fill_in(scores, truths, head, size, [run_name(o) for o in beside])
        scores = contract(self, scores, columns)
        series = [(e, name) for e in examples for name in _names(e, model)]
        bands = (lambda: _bands(head, raws, size)) if tells_distribution(head) else None
        return Scored(scores, lambda: self._told(scores, run, material.test, series, predictions, bands))

    def rivals(
        self, run: Run, model: Model, examples: Sequence[Example], material: Material, watch: Watch
    ) -> dict[str, list[np.ndarray]]:
        """What simple models, trained on what the run was, say of the examples: a series each, by their names."""
        line = _ridge(run, model, examples, material, watch)
        return {} if line is None else {"ridge": line}

    def units(self, targets: Sequence[str]) -> dict[str, str]:
        return super().units(targets) | ({targets[0]: self.unit} if self.unit else {})

    def _told(
        self,
        scores: Scores,
        run: Run,
        records: Sequence[Record],
        series: Sequence[tuple[Example, str]],
        predictions: Sequence[np.ndarray],
        bands: Callable[[], list[np.ndarray]] | None = None,
    ) -> Told:
        size = len(series) // len(records)
        # A record with one answer has nothing to draw over time.
        around = [(band[:, 0], band[:, 1]) for band in bands()] if bands else None
        traces = [
            Trace(name, e.time_s - e.time_s[0], predictions[i], e.y[:, i % size], band=around[i] if around else None)
            for i, (e, name) in enumerate(series)
            if e.y.ndim == 2
        ]
        streams = [run.steps.seen(record)[run.steps.inputs] for record in records for _ in range(size)]
        seen = {name: (stream, e.time_s[0]) for (e, name), stream in zip(series, streams, strict=True)}
        pictures = _worst_pictures(scores, seen)
        first, *rest = regression_sections(scores, traces, scores["others"], pictures, self.words)
        facts = regression_facts(scores)
        if bands is None:
            return regression_summary(scores), facts, [first, *rest]
        sections = [first, distribution_section(scores), *rest]
        return regression_summary(scores), [*facts, *distribution_facts(scores)], sections


@dataclass(frozen=True)
class Classify(TaskSpec):
    """Classes are told apart, at every step or once a record.

    Two classes are also ranked: by the area under the ROC curve, the average precision, the smaller of sensitivity and
    precision at the best threshold, and the Brier score. Of more, the AUROC is the mean of each against the rest.
    """

    positive: str = ""
    """Of two classes the one that is looked for; empty: the rarer one in the training data, of equals the last."""

    measure: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    heads = (Classification,)
    usual: ClassVar[bool] = True

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        for other in beside:
            task_beside(self, other)
            said, theirs = _question(run), _question(other)
            if said != theirs:
                raise UserError(f"{other.folder} tells {theirs}, this run {said}: it can't stand beside")
        model: Model = run.model()
        head = model.head
        assert tells_classes(head)
        examples = run.recipe.examples(model, material.test, watch)
        examples, answers = counted(examples, model.answers(examples))
        labels = head.labels(np.concatenate([e.y.reshape(-1) for e in examples]))
        raws = torch.cat(answers)
        scores = classification_scores(raws.numpy(), labels, head.counts.numpy(), head.names())
        with torch.no_grad():
            said = head.probabilities(raws.double()).numpy()
        positive = self._positive(scores["names"], head.counts.numpy())
        scores |= _ranked(said, labels, positive)
        for name, row in scores["baselines"].items():  # They say the same of all items.
            row |= _ranked(np.broadcast_to(_constant(name, head.counts.numpy()), said.shape), labels, positive)
        for name, theirs in self.rivals(run, material, watch).items():
            right = float((theirs.argmax(1) == labels).mean())
            nats = float(-np.log(np.maximum(theirs[np.arange(len(labels)), labels], 1e-12)).mean())
            scores["baselines"][name] = {"accuracy": right, "nats": nats} | _ranked(theirs, labels, positive)
        columns = (*_ranked(said[:1], labels[:1], positive), "accuracy", "nats")
        scores["baselines"] |= scores_beside(self, columns, beside, material)
        if positive is None:
            rows = reliability(said.max(1), said.argmax(1) == labels)
        else:
            rows = reliability(said[:, positive], labels == positive)
            chances, there = said[:, positive], labels == positive
            scores |= {"positive": scores["names"][positive], "curves": ranking_curves(chances, there)}
        scores |= {"reliability": rows, "calibration_error": calibration_error(rows)}
        scores = contract(self, scores | {"data": material.name}, columns)
        return Scored(scores, lambda: self._told(scores, run, material.test, said, labels))

    def rivals(self, run: Run, material: Material, watch: Watch = silent) -> dict[str, np.ndarray]:
        """Probabilities (item class) of the test records' classes by what stands beside, by name."""
        return {}

    def shown(self, run: Run, record: Record, caption: str) -> Block | None:
        """A record of which a class was told, for a person to look at; None where it can't be drawn."""
        return inputs_block(run.steps, record, caption)

    def looked_for(self, head: Head) -> int | None:
        if not tells_classes(head):
            return None
        return self._positive(head.names() or [str(n) for n in range(head.classes)], head.counts.cpu().numpy())

    def _positive(self, names: Sequence[str], counts: np.ndarray) -> int | None:
        """The place of the class that is looked for, of two."""
        if self.positive and self.positive not in names:
            raise UserError(
                f"there is no class {self.positive!r}{did_you_mean(self.positive, names)}; there are {', '.join(names)}"
            )
        if len(names) != 2:
            return None
        return list(names).index(self.positive) if self.positive else int(counts[1] <= counts[0])

    def _told(self, scores: Scores, run: Run, records: Sequence[Record], said: np.ndarray, labels: np.ndarray) -> Told:
        if "curves" in scores:
            what = f"chances of {scores['positive']}"
            ranked = [ranking_section(scores)]
        else:
            what, ranked = "answers", []
        sure = reliability_section(scores["reliability"], scores["calibration_error"], what)
        sections = [*ranked, *classification_sections(scores), sure]
        if run.steps.flavour == "many-to-one":
            names, blocks = scores["names"], []
            for place in telling_examples(said, labels):
                guess, chance = int(said[place].argmax()), said[place].max()
                was = "rightly" if guess == labels[place] else f"was {names[labels[place]]}"
                caption = f"{records[place].name}: said {names[guess]} ({percent(chance)}), {was}."
                blocks.append(self.shown(run, records[place], caption))
            if drawn := [block for block in blocks if block]:
                sections.append(Section("Examples", EXAMPLES, drawn))
        note = "guessing: 0.5" if len(scores["names"]) == 2 else "mean of each class against the rest"
        facts = [Fact("AUROC", figure(scores["auroc"]), note), *classification_facts(scores)]
        return classification_summary(scores), facts, sections


def _ranked(said: np.ndarray, labels: np.ndarray, positive: int | None) -> Scores:
    """How well the classes are ranked, by probabilities (item class)."""
    if positive is None:
        return {"auroc": macro_auroc(said, labels)}
    return two_class_scores(said[:, positive], labels == positive)


def _constant(name: str, counts: np.ndarray) -> np.ndarray:
    """What a baseline that looks at nothing says (class): the training data's frequencies, or the same of all."""
    share = counts + 1.0 if name == "majority" else np.ones(len(counts))
    return share / share.sum()


SURE = ("crps", "nll")
"""Columns of a head that says a distribution."""
CHUNK = 16384
"""Steps that are scored at once."""
WIDTHS = 4096
"""Steps at most over which the width of a band is averaged."""


@torch.no_grad()
def _sure(head: DistributionHead, raws: Sequence[Tensor], examples: Sequence[Example], size: int) -> Scores:
    """Scores of the distribution of the first target, over all of its numbers."""
    raw, y = torch.cat(list(raws)), torch.from_numpy(np.concatenate([np.atleast_2d(e.y) for e in examples]))
    parts = []
    for r, t in zip(raw.double().split(CHUNK), y.double().split(CHUNK), strict=True):
        found = (-head.log_prob(r, t), head.crps(r, t), head.below(r, t), head.cdf(r, t))
        parts.append(torch.stack(found)[..., :size])
    scores = distribution_scores(*torch.cat(parts, 1).flatten(1).numpy())
    some = raw[:: -(-len(raw) // WIDTHS)].double()
    for row in scores["coverage"]:
        ends = head.quantiles(some, ((1 - row["band"]) / 2, (1 + row["band"]) / 2))[:, :size]
        row["width"] = float(ends.diff(dim=-1).mean())
    return scores


@torch.no_grad()
def _bands(head: DistributionHead, raws: Sequence[Tensor], size: int) -> list[np.ndarray]:
    """The middle band of each record's numbers (time 2), one series after the other."""
    levels = ((1 - BANDS[1]) / 2, (1 + BANDS[1]) / 2)
    found = [head.quantiles(raw.double(), levels)[:, :size] for raw in raws]
    return [band[:, i].numpy() for band in found for i in range(size)]


def _fill_in(
    scores: Scores,
    truths: Sequence[np.ndarray],
    head: DistributionHead,
    size: int,
    runs: Sequence[str],
) -> None:
    """The same columns for the baselines: the CRPS of a single number is its absolute error, its likelihood none.

    The training data's mean has the training data's deviation about it.
    """
    for name, row in scores["baselines"].items():
        row |= {"crps": None if name in runs else row["mae"], "nll": None}
    mean, deviation = (
        np.concatenate([np.full(len(t), each[i % size].item()) for i, t in enumerate(truths)])
        for each in (head.mean, head.deviation)
    )
    scores["baselines"]["mean"] |= normal_scores(np.concatenate(truths), mean, deviation)


def _question(run: Run) -> str:
    """What a classifier is asked, in words."""
    often = "once a record" if run.steps.flavour == "many-to-one" else "at every step"
    return f"{', '.join(run.recipe.head.targets)} {often}"


def _series(values: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
    """Each record's numbers of the first target, the one that is scored: one series after the other."""
    return [v[:, i] for v in values for i in range(size)]


def _names(example: Example, model: Model) -> list[str]:
    """Names of a record's series."""
    size = (model.head.sizes or (1,))[0]
    return [example.name] if size == 1 else [f"{example.name}, {name}" for name in model.head.targets[:size]]


def _beside(run: Run, ours: Model, records: Sequence[Record]) -> list[np.ndarray]:
    model = run.model()
    theirs, target = (m.head.targets[: (m.head.sizes or (1,))[0]] for m in (model, ours))
    if theirs != target:
        raise UserError(f"{run.folder} predicts {', '.join(theirs)}, not {', '.join(target)}: it can't stand beside")
    examples = run.recipe.examples(model, records)
    return _series(model.points(counted(examples, model.answers(examples))[1]), len(target))


def _ridge(
    run: Run, model: Model, examples: Sequence[Example], material: Material, watch: Watch
) -> list[np.ndarray] | None:
    """Ridge regression on what the run was trained on; None where an answer is for a whole record, or that is gone."""
    if model.flavour != "many-to-many" or material.known is None or not material.known["validation"]:
        return None
    train, held = (run.recipe.examples(model, material.known[part], watch) for part in ("train", "validation"))
    train, held = (counted(part, [e.y for e in part])[0] for part in (train, held))
    found = [ridge(train, held, examples, number) for number in range((model.head.sizes or (1,))[0])]
    return [line for lines in zip(*found, strict=True) for line in lines]


def _worst_pictures(scores: Scores, streams: Mapping[str, tuple[Stream, float]]) -> Pictures | None:
    """What was seen at the worst moments, of each series' stream and first second."""
    if len(next(iter(streams.values()))[0].values.shape) != 4:
        return None
    # By time, not by step: steps whose picture can't be decoded are left out of what was seen.
    moments = [(*streams[w["record"]], w["time_s"]) for w in scores["worst"]]
    seen = [np.asarray(s.values[int(np.argmin(np.abs(s.time_s - begin - t)))]) for s, begin, t in moments]
    captions = [
        f"{w['record']}, {w['time_s']:.1f} s: said {w['prediction']:z.2f}, was {w['truth']:z.2f}"
        for w in scores["worst"]
    ]
    return Pictures(seen, captions)
