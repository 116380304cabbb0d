"""Steering from a camera: one picture, four pictures, or one picture a step and a memory."""

from dataclasses import replace

from ..cores import LSTM, Memoryless
from ..data import Lanes, Mirror, Split
from ..drive import Recorded
from ..encoders import Conv, RoadTexture
from ..heads import Regression
from ..runs import Recipe
from ..train import Training

EYE = Conv(channels=(16, 32, 48), kernels=(5, 3, 3), strides=(2, 2, 2), features=128, pixels=RoadTexture())
WHEEL = Regression(
    targets=("steer", "pace", "speed_mps", "yaw_radps", "gas", "brake", "target_speed_mps"),
    weights=(3.0, 3.0, 1.0, 1.0, 0.5, 0.5, 1.0),
)


def steer() -> Recipe:
    """CNN + LSTM that drives CarRacing from one picture a step.

    Command: `steersman train steer`
    Data:    30 drives of the scripted expert, recorded when first asked for
    """
    return Recipe(
        source=Recorded(),
        encoder=EYE,
        core=LSTM(128),
        head=WHEEL,
        skip=True,
        batches=Lanes(rows=32, steps=32),
        augment=(Mirror(negate=("steer", "yaw_radps")),),
        split=Split(validation=0.07, test=0.07),
        training=Training(steps=3500),
    )


def steer_frame() -> Recipe:
    """The same CNN on each picture alone: what there is without a memory.

    Command: `steersman train steer-frame`
    Data:    as for `steer`
    """
    return replace(steer(), core=Memoryless(), skip=False)


def steer_stack() -> Recipe:
    """The same CNN on the last four pictures at once.

    Command: `steersman train steer-stack`
    Data:    as for `steer`
    """
    return replace(steer_frame(), encoder=replace(EYE, frames=4))
