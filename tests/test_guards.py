"""What would go wrong in silence is refused in words."""

import multiprocessing
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest

import steersman as sm
from steersman.config import Spec
from steersman.data.cache import cache_folder
from steersman.data.records import Record, Stream
from steersman.data.splits import Split
from steersman.errors import UserError
from steersman.files import locked
from steersman.recipes import RECIPES
from steersman.sources.source import SourceSpec
from steersman.training.fit import fit
from steersman.training.prepare import faults
from steersman.worlds import CarRacing


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((96, 96, 3), np.uint8),  # the stock picture, whose lower rows tell the answer
        np.zeros((84, 96, 3), np.float32),
        np.zeros((84, 96), np.uint8),
        np.zeros((1, 84, 96, 3), np.uint8),
    ],
)
def test_a_step_of_another_kind_than_trained_on_is_refused(frame):
    with pytest.raises(UserError, match=r"takes steps of shape \(84, 96, 3\) uint8"):
        sm.load("steer").step(frame)


def test_a_mirrored_view_is_a_picture_like_any_other():
    model, picture = sm.load("steer"), np.random.default_rng(0).integers(0, 255, (84, 96, 3), np.uint8)
    assert model.step(picture[:, ::-1])[0] == model.step(picture[:, ::-1].copy())[0]


def test_a_spec_may_not_take_a_name_that_is_taken():
    with pytest.raises(UserError, match=r"GRU is the name of a spec in steersman\.nn\.cores"):

        @dataclass(frozen=True)
        class GRU(Spec):
            pass


@pytest.mark.parametrize("options", [{"blackouts": 1.0}, {"blackouts": -0.1}, {"max_steps": 0}])
def test_a_world_out_of_bounds_is_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        CarRacing(**options)


@pytest.mark.parametrize("by", ["record", "time"])
@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.0), (0.5, 0.5)])
def test_a_split_that_leaves_a_part_empty_is_refused(by, validation, test):
    clock = np.arange(50) / 10
    records = [Record(str(i), {"x": Stream(clock, clock)}) for i in range(9)]
    with pytest.raises(UserError, match="above 0"):
        Split(by=by, validation=validation, test=test).divide(records)


@pytest.mark.parametrize("by", ["record", "time"])
def test_nothing_need_be_kept_for_validation(by):
    clock = np.arange(50) / 10
    records = [Record(str(i), {"x": Stream(clock, clock)}) for i in range(9)]
    parts = Split(by=by, validation=0.0, test=0.2, gap_s=0.0).divide(records)
    assert not parts["validation"]
    assert sum(map(len, parts["train"])) + sum(map(len, parts["test"])) == 450


def test_left_out_frames_are_told_once_a_log():
    clock, about = np.arange(3.0), {"num_faults": 2, "faults": ["1.jpg: missing", "2.jpg: cut short"]}
    records = [Record(f"tub/{i}", {"x": Stream(clock, clock)}, about) for i in range(3)]
    assert faults(records) == ["tub/0: 2 frames left out, the first: 1.jpg: missing"]
    assert faults([replace(records[0], about={})]) == []


def test_a_user_without_a_home_still_has_a_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert cache_folder().name == "steersman"


def test_a_folder_is_worked_in_by_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    with locked(tmp_path):
        other = context.Process(target=_leave_a_mark, args=(tmp_path,))
        other.start()
        time.sleep(0.3)
        assert not (tmp_path / "mark").exists()
    other.join(60)
    assert (tmp_path / "mark").exists()


def _leave_a_mark(folder):
    with locked(folder):
        (folder / "mark").touch()


@dataclass(frozen=True)
class Ramp(SourceSpec):
    """Sequences of plain numbers, whose answer is their mean: many to one, with a number for an answer."""

    def read(self, watch=None):
        rng, clock = np.random.default_rng(0), np.arange(6.0)
        rows = rng.normal(size=(12, 6)).astype(np.float32)
        return [
            Record(f"r{i}", {"x": Stream(row, clock), "mean": Stream(row.mean(keepdims=True), clock[:1])})
            for i, row in enumerate(rows)
        ]


def test_plain_numbers_in_and_one_number_out_are_trained_and_scored(tmp_path):
    from steersman.evaluation.report import report_run

    recipe = RECIPES["echo"]([])
    recipe = replace(
        recipe,
        source=Ramp(),
        flavour="many-to-one",
        head=replace(recipe.head, targets=("mean",)),
        training=replace(recipe.training, steps=5, validate_every=5),
    )
    scores = report_run(fit("ramp", recipe, str(tmp_path / "run")))
    assert scores["target"] == "mean"
    assert scores["steps"] == 2  # one answer for each of the two records held out
