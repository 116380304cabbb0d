"""Forecasts beside their rivals, walked forward over time, and drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

import steersman as sm
from steersman.__main__ import main
from steersman.data.examples import WEIGHT
from steersman.errors import UserError
from steersman.evaluation.plots import Trace, prediction_over_truth, trace_figure, unbroken
from steersman.recipes.series import rivals as rivals_
from steersman.recipes.series.backtest import MOST_FOLDS, T_975, folds_of, interval
from steersman.recipes.series.recipes import forecast
from steersman.recipes.series.rivals import Lagged, came, counted, drift, held, rivals
from steersman.recipes.series.task import Truth
from steersman.sources.tables import table_record


def table(steps: int = 300, seed: int = 0) -> dict:
    """A season of 12, noise, an unknown value here and there, and a clock of dates from before 1970."""
    rng = np.random.default_rng(seed)
    load = 40 + 10 * np.sin(np.arange(steps) * 2 * np.pi / 12) + rng.normal(0, 0.5, steps)
    load[rng.random(steps) < 0.03] = np.nan
    when = np.datetime64("1969-12-01", "ns") + np.arange(steps) * np.timedelta64(1, "h")
    return {"when": when, "temp_c": rng.normal(15, 3, steps), "load": load}


def recipe_of(**options):
    recipe = replace(forecast([1]), target=("load",), horizon=3, context=24, **options)
    return replace(recipe, training=replace(recipe.training, steps=6, validate_every=6))


@pytest.fixture(autouse=True, scope="module")
def few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rivals_, "TREES", 3)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = {"horizon": 3, "context": 24, "training": {"steps": 6, "validate_every": 6}}
    return sm.fit("forecast", table(), tmp_path_factory.mktemp("run"), target="load", say=lambda text: None, **recipe)


def parts_of(recipe, *tables):
    records = recipe.transform_records([table_record(f"t{i}", each) for i, each in enumerate(tables)])
    parts = recipe.divide(records)
    return records, parts, recipe.adapt(parts)


def test_drift_and_season_are_those_of_their_formulas():
    load = np.array([1.0, 3, 2, 5, 4, 9, 8])
    records, _, _ = parts_of(recipe_of(), {"load": np.tile(load, 8)})
    recipe, record = recipe_of(), replace(records[0], streams={"load": records[0]["load"]})
    for t in (1, 5, 20):
        now, first = np.tile(load, 8)[t], load[0]
        by_hand = [now + h * (now - first) / t for h in (1, 2, 3)]
        np.testing.assert_allclose(drift(recipe, record)[t, 0], by_hand)
    np.testing.assert_array_equal(held(recipe, record, 7)[20, 0], np.tile(load, 8)[[14, 15, 16]])
    np.testing.assert_array_equal(held(recipe, record, 2)[20, 0], np.tile(load, 8)[[19, 20, 19]])


def test_ridge_on_lags_is_scikit_learns_on_the_same_rows():
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    _, parts, recipe = parts_of(recipe_of(), table(400))
    lagged = Lagged(recipe, 12, parts["train"], parts["validation"])
    record = parts["test"][0]
    said = lagged.ridge()(record)
    (x, own, y), (hx, hown, hy) = (lagged._rows(part, rivals_.ROWS) for part in lagged.parts)
    (x, hx, sx) = (rivals_._side_by_side(a, b) for a, b in ((x, own), (hx, hown), lagged.features(record)))
    middle, scale = np.nan_to_num(np.nanmean(x, 0)), np.nanstd(x, 0)
    x, hx, sx = (np.nan_to_num((each - middle) / np.where(scale > 0, scale, 1)) for each in (x, hx, sx))
    mean_variance = np.linalg.eigvalsh(np.cov(x.T, bias=True)).mean()
    models = [
        linear_model.Ridge(alpha=penalty * mean_variance * len(x)).fit(x, y[:, 0]) for penalty in rivals_.PENALTIES
    ]
    best = min(models, key=lambda m: np.mean((m.predict(hx) - hy[:, 0]) ** 2))
    theirs = best.predict(sx) + held(recipe, record, 1)[:, 0]
    np.testing.assert_allclose(said[:, 0], theirs, rtol=1e-5, atol=1e-5)


def test_rivals_see_nothing_that_comes():
    changed = table()
    changed["load"] = np.where(np.arange(300) > 280, 99.0, changed["load"])
    said = []
    for each in (table(), changed):
        _, parts, recipe = parts_of(recipe_of(), each)
        said.append(rivals(recipe, parts, parts["test"], 12))
    seen = 281 - (300 - len(said[0]["drift"].point[0]))
    for name, one in said[0].items():
        np.testing.assert_array_equal(one.point[0][:seen], said[1][name].point[0][:seen], name)


def test_a_rivals_band_and_crps_are_those_of_its_errors_on_the_validation_part():
    _, parts, recipe = parts_of(recipe_of(), table())
    said = rivals(recipe, parts, parts["test"], 1)["last value"]
    (held_out,), (record,) = parts["validation"], parts["test"]
    counts = counted(recipe, held_out)
    errors = (came(recipe, held_out) - held(recipe, held_out, 1))[counts][:, 0, 2]
    low, high = said.bounds[0]
    t = np.flatnonzero(said.counts[0])[3]
    np.testing.assert_allclose(low[t, 0, 2], said.point[0][t, 0, 2] + np.quantile(errors, 0.1))
    np.testing.assert_allclose(high[t, 0, 2], said.point[0][t, 0, 2] + np.quantile(errors, 0.9))
    draws = said.point[0][t, 0, 2] + np.quantile(errors, rivals_.LEVELS)
    truth = came(recipe, record)[t, 0, 2]
    by_hand = np.abs(draws - truth).mean() - np.abs(draws[:, None] - draws).mean() / 2
    assert said.crps[0][t, 0, 2] == pytest.approx(by_hand)
    scores = Truth(recipe, [record], parts["train"], said.counts).scores(said)
    inside = ((low <= came(recipe, record)) & (came(recipe, record) <= high))[said.counts[0]].mean()
    assert scores["coverage_80"] == pytest.approx(inside)


def test_folds_follow_each_other_and_learn_only_what_lies_before_them():
    records, _, recipe = parts_of(recipe_of(), table(300), table(200, 1))
    each = folds_of(recipe, records, 4)
    for number, whole in enumerate(records):
        clock = next(iter(whole.streams.values())).time_s
        asked = []
        for parts in each:
            train, validation, test = (parts[part][number] for part in ("train", "validation", "test"))
            counts = np.asarray(test[WEIGHT].values) > 0
            asked.append(test["load"].time_s[counts])
            assert train["load"].time_s[-1] < validation["load"].time_s[np.asarray(validation[WEIGHT].values) > 0][0]
            assert validation["load"].time_s[-1] < asked[-1][0]
            # The context before it, and what it asks for behind it.
            assert counts.sum() == len(test) - 24 - 3
        begin = round(len(whole) * 0.85)
        np.testing.assert_array_equal(np.concatenate(asked), clock[begin : len(whole) - 3])
    with pytest.raises(UserError, match="too short for 20 folds of forecasts 3 steps ahead"):
        folds_of(recipe, [records[1]], 20) and folds_of(recipe, parts_of(recipe_of(), table(60))[0], 20)


def test_intervals_are_students():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    np.testing.assert_allclose(T_975, stats.t.ppf(0.975, np.arange(1, MOST_FOLDS)), atol=6e-4)
    values = [1.0, 2.0, 4.0, 3.5]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2, rel=1e-3)


@pytest.mark.parametrize("refit", [False, True])
def test_a_run_is_walked_forward(run, refit):
    scores = run.backtest(folds=3, refit=refit)
    rows = {"this run": scores, **scores["baselines"]}
    assert {"last value", "drift", "seasonal naive", "ridge on lags"} < set(rows)
    for name, row in rows.items():
        assert row["rmse"] == pytest.approx(np.mean(row["by_fold"])), name
        assert row["intervals"]["rmse"] == pytest.approx(interval(row["by_fold"]))
        assert len(row["by_horizon"]) == 3
        assert 0 < row["coverage_80"] <= 1
        # A distribution is no worse than the number in its middle.
        assert row["crps"] < 1.1 * row["mae"]
    assert scores["series"][0]["name"] == "table_0.parquet"
    page = (run.folder / "backtest" / "report.html").read_text()
    for word in ("trained anew" if refit else "as it is", "boosting", "Worst series", "1969-Dec", "± "):
        assert word in page


def test_one_fold_more_than_is_told_of_is_refused(run):
    with pytest.raises(UserError, match="21 folds: give 2 to 20"):
        run.backtest(folds=21)
    with pytest.raises(UserError, match="there is no backtest of Classify"):
        sm.Fitted(**vars(replace(run, recipe=sm.RECIPES["classify"](())))).backtest()


def test_the_command_walks_a_run_forward(run, capsys):
    main(["backtest", str(run.folder), "--folds", "2", "--json"])
    assert json.loads(capsys.readouterr().out)["folds"] == 2


def test_the_command_trains_a_recipe_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = (f"{i},{np.sin(i / 2):.3f}" for i in range(120))
    (tmp_path / "t.csv").write_text("\n".join(["time,v", *rows]))
    with pytest.raises(SystemExit):
        main(["backtest", "forecast", "--data", "t.csv", "--folds", "1"])
    assert "--folds" in capsys.readouterr().err
    options = ["--horizon", "2", "--training.steps", "2", "--core.hidden", "4"]
    main(["backtest", "forecast", "--data", "t.csv", *options, "--folds", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "95 % interval of the mean over 2 folds" in said
    assert (tmp_path / "runs" / "forecast-1" / "backtest" / "metrics.json").exists()


# Drawn


def test_a_line_is_broken_where_its_clock_has_a_gap():
    clock = np.array([0.0, 1, 2, 3, 20, 21, 22])
    assert [part.tolist() for part in unbroken(clock)] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [part.tolist() for part in unbroken(np.zeros(1))] == [[0]]
    figure = trace_figure([Trace("a", clock, clock, clock)])
    x = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_array_equal(np.isnan(x), [False] * 4 + [True] + [False] * 3 + [True])


@pytest.mark.parametrize(
    ("last_s", "label"), [(100, "time (s)"), (3000, "time (min)"), (80_000, "time (h)"), (1e6, "time (days)")]
)
def test_a_clock_is_drawn_in_the_unit_that_its_span_asks_for(last_s, label):
    clock = np.linspace(0, last_s, 50)
    assert label in prediction_over_truth([Trace("a", clock, clock, clock)], "").wide


def test_a_run_is_drawn_in_a_notebook_over_dates(run):
    figure = run.plot()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["80 % band", "truth", "model"]
    assert axes.get_xlim()[0] < 0  # Before 1970.
    with pytest.raises(UserError, match="there is no plot of Classify"):
        sm.Fitted(**vars(replace(run, recipe=sm.RECIPES["classify"](())))).plot()
