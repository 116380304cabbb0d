"""Records that a page shows, and the class that is looked for."""

from dataclasses import replace

import numpy as np
import pytest

from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.evaluation.examples import inputs_block, telling_examples
from steersman.evaluation.page import Pictures, Plot
from steersman.evaluation.tasks import Classify
from steersman.recipes import RECIPES
from steersman.recipes.series.recipes import classify
from steersman.sources.tables import table_record


def test_the_surest_right_and_wrong_and_the_least_sure_are_shown():
    said = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.01, 0.99], [0.55, 0.45], [0.2, 0.8]])
    labels = np.array([0, 1, 1, 1, 0, 0])
    assert telling_examples(said, labels) == [3, 0, 1, 5, 4]
    assert telling_examples(said[:1], labels[:1]) == [0]


def test_named_columns_are_lines_and_other_numbers_a_picture():
    columns = {"t_h": np.arange(5.0), "a": np.array([1.0, np.nan, 2, 3, 1]), "b": np.full(5, np.nan)}
    recipe = replace(classify([]), columns=("a", "b"), time="t_h", label=("label",), classes=("n", "y"))
    (record,) = recipe.transform_records([table_record("x", {**columns, "label": np.array(["y"] * 5, object)})])
    drawn = inputs_block(recipe, record, "x: said y.")
    assert isinstance(drawn, Plot)
    assert ">a<" in drawn.wide
    assert ">b<" not in drawn.wide  # Never measured.
    assert "time (hours)" in drawn.wide
    rows = Record("d", {"row": Stream(np.random.default_rng(0).random((8, 9)), np.arange(8.0))})
    digits = replace(RECIPES["digits"](()), inputs="row")
    shown = inputs_block(digits, rows, "d: said 3.")
    assert isinstance(shown, Pictures)
    assert shown.pictures[0].shape == (9 * 17, 8 * 20, 3)


@pytest.mark.parametrize(
    ("task", "counts", "place"),
    [(Classify(), (9, 3), 1), (Classify(), (3, 9), 0), (Classify(), (5, 5), 1), (Classify("no"), (9, 3), 0)],
)
def test_the_rarer_of_two_classes_is_looked_for_or_the_one_that_is_named(task, counts, place):
    assert task._positive(["no", "yes"], np.array(counts)) == place


def test_of_more_than_two_none_is_looked_for_and_one_must_be_there():
    assert Classify()._positive(["a", "b", "c"], np.ones(3)) is None
    with pytest.raises(UserError, match="there is no class 'yess'; did you mean 'yes'"):
        Classify("yess")._positive(["no", "yes"], np.ones(2))
