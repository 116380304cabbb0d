"""Gymnasium's CarRacing-v3 without the dashboard that tells the answers, with an expert to learn from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from steersman.errors import UserError

from . import CarRacing

try:
    import gymnasium
    from gymnasium.envs.box2d import car_racing as stock

    from steersman.worlds.car_racing_pictures import HEIGHT, WIDTH, Painter
except ImportError as error:
    raise UserError(
        'CarRacing needs gymnasium with Box2D, which is not installed; run `pip install "steersman[sim]"`'
    ) from error

TILE_M = stock.TRACK_DETAIL_STEP
PACE_MPS = 20.0
"""Speed missing per unit of `pace`."""
SIGHT_M = 37.0
"""How far ahead of the car the picture reaches."""


class CarRacingWorld(gymnasium.Env):
    """An episode is a pure function of its seed and the actions; steering is positive to the LEFT."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": stock.FPS}
    render_mode = "rgb_array"
    observation_space = gymnasium.spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    action_space = gymnasium.spaces.Box(np.float32([-1, 0, 0]), np.float32([1, 1, 1]))

    def __init__(self, config: CarRacing, render: bool = True):
        self.config = config
        self.simulator = Simulator(config.domain_randomize, render)
        self.steps = 0
        self.blind_steps = np.zeros(config.max_steps + 1, bool)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        picture, _ = self.simulator.reset(seed=seed, options=options)
        self.steps = 0
        self.blind_steps = blackout_schedule(self.np_random, self.config.blackouts, self.config.max_steps + 1)
        self.course = Course(np.array(self.simulator.track)[:, 2:4])
        self.tile = 0
        return self._seen(picture), self._info(lap=False)

    def step(self, action: np.ndarray):
        steer, gas, brake = np.asarray(action, np.float32)
        picture, reward, terminated, _, info = self.simulator.step(np.array([-steer, gas, brake]))
        self.steps += 1
        truncated = self.steps >= self.config.max_steps
        return self._seen(picture), float(reward), terminated, truncated, self._info(info.get("lap_finished", False))

    def render(self) -> np.ndarray:
        """The stock environment's video picture (400, 600, 3), dashboard included, never black."""
        return self.simulator.video_picture()

    def expert(self, **options: Any) -> "Expert":
        return Expert(**options)

    def controls(self, prediction: Mapping[str, float]) -> np.ndarray:
        """From `steer` and `pace` to an action, by the expert's own law for gas and brake."""
        gas, brake = pedals(prediction["pace"])
        return np.float32([np.clip(prediction["steer"], -1, 1), gas, brake])

    def disturbance(self, rng: np.random.Generator, strength: float) -> "Disturbance":
        return Disturbance(rng, strength, self.config.max_steps)

    @property
    def position_m(self) -> np.ndarray:
        return np.array(self.simulator.hull.position)

    @property
    def heading_rad(self) -> float:
        """Counter-clockwise from the world's x axis."""
        return self.simulator.hull.angle + np.pi / 2

    @property
    def speed_mps(self) -> float:
        return self.simulator.hull.linearVelocity.length

    @property
    def yaw_radps(self) -> float:
        return self.simulator.hull.angularVelocity

    @property
    def blind(self) -> bool:
        return bool(self.blind_steps[self.steps])

    def _seen(self, picture: np.ndarray) -> np.ndarray:
        return np.zeros_like(picture) if self.blind else picture

    def _info(self, lap: bool) -> dict[str, Any]:
        self.tile, self.offset_m = self.course.locate(self.position_m, self.tile)
        simulator = self.simulator
        return {
            "speed_mps": self.speed_mps,
            "yaw_radps": self.yaw_radps,
            "offset_m": self.offset_m,
            "off_road": not any(wheel.tiles for wheel in simulator.car.wheels),
            "progress": simulator.tile_visited_count / len(simulator.track),
            "lap": lap,
            "blind": self.blind,
            "time_s": self.steps / stock.FPS,
        }


class Simulator(stock.CarRacing):
    """The stock environment; only the picture for the driver is made another way."""

    def __init__(self, domain_randomize: bool, render: bool):
        super().__init__(domain_randomize=domain_randomize)
        self.render_pictures = render
        self.painter: Painter | None = None

    @property
    def hull(self):
        assert self.car is not None, "reset() comes first"
        return self.car.hull

    def video_picture(self) -> np.ndarray:
        return super()._render("rgb_array")

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.painter = None
        return super().reset(seed=seed, options=options)

    def _render(self, mode: str) -> np.ndarray:
        if not self.render_pictures:
            return np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.painter = self.painter or Painter(self)
        return self.painter.paint()


def blackout_schedule(rng: np.random.Generator, share: float, num_steps: int) -> np.ndarray:
    """Which pictures are black: spells of 10 to 25 steps with clear stretches of geometric length between."""
    blind = np.zeros(num_steps, bool)
    if share == 0:
        return blind
    step = 0
    while step < num_steps:
        step += rng.geometric(min(1.0, share / (17.5 * (1 - share))))
        spell = rng.integers(10, 26)
        blind[step : step + spell] = True
        step += spell
    return blind


class Course:
    """The centre line of a closed track: points in driving order, one a tile."""

    def __init__(self, points_m: np.ndarray):
        self.points_m = points_m
        ahead = np.roll(points_m, -1, 0) - points_m
        self.direction = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)

    def locate(self, position_m: np.ndarray, near_tile: int) -> tuple[int, float]:
        """The tile nearest to the position, searched around the last one, and the offset from its line (left +)."""
        tiles = (near_tile + np.arange(-15, 16)) % len(self.points_m)
        gap = position_m - self.points_m[tiles]
        nearest = np.argmin((gap**2).sum(1))
        dx, dy = gap[nearest]
        ux, uy = self.direction[tiles[nearest]]
        return int(tiles[nearest]), float(ux * dy - uy * dx)


@dataclass(frozen=True)
class Expert:
    """Pure pursuit of the centre line under a speed profile, from no more of the track than the picture shows."""

    blind_speed_mps: float | None = None
    """Target speed while the picture is black; None drives on as if it were not."""
    lookahead_m: float = 8.0
    lookahead_s: float = 0.18
    steering_gain: float = 1.4
    lateral_mps2: float = 140.0
    braking_mps2: float = 120.0
    top_mps: float = 85.0

    def act(self, world: CarRacingWorld) -> dict[str, float]:
        """Labels for the world's present state; `pace` is the speed missing, in units of 20 m/s."""
        speed = world.speed_mps
        target = self.target_speed(world)
        pace = float(np.clip((target - speed) / PACE_MPS, -1.5, 1.5))
        gas, brake = pedals(pace)
        return {
            "steer": self.steering(world),
            "pace": pace,
            "gas": gas,
            "brake": brake,
            "target_speed_mps": target,
            "speed_mps": speed,
            "yaw_radps": world.yaw_radps,
        }

    def steering(self, world: CarRacingWorld) -> float:
        """The angle to a point on the line ahead, as a fraction of full lock, left +."""
        reach = min(self.lookahead_m + self.lookahead_s * world.speed_mps, SIGHT_M)
        whole, part = divmod(reach / TILE_M, 1)
        points, tile = world.course.points_m, world.tile + int(whole)
        near, far = points[tile % len(points)], points[(tile + 1) % len(points)]
        dx, dy = near + part * (far - near) - world.position_m
        angle = np.arctan2(dy, dx) - world.heading_rad
        return float(np.clip(self.steering_gain * ((angle + np.pi) % (2 * np.pi) - np.pi), -1, 1))

    def target_speed(self, world: CarRacingWorld) -> float:
        """The highest speed from which every bend in sight can still be braked for, in m/s."""
        tiles = (world.tile + np.arange(0, int(SIGHT_M / TILE_M) + 1)) % len(world.course.points_m)
        heading = np.unwrap(np.arctan2(*world.course.direction[tiles].T[::-1]))
        curvature = np.abs(np.diff(heading)) / TILE_M
        bend = np.convolve(curvature, np.ones(3) / 3, "valid")
        distance = TILE_M * np.arange(len(bend))
        limits = np.sqrt(self.lateral_mps2 / np.maximum(bend, 1e-6) + 2 * self.braking_mps2 * distance)
        target = min(self.top_mps, float(limits.min()))
        if abs(world.offset_m) > 7:
            target = min(target, 40.0)
        if world.blind and self.blind_speed_mps is not None:
            target = min(target, self.blind_speed_mps)
        return min(target, world.speed_mps + PACE_MPS * traction(world))


def traction(world: CarRacingWorld) -> float:
    """The gas the rear wheels take without spinning: less in a bend, where they need their grip sideways."""
    grip = 1 - (world.speed_mps * world.yaw_radps / 180) ** 2
    return (0.0163 * world.speed_mps + 0.064) * np.sqrt(max(0.0, grip))


def pedals(pace: float) -> tuple[float, float]:
    """Gas and brake in [0, 1] for the speed missing, in units of 20 m/s."""
    return float(np.clip(pace, 0, 1)), float(np.clip(-pace - 0.05, 0, 0.8))


class Disturbance:
    """What is driven instead of the expert's wish, so that recoveries are in the recording.

    Coloured steering noise, steering kicks, pedal kicks and spells of capped speed, all drawn beforehand.
    """

    def __init__(self, rng: np.random.Generator, strength: float, num_steps: int):
        self.noise = steering_noise(rng, strength, num_steps)
        self.noise += spells(rng, num_steps, 1 / 150, (4, 14), lambda: rng.normal(0, 4 * strength), 0.0)
        self.pedal = spells(rng, num_steps, strength / 8, (4, 14), lambda: rng.uniform(-0.8, 1.0), 0.0)
        self.cap_mps = spells(rng, num_steps, 1 / 250, (20, 110), lambda: rng.uniform(10, 70), np.inf)

    def apply(self, labels: Mapping[str, float], world: CarRacingWorld) -> np.ndarray:
        """The action driven in place of the labelled one."""
        step = world.steps
        pace = min(labels["pace"], (self.cap_mps[step] - labels["speed_mps"]) / PACE_MPS) + self.pedal[step]
        return world.controls({"steer": labels["steer"] + self.noise[step], "pace": float(pace)})


def steering_noise(rng: np.random.Generator, strength: float, num_steps: int) -> np.ndarray:
    noise = np.zeros(num_steps)
    for step in range(1, num_steps):
        noise[step] = 0.9 * noise[step - 1] + strength / 2 * rng.normal()
    return noise


def spells(rng, num_steps: int, rate: float, length: tuple[int, int], draw, quiet: float) -> np.ndarray:
    """A value drawn for every spell, `quiet` between; spells begin with probability `rate` a step."""
    values = np.full(num_steps, quiet)
    step = 0
    while rate > 0 and (step := step + rng.geometric(rate)) < num_steps:
        end = step + rng.integers(*length)
        values[step:end] = draw()
        step = end
    return values
