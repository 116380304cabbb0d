"""What leaves the house: one step in ONNX, that agrees with PyTorch or is not written."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import built, records, small
from torch import nn

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.files import write_file
from steersman.nn.cores import (
    GRU,
    LRU,
    LSTM,
    MGU,
    RNN,
    Bidirectional,
    CfC,
    Core,
    LSTMCore,
    MinGRU,
    MinLSTM,
    Pooled,
    Stack,
    Zoneout,
)
from steersman.nn.encoders import Embedding, Identity
from steersman.nn.forms import NoForm, onnx_form
from steersman.nn.heads import Classification, NextSymbol, Regression
from steersman.nn.model import Network
from steersman.nn.pictures import Conv, Picture, RoadTexture
from steersman.training.fit import fit

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from steersman.export import folder as exporting  # noqa: E402
from steersman.export import quantise  # noqa: E402
from steersman.export.folder import disagreement, export  # noqa: E402
from steersman.export.graph import step_graph  # noqa: E402
from steersman.export.runtime import Carried  # noqa: E402
from steersman.export.session import Stepping  # noqa: E402

CORES = [
    RNN(5), RNN(5, "relu"), GRU(5), GRU(5, "before"), MGU(5), MinGRU(5), MinLSTM(5), LRU(6), LRU(6, out=3),
    LSTM(6), LSTM(6, peepholes=True), LSTM(6, projection=3), LSTM(6, layer_norm=True),
    LSTM(6, peepholes=True, layer_norm=True, projection=3), CfC(5, 9), CfC(5, 9, elapsed=True),
    Zoneout(LSTM(5)), Zoneout(CfC(5, 9), (0.3,)), Pooled(GRU(5), inputs=True), Pooled(LSTM(4), ("mean",)),
    Stack((LSTM(7), GRU(7), Zoneout(GRU(4)), LRU(4)), residual=True), Stack((MinLSTM(7), Stack((RNN(3), LSTM(3))))),
]  # fmt: skip
PIXELS = [Picture(24, 31, 0.2, 0.1), Picture(41, 53), Picture(41, 20), Picture(60, 70), RoadTexture()]


def drawn(network: Network, raw: tuple[int, ...]):
    """A model whose every number is another than at the start, the normalisers' too."""
    torch.manual_seed(0)
    model = network.build(raw).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    for name, buffer in model.named_buffers():
        if name.endswith(("mean", "deviation")):
            buffer += torch.rand_like(buffer)
    return model


def agreement(model, raws: np.ndarray) -> float:
    return disagreement(step_graph(model).SerializeToString(), model, iter(raws))


@pytest.mark.parametrize("core", CORES, ids=str)
@pytest.mark.parametrize("skip", [False, True])
def test_every_causal_core_agrees_over_200_steps(core, skip):
    model = drawn(Network(Identity(), core, Regression(("a", "b")), skip=skip), (7,))
    raws = np.random.default_rng(0).normal(size=(200, 3, 7)).astype(np.float32)
    assert agreement(model, raws) < 1e-4


def test_every_core_has_a_form_or_is_refused():
    def kinds(kind: type) -> set[type]:
        return {k for sub in kind.__subclasses__() for k in (sub, *kinds(sub))}

    house = {k for k in kinds(Core) if k.__module__.startswith("steersman.nn.cores.")}
    refused = {"BidirectionalCore", "WindowCore"}
    assert {k.__name__ for k in house} - {"Cell", "MinCore"} - refused == {
        k.__name__ for k in onnx_form.known if issubclass(k, Core)
    }


@pytest.mark.parametrize("pixels", PIXELS, ids=str)
@pytest.mark.parametrize("frames", [1, 3])
def test_pictures_are_prepared_as_in_training_to_the_last_bit(pixels, frames):
    eye = Conv((4, 8), (5, 3), (2, 2), 16, frames=frames, pixels=pixels)
    model = drawn(Network(eye, LSTM(8), Regression(("a",))), (41, 53, 3))
    raws = np.random.default_rng(1).integers(0, 256, (20, 3, 41, 53, 3), np.uint8)
    assert agreement(model, raws) < 1e-4


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_crop_and_size_is_prepared_to_the_last_bit(data):
    sizes = st.integers(6, 40)
    raw = (data.draw(sizes), data.draw(sizes), data.draw(st.integers(1, 4)))
    cut = st.sampled_from([0.0, 0.1, 0.25, 0.4])
    pixels = Picture(data.draw(sizes), data.draw(sizes), data.draw(cut), data.draw(cut))
    model = Network(Conv((2,), (3,), (2,), 4, pixels=pixels), RNN(2), Regression(("a",))).build(raw).eval()
    seed = data.draw(st.integers(0, 99))
    agreement(model, np.random.default_rng(seed).integers(0, 256, (2, 2, *raw), np.uint8))


@pytest.mark.parametrize("symbols", ["", "abcdé"])
def test_texts_agree_and_characters_never_seen_are_class_0(symbols):
    model = drawn(Network(Embedding(symbols, 8), LSTM(8), NextSymbol(symbols=symbols)), (1,))
    known = [97, 101, 233] + ([8364, 10**6] if symbols else [0, 255])
    assert agreement(model, np.random.default_rng(2).choice(known, (200, 3, 1))) < 1e-4


def test_classes_agree():
    model = drawn(Network(Identity(), GRU(6), Classification(classes=4)), (5,))
    assert agreement(model, np.random.default_rng(3).normal(size=(50, 2, 5)).astype(np.float32)) < 1e-4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = small("steer")
    recipe = replace(recipe, encoder=replace(recipe.encoder, frames=1))  # Its first state is the core's.
    return fit(
        "steer", replace(recipe, training=replace(recipe.training, steps=40)), tmp_path_factory.mktemp("run") / "a"
    )


@pytest.fixture(scope="module")
def exported(run):
    return export(run, run.folder / "export", int8=True)


def test_the_file_says_what_a_program_has_to_know(run, exported):
    file = ort.InferenceSession(exported.folder / "step.onnx", providers=["CPUExecutionProvider"])
    about = {k: json.loads(v) for k, v in file.get_modelmeta().custom_metadata_map.items()}
    assert about["targets"] == ["steer"]
    assert "positive to the left" in about["units"]["steer"]
    assert about["raw"] == list(run.raw)
    assert about["flavour"] == "many-to-many"
    assert about["input"] == "picture"
    time_s = run.records()["train"][0]["picture"].time_s
    assert about["rate_hz"] == pytest.approx(1 / (time_s[1] - time_s[0]))
    assert [i.name for i in file.get_inputs()] == ["frame", *about["states"]]
    assert [o.name for o in file.get_outputs()] == ["prediction", *about["states"].values()]
    assert all(i.shape[0] == "batch" for i in (*file.get_inputs(), *file.get_outputs()))


def test_the_runner_says_what_the_model_says(run, exported, tmp_path):
    frames = np.asarray(run.records()["test"][0]["picture"].values[:30])
    np.save(tmp_path / "frames.npy", frames)
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['steersman'] = sys.modules['onnx'] = None; "
        "runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(exported.folder / "run.py"), str(tmp_path / "frames.npy")]
    small = [*command, "--model", str(exported.folder / "step.int8.onnx")]
    said, roughly = (subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in (command, small))
    said = said.splitlines()
    assert len(roughly.splitlines()) == len(said)
    model, state = run.model(), None
    for line, frame in zip(said, frames, strict=True):
        expected, state = model.step(frame, state)
        assert json.loads(line) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["chars", "bytes"])
def test_a_model_of_a_text_is_exported_in_int8_and_its_runner_reads_every_sign(name, tmp_path):
    recipe = small(name)
    recipe = replace(recipe, training=replace(recipe.training, steps=2))
    run = fit(name, recipe, tmp_path / "run", say=lambda text: None)
    done = export(run, run.folder / "export", int8=True)
    assert done.measure == "nats"
    assert done.int8_error == pytest.approx(done.error, rel=0.1)
    text = "the sea\r\nthe wind\r\r\n\ufeff\n"
    (tmp_path / "text.txt").write_bytes(text.encode())
    command = [sys.executable, str(done.folder / "run.py"), str(tmp_path / "text.txt")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    codes = list(map(ord, text)) if name == "chars" else text.encode()
    model, state = run.model(), None
    for line, code in zip(said, codes, strict=True):
        expected, state = model.step(np.array([code]), state)
        assert json.loads(line) == expected


def test_int8_is_scored_on_held_out_records_beside_float32(run, exported):
    test = run.records()["test"]
    model = run.model()
    squares = [
        (predicted[:, 0] - example.y[:, 0]) ** 2
        for example, predicted in zip(
            run.recipe.examples(model, test), model.predict(run.recipe.examples(model, test)), strict=True
        )
    ]
    assert exported.error == pytest.approx(np.concatenate(squares).mean() ** 0.5, rel=1e-4)
    assert exported.int8_error != exported.error
    assert exported.int8_error < 1.02 * exported.error
    kinds = {n.op_type for n in onnx.load(exported.folder / "step.int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds


def test_a_recurrence_that_loses_too_much_stays_in_float32(run, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "MOST_LOST", -1.0)
    done = export(run, tmp_path / "a", int8=True)
    assert done.floats == ("core", "head")
    nodes = onnx.load(done.folder / "step.int8.onnx").graph.node
    core = [n for n in nodes if n.op_type == "Gemm" and n.name.startswith("core")]
    assert core
    assert not any("DequantizeLinear" in name for n in core for name in n.input)


def test_the_head_stays_in_float32(run, exported):
    """Its rounding went straight into the prediction: on a real drive it cost a tenth of the error."""
    assert exported.floats == ("head",)
    nodes = onnx.load(exported.folder / "step.int8.onnx").graph.node
    (head,) = (n for n in nodes if n.op_type == "Gemm" and n.name.startswith("head"))
    assert not any("DequantizeLinear" in name for name in head.input)


@pytest.mark.parametrize(("step", "what"), [("next_state_0", "next_state_0"), ("prediction", "prediction")])
def test_a_graph_that_disagrees_is_refused_and_nothing_is_left(run, tmp_path, monkeypatch, step, what):
    def wrong(model):
        whole = step_graph(model)
        node = next(n for n in whole.graph.node if step in n.output)
        node.output[0] = "right"
        off = onnx.helper.make_node("Constant", [], ["off"], value_float=1e-2)
        whole.graph.node.extend([off, onnx.helper.make_node("Add", ["right", "off"], [step])])
        return whole

    monkeypatch.setattr(exporting, "step_graph", wrong)
    with pytest.raises(UserError, match=rf"at step 0 of a batch of 1, {what} differs from PyTorch's by 0\.0\d"):
        export(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_state_that_does_not_go_round_is_found(run):
    """A graph that forgets agrees at the first step and not at the second."""
    model = run.model()
    whole = step_graph(model)
    zero = onnx.helper.make_node("Mul", ["state_0", "nought"], ["forgotten"])
    for node in whole.graph.node:
        node.input[:] = ["forgotten" if name == "state_0" else name for name in node.input]
    whole.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((), np.float32), "nought"))
    whole.graph.node.insert(0, zero)
    with pytest.raises(UserError, match="at step 1 of a batch of 3"):
        disagreement(whole.SerializeToString(), model, exporting.raw_steps(run, run.records()["train"], 3))


def test_the_command_prints_what_int8_loses_and_refuses_with_exit_code_2(run, tmp_path, capsys):
    main(["export", str(run.folder), "--out", str(tmp_path / "a"), "--int8"])
    said = capsys.readouterr().out
    assert re.search(r"greatest difference from PyTorch: \d.*e-", said)
    assert re.search(r"step.int8.onnx: RMSE of steer 0\.\d+ on held-out records, in float32 0\.\d+ \([+-]\d", said)
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(run.folder), "--out", str(tmp_path / "taken")])
    assert stopped.value.code == 2


def test_a_folder_that_is_no_export_is_left_alone(run, tmp_path):
    write_file(tmp_path / "mine" / "thesis.txt", b"years")
    with pytest.raises(UserError, match="is not an export"):
        export(run, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_bytes() == b"years"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_an_export_is_replaced(run, tmp_path):
    export(run, tmp_path / "a", int8=True)
    export(run, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["run.py", "step.onnx"]
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_what_has_no_step_is_refused_with_the_reason():
    both = Network(Identity(), Bidirectional(LSTM(4)), Regression()).build((3,))
    with pytest.raises(UserError, match="not causal"):
        step_graph(both)
    with pytest.raises(UserError, match="reads a whole source"):
        step_graph(built(small("translate"))[0])


class Same(LSTMCore):
    def step_gates(self, x, state):
        return {}


class Other(LSTMCore):
    def run(self, x, state, lengths):
        return super().run(2 * x, state, lengths)


class Further(Other):
    pass


def own(kind: type[LSTMCore]):
    model = drawn(Network(Identity(), LSTM(4), Regression(("a",))), (3,))
    model.core.__class__ = kind
    return model


def test_a_core_of_ones_own_is_exported_where_it_computes_what_its_parent_does_or_has_a_form_of_its_own():
    raws = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    assert agreement(own(Same), raws) < 1e-4
    for kind in (Other, Further):
        with pytest.raises(UserError, match=f"{kind.__name__} can't be exported: its `run` is its own.*LSTMCore"):
            step_graph(own(kind))

    @onnx_form(Other)
    def doubled(graph, core, x, state):
        return onnx_form.known[LSTMCore](graph, core, graph.op("Add", x, x), state)

    try:
        assert agreement(own(Other), raws) < 1e-4
        assert agreement(own(Further), raws) < 1e-4
    finally:
        del onnx_form.known[Other]


def test_a_part_of_a_kind_without_a_form_is_refused():
    class Head(nn.Module):
        pass

    with pytest.raises(NoForm, match=r"Head can't be exported: it has no form in ONNX here; there are .*LSTMCore"):
        onnx_form.of(Head())


def test_sessions_step_side_by_side_and_never_mix(run):
    model, stepping = run.model(), Stepping(run.model())
    drives = [np.asarray(r["picture"].values[:20]) for r in records(run.recipe.source)[:3]]
    sessions, states = [stepping.session() for _ in drives], [None] * 3
    for step in range(20):
        for i, (session, frames) in enumerate(zip(sessions, drives, strict=True)):
            expected, states[i] = model.step(frames[step], states[i])
            assert session.step(frames[step]) == pytest.approx(expected, abs=1e-4)


def test_a_session_begins_anew_and_its_state_can_be_put_back(run):
    stepping, frames = Stepping(run.model()), np.asarray(records(run.recipe.source)[0]["picture"].values[:8])
    whole = [stepping.step(f) for f in frames]
    stepping.reset()
    assert [stepping.step(f) for f in frames[:3]] == whole[:3]
    other = stepping.session()
    for f in frames[:3]:
        other.step(f)
    last = stepping.session()
    last.state = other.state
    assert [last.step(f) for f in frames[3:]] == whole[3:]
    with pytest.raises(UserError, match="takes steps of shape"):
        last.step(frames[0][1:])
    with pytest.raises(ValueError, match="another model"):
        last.state = [array[:, 1:] for array in other.state]


def test_a_text_is_stepped_and_what_is_no_state_is_left_out():
    model = drawn(Network(Embedding("abc", 8), GRU(8), NextSymbol(symbols="abc")), (1,))
    stepping, state = Stepping(model), None
    for code in map(ord, "abcacbxabc"):
        expected, state = model.step(np.array([code]), state)
        assert stepping.step(np.array([code])) == expected


def test_carried_graph_steps_many_rows(run):
    model = run.model()
    frames = np.stack([np.asarray(r["picture"].values[:5]) for r in records(run.recipe.source)[:4]], 1)
    made = step_graph(model).SerializeToString()
    together = Carried(made, model.initial(4))
    alone = [Carried(made, model.initial(1)) for _ in range(4)]
    for raw in frames:
        rows = together.step(raw)["prediction"]
        for i, one in enumerate(alone):
            np.testing.assert_allclose(one.step(raw[i : i + 1])["prediction"][0], rows[i], atol=1e-5)


def test_without_onnx_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'steersman\[export\]'"):
        export(run, Path("nowhere"))
