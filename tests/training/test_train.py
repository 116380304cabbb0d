"""The loop: what it computes, when it stops, what it survives."""

import ctypes
import json
import os
import random
import runpy
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import Killed, batches, built, deep, outcome, small, trainer
from torch import nn

from steersman.data.batches import Batches, Lanes, Windows
from steersman.data.examples import Example
from steersman.data.records import Record, Stream
from steersman.errors import UserError
from steersman.nn.cores import detach
from steersman.processes import on_threads
from steersman.training.checkpoints import Checkpoints, read_tensors
from steersman.training.fit import fit
from steersman.training.prepare import prepare
from steersman.training.run import Run
from steersman.training.trainer import Trainer, Training, _interrupts, choose_precision, choose_threads, read_log

TESTS = Path(__file__).parents[1]
SHORT = {"steps": 12, "warmup": 2, "checkpoint_every": 5, "validate_every": 4}


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder)]


@pytest.mark.parametrize("recipe", [small("steer"), small("echo"), small("digits")], ids=["steer", "echo", "digits"])
def test_the_loop_is_truncated_backpropagation_through_time_as_by_hand(recipe, tmp_path):
    recipe = replace(recipe, training=replace(recipe.training, **SHORT, clip_norm=0.1))
    made = trainer(recipe, tmp_path)
    made.run()
    model, shown = built(recipe)
    data = batches(recipe, model, shown)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=recipe.training.weight_decay)
    done = []
    for epoch in range(99):
        state = model.initial(data.rows)
        for batch in data.epoch(epoch):
            if len(done) == 12:
                break
            state = state if data.spec.carry else model.initial(data.rows)
            raw, state = model.run(batch.x, state, batch.fresh)
            total, weight = model.loss(batch, raw)
            optimiser.param_groups[0]["lr"] = made.rate(len(done))
            optimiser.zero_grad()
            (total / weight).backward()
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            for p in model.parameters():
                p.grad *= min(1.0, 0.1 / (norm.item() + 1e-6))
            optimiser.step()
            state = detach(state)
            done.append(((total / weight).item(), norm.item()))
    rows = read_log(tmp_path)
    np.testing.assert_allclose([[r["loss"], r["gradient_norm"]] for r in rows], done, rtol=1e-4)
    for a, b in zip(made.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_clip_norm_of_0_clips_nothing(tmp_path):
    logs = []
    for norm in (0.0, 1e9):
        trainer(small("echo"), tmp_path / str(norm), **SHORT, clip_norm=norm).run()
        logs.append(losses(tmp_path / str(norm)))
    assert logs[0] == logs[1]
    assert logs[0][-1] < logs[0][0]


@pytest.mark.parametrize("flavour", ["many-to-many", "many-to-one"])
def test_records_of_which_no_step_counts_are_refused_before_training(flavour, tmp_path):
    def weighed(*weight: float) -> Record:
        y = Stream(np.array([1.0, 2.0, 0.0]), np.arange(3.0))
        return Record("r", {"x": y, "y": y, "loss_weight": Stream(np.array(weight), y.time_s)})

    recipe = replace(small("echo"), flavour=flavour)
    counts, idle = weighed(0, 0, 1), weighed(0, 0, 0)
    for parts, said in (
        ({"train": [idle, idle], "validation": [counts]}, "is 0 at every .*step of all 2 training records"),
        ({"train": [counts], "validation": [idle]}, "is 0 at every .*step of all 1 validation records"),
        ({"train": [weighed(1, -2, 1)], "validation": []}, "loss_weight at step 1 is -2"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(recipe, parts)
    made = prepare(recipe, {"train": [idle, counts], "validation": [counts]})
    assert made.validate is not None
    assert made.validate(made.model) > 0


def test_the_rate_warms_up_in_a_line_and_falls_as_torchs_cosine(tmp_path):
    made = trainer(small("echo"), tmp_path, steps=40, warmup=10, learning_rate=0.1, final_learning_rate=0.01)
    rates = [made.rate(step) for step in range(40)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 100)
    weights = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(weights, T_max=30, eta_min=0.01)
    expected = []
    for _ in range(30):
        expected.append(cosine.get_last_lr()[0])
        weights.step()
        cosine.step()
    np.testing.assert_allclose(rates[10:], expected, rtol=1e-6)


def plant(made: Trainer, step: int, times: int, value: float = float("nan")) -> None:
    """Makes the loss of a step `value` times what it is, the first so many times it is reached."""
    forward, left = made.forward, [times]

    def planted(batch, dtype):
        loss, state = forward(batch, dtype)
        if made.at.step == step and left[0] > 0:
            left[0] -= 1
            loss = loss * value
        return loss, state

    made.forward = planted


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
@pytest.mark.parametrize("times", [1, 2])
def test_an_explosion_rolls_back_to_the_last_checkpoint_with_half_the_rate(tmp_path, times, value):
    made, said = trainer(small("steer"), tmp_path, **SHORT), []
    made.say = said.append
    plant(made, 7, times, value)
    made.run()
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 13))  # each step once, as it was done in the end
    assert all(np.isfinite(row["loss"]) for row in rows)
    halved = 0.5**times
    np.testing.assert_allclose([r["rate"] for r in rows[:5]], [made.rate(s) for s in range(5)])
    np.testing.assert_allclose([r["rate"] for r in rows[5:]], [halved * made.rate(s) for s in range(5, 12)])
    assert len(said) == times
    assert "back to step 5" in said[0]
    assert f"with {halved:g} of the rate" in said[-1]


def test_a_third_explosion_stops_with_the_cause(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT)
    plant(made, 7, 3)
    with pytest.raises(UserError, match=r"third time: at step 7 the loss is nan.*training\.learning-rate"):
        made.run()
    assert Checkpoints(tmp_path / "checkpoints").steps() == [0, 5]  # and what was good is still there


@pytest.mark.parametrize("spoiled", ["x", "y"])
def test_a_value_that_is_no_number_stops_training_with_the_cause(tmp_path, spoiled):
    model, shown = built(small("echo"))
    values = getattr(shown[3], spoiled).copy()
    values[5] = np.nan
    shown[3] = replace(shown[3], **{spoiled: values})
    made = Trainer(model, Batches(Windows(4), shown, ("y",)), Training(**SHORT | {"steps": 40}), tmp_path)
    with pytest.raises(UserError, match="the loss is nan"):
        made.run()


def test_a_rate_far_too_high_stops_training_with_the_cause(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT | {"steps": 60, "warmup": 0, "learning_rate": 1e18})
    with pytest.raises(UserError, match="third time"):
        made.run()


def test_a_rollback_across_an_epoch_shows_the_same_batches_again(tmp_path):
    made, seen = trainer(small("steer"), tmp_path, **SHORT | {"steps": 30, "checkpoint_every": 99}), []
    first = len(made.batches.epoch(0))
    assert first < 29
    plant(made, first, 1)
    next_batch = made._next_batch

    def watched():
        seen.append(next_batch())
        return seen[-1]

    made._next_batch = watched
    made.run()
    again = first + 1  # batches seen before it exploded, the last of them of the second epoch
    for before, after in zip(seen[:again], seen[again : 2 * again], strict=True):
        assert torch.equal(before.x, after.x)
        assert torch.equal(before.y, after.y)
    assert losses(tmp_path)[:3] != []


def test_the_usual_loss_is_a_slow_average(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT)
    made.run()
    first, *rest = losses(tmp_path)
    usual = first
    for loss in rest:
        usual = 0.98 * usual + 0.02 * loss
    assert made.at.first == first
    assert made.at.smooth == pytest.approx(usual)


def test_one_hard_example_late_in_training_is_no_explosion(tmp_path):
    made, said = trainer(small("steer"), tmp_path, **SHORT), []
    made.say = said.append
    made.run()
    made.at.first, made.at.smooth, made.at.step = 2.3, 1e-4, 1000
    made._check(0.5, 1.0)
    assert said == []


def test_losses_below_zero_are_no_explosion(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT)
    made.at.first, made.at.smooth, made.at.step = 1.0, -3.0, 1000
    made._check(-2.0, 1.0)
    made._check(5.0, 1.0)
    with pytest.raises(Exception, match="leapt"):
        made._check(1e4, 1.0)


def scripted(made: Trainer, scores: list[float]) -> None:
    left = iter(scores)
    made.validate = lambda model: next(left)


def test_training_stops_early_and_says_so_and_the_best_is_kept(tmp_path):
    made, said = trainer(small("steer"), tmp_path, **SHORT | {"steps": 99, "patience": 2}), []
    made.say = said.append
    scripted(made, [3.0, 1.0, 2.0, 1.5])
    weights = {}
    look = made._look

    def watched():
        weights[made.at.step] = {k: v.clone() for k, v in made.model.state_dict().items()}
        return look()

    made._look = watched
    made.run()
    assert made.at.step == 16
    assert "no better for 2 looks" in said[0]
    best = read_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(best[name], value) for name, value in weights[8].items())
    assert [r["validation"] for r in read_log(tmp_path) if "validation" in r] == [3.0, 1.0, 2.0, 1.5]


def test_a_run_that_stopped_early_is_not_trained_further_when_resumed(tmp_path):
    short = SHORT | {"steps": 99, "patience": 1, "learning_rate": 0.0, "final_learning_rate": 0.0}
    trainer(small("steer"), tmp_path, **short).run()
    before = outcome(tmp_path)
    trainer(small("steer"), tmp_path, **short).run()
    assert outcome(tmp_path) == before


def test_a_state_that_ran_away_in_validation_is_an_explosion(tmp_path):
    def validate(model):
        raise ValueError("state[0]: expected finite numbers, got NaN or infinity")

    run = trainer(small("echo"), tmp_path, steps=9, validate_every=3, checkpoint_every=3)
    run.validate = validate
    with pytest.raises(UserError, match="a third time: at step 3 the validation records"):
        run.run()


def test_without_validation_the_last_weights_are_the_models(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT)
    made.validate = None
    made.run()
    last = read_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(last[name], value) for name, value in made.model.state_dict().items())


def test_the_precision_is_measured_written_down_and_kept(tmp_path, monkeypatch):
    with pytest.raises(Killed):
        trainer(small("steer"), tmp_path, 6, **SHORT | {"precision": "auto"}).run()
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    chosen = checkpoints.read(5)[1]["dtype"]
    assert chosen in ("float32", "bfloat16")
    monkeypatch.setattr("steersman.training.trainer.choose_precision", lambda trainer: pytest.fail("measured anew"))
    made = trainer(small("steer"), tmp_path, **SHORT | {"precision": "auto"})
    made.run()
    assert made.at.dtype == chosen


def test_measuring_the_precision_changes_nothing_but_the_precision(tmp_path):
    made = trainer(deep(), tmp_path, precision="auto")
    weights = [p.clone() for p in made.model.parameters()]
    before = torch.get_rng_state()

    choose_precision(made)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, made.model.parameters(), strict=True))
    assert all(p.grad is None for p in made.model.parameters())


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.3}, 6),
        ({1: 1.0, 2: 0.6, 4: 0.59, 6: 0.58}, 2),
        ({1: 1.0, 2: 0.97, 4: 0.99, 6: 1.2}, 1),
    ],
)
def test_the_fewest_threads_that_are_about_as_fast_are_taken_written_down_and_kept(
    tmp_path, monkeypatch, seconds, chosen
):
    # Stands in for the clock: what a step would take on so many threads.
    measured = contextmanager(lambda trainer: iter([lambda dtype: seconds[torch.get_num_threads()]]))
    monkeypatch.setattr("steersman.training.trainer._trial", measured)
    with on_threads(6):
        with pytest.raises(Killed):
            trainer(small("steer"), tmp_path, 6, **SHORT | {"precision": "float32"}).run()
        assert torch.get_num_threads() == 6
        assert Checkpoints(tmp_path / "checkpoints").read(5)[1]["threads"] == chosen
        monkeypatch.setattr("steersman.training.trainer.choose_threads", lambda trainer: pytest.fail("measured anew"))
        used = []
        made = trainer(small("steer"), tmp_path, **SHORT | {"precision": "float32"})
        made.look = lambda *_: used.append(torch.get_num_threads()) or {}
        made.run()
    assert set(used) == {chosen}


def test_measuring_the_threads_changes_nothing(tmp_path):
    made = trainer(deep(), tmp_path, precision="float32")
    weights, before = [p.clone() for p in made.model.parameters()], torch.get_rng_state()
    with on_threads(2):
        assert choose_threads(made) in (1, 2)
        assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(weights, made.model.parameters(), strict=True))


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_memory_of_a_step_is_not_asked_for_anew():
    script = """
import resource
from steersman.processes import keep_memory
keep_memory()
import torch
pages = []
for _ in range(5):
    blocks = [torch.ones(n, 1_000_000) for n in (1, 7, 5, 7, 3)]
    del blocks
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(pages[-1] - pages[-2])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # 92 MB are 22,000 pages


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_precisions_learn(tmp_path, dtype):
    short = SHORT | {"steps": 60, "learning_rate": 1e-2, "validate_every": 30, "precision": dtype}
    trainer(small("steer"), tmp_path, **short).run()
    assert np.mean(losses(tmp_path)[-15:]) < 0.8 * np.mean(losses(tmp_path)[:15])


def test_events_for_tensorboard_are_an_extra(tmp_path):
    pytest.importorskip("tensorboard")
    trainer(small("steer"), tmp_path, **SHORT, tensorboard=True).run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    np.testing.assert_allclose([e.value for e in events.Scalars("loss")], losses(tmp_path), rtol=1e-6)


def test_without_tensorboard_the_extra_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r'pip install "steersman\[tensorboard\]"'):
        trainer(small("steer"), tmp_path, **SHORT, tensorboard=True).run()


def test_a_half_written_last_line_of_the_log_is_left_out_and_written_anew(tmp_path):
    with pytest.raises(Killed):
        trainer(small("steer"), tmp_path / "a", 8, **SHORT).run()
    with open(tmp_path / "a" / "log.jsonl", "a") as log:
        log.write('{"step": 9, "lo')
    assert [row["step"] for row in read_log(tmp_path / "a")] == list(range(1, 9))
    trainer(small("steer"), tmp_path / "a", **SHORT).run()
    trainer(small("steer"), tmp_path / "b", **SHORT).run()
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")


KILLED = """
import torch
from pathlib import Path
from small import deep, trainer
torch.set_num_threads(1)
made = trainer(deep(), Path({folder!r}), steps=150, warmup=9, checkpoint_every=7, validate_every=16)
print("begun", flush=True)
made.run()
"""


def test_kill_9_at_any_moment_costs_nothing_but_the_steps_since_the_last_checkpoint(tmp_path):
    trainer(deep(), tmp_path / "whole", steps=150, warmup=9, checkpoint_every=7, validate_every=16).run()
    folder = tmp_path / "killed"
    code = KILLED.format(folder=str(folder))
    for moment_s in (*(random.uniform(0.0, 1.0) for _ in range(2)), None):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=TESTS, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            process.wait(moment_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert outcome(folder) == outcome(tmp_path / "whole")


RANKS = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from small import small
from steersman.data.batches import Windows
from steersman.training.fit import fit
torch.set_num_threads(1)
folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])

def watch(what, done, total, note=""):
    if what == "training" and done == kill_at:
        import os
        os._exit(9)

recipe = small("steer")
short = replace(recipe.training, steps=14, warmup=3, checkpoint_every=4, validate_every=5, seed=3)
lanes = replace(recipe, training=short)
fit("lanes", lanes, folder / "lanes", say=lambda text: None, watch=watch)
# 13 rows of unequal length: the last batch has rows with nothing in them, all of those of one process.
windows = replace(lanes, batches=Windows(batch_size=12), split=replace(lanes.split, validation=0.3))
fit("windows", windows, folder / "windows", say=lambda text: None)
"""


def test_without_validation_the_last_weights_are_kept(tmp_path):
    recipe = small("echo")
    recipe = replace(recipe, split=replace(recipe.split, validation=0.0), training=replace(recipe.training, steps=7))
    run = fit("echo", recipe, tmp_path / "run", say=lambda text: None)
    last = Checkpoints(tmp_path / "run" / "checkpoints").read(7)[0]["model"]
    torch.testing.assert_close(dict(run.model().state_dict()), last)


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS), "HOME": str(tmp_path)}

    def run(folder: str, kill_at: int) -> subprocess.CompletedProcess:
        command = [*launch, str(tmp_path / folder), str(kill_at)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    monkeypatch.setattr(sys, "argv", ["ranks.py", str(tmp_path / "one"), "-1"])
    runpy.run_path(str(script))
    assert run("two", -1).returncode == 0
    for part in ("lanes", "windows"):
        alone, together = losses(tmp_path / "one" / part), losses(tmp_path / "two" / part)
        assert len(alone) == len(together) == 14
        np.testing.assert_allclose(together, alone, atol=1e-5)
    assert run("cut", 10).returncode != 0
    assert Checkpoints(tmp_path / "cut" / "lanes" / "checkpoints").steps() == [4, 8]
    assert run("cut", -1).returncode == 0
    assert outcome(tmp_path / "cut" / "lanes") == outcome(tmp_path / "two" / "lanes")


def test_a_checkpoint_holds_all_rows_of_the_global_batch(tmp_path):
    made = trainer(small("steer"), tmp_path, **SHORT)
    made.run()
    assert isinstance(made.batches.spec, Lanes)
    tensors, state = Checkpoints(tmp_path / "checkpoints").read(12)
    assert {len(t) for t in tensors["lanes"].values()} == {made.batches.spec.batch_size}
    assert json.loads(json.dumps(state)) == state


def test_a_record_of_one_step_can_be_trained_on(tmp_path):
    model, shown = built(small("echo"))
    one = [Example(e.name, e.x[:1], e.y[:1], e.time_s[:1]) for e in shown[:3]]
    Trainer(model, Batches(Lanes(2, 4), one, ("y",)), Training(**SHORT), tmp_path).run()
    assert len(losses(tmp_path)) == 12


def test_a_run_whose_steps_are_raised_is_trained_longer_as_if_they_had_been_so_many_from_there_on(tmp_path):
    recipe = replace(small("echo"), training=Training(**SHORT, precision="float32"))
    run = fit("echo", recipe, tmp_path / "run", say=lambda text: None, command="steersman train echo")
    first = losses(run.folder)
    more = replace(recipe, training=replace(recipe.training, steps=20, patience=9))
    again = fit("echo", more, run.folder, say=lambda text: None)
    assert len(losses(run.folder)) == 20
    assert losses(run.folder)[:12] == first
    assert Run.open(run.folder).recipe == again.recipe
    assert again.recipe.training.steps == 20
    assert again.command == "steersman train echo --training.steps 20"
    for wrong in (recipe, replace(more, training=replace(more.training, steps=30, seed=1))):
        with pytest.raises(UserError, match=r"another recipe.*raise --training\.steps to train it longer"):
            fit("echo", wrong, run.folder, say=lambda text: None)


@pytest.mark.parametrize("name", ["echo", "chars", "translate"])
def test_a_run_begins_with_all_that_another_has_learned(name, tmp_path):
    recipe = small(name)
    recipe = replace(recipe, training=replace(recipe.training, **SHORT | {"steps": 2, "validate_every": 2}))
    begun = fit(name, recipe, tmp_path / "begun", say=lambda text: None)
    later = replace(begun.recipe, training=replace(begun.recipe.training, learning_rate=0.0, final_learning_rate=0.0))
    fit(name, later, tmp_path / "later", start=begun.folder, say=lambda text: None)
    old, new = (read_tensors(tmp_path / run / "model.safetensors") for run in ("begun", "later"))
    assert all(torch.equal(new[key], value) for key, value in old.items() if key != "passes")
    for file in recipe.learned_files:
        assert (tmp_path / "later" / file).read_bytes() == (tmp_path / "begun" / file).read_bytes()
    more = replace(later, training=replace(later.training, steps=3))
    assert fit(name, more, tmp_path / "later", start=tmp_path / "gone", say=lambda text: None)  # It has begun.


def test_training_ends_at_its_deadline_and_goes_on_later(tmp_path, monkeypatch):
    recipe, said, clock = replace(small("echo"), training=Training(**SHORT, precision="float32")), [], iter(range(999))
    monkeypatch.setattr("steersman.training.trainer.time.monotonic", lambda: 30.0 * next(clock))
    run = fit("echo", recipe, tmp_path / "run", say=said.append, minutes=2.6)
    assert said == ["the time is over: stopped at step 6 of 12; it can go on from there"]
    rows = read_log(run.folder)
    assert [row["step"] for row in rows if "validation" in row] == [4, 6]
    assert len(rows) == 6
    run.model()
    fit("echo", recipe, tmp_path / "run", say=said.append)
    assert [row["step"] for row in read_log(run.folder)] == list(range(1, 13))
    assert len(said) == 1


def test_a_training_hears_sigterm_but_no_ctrl_c_that_was_ignored_before():
    """A worker's Ctrl-C is its parent's to handle: were it heard, the SIGTERM that follows would be the second."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with _interrupts() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked.is_set()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked.wait(5)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
