"""Commands of this room."""

import itertools
import sys
from dataclasses import dataclass
from math import inf
from typing import Annotated

import tyro

from ...console import parsed
from ...nn.decoding import Sampling
from ...training.run import load
from .generate import Speaker, written


@dataclass(frozen=True)
class Sample:
    """Writes on where a prompt ends, printed as it is generated."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `chars` or `bytes`."""
    prompt: str = ""
    """Text to continue; empty: a new line."""
    length: int = 500
    """Characters, or bytes, to write."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling(temperature=0.8)
    seed: int = 0
    """Seed of the sampling: the same seed writes the same."""

    BOUNDS = {"length": (0, inf)}


def sample(arguments: list[str]) -> None:
    """let a text model write"""
    options = parsed(Sample, arguments, "sample")
    speaker = Speaker(load(options.run))
    prompt = options.prompt or speaker.beginning()
    said = speaker.speak(prompt, options.length, options.sampling, options.seed)

    def write(text: bytes) -> None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    first = next(said, None)  # A prompt that can't be read is refused before anything is written.
    write(prompt.encode(errors="surrogateescape"))
    written(speaker, said if first is None else itertools.chain([first], said), write)
    write(b"\n")
