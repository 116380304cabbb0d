"""Records of patients: learned, ranked, averaged, explained."""

import json
from dataclasses import replace

import numpy as np
import pytest

from steersman.__main__ import main
from steersman.data.augment import Unmeasured
from steersman.data.splits import Split
from steersman.errors import UserError
from steersman.evaluation.predict import class_chances, predict
from steersman.evaluation.report import report_run
from steersman.evaluation.together import together
from steersman.explain.saliency import attributed, window
from steersman.explain.samples import open_sample
from steersman.nn.cores import GRU, Pooled
from steersman.recipes.diagnose.recipes import diagnose
from steersman.recipes.series.recipes import classify
from steersman.recipes.series.summaries import SUMMARIES, summaries
from steersman.sources.synthetic import Patients
from steersman.sources.tables import table_record
from steersman.training.fit import fit


def quick(seed: int = 0, **changes):
    recipe = replace(diagnose(), source=Patients(series=60), core=Pooled(GRU(8)), **changes)
    training = replace(recipe.training, steps=8, warmup=1, validate_every=8, learning_rate=1e-2, seed=seed)
    return replace(recipe, training=training)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [fit("diagnose", quick(seed), folder / str(seed), say=lambda _: None) for seed in range(2)]


def test_patients_are_ranked_beside_classifiers_of_summaries(runs, tmp_path):
    metrics = pytest.importorskip("sklearn.metrics")
    scores = report_run(runs[0], folder=tmp_path, beside=[runs[1]])
    test = runs[0].records()["test"]
    died = np.array([record["outcome"].values[0] == "died" for record in test])
    said = class_chances(runs[0], test)[:, runs[0].steps.head.names.index("died")]
    assert scores["measure"] == "auroc"
    assert scores["positive"] == "died"
    assert scores["auroc"] == pytest.approx(metrics.roc_auc_score(died, said))
    assert scores["brier"] == pytest.approx(metrics.brier_score_loss(died, said))
    assert scores["baselines"]["majority"]["auroc"] == 0.5
    assert {"boosting on summaries", "logistic regression on summaries", "diagnose (1)"} < set(scores["baselines"])
    page = (tmp_path / "report.html").read_text()
    for said in ("Finding died", "false alarms (%)", "What is taken for what", "Examples", "Lactate"):
        assert said in page


def test_runs_together_say_the_mean_of_their_probabilities(runs, tmp_path, capsys):
    test = runs[0].records()["test"]
    both = together(runs[0], runs[1:])
    wanted = np.mean([class_chances(run, test) for run in runs], 0)
    np.testing.assert_allclose(class_chances(both, test), wanted, atol=1e-6)
    main(["evaluate", str(runs[0].folder), "--with", str(runs[1].folder), "--out", str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    names = runs[0].steps.head.names
    died = np.array([record["outcome"].values[0] == "died" for record in test])
    assert found["brier"] == pytest.approx(np.mean(np.square(wanted[:, names.index("died")] - died)), abs=1e-6)


def test_only_runs_of_the_same_question_answer_together(runs, tmp_path):
    other = fit("diagnose", quick(leave_out=("GCS",)), tmp_path / "other", say=lambda _: None)
    with pytest.raises(UserError, match="its leave_out, columns differ"):
        together(runs[0], [other])
    divided = replace(runs[1], recipe=replace(runs[1].recipe, split=Split(seed=5)))
    with pytest.raises(UserError, match=r"may have learned what .* is tested on; give other records with --data"):
        together(runs[0], [divided], on_own=True)
    assert together(runs[0], [divided])


def test_what_a_summary_says_is_what_was_measured():
    columns = {"time_h": np.array([1.0, 2, 4]), "a": np.array([np.nan, 3.0, 7.0]), "b": np.full(3, np.nan)}
    record = table_record("x", {**columns, "age": np.full(3, 50.0), "label": np.array(["y"] * 3, object)})
    recipe = replace(classify([1]), static=("age",), columns=("a", "b", "age"), time="time_h", classes=("n", "y"))
    (x,) = summaries(recipe, recipe.transform_records([record]))
    assert len(x) == 2 * len(SUMMARIES) + 1
    np.testing.assert_allclose(x[: len(SUMMARIES)], [7, 3, 3, 7, 5, 2, 2, 2, 0])
    assert np.isnan(x[len(SUMMARIES)])
    assert x[len(SUMMARIES) + 6] == 0
    assert x[-1] == 50


def test_rows_are_joined_into_steps():
    columns = {"time_h": np.array([0.1, 0.4, 0.9, 3.5]), "a": np.array([1.0, np.nan, 3.0, 5.0])}
    record = table_record("x", {**columns, "sex": np.array(["f"] * 4, object), "age": np.full(4, 1 / 3)})
    recipe = replace(diagnose([record]), static=("age",), label=("sex",))
    (joined,) = recipe.transform_records([record])
    np.testing.assert_allclose(joined["a"].time_s, [3600, 4 * 3600])
    np.testing.assert_allclose(joined["a"].values, [2, 5])
    assert set(joined["age"].values) == {1 / 3}
    assert list(joined["sex"].values) == ["f", "f"]
    (kept,) = replace(recipe, every_s=0.0).transform_records([record])
    assert len(kept) == 4


def test_of_what_is_skewed_the_logarithm_is_seen():
    record = table_record(
        "x", {"t_h": np.arange(3.0), "a": np.array([0.0, 9, -9]), "label": np.array(["y"] * 3, object)}
    )
    recipe = replace(classify([1]), columns=("a",), logs=("a",), time="t_h", classes=("n", "y"))
    (joined,) = recipe.transform_records([record])
    seen = recipe.seen(joined, answers=False)["values"].values[:, 0]
    np.testing.assert_allclose(seen, np.log(10) * np.array([0, 1, -1]), rtol=1e-6)
    assert recipe.numbers("values") == ["log a"]


def test_a_number_that_is_taken_away_is_missing_throughout():
    x = np.arange(40, dtype=np.float32).reshape(4, 10)
    seen, _ = Unmeasured(0.5).apply(x, x, ("y",), np.random.default_rng(0))
    missing = np.isnan(seen)
    assert 0 < missing[0].sum() < 10
    assert (missing == missing[0]).all()
    np.testing.assert_array_equal(seen[~missing], x[~missing])


def test_what_spoke_is_told_by_column_and_hour(runs, tmp_path, capsys):
    sample = open_sample(runs[0], 0, columns=True)
    part = window(sample, len(sample.example) - 1, 400)
    found, _ = attributed(part)
    names = [name for names in sample.columns.values() for name in names]
    assert found.values.shape == (len(sample.example), len(names))
    assert {"HR", "GCS", "age_years", "sex: male"} < set(names)
    assert found.values.sum() == pytest.approx(found.prediction - found.plain, rel=0.02, abs=1e-4)
    said = class_chances(runs[0], [sample.record])[0]
    rarer = int(sample.model.head.counts.argmin())
    assert found.prediction == pytest.approx(np.log(said[rarer] / said[1 - rarer]), abs=1e-4)
    recipe = runs[0].recipe
    commoner = replace(recipe.task, positive=sample.model.head.names()[1 - rarer])
    other = open_sample(replace(runs[0], recipe=replace(recipe, task=commoner)), 0, columns=True)
    turned = window(other, len(other.example) - 1, 400)
    assert float(turned.function(turned.x[None])[0]) == pytest.approx(-found.prediction, abs=1e-4)
    missing = np.isnan(sample.example.x.streams["values"])
    assert (found.values[:, : missing.shape[1]][missing] == 0).all()
    main(["explain", str(runs[0].folder), "--saliency", "--out", str(tmp_path)])
    assert (tmp_path / "saliency.png").exists()
    with pytest.raises(UserError, match="which are not drawn; of named columns: --saliency"):
        open_sample(runs[0], 0)


def test_an_outcome_need_not_be_known_to_be_predicted(runs, tmp_path):
    (tmp_path / "new.csv").write_text(
        "time_h,HR,MAP,Lactate,GCS,Urine,age_years,sex\n" + "".join(f"{h},90,70,,10,,80,male\n" for h in range(5))
    )
    found = predict(runs[0], [str(tmp_path / "new.csv")])
    assert found["p(died)"][0] + found["p(survived)"][0] == pytest.approx(1)
