"""Task: what kind of problem a recipe solves; how it is scored, beside what, and told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..config import Spec
from ..errors import UserError
from ..json_types import JsonObject
from ..nn.heads import Head, HeadSpec
from ..nn.model import SequenceModel
from ..plugins import import_parts
from ..progress import Watch, silent

if TYPE_CHECKING:
    from .material import Material
    from .recipe import Recipe
    from .run import Run

UNITS = {
    "_mps": "metres a second",
    "_radps": "radians a second",
    "_rad": "radians",
    "_nm": "newton metres",
    "_s": "seconds",
    "_m": "metres",
}
"""Units by the ends of names, for a quantity carries its own."""
Scores = JsonObject
"""Plain numbers, strings, lists and dicts; None where a figure is not defined."""


class Outcome(Protocol):
    """What a run scored."""

    @property
    def scores(self) -> Scores:
        """`task`, `measure`, `value`, `higher_is_better`, `columns` and `baselines` (by name, by column), and more."""
        ...

    def told(self) -> tuple[str, Sequence[Any], Sequence[Any]]:
        """Summary, figures and sections for the page."""
        ...


class Speaker(Protocol):
    """What says something about a text of a person."""

    def say(self, text: str) -> JsonObject:
        """`text`, what is said, and where there are any:

        `pieces` it is made of, `score` (its log-probability), `unknown` (how many pieces of what was read are not
        known), `attention` (the pieces `source` and `target`, `weights`: a row a target). UserError where the text is
        none that can be read.
        """
        ...


@dataclass(frozen=True)
class TaskSpec(Spec):
    """What kind of problem it is; a recipe's own words stand in a subclass of its own."""

    measure: ClassVar[str] = ""
    """Name of the score that counts, such as `rmse`."""
    higher_is_better: ClassVar[bool] = False
    heads: ClassVar[tuple[type[HeadSpec], ...]] = ()
    """Heads whose predictions it can score."""
    usual: ClassVar[bool] = False
    """Whether it is the task of a recipe with such a head that names none."""

    def check(self, recipe: "Recipe") -> None:
        """Raises UserError where the recipe predicts nothing that this task can score."""
        if not isinstance(recipe.head, self.heads):
            able = " or ".join(head.__name__ for head in self.heads)
            raise UserError(
                f"task {type(self).__name__} scores what {able} says, not {type(recipe.head).__name__}; "
                "give the recipe another task, or leave it out"
            )

    def evaluate(self, run: "Run", material: "Material", beside: "Sequence[Run]", watch: Watch = silent) -> Outcome:
        """The score of a run on the material's test records, beside baselines and other runs."""
        raise NotImplementedError(f"{type(self).__name__} scores nothing")

    def validation(self, recipe: "Recipe", model: SequenceModel, examples: Sequence[Any]) -> float:
        """A score on validation examples that training stops by, the lower the better: the loss."""
        return model.held_out_loss(examples)

    def units(self, targets: Sequence[str]) -> dict[str, str]:
        """Unit of each target in words, with its sign where it has one."""
        return {
            name: next((unit for end, unit in UNITS.items() if name.endswith(end)), "as in the data")
            for name in targets
        }

    def ranges(self, targets: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of those targets that have them by definition."""
        return {}

    def looked_for(self, head: Head) -> int | None:
        """Of two classes that a head tells the one that is looked for; None where there are not two."""
        return None

    def panels(self, targets: Sequence[str]) -> dict[str, str]:
        """Panels that the application adds to the live page, and the target that each shows.

        There is `wheel`: a steering wheel, for a target from -1 to 1, positive to the left.
        """
        return {}

    def film(self, run: "Run", material: "Material", path: Path, watch: Watch = silent) -> None:
        """Writes a film (mp4) of what the run says over what it sees. UserError where there is nothing to film."""
        raise UserError(f"there is no film of {type(self).__name__}; leave out --video")

    def backtest(self, run: "Run", folds: int, refit: bool, data: Sequence[str], watch: Watch = silent) -> Outcome:
        """The score of a run, or of its recipe trained anew, walking forward over time. UserError where it has none."""
        raise UserError(f"there is no backtest of {type(self).__name__}; it is of forecasts")

    def traces(self, run: "Run", material: "Material", watch: Watch = silent) -> Sequence[Any]:
        """What the run says over what came, to be drawn. UserError where there is nothing to draw over time."""
        raise UserError(f"there is no plot of {type(self).__name__}; its report shows what it says")

    def speaker(self, run: "Run") -> Speaker | None:
        """What answers the texts of the live server's page; None where the application has no words."""
        return None


def task_of(recipe: "Recipe") -> TaskSpec:
    """The task that a recipe names, or the usual one of its head. UserError where there is none, or it does not fit."""
    if recipe.task is not None:
        recipe.task.check(recipe)
        return recipe.task
    import_parts()
    for kind in type(recipe.head).__mro__:
        for task in Spec.KINDS.values():
            if issubclass(task, TaskSpec) and task.usual and kind in task.heads:
                return task()
    raise UserError(f"nothing says how a {type(recipe.head).__name__} is scored; name a task in the recipe: task=...")
