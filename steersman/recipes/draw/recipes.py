"""Recipe of pictures drawn step by step: draw."""

from collections.abc import Sequence

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import LSTM
from ...training.trainer import Training
from .draw import Drawing
from .task import Draw


def draw(records: Sequence[Record] = ()) -> Drawing:
    """Black and white pictures drawn stroke by stroke, by a variational autoencoder with attention.

    Command: `steersman train draw --data FOLDER`, then `steersman draw RUN --out drawings.webp`
    Data:    as for `glance`
    Time:    some 25 minutes on one busy core
    Score:   90.2 nats on MNIST's test pictures (a mixture of independent pixels: 137.3)
    """
    return Drawing(
        task=Draw(),
        core=LSTM(256),
        batches=Windows(batch_size=128),
        split=Split(validation=0.05, test=0.1),
        training=Training(
            steps=8000,
            learning_rate=1e-3,
            constant_share=0.5,
            weight_decay=0.0,
            clip_norm=50.0,
            validate_every=500,
            checkpoint_every=250,
            precision="float32",
        ),
    )
