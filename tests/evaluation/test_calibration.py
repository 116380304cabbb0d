"""Scores of distributions and of probabilities, and the pages of heads that give them."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from small import small

from steersman.data.records import Record, Stream
from steersman.evaluation.calibration import (
    calibration_error,
    covered,
    distribution_scores,
    normal_scores,
    pit_shares,
    reliability,
)
from steersman.evaluation.labels import multi_label_scores
from steersman.evaluation.outcome import score_table
from steersman.evaluation.report import report_run
from steersman.nn.heads import Counts, Gaussian, MixtureDensity, MultiLabel, Quantiles, Regression, StudentT
from steersman.sources.source import SourceSpec
from steersman.training.fit import fit


def test_the_transforms_of_what_is_right_are_level_and_its_bands_hold_what_they_should():
    pit = np.random.default_rng(0).random(20_000)
    scores = distribution_scores(pit, pit, pit, pit)
    np.testing.assert_allclose(scores["pit"], 0.05, atol=0.01)
    for row in scores["coverage"]:
        assert row["covered"] == pytest.approx(row["band"], abs=0.02)


def test_the_transforms_of_what_is_too_sure_lie_at_the_ends():
    rng = np.random.default_rng(0)
    pit = stats.norm.cdf(rng.normal(0, 2, 5000))
    shares = pit_shares(pit, pit)
    assert shares[0] > 0.1 < shares[-1]
    assert shares.sum() == pytest.approx(1)
    assert covered(pit, pit, 0.8) < 0.6


def test_counts_are_spread_over_their_steps():
    law = stats.nbinom(1.5, 0.3)
    y = law.rvs(20_000, random_state=0)
    np.testing.assert_allclose(pit_shares(law.cdf(y - 1), law.cdf(y)), 0.05, atol=0.008)
    low, high = law.ppf([0.1, 0.9])
    assert covered(law.cdf(y - 1), law.cdf(y), 0.8) == np.mean((y >= low) & (y <= high))


def test_the_means_normal_distribution_scores_as_a_gaussian_head_that_knows_nothing():
    y = np.random.default_rng(0).normal(3, 2, 400)
    head = Gaussian().build(1).double()
    head.fit(y[:, None])
    raw, truth = torch.zeros(400, 2, dtype=torch.float64), torch.from_numpy(y[:, None])
    found = normal_scores(y, np.full(400, y.mean()), np.full(400, y.std()))
    assert found["crps"] == pytest.approx(head.crps(raw, truth).mean().item(), abs=1e-6)
    assert found["nll"] == pytest.approx(-head.log_prob(raw, truth).mean().item(), abs=1e-6)


def test_probabilities_that_are_right_have_no_calibration_error():
    rng = np.random.default_rng(0)
    said = rng.random(50_000)
    was = rng.random(50_000) < said
    rows = reliability(said, was)
    assert sum(row["items"] for row in rows) == 50_000
    assert calibration_error(rows) < 0.01
    assert calibration_error(reliability(np.full(100, 0.9), np.arange(100) < 60)) == pytest.approx(0.3)
    assert reliability(np.array([1.0, 0.0]), np.array([1, 0]))[-1]["items"] == 1


def test_scores_of_several_labels_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels, said = (rng.random((300, 3)) < (0.2, 0.5, 0.9)).astype(float), rng.random((300, 3))
    scores = multi_label_scores(said, labels, np.array([[8, 5, 1], [2, 5, 9]]), ["a", "b", "c"])
    assert scores["f1"] == pytest.approx(metrics.f1_score(labels, said > 0.5, average="macro"))
    assert scores["accuracy"] == pytest.approx(np.mean((said > 0.5) == labels))
    nats = [metrics.log_loss(labels[:, i], said[:, i]) for i in range(3)]
    assert scores["nats"] == pytest.approx(np.mean(nats))
    assert scores["baselines"]["frequencies"]["accuracy"] == pytest.approx(
        np.mean([np.mean(labels[:, i] == yes) for i, yes in enumerate((0, 0, 1))])
    )


@dataclass(frozen=True)
class Drawn(SourceSpec):
    """Records whose target is drawn about what the input says."""

    kind: str

    def read(self, watch=None):
        rng = np.random.default_rng(0)
        return [self.record(rng, f"r{number}") for number in range(10)]

    def record(self, rng: np.random.Generator, name: str) -> Record:
        x = rng.normal(size=(25, 2)).astype(np.float32)
        y = x[:, 0] + 0.3 * rng.normal(size=25)
        if self.kind == "counts":
            y = rng.poisson(np.exp(1 + x[:, 0]))
        if self.kind == "labels":
            y = x + 0.5 * rng.normal(size=x.shape) > 0
        if self.kind == "pen":
            y = np.column_stack([x + 0.2 * rng.normal(size=x.shape), x[:, 0] > 1])
        time_s = np.arange(25) / 10
        return Record(name, {"x": Stream(x, time_s), "y": Stream(y.astype(np.float32), time_s)})


def trained(head, kind: str, folder, **changes):
    recipe = small("echo")
    training = replace(recipe.training, steps=60, warmup=5, validate_every=30)
    recipe = replace(recipe, source=Drawn(kind), head=head, task=None, training=training, **changes)
    return fit("echo", recipe, folder / "run", say=lambda text: None)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("", Gaussian()),
        ("", StudentT()),
        ("", Quantiles()),
        ("", MixtureDensity(components=2)),
        ("pen", MixtureDensity(components=2, covariance="full", end=True)),
        ("counts", Counts()),
    ],
    ids=["gaussian", "student", "quantiles", "mixture", "pen", "counts"],
)
def test_a_run_that_says_how_sure_it_is_is_scored_by_it_and_its_page_says_so(kind, head, tmp_path):
    run = trained(head, kind, tmp_path)
    scores = report_run(run, beside=[run])
    assert (scores["task"], scores["measure"], scores["columns"]) == (
        "Estimate",
        "rmse",
        ["rmse", "mae", "crps", "nll"],
    )
    assert scores["value"] < 0.9 * scores["baselines"]["mean"]["rmse"]
    assert scores["crps"] < scores["baselines"]["mean"]["crps"] < scores["baselines"]["mean"]["mae"]
    assert scores["crps"] < scores["mae"]
    assert scores["nll"] < 2 * abs(scores["baselines"]["mean"]["nll"])
    assert scores["baselines"]["zero"]["crps"] == scores["baselines"]["zero"]["mae"]
    assert [row["band"] for row in scores["coverage"]] == [0.5, 0.8, 0.95]
    assert 0.5 < scores["coverage"][1]["covered"] <= 1
    widths = [row["width"] for row in scores["coverage"]]
    assert 0 < widths[0] < widths[1] < widths[2]
    assert sum(scores["pit"]) == pytest.approx(1)
    assert score_table(scores).row_count == 1 + len(scores["baselines"])
    html = (run.folder / "report.html").read_text()
    for said in ("How sure it is", "CRPS", "its 80 % band", "share of its distribution"):
        assert said in html
    model, shown = run.model(), run.recipe.examples(run.model(), run.records()["test"])
    record, raw = run.records()["test"][0], model.answers(shown[:1])[0]
    said = run.steps.said(model, record, shown[0], raw)
    assert [*said][: len(model.head.targets)] == [*model.head.targets]
    low, high = (said[f"{model.head.targets[0]} {level}"] for level in ("10%", "90%"))
    assert (low <= high).all()
    with torch.no_grad():
        raws = [raw.double() for raw in model.answers(shown)]
        crps = torch.cat([model.head.crps(r, torch.from_numpy(e.y).double()) for r, e in zip(raws, shown, strict=True)])
    assert scores["crps"] == pytest.approx(crps.mean().item(), rel=1e-6)


def test_one_answer_a_record_may_be_a_distribution_too(tmp_path):
    scores = report_run(trained(Gaussian(), "", tmp_path, flavour="many-to-one"))
    assert scores["once"]
    assert scores["crps"] > 0


def test_several_labels_are_scored_and_told_by_name(tmp_path):
    run = trained(MultiLabel(("y",), names=("cough", "fever"), weights="balanced"), "labels", tmp_path)
    scores = report_run(run, beside=[run])
    assert (scores["task"], scores["value"]) == ("ClassifyMultiLabel", scores["nats"])
    assert scores["nats"] < 0.9 * scores["baselines"]["frequencies"]["nats"]
    assert [row["name"] for row in scores["classes"]] == ["cough", "fever"]
    assert set(run.model().step(np.zeros(2, np.float32))[0]) == {"cough", "fever"}
    html = (run.folder / "report.html").read_text()
    assert "How sure it is" in html
    assert "fever" in html


def test_a_run_of_plain_numbers_is_scored_as_before(tmp_path):
    scores = report_run(trained(Regression(), "", tmp_path))
    assert scores["columns"] == ["rmse", "mae"]
    assert "coverage" not in scores
