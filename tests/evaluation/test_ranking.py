"""Scores of a ranking beside scikit-learn's."""

import numpy as np
import pytest

from steersman.evaluation.ranking import (
    auroc,
    auroc_interval,
    average_precision,
    best_threshold,
    blend_weight,
    brier,
    macro_auroc,
    min_se_ppv,
    ranking_curves,
    two_class_scores,
)


def drawn(seed: int, ties: bool, items: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(items) < 0.2
    said = 1 / (1 + np.exp(-rng.normal(positive * 1.0)))
    return (said.round(1) if ties else said), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_two_classes_are_those_of_scikit_learn(seed, ties):
    metrics = pytest.importorskip("sklearn.metrics")
    said, positive = drawn(seed, ties)
    found = two_class_scores(said, positive)
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(positive, said), abs=1e-12)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(positive, said), abs=1e-12)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(positive, said), abs=1e-12)
    precision, recall, _ = metrics.precision_recall_curve(positive, said)
    assert found["min_se_ppv"] == pytest.approx(np.minimum(precision, recall).max(), abs=1e-12)
    false_alarms, hits, _ = metrics.roc_curve(positive, said, drop_intermediate=False)
    curve = ranking_curves(said, positive)
    np.testing.assert_allclose([row["recall"] for row in curve], hits[1:])
    np.testing.assert_allclose([row["false_alarms"] for row in curve], false_alarms[1:])
    np.testing.assert_allclose([row["precision"] for row in curve[::-1]], precision[:-1])


@pytest.mark.parametrize("ties", [False, True])
def test_a_threshold_is_chosen_on_some_and_used_on_others(ties):
    metrics = pytest.importorskip("sklearn.metrics")
    said, positive = drawn(0, ties)
    others, truth = drawn(1, ties)
    threshold = best_threshold(said, positive)
    assert min_se_ppv(said, positive, threshold) == min_se_ppv(said, positive)
    called = others >= threshold
    wanted = min(metrics.recall_score(truth, called), metrics.precision_score(truth, called))
    assert min_se_ppv(others, truth, threshold) == pytest.approx(wanted)
    assert min_se_ppv(others, truth, 2.0) == 0


def test_the_mean_over_classes_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 300)
    said = np.eye(4)[labels] + rng.gumbel(size=(300, 4))
    said = np.exp(said) / np.exp(said).sum(1, keepdims=True)
    assert macro_auroc(said, labels) == pytest.approx(metrics.roc_auc_score(labels, said, multi_class="ovr"))
    assert macro_auroc(said[labels < 3], labels[labels < 3]) is not None  # A class that never occurs is left out.


def test_what_is_all_of_one_class_has_no_ranking():
    said, none, all_ = np.array([0.2, 0.8]), np.zeros(2, bool), np.ones(2, bool)
    assert auroc(said, none) is None
    assert auroc(said, all_) is None
    assert average_precision(said, none) is None
    assert min_se_ppv(said, none) is None
    assert brier(said, all_) == pytest.approx((0.64 + 0.04) / 2)
    assert macro_auroc(np.ones((2, 1)), np.zeros(2)) is None


def test_a_blend_takes_what_ranks_better():
    said, positive = drawn(0, ties=False)
    noise = np.random.default_rng(5).random(len(said))
    assert blend_weight(said, noise, positive) > 0.5
    assert blend_weight(noise, said, positive) < 0.5
    assert blend_weight(said, said, positive) == 0.5


def test_an_interval_holds_the_score_and_narrows_with_more_items():
    widths = []
    for items in (200, 2000):
        said, positive = drawn(0, False, items)
        low, high = auroc_interval(said, positive, 200)
        assert low < auroc(said, positive) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
