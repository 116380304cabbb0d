"""Disturbances in the world: late actions, slippery roads, mixes, and the gauntlet of them all."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("gymnasium", reason="the simulator is an extra")

from steersman.__main__ import main
from steersman.errors import UserError
from steersman.worlds import WORLDS, CarRacing
from steersman.worlds.car_racing import GAUNTLET
from steersman.worlds.gauntlet import gauntlet_report, run_gauntlet
from steersman.worlds.recording import recorded_drive
from steersman.worlds.rollout import rollout
from steersman.worlds.world import Delay

SHORT = CarRacing(max_steps=12)


def test_actions_arrive_in_their_order_after_their_latency():
    delay = Delay(3, 0, np.random.default_rng(0), 10, np.array([-1.0]))
    done = [delay.arrived(step, np.array([float(step)])).item() for step in range(10)]
    assert done == [-1, -1, -1, 0, 1, 2, 3, 4, 5, 6]


def test_with_jitter_the_newest_that_arrived_is_done():
    delay = Delay(2, 2, np.random.default_rng(1), 200, np.array([-1.0]))
    for step in range(200):
        done = delay.arrived(step, np.array([float(step)])).item()
        there = [sent for sent in range(step + 1) if delay.arrivals[sent] <= step]
        assert done == (there[-1] if there else -1)
    late = delay.arrivals - np.arange(200)
    assert late.min() == 0
    assert late.max() == 4


def test_late_actions_are_those_of_steps_ago():
    late, prompt = (replace(SHORT, latency=latency).build(render=False) for latency in (2, 0))
    for world in (late, prompt):
        world.reset(5)
    actions = [np.array([s, 0.5, 0], np.float32) for s in (0.3, -0.2, 0.6, 0.1, 0, 0)]
    for step, action in enumerate(actions):
        late.step(action)
        prompt.step(actions[step - 2] if step >= 2 else np.zeros(3, np.float32))
        assert (late.position_m == prompt.position_m).all()


def test_a_recorded_label_is_what_will_be_right_when_it_arrives():
    now, late = (recorded_drive(replace(SHORT, latency=latency), "expert", (7, 0.06)) for latency in (0, 3))
    assert len(late["steer"]) == len(now["steer"]) - 3
    assert (late["steer"] == now["steer"][3:]).all()
    for name in ("picture", "driven_steer", "offset_m"):
        assert (late[name] == now[name][:-3]).all()


def test_a_slippery_road_lets_the_car_slide_and_its_expert_goes_slower():
    targets = []
    for friction in (1.0, 0.7):
        world = replace(SHORT, friction=friction, max_steps=100).build(render=False)
        world.reset(5)
        assert {tile.road_friction for tile in world.simulator.road} == {friction}
        expert, best = world.expert(), 0.0
        for _ in range(60):
            told = expert.act(world)
            best = max(best, told["target_speed_mps"])
            world.step(world.act(told))
        targets.append((world.speed_mps, best))
    assert targets[1] < targets[0]


def test_a_mix_is_drawn_from_the_seed_within_its_strength():
    mixed = CarRacing(mixed=0.5)
    drawn = [mixed.drawn(np.random.default_rng((seed, 3))) for seed in range(300)]
    assert drawn[0] == mixed.drawn(np.random.default_rng((0, 3)))
    noise = [world.noise for world in drawn]
    assert 0 == min(noise) < max(noise) <= 15
    assert 0.4 < np.mean(np.array(noise) > 0) < 0.6
    assert {world.latency for world in drawn} == {0, 1, 2}
    assert min(world.friction for world in drawn) >= 0.85
    assert max(world.light for world in drawn) <= 2**0.5
    assert min(world.light for world in drawn) >= 2**-0.5
    assert 0.15 < np.mean([world.domain_randomize for world in drawn]) < 0.35


def test_new_colours_of_one_episode_do_not_stay_for_the_next():
    world = replace(SHORT, mixed=1.0).build()
    plain = SHORT.build()
    seeds = {}
    for seed in range(40):
        drawn = world.spec.drawn(np.random.default_rng((seed, 3)))
        seeds.setdefault(drawn.domain_randomize, seed)
    world.reset(seeds[True])
    assert (world.simulator.road_color != plain.simulator.road_color).any()
    world.reset(seeds[False])
    plain.reset(seeds[False])
    assert (world.simulator.road_color == plain.simulator.road_color).all()


def test_every_condition_of_the_gauntlet_is_a_world_that_differs():
    conditions = SHORT.gauntlet()
    assert list(conditions) == list(GAUNTLET)
    assert next(iter(conditions.values())) == SHORT
    assert len(set(conditions.values())) == len(conditions)
    assert replace(SHORT, mixed=1.0).gauntlet() == conditions  # One thing at a time, also for who learned in a mix.


def test_the_gauntlet_scores_every_driver_under_every_condition(tmp_path, capsys):
    page = tmp_path / "page.html"
    argv = ["drive", "expert", "--gauntlet", "--tracks", "1", "--world.max-steps", "6", "--workers", "1"]
    main([*argv, "--json", "--report", str(page)])
    scores = json.loads(capsys.readouterr().out)
    assert list(scores) == list(GAUNTLET)
    assert all(s["expert"]["episodes"] == 1 for s in scores.values())
    assert all(condition in page.read_text() for condition in GAUNTLET)


def test_a_world_without_disturbances_and_a_latency_beyond_the_episode_are_refused(capsys):
    with pytest.raises(UserError, match="pendulum has no disturbances"):
        run_gauntlet(WORLDS["pendulum"](), ["expert"], [1], 1)
    with pytest.raises(UserError, match="outlast an episode"):
        CarRacing(latency=20, max_steps=20)
    with pytest.raises(SystemExit) as stop:
        main(["drive", "expert", "--beside", "steer"])
    assert stop.value.code == 2
    assert "--gauntlet" in capsys.readouterr().err


def test_a_driver_that_says_no_number_ends_off_the_road_and_is_counted():
    from steersman.worlds.scores import driving_scores

    world = SHORT.build(render=False)

    def blown(observation, state):
        step = (state or 0) + 1
        return {"steer": float("nan") if step > 4 else 0.0, "pace": 0.1}, step

    episode = rollout(world, blown, 3)
    assert episode.steps == 4
    assert not episode.done_well
    assert driving_scores([episode])["not_finite"] == 1
    assert gauntlet_report("a page", {"clear": {"a driver": [episode]}}).facts
