from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import Bars, fitted, records, small

from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.recipes.draw import task as drawing
from steersman.recipes.glance.task import NEAREST, nearest
from steersman.training.run import Run


def still(name: str, picture: np.ndarray, label: str = "a", part: str = "") -> Record:
    once = np.zeros(1)
    streams = {"picture": Stream(picture[None], once), "label": Stream(np.array([label], object), once)}
    return Record(name, streams, {"part": part} if part else {})


@pytest.fixture(scope="module", params=["glance", "draw"])
def run(request, tmp_path_factory):
    return fitted(request.param, tmp_path_factory.mktemp("run"))


def test_a_page_and_a_film_show_what_it_did(run, tmp_path, capsys):
    report_run(run, video=tmp_path / "film.gif")
    page = (run.folder / "report.html").read_text()
    assert 'class="film"' in page
    assert page.count("data:image/png;base64,") >= 3
    with Image.open(tmp_path / "film.gif") as film:
        assert film.is_animated
    with pytest.raises(UserError, match=r"film\.mp4: a film of a still picture is written as \.webp"):
        report_run(run, video=tmp_path / "film.mp4")


def test_the_command_draws_the_same_for_the_same_seed_and_refuses_other_runs(run, tmp_path, capsys):
    out = [str(tmp_path / f"{i}.webp") for i in range(3)]
    if run.name == "glance":
        with pytest.raises(SystemExit):
            main(["draw", str(run.folder)])
        assert "does not draw" in capsys.readouterr().err
        return
    for file, seed in zip(out, "001", strict=True):
        main(["draw", str(run.folder), "--out", file, "--number", "4", "--seed", seed])
    first, same, other = (Path(file).read_bytes() for file in out)
    assert first == same != other
    with Image.open(out[0]) as film:
        assert film.n_frames >= 2


def test_the_test_part_is_that_of_the_data_where_it_has_one():
    pictures = np.zeros((9, 11), np.uint8)
    found = [still(f"{part}-{i}", pictures, part=part) for part in ("train", "test") for i in range(20)]
    parts = small("draw").divide(found)
    assert {r.about["part"] for r in parts["test"]} == {"test"}
    assert len(parts["test"]) == 20
    assert len(parts["validation"]) == 3
    assert len(parts["train"]) == 17
    assert small("draw").divide(records(Bars()))["test"]


def test_a_picture_is_seen_at_every_step_and_kept_once():
    recipe, picture = small("glance"), np.arange(99, dtype=np.uint8).reshape(9, 11)
    seen = recipe.seen(still("a", picture, "lies"))
    values = seen["picture"].values
    assert values.shape == (12, 9, 11)
    assert values.strides[0] == 0
    np.testing.assert_array_equal(values[7], picture)
    assert seen["label"].values.tolist() == [0.0]
    film = replace(still("b", picture), streams={"picture": Stream(np.zeros((5, 9, 11), np.uint8), np.arange(5.0))})
    assert recipe.seen(film, answers=False)["picture"].values.shape == (5, 9, 11)
    colours = Record("c", {"picture": Stream(np.zeros((1, 9, 11, 3), np.uint8), np.zeros(1))})
    with pytest.raises(UserError, match="'c': expected grey pictures"):
        recipe.seen(colours, answers=False)


def test_classes_are_those_of_the_training_part():
    recipe, picture = replace(small("glance"), classes=()), np.zeros((9, 11), np.uint8)
    known = [still("a", picture, "yes"), still("b", picture, "no")]
    assert recipe.adapt({"train": known}).classes == ("no", "yes")
    with pytest.raises(UserError, match="nothing to tell apart"):
        recipe.adapt({"train": known[:1]})
    with pytest.raises(UserError, match="c is of class 'maybe'"):
        recipe.adapt({"train": known, "test": [still("c", picture, "maybe")]})


def test_pixels_are_white_with_the_chance_of_their_grey_the_same_every_time():
    recipe, grey = small("draw"), np.full((9, 11), 64, np.uint8)
    first = recipe.seen(still("a", grey))["picture"].values
    assert first.strides[0] == 0
    np.testing.assert_array_equal(first, recipe.seen(still("a", grey))["picture"].values)
    drawn = np.stack([recipe.seen(still(f"{i}", grey))["picture"].values[0] for i in range(200)])
    assert set(np.unique(drawn)) == {0, 255}
    assert (drawn > 0).mean() == pytest.approx(64 / 255, abs=0.01)
    binary = np.where(np.random.default_rng(0).random((9, 11)) < 0.5, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(recipe.seen(still("a", binary))["picture"].values[0], binary)


def test_the_rivals_of_drawing_say_what_their_formulas_do():
    rng = np.random.default_rng(0)
    known = (rng.random((40, 6)) < np.array([0.1, 0.9, 0.5, 0.5, 0.3, 0.7])).astype(np.float32)
    share = (known.sum(0) + 0.5) / 41
    by_hand = -np.mean([np.log(np.where(p > 0, share, 1 - share)).sum() for p in known[:7]])
    assert drawing.bernoulli(known, known[:7]) == pytest.approx(by_hand, rel=1e-5)
    # Two sorts of pictures that one row of shares can't tell apart.
    two = np.repeat([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], 50, 0).astype(np.float32)
    assert drawing.mixture(two, two) == pytest.approx(np.log(2), abs=0.15)
    assert drawing.bernoulli(two, two) == pytest.approx(6 * np.log(2), rel=1e-3)


def test_the_nearest_picture_is_that_of_least_difference():
    rng = np.random.default_rng(0)
    known, asked = (torch.from_numpy(rng.integers(0, 256, (n, 3, 4)).astype(np.uint8)) for n in (20, 5))
    labels = rng.integers(0, 3, 20)
    said = nearest(known, labels, asked, 3, neighbours=1)
    far = ((known[None].double() - asked[:, None].double()) ** 2).sum((2, 3))
    np.testing.assert_array_equal(said.argmax(1), labels[far.argmin(1)])
    np.testing.assert_allclose(said.sum(1), 1, rtol=1e-6)


def test_a_model_that_a_simple_rival_beats_says_so_first(run):
    if run.name == "glance":
        scores = report_run(run)
        summary = (run.folder / "report.html").read_text()
        assert (scores["baselines"][NEAREST]["accuracy"] > scores["accuracy"]) == ("<p>The nearest training" in summary)


def test_options_of_how_data_is_read_hold_for_data_that_is_named(tmp_path, monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    np.savez(tmp_path / "few.npz", x=pictures, y=np.arange(40) % 2)
    given = ["train", "glance", "--data", str(tmp_path / "few.npz"), "--source.canvas", "40", "--core.hidden", "8"]
    main([*given, "--training.steps", "2", "--run", str(tmp_path / "run")])
    assert Run.open(tmp_path / "run").raw == (40, 40)
