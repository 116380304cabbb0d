"""Recipes side by side: the same split for all, goes on where it was stopped, and says what it could not do."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small import small, write_log, write_text

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.experiments.compare import Comparison, chosen, markdown, steps_within
from steersman.recipes import RECIPES
from steersman.training.prepare import divide
from steersman.training.run import Run


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return str(write_log(tmp_path_factory.mktemp("log")))


def quick(name: str, log: str):
    recipe = small(name, (log,))
    return replace(recipe, training=replace(recipe.training, validate_every=2))


def test_patterns_name_recipes_and_bad_names_are_refused(log):
    found, records = chosen(["steer-f*", "steer", "steer-frame"], RECIPES, (log,))
    assert len({id(read) for read in records.values()}) == 1
    assert sorted(found) == ["steer", "steer-flow", "steer-frame"]
    with pytest.raises(UserError, match="did you mean 'steer-frame'"):
        chosen(["steer-frme"], RECIPES, (log,))
    with pytest.raises(UserError, match="steer by rmse, digits by accuracy"):
        chosen(["steer", "digits"], RECIPES, (log,))


def test_a_comparison_goes_on_where_it_was_stopped_and_has_one_split(log, tmp_path):
    recipes = {"steer": quick("steer", log), "steer-frame": quick("steer-frame", log)}
    recipes["steer-frame"] = replace(recipes["steer-frame"], split=replace(recipes["steer"].split, test=0.3))
    comparison, said = Comparison(recipes, (log,), tmp_path, seeds=2, steps=3), []
    first = comparison.go(said.append)
    assert len([line for line in said if "3 steps" in line]) == 4
    splits = {Run.open(folder).recipe.split for folder in tmp_path.iterdir() if folder.is_dir()}
    assert splits == {recipes["steer"].split}
    (tmp_path / "steer-frame-seed-1" / "metrics.json").unlink()
    said.clear()
    assert comparison.go(said.append) == first == json.loads((tmp_path / "compare.json").read_text())
    assert [line for line in said if "3 steps" in line] == ["steer-frame, seed 1: 3 steps"]
    row = first["recipes"]["steer"]
    assert row["mean"] == pytest.approx(np.mean(row["values"]))
    assert {"zero", "mean", "persistence", "ridge"} <= first["baselines"].keys()
    assert (tmp_path / "compare.md").read_text() == markdown(first)
    assert all(f"{value:.4f}" in markdown(first) for value in (*row["values"], *first["baselines"].values()))


def test_what_can_not_be_trained_is_told_and_the_others_are(log, tmp_path):
    bad = quick("steer", log)
    bad = replace(bad, encoder=replace(bad.encoder, kernels=(50, 3)))
    comparison = Comparison({"bad": bad, "good": quick("steer-frame", log)}, (log,), tmp_path, seeds=1, steps=2)
    found = comparison.go(lambda text: None)
    assert list(found["recipes"]) == ["good"]
    assert "too small" in found["failed"]["bad, seed 0"]
    assert "Not trained: bad, seed 0" in (tmp_path / "compare.md").read_text()


def test_more_minutes_are_more_steps(log):
    recipe = quick("steer", log)
    parts = divide(recipe, (log,))
    assert steps_within(recipe, parts, 1e-9) == 1
    assert steps_within(recipe, parts, 600) > 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("steer-nothing", "no recipe"),
        ("steer --seeds 0", "--seeds"),
        ("steer --steps 3 --minutes 1", "give one of the two"),
    ],
)
def test_bad_commands_exit_with_2(line, message, log, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", *line.split(), "--data", log])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_recipes_of_one_measure_are_compared_whatever_they_do(tmp_path, capsys):
    text = write_text(tmp_path / "a.txt", 3000)
    small = "--steps 3 --seeds 1"
    main(["compare", "chars", "bytes", *small.split(), "--data", str(text), "--folder", str(tmp_path / "texts")])
    table = capsys.readouterr().out
    assert "bits_per_byte, mean" in table
    assert {"chars", "bytes", "majority", "pairs"} <= {line.split()[0] for line in table.splitlines() if line}
    pairs = tmp_path / "a.tsv"
    pairs.write_text("".join(f"{a} {b}\t{b} {a}\n" for a in "abcdefghi" for b in "abcdefghi"))
    main(["compare", "translate", *small.split(), "--data", str(pairs), "--folder", str(tmp_path / "pairs")])
    assert "bleu, mean" in capsys.readouterr().out
