"""The smallest task that needs a memory: say what was heard three steps ago."""

from collections.abc import Sequence

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...evaluation.tasks import Estimate
from ...nn.cores import GRU
from ...nn.encoders import Identity
from ...nn.heads import Regression
from ...sources.synthetic import Echo
from ...training.recipe import StepRecipe
from ...training.trainer import Training


def echo(records: Sequence[Record] = ()) -> StepRecipe:
    """Repeat one of four noisy inputs three steps late; many to many.

    Command: `steersman train echo`
    Data:    synthetic, made when asked for
    Time:    some ten seconds
    Score:   RMSE 0.026 (saying the mean: 0.990)
    """
    return StepRecipe(
        source=Echo(),
        inputs="x",
        encoder=Identity(),
        core=GRU(32),
        task=Estimate(),
        head=Regression(targets=("y",)),
        batches=Windows(rows=16),
        split=Split(validation=0.15, test=0.15),
        training=Training(steps=400, rate=1e-2, precision="float32", validate_every=50),
    )
