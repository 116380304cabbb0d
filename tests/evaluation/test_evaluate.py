import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import metrics

from steersman.evaluation.metrics import (
    accuracy,
    baselines,
    best_lag,
    by_size,
    classification_scores,
    lag_curve,
    mae,
    r2,
    regression_scores,
    rmse,
    worst_moments,
)
from steersman.worlds import CarRacing
from steersman.worlds.rollout import Episode
from steersman.worlds.scores import driving_scores

finite = st.floats(-100, 100, width=32)
pairs = st.integers(1, 60).flatmap(lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=finite) for _ in range(2)]))
whole_pairs = st.integers(2, 40).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.int64, n, elements=st.integers(-9, 9)) for _ in range(2)])
)
records = st.lists(pairs, min_size=1, max_size=4)


@settings(deadline=None)
@given(pairs)
def test_rmse_and_mae_agree_with_scikit_learn(pair):
    prediction, truth = pair
    assert rmse(prediction, truth) == pytest.approx(metrics.root_mean_squared_error(truth, prediction))
    assert mae(prediction, truth) == pytest.approx(metrics.mean_absolute_error(truth, prediction))


@settings(deadline=None)
@given(pairs)
def test_r2_agrees_with_scikit_learn_and_is_none_for_a_constant_truth(pair):
    prediction, truth = pair
    assume(np.ptp(truth) == 0 or truth.std() > 1e-3)
    if np.ptp(truth) == 0:
        assert r2(prediction, np.full(len(truth), 2.0)) is None
    else:
        assert r2(prediction, truth) == pytest.approx(metrics.r2_score(truth, prediction), abs=1e-6)


def brute_lag(prediction, truth, max_lag):
    """Lag by lag and step by step, with whole numbers so that ties are exact."""
    n, best = len(truth), None
    for lag in range(-max_lag, max_lag + 1):
        squares = [(prediction[t] - truth[t - lag]) ** 2 for t in range(n) if 0 <= t - lag < n]
        key = (sum(squares) / len(squares), abs(lag), -lag)
        best = min(best, (key, lag)) if best else (key, lag)
    assert best
    return best[1]


@settings(deadline=None)
@given(whole_pairs, st.integers(0, 20))
def test_best_lag_is_what_trying_every_lag_finds(pair, max_lag):
    prediction, truth = pair
    max_lag = min(max_lag, len(truth) // 2)
    assert best_lag(prediction, truth, max_lag) == brute_lag(prediction.tolist(), truth.tolist(), max_lag)


@pytest.mark.parametrize("lag", [-7, -1, 0, 3, 8])
def test_a_prediction_that_trails_has_a_positive_lag(lag):
    truth = np.random.default_rng(0).normal(size=200)
    assert best_lag(np.roll(truth, lag), truth, 10) == lag


def test_a_constant_signal_has_no_lag():
    assert best_lag(np.ones(50), np.full(50, 3.0), 10) == 0


def test_the_lag_curve_never_mixes_records():
    rng = np.random.default_rng(1)
    truths = [rng.normal(size=n) for n in (60, 90)]
    predictions = [np.concatenate([np.full(4, 9.0), truth[:-4]]) for truth in truths]
    curve = {row["lag"]: row["rmse"] for row in lag_curve(predictions, truths, 6)}
    assert curve[4] == 0
    assert curve[0] == pytest.approx(rmse(np.concatenate(predictions), np.concatenate(truths)))


@settings(deadline=None)
@given(records, st.floats(-1, 1), st.integers(1, 70))
def test_persistence_is_the_true_value_so_many_steps_ago_in_the_same_record(pairs, train_mean, steps):
    truths = [truth for _, truth in pairs]
    found = baselines(truths, train_mean, (steps,))
    name = "persistence" if steps == 1 else f"persistence_{steps}"
    assert list(found) == ["zero", "mean", name]
    for index, truth in enumerate(truths):
        expected = [truth[t - steps] if t >= steps else train_mean for t in range(len(truth))]
        np.testing.assert_array_equal(found[name][index], expected)
        np.testing.assert_array_equal(found["mean"][index], [train_mean] * len(truth))
        np.testing.assert_array_equal(found["zero"][index], [0] * len(truth))


@settings(deadline=None)
@given(pairs)
def test_curvature_bins_hold_every_step_once_and_add_up_to_the_whole(pair):
    prediction, truth = pair
    rows = by_size(prediction, truth, (0, 0.5, 2, 40, np.inf))
    assert sum(row["steps"] for row in rows) == len(truth)
    squares = sum(row["steps"] * row["rmse"] ** 2 for row in rows if row["steps"])
    assert np.sqrt(squares / len(truth)) == pytest.approx(rmse(prediction, truth), abs=1e-9)
    for row in rows:
        inside = [i for i, y in enumerate(truth) if row["from"] <= abs(y) < (row["to"] or np.inf)]
        assert row["steps"] == len(inside)
        assert row["mae"] is None or row["mae"] == pytest.approx(mae(prediction[inside], truth[inside]))


@settings(deadline=None)
@given(records, st.sampled_from([1.0, 5.0, 20.0]))
def test_worst_moments_are_apart_and_nothing_worse_is_left_out(pairs, rate_hz):
    predictions, truths = [p for p, _ in pairs], [t for _, t in pairs]
    names = [f"r{i}" for i in range(len(truths))]
    rows = worst_moments(predictions, truths, names, rate_hz, num_moments=5)
    sizes = [abs(row["error"]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(np.abs(p - t).max() for p, t in pairs)
    for row in rows:
        record = names.index(row["record"])
        assert row["error"] == predictions[record][row["step"]] - truths[record][row["step"]]
        near = [r for r in rows if r is not row and r["record"] == row["record"]]
        assert all(abs(row["time_s"] - other["time_s"]) >= 1 - 1e-9 for other in near)


@settings(deadline=None)
@given(records, st.floats(-1, 1))
def test_regression_scores_agree_with_scikit_learn_and_are_strict_json(pairs, train_mean):
    predictions, truths = [p for p, _ in pairs], [t for _, t in pairs]
    single_frame = [np.zeros(len(t)) + 0.5 for t in truths]
    scores = regression_scores(predictions, truths, train_mean, 20, {"single frame": single_frame})
    truth = np.concatenate(truths)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, np.concatenate(predictions)))
    assert scores["baselines"]["zero"]["rmse"] == pytest.approx(np.sqrt(np.mean(truth**2)))
    assert scores["baselines"]["mean"]["mae"] == pytest.approx(np.mean(np.abs(truth - train_mean)))
    assert scores["baselines"]["single frame"]["mae"] == pytest.approx(np.mean(np.abs(truth - 0.5)))
    assert [row["steps"] for row in scores["records"]] == [len(t) for t in truths]
    assert scores["steps"] == sum(row["steps"] for row in scores["by_size"])


def test_the_lag_is_told_in_seconds():
    truth = np.random.default_rng(0).normal(size=400)
    late = np.concatenate([np.zeros(6), truth[:-6]])
    scores = regression_scores([late, late], [truth, truth], 0.0, 20)
    assert (scores["best_lag_steps"], scores["best_lag_s"]) == (6, 0.3)
    assert [row["best_lag_s"] for row in scores["records"]] == [0.3, 0.3]


labelled = st.tuples(st.integers(2, 6), st.integers(1, 40)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape[::-1], elements=st.floats(-50, 50), unique=True),
        hnp.arrays(np.int64, shape[1], elements=st.integers(0, shape[0] - 1)),
        hnp.arrays(np.int64, shape[0], elements=st.integers(0, 99)),
    )
)


@settings(deadline=None)
@given(labelled)
def test_classification_scores_agree_with_scikit_learn(case):
    logits, labels, counts = case
    classes = list(range(logits.shape[1]))
    scores = classification_scores(logits, labels, counts)
    guesses = logits.argmax(1)
    exp = np.exp(logits - logits.max(1, keepdims=True))
    odds = np.clip(exp / exp.sum(1, keepdims=True), 1e-300, 1)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert scores["accuracy"] == accuracy(guesses, labels) == metrics.accuracy_score(labels, guesses)
    assert scores["confusion"] == metrics.confusion_matrix(labels, guesses, labels=classes).tolist()
    assert scores["nats"] == pytest.approx(-np.mean(np.log(odds[np.arange(len(labels)), labels])), abs=1e-6)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels,
        guesses,
        labels=classes,
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    for i, row in enumerate(scores["classes"]):
        assert row["items"] == np.asarray(support)[i]
        found = [row["precision"] or 0, row["recall"] or 0, row["f1"] or 0]
        assert found == pytest.approx([np.asarray(each)[i] for each in (precision, recall, f1)])


def test_class_baselines_come_from_the_training_data():
    scores = classification_scores(np.eye(3), np.array([0, 1, 2]), np.array([1, 7, 9]))
    odds = np.array([2, 8, 10]) / 20
    assert scores["baselines"]["majority"]["accuracy"] == pytest.approx(1 / 3)
    assert scores["baselines"]["majority"]["nats"] == pytest.approx(-np.log(odds).mean())
    assert scores["baselines"]["uniform"]["nats"] == pytest.approx(np.log(3))


def episode(seed, score, lap=True, off_road=()):
    places = [{"time_s": t, "x_m": 1.0, "y_m": 2.0} for t in off_road]
    return Episode(CarRacing(), seed, score, 700, lap, (0.4, 0.5, 0.9), {}, {"off_road": places})


@settings(deadline=None)
@given(st.lists(finite, min_size=2, max_size=30))
def test_driving_scores_agree_with_the_statistics_module(values):
    import statistics

    scores = driving_scores([episode(seed, value) for seed, value in enumerate(values)])
    assert scores["mean"] == pytest.approx(statistics.mean(values), abs=1e-6)
    assert scores["sd"] == pytest.approx(statistics.stdev(values), abs=1e-6)
    assert (scores["min"], scores["max"], scores["scores"]) == (min(values), max(values), values)


def test_driving_scores_count_laps_and_name_the_places_off_the_road():
    scores = driving_scores([episode(7, 900.0), episode(8, 300.0, lap=False, off_road=[3.5, 9.0])])
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert (scores["laps"], scores["seeds"], scores["steps"]) == (1, [7, 8], [700, 700])
    assert [(place["seed"], place["time_s"]) for place in scores["off_road"]] == [(8, 3.5), (8, 9.0)]
    assert scores["latency_ms"]["median"] == 0.5
    assert scores["latency_ms"]["p99"] == pytest.approx(0.9)
    assert driving_scores([episode(7, 900.0)])["sd"] is None


def read_angles(path):
    """Angles (radians at the wheel, left positive) and the public flag of a Challenge 2 file."""
    table = np.genfromtxt(path, delimiter=",", skip_header=1)
    return table[:, 1], table[:, -1] == 1


@pytest.mark.parametrize(
    ("team", "public", "private"),
    [("komanda", 0.0482910511682, 0.0512445872957), ("rambo", 0.0578777529417, 0.0559772239809)],
)
def test_published_udacity_scores_are_reproduced(shared_data, team, public, private):
    folder = shared_data("udacity_ch2_scores")
    truth, is_public = read_angles(folder / "CH2_final_evaluation.csv")
    angles, _ = read_angles(folder / "submissions" / f"{team}.csv")
    assert rmse(angles[is_public], truth[is_public]) == pytest.approx(public, abs=1e-9)
    assert rmse(angles[~is_public], truth[~is_public]) == pytest.approx(private, abs=1e-9)


def test_measured_udacity_baselines_are_reproduced(shared_data):
    truth, _ = read_angles(shared_data("udacity_ch2_scores") / "CH2_final_evaluation.csv")
    found = baselines([truth], 0.0, (1, 5, 10, 20))
    assert rmse(found["zero"][0], truth) == pytest.approx(0.20768, abs=1e-5)
    for steps, expected in ((5, 0.0469), (10, 0.0799), (20, 0.1351)):
        held = found[f"persistence_{steps}"][0]
        assert rmse(held[steps:], truth[steps:]) == pytest.approx(expected, abs=1e-4)
