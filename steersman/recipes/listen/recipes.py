"""Recipe of sounds: listen."""

from collections.abc import Sequence

from ...data.batches import Windows
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import GRU, Pooled
from ...nn.heads import Classification
from ...nn.sounds import Spectrogram
from ...sources.synthetic import Vowels
from ...training.trainer import Training
from .sounds import Listen
from .task import Listening
from .voices import Voices


def listen(records: Sequence[Record] = ()) -> Listen:
    """Which class a sound is of, such as the word that is spoken; many to one.

    Command: `steersman train listen --data FOLDER`
    Data:    sounds (wav, flac, ogg, mp3), a class a folder, or told by their names, or by a table; else made-up vowels
    Time:    about eighty CPU seconds
    Score:   spoken digits of a speaker who was never heard: accuracy 0.86 in the mean of five (logistic regression
             0.54, always the commonest 0.10)
    """
    names: tuple[str, ...] = () if records else tuple(Vowels.FORMANTS)
    return Listen(
        source=Vowels(),
        label="" if records else "word",
        classes=names,
        task=Listening(),
        encoder=Spectrogram(warp=0.15, masks=1, channels=(16, 32, 48)),
        core=Pooled(GRU(64), ("mean", "max"), dropout=0.3),
        head=Classification(classes=max(2, len(names)), names=names or ("", " ")),
        flavour="many-to-one",
        batches=Windows(batch_size=32),
        augment=(Voices(noise_db=(15.0, 45.0), tilt=0.9),),
        split=Split(validation=0.2, test=0.2),
        training=Training(steps=2000, learning_rate=3e-3, weight_decay=0.05, validate_every=100, precision="float32"),
    )
