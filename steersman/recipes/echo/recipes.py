"""The smallest tasks that need a memory: an echo, and what several inputs, gaps and vectors add to it."""

from collections.abc import Sequence
from dataclasses import replace

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...evaluation.tasks import Estimate
from ...nn.cores import GRU
from ...nn.encoders import Identity, Joined, Observed, Part
from ...nn.heads import Regression
from ...sources.synthetic import Chord, Echo, Fading, Mixture
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
        batches=Windows(batch_size=16),
        split=Split(validation=0.15, test=0.15),
        training=Training(steps=400, learning_rate=1e-2, precision="float32", validate_every=50),
    )


def echo_inputs(records: Sequence[Record] = ()) -> StepRecipe:
    """Two streams with a clock each, and a number that is given once a record; many to many.

    Command: `steersman train echo-inputs`
    Data:    synthetic, made when asked for
    Time:    some ten seconds
    Score:   RMSE 0.12 (saying the mean: 1.54)
    """
    return StepRecipe(
        source=Mixture(),
        inputs="x",
        encoder=Joined((Part("x"), Part("level"), Part("gain", once=True))),
        core=GRU(32),
        task=Estimate(),
        head=Regression(targets=("y",)),
        batches=Windows(batch_size=16),
        split=Split(validation=0.15, test=0.15),
        training=Training(steps=400, learning_rate=1e-2, precision="float32", validate_every=50),
    )


def echo_gaps(records: Sequence[Record] = ()) -> StepRecipe:
    """Readings of which most are missing, at irregular moments: what was read last, and when; many to many.

    Command: `steersman train echo-gaps`
    Data:    synthetic, made when asked for
    Time:    some ten seconds
    Score:   RMSE 0.025 (with zeros for what is missing, and no clock: 0.39 to 0.42; saying the mean: 0.86)
    """
    return replace(echo(), source=Fading(), inputs="readings", encoder=Observed())


def echo_vector(records: Sequence[Record] = ()) -> StepRecipe:
    """Repeat three of four noisy inputs two steps late, as one target of three numbers; many to many.

    Command: `steersman train echo-vector`
    Data:    synthetic, made when asked for
    Time:    some ten seconds
    Score:   RMSE 0.11 over all three (saying the mean: 2.16)
    """
    return StepRecipe(
        source=Chord(),
        inputs="x",
        encoder=Identity(),
        core=GRU(32),
        task=Estimate(),
        head=Regression(targets=("y",)),
        batches=Windows(batch_size=16),
        split=Split(validation=0.15, test=0.15),
        training=Training(steps=400, learning_rate=1e-2, precision="float32", validate_every=50),
    )
