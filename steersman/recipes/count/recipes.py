"""Recipes of counting."""

from collections.abc import Sequence
from dataclasses import replace

from ...data.batches import Lanes
from ...data.records import Record
from ...data.splits import PART, Split
from ...evaluation.tasks import Estimate
from ...nn.cores import GRU, Memoryless
from ...nn.foreground import Foreground
from ...nn.heads import Regression
from ...sources.counted import PEOPLE, PICTURE, Counted
from ...training.recipe import StepRecipe
from ...training.trainer import Training


def count(records: Sequence[Record] = ()) -> StepRecipe:
    """People in every frame of a camera's film: what stands before the background, and a GRU; many to many.

    Command: `steersman train count`, or `steersman train count --data FOLDER`
    Data:    a folder with a video and a table (frame, people); without any, made-up scenes
    """
    told = all(PART in record.about for record in records)
    return StepRecipe(
        source=Counted(),
        task=Estimate(),
        inputs=PICTURE,
        encoder=Foreground(),
        core=GRU(16),
        head=Regression((PEOPLE,)),
        skip=True,
        batches=Lanes(batch_size=8, window=32),
        split=Split(by="part") if told else Split(by="time", validation=0.15, test=0.37, gap_s=0),
        training=Training(steps=900, learning_rate=1e-2, weight_decay=0.1, validate_every=100),
    )


def count_frame(records: Sequence[Record] = ()) -> StepRecipe:
    """The same on each frame alone: what there is without a memory.

    Command: `steersman train count-frame`
    Data:    as for `count`
    """
    return replace(count(records), core=Memoryless(), skip=False)
