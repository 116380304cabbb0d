"""A handwritten digit read row by row: many to one."""

from collections.abc import Sequence

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...evaluation.tasks import Classify
from ...nn.cores import LSTM
from ...nn.encoders import Identity
from ...nn.heads import Classification
from ...sources.digits import Digits
from ...training.recipe import StepRecipe
from ...training.trainer import Training


def digits(records: Sequence[Record] = ()) -> StepRecipe:
    """Which of ten digits an 8x8 picture shows, read one row a step; many to one.

    Command: `steersman train digits`
    Data:    the 1,797 digits of scikit-learn
    Time:    some ten seconds
    Score:   accuracy 0.970 on 270 digits held out (always the commonest: 0.082)
    """
    return StepRecipe(
        source=Digits(),
        inputs="row",
        encoder=Identity(),
        core=LSTM(64),
        task=Classify(),
        head=Classification(targets=("digit",), classes=10),
        flavour="many-to-one",
        batches=Windows(batch_size=64),
        split=Split(validation=0.15, test=0.15),
        training=Training(steps=800, learning_rate=5e-3, precision="float32", validate_every=50),
    )
