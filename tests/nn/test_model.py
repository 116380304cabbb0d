"""Encoders, heads and the flavours built of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batches, built, deep, small
from torch.nn import functional as F

from steersman.data.batches import Batches, Windows
from steersman.data.examples import Example
from steersman.errors import UserError
from steersman.nn.cores import GRU, LSTM, Bidirectional, Memoryless
from steersman.nn.encoders import Identity
from steersman.nn.heads import Classification, Regression
from steersman.nn.model import Network
from steersman.nn.pictures import Conv, Picture, RoadTexture, normal_pictures

SMALL = {"channels": (4,), "kernels": (3,), "strides": (2,), "features": 8, "pixels": Picture(9, 12)}


def network(**changes):
    parts = {"encoder": Identity(), "core": GRU(6), "head": Regression(("a", "b"))} | changes
    torch.manual_seed(0)
    return Network(**parts).build((3,)).eval()


def example(steps: int = 20, once: bool = False) -> Example:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(steps, 3)).astype(np.float32), rng.normal(size=(steps, 2)).astype(np.float32)
    return Example("e", x, y[-1] if once else y, np.arange(steps) / 10)


@pytest.mark.parametrize(("height", "width"), [(84, 96), (66, 200)])
def test_the_convolutions_take_the_pictures_they_are_written_for(height, width):
    eye = Conv(pixels=Picture(height, width)).build((2 * height, 2 * width, 3))
    raw = torch.randint(0, 256, (2, 2 * height, 2 * width, 3), dtype=torch.uint8)
    y, _ = eye(eye.prepare(raw).unsqueeze(0), eye.initial(1))
    assert y.shape == (1, 2, 128)


def test_a_picture_is_cropped_and_averaged():
    raw = torch.zeros(1, 8, 4, 3, dtype=torch.uint8)
    raw[0, 2:6] = torch.arange(4, dtype=torch.uint8)[:, None, None] * 10
    seen = Picture(2, 2, top=0.25, bottom=0.25).prepare(raw)
    assert seen[0, :, 0, 0].tolist() == [5, 25]


def test_the_roads_texture_is_amplified_and_the_red_kept_within_bounds():
    raw = torch.full((1, 84, 96, 3), 100, dtype=torch.uint8)
    raw[..., 0] = 104
    seen = RoadTexture().prepare(raw)
    assert seen.shape == (1, 42, 48, 2) == (1, *RoadTexture().shape((84, 96, 3)))
    assert seen[0, 0, 0].tolist() == [100, (104 - 102) * 12 + 90]
    assert RoadTexture().prepare(torch.full_like(raw, 255)).max() == 255


@settings(deadline=None, max_examples=15)
@given(frames=st.integers(1, 4), time=st.integers(1, 6))
def test_stacked_pictures_are_those_before_and_black_before_the_first(frames, time):
    torch.manual_seed(0)
    eye = Conv(frames=frames, **SMALL).build((9, 12, 3))
    x = torch.randint(0, 256, (2, time, 9, 12, 3), dtype=torch.uint8)
    y, state = eye(x, eye.initial(2))
    line = torch.cat((torch.zeros(2, frames - 1, 9, 12, 3, dtype=torch.uint8), x), 1)
    for t in range(time):
        alone = eye(x[:, t : t + 1], (line[:, t : t + frames - 1],) if frames > 1 else ())[0]
        torch.testing.assert_close(y[:, t], alone[:, 0], atol=1e-5, rtol=1e-4)
    assert frames == 1 or torch.equal(state[0], line[:, time:])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Conv(kernels=(5, 3)).build((84, 96, 3)), "as many of each"),
        (lambda: Conv().build((7,)), "needs pictures"),
        (lambda: Conv(pixels=Picture(8, 8)).build((84, 96, 3)), "too small"),
        (lambda: Conv(pixels=Picture(top=0.6, bottom=0.5)).build((84, 96, 3)), "leave nothing"),
        (lambda: Regression(("a", "b"), weights=(1.0,)).build(3), "one a target"),
        (lambda: network(flavour="one-to-one"), "Memoryless"),
    ],
)
def test_parts_that_do_not_fit_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_inputs_and_targets_are_normalised_by_what_training_saw():
    rng = np.random.default_rng(0)
    x = rng.normal((3, -40, 7), (0.1, 20, 0), (500, 3)).astype(np.float32)
    model = network()
    model.encoder.fit(x)
    seen = model.encoder.normal(torch.from_numpy(x))
    torch.testing.assert_close(seen.mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=0.01, rtol=0)  # a constant is 0
    y = rng.normal((5, -2), (3, 0.01), (500, 2)).astype(np.float32)
    model.head.fit(y)
    np.testing.assert_allclose(model.head.point(torch.zeros(1, 2))[0], y.mean(0), rtol=1e-4)


def test_regression_is_hubers_loss_of_the_standardised_error_by_weight():
    head = Regression(("a", "b"), weights=(3.0, 1.0), delta=0.5).build(4)
    y = np.random.default_rng(0).normal((1, 5), (2, 9), (50, 2)).astype(np.float32)
    head.fit(y)
    raw, truth = torch.randn(50, 2), torch.from_numpy(y)
    standard = (truth - truth.mean(0)) / truth.std(0, correction=0)
    each = F.huber_loss(raw, standard, reduction="none", delta=0.5) / 0.5
    torch.testing.assert_close(head.loss(raw, truth), each @ torch.tensor([0.75, 0.25]), atol=1e-5, rtol=1e-4)


def test_classification_is_cross_entropy_and_names_the_likeliest():
    head = Classification(classes=4, smoothing=0.1).build(3)
    raw, label = torch.randn(2, 5, 4), torch.randint(0, 4, (2, 5, 1)).float()
    expected = F.cross_entropy(raw.view(10, 4), label.view(10).long(), reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(head.loss(raw, label).view(10), expected)
    assert torch.equal(head.point(raw), raw.argmax(-1, keepdim=True))
    for bad in (4.0, -1.0):
        with pytest.raises(UserError, match=r"head\.classes"):
            head.fit(np.array([[0.0], [bad]]))


def test_one_answer_a_sequence_is_that_of_its_last_step():
    model = network(flavour="many-to-one")
    recipe = small("digits")
    assert recipe.flavour == "many-to-one"
    seen = [example(n, once=True) for n in (5, 9)]
    predicted = model.predict(seen)
    for one, said in zip(seen, predicted, strict=True):
        raw, _ = model.run(torch.from_numpy(one.x[None]), model.initial())
        np.testing.assert_allclose(said, model.head.point(raw[0, -1:]).detach(), atol=1e-5)
    losses = [
        model.head.loss(torch.from_numpy(p), torch.from_numpy(e.y[None])) for p, e in zip(predicted, seen, strict=True)
    ]
    assert model.held_out_loss(seen) == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)


@pytest.mark.parametrize("weight", [[0, 0, 1, 1, 1], [1, 0, 1, 0, 2], [1, 1, 1, 1, 1]])
def test_one_answer_a_sequence_is_that_of_its_last_step_whatever_other_steps_count(weight):
    model = network(head=Regression(("a", "b")), flavour="many-to-one")
    shown = replace(example(5, once=True), weight=np.array(weight, np.float32))
    (batch,) = Batches(Windows(2), [shown], ("a", "b")).epoch(0)
    raw, _ = model(batch, model.initial(2))
    total, counted = model.loss(batch, raw)
    row = int(batch.steps.argmax())
    assert counted == weight[-1]
    torch.testing.assert_close(total, weight[-1] * model.head.loss(raw[row, -1], batch.y[row]))


def test_a_core_that_reads_both_ways_is_not_fed_what_it_said():
    with pytest.raises(UserError, match="feedback needs a causal core, not Bidirectional"):
        network(core=Bidirectional(GRU(4)), feedback=True)


def test_a_skip_shows_the_head_the_feature_beside_the_memory():
    model = network(skip=True)
    assert model.head.linear.in_features == 6 + 3
    x = torch.randn(1, 4, 3)
    y, _ = model.core(model.encoder(x, ())[0], model.core.initial(1))
    expected = model.head(torch.cat((y, model.encoder.normal(x)), -1))
    torch.testing.assert_close(model.run(x, model.initial())[0], expected)


def test_records_of_any_length_are_streamed_each_from_its_own_start():
    model = network()
    shown = [example(n) for n in (1, 7, 64, 65, 130)]
    outs = model.stream(shown, steps=16, rows=2)
    for one, out in zip(shown, outs, strict=True):
        with torch.no_grad():
            alone, _ = model.run(torch.from_numpy(one.x[None]), model.initial())
        torch.testing.assert_close(out, alone[0], atol=1e-5, rtol=1e-4)


def test_the_loss_of_held_out_records_counts_every_step_alike():
    model = network()
    shown = [example(3), example(40)]
    losses = torch.cat(
        [model.head.loss(o, torch.from_numpy(e.y)) for o, e in zip(model.stream(shown), shown, strict=True)]
    )
    assert model.held_out_loss(shown) == pytest.approx(losses.mean().item(), rel=1e-5)


def test_looking_at_held_out_records_leaves_a_model_in_training():
    model = network().train()
    model.held_out_loss([example()])
    assert model.training


def test_a_step_names_its_predictions_and_needs_no_state_to_begin():
    model = network(core=LSTM(6))
    first, state = model.step(np.ones(3, np.float32))
    assert set(first) == {"a", "b"}
    again, _ = model.step(np.ones(3, np.float32), state)
    assert again != first  # it remembers
    assert model.step(np.ones(3, np.float32), model.initial())[0] == first


def test_what_has_no_memory_says_the_same_at_every_step():
    model = network(core=Memoryless(), flavour="one-to-one")
    first, state = model.step(np.ones(3, np.float32))
    assert model.step(np.ones(3, np.float32), state)[0] == first


def test_fresh_rows_of_every_part_begin_anew():
    model, shown = built(deep())
    model.eval()
    x = batches(deep(), model, shown).epoch(0)[0].x
    with torch.no_grad():
        _, state = model.run(x, model.initial(4))
        fresh = torch.tensor([True, False, True, False])
        mixed, _ = model.run(x, state, fresh)
        new, _ = model.run(x, model.initial(4))
        on, _ = model.run(x, state)
    torch.testing.assert_close(mixed[fresh], new[fresh], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(mixed[~fresh], on[~fresh], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(new, on)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_pictures_are_normalised_as_any_number_is_and_left_as_they_are(channels, kind):
    pictures = torch.randint(0, 256, (2, 3, 5, 7, channels)).to(kind)
    before, mean, deviation = pictures.clone(), torch.rand(channels) * 200, torch.rand(channels) * 90
    assert torch.equal(normal_pictures(pictures, mean, deviation), (pictures - mean) / deviation)
    assert torch.equal(pictures, before)
    assert normal_pictures(pictures, mean.double(), deviation.double()).dtype is torch.float64


def test_a_step_tells_classes_by_their_names_and_how_likely_each_is():
    head = Classification(("state",), 2, names=("calm", "wild"))
    model = Network(Identity(), GRU(4), head).build((2,))
    prediction, _ = model.step(np.zeros(2, np.float32))
    assert set(prediction) == {"state"}
    assert sum(prediction.chances.values()) == pytest.approx(1)
    assert prediction.said == {"state": max(prediction.chances, key=prediction.chances.get)}
    number, _ = Network(Identity(), GRU(4), Regression(("y",))).build((2,)).step(np.zeros(2, np.float32))
    assert (number.chances, number.said) == ({}, dict(number))
