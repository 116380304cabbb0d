"""Order books: files of LOBSTER and of FI-2010, the recipe of their events, and its scores."""

import lzma
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.nn.cores import GRU
from steersman.recipes.market.recipes import ticks
from steersman.recipes.market.ticks import f1_scores
from steersman.sources.order_books import FI_ROWS, OrderBooks, fi_2010, read
from steersman.training.fit import fit


def pair(folder: Path, packed: bool = False) -> Path:
    """Four events, two of them at one moment."""
    message = (
        "34200.1,1,7,100,2238100,1\n34200.2,4,7,21,2238100,-1\n34200.2,4,8,9,2238200,-1\n34201.5,3,9,5,2238300,1\n"
    )
    book = "2239500,100,2231800,100\n2239500,80,2238100,21\n2239600,70,2238100,21\n2239700;60;2238100;20\n".replace(
        ";", ","
    )
    for kind, text in (("message", message), ("orderbook", book)):
        path = folder / f"AMZN_2012-06-21_{kind}_1.csv{'.xz' if packed else ''}"
        path.write_bytes(lzma.compress(text.encode()) if packed else text.encode())
    return folder / f"AMZN_2012-06-21_message_1.csv{'.xz' if packed else ''}"


@pytest.mark.parametrize("packed", [False, True])
def test_a_pair_of_lobsters_is_one_record_and_of_one_moment_the_last_event_counts(tmp_path, packed):
    message = pair(tmp_path, packed)
    for path in (message, message.with_name(message.name.replace("message", "orderbook")), tmp_path):
        (record,) = read(path)
        np.testing.assert_array_equal(record["ask_1"].time_s, [34200.1, 34200.2, 34201.5])
        np.testing.assert_allclose(record["ask_1"].values, [223.95, 223.96, 223.97])
        np.testing.assert_array_equal(record["bid_size_1"].values, [100, 21, 20])
        np.testing.assert_array_equal(record["sign"].values, [1, -1, 1])


def fi_file(path: Path, events: int = 120) -> np.ndarray:
    """A file as FI-2010's: features and answers by row, events by column."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(FI_ROWS, events)).round(6)
    values[-5:] = rng.integers(1, 4, (5, events))
    np.savetxt(path, values, fmt="%.7e", delimiter="   ")
    return values


def test_a_file_of_fi_2010_holds_ten_levels_and_its_own_answers(tmp_path):
    values = fi_file(tmp_path / "Train_Dst_NoAuction_ZScore_CF_1.txt")
    record = fi_2010(tmp_path / "Train_Dst_NoAuction_ZScore_CF_1.txt")
    np.testing.assert_allclose(record["ask_1"].values, values[0])
    np.testing.assert_allclose(record["bid_size_10"].values, values[39])
    words = np.array(["", "up", "flat", "down"])[values[-4].astype(int)]
    assert record["label_20"].values.tolist() == words.tolist()
    recipe = ticks([record])
    parts = recipe.divide(recipe.transform_records([record]))
    adapted = recipe.adapt(parts)
    seen = adapted.seen(parts["train"][0])
    place = np.array([0, 2, 1, 0])[values[-4].astype(int)]
    np.testing.assert_array_equal(seen["direction"].values, place[: len(seen)])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.txt", "1 2\n3 4\n", "has 2 rows; one of FI-2010 has 149"),
        ("x.txt", "1 2\n3 a\n", "can't be read: could not convert"),
        ("x_message_1.csv", "1,2\n", "there is no .*x_orderbook_1.csv"),
        ("nothing", "", "there is no"),
    ],
)
def test_what_is_no_order_book_is_refused(tmp_path, name, text, said):
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        read(tmp_path / name)


def test_answers_and_inputs_are_those_of_their_formulas_and_see_nothing_that_comes():
    (whole,) = OrderBooks(series=1, events=300).read()
    recipe = replace(ticks([whole]), events=3)
    (record,) = recipe.transform_records([whole])
    adapted = recipe.adapt(recipe.divide([record]))
    middle = (np.asarray(whole["ask_1"].values) + np.asarray(whole["bid_1"].values)) / 2
    change = middle[11:14].mean() / middle[10] - 1
    assert recipe.change(record)[10] == pytest.approx(change)
    assert np.isnan(recipe.change(record)[-3:]).all()
    assert not np.isnan(recipe.change(record)[-4])
    answer = adapted.answers_of(record)[10]
    assert answer == 1 + (change > adapted.flat) - (change < -adapted.flat)
    np.testing.assert_allclose(np.asarray(record["change_5"].values)[5:], middle[5:] - middle[:-5])
    later = replace(
        whole, streams={n: replace(s, values=np.asarray(s.values).copy()) for n, s in whole.streams.items()}
    )
    for stream in later.streams.values():
        stream.values[200:] *= 1.5
    (changed,) = recipe.transform_records([later])
    np.testing.assert_array_equal(
        adapted.seen(changed)["values"].values[:200], adapted.seen(record)["values"].values[:200]
    )


def test_macro_f1_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 3, (2, 200))
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (truth, said), 1)
    found = f1_scores(counts)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    assert found["accuracy"] == pytest.approx((truth == said).mean())


def test_a_page_tells_of_events(tmp_path):
    recipe = replace(ticks(), source=OrderBooks(series=1, events=300), core=GRU(4), context=20, events=5)
    recipe = replace(recipe, training=replace(recipe.training, steps=3))
    scores = report_run(fit("ticks", recipe, tmp_path, say=lambda text: None))
    assert scores["items"] == 55  # The last fifth, less those whose next five are not known.
    assert "macro-F1" in (tmp_path / "report.html").read_text()


def test_a_real_day_is_read(shared_data):
    (record,) = read(shared_data("lobster_amzn_l1"))
    assert len(record) > 40_000
    assert (np.asarray(record["ask_1"].values) > np.asarray(record["bid_1"].values)).all()
