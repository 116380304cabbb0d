import json
from dataclasses import replace

import numpy as np
import pytest

from steersman.data.augment import Light, Shift
from steersman.data.records import Stream
from steersman.errors import UserError
from steersman.evaluation.outcome import score_table
from steersman.evaluation.page import write_report
from steersman.evaluation.report import report_run
from steersman.nn.heads import Classification
from steersman.recipes import RECIPES
from steersman.sources.synthetic import Echo
from steersman.training.fit import fit
from steersman.training.material import Material
from steersman.training.task import task_of
from steersman.worlds import CarRacing
from steersman.worlds.report import film, report_drives
from steersman.worlds.rollout import drive, drives
from steersman.worlds.scores import drive_table, driving_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = RECIPES["echo"]([])
    training = replace(recipe.training, steps=30, validate_every=10)
    recipe = replace(recipe, source=Echo(records=8, steps=30), training=training)
    return fit("echo", recipe, tmp_path_factory.mktemp("runs") / "echo")


def test_a_run_is_scored_beside_another_and_written_where_told(run, tmp_path):
    scores = report_run(run, beside=[run], folder=tmp_path / "told")
    assert json.loads((tmp_path / "told" / "metrics.json").read_text())["rmse"] == scores["rmse"]
    assert scores["baselines"]["echo (echo)"]["rmse"] == pytest.approx(scores["rmse"])
    assert "echo" in (tmp_path / "told" / "report.html").read_text()
    assert scores["baselines"]["ridge"]["rmse"] > 0
    assert score_table(scores).row_count == 1 + len(scores["baselines"])


def test_a_run_of_another_target_does_not_stand_beside(run, tmp_path):
    recipe = replace(run.recipe, head=replace(run.recipe.head, targets=("x0",)))
    other = replace(run, recipe=recipe)
    with pytest.raises(UserError, match="predicts x0, not y"):
        report_run(run, beside=[other], folder=tmp_path)


def test_only_runs_that_answer_the_same_question_stand_beside_each_other(run, tmp_path):
    def asked(**changes):
        return replace(run, recipe=replace(run.recipe, task=None, **changes))

    classes = asked(head=Classification(("y",), 4))
    others = asked(head=Classification(("x0",), 4))
    with pytest.raises(UserError, match="is scored by accuracy, this run by rmse"):
        report_run(run, beside=[classes], folder=tmp_path)
    with pytest.raises(UserError, match="sees other steps of these records"):
        report_run(run, beside=[asked(flavour="many-to-one")], folder=tmp_path)
    for other, said in (
        (run, "is scored by rmse, this run by accuracy"),
        (others, "tells x0 at every step, this run y at every step"),
        (asked(head=Classification(("y",), 4), flavour="many-to-one"), "tells y once a record, this run y at every"),
    ):
        with pytest.raises(UserError, match=said):
            report_run(classes, beside=[other], folder=tmp_path)


def test_a_drive_is_filmed_reported_and_the_same_every_time(tmp_path):
    world = CarRacing(max_steps=12)
    trace, picture = film(world, "expert", 5, tmp_path / "drive.mp4")
    np.testing.assert_array_equal(trace.prediction, trace.truth)  # the expert agrees with itself
    assert len(trace.time_s) == 12
    assert picture is None
    assert (tmp_path / "drive.mp4").stat().st_size > 0
    episodes = list(drives(world, "expert", [5, 6]))
    assert replace(drive(world, "expert", 5), latency_ms=()) == replace(episodes[0], latency_ms=())
    write_report(tmp_path / "drive.html", report_drives("drives", {"expert": episodes}, (trace, picture)))
    assert "track 5" in (tmp_path / "drive.html").read_text()
    assert drive_table({"expert": driving_scores(episodes)}, world.words).row_count == 1


def test_light_changes_pictures_and_never_answers():
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    y = np.ones((1, 1), np.float32)
    seen = [Light().apply(x, y, ("steer",), np.random.default_rng(seed)) for seed in range(20)]
    assert all(y2 is y and x2.dtype == np.uint8 for x2, y2 in seen)
    assert len({x2.tobytes() for x2, _ in seen}) == 20
    assert all((np.diff(x2.ravel().astype(int)) >= 0).all() for x2, _ in seen), "brighter stays brighter"


def test_shift_moves_all_pictures_of_a_stretch_alike_and_repeats_the_edge():
    x = np.random.default_rng(0).integers(0, 256, (3, 8, 10, 2), np.uint8)
    y = np.ones((3, 1), np.float32)
    places = set()
    for seed in range(40):
        moved, same = Shift(2).apply(x, y, ("steer",), np.random.default_rng(seed))
        assert same is y
        framed = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        fits = [(i, j) for i in range(5) for j in range(5) if np.array_equal(framed[:, i : i + 8, j : j + 10], moved)]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 15


def test_worst_moments_are_told_by_the_clock_of_the_record(run, tmp_path):
    def uneven(record):
        clock = np.cumsum(np.random.default_rng(0).uniform(0.05, 0.5, len(record["x"])))
        return replace(record, streams={name: Stream(s.values, clock) for name, s in record.streams.items()})

    told = Material(run, [uneven(record) for record in run.records()["test"]], "uneven", None)
    scores = task_of(run.recipe).evaluate(run, told, ()).scores
    clocks = {record.name: record["x"].time_s for record in told.test}
    for row in scores["worst"]:
        clock = clocks[row["record"]]
        assert row["time_s"] == pytest.approx(clock[row["step"]] - clock[0])
