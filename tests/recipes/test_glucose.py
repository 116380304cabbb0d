"""Glucose: the clinic's measures, and the page that tells of them."""

from dataclasses import replace

import numpy as np
import pytest

from steersman.evaluation.report import report_run
from steersman.nn.cores import GRU
from steersman.recipes.glucose.clinical import alarms, clarke, onsets, threshold_for
from steersman.recipes.glucose.recipes import glucose
from steersman.recipes.glucose.source import Wearers
from steersman.recipes.series import rivals
from steersman.training.fit import fit


@pytest.mark.parametrize(
    ("truth", "said", "zones"),
    [
        # Corner points of the grid's lines (Clarke et al. 1987), and the zones right and left above, left and right
        # below.
        (175 / 3, 70, "ADAA"),  # A's upper line begins at the top of the square of the low.
        (70, 84, "ADDA"),
        (70, 180, "CEDB"),
        (70, 56, "AAAB"),
        (180, 70, "BBBE"),  # C's lower line ends here.
        (130, 0, "CBBC"),
        (290, 400, "BCCB"),
        (240, 70, "DBEE"),
        (240, 180, "BBBD"),
        (1000 / 3, 400, "ABBA"),
        (400, 320, "AABB"),
    ],
)
def test_zones_around_the_corner_points_are_those_of_the_grid(truth, said, zones):
    around = [(2, 2), (-2, 2), (-2, -2), (2, -2)]
    assert "".join("ABCDE"[int(clarke(np.array([truth + x]), np.array([said + y]))[0])] for x, y in around) == zones


def test_alarms_are_counted_by_lows_and_by_days():
    time_min = np.arange(0, 4 * 1440, 5.0)
    glucose = np.full(len(time_min), 120.0)
    glucose[200:206] = 60  # A low, then again within the hour: the same one.
    glucose[210] = 60
    glucose[700:710] = 65
    np.testing.assert_array_equal(onsets(time_min, glucose), [1000, 3500])
    forecast = np.full(len(time_min), 110.0)
    forecast[194:200] = 68  # Half an hour before the first low.
    forecast[400:406] = 69  # An alarm for nothing, which goes on.
    forecast[500] = 60
    found = alarms([(time_min, glucose, forecast)], 70)
    assert (found.recall, found.lows, found.warned_min) == (0.5, 2, 30)
    assert found.false_a_day == pytest.approx(2 / 4, rel=0.01)
    assert alarms([(time_min, glucose, forecast)], 65).recall == 0
    # The forecast is always below 111: one alarm an hour.
    assert threshold_for([(time_min, glucose, forecast)], 1) == 110
    assert threshold_for([(time_min, glucose, forecast)], 0.3) == 69


def test_a_page_tells_of_zones_and_alarms(tmp_path, monkeypatch):
    monkeypatch.setattr(rivals, "TREES", 3)
    recipe = replace(glucose(), core=GRU(4), source=Wearers(days=4))
    recipe = replace(recipe, training=replace(recipe.training, steps=5, validate_every=5))
    run = fit("glucose", recipe, tmp_path, say=lambda text: None)
    scores = report_run(run)
    assert set(scores["minutes"]["this run"]) == {"30", "60"}
    for row in scores["minutes"].values():
        assert sum(row["60"]["zones"].values()) == pytest.approx(1)
        assert row["60"]["rmse"] > row["30"]["rmse"]
    page = (tmp_path / "report.html").read_text()
    for word in ("Error grid", "mg/dL", "60 minutes ahead"):
        assert word in page
