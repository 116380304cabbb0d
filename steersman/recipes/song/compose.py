"""One to many: a model of music goes on with a piece."""

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import UserError
from ...nn.decoding import Sampling
from ...nn.model import Model
from ...sources.songs import END, FIRST, coded, steps_of
from ..text.generate import Speaker

MOST = 24
"""Pitches of a step, beyond which a model only rambles."""


def composed(
    model: Model, heard: Sequence[Sequence[int]], steps: int, sampling: Sampling, seed: int
) -> list[tuple[int, ...]]:
    """Steps that follow on those that were heard. UserError where a pitch was never in the music it learned from."""
    return steps_of(list(_codes(model, heard, steps, sampling, seed)))


def _codes(model: Model, heard: Sequence[Sequence[int]], steps: int, sampling: Sampling, seed: int) -> Iterator[int]:
    speaker = Speaker(model)
    known = set(map(ord, speaker.symbols.characters))
    if END not in known:
        raise UserError("this run is not a model of music; `steersman train song` makes one")
    if strange := sorted({pitch for pitches in heard for pitch in pitches if FIRST + pitch not in known}):
        low, high = (pick(known - {END}) - FIRST for pick in (min, max))
        raise UserError(f"the model never heard pitch {strange[0]}; it knows those from {low} to {high}")
    prompt = "".join(map(chr, [END, *coded(heard).tolist()]))
    done = 0
    for symbol in speaker.speak(prompt, steps * MOST, sampling, seed):
        code = int(speaker.symbols.codes(np.array([symbol]))[0])
        done += code == END
        yield code
        if done == steps:
            return
