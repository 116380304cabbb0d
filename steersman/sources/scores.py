"""Written music as notes: MIDI files (read and written) and MusicXML, plain or packed (.mxl).

A note has its beginning and length in quarters, whatever the tempo, and its pitch as MIDI counts: 60 is middle C.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ..errors import UserError

MIDI, XML = (".mid", ".midi"), (".musicxml", ".xml", ".mxl")
MOST_BYTES = 64 * 2**20
MOST_QUARTERS = 100_000
"""Length of a piece at most."""
MOST_NOTES = 1_000_000
DRUMS = 9
"""The channel, from 0, in which numbers are no pitches but drums."""
DIVISION = 480
"""Ticks of a quarter in what is written."""
STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Note(NamedTuple):
    """A note, in quarters."""

    start: float
    length: float
    pitch: int


class Music(NamedTuple):
    """The notes of a piece by their beginning, and how many parts (tracks, staves) hold them."""

    notes: list[Note]
    parts: int


def read_music(path: Path) -> Music:
    """The notes of a file. UserError where it can't be read, or holds none."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    if len(data) > MOST_BYTES:
        raise UserError(f"{path} is larger than {MOST_BYTES >> 20} MiB; that is no written music")
    try:
        music = read_midi(data) if path.suffix.lower() in MIDI else read_xml(_unpacked(data))
    except (ValueError, ArithmeticError, KeyError, struct.error, ElementTree.ParseError, RecursionError) as error:
        raise UserError(f"{path} can't be read as written music: {error or type(error).__name__}") from error
    if not music.notes:
        raise UserError(f"{path} holds no note; leave it out")
    return music


def read_midi(data: bytes) -> Music:
    """The notes of a MIDI file, drums left out; of a track that breaks off, those until then. ValueError where none."""
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("it does not begin as a MIDI file")
    size, _, _, division = struct.unpack(">IHHH", data[4:14])
    if division & 0x8000 or not division:
        raise ValueError("it counts time in frames of a film, not in quarters; save it with ticks a quarter")
    place, notes, parts = 8 + size, [], 0
    while place + 8 <= len(data):
        kind, length = data[place : place + 4], struct.unpack(">I", data[place + 4 : place + 8])[0]
        place += 8
        if kind == b"MTrk":
            found = _track(data[place : place + length], division)
            notes += found
            parts += bool(found)
        place += length
    return Music(sorted(notes), parts)


def _track(data: bytes, division: int) -> list[Note]:
    """The notes of a track; one that is never ended lasts to the end of it."""
    found: list[Note] = []
    on: dict[tuple[int, int], float] = {}
    place, ticks, status = 0, 0, 0
    while place < len(data):
        delta, place = _variable(data, place)
        ticks += delta
        if ticks > MOST_QUARTERS * division:
            raise ValueError(f"it lasts over {MOST_QUARTERS} quarters")
        if place < len(data) and data[place] & 0x80:
            status, place = data[place], place + 1
        elif status < 0x80 or status >= 0xF0:
            break  # Data without what it belongs to: the rest of a broken track tells nothing.
        if status == 0xFF or status in (0xF0, 0xF7):
            kind, place = (data[place] if place < len(data) else 0x2F, place + 1) if status == 0xFF else (0, place)
            length, place = _variable(data, place)
            place += length
            status = 0  # Such events end a running status.
            if kind == 0x2F:
                break
            continue
        if status >= 0xF0:
            place += {0xF1: 1, 0xF2: 2, 0xF3: 1}.get(status, 0)
            status = 0
            continue
        wide = 1 if status & 0xF0 in (0xC0, 0xD0) else 2
        first, second = (*data[place : place + wide], 0, 0)[:2]
        if place + wide > len(data):
            break
        place += wide
        channel, kind, now = status & 0x0F, status & 0xF0, ticks / division
        if kind not in (0x80, 0x90) or channel == DRUMS:
            continue
        key = (channel, first & 0x7F)
        if (start := on.pop(key, None)) is not None and now > start:
            found.append(Note(start, now - start, key[1]))
        if kind == 0x90 and second:
            on[key] = now
    end = ticks / division
    return found + [Note(start, end - start, pitch) for (_, pitch), start in on.items() if end > start]


def _variable(data: bytes, place: int) -> tuple[int, int]:
    """A number of up to four bytes of seven bits, and the place after it; the end of the data ends it."""
    number = 0
    for byte in data[place : place + 4]:
        number, place = number << 7 | byte & 0x7F, place + 1
        if byte < 0x80:
            break
    return number, place


def write_midi(notes: Iterable[Note], tempo: float = 80.0) -> bytes:
    """A MIDI file of one track, at a tempo in quarters a minute."""
    events = []
    for note in notes:
        first, last = round(note.start * DIVISION), round((note.start + note.length) * DIVISION)
        events += [(first, 1, bytes((0x90, note.pitch, 80))), (last, 0, bytes((0x80, note.pitch, 0)))]
    track, now = bytearray(b"\0\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big")), 0
    for ticks, _, event in sorted(events):
        track += _as_variable(ticks - now) + event
        now = ticks
    track += b"\0\xff\x2f\0"
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, DIVISION) + b"MTrk" + struct.pack(">I", len(track)) + bytes(track)


def _as_variable(number: int) -> bytes:
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


def _unpacked(data: bytes) -> bytes:
    """The score in a packed file, or the data where it isn't packed."""
    if data[:2] != b"PK":
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [
                n for n in archive.namelist() if not n.startswith("META-INF") and n.endswith((".xml", ".musicxml"))
            ]
            if not names:
                raise ValueError("the archive holds no score")
            with archive.open(names[0]) as file:
                found = file.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"its archive is damaged ({error})") from error
    if len(found) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
    return found


def read_xml(data: bytes) -> Music:
    """The notes of a MusicXML score, as written: repeats once, no ornaments. ValueError where it is none."""
    if b"<!ENTITY" in data:
        raise ValueError("it defines entities, which no score needs")
    root = ElementTree.fromstring(data)
    if root.tag != "score-partwise":
        raise ValueError(f"it is a {root.tag[:40]}, not a score-partwise")
    notes: list[Note] = []
    parts = 0
    for part in root.iter("part"):
        found = _part(part)
        parts += bool(found)
        notes += found
        if len(notes) > MOST_NOTES:
            raise ValueError(f"it holds over {MOST_NOTES} notes")
    return Music(sorted(notes), parts)


def _part(part: ElementTree.Element) -> list[Note]:
    found: list[Note] = []
    now = before = 0.0
    divisions = 1.0
    for element in (child for measure in part.iter("measure") for child in measure):
        divisions = float(element.findtext("divisions") or divisions) if element.tag == "attributes" else divisions
        if divisions <= 0:
            raise ValueError("its divisions of a quarter are not above 0")
        duration = float(element.findtext("duration") or 0) / divisions
        if not 0 <= duration <= MOST_QUARTERS or now > MOST_QUARTERS:
            raise ValueError(f"it lasts over {MOST_QUARTERS} quarters")
        if element.tag == "backup":
            now = max(0.0, now - duration)
        elif element.tag == "forward":
            now += duration
        elif element.tag == "note" and duration:
            chord = element.find("chord") is not None  # It begins with the note before, and takes no time of its own.
            start = before if chord else now
            if (pitch := element.find("pitch")) is not None:
                step = STEPS[(pitch.findtext("step") or "").strip()]
                number = (
                    12 * (int(pitch.findtext("octave") or 4) + 1) + step + round(float(pitch.findtext("alter") or 0))
                )
                if 0 <= number < 128:
                    found.append(Note(start, duration, number))
            before, now = start, now if chord else start + duration
    return found


def sampled(notes: Sequence[Note], step: float) -> list[tuple[int, ...]]:
    """Pitches that sound at the beginning of each step of so many quarters, from the lowest."""
    if not notes:
        return []
    end = max(note.start + note.length for note in notes)
    found: list[set[int]] = [set() for _ in range(max(1, int(end / step + 1 - 1e-6)))]
    for note in notes:
        first = -int(-(note.start - 1e-6) // step)
        for place in range(max(0, first), min(len(found), -int(-(note.start + note.length - 1e-6) // step))):
            found[place].add(note.pitch)
    return [tuple(sorted(pitches)) for pitches in found]


def held(steps: Sequence[Sequence[int]], step: float) -> list[Note]:
    """Notes of steps: a pitch that sounds on is one note."""
    found, on = [], {}
    for place, pitches in enumerate([*steps, ()]):
        for pitch in [pitch for pitch in on if pitch not in pitches]:
            start = on.pop(pitch)
            found.append(Note(start * step, (place - start) * step, pitch))
        for pitch in pitches:
            on.setdefault(pitch, place)
    return sorted(found)
