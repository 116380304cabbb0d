"""Runs that answer as one: the mean of their probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from ..config import to_json
from ..errors import UserError
from ..nn.ensemble import Ensemble
from ..training.run import Run

OWN = ("core", "training", "split", "batches", "augment", "source", "task")
"""What recipes of runs that answer together may differ in."""


@dataclass(frozen=True)
class Together(Run):
    """A run, and others whose probabilities are averaged with its own."""

    others: tuple[Run, ...] = ()

    def model(self, whole: bool = True) -> Ensemble:
        return Ensemble([super().model(whole), *(other.model(whole) for other in self.others)])


def together(run: Run, others: Sequence[Run], on_own: bool = False) -> Run:
    """The runs as one, in the first one's folder. UserError where they don't read or answer the same.

    To be scored `on_own` test records they must have been divided alike: else some have seen them.
    """
    for other in others:
        if on_own and (other.recipe.split, other.data) != (run.recipe.split, run.data):
            raise UserError(
                f"{other.folder} was divided otherwise, and may have learned what {run.folder} is tested on; give "
                "other records with --data"
            )
        ours, theirs = run.steps, other.steps
        alike = replace(theirs, **{name: getattr(ours, name) for name in OWN})
        if alike != ours or other.raw != run.raw:
            wanted, found = to_json(ours), to_json(alike)
            differs = [name for name in wanted if wanted[name] != found.get(name)] or ["shape of a step"]
            raise UserError(
                f"{other.folder} can't answer together with {run.folder}: its {', '.join(differs)} differ; give runs "
                "that were trained on the same columns and classes"
            )
    return Together(**{f.name: getattr(run, f.name) for f in fields(Run)}, others=tuple(others))
