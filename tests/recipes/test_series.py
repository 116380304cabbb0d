"""Tables over time: what is read, what is learned, what is said of new rows."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

import steersman as sm
from steersman.data.examples import WEIGHT
from steersman.data.records import last_known
from steersman.errors import UserError
from steersman.evaluation.predict import csv_lines, follow, json_lines, predict, write_predictions
from steersman.evaluation.report import report_run
from steersman.evaluation.seasons import find_season
from steersman.nn.cores import GRU
from steersman.nn.heads import Gaussian, Quantiles
from steersman.recipes import RECIPES
from steersman.recipes.fitted import in_memory
from steersman.recipes.series.bands import AdaptiveBands
from steersman.recipes.series.kinds import Forecast, Labelled
from steersman.recipes.series.recipes import classify, forecast, label
from steersman.recipes.series.series import shifted
from steersman.recipes.series.summaries import has_scikit_learn
from steersman.recipes.series.task import forecasts
from steersman.sources import tables
from steersman.sources.tables import find_clock, read, table_record
from steersman.training.checkpoints import Checkpoints, read_tensors
from steersman.training.fit import fit
from steersman.training.material import material
from steersman.training.prepare import divide, prepare
from steersman.training.recipe import open_records, read_records


def quick(recipe, steps: int = 6, **changes):
    return replace(recipe, training=replace(recipe.training, steps=steps, validate_every=steps), **changes)


def written(path: Path, columns: dict, **about) -> Path:
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def sensor(path: Path, steps: int = 300, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    load = 40 + 10 * np.sin(np.arange(steps) * 2 * np.pi / 12) + rng.normal(0, 0.5, steps)
    cells = [f"{v:.3f}" if rng.random() > 0.05 else "" for v in load]
    days = [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00:00" for i in range(steps)]
    return written(path, {"when": days, "temp_c": rng.normal(15, 3, steps).round(2), "load_kw": cells})


# Tables


@pytest.mark.parametrize(
    "text",
    [
        "time,a,word\n1,2.5,on\n2,,off\n3,-4,on\n",
        "time;a;word\r\n1;2,5;on\r\n2;;off\r\n3;-4,0;on\r\n",
        "\ufefftime\ta\tword\n1\t2.5\ton\n2\tNaN\toff\n3\t-4\ton\n",
        'time,a,"word"\n1,"2.5","on"\n2,NA,"off"\n3,-4,on\n',
    ],
    ids=["plain", "German", "tabs and mark", "quoted"],
)
def test_a_table_is_the_same_in_any_dialect(tmp_path, text):
    (tmp_path / "t.csv").write_bytes(text.encode())
    (record,) = read(tmp_path / "t.csv")
    np.testing.assert_array_equal(record["a"].values, [2.5, np.nan, -4])
    np.testing.assert_array_equal(record["time"].values, [1, 2, 3])
    assert record["word"].values.tolist() == ["on", "off", "on"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"a": 1}\n{"\xdcb": 2}\n', "line 2 is no JSON"),
        (b'{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        (b'{"a": 1}\n{"a": "x"}\n', "can't be read"),
        (b'{"a": [1]}\n', "column 'a' holds list"),
        (b"[" * 5000, "line 1 is no JSON"),
        (b"\n", "has no column"),
    ],
)
def test_a_bad_line_of_json_is_refused_in_a_sentence(tmp_path, text, said):
    (tmp_path / "t.jsonl").write_bytes(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "t.jsonl")


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".npz", ".csv.gz", ".csv.xz", ".csv.zst"])
def test_a_table_is_the_same_in_any_format(tmp_path, ending):
    import gzip
    import lzma

    columns = {"time": np.array([1.0, 2, 3]), "a": np.array([2.5, np.nan, -4])}
    path, text = tmp_path / f"t{ending}", b"time,a\n1,2.5\n2,\n3,-4\n"
    if ending == ".parquet":
        parquet.write_table(pa.table(columns), path)
    elif ending == ".feather":
        feather.write_feather(pa.table(columns), path)
    elif ending == ".npz":
        np.savez(path, **columns)
    elif ending == ".csv.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(text)
    else:
        path.write_bytes((gzip if ending == ".csv.gz" else lzma).compress(text))
    (record,) = read(path)
    for name, values in columns.items():
        np.testing.assert_array_equal(record[name].values, values)


def test_cases_of_the_archive_are_records_with_their_class(tmp_path):
    (tmp_path / "t.ts").write_text("@classLabel true a b\n@data\n1,2,3:4,5,6:a\n7,8,?:1,1,1:b\n")
    first, second = read(tmp_path / "t.ts")
    np.testing.assert_array_equal(first["dim_1"].values, [4, 5, 6])
    np.testing.assert_array_equal(second["dim_0"].values, [7, 8, np.nan])
    assert second["label"].values.tolist() == ["b"] * 3
    (tmp_path / "t.arff").write_text(
        "@relation r\n@attribute a real\n@attribute b real\n@attribute c {x,y}\n@data\n1,2,x\n"
    )
    (only,) = read(tmp_path / "t.arff")
    np.testing.assert_array_equal(only["dim_0"].values, [1, 2])
    assert only["label"].values[0] == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no table: it has 0 lines"),
        ("a,b\n", "is no table: it has 1 lines"),
        ("a,a\n1,2\n3,4\n", "has two columns 'a'"),
        ("a,b\n1,2\n3,4\n5,x\n7,8\n9,1\n2,3\n", "'b' holds numbers, but 'x' in row 3"),
        ("a,b\n1,2\n3\n5,6\n", "1 rows can't be used, the first: row"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".npz", ".csv.gz", ".csv.xz", ".csv.zst", ".ts", ".arff"])
def test_bytes_that_are_no_table_are_refused(tmp_path, ending):
    path = tmp_path / f"t{ending}"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="t\\."):
        read(path)


def test_the_clock_is_found_by_name_and_kind():
    count, dates = np.arange(3.0), np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[ns]")
    assert find_clock({"a": count, "timestamp": count}) == "timestamp"
    assert find_clock({"a": count, "b": dates}) == "b"
    assert find_clock({"a": count, "temp": count}) == ""


# Series


def test_rows_are_parted_into_series_each_with_its_own_clock():
    columns = {"id": np.array(["b", "a", "b", "a"], object), "t": np.array([5.0, 1, 7, 2]), "v": np.arange(4.0)}
    records = forecast().__class__.transform_records(
        replace(forecast(), series="id", time="t", target=("v",)), [table_record("x", columns)]
    )
    assert [r.name for r in records] == ["a", "b"]
    np.testing.assert_array_equal(records[1]["v"].time_s, [5, 7])
    np.testing.assert_array_equal(records[1]["v"].values, [0, 2])


@pytest.mark.parametrize(
    ("recipe", "columns", "said"),
    [
        (replace(forecast(), target=("loads",)), {"load": np.arange(9.0)}, "no column 'loads'.*did you mean.*load"),
        (
            replace(forecast(), target=("a",), time="t"),
            {"t": [1.0, 3, 2], "a": [1.0, 2, 3]},
            "the time goes back in row 3",
        ),
        (
            replace(forecast(), target=("a",), time="t"),
            {"t": [1.0, 2, 2], "a": [1.0, 2, 3]},
            "the time repeats in row 3",
        ),
        (
            replace(forecast(), target=("a",), ahead=("a",)),
            {"a": [1.0, 2, 3]},
            "'a' is to be learned; it can't be known",
        ),
        (classify([1]), {"a": [1.0, 2, 3]}, "which column holds the class"),
        (replace(forecast(), target=()), {"time": [1.0, 2, 3]}, "has no column beside 'time'"),
    ],
)
def test_columns_that_do_not_fit_are_refused_in_a_sentence(recipe, columns, said):
    record = table_record("x", {name: np.asarray(values) for name, values in columns.items()})
    with pytest.raises(UserError, match=said):
        recipe.transform_records([record])


def test_unsorted_rows_are_sorted_on_request_and_of_one_time_the_last_counts():
    recipe = replace(forecast(), target=("a",), time="t", sort=True)
    record = table_record("x", {"t": np.array([1.0, 3, 2, 3]), "a": np.array([1.0, 2, 3, 4])})
    (found,) = recipe.transform_records([record])
    np.testing.assert_array_equal(found["a"].values, [1, 3, 4])


def test_a_forecast_learns_what_comes_and_a_held_out_part_counts_from_its_own_first_step(tmp_path):
    recipe = replace(forecast([1]), target=("load_kw",), horizon=3, context=20)
    parts = divide(recipe, [str(sensor(tmp_path / "s.csv"))])
    adapted = recipe.adapt(parts)
    whole = read_records(recipe, [str(tmp_path / "s.csv")])[0]
    load = np.asarray(whole["load_kw"].values)
    for name, (start, stop) in {"train": (0, 210), "validation": (210, 255), "test": (255, 300)}.items():
        first = max(0, start - 20)
        arranged = adapted.seen(parts[name][0])
        counts = np.asarray(arranged[WEIGHT].values)
        base = last_known(load[first:stop])
        for step in range(stop - first):
            later = load[first + step + 1 : first + step + 4]
            known = first + step >= start and first + step + 4 <= stop and not np.isnan(later).any()
            assert bool(counts[step]) == (known and not np.isnan(base[step]))
            if counts[step]:
                np.testing.assert_allclose(arranged["load_kw"].values[step], later - base[step], rtol=1e-4, atol=1e-4)


def test_what_is_known_ahead_is_seen_ahead_and_nothing_else():
    steps = np.arange(40.0)
    record = table_record("x", {"a": np.sin(steps), "holiday": (steps % 7 == 0).astype(float), "sex": np.ones(40)})
    recipe = replace(forecast([1]), target=("a",), horizon=2, ahead=("holiday",), static=("sex",), time="row")
    parts = recipe.divide(recipe.transform_records([record]))
    adapted = recipe.adapt(parts)
    arranged = adapted.seen(parts["train"][0])
    np.testing.assert_array_equal(arranged["ahead"].values[5], [(6 % 7 == 0), (7 % 7 == 0)])
    assert arranged["values"].values.shape[1] == 2
    np.testing.assert_array_equal(arranged["static"].values, [[1.0]])
    future = np.asarray(arranged["values"].values).copy()
    later = {name: np.where(steps > 20, 9.0, np.asarray(record[name].values)) for name in ("a", "holiday")}
    changed = table_record("x", {**later, "sex": np.ones(40)})
    again = adapted.seen(recipe.divide(recipe.transform_records([changed]))["train"][0])
    np.testing.assert_array_equal(np.asarray(again["values"].values)[:21], future[:21])


def test_words_are_inputs_of_their_own_step_alone_also_where_no_column_holds_numbers():
    steps = np.arange(40)
    words = np.where(steps % 3 == 0, "on", "off").astype(object)
    columns = {"a": np.sin(steps), "valve": words, "holiday": (steps % 7 == 0).astype(float)}
    recipe = replace(forecast([1]), target=("a",), horizon=2, ahead=("holiday",), time="row")
    parts = recipe.divide(recipe.transform_records([table_record("x", columns)]))
    seen = recipe.adapt(parts).seen(parts["train"][0])
    assert seen["ahead"].values.shape[1] == 2  # The holidays of two steps to come, and no valve's.
    assert seen["values"].values.shape[1] == 4
    named = replace(label([1]), label=("state",), time="row")
    only = table_record("x", {"valve": words, "state": np.roll(words, 1)})
    parts = named.divide(named.transform_records([only]))
    seen = named.adapt(parts).seen(parts["train"][0])
    np.testing.assert_array_equal(seen["values"].values[:3], [[0, 1], [1, 0], [1, 0]])


def test_a_table_of_named_classes_is_scored_by_their_names(tmp_path):
    where = str(folders(tmp_path / "d"))
    run = fit("classify", quick(classify([1]), 10), tmp_path / "run", [where], say=lambda text: None)
    assert report_run(run)["names"] == ["calm", "wild"]
    assert "wild" in (run.folder / "report.html").read_text()


def test_shifting_and_seasons():
    np.testing.assert_array_equal(shifted(np.arange(4.0), 2), [2, 3, np.nan, np.nan])
    np.testing.assert_array_equal(shifted(np.arange(2.0), 5), [np.nan, np.nan])
    np.testing.assert_array_equal(last_known(np.array([np.nan, 1, np.nan, 2])), [np.nan, 1, 1, 2])
    rng = np.random.default_rng(0)
    assert find_season([np.sin(np.arange(400) * 2 * np.pi / 24) + rng.normal(0, 0.1, 400)]) == 24
    assert find_season([rng.normal(size=400)]) == 1
    assert find_season([np.arange(5.0)]) == 1


@pytest.mark.parametrize("later", ["0.5", "", "word"])
def test_a_large_table_is_read_in_blocks_to_the_same_cells(tmp_path, monkeypatch, later):
    """Blocks are of a MiB: of what a later one holds the first knows nothing."""
    rows = [f"2024-01-01 00:00:{i % 60:02d};{i};{'x' * 40};{i / 8:.3f}".replace(".", ",") for i in range(40_000)]
    rows[30_000] = f"2024-01-01 00:00:00;{later};y;1".replace(".", ",")
    path = tmp_path / "large.csv"
    path.write_text("\n".join(["when;whole;word;part", *rows, "a row of one cell", ""]))
    if later == "word":
        monkeypatch.setattr(tables, "LARGE", 0)
        with pytest.raises(UserError, match="'word' in row 30001"):
            read(path)
        return
    (whole,) = read(path)
    monkeypatch.setattr(tables, "LARGE", 0)
    (blocks,) = read(path)
    assert list(blocks.streams) == list(whole.streams)
    for name, stream in whole.streams.items():
        assert blocks[name].values.dtype == stream.values.dtype
        np.testing.assert_array_equal(blocks[name].values, stream.values)


def test_tables_are_read_from_python(tmp_path):
    path = written(tmp_path / "a.csv", {"time": [0, 1, 2], "v": [1, 2, 3]})
    written(tmp_path / "b.csv", {"v": [4]})
    assert list(sm.read(path)[0].streams) == ["time", "v"]
    assert [record.name for record in sm.read(tmp_path / "*.csv")] == ["a.csv", "b.csv"]
    with pytest.raises(UserError, match="there is no nowhere"):
        sm.read("nowhere")


def test_what_wanders_has_no_season_and_one_that_wanders_has():
    rng = np.random.default_rng(0)
    noise, steps = rng.normal(size=(5, 2000)), np.arange(2000)
    assert {find_season([each]) for each in (*noise, *noise.cumsum(1))} == {1}
    red = np.zeros(2000)
    for t in range(1, 2000):
        red[t] = 0.95 * red[t - 1] + noise[0, t]
    assert find_season([red]) == 1
    season = np.sin(steps * 2 * np.pi / 96)
    assert abs(find_season([season + 0.5 * noise[0]]) - 96) <= 5
    assert abs(find_season([season + 0.03 * noise[1].cumsum()]) - 96) <= 2
    assert find_season([10 * steps + (steps % 7 == 0)]) == 7


def test_weak_seasons_are_found_and_none_in_what_has_none():
    rng = np.random.default_rng(1)
    wave = np.sin(np.arange(20_000) * 2 * np.pi / 24)
    noise = rng.normal(size=(100, 1000))
    assert sum(find_season([wave[:1000] + each]) == 24 for each in noise) >= 99
    assert sum(find_season([wave + rng.normal(size=20_000).cumsum()]) == 24 for _ in range(10)) == 10
    for without in (noise, noise.cumsum(1), noise[:, :200], noise[:, :200].cumsum(1)):
        assert sum(find_season([each]) > 1 for each in without) <= 2
    day_and_week = wave + np.sin(np.arange(20_000) * 2 * np.pi / 168) / 2
    assert find_season([day_and_week + rng.normal(0, 0.3, 20_000)]) == 24


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    recipe = quick(replace(forecast([1]), target=("load_kw",), horizon=3), 30)
    return fit("forecast", recipe, folder / "run", [str(sensor(folder / "s.csv"))], say=lambda text: None)


def test_its_bands_are_made_wider_by_what_the_validation_part_asks_for(forecaster):
    parts, model = forecaster.records(), forecaster.model()
    record, head = parts["validation"][0], model.head
    kept = head.stretch.clone()
    head.stretch.fill_(1)
    (example,) = forecaster.recipe.examples(model, [record])
    still = replace(forecaster.recipe, band_rate=0)
    point, (low, high) = still.forecasts(model, record, model.stream([example])[0])
    at = np.flatnonzero(example.weight > 0)
    truth = np.asarray(record["load_kw"].values)
    off = np.stack([truth[at + ahead] for ahead in (1, 2, 3)], 1) - point[at, 0]
    reach = np.sort(np.where(off > 0, off / (high - point)[at, 0], -off / (point - low)[at, 0]), 0)
    asked = reach[int(np.ceil((len(at) + 1) * 0.8)) - 1]
    np.testing.assert_allclose(kept, asked ** (len(at) / (len(at) + 3 * 10)), rtol=1e-4)


def test_bands_adapt_until_they_hold_their_share():
    rng = np.random.default_rng(0)
    adapt, came = AdaptiveBands(1, 2, 0.05), rng.normal(size=(3000, 1)) * np.repeat([0.3, 3], 1500)[:, None]
    still = np.array([[[-1.0, 1], [-1, 1]]])
    said = np.stack([adapt(now, np.zeros((1, 2)), still) for now in came])
    np.testing.assert_array_equal(said[0], still)
    for ahead in (1, 2):
        inside = np.abs(came[ahead:, 0]) <= said[:-ahead, 0, ahead - 1, 1]
        assert abs(inside.mean() - 0.8) < 0.02
    # Of the second half a normal number's 80 % lies within 1.28 deviations.
    np.testing.assert_allclose(said[-1000:, 0, :, 1].mean(0), 1.28 * 3, rtol=0.1)
    # By hand: a miss of the step before, then a value that is blank.
    adapt = AdaptiveBands(1, 1, 0.1)
    for now, wide in ((0.0, 1.0), (2.0, np.exp(0.08)), (np.nan, np.exp(0.08)), (0.0, np.exp(0.06))):
        np.testing.assert_allclose(adapt(np.array([now]), np.zeros((1, 1)), still[:, :1])[0, 0, 1], wide)


def test_it_begins_as_a_ridge_regression_on_its_inputs(tmp_path):
    columns = {"load_kw": np.sin(np.arange(400) / 3) + np.arange(400) / 100}
    recipe = replace(quick(forecast([1]), 1), target=("load_kw",), horizon=2, season=1, lags=3)
    parts = recipe.divide(recipe.transform_records(in_memory(columns)))
    made = prepare(recipe, parts, folder=tmp_path)
    model, examples = made.model, made.examples["train"]
    points = model.predict(examples)[0]
    # A sine on a line is foretold by four values.
    np.testing.assert_allclose(points[10:-2], examples[0].y[10:-2], atol=2e-3)
    assert made.recipe.numbers("season") == ["load_kw -1", "load_kw -2", "load_kw -3"]


def test_a_forecast_is_scored_beside_the_last_value_and_the_season(forecaster):
    scores = report_run(forecaster)
    learned = {"ridge on lags", "boosting on lags"} if has_scikit_learn() else {"ridge on lags"}
    assert set(scores["baselines"]) == {"last value", "drift", "seasonal naive"} | learned
    assert scores["season"] == 12
    assert len(scores["by_horizon"]) == 3
    # By hand: the last known value, three steps on.
    record = forecaster.records()["test"][0]
    load = np.asarray(record["load_kw"].values)
    counts = np.asarray(forecaster.recipe.seen(record)[WEIGHT].values) > 0
    left = [load[t + 3] - last_known(load)[t] for t in np.flatnonzero(counts)]
    assert scores["baselines"]["last value"]["by_horizon"][2] == pytest.approx(np.sqrt(np.mean(np.square(left))))
    said = forecasts(forecaster, material(forecaster))
    low, high = (bound[counts, 0] for bound in said.bounds[0])
    came = np.stack([load[t + 1 : t + 4] for t in np.flatnonzero(counts)])
    assert scores["coverage_80"] == pytest.approx(((low <= came) & (came <= high)).mean())
    assert scores["coverage_by_horizon"] == pytest.approx(((low <= came) & (came <= high)).mean(0))
    # The CRPS of a single number is its absolute error; of a distribution around it, less.
    assert 0 < scores["crps"] < scores["mae"]
    page = (forecaster.folder / "report.html").read_text()
    assert "Steps ahead" in page
    assert "steer" not in page.replace("steersman", "")


def test_predictions_need_no_future_and_are_the_same_row_by_row(forecaster):
    path = forecaster.folder.parent / "s.csv"
    found = predict(forecaster, [str(path)])
    steps = [f"load_kw +{step}{bound}" for step in (1, 2, 3) for bound in ("", " 10%", " 90%")]
    assert list(found) == ["record", "time", "time_s", *steps]
    assert (found["load_kw +2 10%"] <= found["load_kw +2"]).all()
    assert (found["load_kw +2"] <= found["load_kw +2 90%"]).all()
    assert len(found["time_s"]) == 300
    rows = answered(forecaster, path)
    assert len(rows) == 300
    for name in list(found)[2:]:
        np.testing.assert_allclose([row[name] for row in rows], found[name], rtol=2e-5, atol=1e-3)
    assert len(list(csv_lines(found))) == 301
    assert json.loads(next(iter(json_lines(found))))["record"] == "s.csv"


def answered(run, path: Path) -> list[dict]:
    out = io.StringIO()
    with path.open() as lines:
        follow(lines, run.recipe.row_by_row(run.model()), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("head", [Quantiles(), Gaussian()], ids=["kernels", "PyTorch"])
def test_rows_answered_one_by_one_are_those_of_the_whole_table(tmp_path, head):
    rows = 10_000 if isinstance(head, Quantiles) else 300
    rng = np.random.default_rng(0)
    valve = np.where(rng.random(rows) < 0.5, "on", "off")
    a = [f"{v:.3f}" if rng.random() > 0.1 else "" for v in np.cumsum(rng.normal(size=rows))]
    columns = {"time_h": np.cumsum(rng.integers(1, 4, rows)), "a": a, "b": rng.normal(size=rows), "valve": valve}
    path = written(tmp_path / "s.csv", columns | {"age": [7] * rows})
    recipe = replace(forecast([1]), target=("a", "b"), static=("age",), horizon=2, core=GRU(16), head=head)
    first = written(tmp_path / "t.csv", {n: v[:300] for n, v in columns.items()} | {"age": [7] * 300})
    run = fit("forecast", quick(recipe, 2), tmp_path / "run", [str(first)], say=lambda text: None)
    whole, found = predict(run, [str(path)]), answered(run, path)
    assert len(found) == rows
    for name in list(whole)[1:]:
        np.testing.assert_allclose([row[name] for row in found], whole[name], rtol=1e-5, atol=1e-5)
    comma = path.read_text().replace(",", ";").replace(".", ",")
    (tmp_path / "comma.csv").write_text(comma)
    assert answered(run, tmp_path / "comma.csv") == found


def test_of_a_target_that_drifts_away_changes_are_seen_whole_and_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    level = (np.arange(120) + rng.normal(0, 0.3, 120)).round(3)
    cells = [f"{v}" if i % 7 else "" for i, v in enumerate(level)]
    path = written(tmp_path / "t.csv", {"a": rng.normal(size=120).round(3), "v": cells})
    run = fit("f", quick(replace(forecast([1]), target=("v",), horizon=2), 2), tmp_path / "run", [str(path)])
    assert run.recipe.drifting == ("v",)
    record = read_records(run.recipe, [str(path)])[0]
    seen = np.asarray(run.recipe.seen(record)["values"].values)[:, 1]
    last = last_known(np.asarray(record["v"].values))
    np.testing.assert_allclose(seen[8:14], (level - np.append(np.nan, last[:-1]))[8:14], rtol=1e-4)
    assert np.isnan(seen[14])
    found, out = predict(run, [str(path)]), io.StringIO()
    with path.open() as lines:
        follow(lines, run.recipe.row_by_row(run.model()), out)
    rows = [json.loads(line)["v +2"] for line in out.getvalue().splitlines()]
    np.testing.assert_allclose(rows[1:], found["v +2"][1:], rtol=2e-5, atol=1e-3)


def test_what_was_a_season_before_is_an_input_whole_and_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    level = (np.array([0, 2, 1, 5, 3])[np.arange(160) % 5] + rng.normal(0, 0.2, 160)).round(3)
    cells = [f"{v}" if i % 11 else "" for i, v in enumerate(level)]
    path = written(tmp_path / "t.csv", {"a": rng.normal(size=160).round(3), "v": cells})
    run = fit("f", quick(replace(forecast([1]), target=("v",), horizon=7), 2), tmp_path / "run", [str(path)])
    assert run.recipe.season == 5
    record = read_records(run.recipe, [str(path)])[0]
    seen, last = np.asarray(run.recipe.seen(record)["season"].values), last_known(np.asarray(record["v"].values))
    assert run.recipe.numbers("season")[6] == "v a season before +7"
    for step, ahead in ((40, 1), (41, 5), (42, 6), (43, 7)):  # Of six steps ahead two seasons before.
        before = step + ahead - (5 if ahead <= 5 else 10)
        assert seen[step, ahead - 1] == pytest.approx(last[before] - last[step], abs=1e-6)
    assert np.isnan(seen[3, 0])
    found, out = predict(run, [str(path)]), io.StringIO()
    with path.open() as lines:
        follow(lines, run.recipe.row_by_row(run.model()), out)
    rows = [json.loads(line)["v +7"] for line in out.getvalue().splitlines()]
    np.testing.assert_allclose(rows[1:], found["v +7"][1:], rtol=2e-5, atol=1e-3)
    assert Forecast.season == 0  # Runs from before have no such input.


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("when,temp_c\n", "the header lacks load_kw"),
        ('{"temp_c": 1}\n', "row 1 lacks 'load_kw'"),
        ('{"temp_c": "warm", "load_kw": 2}\n', "'temp_c' is 'warm', no number"),
        ("{\n", "row 1 is no JSON object"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(forecaster, row, said):
    with pytest.raises(UserError, match=said):
        follow([row], forecaster.recipe.row_by_row(forecaster.model()), io.StringIO())


def folders(place: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, level in {"calm": 0.0, "wild": 3.0}.items():
        for i in range(8):
            written(place / name / f"{i}.csv", {"v": (level * np.sin(np.arange(20)) + rng.normal(0, 0.1, 20)).round(3)})
    return place


def test_a_folder_a_class_is_learned_and_named(tmp_path):
    run = fit(
        "classify", quick(classify([1]), 40), tmp_path / "run", [str(folders(tmp_path / "d"))], say=lambda text: None
    )
    assert run.recipe.adapt(run.records()).classes == ("calm", "wild")
    (tmp_path / "new.csv").write_text((tmp_path / "d" / "wild" / "1.csv").read_text())
    trained = type(run).open(run.folder)
    found = predict(trained, [str(tmp_path / "new.csv")])
    assert found["folder"].tolist() == ["wild"]
    assert found["p(calm)"][0] + found["p(wild)"][0] == pytest.approx(1, abs=1e-5)


def test_an_answer_at_every_step_may_be_words_or_numbers(tmp_path):
    rng = np.random.default_rng(0)
    v = rng.normal(size=400)
    state = np.where(np.cumsum(v) > 0, "up", "down")
    written(tmp_path / "t.csv", {"v": v.round(3), "state": state, "double": (2 * v + 0.1).round(3)})
    words = divide(replace(label([1]), label=("state",), leave_out=("double",)), [str(tmp_path / "t.csv")])
    adapted = replace(label([1]), label=("state",), leave_out=("double",)).adapt(words)
    assert adapted.classes == ("down", "up")
    assert adapted.columns == ("v",)
    numbers = replace(label([1]), label=("double",), leave_out=("state",))
    assert numbers.adapt(divide(numbers, [str(tmp_path / "t.csv")])).classes == ()


@pytest.mark.parametrize("answer", ["class", "number"])
def test_only_steps_of_the_held_out_part_whose_answer_is_known_are_scored(tmp_path, answer):
    """Not those before it, which are read for their context and were trained on."""
    values = (np.arange(300) % 7 > 2).astype(float)
    values[280:290] = np.nan
    table = {"x": np.sin(np.arange(300.0)), "on": values}
    options = {"label": "on", "answer": answer, "training": {"steps": 3, "validate_every": 3}, "context": 50}
    run = sm.fit("label", table, folder=tmp_path / "run", say=lambda text: None, **options)
    (record,) = run.records()["test"]
    assert len(record) > 100
    scores = run.evaluate()
    assert scores["items" if answer == "class" else "steps"] == 60 - 10


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (["a"] * 60, "is 'a' throughout"),
        ([""] * 60, "blank in the whole train part"),
        (["a", "b"] * 25 + ["c"] * 10, "class 'c'"),
    ],
)
def test_labels_that_teach_nothing_are_refused(tmp_path, column, said):
    written(tmp_path / "t.csv", {"v": range(60), "state": column})
    recipe = replace(label([1]), label=("state",))
    with pytest.raises(UserError, match=said):
        recipe.adapt(divide(recipe, [str(tmp_path / "t.csv")]))


def test_a_table_goes_through_open_records_as_it_was_written(tmp_path):
    assert isinstance(forecast(), Forecast)
    assert isinstance(classify(), Labelled)
    (record,) = open_records(forecast([1]), [str(sensor(tmp_path / "s.csv", 30))])
    assert list(record.streams) == ["when", "temp_c", "load_kw"]


# In Python


def memory(steps: int = 300) -> dict:
    rng = np.random.default_rng(0)
    load = 40 + 10 * np.sin(np.arange(steps) * 2 * np.pi / 12) + rng.normal(0, 0.5, steps)
    return {"time": np.arange(steps) * 60.0, "temp_c": rng.normal(15, 3, steps), "load_kw": load}


def test_a_table_in_memory_is_learned_kept_and_predicted_on(tmp_path):
    options = {"target": "load_kw", "horizon": 2, "training": {"steps": 5, "validate_every": 5}}
    run = sm.fit("forecast", memory(), folder=tmp_path / "run", say=lambda text: None, **options)
    assert run._repr_html_().endswith("not yet evaluated</p>")
    assert repr(run) == f"<run of {run.name} in {run.folder}>"
    again = sm.Run.open(tmp_path / "run")
    assert again.recipe.target == ("load_kw",)
    scores = run.evaluate()
    assert report_run(again) == scores  # From the run's folder alone.
    assert "this run" in run._repr_html_()
    found = run.predict(memory(40))
    assert {"record", "time_s", "load_kw +1", "load_kw +2"} < set(found)
    assert len(found["time_s"]) == 40
    arrow = run.predict(pa.table(memory(40)))
    np.testing.assert_array_equal(arrow["load_kw +1"], found["load_kw +1"])
    with pytest.raises(UserError, match="no option 'targets'; did you mean 'target'"):
        sm.fit("forecast", memory(), folder=tmp_path / "other", targets="load_kw")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (3, "int is no table"),
        (np.zeros((2, 2, 2)), "is no table"),
        ({"a": np.zeros((3, 2))}, "column 'a' has shape"),
        ({"a": np.zeros(3), "b": np.zeros(2)}, "columns of 2 and 3 rows"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, given, said):
    with pytest.raises(UserError, match=said):
        sm.fit("forecast", given, folder=tmp_path / "run")


def test_predictions_of_dates_tell_the_dates(tmp_path):
    hours = np.datetime64("2024-03-01T00:00") + np.arange(120) * np.timedelta64(1, "h")
    table = {"when": hours, "load_kw": np.sin(np.arange(120.0))}
    options = {"target": "load_kw", "horizon": 2, "training": {"steps": 3, "validate_every": 3}}
    run = sm.fit("forecast", table, folder=tmp_path / "run", say=lambda text: None, **options)
    found = run.predict(table)
    assert list(found)[:3] == ["record", "time", "time_s"]
    np.testing.assert_array_equal(found["time"], hours)
    for name, first in (("out.csv", "table_0,2024-03-01 00:00:00,"), ("out.jsonl", '"time": "2024-03-01 00:00:00"')):
        write_predictions(tmp_path / name, found)
        assert first in (tmp_path / name).read_text()


def test_a_recipe_is_trained_as_it_is(tmp_path):
    recipe = quick(replace(forecast([1]), target=("load_kw",), horizon=2), 4)
    run = sm.fit("mine", recipe, tmp_path / "run", [str(sensor(tmp_path / "s.csv"))], say=lambda text: None)
    assert run.name == "mine"
    assert len(run.predict(tmp_path / "s.csv")["time_s"]) == 300


def test_a_run_that_begins_from_a_calibrated_one_learns_uncalibrated(tmp_path):
    recipe = RECIPES["forecast"](())
    recipe = replace(recipe, horizon=3, training=replace(recipe.training, steps=4, warmup=1, validate_every=2))
    fit("forecast", recipe, tmp_path / "a", say=lambda text: None)
    assert not (read_tensors(tmp_path / "a/model.safetensors")["head.stretch"] == 1).all()
    fit("forecast", recipe, tmp_path / "b", start=tmp_path / "a", say=lambda text: None)
    checkpoints = Checkpoints(tmp_path / "b/checkpoints")
    learned, _ = checkpoints.read(checkpoints.steps()[-1])
    assert (learned["model"]["head.stretch"] == 1).all()
