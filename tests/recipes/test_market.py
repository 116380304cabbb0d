"""Markets: answers that are made of prices, costs, intervals, and the page that says what they say."""

from dataclasses import replace

import numpy as np
import pytest
from small import small

from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.recipes.market.kinds import lagged, next_return
from steersman.recipes.market.recipes import market
from steersman.recipes.market.task import Days, scored, verdict
from steersman.recipes.market.trading import after_costs, block_bootstrap
from steersman.sources.tables import table_record
from steersman.training.fit import fit


def prices(close, **columns):
    days = np.datetime64("2024-01-01", "ns") + np.arange(len(close)) * np.timedelta64(1, "D")
    return table_record("x", {"date": days, **columns, "Close": np.asarray(close, float)})


def test_what_is_seen_are_returns_of_the_past_and_the_answer_is_the_next():
    close = np.array([100.0, 110, 99, 99, 120] * 10)
    recipe = market([1])
    (record,) = recipe.transform_records([prices(close, Volume=np.arange(50.0))])
    parts = recipe.divide([record])
    adapted = recipe.adapt(parts)
    assert set(adapted.columns) == {*(f"return_{n}" for n in (1, 2, 5, 10, 20)), "volatility_20"}
    np.testing.assert_allclose(np.asarray(record["return_2"].values)[2:4], np.log([99 / 100, 99 / 110]))
    daily = np.append(0, np.diff(np.log(close)))
    by_hand = np.sqrt(np.mean(daily[21:41] ** 2))
    assert np.asarray(record["volatility_20"].values)[40] == pytest.approx(by_hand)
    seen = adapted.seen(record)
    np.testing.assert_array_equal(seen["direction"].values[:5], [1, 0, 0, 1, 0])  # A day without a change is no rise.
    assert seen["loss_weight"].values[-1] == 0
    np.testing.assert_allclose(next_return(record)[:3], [0.1, -0.1, 0])
    later = prices(np.where(np.arange(50) > 30, 7.0, close))
    (changed,) = recipe.transform_records([later])
    for one, other in ((record, changed), (seen, adapted.seen(changed))):
        name = "return_5" if one is record else "values"
        np.testing.assert_array_equal(np.asarray(one[name].values)[:31], np.asarray(other[name].values)[:31])
    np.testing.assert_array_equal(lagged(adapted, record)[:31], lagged(adapted, changed)[:31])


def test_a_price_that_is_none_is_refused():
    with pytest.raises(UserError, match="the price is 0 in row 3"):
        market([1]).transform_records([prices([1, 2, 0, 3])])


def test_costs_are_paid_for_what_is_turned_over():
    kept = after_costs(np.array([1.0, 1, -1, 0]), np.array([0.01, -0.02, -0.03, 0.5]), 0.001)
    np.testing.assert_allclose(kept, [0.01 - 0.001, -0.02, 0.03 - 0.002, -0.001])


def test_blocks_of_one_are_the_usual_bootstrap_and_longer_ones_see_what_follows_itself():
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1, 2000)
    low, high = block_bootstrap(values, 1)
    around = 1.96 * values.std() / len(values) ** 0.5
    assert (low, high) == pytest.approx((values.mean() - around, values.mean() + around), abs=0.006)
    held = np.repeat(rng.normal(0, 1, 100), 20)  # Each value twenty times: as many as a hundred alone.
    low, high = block_bootstrap(held, 20)
    assert high - low == pytest.approx(2 * 1.96 * held.std() / 10, rel=0.25)


def test_series_of_the_same_days_count_once():
    recipe = market([1])
    (record,) = recipe.transform_records([prices(100 + np.random.default_rng(0).normal(0, 1, 200))])
    p = np.linspace(0.3, 0.7, 200)
    one, twice = (scored([Days(record)] * n, [p] * n) for n in (1, 2))
    assert one["accuracy_interval"] == pytest.approx(twice["accuracy_interval"])
    assert one["return_a_year"] == pytest.approx(twice["return_a_year"])
    coin = replace_scores(one, [0.48, 0.53])
    assert verdict(coin).startswith("As far as can be told it can't foretell")
    assert verdict(replace_scores(one, [0.55, 0.6])).startswith("It is right between 55.0")


def replace_scores(row, interval):
    return {**row, "accuracy_interval": interval, "baselines": {"majority": {"accuracy": 0.51}}}


def test_a_page_says_what_the_interval_says(tmp_path):
    recipe = small("market")
    recipe = replace(recipe, training=replace(recipe.training, steps=5))
    scores = report_run(fit("market", recipe, tmp_path, say=lambda text: None))
    assert {"majority"} <= set(scores["baselines"])
    page = (tmp_path / "report.html").read_text()
    assert "5 basis points" in page
    with pytest.raises(UserError, match="a single row does not hold"):
        recipe.row_by_row(None)
