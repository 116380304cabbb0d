"""The doctor: its measures against brute force, and every kind of finding with its fault and without."""

import json
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import small

from steersman.__main__ import main
from steersman.data.batches import Batch
from steersman.doctor import KINDS, examine, patient_of
from steersman.doctor.findings import Stretch, stretch
from steersman.doctor.gradients import gradient_by_lag, horizon
from steersman.doctor.live import Live
from steersman.doctor.memory import loss_by_reach, memory_used
from steersman.doctor.selftest import FAULTS, TUNED_SEEDS, faulty, scored, seeds_of, sensor, trained
from steersman.doctor.surface import curvature, lanczos
from steersman.doctor.visit import report
from steersman.errors import NotFinite, UserError
from steersman.evaluation.report import report_run
from steersman.nn.cores import GRU, LSTM, RNN, Bidirectional, Memoryless, Stack
from steersman.nn.encoders import Identity
from steersman.nn.heads import Regression
from steersman.nn.model import Network
from steersman.training.checkpoints import read_tensors, write_tensors
from steersman.training.fit import fit
from steersman.training.prepare import prepare
from steersman.training.run import Run
from steersman.training.trainer import Trainer, read_log


def made(core, features: int = 3, skip: bool = False) -> Any:
    torch.manual_seed(0)
    model = Network(Identity(), core, Regression(("y",)), skip=skip).build((features,)).double().eval()
    model.head.loss = lambda raw, y: (raw - y).square().sum(-1)  # The head's own is in float32.
    return model


def drawn(rows: int = 3, steps: int = 12, features: int = 3) -> Stretch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, steps, features, generator=generator, dtype=torch.float64)
    y = torch.randn(rows, steps, 1, generator=generator, dtype=torch.float64)
    return Stretch(x, x, y, torch.ones(rows, steps, dtype=torch.float64))


def one_by_one(model, held: Stretch, end: int, lag: int) -> tuple[float, float]:
    """The same by torch's own cells' equations, written out, with the state at one lag as the only leaf."""
    core, head = model.core, model.head
    h = torch.zeros(len(held.x), core.hidden, dtype=torch.float64)
    leaf = h
    for t in range(end + 1):
        x = held.feature[:, t]
        h = torch.tanh(x @ core.weight_ih.T + core.bias_ih + h @ core.weight_hh.T + core.bias_hh)
        if t == end - lag:
            leaf = h = h.detach().requires_grad_()
    loss = head.loss(head.linear(h)[:, None], held.y[:, end : end + 1]).sum()
    return float(torch.autograd.grad(loss, leaf)[0].norm()), _input(model, held, end, lag)


def _input(model, held: Stretch, end: int, lag: int) -> float:
    x = held.feature[:, : end + 1].clone().requires_grad_()
    y, _ = model.core(x, model.core.initial(len(x)))
    y = torch.cat((y, x), -1) if model.skip else y
    loss = model.head.loss(model.head(y[:, -1:]), held.y[:, end : end + 1]).sum()
    return float(torch.autograd.grad(loss, x)[0][:, end - lag].norm())


def test_gradient_by_lag_is_brute_force_autograd():
    model, held = made(RNN(5)), drawn()
    state, inputs = gradient_by_lag(model, held.feature, held.y, [11], 8)
    for lag in range(9):
        by_state, by_input = one_by_one(model, held, 11, lag)
        assert state[0, lag].item() == pytest.approx(by_state, rel=1e-6)
        assert inputs[lag].item() == pytest.approx(by_input, rel=1e-6)


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("core", [GRU(4), LSTM(4), Stack((LSTM(4), GRU(3)))])
def test_gradient_by_lag_of_inputs_for_every_core(core, skip):
    model, held = made(core, skip=skip), drawn()
    _, inputs = gradient_by_lag(model, held.feature, held.y, [11], 8)
    for lag in range(9):
        assert inputs[lag].item() == pytest.approx(_input(model, held, 11, lag), rel=1e-6)


def test_horizon_is_where_the_gradient_is_a_hundredth():
    assert horizon(torch.tensor([0.5**i for i in range(20)])) == pytest.approx(np.log(100) / np.log(2), rel=1e-4)
    assert horizon(torch.ones(20)) == float("inf")
    assert horizon(torch.zeros(20)) == 0


@pytest.mark.parametrize("size", [3, 12, 30])
def test_lanczos_gives_the_eigenvalues_of_a_matrix(size):
    generator = torch.Generator().manual_seed(size)
    half = torch.randn(size, size, generator=generator, dtype=torch.float64)
    matrix = half + half.T
    found = lanczos(lambda v: matrix @ v, torch.randn(size, generator=generator, dtype=torch.float64), size)
    assert np.allclose(found, torch.linalg.eigvalsh(matrix).numpy(), atol=1e-8)


@pytest.mark.parametrize("core", [RNN(2), GRU(2), LSTM(2)])
def test_curvature_is_that_of_the_full_hessian(core):
    model, held = made(core, features=2), drawn(2, 6, 2)
    names = [n for n, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([s.numel() for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        batch = Batch(held.x, held.y, held.mask, torch.ones(2, dtype=torch.bool))
        raw, _ = torch.func.functional_call(model, weights, (batch, model.initial(2)))
        total, weight = model.loss(batch, raw)
        return total / weight

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    hessian = torch.autograd.functional.hessian(loss, flat)
    slope, eigenvalues = curvature(model, held, iterations=60)
    true = torch.linalg.eigvalsh(hessian).numpy()  # pyright: ignore[reportArgumentType]
    assert eigenvalues[[0, -1]] == pytest.approx(true[[0, -1]], abs=1e-6)
    assert slope == pytest.approx(float(torch.autograd.functional.jacobian(loss, flat).norm()), rel=1e-6)  # pyright: ignore


@pytest.mark.parametrize("core", [LSTM(4), LSTM(4, projection=2), GRU(4)])
def test_gates_explain_the_output(core):
    model, held = made(core), drawn()
    state = model.core.initial(len(held.x))
    y, values = model.core(held.feature, state)[0], model.core.gates(held.feature, state)
    h, c = y.new_zeros(3, model.core.size), y.new_zeros(3, 4)
    for t in range(held.steps):
        wide = held.x[:, t] @ model.core.weight_ih.T + model.core.bias_ih
        round_ = h @ model.core.weight_hh.T + model.core.bias_hh
        if isinstance(core, LSTM):
            g = torch.tanh((wide + round_).split(4, 1)[2])
            c = values["forget"][:, t] * c + values["input"][:, t] * g
            h = values["output"][:, t] * torch.tanh(c)
            h = h if model.core.projection is None else h @ model.core.projection.T
        else:
            n = torch.tanh(wide.split(4, 1)[2] + values["reset"][:, t] * round_.split(4, 1)[2])
            h = (1 - values["update"][:, t]) * n + values["update"][:, t] * h
        assert torch.allclose(h, y[:, t], atol=1e-9)


def test_memory_used_is_what_the_model_looks_back():
    """A core that adds up the last input and the one before, by hand: a reach of two is all it needs."""
    model = made(RNN(2, "relu"), features=1)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.core.weight_ih[0, 0] = model.core.weight_hh[1, 0] = 1.0
        model.head.linear.weight[0, 1] = 1.0
    x = torch.rand(4, 40, 1, dtype=torch.float64)
    y = torch.cat((torch.zeros(4, 1, 1, dtype=torch.float64), x[:, :-1]), 1)
    held = Stretch(x, x, y, torch.ones(4, 40))
    rows = loss_by_reach(model, held, replace=False)
    assert memory_used(rows) == 2
    assert rows[0][1] > 0.01
    assert rows[1][1] == pytest.approx(0)
    assert memory_used(loss_by_reach(model, held, replace=True)) == 2


@cache
def healthy() -> set[str]:
    return {f.kind for f in examine(trained(sensor(np.random.default_rng(7)))).findings}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_and_a_healthy_model_has_none(kind):
    case, _ = faulty(kind, 0 if kind == "predicts-mean" else 12)  # It misses the one of 12.
    found = examine(trained(case)).findings
    assert kind in {f.kind for f in found}
    assert kind not in healthy()


def test_looking_while_training_changes_nothing_and_says_what_it_sees(tmp_path):
    case, said = sensor(np.random.default_rng(1)), []
    case.train(learning_rate=2.0, steps=6)
    recipe, logs = case.recipe, []
    for look in (None, Live(said.append, every=2)):
        torch.manual_seed(0)
        made = prepare(recipe, case.records)
        folder = tmp_path / str(len(logs))
        Trainer(made.model, made.batches, recipe.training, folder, say=lambda line: None, look=look).run()
        logs.append(read_log(folder))
    assert [r["loss"] for r in logs[0]] == [r["loss"] for r in logs[1]]
    assert [r["step"] for r in logs[1] if "gradient_horizon" in r][:1] == [2]
    assert sum("rate-too-high" in line for line in said) == 1


def test_every_kind_is_planted_and_seeds_of_tuning_are_never_judged():
    assert set(FAULTS) == set(KINDS)
    assert len(KINDS) >= 24
    assert all(not set(f.tuned) & set(f.tested) or len(set(f.tuned)) == 1 for f in FAULTS.values())
    with pytest.raises(UserError, match="--seed"):
        seeds_of(TUNED_SEEDS[0] // 3)
    assert max(seeds_of(TUNED_SEEDS[0] // 3 - 1)) < min(TUNED_SEEDS)


def test_scores_count_what_was_found():
    def row(planted, *found):
        return {"planted": planted, "severity": 1, "recipe": "text", "seed": 0, "found": list(found), "evidence": {}}

    scores = scored([row("overfit", "overfit"), row("overfit", "saddle"), row(None), row(None, "saddle")])
    assert (scores["recall"], scores["false_alarms"], scores["kinds"]) == (0.5, 0.5, 1)
    assert len(scores["missed"]) == len(scores["false"]) == 1


def test_findings_that_do_not_apply_are_named():
    case = sensor(np.random.default_rng(3))
    case.train(steps=3)
    case.change(core=Memoryless())
    left = examine(trained(case)).skipped
    assert "no memory" in left["gradient by lag"]
    assert "targets" not in left
    case.change(core=Bidirectional(GRU(8)))
    left = examine(trained(case)).skipped
    assert "bidirectional" in left["gradient by lag"]
    assert "held-out gap" not in left


def test_a_state_that_grows_beyond_all_bounds_is_a_finding():
    case = sensor(np.random.default_rng(3), steps=700)
    case.train(steps=3)
    case.change(core=RNN(24, "relu"))
    patient = trained(case)
    with torch.no_grad():
        patient.model.core.weight_hh.copy_(4 * torch.eye(24))
    found = examine(patient)
    assert any(f.kind == "state-drift" and f.severity == 1 for f in found.findings)
    assert "grows to NaN or infinity" in found.skipped["held-out gap"]
    json.dumps(found.json(), allow_nan=False)


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    recipe = small("echo")
    recipe = replace(recipe, training=replace(recipe.training, steps=4))
    return fit("echo", recipe, tmp_path_factory.mktemp("echo") / "run", say=lambda text: None)


def spoilt(run, folder: Path, which: str, value: float) -> Path:
    """A copy of a run with such a number among its weights."""
    shutil.copytree(run.folder, folder)
    weights = read_tensors(folder / "model.safetensors")
    tensor = next(t for name, t in weights.items() if which in name and t.is_floating_point())
    tensor.view(-1)[-1 if np.isnan(value) else slice(None)] = value
    write_tensors(folder / "model.safetensors", weights)
    return folder


@pytest.mark.parametrize("which", ["core", "head", "mean"])
def test_weights_that_are_no_numbers_are_told_by_the_doctor_and_refused_by_all_else(which, echo, tmp_path, capsys):
    run = spoilt(echo, tmp_path / "run", which, float("nan"))
    for command in ("evaluate", "explain", "export", "live"):
        with pytest.raises(SystemExit) as end:
            main([command, str(run), *(["--port", "0", "--no-open"] if command == "live" else [])])
        assert end.value.code == 2
        assert re.search(f"1 of the .*{which}.* NaN or infinite; ask `steersman doctor", capsys.readouterr().err)
    main(["doctor", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["kind"] == "not-finite"
    assert which in found["findings"][0]["evidence"]
    assert "losses and gradients" in found["skipped"]


def test_what_is_said_by_weights_that_are_too_large_is_told_and_refused(echo, tmp_path, capsys):
    run = spoilt(echo, tmp_path / "run", "head.linear.weight", 3e38)
    main(["doctor", str(run), "--json"])
    found = json.loads(capsys.readouterr().out)["findings"]
    assert found[0]["kind"] == "not-finite"
    assert "of a stretch of held-out records" in found[0]["evidence"]
    with pytest.raises(NotFinite), np.errstate(all="ignore"):
        report_run(Run.open(run))


def test_a_stretch_of_whole_records_where_each_has_one_answer(tmp_path):
    recipe = small("digits")
    recipe = replace(recipe, training=replace(recipe.training, steps=4))
    run = fit("digits", recipe, tmp_path / "run", say=lambda text: None)
    patient = patient_of(run)
    held = stretch(patient.model, patient.shown["validation"])
    assert held.y.ndim == 2
    assert "targets" in examine(patient).skipped


def test_command_writes_its_page_and_says_what_it_left_out(tmp_path, capsys):
    recipe = small("translate")
    recipe = replace(recipe, training=replace(recipe.training, steps=3, validate_every=3))
    fit("translate", recipe, tmp_path / "run", say=lambda text: None)
    main(["doctor", str(tmp_path / "run"), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert "encoder-decoder" in said["skipped"]["gradient by lag"]
    assert "splits" in said["looked_at"]
    assert "encoder-decoder" in (tmp_path / "run" / "doctor.html").read_text()


def test_a_page_shows_what_was_looked_at_where_nothing_is_found():
    case = sensor(np.random.default_rng(7))
    diagnosis = examine(trained(case))
    assert not diagnosis.findings
    page = report("healthy", diagnosis)
    captions = [block.caption for block in page.sections[-1].blocks]
    assert any("as gradient by lag was looked at" in caption for caption in captions)
    assert len(captions) >= 5
    ill = examine(trained(faulty("vanishing-gradient", 12)[0]))
    captions = [block.caption for section in report("ill", ill).sections for block in section.blocks]
    assert sum(caption.startswith("Gradient, beside that at its own step") for caption in captions) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    for arguments in (["doctor"], ["doctor", str(tmp_path)], ["doctor", str(tmp_path / "none")]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    recipe = small("echo")
    recipe = replace(recipe, training=replace(recipe.training, steps=3))
    fit("echo", recipe, tmp_path / "run", say=lambda text: None)
    (tmp_path / "run" / "model.safetensors").unlink()
    with pytest.raises(SystemExit):
        main(["doctor", str(tmp_path / "run")])
    assert "no weights yet" in capsys.readouterr().err
