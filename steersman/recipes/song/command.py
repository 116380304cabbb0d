"""Command of composing."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Annotated

import tyro

from ...console import OUT, parsed
from ...errors import UserError
from ...files import check_output, write_file
from ...nn.decoding import Sampling
from ...sources.scores import MIDI, held, read_music, sampled, write_midi
from ...sources.songs import Songs
from ...training.run import Run, find
from .compose import composed


@dataclass(frozen=True)
class Compose:
    """Writes music as a run of `song` learned to, from nothing or on from a piece, to a MIDI file."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folder of a run of `song`."""
    prime: str = ""
    """Piece to go on with: a MIDI or MusicXML file. Empty: from nothing."""
    heard: int = 16
    """Steps of that piece that are heard; 0: all."""
    steps: int = 64
    """Steps to write."""
    tempo: float = 80.0
    """Quarters a minute."""
    out: str = "song.mid"
    """File to write."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = Sampling(temperature=0.9)
    seed: int = 0
    """Seed of the sampling: the same seed writes the same."""

    BOUNDS = {"heard": (0, inf), "steps": (1, 100_000), "tempo": (10, 1000), "seed": (0, inf)}


def compose(arguments: list[str]) -> None:
    """go on with a piece of music, as MIDI"""
    options = parsed(Compose, arguments, "compose")
    out = Path(options.out)
    if out.suffix.lower() not in MIDI:
        raise UserError(f"--out {out}: music is written as MIDI; name a file that ends in .mid")
    check_output(out)
    run = Run.open(find(options.run))
    source = run.recipe.source
    if not isinstance(source, Songs):
        raise UserError(f"{run.folder} is a run of {run.name}, which knows no music; train one: steersman train song")
    heard = sampled(read_music(Path(options.prime)).notes, source.step) if options.prime else []
    heard = heard[: options.heard] if options.heard else heard
    steps = [*heard, *composed(run.model(), heard, options.steps, options.sampling, options.seed)]
    write_file(out, write_midi(held(steps, source.step), options.tempo))
    OUT.print(f"{len(steps)} steps, of which {len(heard)} were heard: {out}")
