"""Several inputs, missing values, targets that are vectors, and samples of heads."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import Given, built, raw_frames, records, small

from steersman.__main__ import main
from steersman.data.batches import Batches, Windows
from steersman.data.examples import raw_steps
from steersman.data.records import Record, Stream
from steersman.data.splits import Split
from steersman.errors import UserError
from steersman.evaluation.report import report_run
from steersman.nn.cores import GRU
from steersman.nn.decoding import Sampling
from steersman.nn.encoder_decoder import Readout
from steersman.nn.encoders import Identity, Joined, Observed, Part
from steersman.nn.heads import Classification, NextSymbol, Regression
from steersman.nn.pictures import Conv, Picture
from steersman.recipes import RECIPES
from steersman.sources.synthetic import Fading
from steersman.training import recipe as recipes
from steersman.training.fit import fit
from steersman.training.recipe import StepRecipe

NAN = float("nan")


def record(name: str = "r", steps: int = 6, **streams) -> Record:
    """Streams of values on one clock, or of (values, seconds)."""
    clock = np.arange(float(steps))
    made = {n: v if isinstance(v, tuple) else (np.asarray(v, np.float32), clock) for n, v in streams.items()}
    return Record(name, {n: Stream(np.asarray(v), np.asarray(t, float)) for n, (v, t) in made.items()})


def recipe(*parts: Part, inputs: str = "x", **changes) -> StepRecipe:
    return StepRecipe(
        source=Given(()),
        inputs=inputs,
        encoder=Joined(parts),
        core=GRU(6),
        head=Regression(("y",)),
        batches=Windows(batch_size=2),
        **changes,
    )


def shown(made: StepRecipe, *of: Record):
    model = made.build(made.shapes(of))
    examples = made.examples(model, of)
    made.fit_normalisers(model, examples)
    return model.eval(), examples


def test_streams_are_read_on_the_first_ones_clock_and_never_from_the_future():
    r = record(x=np.arange(6), slow=([10.0, 20, 30], [0.5, 2.0, 4.5]), y=np.zeros(6))
    _, (example,) = shown(recipe(Part("x"), Part("slow")), r)
    # At step 0 the slow one is not known yet: the record begins where all is.
    assert example.time_s.tolist() == [1, 2, 3, 4, 5]
    assert example.x.streams["slow"][:, 0].tolist() == [10, 20, 20, 20, 30]
    assert example.x.streams["x"][:, 0].tolist() == [1, 2, 3, 4, 5]


def test_a_picture_of_another_clock_is_taken_from_the_cache_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "cache_folder", lambda: tmp_path)
    seen = np.random.default_rng(0).integers(0, 255, (3, 20, 24, 3), np.uint8)
    eye = Conv((4,), (3,), (2,), features=5, pixels=Picture(10, 12))
    r = record(x=np.arange(6), camera=(seen, [0.0, 1.5, 3.0]), map=(seen[:1], [0.0]), y=np.zeros(6))
    model, (example,) = shown(recipe(Part("x"), Part("camera", eye), Part("map", eye, once=True)), r)
    assert isinstance(example.x.streams["camera"], np.memmap)
    assert len(list(tmp_path.glob("*.npy"))) == 1  # A lone picture costs less than a file of its own.
    small_ones = Picture(10, 12).prepare(torch.from_numpy(seen))
    np.testing.assert_array_equal(example.x.streams["camera"], small_ones[[0, 0, 1, 2, 2, 2]])
    np.testing.assert_array_equal(example.x.once["map"], small_ones[0])
    assert model.inputs == ("x", "camera", "map")


def test_what_is_given_once_is_encoded_once_a_forward():
    r = record(x=np.arange(6), age=([61.0], [0.0]), y=np.zeros(6))
    made = recipe(Part("x"), Part("age", once=True))
    model, (example,) = shown(made, r)
    calls = []
    model.encoder.parts[1][1].register_forward_hook(lambda part, given, out: calls.append(out[0].shape))
    batch = Batches(made.batches, [example], ("y",)).epoch(0)[0]
    model(batch, model.initial(2))
    assert calls == [(2, 1, 1)]


def test_the_normaliser_of_what_is_given_once_counts_every_record_once():
    long, short = (
        record(n, s, x=np.arange(s), age=([a], [0]), y=np.zeros(s)) for n, s, a in (("a", 9, 1), ("b", 3, 5))
    )
    model, _ = shown(recipe(Part("x"), Part("age", once=True)), long, short)
    age = model.encoder.parts[1][1]
    assert (age.mean.item(), age.deviation.item()) == (3, 2)


def test_a_record_cut_by_time_keeps_what_is_given_once():
    r = record(x=np.arange(40), steps=40, age=([61.0], [0.0]), y=np.zeros(40))
    parts = Split(by="time", validation=0.2, test=0.2, gap_s=1).divide([r])
    assert [part[0]["age"].values[0] for part in parts.values()] == [61, 61, 61]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ([1.0], "a dict of x, age a step, not of list"),
        ({"x": 1.0}, "a dict of x, age a step, not of x"),
        ({"x": [1.0, 2.0], "age": 61}, r"shape \(1,\), not \(2,\)"),
    ],
)
def test_a_step_of_other_inputs_is_refused(frame, said):
    model, _ = shown(
        recipe(Part("x"), Part("age", once=True)), record(x=np.arange(6), age=([61.0], [0]), y=np.zeros(6))
    )
    assert model.step({"age": 61, "x": 1.0})[0].keys() == {"y"}
    with pytest.raises(UserError, match=said):
        model.step(frame)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (recipe(), "parts is empty"),
        (recipe(Part("x"), Part("x")), "'x' is read twice"),
        (recipe(Part("x"), inputs="picture"), "Joined reads x; set `inputs` to the one.* not to 'picture'"),
        (recipe(Part("x", once=True)), "on whose clock"),
        (recipe(Part("x"), Part("y", once=True)), "'y' has 6 values, but the encoder takes one a record"),
        (recipe(Part("x"), Part("late")), "no step at which all of its inputs are known"),
        (recipe(Part("x"), Part("speed")), "no stream 'speed'; it has x, y, late"),
        (replace(recipe(Part("x")), encoder=Identity(), inputs="gaps"), "input at step 2 .*encoder Observed"),
        (recipe(Part("x"), Part("gaps")), "input at step 2 .*encoder Observed"),
    ],
)
def test_inputs_that_can_not_be_are_refused(made, said):
    r = record(x=np.arange(6), y=np.zeros(6), late=([1.0], [9.0]))
    if "Observed" in said:
        r = record(x=np.arange(6), y=np.zeros(6), gaps=[0, 1, NAN, 3, 4, 5])
    with pytest.raises(UserError, match=said):
        shown(made, r)


def test_infinity_is_no_gap():
    with pytest.raises(UserError, match="input 'x' at step 1 is not a finite"):
        shown(recipe(Part("x", Observed())), record(x=[NAN, np.inf, 1, 2, 3, 4], y=np.zeros(6)))


def features(fill: str, values, clock, cuts=()):
    """What Observed makes of one record: (time 3 numbers)."""
    encoder = Observed(fill).build((len(values[0]),))
    elapsed = np.diff(np.asarray(clock, np.float64), prepend=clock[0])[:, None].astype(np.float32)
    x = torch.from_numpy(np.concatenate((np.asarray(values, np.float32), elapsed), 1))[None]
    state, parts = encoder.initial(1), []
    for part in x.tensor_split(cuts, 1):
        y, state = encoder(part, state)
        parts.append(y)
    return torch.cat(parts, 1)[0].detach()


def test_a_gap_is_filled_with_the_last_value_and_tells_how_long_ago_it_was():
    values, clock = [[NAN, 5], [2, NAN], [NAN, NAN], [NAN, 7], [3, NAN]], [0, 1, 3, 3.5, 9]
    last = features("last", values, clock)
    assert last[:, :2].tolist() == [[0, 5], [2, 5], [2, 5], [2, 7], [3, 7]]
    assert last[:, 2:4].tolist() == [[0, 1], [1, 0], [0, 0], [0, 1], [1, 0]]
    seconds = torch.expm1(last[:, 4:])
    torch.testing.assert_close(seconds, torch.tensor([[0, 0], [0, 1], [2, 3], [2.5, 0], [0, 5.5]]))
    assert features("mean", values, clock)[:, 0].tolist() == [0, 2, 0, 0, 3]
    decayed = features("decay", values, clock)[:, 0]
    assert decayed[1] == 2
    assert 2 > decayed[2] > decayed[3] > 0


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_gaps_and_clocks_are_the_same_for_any_chunking(data):
    steps = data.draw(st.integers(2, 12))
    number = st.one_of(st.just(NAN), st.floats(-5, 5, width=32))
    values = data.draw(st.lists(st.tuples(number, number), min_size=steps, max_size=steps))
    clock = np.cumsum(data.draw(st.lists(st.floats(0.001, 1e5), min_size=steps, max_size=steps)))
    cuts = sorted(data.draw(st.sets(st.integers(1, steps - 1))))
    fill = data.draw(st.sampled_from(["decay", "last", "mean"]))
    torch.testing.assert_close(features(fill, values, clock, cuts), features(fill, values, clock), atol=1e-5, rtol=1e-5)


def test_a_value_of_another_clock_counts_as_measured_at_the_step_after_it():
    r = record(x=np.arange(6), y=np.zeros(6), lab=([[1, NAN], [2, 8], [NAN, 9]], [0.5, 2.2, 2.8]))
    made = recipe(Part("x"), Part("lab", Observed()))
    _, (example,) = shown(made, r)
    expected = np.full((6, 2), NAN, np.float32)
    expected[1, 0], expected[3] = 1, (2, 9)
    np.testing.assert_array_equal(example.x.streams["lab"], expected)
    assert example.x.streams["elapsed_s"][:, 0].tolist() == [0, 1, 1, 1, 1, 1]


def test_the_normaliser_of_gaps_is_of_what_was_measured():
    model, _ = shown(recipe(Part("x", Observed())), record(x=[NAN, 1, NAN, 3, NAN, NAN], y=np.zeros(6)))
    part = model.encoder.parts[0][1]
    assert (part.mean.item(), part.deviation.item()) == (2, 1)
    assert part.period_s.item() == pytest.approx(5 / 6)


@dataclass(frozen=True)
class ZeroFilled(Fading):
    """The same readings with 0 for those that are missing."""

    def read(self, watch=None):
        return [
            replace(r, streams=r.streams | {"readings": Stream(np.nan_to_num(r["readings"].values), r["y"].time_s)})
            for r in super().read()
        ]


def test_a_model_that_is_told_of_gaps_beats_one_that_sees_zeros(tmp_path):
    seen = replace(small("echo-gaps"), core=GRU(32))
    seen = replace(seen, training=replace(seen.training, steps=200, warmup=10, validate_every=100))
    zeros = replace(seen, source=ZeroFilled(), encoder=Identity())
    told, blind = (
        report_run(fit(name, made, tmp_path / name, say=lambda text: None))["value"]
        for name, made in (("told", seen), ("blind", zeros))
    )
    assert told < 0.3 * blind


def test_a_vector_is_one_target_of_several_numbers():
    model, (example, *_) = built(small("echo-vector"))
    assert (model.head.streams, model.head.targets) == (("y",), ("y[0]", "y[1]", "y[2]"))
    assert example.y.shape == (len(example), 3)
    torch.testing.assert_close(model.head.deviation, torch.tensor([1.0, 2, 3]), atol=0.1, rtol=0.1)
    assert model.step(np.zeros(4, np.float32))[0].keys() == {"y[0]", "y[1]", "y[2]"}


def test_the_numbers_of_a_vector_count_together_as_much_as_a_plain_target():
    head = Regression(("joint", "grip"), weights=(1.0, 1.0)).build(4, (3, 1))
    assert head.weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert Regression(("a", "b")).build(4).weights.tolist() == [0.5, 0.5]
    assert Regression(("a", "b")).build(4).targets == ("a", "b")


def test_a_vector_is_scored_over_all_of_its_numbers(tmp_path):
    made = small("echo-vector")
    made = replace(made, training=replace(made.training, steps=20, warmup=2, validate_every=10))
    run = fit("vector", made, tmp_path / "run", say=lambda text: None)
    scores = report_run(run)
    model, held = run.model(), run.recipe.examples(run.model(), run.records()["test"])
    apart = np.concatenate([p - e.y for p, e in zip(model.predict(held), held, strict=True)])
    assert scores["value"] == pytest.approx(float(np.sqrt(np.mean(apart**2))))
    assert len(scores["records"]) == 3 * len(held)
    assert scores["records"][1]["name"].endswith(", y[1]")
    assert scores["baselines"]["ridge"]["rmse"] == pytest.approx(scores["baselines"]["mean"]["rmse"], rel=0.1)


@pytest.mark.parametrize(
    ("head", "y", "said"),
    [
        (Regression(("y",)), np.zeros((6, 2, 2)), "target 'y' has shape .6, 2, 2.; give a stream a number"),
        (Classification(("y",)), np.zeros((6, 3)), "target 'y' has shape .6, 3.; give a stream a number"),
    ],
)
def test_targets_of_other_shapes_are_refused(head, y, said):
    with pytest.raises(UserError, match=said):
        shown(replace(recipe(Part("x")), head=head), record(x=np.arange(6), y=y))


def test_a_record_whose_vector_is_of_another_length_is_refused():
    made = recipe(Part("x"))
    a, b = (record(n, x=np.arange(6), y=np.zeros((6, k))) for n, k in (("a", 3), ("b", 2)))
    with pytest.raises(UserError, match=r"record 'b': target 'y' has shape \(6, 2\); the model says 3 numbers a step"):
        shown(made, a, b)


def test_a_raw_step_of_the_small_recipes_is_what_their_encoders_read():
    made = small("echo-inputs")
    model, _ = built(made)
    frames = raw_frames(made, model, records(made.source)[0])
    assert frames[0].keys() == {"x", "level", "gain"} == set(model.inputs)
    begin, raw = raw_steps(records(made.source)[0], made.wanted(model))
    assert begin == 0
    assert len(raw["gain"]) == 1


CHANCES = torch.tensor([0.1, 0.2, 0.3, 0.4])


def draws(sample, count: int = 20_000) -> np.ndarray:
    """How often each class was drawn of so many rows of the same logits."""
    drawn = sample(CHANCES.log().expand(count // 4, 4, 4), torch.Generator().manual_seed(0))
    return np.bincount(drawn.flatten().numpy(), minlength=4)


def is_fair(counts: np.ndarray, chances: torch.Tensor) -> bool:
    """Whether Pearson's chi-square of four classes is one that chance alone exceeds in a hundredth of all cases."""
    expected = chances.numpy() * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum()) < 11.34


def test_heads_of_classes_draw_as_often_as_they_say():
    head = Classification(classes=4).build(8)
    counts = draws(head.sample)
    assert is_fair(counts, CHANCES)
    assert head.sample(CHANCES.log().expand(2, 5, 4)).shape == (2, 5, 1)
    sharp = draws(lambda raw, generator: head.sample(raw, generator, Sampling(temperature=0.5)))
    assert is_fair(sharp, CHANCES**2 / (CHANCES**2).sum())
    assert (draws(lambda raw, generator: head.sample(raw, generator, Sampling(top_k=2))) > 0).tolist() == [0, 0, 1, 1]


def test_a_head_of_symbols_draws_their_codes():
    head = NextSymbol(symbols="abc").build(8)
    drawn = head.sample(CHANCES.log().expand(5000, 4, 4), torch.Generator().manual_seed(0))
    codes, counts = np.unique(drawn.numpy(), return_counts=True)
    assert codes.tolist() == sorted(head.table.tolist())
    assert is_fair(counts, CHANCES[head.table.argsort()])
    assert not is_fair(counts[::-1], CHANCES[head.table.argsort()])


def test_a_read_out_draws_tokens():
    head = Readout().over(8, torch.nn.Embedding(4, 8))
    counts = draws(head.sample)
    assert is_fair(counts, CHANCES)
    assert head.sample(CHANCES.log().expand(2, 5, 4)).shape == (2, 5)


def test_a_head_without_a_distribution_draws_its_estimate():
    head = Regression(("a", "b")).build(3)
    head.fit(np.random.default_rng(0).normal(5, 2, (100, 2)))
    raw = torch.randn(4, 5, 2)
    assert torch.equal(head.sample(raw, torch.Generator()), head.point(raw))


@pytest.mark.parametrize("name", ["echo-inputs", "echo-gaps"])
def test_export_and_explain_say_why_they_do_not_take_several_inputs(name, tmp_path, capsys):
    run = tmp_path / "run"
    short = "--training.steps 2 --training.warmup 1 --training.validate-every 1"
    main(["train", name, "--run", str(run), *short.split()])
    for command in (["export", str(run)], ["explain", str(run)], ["live", str(run), "--port", "0"]):
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 2
        assert "several inputs (" in capsys.readouterr().err
    main(["doctor", str(run), "--json"])
    looked_at = json.loads(capsys.readouterr().out)["looked_at"]
    assert {"inputs", "splits", "units and gates", "loss surface", "alignment of labels"} <= set(looked_at)


def test_the_recipes_before_have_the_same_shapes_and_no_names():
    for name in ("echo", "chars", "steer"):
        made = small(name)
        assert isinstance(made.shapes(records(made.source)), tuple)
        assert made.named is None
    assert RECIPES["echo-gaps"](()).shapes(records(Fading())) == {"readings": (2,), "elapsed_s": (1,)}
