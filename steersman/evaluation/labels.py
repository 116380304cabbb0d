"""Task of several classes at once, each of which is there or is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..data.examples import counted
from ..json_types import JsonMapping
from ..nn.heads import MultiLabel, tells_labels
from ..nn.model import Model
from ..progress import Watch, silent
from ..training.material import Material
from ..training.run import Run
from ..training.task import Scores, TaskSpec
from .calibration import calibration_error, reliability, reliability_section
from .outcome import Scored, Told, contract, scores_beside
from .page import Fact, Section, Table, figure
from .sections import percent


@dataclass(frozen=True)
class ClassifyMultiLabel(TaskSpec):
    """Several classes are each told to be there or not, at every step or once a record; yes where it is likelier."""

    measure: ClassVar[str] = "nats"
    heads = (MultiLabel,)
    usual: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ("nats", "accuracy", "f1")

    def evaluate(self, run: Run, material: Material, beside: Sequence[Run], watch: Watch = silent) -> Scored:
        model: Model = run.model()
        head = model.head
        assert tells_labels(head)
        examples = run.recipe.examples(model, material.test, watch)
        examples, answers = counted(examples, model.answers(examples))
        labels = np.concatenate([np.atleast_2d(e.y) for e in examples])
        with torch.no_grad():
            said = head.probabilities(torch.cat(answers).double()).numpy()
        scores = multi_label_scores(said, labels, head.counts.numpy(), head.names())
        scores["baselines"] |= scores_beside(self, self.columns, beside, material)
        scores = contract(self, scores | {"data": material.name}, self.columns)
        return Scored(scores, lambda: told(scores))


def multi_label_scores(said: np.ndarray, labels: np.ndarray, train_counts: np.ndarray, names: Sequence[str]) -> Scores:
    """Nats a label, accuracy and mean F1 over the classes, beside the training data's frequencies as the prediction.

    `said` are probabilities of yes (item, class), `labels` 0 or 1, `train_counts` the noes and yeses of the training
    data (2, class).
    """
    frequency = (train_counts[1] + 1) / (train_counts.sum(0) + 2)
    ours, theirs = (_rows(p, labels, names) for p in (said, np.broadcast_to(frequency, labels.shape)))
    rows = reliability(said.ravel(), labels.ravel())
    return {
        "items": len(labels),
        **_mean(ours),
        "baselines": {"frequencies": _mean(theirs)},
        "classes": ours,
        "names": list(names),
        "reliability": rows,
        "calibration_error": calibration_error(rows),
    }


def _rows(said: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[dict]:
    """A row a class; precision, recall and F1 are None where there is nothing to take a share of."""
    likely = np.clip(np.where(labels == 1, said, 1 - said), 1e-300, 1)
    yes, true = said > 0.5, labels == 1
    rows = []
    for place, name in enumerate(names):
        found, told, there = (int(n.sum()) for n in ((yes & true)[:, place], yes[:, place], true[:, place]))
        rows.append(
            {
                "name": name,
                "items": there,
                "nats": float(-np.log(likely[:, place]).mean()),
                "accuracy": float((yes == true)[:, place].mean()),
                "precision": found / told if told else None,
                "recall": found / there if there else None,
                "f1": 2 * found / (told + there) if told + there else None,
            }
        )
    return rows


def _mean(rows: Sequence[JsonMapping]) -> dict[str, float | None]:
    """Means over the classes; of F1 over those that it is defined for."""
    f1 = [row["f1"] for row in rows if row["f1"] is not None]
    means = {name: float(np.mean([row[name] for row in rows])) for name in ("nats", "accuracy")}
    return {**means, "f1": float(np.mean(f1)) if f1 else None}


def told(scores: JsonMapping) -> Told:
    """Summary, figures and sections of a page."""
    rival = scores["baselines"]["frequencies"]
    summary = (
        f"Over {scores['items']:,} items it never trained on the model needs {figure(scores['nats'])} nats a label and "
        f"is right in {percent(scores['accuracy'])} of them; the training data's frequencies need "
        f"{figure(rival['nats'])} and are right in {percent(rival['accuracy'])}."
    )
    facts = [
        Fact("Nats a label", figure(scores["nats"]), f"training frequencies: {figure(rival['nats'])}"),
        Fact("Accuracy", percent(scores["accuracy"]), f"always the commoner answer: {percent(rival['accuracy'])}"),
        Fact("F1", figure(scores["f1"]), "mean over the classes"),
        Fact("Items", f"{scores['items']:,}", f"{len(scores['names'])} classes"),
    ]
    columns = ("name", "items", "nats", "accuracy", "precision", "recall", "f1")
    rows = [[row[name] for name in columns] for row in scores["classes"]]
    classes = Section(
        "Class by class",
        "Precision: of the items said to have it, how many do. Recall: of those that do, how many it finds.",
        [Table(("class", "items that have it", *columns[2:-1], "F1"), rows)],
    )
    return summary, facts, [classes, reliability_section(scores["reliability"], scores["calibration_error"], "labels")]
