"""Translation: the parts together, the data it takes, the commands."""

import gzip
import io
import json
import lzma
import shlex
import shutil
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import batches, built, small

from steersman.__main__ import main
from steersman.data.batches import Ragged
from steersman.data.pairs import ByLength, PairBatches, batch_of, padded
from steersman.data.vocabulary import BEGIN, PAD
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.evaluation.sequences import Nearest, bleu
from steersman.nn.attention import Additive
from steersman.nn.cores import GRU, LRU, LSTM, Bidirectional, CfC, Memoryless, MinGRU, Stack
from steersman.nn.encoder_decoder import Decoder, Dropout, Readout, TextEncoder, build
from steersman.recipes import RECIPES
from steersman.recipes.translate.task import _texts as texts
from steersman.recipes.translate.translator import attention, check_translates, translate
from steersman.sources import catalogues, parallel
from steersman.sources.catalogues import Catalogues
from steersman.sources.synthetic import Reversed
from steersman.training.fit import fit
from steersman.training.prepare import divide, faults
from steersman.training.run import Run
from steersman.training.sequence_to_sequence import Vocabularies

CORES = {
    "gru": GRU(8),
    "lstm": LSTM(8),
    "deep": Stack((LSTM(6), GRU(7)), residual=True),
    "lru": LRU(8),
    "cfc": CfC(6, 8),
    "min-gru": MinGRU(8),
}


def made(encoder, decoder, head):
    return build(encoder, decoder, head, {"source": (12,)}, 11)


def given_as(sources):
    """Sources as a model reads them."""
    return {"source": Ragged(*padded(sources))}


def network(core, seed: int = 0, **changes):
    torch.manual_seed(seed)
    return made(TextEncoder(8, Bidirectional(core)), Decoder(8, core, **changes), Readout()).eval()


def sources(lengths, seed: int = 0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, 12, n) for n in lengths]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    "changes", [{}, {"attention": None}, {"attention": Additive(5)}, {"upper": Memoryless()}], ids=str
)
def test_any_core_reads_and_says_alone_as_in_a_batch(core, changes):
    model, given = network(CORES[core], **changes), sources([3, 1, 7])
    together = model.say(given_as(given), max_length=6, beam_width=3)
    for source, said in zip(given, together, strict=True):
        (alone,) = model.say(given_as([source]), max_length=6, beam_width=3)
        assert [one.tokens for one in alone] == [one.tokens for one in said]
        assert [one.score for one in alone] == pytest.approx([one.score for one in said], abs=1e-4)


def test_scores_of_what_is_said_are_those_of_the_model():
    model, given = network(GRU(8)), sources([4, 2])
    for source, found in zip(given, model.say(given_as(given), max_length=20, beam_width=4), strict=True):
        for said in found:
            line = [BEGIN, *said.tokens] + [2] * said.ended
            x = torch.tensor([line[:-1]])
            logits = model.run(x, model.read(given_as([source])))[0][0]
            logits[:, [0, 1, 3]] = -torch.inf
            chances = logits.log_softmax(1)[torch.arange(len(line) - 1), torch.tensor(line[1:])]
            assert chances.sum().item() == pytest.approx(said.score, abs=1e-3)


def test_the_source_matters_with_and_without_attention():
    for changes in ({}, {"attention": None}):
        model, x = network(GRU(8), **changes), torch.tensor([[BEGIN, 5, 6]])
        one, other = (model.run(x, model.read(given_as([source])))[0] for source in sources([5, 6]))
        assert not torch.allclose(one, other, atol=1e-4)


def test_without_attention_there_is_no_picture():
    model = network(GRU(8), attention=None)
    with pytest.raises(UserError, match="no attention"):
        model.decoder.weights(torch.tensor([[BEGIN]]), model.read(given_as(sources([3]))))


def test_a_decoder_that_reads_ahead_is_refused():
    with pytest.raises(UserError, match="not said yet"):
        network(GRU(8), upper=Bidirectional(GRU(4)))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_core_without_memory_still_sees_the_source():
    model = made(TextEncoder(8, Memoryless()), Decoder(8, Memoryless(), upper=Memoryless()), Readout())
    model, x = model.eval(), torch.tensor([[BEGIN, 5]])
    one, other = (model.run(x, model.read(given_as([source])))[0] for source in sources([5, 6]))
    assert not torch.allclose(one, other, atol=1e-4)


def test_tied_weights_are_one():
    tied, own = (made(TextEncoder(8, GRU(8)), Decoder(8, GRU(8)), Readout(tied=tied)) for tied in (True, False))
    more = sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in tied.parameters())
    assert more == 11 * 8


def test_sampled_tokens_come_at_their_share_and_never_at_the_begin_or_on_padding():
    model = network(GRU(8), scheduled_sampling=0.5, sampling_ramp=10).train()
    x = torch.full((400, 6), 5)
    x[:, 0], x[:, 5] = BEGIN, PAD
    state = model.read({"source": Ragged(torch.full((400, 2), 6), torch.full((400,), 2))})
    for passes, share in ((0, 0.0), (5, 0.25), (10, 0.5), (99, 0.5)):
        model.passes.fill_(passes)
        mixed = model._mixed(x, state)
        assert mixed[:, 0].eq(BEGIN).all()
        assert mixed[:, 5].eq(PAD).all()
        changed = mixed[:, 1:5].ne(5).float().mean().item()
        assert changed == pytest.approx(share * 10 / 11, abs=0.06)


def test_dropout_keeps_its_share_and_its_mean():
    torch.manual_seed(0)
    drop, x = Dropout(0.3), torch.ones(1001, 300)
    y = drop(x)
    assert y.eq(0).float().mean().item() == pytest.approx(0.3, abs=0.004)
    assert y.mean().item() == pytest.approx(1, abs=0.006)
    assert torch.equal(drop.eval()(x), x)


def test_a_reversed_copy_is_learned_to_the_last_digit(tmp_path):
    recipe = replace(
        small("translate"),
        source=Reversed(2000, 3, 6),
        encoder=TextEncoder(32, Bidirectional(GRU(48)), dropout=0.0),
        decoder=Decoder(32, GRU(48), upper=GRU(48), dropout=0.0),
        head=Readout(dropout=0.0, smoothing=0.0),
        batches=ByLength(batch_size=32),
    )
    recipe = replace(
        recipe, training=replace(recipe.training, steps=500, learning_rate=8e-3, warmup=20, validate_every=100)
    )
    run = fit("translate", recipe, tmp_path, say=lambda text: None)
    pairs = [texts(record) for record in run.records()["test"]]
    for beam in (1, 3):
        said = translate(run.model(), [source for source, _ in pairs], beam)
        assert [one.text for one in said] == [target for _, target in pairs]
    looks = attention(run.model(), "1 2 3 4 5", translate(run.model(), ["1 2 3 4 5"])[0].tokens).weights
    assert looks.sum(1) == pytest.approx(np.ones(6), abs=1e-5)


def test_an_epoch_holds_every_pair_once_in_batches_of_about_one_length():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 60, (1000, 2))
    cut = ByLength(batch_size=16, max_steps=400).cut(lengths, rng)
    assert sorted(np.concatenate(cut)) == list(range(1000))
    assert max(map(len, cut)) <= 16
    assert all(lengths[b].max() * len(b) <= 400 or len(b) == 1 for b in cut)
    held = sum(lengths[b][:, 0].sum() for b in cut) / sum(lengths[b][:, 0].max() * len(b) for b in cut)
    assert held > 0.85


def test_processes_share_the_rows_of_a_batch():
    recipe = small("translate")
    model, shown = built(recipe)
    whole, halves = batches(recipe, model, shown), [batches(recipe, model, shown, rank=r, ranks=2) for r in (0, 1)]
    for i, batch in enumerate(whole.epoch(3)):
        parts = [half.epoch(3)[i] for half in halves]
        assert len(parts[0].x) == len(parts[1].x)
        assert sum(part.mask.sum() for part in parts) == batch.mask.sum()
    with pytest.raises(UserError, match="shared by 3"):
        PairBatches(ByLength(batch_size=8), shown, ranks=3)


def test_a_batch_holds_the_tokens_after_each_other():
    recipe = small("translate")
    model, shown = built(recipe)
    batch = batch_of(shown[:3], 4)
    for row, pair in enumerate(shown[:3]):
        assert batch.x[row, : len(pair)].tolist() == pair.target[:-1].tolist()
        assert batch.y[row, : len(pair)].tolist() == pair.target[1:].tolist()
        assert batch.mask[row].sum() == len(pair)
    assert batch.mask[3].sum() == 0
    assert batch.sources["source"].lengths.tolist()[3] == 0
    assert model(batch, model.initial(4))[0].isfinite().all()


# What it reads


def write(path, text: str | bytes):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_two_files_are_read_line_by_line_whatever_they_are_packed_in(tmp_path):
    source, target = "eins\r\nzwei \u2028 drei\n\nvier\n", "one\ntwo three\n\nfour"
    a = write(tmp_path / "a.de.gz", gzip.compress(source.encode()))
    b = write(tmp_path / "a.en.xz", lzma.compress(target.encode()))
    records = parallel.read([a, b])
    assert [texts(r) for r in records] == [("eins", "one"), ("zwei \u2028 drei", "two three"), ("vier", "four")]
    assert faults(records) == ["a.de.gz:1: 1 pair left out, the first: line 3 is empty on both sides"]


def test_a_table_is_read_by_its_first_two_columns(tmp_path):
    path = write(tmp_path / "pairs.tsv", "a\tb\tCC BY\nc\td\n\te\n")
    records = parallel.read([path])
    assert [texts(r) for r in records] == [("a", "b"), ("c", "d")]
    assert "line 3 is empty on one side" in faults(records)[0]


def test_several_pairs_of_files_are_one_text(tmp_path):
    files = [write(tmp_path / f"{n}.{lang}", f"{lang} {n}\n") for n in (1, 2) for lang in ("de", "en")]
    assert [texts(r) for r in parallel.read(files)] == [("de 1", "en 1"), ("de 2", "en 2")]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a": "1\n2\n3\n", "b": "1\n2\n"}, "a has 3 lines but .*b has 2"),
        ({"a": "ok\n", "b": b"ok \xff\n"}, r"b is not UTF-8: byte 3, in line 1, is wrong"),
        ({"a": b"ok\n\xc3(\n", "b": "1\n2\n"}, r"a is not UTF-8: byte 3, in line 2, is wrong"),
        ({"a": "\n \n", "b": "1\n2\n"}, "every line is empty on a side"),
        ({"a": "", "b": "1\n"}, "a is empty"),
        ({"a": "1\n", "missing": None}, "there is no file .*missing"),
        ({"a.tsv": "no tab\n"}, "a.tsv, line 1: there is no tab"),
        ({"a": "1\n", "b": "1\n", "c": "1\n"}, "c has no partner"),
        ({"a.gz": b"\x1f\x8b cut", "b": "1\n"}, "a.gz can't be read"),
    ],
)
def test_bad_data_is_one_message(tmp_path, files, said):
    for name, text in files.items():
        if text is not None:
            write(tmp_path / name, text)
    with pytest.raises(UserError, match=said):
        parallel.read([str(tmp_path / name) for name in files])


def test_a_folder_is_no_text(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        parallel.read([str(tmp_path), str(tmp_path)])


def catalogue(messages: dict[str, str], order: str = "<") -> bytes:
    """A gettext catalogue as msgfmt writes one."""
    pairs = sorted((a.encode(), b.encode()) for a, b in messages.items())
    start, tables, texts = 28 + 16 * len(pairs), b"", b""
    for side in (0, 1):
        for pair in pairs:
            tables += struct.pack(f"{order}2I", len(pair[side]), start + len(texts))
            texts += pair[side] + b"\0"
    head = struct.pack(f"{order}7I", catalogues.LITTLE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    return head + tables + texts


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with catalogues of two languages, German the smaller."""
    monkeypatch.setattr(catalogues, "FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(catalogues, "_packages", list)
    for language, count in (("de", 300), ("xx", 900)):
        folder = tmp_path / "locale" / language / "LC_MESSAGES"
        folder.mkdir(parents=True)
        words = {f"the message {i}": f"{language} {i}" for i in range(count)}
        odd = {
            "": "Content-Type: text/plain",
            "two\nlines": "zwei",
            "same": "same",
            "menu\4open": "auf",
            "one\0many": "a\0b",
        }
        (folder / "a.mo").write_bytes(catalogue(words | odd))
        (folder / "b.mo").write_bytes(catalogue({"the message 1": "again", "the end": "Ende"}, ">"))
        (folder / "c.mo").write_bytes(b"no catalogue")
    return tmp_path


def test_catalogues_are_pairs_each_message_once(machine):
    records = Catalogues().read()
    pairs = [texts(r) for r in records]
    assert len(pairs) == len({s for s, _ in pairs}) == len({t for _, t in pairs}) == 301
    assert pairs[0][0].startswith("de ")
    assert pairs[0][1].startswith("the message")
    assert "2 messages (long, of several lines" in faults(records)[0]
    assert texts(Catalogues("xx", into_english=False).read()[0])[1].startswith("xx ")


def test_a_machine_without_catalogues_says_what_to_do(machine):
    with pytest.raises(UserError, match=r"no catalogue of the language 'yy' .*--data SOURCE TARGET"):
        Catalogues("yy").read()


# Scores and commands


def test_the_nearest_sentence_is_that_with_the_same_rare_words():
    nearest = Nearest([("a man on a horse", "1"), ("a man in a boat", "2"), ("a dog", "3")])
    assert nearest("the horse of a man") == "1"
    assert nearest("boat") == "2"
    assert nearest("nothing known") == "1"


def test_bleu_carries_its_signature_and_its_case():
    assert bleu(["The cat sat on the mat"], ["the cat sat on the mat"], lower=True)["bleu"] == pytest.approx(100)
    scores = bleu(["The cat sat on the mat"], ["the cat sat on the mat"])
    assert scores["bleu"] < 100
    assert "version:" in scores["signature"]


SHORT = (
    "--vocabularies.pieces words --encoder.embedding 8 --encoder.core.core.hidden 8 --decoder.embedding 8 "
    "--training.ema-decay 0 --decoder.core.hidden 8 --decoder.upper.hidden 8 --training.steps 80 "
    "--training.learning-rate 1e-2 "
    "--training.validate-every 40 --task.max-length 12 --split.validation 0.1 --split.test 0.1"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    pairs = [texts(r) for r in Reversed(80).read()]
    write(folder / "a.x", "".join(f"{source}\n" for source, _ in pairs) + "\n")
    write(folder / "a.y", "".join(f"{target}\n" for _, target in pairs) + "\n")
    data = f"{folder / 'a.x'} {folder / 'a.y'}"
    main(shlex.split(f"train translate --data {data} --run {folder / 'run'} {SHORT}"))
    return folder


def test_a_run_holds_its_vocabulary_and_its_page(place, capsys):
    vocabulary = json.loads((place / "run" / "vocabulary.json").read_text())
    assert vocabulary["source"]["data"][0].strip().isdigit()
    metrics = json.loads((place / "run" / "metrics.json").read_text())
    assert {"greedy", "the source, copied"} <= metrics["baselines"].keys()
    page = (place / "run" / "report.html").read_text()
    assert "Attention" in page
    assert metrics["signature"] in page
    main(["evaluate", str(place / "run"), "--data", str(place / "a.x"), str(place / "a.y")])
    out = capsys.readouterr().out
    assert "bleu" in out
    assert "version:" in out


def test_no_text_held_out_is_trained_on():
    records = [parallel.record(str(i), f"s {i % 40}", f"t {i}") for i in range(60)]
    said = []
    parts = RECIPES["translate"](()).divide(records, said.append)
    sides = {name: [{texts(r)[side] for r in part} for side in (0, 1)] for name, part in parts.items()}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not sides[a][0] & sides[b][0]
        assert not sides[a][1] & sides[b][1]
    assert len(said) >= 1
    left = sum(int(line.split()[1]) for line in said)
    assert sum(map(len, parts.values())) + left == 60


def test_a_translator_stands_beside_another_and_beside_nothing_else(place, tmp_path):
    run = Run.open(place / "run")
    beside = report_run(run, beside=[run], folder=tmp_path)
    assert beside["baselines"]["translate (run)"]["bleu"] == beside["bleu"]
    fit("echo", replace(RECIPES["echo"](()), training=replace(RECIPES["echo"](()).training, steps=1)), tmp_path / "e")
    with pytest.raises(UserError, match="is scored by rmse, this run by bleu"):
        report_run(run, beside=[Run.open(tmp_path / "e")], folder=tmp_path)


def test_an_adopted_run_keeps_its_vocabulary(place, tmp_path):
    run = Run.open(place / "run")
    told = [[said.text for said in translate(one.model(), ["3 1 2", "7"])] for one in (run, run.adopted(tmp_path))]
    assert told[0] == told[1]


def translated(place, text: bytes, monkeypatch, capsys, *options: str):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    main(["translate", str(place / "run"), *options])
    return capsys.readouterr()


def test_as_many_lines_come_out_as_go_in(place, monkeypatch, capsys):
    said = translated(place, b"1 2 3\n\n4 5 zebra\n", monkeypatch, capsys)
    lines = said.out.split("\n")
    assert len(lines) == 4
    assert lines[1] == lines[3] == ""
    assert "not in the model's vocabulary: 1 piece of the text" in said.err
    assert translated(place, b"", monkeypatch, capsys).out == ""


class Typed(io.RawIOBase):
    """A terminal at which the next line is typed once the one before was answered."""

    def __init__(self, lines: list[bytes], answered):
        super().__init__()
        self.lines, self.answered, self.seen = lines, answered, []

    def readable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        self.seen.append(self.answered())
        line = self.lines.pop(0) if self.lines else b""
        buffer[: len(line)] = line
        return len(line)


def test_a_terminal_is_answered_line_by_line(place, monkeypatch, capsys):
    whole = translated(place, b"1 2 3\n\n4 5\n", monkeypatch, capsys).out
    typed = Typed([b"1 2 3\n", b"\n", b"4 5\n"], lambda: capsys.readouterr().out)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(typed)))
    main(["translate", str(place / "run")])
    answers = whole.splitlines(keepends=True)
    assert typed.seen == ["", *answers]


@pytest.mark.parametrize("kind", ["html", "png"])
def test_attention_is_pictured(place, monkeypatch, capsys, kind, tmp_path):
    path = tmp_path / f"looks.{kind}"
    translated(place, b"1 2 3\n4 5\n", monkeypatch, capsys, "--beam-width", "2", "--attention", str(path))
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") if kind == "png" else b"said \\ read" in data


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (b"ok\n\xff\n", (), "standard input is not UTF-8: byte 3, in line 2"),
        (b"1\n", ("--beam-width", "0"), "--beam-width must be from 1 to 100"),
        (b"1\n", ("--beam-width", "1000000000"), "--beam-width must be from 1 to 100"),
        (b"1 2\n", ("--attention", "looks.gif"), "written as .html or .png"),
    ],
)
def test_what_it_can_not_do_is_one_message(place, monkeypatch, capsys, text, options, said):
    with pytest.raises(SystemExit) as stop:
        translated(place, text, monkeypatch, capsys, *options)
    assert stop.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_run_of_another_kind_does_not_translate(tmp_path):
    fit("echo", replace(RECIPES["echo"](()), training=replace(RECIPES["echo"](()).training, steps=1)), tmp_path)
    with pytest.raises(UserError, match="does not translate"):
        check_translates(Run.open(tmp_path).model())
    with pytest.raises(SystemExit):
        main(["translate", str(tmp_path)])


def test_a_damaged_vocabulary_is_one_message(place, tmp_path):
    run = Run.open(place / "run")
    for text in ("{}", "{", '{"source": {}, "target": {}}'):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        shutil.copy(run.folder / "model.safetensors", folder)
        (folder / "vocabulary.json").write_text(text)
        with pytest.raises(UserError, match=r"vocabulary\.json"):
            replace(run, folder=folder).model()


def test_a_run_that_is_gone_on_with_keeps_its_vocabulary(place):
    run = Run.open(place / "run")
    path = run.folder / "vocabulary.json"
    before = path.read_bytes()
    run.recipe.fit_vocabulary(Reversed(20, digits=2).read(), run.folder)
    assert path.read_bytes() == before


def test_pairs_can_not_be_divided_by_time():
    recipe = small("translate")
    with pytest.raises(UserError, match=r"--split\.by record"):
        replace(recipe, split=replace(recipe.split, by="time")).divide(recipe.source.read())


def test_nothing_above_the_minimum_count_is_said():
    with pytest.raises(UserError, match="no word occurs 5 times"):
        Vocabularies("words", min_count=5).learn({"source": ["a b"], "target": ["c d"]})


def test_words_are_cut_in_other_ways_in_each_epoch_and_in_the_same_ways_again():
    recipe = replace(small("translate"), vocabularies=Vocabularies(min_count=1, dropout=0.3))
    records = recipe.divide(recipe.source.read())["train"]
    learned = recipe.learned(records)

    def epochs() -> list[list[torch.Tensor]]:
        model = recipe.with_vocabularies(learned)
        data = recipe.make_batches(model, recipe.examples(model, records))
        return [
            [t for b in data.epoch(number) for t in (b.y, b.sources["source"].values, b.sources["source"].lengths)]
            for number in range(2)
        ]

    (first, second), (first_again, second_again) = epochs(), epochs()
    assert all(torch.equal(a, b) for a, b in zip(first, first_again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second, second_again, strict=True))
    assert len({sum(int(t.count_nonzero()) for t in epoch) for epoch in (first, second)}) == 2


def test_only_subwords_have_merges_to_leave_out():
    with pytest.raises(UserError, match="words have none"):
        Vocabularies("words", dropout=0.1)


def test_two_pairs_are_too_few_and_the_advice_is_one_that_can_be_followed(tmp_path):
    (tmp_path / "two.tsv").write_text("a\tb\nc\td\n", encoding="utf-8")
    with pytest.raises(UserError, match="too few texts: 2"):
        divide(RECIPES["translate"](()), (str(tmp_path / "two.tsv"),))


def test_lines_are_translated_alike_alone_and_together_in_their_order(place):
    lines = ["3 1 2", "", "7", "1 2 3 4 5 6 7", "5 5"]
    model = Run.open(place / "run").model()
    together = translate(model, lines, 3)
    for line, one in zip(lines, together, strict=True):
        (alone,) = translate(model, [line], 3)
        assert (one.source, one.text) == (line, alone.text)
        assert one.score == pytest.approx(alone.score, abs=1e-4)
