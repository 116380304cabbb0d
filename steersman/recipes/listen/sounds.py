"""What the recipe of sounds is: classes and speakers by what records tell, sounds in steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...config import did_you_mean
from ...data.examples import Example
from ...data.records import Record, Stream
from ...data.splits import unsaid
from ...errors import UserError
from ...nn.model import Model
from ...nn.sounds import SoundSpec, Spectrogram, SpectrogramEncoder
from ...sources.sound import SOUND, Sounds, samples
from ...training.recipe import Parts, StepRecipe

LABELS = ("label", "class", "word", "digit", "target", "folder")
"""What a record may tell that is its class, the first that it does."""
FITTED = 4096
"""Steps at most of which normalisers are taken."""


@dataclass(frozen=True, kw_only=True)
class Listen(StepRecipe):
    """Recipe of sounds, a record a class."""

    source: Sounds  # pyright: ignore[reportIncompatibleVariableOverride]
    encoder: SoundSpec  # pyright: ignore[reportIncompatibleVariableOverride]
    label: str = ""
    """What tells the class: a name in the pattern of file names, a column of the table, or folder; empty: found."""
    speaker: str = "speaker"
    """What tells who speaks: no two parts share one. Where nothing tells it, records are divided one by one."""
    test_speakers: tuple[str, ...] = ()
    """Speakers who are the test; none: drawn, a share of --split.test."""
    validation_speakers: tuple[str, ...] = ()
    """Speakers on whom the best weights are chosen; none: drawn of the others, a share of --split.validation."""
    classes: tuple[str, ...] = ()
    """Names of the classes; learned from the training part."""

    inputs: str = SOUND

    def divide(self, records: Sequence[Record], say: Callable[[str], None] = unsaid) -> dict[str, list[Record]]:
        who = [str(record.about.get(self.speaker, "")) for record in records]
        speakers = sorted({*who} - {""})
        for name in (*self.test_speakers, *self.validation_speakers):
            if name not in speakers:
                known = ", ".join(speakers) or "none"
                raise UserError(f"no {self.speaker} {name!r}{did_you_mean(name, speakers)} There are: {known}")
        if len(speakers) < 3 or "" in who:
            if self.test_speakers:
                raise UserError(f"there are too few speakers to hold one out: {', '.join(speakers)}")
            told = f"only {len(speakers)}" if speakers else f"no {self.speaker}"
            say(f"the sounds tell of {told}: they are divided one by one, so the test may hold voices of the training")
            return super().divide(records, say)
        held = self._held_out(speakers)
        parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
        for record, name in zip(records, who, strict=True):
            parts[held.get(name, "train")].append(record)
        if not parts["train"]:
            raise UserError("no speaker is left to train on; hold out fewer")
        return parts

    def _held_out(self, speakers: Sequence[str]) -> dict[str, str]:
        """The part of each speaker who is held out."""
        left = [n for n in np.random.default_rng(self.split.seed).permutation(speakers).tolist()]
        held = dict.fromkeys(self.validation_speakers, "validation") | dict.fromkeys(self.test_speakers, "test")
        for part, named in (("test", self.test_speakers), ("validation", self.validation_speakers)):
            share = getattr(self.split, part)
            free = [name for name in left if name not in held]
            if not named and share:
                held |= dict.fromkeys(free[: max(1, round(share * len(speakers)))], part)
        return held

    def adapt(self, parts: Parts) -> Self:
        label = self.label or _label_of(parts["train"][0])
        found = {self._class(record, label) for record in parts["train"]}
        names: tuple[str, ...] = self.classes or tuple(_sorted(found))
        if len(names) < 2:
            raise UserError(
                f"all sounds are {' '.join(names)!r}: there is nothing to tell apart; give sounds of two classes"
            )
        for part in ("validation", "test"):
            for record in parts.get(part, ()):
                if (one := self._class(record, label)) not in names:
                    raise UserError(
                        f"{record.name} is of class {one!r}, which no sound of the training part is; give more of "
                        "them, or leave them out"
                    )
        head = replace(self.head, classes=len(names), names=names)
        return replace(self, label=label, classes=names, head=head)

    @property
    def spectrogram(self) -> SpectrogramEncoder:
        """What tells the energies of its sounds: its own encoder, or one like it."""
        spec = self.encoder if isinstance(self.encoder, Spectrogram) else Spectrogram(self.encoder.step_ms)
        return spec.build((self.encoder.samples(self.source.rate_hz),)).eval()

    def _class(self, record: Record, label: str) -> str:
        found = str(record.about.get(label, ""))
        if not found:
            known = ", ".join(name for name in record.about if name not in ("format", "file")) or "nothing"
            raise UserError(
                f"{record.name} does not tell its {label}; it tells {known}. Put sounds into a folder a class, say "
                "what their names tell with --source.pattern '{word}_{speaker}', or give a table of file and label"
            )
        return found

    def seen(self, record: Record, answers: bool = True) -> Record:
        """The sound in steps of so many samples, a rest that makes no step left out; its class once."""
        length, rate_hz, sound = self.encoder.samples(self.source.rate_hz), self.source.rate_hz, self.samples(record)
        sound = np.pad(sound, (0, max(0, length - len(sound))))
        steps = sound[: len(sound) // length * length].reshape(-1, length)
        clock = np.arange(len(steps)) * (length / rate_hz)
        streams = {SOUND: Stream(steps, clock)}
        if answers:
            streams[self.head.targets[0]] = Stream(np.array([self.number(record)], np.float32), clock[:1])
        return Record(record.name, streams, record.about)

    def samples(self, record: Record) -> np.ndarray:
        """A record's sound (sample), mono float32 from -1 to 1."""
        return samples(record, self.source.rate_hz)

    def number(self, record: Record) -> int:
        """The number of a record's class. UserError where it tells none, or one that is not known."""
        name = self._class(record, self.label)
        if name not in self.classes:
            raise UserError(f"{record.name} is of class {name!r}; this model knows {', '.join(self.classes)}")
        return self.classes.index(name)

    def fit_normalisers(self, model: Model, examples: Sequence[Example]) -> None:
        """From whole sounds, since a spectrum is of steps that follow each other."""
        every = max(1, sum(map(len, examples)) // FITTED)
        model.encoder.fit(np.concatenate([example.x for example in examples[::every]]))
        model.head.fit(np.stack([example.y for example in examples]))


def _label_of(record: Record) -> str:
    found = next((name for name in LABELS if record.about.get(name)), None)
    if found is None:
        known = ", ".join(name for name in record.about if name not in ("format", "file")) or "nothing"
        raise UserError(
            f"what tells the class of {record.name}? It tells {known}: name one with --label. Or put sounds into a "
            "folder a class, say what their names tell with --source.pattern '{word}_{speaker}', or give a table"
        )
    return found


def _sorted(names: set[str]) -> list[str]:
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
