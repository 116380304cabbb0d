"""The world scores, moves and looks exactly as Gymnasium's CarRacing-v3; its expert keeps its word."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

gymnasium = pytest.importorskip("gymnasium")

from steersman.data.camera import blackout_schedule  # noqa: E402
from steersman.worlds import CarRacing  # noqa: E402
from steersman.worlds.car_racing_expert import PACE_MPS, Course, pedals  # noqa: E402
from steersman.worlds.rollout import drive  # noqa: E402

LEFT_TO_STOCK = np.array([-1, 1, 1], np.float32)


def expert_actions(world, seed, strength):
    """An endless driver of the world, disturbed by `strength`."""
    expert = world.expert()
    disturbance = world.disturbance(np.random.default_rng(seed), strength)
    while True:
        yield disturbance.apply(expert.act(world), world)


def drive_beside_stock(world, stock, seed, num_steps, actions=None):
    """Steps both with the same actions; returns how many steps were seen and scored the same."""
    theirs, _ = stock.reset(seed=seed)
    ours, _ = world.reset(seed=seed)
    assert np.array_equal(ours, theirs[:84])
    for step, action in zip(range(num_steps), actions or expert_actions(world, seed, 0.12), strict=False):
        theirs, *their_score, _ = stock.step(action * LEFT_TO_STOCK)
        ours, *our_score, _ = world.step(action)
        assert our_score == their_score, f"seed {seed}, step {step}"
        assert np.array_equal(ours, theirs[:84]), f"seed {seed}, step {step}"
        if any(our_score[1:]):
            break
    return step + 1


def test_pictures_rewards_and_ends_are_those_of_the_stock_environment():
    world, stock = CarRacing().build(), gymnasium.make("CarRacing-v3")
    assert sum(drive_beside_stock(world, stock, seed, 360) for seed in (0, 6, 2001)) >= 1000


def test_randomised_colours_are_those_of_the_stock_environment():
    world = CarRacing(domain_randomize=True).build()
    stock = gymnasium.make("CarRacing-v3", domain_randomize=True)
    assert sum(drive_beside_stock(world, stock, seed, 130) for seed in (3, 4)) == 260


def test_driving_off_the_edge_of_the_field_looks_and_ends_as_in_the_stock_environment():
    world, stock = CarRacing().build(), gymnasium.make("CarRacing-v3")
    straight_on = [np.array([0, 0.4, 0], np.float32)] * 700
    assert drive_beside_stock(world, stock, 0, 700, straight_on) < 700


def test_an_episode_is_cut_where_the_stock_registration_cuts_it():
    world = CarRacing().build(render=False)
    world.reset(seed=0)
    ends = [world.step(np.zeros(3, np.float32))[3] for _ in range(1000)]
    assert gymnasium.spec("CarRacing-v3").max_episode_steps == 1000
    assert ends == [False] * 999 + [True]


def test_the_video_picture_is_the_stock_one():
    world, stock = CarRacing().build(), gymnasium.make("CarRacing-v3", render_mode="rgb_array")
    drive_beside_stock(world, stock, 8, 70)
    assert np.array_equal(world.render(), stock.render())


def test_the_scene_for_people_is_the_same_view_in_more_pixels():
    world = CarRacing(blackouts=0.3).build()
    picture, info = world.reset(seed=3)
    seen, black = [], []
    for _ in range(120):
        small = world.scene(420, 480).reshape(84, 5, 96, 5, 3).mean((1, 3))
        (black if info["blind"] else seen).append(np.abs(small - picture).mean())
        picture, *_, info = world.step(world.act(world.expert().act(world)))
    assert max(seen) < 3
    assert max(black) == 0


def test_without_pictures_the_world_is_otherwise_the_same():
    seeing, unseeing = CarRacing().build(), CarRacing().build(render=False)
    seeing.reset(seed=5), unseeing.reset(seed=5)
    for _, action in zip(range(80), expert_actions(seeing, 5, 0.06), strict=False):
        _, *rest = seeing.step(action)
        picture, *rest_unseen = unseeing.step(action)
        assert rest == rest_unseen
        assert not picture.any()


def test_the_world_keeps_gymnasiums_rules():
    from gymnasium.utils.env_checker import check_env

    from steersman.worlds.gymnasium_env import GymnasiumEnv

    check_env(GymnasiumEnv(CarRacing(blackouts=0.2)), skip_render_check=True)


def test_black_pictures_are_told_and_the_video_is_not_black():
    world = CarRacing(blackouts=0.5).build()
    world.reset(seed=1)
    told = []
    for _, action in zip(range(100), expert_actions(world, 1, 0.0), strict=False):
        picture, *_, info = world.step(action)
        assert picture.any() != info["blind"]
        told.append(info["blind"])
        if info["blind"]:
            assert world.render().any()
    assert any(told)
    assert not all(told)


@given(seed=st.integers(0, 2**32), share=st.floats(0.02, 0.6))
@settings(deadline=None, max_examples=30)
def test_blackouts_last_10_to_25_steps_and_fill_their_share(seed, share):
    blind = blackout_schedule(np.random.default_rng(seed), share, 60_000)
    edges = np.flatnonzero(np.diff(np.r_[False, blind, False].astype(int)))
    lengths = (edges[1::2] - edges[::2])[:-1]
    assert lengths.min() >= 10
    assert lengths.max() <= 25
    assert abs(blind.mean() - share) < 0.08


@given(pace=st.floats(-1.5, 1.5))
def test_the_pedals_are_never_pressed_together(pace):
    gas, brake = pedals(pace)
    assert 0 <= gas <= 1
    assert 0 <= brake <= 1
    assert gas * brake == 0


def drive_laps(world, seeds, strength=0.0, **options):
    """Scores and laps of the expert."""
    scores, laps = [], []
    for seed in seeds:
        _, info = world.reset(seed=seed)
        expert, score, over = world.expert(**options), 0.0, False
        while not over:
            _, reward, terminated, truncated, info = world.step(world.act(expert.act(world)))
            score, over = score + reward, terminated or truncated
        scores.append(score)
        laps.append(info["lap"])
    return scores, laps


def test_the_expert_reaches_930_over_seeds_0_to_19_and_ends_every_lap():
    scores, laps = drive_laps(CarRacing().build(render=False), range(20))
    assert np.mean(scores) >= 930
    assert all(laps)


@given(num_steps=st.integers(0, 500))
@settings(deadline=None, max_examples=20)
def test_the_expert_sees_no_further_than_the_picture(num_steps):
    world = CarRacing().build(render=False)
    world.reset(seed=2)
    for _, action in zip(range(num_steps), expert_actions(world, 2, 0.12), strict=False):
        world.step(action)
    labels = world.expert().act(world)
    points = world.course.points_m.copy()
    gone = np.linalg.norm(points - world.position_m, axis=1) > 37
    points[gone] += 500.0
    world.course = Course(points)
    assert gone.any()
    assert world.expert().act(world) == labels


def test_steering_is_positive_to_the_left():
    world = CarRacing().build(render=False)
    world.reset(seed=0)
    for step in range(60):
        *_, info = world.step(np.array([0.2 if step > 40 else 0, 0.3, 0], np.float32))
    assert info["yaw_radps"] > 0
    assert info["offset_m"] > 0
    assert world.expert().act(world)["steer"] < 0


def test_a_cautious_teacher_slows_down_only_while_blind():
    world = CarRacing(blackouts=0.4).build(render=False)
    world.reset(seed=1)
    bold, cautious, slower = world.expert(blind_speed_mps=None), world.expert(blind_speed_mps=5.0), 0
    for _ in range(200):
        labels, careful = bold.act(world), cautious.act(world)
        assert (labels == careful) or world.blind
        slower += careful["target_speed_mps"] < labels["target_speed_mps"]
        world.step(world.act(labels))
    assert slower > 10


def test_a_disturbed_episode_is_a_pure_function_of_its_seed():
    def actions():
        world = CarRacing().build(render=False)
        world.reset(seed=7)
        for _, action in zip(range(200), expert_actions(world, 7, 0.12), strict=False):
            world.step(action)
            yield action

    assert np.array_equal(list(actions()), list(actions()))


def test_disturbances_leave_the_labels_alone_and_without_strength_hardly_touch_the_wheel():
    world = CarRacing().build(render=False)
    world.reset(seed=7)
    expert, disturbance = world.expert(), world.disturbance(np.random.default_rng(7), 0.0)
    for _ in range(200):
        labels = expert.act(world)
        kept = dict(labels)
        action = disturbance.apply(labels, world)
        assert labels == kept
        assert action[0] == pytest.approx(labels["steer"], abs=1e-6)
        world.step(action)


def test_pedals_stick_now_and_then_and_nothing_is_disturbed_while_blind():
    world = CarRacing(blackouts=0.3).build(render=False)
    world.reset(seed=7)
    expert, disturbance = world.expert(), world.disturbance(np.random.default_rng(7), 0.12)
    seen, blind, stuck = 0, 0, 0
    for step in range(300):
        labels = expert.act(world)
        action = disturbance.apply(labels, world)
        if world.blind:
            assert np.array_equal(action, world.act(labels))
        elif not np.isnan(pace := disturbance.stuck[step]):
            assert np.array_equal(action[1:], world.act({"steer": 0.0, "pace": pace})[1:])
            stuck += 1
        blind, seen = blind + world.blind, seen + (not world.blind)
        world.step(action)
    assert min(blind, seen, stuck) > 20


def test_a_model_stays_below_its_own_target_speed_by_the_margin():
    world = CarRacing(margin=0.1).build(render=False)
    said = {"steer": 0.2, "pace": 0.5, "target_speed_mps": 40.0}
    assert world.done_by_model(said) == said | {"pace": pytest.approx(0.5 - 0.1 * 40 / PACE_MPS)}
    assert world.done_by_model({"steer": 0.2, "pace": 0.5}) == {"steer": 0.2, "pace": 0.5}
    assert CarRacing(margin=0).build(render=False).done_by_model(said) == said
    assert CarRacing().name == CarRacing(margin=0).name


def test_the_expert_gives_up_no_margin():
    careful, bold = (drive(CarRacing(margin=margin, max_steps=80), "expert", 3) for margin in (0.5, 0.0))
    assert careful.score == bold.score
