"""What holds for every row of WORLDS, and for a world that has no expert."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import few_drives, small

pytest.importorskip("gymnasium", reason="the simulators are an extra")

from steersman.__main__ import main
from steersman.config import from_json, to_json
from steersman.errors import UserError
from steersman.evaluation.page import page
from steersman.nn.cores import LSTM
from steersman.nn.heads import Regression
from steersman.recipes import RECIPES
from steersman.recipes.pendulum.recipes import pendulum
from steersman.sources import read
from steersman.training.fit import fit
from steersman.worlds import WORLDS, CarRacing, SwingUp, World, WorldSpec
from steersman.worlds.dagger import fit_rounds
from steersman.worlds.recording import Recorded, record, recorded_drive, world_of
from steersman.worlds.report import film, report_drives
from steersman.worlds.rollout import drive, drives, expert_policy, policy, rollout
from steersman.worlds.scores import driving_scores
from steersman.worlds.world import Observation, Step, expert_of

QUIET = {"say": lambda text: None}


@pytest.fixture(params=WORLDS)
def spec(request) -> WorldSpec:
    return WORLDS[request.param](max_steps=60)


def random_policy(world: World, seed: int):
    """Torques, pedals and wheels at random: an act that a model could choose."""
    rng = np.random.default_rng(seed)
    return lambda observation, state: ({name: rng.uniform(-1, 1) for name in world.spec.needs}, state)


def steps_of(world: World, seed: int, num: int) -> Iterator[tuple]:
    """Some steps of random actions within the controls."""
    rng = np.random.default_rng(seed)
    low, high = np.array(list(world.controls.values())).T
    yield world.reset(seed)[0], 0.0
    for _ in range(num):
        observation, reward, *_ = world.step(rng.uniform(low, high).astype(np.float32))
        yield observation, reward


def test_a_world_is_a_pure_function_of_seed_and_actions(spec):
    once, again = list(steps_of(spec.build(), 5, 20)), list(steps_of(spec.build(), 5, 20))
    other = list(steps_of(spec.build(), 6, 20))
    assert all(np.array_equal(a, b) and r == q for (a, r), (b, q) in zip(once, again, strict=True))
    assert not all(np.array_equal(a, b) for (a, _), (b, _) in zip(once, other, strict=True))
    world = spec.build()
    list(steps_of(world, 6, 20))
    assert all(np.array_equal(a, b) for (a, _), (b, _) in zip(once, steps_of(world, 5, 20), strict=True))


def test_what_is_seen_is_what_is_announced(spec):
    world = spec.build()
    for observation, _ in steps_of(world, 3, 5):
        assert (str(observation.dtype), observation.shape) == (world.observation.dtype, world.observation.shape)
    scene = world.scene(60, 80)
    assert (scene.dtype, scene.shape) == (np.uint8, (60, 80, 3))
    assert scene.std() > 1
    assert world.render().ndim == 3


def test_steps_time_and_score_are_counted(spec):
    world = spec.build()
    rewards = [reward for _, reward in steps_of(world, 3, 10)]
    assert (world.steps, world.time_s) == (10, 10 / world.rate_hz)
    assert world.score == pytest.approx(sum(rewards))
    world.reset(4)
    assert (world.steps, world.score) == (0, 0.0)


def test_actions_of_predictions_and_of_hands_stay_within_the_controls(spec):
    world, rng = spec.build(render=False), np.random.default_rng(0)
    world.reset(1)
    for _ in range(50):
        wild = {name: rng.normal(0, 5) for name in (*spec.needs, *world.controls)}
        for action in (world.act(wild), world.by_hand(wild)):
            assert action.shape == (len(world.controls),)
            assert all(low <= a <= high for a, (low, high) in zip(action, world.controls.values(), strict=True))


def test_labels_have_the_declared_names_and_lead_to_what_was_done(spec):
    world = spec.build(render=False)
    world.reset(2)
    expert = expert_of(world)
    assert set(spec.needs) <= set(spec.labels)
    for _ in range(20):
        said = expert.act(world)
        assert set(said) == set(spec.labels)
        action = world.act(said)
        done = world.labelled(action)
        assert set(done) == set(spec.labels)
        np.testing.assert_allclose(world.act(done), action, atol=1e-6)
        world.step(action)


def test_facts_and_extras_are_json_and_facts_hold_the_score(spec):
    world = spec.build()
    list(steps_of(world, 3, 10))
    facts = world.facts()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts["score"] == world.score
    json.dumps(world.extras(), allow_nan=False)


def test_the_expert_beats_random_actions_by_far(spec):
    whole = type(spec)()
    world = whole.build(render=False)
    random = [rollout(world, random_policy(world, seed), seed) for seed in range(3)]
    expert = [rollout(world, expert_policy(world), seed) for seed in range(3)]
    assert min(e.score for e in expert) > max(e.score for e in random) + 200
    assert all(e.done_well for e in expert)
    assert not any(e.done_well for e in random)


def test_a_recorded_episode_comes_back_and_equals_one_recorded_again(spec, tmp_path):
    folder = record(spec, tmp_path / "drives", 2, seed=7)
    once, again = (recorded_drive(spec, "expert", (7, 0.12)) for _ in range(2))
    found = read(folder)[0]
    world = spec.build(render=False)
    assert {world.observation.name, *spec.labels, *world.driven} <= set(once)
    for name, values in once.items():
        assert np.array_equal(values, again[name])
        assert np.array_equal(np.asarray(found[name].values[:]), values)
    wished = once[world.driven[0]] - once[spec.needs[0]]
    assert np.abs(wished).max() > 0.01, "what is done is disturbed"


def test_a_world_comes_back_from_json_and_names_its_drives(spec):
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec
    assert type(spec)().name == spec.called
    assert spec.name.startswith(f"{spec.called}-")


@pytest.mark.filterwarnings("ignore:.*Box (action|observation) space")  # Advice on ranges, which are the world's own.
def test_a_world_keeps_gymnasiums_rules(spec):
    from gymnasium.utils.env_checker import check_env

    from steersman.worlds.gymnasium_env import GymnasiumEnv

    check_env(GymnasiumEnv(spec), skip_render_check=True)


def test_episodes_are_scored_filmed_and_told_in_the_worlds_own_words(spec, tmp_path):
    episodes = list(drives(spec, "expert", [5, 6]))
    scores = driving_scores(episodes)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    filmed = film(spec, "expert", 5, tmp_path / "film.mp4")
    trace, _ = filmed
    assert trace is not None
    np.testing.assert_array_equal(trace.prediction, trace.truth)
    html = page(report_drives("it", {"expert": episodes}, filmed))
    assert spec.words.title in html
    others = [kind.words for kind in WORLDS.values() if kind is not type(spec)]
    for word in [w for words in others for w in (words.title, words.rule, words.chosen)]:
        assert word not in html


def test_a_rollout_takes_a_function_and_sees_weights_as_they_are_now():
    """What evolution and reinforcement do: perturb weights in memory and roll out again."""
    recipe = small("pendulum")
    model = recipe.build((2,)).eval()
    world = SwingUp(max_steps=30).build()
    before, again = (rollout(world, policy(model, world), 3).score for _ in range(2))
    assert before == again
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.5 * torch.randn_like(weight, requires_grad=False))
    assert rollout(world, policy(model, world), 3).score != before


def test_a_run_drives_with_the_weights_that_are_on_the_disk_now(tmp_path):
    recipe = small("pendulum")
    recipe = replace(recipe, training=replace(recipe.training, steps=4, warmup=1, validate_every=2))
    run = fit("pendulum", recipe, tmp_path / "run", **QUIET)
    other = fit("pendulum", replace(recipe, training=replace(recipe.training, seed=1)), tmp_path / "other", **QUIET)
    before = drive(SwingUp(), str(run.folder), 3)
    file = run.folder / "model.safetensors"
    file.write_bytes((other.folder / "model.safetensors").read_bytes())
    assert drive(SwingUp(), str(run.folder), 3).score != before.score


def test_the_pendulum_hides_its_velocity_and_a_memory_finds_it(tmp_path):
    """Closed loop: the LSTM brings it up more often than its twin without a memory."""
    source = Recorded(SwingUp(), episodes=60, seed=100_000, folder=str(tmp_path / "drives"))
    found = {}
    for name in ("pendulum", "pendulum-frame"):
        recipe = RECIPES[name](())
        training = replace(recipe.training, steps=500, validate_every=250)
        run = fit(name, replace(recipe, source=source, training=training), tmp_path / name, device="cpu", **QUIET)
        found[name] = np.mean([drive(SwingUp(), str(run.folder), seed).score for seed in range(2000, 2006)])
    assert found["pendulum"] > found["pendulum-frame"] + 300


def test_what_a_world_needs_says_whether_a_recipe_acts_in_it():
    assert world_of(pendulum()) == SwingUp()
    assert world_of(RECIPES["steer"](())) == CarRacing()
    assert world_of(RECIPES["echo"](())) is None
    assert world_of(replace(pendulum(), head=Regression(("velocity_radps",)))) is None


@dataclass(frozen=True)
class Bare(WorldSpec):
    """A counter that a model may push; nobody knows how it is done well."""

    max_steps: int = 5
    called = "bare"
    needs = labels = ("push",)

    def build(self, render: bool = True) -> World:
        return BareWorld(self)


class BareWorld(World):
    """All that a world has to have, and no more."""

    controls = {"push": (-1.0, 1.0)}
    rate_hz = 10.0
    observation = Observation("level", "float32", (2,))
    done_well = False

    def reset(self, seed):
        self.steps, self.score = 0, 0.0
        return np.full(2, seed, np.float32), {}

    def step(self, action) -> Step:
        self.steps += 1
        self.score += float(action[0])
        return np.full(2, self.score, np.float32), float(action[0]), False, self.steps >= self.spec.max_steps, {}

    def scene(self, height, width):
        return np.zeros((height, width, 3), np.uint8)

    def facts(self):
        return {"score": self.score}


def test_a_world_without_an_expert_is_driven_filmed_and_told(tmp_path):
    world = Bare().build()
    episode = rollout(world, lambda seen, state: ({"push": 0.5}, state), 3)
    assert (episode.score, episode.steps) == (2.5, 5)
    assert "How each ended" in page(report_drives("bare", {"half": [episode]}))


def bare(data=()):
    """A recipe that would learn in it."""
    return replace(pendulum(), source=Recorded(Bare()), inputs="level", head=Regression(("push",)))


@pytest.mark.parametrize("line", ["record bare", "drive expert --world bare"])
def test_where_an_expert_is_asked_for_and_there_is_none_one_sentence_says_so(line, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(WORLDS, "bare", Bare)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert "bare has no expert" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_rounds_in_a_world_without_an_expert_are_refused_before_training(tmp_path):
    with pytest.raises(UserError, match="bare has no expert"):
        fit_rounds("bare", bare(), tmp_path / "run", rounds=1)
    assert not (tmp_path / "run").exists()


def test_a_run_that_learned_in_no_world_is_refused(tmp_path, capsys):
    recipe = RECIPES["echo"](())
    fit("echo", replace(recipe, training=replace(recipe.training, steps=1)), tmp_path / "echo", **QUIET)
    with pytest.raises(SystemExit) as stop:
        main(["drive", str(tmp_path / "echo")])
    assert stop.value.code == 2
    assert "it learned in no world" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["drive", str(tmp_path / "echo"), "--world", "pendulum"])
    assert "doesn't predict torque_nm" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit):
        main(["drive", str(tmp_path / "echo"), "--world", "pendulums-x"])
    assert "did you mean 'pendulum'?" in " ".join(capsys.readouterr().err.split())


def test_a_run_drives_in_the_world_it_learned_in(tmp_path, capsys):
    recipe = small("pendulum")
    recipe = replace(recipe, core=LSTM(4), training=replace(recipe.training, steps=2, warmup=1, validate_every=2))
    fit("pendulum", recipe, tmp_path / "run", **QUIET)
    page_of = tmp_path / "page.html"
    main(["drive", str(tmp_path / "run"), *f"--tracks 1 --world.max-steps 7 --json --report {page_of}".split()])
    assert json.loads(capsys.readouterr().out)["steps"] == [7]
    assert "Upright at the end" in page_of.read_text()
    other = CarRacing(max_steps=3)
    with pytest.raises(UserError, match=r"doesn't predict pace and steer"):
        drives(other, str(tmp_path / "run"), [1])


def test_looking_at_a_run_records_nothing_where_its_config_says(tmp_path):
    """`source.folder` of a stranger's run may be any folder of the user's."""
    mine = tmp_path / "mine"
    (mine / "deeper").mkdir(parents=True)
    for name in ("film.mkv.part", "deeper/thesis.part", ".lock"):
        (mine / name).write_text("precious")
    before = sorted(mine.rglob("*"))
    few = replace(few_drives(Recorded(SwingUp(max_steps=5))), episodes=49)
    for folder in (str(mine), str(tmp_path / "none"), few.folder):
        with pytest.raises(UserError, match="record them first"):
            replace(few, folder=folder).look()
    assert sorted(mine.rglob("*")) == before
    assert (mine / ".lock").read_text() == "precious"
    assert not (tmp_path / "none").exists()
    assert len(replace(few, episodes=48).look()) == 48


@pytest.mark.parametrize("others", [["film.mkv.part", "a/thesis.part"], ["meta/info.json"], ["data/x.csv"], ["meta/x"]])
def test_drives_are_recorded_beside_nothing_of_anybody_elses(tmp_path, others):
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match="new or empty"):
        record(SwingUp(max_steps=5), tmp_path, 1, 0)
    assert all((tmp_path / name).read_text() == "precious" for name in others)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {*(Path(n).name for n in others), ".lock"}


@pytest.mark.parametrize("link", ["data", "meta", "meta/episodes"])
def test_a_recording_is_written_through_no_link(tmp_path, link):
    folder, mine = record(SwingUp(max_steps=5), tmp_path / "drives", 1, 0), tmp_path / "mine"
    shutil.move(folder / link, mine)
    (folder / link).symlink_to(mine)
    before = {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="a link that leads out"):
        record(SwingUp(max_steps=5), folder, 2, 0)
    assert {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()} == before
