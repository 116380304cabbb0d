"""A pendulum is swung up and balanced by a model that sees where it is, but not how fast it turns."""

from collections.abc import Sequence
from dataclasses import replace

from ...data.batches import Lanes
from ...data.records import Record
from ...data.splits import Split
from ...evaluation.tasks import Estimate
from ...nn.cores import LSTM, Memoryless
from ...nn.encoders import Identity
from ...nn.heads import Regression
from ...training.recipe import StepRecipe
from ...training.trainer import Training
from ...worlds import SwingUp
from ...worlds.recording import Recorded


def pendulum(records: Sequence[Record] = ()) -> StepRecipe:
    """LSTM that swings up a pendulum and balances it, from its angle alone.

    Command: `steersman train pendulum`, then `steersman drive RUN`
    Data:    100 episodes of the scripted expert in Gymnasium's Pendulum-v1, recorded when first asked for
    Time:    half a minute of CPU time, and ten seconds more to record
    Score:   -185, -194 and -203 over 100 episodes never seen (three training seeds), upright at the end of every one
             (the expert -161, random torques -1229)
    """
    return StepRecipe(
        source=Recorded(SwingUp(), episodes=100),
        task=Estimate("torque", "newton metres, positive counter-clockwise"),
        inputs="angle",
        encoder=Identity(),
        core=LSTM(32),
        head=Regression(SwingUp.labels),
        skip=True,
        batches=Lanes(batch_size=16, window=50),
        split=Split(validation=0.1, test=0.1),
        training=Training(steps=1500, learning_rate=1e-2, precision="float32", validate_every=100),
    )


def pendulum_frame(records: Sequence[Record] = ()) -> StepRecipe:
    """The same on each angle alone: what there is without a memory.

    Command: `steersman train pendulum-frame`
    Data:    as for `pendulum`
    Time:    as for `pendulum`
    Score:   -1275, -1283 and -1275, upright in none
    """
    return replace(pendulum(records), core=Memoryless(), skip=False)
