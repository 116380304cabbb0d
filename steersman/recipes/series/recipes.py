"""Recipes of tables: forecast, classify, label."""

from collections.abc import Sequence
from dataclasses import replace

from ...data.batches import Lanes, Windows
from ...data.records import Record
from ...data.splits import Split
from ...nn.cores import GRU, Pooled
from ...nn.encoders import Observed
from ...nn.heads import Classification, Quantiles
from ...sources.synthetic import Sensors
from ...training.trainer import Training
from .kinds import Forecast, Labelled
from .task import Forecasts


def forecast(records: Sequence[Record] = ()) -> Forecast:
    """Columns of a table, some steps ahead, at every step.

    Command: `steersman train forecast --data sensors.csv --target load_kw`
    Data:    tables: CSV of any dialect, Parquet, Arrow, NumPy; without any, a synthetic one
    Time:    some twenty seconds for 5,000 rows
    """
    return Forecast(
        source=Sensors(),
        target=() if records else ("load_kw",),
        task=Forecasts(),
        encoder=Observed(),
        core=GRU(64),
        head=Quantiles(),
        skip=True,
        lags=23,
        band_rate=0.15,
        batches=Lanes(batch_size=16, window=48, shift=True),
        split=Split(by="time", validation=0.15, test=0.15, gap_s=0),
        training=Training(steps=400, learning_rate=2e-3, weight_decay=2.0, validate_every=50, precision="float32"),
    )


def classify(records: Sequence[Record] = ()) -> Labelled:
    """The class, or a quantity, of each whole series: records, measurements, anything; many to one.

    Command: `steersman train classify --data FOLDER_OR_TABLE --label machine_state`
    Data:    tables: a file a series, or a column that names the series (--series); classes by column or by folder
    Time:    some twenty seconds for 200 series
    """
    return Labelled(
        source=Sensors(series=90),
        label=() if records else ("machine_state",),
        encoder=Observed(),
        core=Pooled(GRU(64), dropout=0.3),
        head=Classification(),
        flavour="many-to-one",
        batches=Windows(batch_size=32),
        split=Split(validation=0.15, test=0.2),
        training=Training(steps=400, learning_rate=3e-3, weight_decay=0.05, validate_every=25, precision="float32"),
    )


def label(records: Sequence[Record] = ()) -> Labelled:
    """A class, or a quantity, at every step of a series; many to many.

    Command: `steersman train label --data FOLDER_OR_TABLE --label machine_state`
    Data:    as for `classify`
    Time:    as for `classify`
    """
    recipe = classify(records)
    return replace(recipe, core=GRU(64), flavour="many-to-many", batches=Lanes(batch_size=16, window=64, shift=True))
