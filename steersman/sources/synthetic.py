"""Made-up recordings whose answer is known, for proofs that a model learns through time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..data.records import Record, Stream, Values
from ..progress import Watch, silent
from . import physionet
from .parallel import PairSource, record
from .sound import SOUND, Sounds
from .source import SourceSpec
from .tables import Tables, table_record

RATE_HZ = 10.0


@dataclass(frozen=True)
class Echo(SourceSpec):
    """Noise `x` (time feature), and `y` which repeats its first feature `delay` steps later (zero before)."""

    records: int = 64
    steps: int = 100
    """Steps of the longest record; the shortest has half as many."""
    delay: int = 3
    features: int = 4
    seed: int = 0

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.records)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        length = int(rng.integers(self.steps // 2, self.steps + 1))
        x = rng.standard_normal((length, self.features), np.float32)
        y = np.concatenate([np.zeros(self.delay, np.float32), x[:, 0]])[:length]
        about = {"format": "synthetic echo", "delay_steps": self.delay}
        return _record(f"echo_{number:04d}", {"x": x, "y": y}, about)


@dataclass(frozen=True)
class Sensors(Tables):
    """Hourly readings of machines: a load with a daily and a weekly season that follows the temperature, and a state.

    The state tells how the load swings; `holiday` and `temperature_c` are known ahead. Some cells are blank.
    """

    series: int = 1
    hours: int = 2_400
    """Hours of a series; of several, of the longest, and the shortest has half as many."""
    seed: int = 0

    BOUNDS = {"series": (1, inf), "hours": (48, inf), "seed": (0, inf)}
    STATES: ClassVar = {"idle": 0.15, "worn": 0.6, "sound": 0.3}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.series)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        most = self.hours if self.series == 1 else max(48, self.hours // 24)
        hours = np.arange(most if self.series == 1 else rng.integers(most // 2, most + 1))
        holiday = (rng.random(len(hours) // 24 + 1) < 0.1).repeat(24)[: len(hours)].astype(float)
        weekend = (hours // 24 % 7 >= 5).astype(float)
        temperature = 15 + 8 * np.sin(2 * np.pi * (hours - 9) / 24) + np.cumsum(rng.normal(0, 0.3, len(hours))) * 0.3
        state = list(self.STATES)[int(rng.integers(len(self.STATES)))]
        swing = self.STATES[state]
        load = 40 + 25 * np.maximum(0, np.sin(2 * np.pi * (hours - 6) / 24)) * (1 - 0.6 * np.maximum(weekend, holiday))
        load = load + 0.8 * np.maximum(0, temperature - 18) + swing * 30 * np.sin(2 * np.pi * hours / (3 + 8 * swing))
        load = load + rng.normal(0, 1, len(hours))
        load[rng.random(len(hours)) < 0.02] = np.nan
        time = np.datetime64("2024-01-01T00:00:00", "ns") + hours * np.timedelta64(3_600_000_000_000, "ns")
        columns = {"time": time, "temperature_c": temperature, "holiday": holiday, "load_kw": load}
        if self.series > 1:
            columns["machine_state"] = np.array([state] * len(hours), object)
        return table_record(f"machine_{number:03d}", columns, {"format": "synthetic sensors"})


@dataclass(frozen=True)
class Vowels(Sounds):
    """Five vowels of speakers whose voices are high or low and whose vocal tracts are long or short: stream `sound`.

    Harmonics of a voice through two resonances (Peterson & Barney 1952), with some noise.
    """

    records: int = 160
    speakers: int = 8
    seed: int = 0

    BOUNDS = {**Sounds.BOUNDS, "records": (1, inf), "speakers": (1, inf), "seed": (0, inf)}
    FORMANTS: ClassVar = {"a": (730, 1090), "e": (530, 1840), "i": (270, 2290), "o": (570, 840), "u": (300, 870)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._vowel(number) for number in range(self.records)]

    def _vowel(self, number: int) -> Record:
        who, vowel = number // len(self.FORMANTS) % self.speakers, list(self.FORMANTS)[number % len(self.FORMANTS)]
        voice, rng = np.random.default_rng((self.seed, 0, who)), np.random.default_rng((self.seed, 1, number))
        pitch_hz, tract = voice.uniform(90, 240) * rng.uniform(0.9, 1.1), voice.uniform(0.9, 1.15)
        time_s = np.arange(int(rng.uniform(0.2, 0.35) * self.rate_hz)) / self.rate_hz
        sound = np.zeros(len(time_s))
        for hz in np.arange(pitch_hz, 0.45 * self.rate_hz, pitch_hz):
            strength = sum(1 / (1 + ((hz - tract * formant) / 90) ** 2) for formant in self.FORMANTS[vowel])
            sound += strength * np.sin(2 * np.pi * hz * time_s + rng.uniform(0, 2 * np.pi))
        sound = sound / np.abs(sound).max() * np.hanning(len(time_s)) ** 0.3 + rng.normal(0, 0.01, len(time_s))
        about = {"format": "synthetic vowels", "word": vowel, "speaker": f"speaker {who + 1}"}
        values = (0.5 * rng.uniform(0.5, 1) * sound).astype(np.float32)
        return Record(f"{vowel}_{number:03d}", {SOUND: Stream(values, time_s)}, about)


@dataclass(frozen=True)
class Patients(Tables):
    """Made-up stays in intensive care: signs at irregular moments over 48 hours, each only now and then (else NaN).

    How ill a patient is drifts; who is ill at the end died more often than not. The ill are measured more often. Data
    that is named may be a set of PhysioNet 2012, or `ARCHIVE?set=a`, or tables.
    """

    series: int = 240
    """Number of patients."""
    seed: int = 0

    BOUNDS = {"series": (1, inf), "seed": (0, inf)}
    SIGNS: ClassVar = {"HR": (85, 12), "MAP": (80, -10), "Lactate": (2, 1), "GCS": (12, -3), "Urine": (100, -40)}
    """Each sign's mean, and what illness adds to it."""

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.series)]

    def open(self, data: Sequence[str], watch: Watch = silent) -> list[Record]:
        found = []
        for each in data:
            path, mark, part = each.partition("?set=")
            if mark or physionet.detect(Path(path)):
                found += physionet.read(Path(path), part, watch)
            else:
                found += super().open([each], watch)
        return found

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        hours = np.sort(rng.uniform(0, 48, rng.integers(20, 61))).round(2)
        hours = hours[np.append(np.diff(hours) > 0, True)]
        age, drift = rng.uniform(20, 90), rng.normal(0, 1.5)
        ill = (age - 55) / 40 + rng.normal(0, 0.5) + drift * hours / 48
        columns: dict[str, np.ndarray] = {"time_h": hours}
        for sign, (mean, more) in self.SIGNS.items():
            seen = rng.random(len(hours)) < np.clip(0.35 + 0.15 * ill, 0.1, 0.9)
            columns[sign] = np.where(seen, mean + more * (ill + rng.normal(0, 0.4, len(hours))), np.nan)
        columns["age_years"] = np.full(len(hours), age)
        columns["sex"] = np.array([("female", "male")[int(rng.integers(2))]] * len(hours), object)
        died = ill[-1] + rng.normal(0, 0.3) > 0.6
        columns["outcome"] = np.array(["died" if died else "survived"] * len(hours), object)
        return table_record(f"patient_{number:04d}", columns, {"format": "synthetic patients"})


@dataclass(frozen=True)
class Road(SourceSpec):
    """Drives on a winding road, seen by a small noisy camera.

    The picture shows the bend `lookahead` steps ahead of the car; `steer`, positive left, follows the bend
    that the car is in. So the answer is in the pictures, but in those of some steps ago.
    """

    records: int = 12
    steps: int = 120
    """Steps of the longest drive; the shortest has half as many."""
    height: int = 24
    width: int = 32
    lookahead: int = 5
    noise: float = 20.0
    """Standard deviation of every pixel, of 255."""
    seed: int = 0

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.records)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        length = int(rng.integers(self.steps // 2, self.steps + 1))
        bend = _bend(length + self.lookahead, rng)
        pictures = self._pictures(bend[self.lookahead :], rng)
        streams = {"picture": pictures, "steer": bend[:length].astype(np.float32)}
        about = {"format": "synthetic road", "steer_range_rad": None, "sign": "steer: positive left"}
        return _record(f"road_{number:04d}", streams, about)

    def _pictures(self, bend: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A grey road on green under a blue sky, curving off to the side of the bend with distance."""
        far = np.linspace(1, 0, self.height - self.height // 4)[None, :, None]
        across = np.linspace(-1, 1, self.width)[None, None, :]
        offset = rng.normal(0, 0.1)
        middle = offset * (1 - far) - bend[:, None, None] * far**2
        road = np.abs(across - middle) < 0.08 + 0.5 * (1 - far)
        ground = np.where(road[..., None], [110, 110, 110], [60, 130, 50])
        sky = np.broadcast_to([120, 160, 220], (len(bend), self.height // 4, self.width, 3))
        light = rng.uniform(0.7, 1.2, (len(bend), 1, 1, 1))
        pictures = np.concatenate([sky, ground], 1) * light
        return np.clip(pictures + rng.normal(0, self.noise, pictures.shape), 0, 255).astype(np.uint8)


def _bend(length: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random walk that comes back, of about a third of full lock, within [-1, 1]."""
    pull, bend, slope = 0.05, np.empty(length), 0.0
    place = rng.normal(0, 0.3)
    for step in range(length):
        slope += -0.3 * slope - pull * place + rng.normal(0, 0.06)
        place += slope
        bend[step] = place
    return np.tanh(bend)


def _record(name: str, values: Mapping[str, Values], about: dict) -> Record:
    clock = np.arange(len(next(iter(values.values())))) / RATE_HZ
    return Record(name, {key: Stream(v, clock) for key, v in values.items()}, {"rate_hz": RATE_HZ} | about)


def _stream(values: Values, time_s: np.ndarray) -> Stream:
    return Stream(values, time_s)


@dataclass(frozen=True)
class Mixture(SourceSpec):
    """Noise `x` at 10 Hz, a `level` that leaps every 0.35 s on a clock of its own, and once a record a `gain`.

    `y` is x of `delay` steps before times the gain, and the level that was last known.
    """

    records: int = 64
    steps: int = 80
    """Steps of the longest record; the shortest has half as many."""
    delay: int = 2
    seed: int = 0

    BOUNDS = {"records": (1, inf), "steps": (8, inf), "delay": (0, inf), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.records)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        length = int(rng.integers(self.steps // 2, self.steps + 1))
        clock = np.arange(length) / RATE_HZ
        x, gain = rng.standard_normal(length, np.float32), rng.uniform(-2, 2, 1).astype(np.float32)
        moments = np.arange(-rng.uniform(0, 0.35), clock[-1], 0.35)
        level = _stream(rng.standard_normal(len(moments), np.float32), moments)
        y = gain * np.concatenate([np.zeros(self.delay, np.float32), x])[:length] + level.at(clock)
        streams = {"x": _stream(x, clock), "level": level, "gain": _stream(gain, clock[:1]), "y": _stream(y, clock)}
        return Record(f"mixture_{number:04d}", streams, {"format": "synthetic mixture", "delay_steps": self.delay})


@dataclass(frozen=True)
class Fading(SourceSpec):
    """Readings of two instruments at irregular moments, each only now and then (else NaN): stream `readings`.

    `y` is the first one's last reading, faded by half every `half_life_s` seconds since, and the second one's last;
    0 stands for those before the first.
    """

    records: int = 96
    steps: int = 60
    """Steps of the longest record; the shortest has half as many."""
    share: float = 0.3
    """Share of the steps at which an instrument is read."""
    half_life_s: float = 1.0
    seed: int = 0

    BOUNDS = {
        "records": (1, inf),
        "steps": (8, inf),
        "share": (0, 1),
        "half_life_s": (1e-3, inf),
        "seed": (0, inf),
    }

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.records)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        length = int(rng.integers(self.steps // 2, self.steps + 1))
        clock = np.cumsum(rng.exponential(0.5, length) + 0.01)
        measured = rng.random((length, 2)) < self.share
        # Zero is as likely as any other reading.
        readings = np.where(measured, rng.integers(-2, 3, (length, 2)) / 2, np.nan).astype(np.float32)
        y, last, since = np.zeros(length, np.float32), np.zeros(2), 0.0
        for step, elapsed in enumerate(np.diff(clock, prepend=clock[0])):
            last = np.where(measured[step], readings[step], last)
            since = 0.0 if measured[step, 0] else since + elapsed
            y[step] = last[0] * 0.5 ** (since / self.half_life_s) + last[1]
        streams = {"readings": _stream(readings, clock), "y": _stream(y, clock)}
        return Record(f"fading_{number:04d}", streams, {"format": "synthetic fading readings"})


@dataclass(frozen=True)
class Chord(SourceSpec):
    """Noise `x` (time 4), and `y` (time 3) which repeats its first three features `delay` steps later, 0 before."""

    records: int = 64
    steps: int = 60
    """Steps of the longest record; the shortest has half as many."""
    delay: int = 2
    seed: int = 0

    BOUNDS = {"records": (1, inf), "steps": (8, inf), "delay": (0, inf), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.records)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        length = int(rng.integers(self.steps // 2, self.steps + 1))
        x = rng.standard_normal((length, 4), np.float32)
        y = np.concatenate([np.zeros((self.delay, 3), np.float32), x[:, :3]])[:length] * [1, 2, 3]
        about = {"format": "synthetic chord", "delay_steps": self.delay}
        return _record(f"chord_{number:04d}", {"x": x, "y": y.astype(np.float32)}, about)


@dataclass(frozen=True)
class Reversed(PairSource):
    """Digits, a word each, and the same backwards: streams `source` and `target`, the smallest translation."""

    records: int = 400
    shortest: int = 3
    longest: int = 8
    digits: int = 6
    """Number of different digits."""
    seed: int = 0

    BOUNDS = {"records": (1, inf), "shortest": (1, inf), "longest": (1, inf), "digits": (1, 10), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        rng = np.random.default_rng(self.seed)
        texts: dict[str, None] = {}  # Each once, in order: else one could be in training and test.
        for _ in range(self.records):
            length = rng.integers(self.shortest, self.longest + 1)
            texts[" ".join(str(d) for d in rng.integers(0, self.digits, length))] = None
        return [record(f"digits-{i}", text, text[::-1]) for i, text in enumerate(texts)]
