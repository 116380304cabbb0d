"""Recipe of glucose."""

from collections.abc import Sequence
from dataclasses import replace

from ...data.records import Record
from ..series.kinds import Forecast
from ..series.recipes import forecast
from .source import Wearers
from .task import GlucoseForecasts


def glucose(records: Sequence[Record] = ()) -> Forecast:
    """Glucose up to an hour ahead, from a sensor's readings each five minutes, with the clinic's measures.

    Command: `steersman train glucose --data readings.csv --target glucose`
    Data:    a table of readings in mg/dL; without any, made-up ones
    Time:    some twenty seconds for 50,000 readings
    """
    recipe = forecast(records)
    return replace(
        recipe,
        source=Wearers(),
        target=() if records else ("glucose",),
        task=GlucoseForecasts(),
    )
