"""Music step by step: what sounds at each, as a line of symbols. Chorales, files of one's own, and made-up ones.

A record is a piece: streams `note`, what was told so far, and `next_note`: the pitches of a step from the lowest, each
a symbol, then END. The first of `note` is END: so the first pitch is foretold, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path

import numpy as np

from ..console import counted, say
from ..data.records import Record, Stream
from ..errors import UserError
from ..progress import Watch, silent
from .safety import own, within
from .scores import MIDI, XML, Music, Note, read_music, sampled
from .source import SourceSpec

NOTE, NEXT = "note", "next_note"
FIRST = ord(" ")
"""Code of pitch 0: those of all pitches can be printed."""
END = ord("\n")
"""Code of the end of a step."""
VOICES = 4
"""Parts of a chorale."""


@dataclass(frozen=True)
class Songs(SourceSpec):
    """Pieces of music; without data Bach's chorales, as the package music21 ships them, or made-up ones."""

    step: float = 1.0
    """Quarters from step to step; what begins and ends between two steps is not heard."""
    made: int = 0
    """Pieces made up, in the place of the chorales; 0: none."""
    seed: int = 0

    BOUNDS = {"step": (1 / 64, 16), "made": (0, 1_000_000), "seed": (0, inf)}

    def few(self, records: int) -> "Songs":
        return replace(self, made=records)

    def read(self, watch: Watch = silent) -> list[Record]:
        if self.made:
            return [song_record(f"made-{number}", _made(self.seed, number), self.step) for number in range(self.made)]
        found = find_spec("music21")
        if found is None or not found.submodule_search_locations:
            raise UserError(
                "Bach's chorales come with the package music21, which is not installed; run pip install "
                '"steersman[music]", or name music of your own with --data (MIDI or MusicXML)'
            )
        folder = Path(found.submodule_search_locations[0]) / "corpus" / "bach"
        return self._pieces(sorted(folder.glob("bwv*.mxl")), watch, VOICES)

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        """A record for each file, or each file in a folder and below it."""
        files = [file for name in data for file in _files(Path(name))]
        return self._pieces(files, watch)

    def _pieces(self, files: Sequence[Path], watch: Watch, voices: int = 0) -> list[Record]:
        """The pieces of files that can be read; of chorales those of so many parts. UserError where none can."""
        found, faults = [], []
        for number, file in enumerate(files):
            watch("reading music", number, len(files))
            try:
                music = read_music(file)
            except UserError as error:
                faults.append(str(error))
                continue
            if not voices or music.parts == voices:
                found.append(song_record(file.stem, music, self.step))
        watch("reading music", len(files), len(files))
        if not found:
            raise UserError(faults[0] if faults else f"there is no music of {voices or 'any'} parts")
        if faults:
            say(f"{counted(len(faults), 'file')} left out, the first: {faults[0]}")
        return found


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no {path}; give a MIDI or MusicXML file, or a folder of such")
    found = [own(file, path) for file in within(path, 3) if file.suffix.lower() in (*MIDI, *XML)]
    if not found:
        raise UserError(f"{path} holds no music; give files of MIDI (.mid) or MusicXML (.musicxml, .mxl)")
    return sorted(found)


def song_record(name: str, music: Music, step: float) -> Record:
    """The record of a piece. UserError where nothing of it sounds at a step."""
    steps = sampled(music.notes, step)
    if not any(steps):
        raise UserError(f"{name}: nothing sounds at any step of {step:g} quarters; lower --source.step")
    codes = coded(steps)
    clock = np.arange(float(len(codes)))
    streams = {NOTE: Stream(np.concatenate(([END], codes[:-1])).astype(np.int32), clock), NEXT: Stream(codes, clock)}
    return Record(name, streams, {"format": "music", "steps": len(steps), "parts": music.parts})


def coded(steps: Sequence[Sequence[int]]) -> np.ndarray:
    """Steps of pitches as symbols."""
    return np.array([code for pitches in steps for code in (*(FIRST + p for p in pitches), END)], np.int32)


def steps_of(codes: Sequence[int]) -> list[tuple[int, ...]]:
    """The way back; what follows on the last END is a step, too."""
    found: list[list[int]] = [[]]
    for code in codes:
        if code == END:
            found.append([])
        elif 0 <= code - FIRST < 128:
            found[-1].append(int(code - FIRST))
    return [tuple(sorted(set(pitches))) for pitches in (found if found[-1] else found[:-1])]


def transposed(record: Record, by: int) -> Record | None:
    """The piece so many half tones higher; None where a pitch would leave those there are."""
    codes = np.asarray(record[NEXT].values)
    pitches = codes[codes != END] - FIRST + by
    if len(pitches) and not (pitches.min() >= 0 and pitches.max() < 128):
        return None

    def moved(stream: Stream) -> Stream:
        codes = np.asarray(stream.values)
        return Stream(np.where(codes == END, END, codes + by).astype(np.int32), stream.time_s)

    streams = {name: moved(stream) for name, stream in record.streams.items()}
    return Record(f"{record.name}{by:+d}", streams, record.about)


def _made(seed: int, number: int) -> Music:
    """A piece in four parts: chords of a key, one after the other as chords like to follow, each for two steps."""
    rng = np.random.default_rng((seed, number))
    follows = {0: (3, 4, 5), 3: (0, 4, 1), 4: (0, 5), 5: (3, 1), 1: (4,)}
    key, chord, notes = int(rng.integers(12)), 0, []
    for place in range(int(rng.integers(10, 20))):
        pitches = [48 + key, *(60 + key + (0, 2, 4, 5, 7, 9, 11)[(chord + third) % 7] for third in (0, 2, 4))]
        pitches[0] = 41 + (key + (0, 2, 4, 5, 7, 9, 11)[chord] - 41) % 12
        notes += [Note(2.0 * place, 2.0, pitch) for pitch in pitches]
        chord = int(rng.choice(follows[chord]))
    return Music(sorted(notes), VOICES)
