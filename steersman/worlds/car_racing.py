"""Gymnasium's CarRacing-v3 without the dashboard that tells the answers, with an expert to learn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UserError
from . import CarRacing
from .car_racing_expert import PACE_MPS, Course, Expert, pace_of, pedals

try:
    import gymnasium
    from gymnasium.envs.box2d import car_racing as stock

    from .car_racing_pictures import HEIGHT, WIDTH, Painter
except ImportError as error:
    raise UserError(
        'CarRacing needs gymnasium with Box2D, which is not installed; run `pip install "steersman[sim]"`'
    ) from error


class CarRacingWorld(gymnasium.Env):
    """An episode is a pure function of its seed and the actions; steering is positive to the LEFT."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": stock.FPS}
    render_mode = "rgb_array"
    observation_space = gymnasium.spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    action_space = gymnasium.spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32))

    def __init__(self, config: CarRacing, render: bool = True):
        self.config = config
        self.simulator = Simulator(config.domain_randomize, render)
        self.steps = 0
        self.blind_steps = np.zeros(config.max_steps + 1, bool)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.simulator.reset(seed=seed, options=options)
        self.steps = 0
        self.blind_steps = blackout_schedule(self.np_random, self.config.blackouts, self.config.max_steps + 1)
        self.course = Course(np.array(self.simulator.track)[:, 2:4])
        self.place = self.course.locate(self.position_m, 0)
        return self._picture(), self._info(lap=False)

    def step(self, action: np.ndarray):
        steer, gas, brake = np.asarray(action, np.float32)
        _, reward, terminated, _, info = self.simulator.step(np.array([-steer, gas, brake]))
        self.steps += 1
        truncated = self.steps >= self.config.max_steps
        lap = info.get("lap_finished", False)
        return self._picture(), float(reward), terminated, truncated, self._info(lap)

    def render(self) -> np.ndarray:
        """The stock environment's video picture (400, 600, 3), dashboard included, never black."""
        return self.simulator.video_picture()

    def scene(self, height: int, width: int) -> np.ndarray:
        """The camera's picture for people, (height, width, 3): the same field of view in more pixels, and as black."""
        painter = self.simulator.painter
        if self.blind or painter is None:
            return np.zeros((height, width, 3), np.uint8)
        return painter.scene(height, width)

    def expert(self, **options: Any) -> Expert:
        return Expert(**options)

    def controls(self, prediction: Mapping[str, float]) -> np.ndarray:
        """From `steer` and `pace` to an action, by the expert's own law for gas and brake."""
        gas, brake = pedals(prediction["pace"])
        return np.array([min(max(prediction["steer"], -1.0), 1.0), gas, brake], np.float32)

    def wish(self, steer: float, gas: float, brake: float) -> dict[str, float]:
        """The inverse of `controls`, as far as there is one."""
        return {"steer": steer, "pace": pace_of(gas, brake)}

    def labels(self, action: np.ndarray) -> dict[str, float]:
        """What an expert that did this here would have said of it."""
        steer, gas, brake = np.asarray(action, np.float32).tolist()
        wish = self.wish(steer, gas, brake)
        return wish | {
            "gas": gas,
            "brake": brake,
            "target_speed_mps": self.speed_mps + PACE_MPS * wish["pace"],
            "speed_mps": self.speed_mps,
            "yaw_radps": self.yaw_radps,
        }

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

    def _picture(self) -> np.ndarray:
        picture = np.asarray(self.simulator.state)
        return np.zeros_like(picture) if self.blind else picture

    def _info(self, lap: bool) -> dict[str, Any]:
        self.place = self.course.locate(self.position_m, self.place.tile)
        simulator = self.simulator
        return {
            "speed_mps": self.speed_mps,
            "yaw_radps": self.yaw_radps,
            "offset_m": self.place.offset_m,
            "off_road": simulator.off_road,
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
    def hull(self) -> Any:
        assert self.car is not None, "reset() comes first"
        return self.car.hull

    @property
    def off_road(self) -> bool:
        assert self.car is not None
        return not any(wheel.tiles for wheel in self.car.wheels)

    def video_picture(self) -> np.ndarray:
        return np.asarray(super()._render("rgb_array"))

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


class Disturbance:
    """What is driven instead of the expert's wish, so that recoveries are in the recording.

    Coloured steering noise, steering kicks, spells of stuck pedals and of capped speed, all drawn beforehand.
    Stuck pedals part the speed from what the expert wants: a model with a memory learns else to count on the braking
    that an expert would have done, and believes in it when it drives (Ortega et al. 2021, arXiv 2110.10819).
    Blind steps are left alone, for no model could know of what is done to the car then.
    """

    def __init__(self, rng: np.random.Generator, strength: float, num_steps: int):
        self.noise = steering_noise(rng, strength, num_steps)
        self.noise += spells(rng, num_steps, 1 / 100, (4, 14), lambda: rng.normal(0, 2 * strength), 0.0)
        self.stuck = spells(rng, num_steps, strength / 6, (5, 25), lambda: rng.uniform(-0.3, 0.5), np.nan)
        self.cap_mps = spells(rng, num_steps, 1 / 250, (20, 110), lambda: rng.uniform(10, 70), np.inf)

    def apply(self, labels: Mapping[str, float], world: CarRacingWorld) -> np.ndarray:
        """The action driven in place of the labelled one."""
        if world.blind:
            return world.controls(labels)
        step = world.steps
        pace = min(labels["pace"], (self.cap_mps[step] - labels["speed_mps"]) / PACE_MPS)
        if not np.isnan(self.stuck[step]):
            pace = self.stuck[step]
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
