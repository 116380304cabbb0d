"""Made-up prices, which can be foretold, as real ones can't."""

from dataclasses import dataclass
from math import inf

import numpy as np

from ...data.records import Record
from ...progress import Watch, silent
from ...sources.tables import Tables, table_record


@dataclass(frozen=True)
class Prices(Tables):
    """Daily `close` of stocks whose days go on as the day before went, nine times in ten."""

    series: int = 3
    days: int = 400
    """Days of a series."""
    seed: int = 0

    BOUNDS = {"series": (1, inf), "days": (60, inf), "seed": (0, inf)}

    def read(self, watch: Watch = silent) -> list[Record]:
        return [self._record(number) for number in range(self.series)]

    def _record(self, number: int) -> Record:
        rng = np.random.default_rng((self.seed, number))
        sign = np.cumprod(np.where(rng.random(self.days) < 0.1, -1, 1)) * rng.choice([-1, 1])
        close = 100 * np.exp(np.cumsum(sign * np.abs(rng.normal(0.01, 0.003, self.days))))
        time = np.datetime64("2020-01-01", "ns") + np.arange(self.days) * np.timedelta64(1, "D")
        return table_record(f"stock_{number:03d}", {"time": time, "close": close}, {"format": "synthetic prices"})
