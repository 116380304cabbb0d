"""Made-up people who wear a glucose sensor."""

from dataclasses import dataclass
from math import inf

import numpy as np

from ...data.records import Record
from ...progress import Watch, silent
from ...sources.tables import Tables, table_record


@dataclass(frozen=True)
class Wearers(Tables):
    """Readings of `glucose` (mg/dL) each five minutes: meals raise it, insulin lowers it, both with a delay."""

    series: int = 1
    days: int = 7
    """Days of a series."""
    seed: int = 0

    BOUNDS = {"series": (1, inf), "days": (1, inf), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.series)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        steps = 288 * self.days
        carbs, insulin = np.zeros(steps), np.zeros(steps)
        for day in range(self.days):
            for hour in (2.0, 6.5, 12.5):
                at = int(288 * day + 12 * hour + rng.uniform(0, 12)) % steps
                carbs[at] = rng.uniform(30, 90)
                insulin[min(steps - 1, at + int(rng.integers(0, 6)))] = carbs[at] * rng.normal(1, 0.25)
        delay = np.arange(60) * 5.0
        rise, fall = ((delay / peak) * np.exp(1 - delay / peak) for peak in (40, 70))
        moved = np.convolve(carbs, rise)[:steps] * 0.15 - np.convolve(insulin, fall)[:steps] * 0.08
        level, glucose = rng.uniform(60, 350), np.empty(steps)
        for step in range(steps):
            level += 0.08 * (130 - level) + moved[step]
            glucose[step] = level
        glucose = np.clip(glucose + rng.normal(0, 0.5, steps), 40, 400)
        glucose[rng.random(steps) < 0.02] = np.nan
        time = np.datetime64("2024-01-01T07:00:00", "ns") + np.arange(steps) * np.timedelta64(300, "s")
        return table_record(f"wearer_{number:03d}", {"time": time, "glucose": glucose}, {"format": "synthetic wearers"})
