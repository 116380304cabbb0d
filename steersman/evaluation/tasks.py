"""Tasks: how each kind of problem is scored, beside what, and told."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data.examples import Example
from ..data.records import Record
from ..errors import UserError
from ..nn.heads import ClassificationHead, NextSymbolHead, RegressionHead
from ..nn.model import Model
from ..progress import Watch, silent
from ..recipes.text.reading import judged, labels_of, text_scores
from ..training.recipe import read_records
from ..training.run import Run
from .metrics import Scores, by_curvature, classification_scores, regression_scores
from .ridge import ridge


def score(
    run: Run, data: Sequence[str] = (), beside: Sequence[Run] = (), watch: Watch = silent
) -> tuple[Scores, list[Record], list[Example], list[np.ndarray]]:
    """Scores on the run's own test records or on all of other data; the records, and what was seen and said.

    `beside` are runs of the same target, such as the single-frame model, that stand among the baselines.
    """
    model = run.model()
    records = read_records(run.recipe, data, watch) if data else run.records(watch)["test"]
    shown = run.recipe.examples(model, records, watch)
    kept = "records kept apart from training" if not data else ", ".join(Path(path).name for path in data)
    if isinstance(model.head, ClassificationHead):
        _alone(beside)
        counts, names = model.head.counts.numpy(), model.head.names()
        if not isinstance(model.head, NextSymbolHead):
            last = slice(-1, None) if model.flavour == "many-to-one" else slice(None)
            labels = model.head.labels(np.concatenate([e.y.reshape(-1) for e in shown]))
            logits = np.concatenate([part[last].numpy() for part in model.stream(shown)])
            return classification_scores(logits, labels, counts, names) | {"data": kept}, records, shown, [logits]
        confusion, nats, passage = judged(model, shown)
        train = run.recipe.examples(model, run.records(watch)["train"], watch)
        labels, known = ([labels_of(model.head, e.y) for e in part] for part in (shown, train))
        scores = text_scores(confusion, nats, labels, counts, model.head.names(), known)
        return scores | {"data": kept}, records, shown, [passage.numpy()]
    predicted = _scored(model.predict(shown))
    others: dict[str, Sequence[np.ndarray]] = {
        _name(other): _beside(other, model.head.targets[0], records) for other in beside
    }
    if (line := _ridge(run, model, shown, bool(data), watch)) is not None:
        others["ridge"] = line
    rate_hz = 1 / float(np.median(np.concatenate([np.diff(e.time_s) for e in shown])))
    assert isinstance(model.head, RegressionHead)
    mean, names = float(model.head.mean[0]), [e.name for e in shown]
    truths = _scored([np.atleast_2d(e.y) for e in shown])
    scores = regression_scores(predicted, truths, mean, rate_hz, others, names)
    curves = {name: by_curvature(np.concatenate(o), np.concatenate(truths)) for name, o in others.items()}
    return scores | {"target": model.head.targets[0], "data": kept, "others": curves}, records, shown, predicted


def _alone(beside: Sequence[Run]) -> None:
    if beside:
        raise UserError("--beside is for runs that predict a number; classes and texts stand beside baselines alone")


def _scored(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The first target: the one that is scored."""
    return [v[:, 0] for v in values]


def _beside(run: Run, target: str, records: Sequence[Record]) -> list[np.ndarray]:
    model = run.model()
    if model.head.targets[0] != target:
        raise UserError(f"{run.folder} predicts {model.head.targets[0]}, not {target}: it can't stand beside")
    return _scored(model.predict(run.recipe.examples(model, records)))


def _ridge(run: Run, model: Model, shown: Sequence[Example], foreign: bool, watch: Watch) -> list[np.ndarray] | None:
    """Ridge regression on what the run was trained on; None where an answer is for a whole record, or that is gone."""
    # A simulator's drives are not recorded anew just to score other data.
    if model.flavour != "many-to-many" or (foreign and not run.data) or not all(Path(p).exists() for p in run.data):
        return None
    parts = run.records(watch)
    train, validation = (run.recipe.examples(model, parts[part], watch) for part in ("train", "validation"))
    return ridge(train, validation, shown)


def _name(run: Run) -> str:
    return f"{run.name} ({run.folder.name})"
