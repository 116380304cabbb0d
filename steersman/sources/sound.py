"""Sounds: a file a record, decoded no sooner than asked for; wav, flac, ogg, mp3 and what else PyAV decodes.

A record has no sound yet, only its file, and knows what is told of it: its folder, what stands in its name, or in the
row of a table. `samples` gives its sound, mono, at one rate.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.records import Record, Stream
from ..errors import UserError
from ..json_types import JsonObject
from ..progress import Watch, silent
from . import tables
from .safety import SOUNDS, head, own, within
from .source import SourceSpec

LAYOUT = "a folder of sounds (*.wav, *.flac, *.ogg, *.mp3), one a class perhaps, or a table of file and label"
TABLES = (".csv", ".tsv", ".parquet")
FILE_COLUMNS = ("file", "file_name", "filename", "path", "audio", "sound", "wav")
"""Columns of a table that name the files, the first that it has."""
SOUND = "sound"
"""Stream of samples, of a record that holds them already."""
DEPTH = 3
"""Levels of folders below the one given that are looked into."""
MOST_S = 600.0
"""Longest sound that is decoded, in seconds: a few bytes can unpack to hours."""
RATES = (1_000, 768_000)
"""Rates in Hz that a file may have."""
MARKS = {
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"ID3": "mp3",
    b"FORM": "aiff",
    b".snd": "au",
    b"\x1a\x45\xdf\xa3": "matroska",
    b"RF64": "wav",
}
"""Demuxers by what a file begins with: guessing one would let a playlist fetch other files."""


@dataclass(frozen=True)
class Sounds(SourceSpec):
    """Sounds that a user names; it has none of its own."""

    rate_hz: int = 8_000
    """Samples a second that all are brought to: 8000 hold what telephones do, enough to tell words apart; 16000 also
    tell s from f."""
    pattern: str = ""
    """What the names of files tell, such as '{word}_{speaker}_{take}'; with a / the names of folders, too."""

    BOUNDS = {"rate_hz": RATES}

    def read(self, watch: Watch = silent) -> list[Record]:
        raise UserError(f"there is no data of this recipe's own; name yours: --data FOLDER ({LAYOUT})")

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        return [record for path in data for record in read(Path(path), self.pattern, watch)]


def read(path: Path, pattern: str = "", watch: Watch = silent) -> list[Record]:
    """A record a sound, in the order of their names. UserError where there is none; nothing is decoded."""
    if not path.exists():
        raise UserError(f"there is no {path}; give {LAYOUT}")
    if path.is_file() and path.suffix.lower() in TABLES:
        return list(_listed(path))
    fits = _compiled(pattern)
    files = [path] if path.is_file() else [f for f in within(path, DEPTH) if f.suffix.lower() in SOUNDS]
    if not files:
        raise UserError(f"{path} holds no sound; give {LAYOUT}")
    base = path if path.is_dir() else path.parent
    parts, records = pattern.count("/") + 1, []
    for done, file in enumerate(files):
        if done % 1000 == 0:
            watch("listing sounds", done, len(files))
        place = file.relative_to(base)
        told: JsonObject = {"folder": file.parent.name} if len(place.parts) > 1 else {}
        if fits:
            found = fits.fullmatch("/".join((base / place).with_suffix("").parts[-parts:]))
            told |= found.groupdict() if found else {}
        records.append(_record(place.as_posix(), file, told))
    watch("listing sounds", len(files), len(files))
    return records


def samples(record: Record, rate_hz: int) -> np.ndarray:
    """A record's sound, mono float32 (sample) from -1 to 1. UserError where it holds none, or can't be decoded."""
    if SOUND in record.streams:
        return np.asarray(record[SOUND].values, np.float32)
    if "file" not in record.about:
        raise UserError(f"record {record.name!r} is no sound; give {LAYOUT}")
    return decoded(Path(record.about["file"]), rate_hz)


def decoded(path: Path, rate_hz: int) -> np.ndarray:
    """A file's sound (sample), float32 from -1 to 1: the mean of its channels, resampled.

    Its format is what its first bytes say, whatever its name ends in; a file cut short has the sound that is left.
    UserError where it is no sound, a damaged one, one without samples or one over MOST_S.
    """
    path = own(path)
    demuxer = _demuxer(head(path, 12))
    if demuxer is None:
        raise UserError(f"{path} is no sound of a known format ({', '.join(SOUNDS)}); convert it or leave it out")
    from av.error import FFmpegError

    try:
        found, rate = _mono(path, demuxer)
        found = found if rate == rate_hz or not len(found) else _resampled(found, rate, rate_hz)
    except (FFmpegError, ValueError, IndexError, OverflowError, MemoryError) as error:
        what = getattr(error, "strerror", None) or error
        raise UserError(f"{path} can't be decoded ({what}); copy it anew or leave it out") from error
    if not len(found):
        raise UserError(f"{path} holds no sound: it has 0 samples; leave it out")
    if not np.isfinite(found).all():
        raise UserError(f"{path} has samples that are no numbers; write it anew or leave it out")
    return found


def _mono(path: Path, demuxer: str) -> tuple[np.ndarray, int]:
    """The mean of all channels, and its rate in Hz."""
    import av

    parts, total = [np.zeros(0, np.float32)], 0
    with av.open(f"file:{path}", format=demuxer) as container:
        if not container.streams.audio:
            raise ValueError("it holds no sound")
        stream = container.streams.audio[0]
        rate = getattr(stream, "rate", 0)  # A stream whose codec FFmpeg does not know has none.
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"its rate is {rate} Hz")
        floats = av.AudioResampler("fltp")
        for frame in container.decode(stream):
            for part in floats.resample(frame):
                parts.append(part.to_ndarray().mean(0, dtype=np.float32))
                total += len(parts[-1])
            if total > MOST_S * rate:
                raise UserError(f"{path} is longer than {MOST_S / 60:g} minutes; cut it into pieces, one an answer")
    return np.concatenate(parts), rate


def _resampled(values: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    import av

    frame: Any = av.AudioFrame.from_ndarray(values[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    change = av.AudioResampler("fltp", "mono", wanted)
    parts = [part.to_ndarray()[0] for given in (frame, None) for part in change.resample(given)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _demuxer(begin: bytes) -> str | None:
    """What a file's first bytes say that it is."""
    if begin.startswith(b"RIFF"):
        return "wav" if begin[8:12] == b"WAVE" else None
    if begin[4:8] == b"ftyp":
        return "mov"
    if len(begin) > 1 and begin[0] == 0xFF and begin[1] & 0xE0 == 0xE0:
        return "mp3" if begin[1] & 0x06 else "aac"  # The layer; AAC's is 0.
    return next((name for mark, name in MARKS.items() if begin.startswith(mark)), None)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    """The expression of a pattern of names. UserError where it names nothing, or one thing twice."""
    if not pattern:
        return None
    stem = re.sub(r"\.\w+$", "", pattern)
    pieces = re.split(r"\{(\w+)\}", stem)
    names = pieces[1::2]
    if (
        not names
        or len(set(names)) < len(names)
        or "{" in "".join(pieces[::2])
        or not all(map(str.isidentifier, names))
    ):
        raise UserError(f"the pattern {pattern!r} should name what is told, each once, such as '{{word}}_{{speaker}}'")
    return re.compile("".join(f"(?P<{p}>[^/]+?)" if i % 2 else re.escape(p) for i, p in enumerate(pieces)))


def _listed(table: Path) -> Iterator[Record]:
    """A record a row of a table; its columns are what is told."""
    columns = {name: stream.values for name, stream in tables.read(table)[0].streams.items()}
    lower = {name.lower(): name for name in columns}
    column = next((lower[name] for name in FILE_COLUMNS if name in lower), None)
    if column is None:
        raise UserError(
            f"{table} has no column that names files ({', '.join(FILE_COLUMNS)}); it has {', '.join(columns)}"
        )
    base = table.parent.resolve()
    for row, cell in enumerate(np.asarray(columns[column]).tolist(), 1):
        told = {name: tables.word(np.asarray(values)[row - 1]) for name, values in columns.items() if name != column}
        place = table.parent / str(cell)
        if not cell or not isinstance(cell, str) or not place.is_file():
            raise UserError(
                f"{table}, row {row}: there is no file {cell!r} in {table.parent}; correct the row or leave it out"
            )
        if not place.resolve().is_relative_to(base):
            raise UserError(f"{table}, row {row}: {cell!r} leads out of {table.parent}; copy the file itself there")
        yield _record(cell, place, told)


def _record(name: str, file: Path, told: Mapping[str, Any]) -> Record:
    about = {**told, "format": SOUND, "file": str(file)}
    return Record(name, {"file": Stream(np.array([str(file)], object), np.zeros(1))}, about)
