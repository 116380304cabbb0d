"""Task of a diagnosis: how well patients are ranked, beside classifiers of summaries."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...evaluation.tasks import Classify
from ...progress import Watch, silent
from ...training.material import Material
from ...training.run import Run
from ..series.kinds import Labelled
from ..series.summaries import boosting, has_scikit_learn, logistic, summaries


@dataclass(frozen=True)
class Diagnosis(Classify):
    """Classes once a record, judged by their ranking, beside boosting and logistic regression on summaries.

    The two learn from the run's own training part, where that is still there and scikit-learn is installed.
    """

    measure: ClassVar[str] = "auroc"

    def rivals(self, run: Run, material: Material, watch: Watch = silent) -> dict[str, np.ndarray]:
        recipe = run.recipe
        if material.known is None or not isinstance(recipe, Labelled) or not recipe.once or not has_scikit_learn():
            return {}
        known = material.known["train"]
        x, unseen = summaries(recipe, known), summaries(recipe, material.test)
        labels = recipe.numbers_of_classes(known)
        said = {}
        for name, fit in (("boosting on summaries", boosting), ("logistic regression on summaries", logistic)):
            watch(name, len(said), 2)
            said[name] = fit(x, labels).predict_proba(unseen)
        return said
