from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.font_manager import findfont
from PIL import Image
from small import built, records, small

from steersman.__main__ import main
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.evaluation.plots import histogram
from steersman.explain import surface
from steersman.explain.gallery import moving
from steersman.explain.gates import belts, draw_gates, told
from steersman.explain.pictures import WIDTH, drawable, picture
from steersman.explain.saliency import attributed, draw_saliency, film_saliency, integrated_gradients, read_on, window
from steersman.explain.samples import Sample, open_sample
from steersman.explain.surface import curvatures, single_unit, train_relu, two_weights, walk
from steersman.explain.unrolled import draw_unrolled, unroll, unroll_sample
from steersman.nn.cores import GRU, LSTM, RNN, Bidirectional, CfC, Memoryless, MinGRU, MinLSTM, Stack
from steersman.worlds.film import DriveVideo

GATED = {
    "LSTM": LSTM(5),
    "peepholes": LSTM(5, peepholes=True),
    "normalised": LSTM(5, layer_norm=True),
    "projected": LSTM(5, projection=3),
    "GRU": GRU(5),
    "GRU of the paper": GRU(5, reset="before"),
    "MinGRU": MinGRU(5),
    "MinLSTM": MinLSTM(5),
}
DEEP = {
    "RNN": RNN(6),
    "LSTM": LSTM(6),
    "CfC": CfC(6, backbone=8),
    "stack": Stack((LSTM(6), GRU(6)), residual=True),
    "both ways": Stack((Bidirectional(GRU(4)), Bidirectional(LSTM(3)))),
    "no memory": Memoryless(),
}


def sampled(name: str, **changes) -> Sample:
    recipe = replace(small(name), **changes)
    model, shown = built(recipe)
    return Sample(name, model.eval(), records(recipe.source)[0], recipe.inputs, shown[0])


@pytest.mark.parametrize("name", GATED)
def test_a_state_is_what_is_kept_and_what_is_added(name):
    core = GATED[name].build(4)
    for parameter in core.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    x = torch.randn(12, 4)
    state = core(torch.randn(1, 3, 4), core.initial(1))[1]
    (belt,) = belts(core, x, state)
    kept, added = told(belt)
    np.testing.assert_allclose(kept + added, belt.state, atol=1e-5)
    assert all(values.min() >= 0 and values.max() <= 1 for key, values in belt.gates.items() if key != "candidate")


@pytest.mark.parametrize("name", DEEP)
def test_unrolled_it_says_the_same_and_its_edges_are_autograds(name):
    sample = sampled("echo", core=DEEP[name], skip=False)
    model, target = sample.model.double(), 5
    feature = torch.randn(9 if not model.causal else 6, model.core.features, dtype=torch.float64)
    answer = sample.answer(3).astype(np.float64)
    found = unroll(model, feature, model.core.initial(1), answer, target)
    whole = feature.clone().requires_grad_()
    raw = model.head(model.core(whole[None], model.core.initial(1))[0][0, target])
    loss = model.head.loss(raw[None, None], torch.from_numpy(answer)[None, None]).sum()
    (slope,) = torch.autograd.grad(loss, whole)
    torch.testing.assert_close(found.raw, raw.detach())
    assert found.loss == pytest.approx(float(loss.detach()))
    if len(found.rows) == 1:
        into = [edge.gradient for edge in found.edges if edge.kind == "in"]
        np.testing.assert_allclose(into, slope.norm(dim=1).numpy(), rtol=1e-6, atol=1e-12)
    assert any(edge.kind == "time" for edge in found.edges) == (name != "no memory")


def test_the_gradient_through_time_is_that_of_the_state():
    sample = sampled("echo", core=LSTM(6))
    model = sample.model.double()
    feature = torch.randn(7, model.core.features, dtype=torch.float64)
    answer = sample.answer(3).astype(np.float64)
    found = unroll(model, feature, model.core.initial(1), answer, 6)
    state = tuple(s.detach().requires_grad_() for s in model.core(feature[None, :3], model.core.initial(1))[1])
    raw = model.core(feature[None, 3:], state)[0][0, -1]
    if model.skip:
        raw = torch.cat((raw, feature[-1]))
    loss = model.head.loss(model.head(raw)[None, None], torch.from_numpy(answer)[None, None]).sum()
    slopes = [float(slope.norm()) for slope in torch.autograd.grad(loss, state)]
    edges = {edge.part: edge.gradient for edge in found.edges if edge.kind == "time" and edge.step == 3}
    np.testing.assert_allclose([edges[0], edges[1]], slopes, rtol=1e-6)


@pytest.mark.parametrize("name", ["steer", "chars", "echo", "digits"])
def test_attributions_sum_to_the_difference_of_outputs(name):
    sample = sampled(name)
    at = min(20, len(sample.example) - 1)
    part = window(sample, at, 6)
    found, _ = attributed(part)
    difference = found.prediction - found.plain
    assert abs(found.values.sum() - difference) <= 0.01 * abs(difference) + 1e-5
    whole = sample.model.stream([sample.example])[0][at]
    said = sample.model.head.point(whole)[0] if part.x.ndim == 4 or name == "echo" else whole.max()
    assert found.prediction == pytest.approx(float(said), rel=1e-3, abs=1e-4)


def test_what_is_linear_is_attributed_exactly():
    weight, x, plain = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 4)
    found = integrated_gradients(lambda line: (line * weight).sum((1, 2)), x, plain, 2)
    np.testing.assert_allclose(found.values, (weight * (x - plain)).numpy(), rtol=1e-4, atol=1e-6)


def test_states_read_on_are_those_of_the_whole():
    sample = sampled("steer")
    start = sample.model.initial(1)
    once, twice = read_on(sample, 0, 9, start), read_on(sample, 4, 9, read_on(sample, 0, 4, start))
    torch.testing.assert_close(once, twice)


def test_plain_descent_is_thrown_by_the_cliff_and_clipping_holds_it():
    plain, clipped, _ = surface.cliff_walks()
    leaps = [np.linalg.norm(np.diff(one.weights, axis=0), axis=1).max() for one in (plain, clipped)]
    assert leaps[0] > 1
    assert leaps[1] <= surface.CLIP * surface.CLIFF_RATE * (1 + 1e-6)
    assert clipped.loss[-1] < 0.1 * plain.loss[-1]


def test_a_walk_is_descent_by_the_gradient():
    one = walk("", single_unit, (4.8, -2.0), 1, lambda p: torch.optim.SGD(p, 0.01))
    ends = [(4.8 + a, -2.0 + b) for a, b in ((1e-6, 0), (-1e-6, 0), (0, 1e-6), (0, -1e-6))]
    up, down, right, left = (float(single_unit(*torch.tensor(place, dtype=torch.float64))) for place in ends)
    slope = np.array([up - down, right - left]) / 2e-6
    np.testing.assert_allclose(one.weights[1] - one.weights[0], -0.01 * slope, rtol=1e-4)


def test_the_saddle_is_one():
    low, high = curvatures(two_weights, (0.0, 0.0))
    still = walk("", two_weights, (0.0, 0.0), 3, lambda p: torch.optim.SGD(p, 0.1))
    assert low < 0 < high
    assert still.gradient.max() == 0
    assert curvatures(two_weights, (1.0, 1.0))[0] > -1e-9


def test_a_rate_that_is_too_high_kills_units():
    assert train_relu(3.0, steps=60).dead[-1] > 0.5 > 0.2 > train_relu(0.1, steps=60).dead[-1]


@pytest.mark.parametrize(("name", "core"), [("steer", LSTM(6)), ("chars", DEEP["stack"]), ("echo", DEEP["both ways"]),
                                            ("digits", Memoryless())])  # fmt: skip
def test_pictures_are_as_wide_as_they_say(name, core, tmp_path):
    sample = sampled(name, core=core)
    at = min(12, len(sample.example) - 1)
    files = [draw_unrolled(sample, at, 5, tmp_path / "u.png")[0], draw_saliency(sample, at, 5, tmp_path / "s.png")[0]]
    gates = draw_gates(sample, at, 10, tmp_path / "g.png")
    assert len(gates) == {"steer": 1, "chars": 2, "echo": 0, "digits": 0}[name]
    assert all(Image.open(file).size[0] == WIDTH for file in (*files, *gates))


def test_a_film_of_a_drive(tmp_path):
    import av

    file = film_saliency(sampled("steer"), 12, 4, 6, tmp_path / "film.mp4")
    with av.open(str(file)) as film:
        assert sum(1 for _ in film.decode(video=0)) == 6


def test_a_middle_step_is_explained_where_the_future_counts():
    found, shown = unroll_sample(sampled("echo", core=Bidirectional(GRU(4))), 12, 9)
    assert found.target == 4
    assert shown == range(4, 13)
    time = [e for e in found.edges if e.kind == "time" and e.gradient]
    assert {found.rows[e.layer].backwards for e in time} == {False, True}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["runs/none"], "there is no run runs/none"),
        (["steer", "--data", "DRIVES", "--sample", "9"], "--sample 9"),
        (["steer", "--data", "DRIVES", "--at", "999"], "--at 999"),
        (["steer", "--steps", "-1"], "--steps"),
    ],
)
def test_what_can_not_be_explained_is_refused(words, why, tmp_path, capsys, monkeypatch):
    clock = np.arange(30) / 50
    targets = ("steer", "pace", "gas", "brake", "target_speed_mps", "speed_mps", "yaw_radps")
    streams = {name: Stream(np.zeros(30, np.float32), clock) for name in targets}
    shown = Record("still", streams | {"picture": Stream(np.zeros((30, 84, 96, 3), np.uint8), clock)})
    monkeypatch.setattr("steersman.explain.samples.read_records", lambda *a: [shown])
    with pytest.raises(SystemExit) as stop:
        main(["explain", *words])
    assert stop.value.code == 2
    assert why in " ".join(capsys.readouterr().err.split())


def test_what_reads_and_then_writes_is_refused(tmp_path):
    model, _ = built(small("translate"))
    run = SimpleNamespace(model=lambda: model, folder=tmp_path)
    with pytest.raises(UserError, match="translate RUN --attention"):
        open_sample(run, 0)  # pyright: ignore[reportArgumentType]


def test_a_word_is_a_picture_and_help_names_them(tmp_path, capsys):
    main(["explain", "saddle", "--out", str(tmp_path)])
    assert (tmp_path / "saddle.png").is_file()
    main(["explain", "--help"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("surface", "saddle", "relu", "gallery", "formula"))


def test_characters_that_no_font_has_are_told_by_their_number(tmp_path):
    def paint(figure):
        figure.subplots().set_title("\N{CJK UNIFIED IDEOGRAPH-4E2D}a")

    assert drawable("\N{CJK UNIFIED IDEOGRAPH-4E2D}\na", findfont("DejaVu Sans")) == "U+4E2D\na"
    picture(tmp_path / "a.png", paint, "\N{HANGUL SYLLABLE GA}", 300)  # A warning would fail this test.
    assert "\N{CJK UNIFIED IDEOGRAPH-4E2D}" in histogram([1, 2], [0, 1, 2], "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "").wide


def test_gates_are_called_as_the_core_calls_them():
    x = torch.randn(5, 4)

    def titles(core):
        built = core.build(4)
        (belt,) = belts(built, x, built.initial(1))
        return list(belt.titles.values())

    assert [title.partition(":")[0] for title in titles(LSTM(3))][:2] == ["forget gate", "input gate"]
    assert "output gate: what is let out" in titles(LSTM(3))
    assert "what is kept of the state" in titles(GRU(3))  # No gate of a GRU is called so.
    assert "reset gate" in titles(GRU(3))


def test_a_bend_is_what_a_prediction_is_explained_at():
    sample = sampled("steer")
    at, y = sample.telling(10), sample.example.y[:, 0]
    assert abs(y[at] - y.mean()) == np.abs(y[10:] - y.mean()).max()


def test_a_film_becomes_a_moving_picture(tmp_path):
    with DriveVideo(tmp_path / "a.mp4", 20) as video:
        for step in range(20):
            video.add(np.full((40, 60, 3), 9 * step, np.uint8), np.zeros((8, 8, 3), np.uint8), {"steer": 0.1}, None, {})
    with Image.open(moving(tmp_path / "a.mp4", tmp_path / "a.webp")) as image:
        assert (image.format, image.n_frames, image.width) == ("WEBP", 10, 560)
