"""Gymnasium's CarRacing-v3 without the dashboard that tells the answers, with an expert to learn from."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import to_json
from ..data.camera import Camera, blackout_schedule
from ..errors import UserError
from ..json_types import JsonObject
from .car_racing import CarRacing
from .car_racing_expert import PACE_MPS, Course, Expert, pace_of, pedals
from .world import Delay, FactValue, Info, Labels, Observation, Step, World, coloured_noise, spells

try:
    from gymnasium.envs.box2d import car_racing as stock
    from gymnasium.utils.seeding import np_random

    from .car_racing_pictures import HEIGHT, WIDTH, Painter
except ImportError as error:
    raise UserError(
        'CarRacing needs gymnasium with Box2D, which is not installed; run `pip install "steersman[sim]"`'
    ) from error

if TYPE_CHECKING:
    from .film import DriveVideo

LOST_M = 20.0
"""A recording ends this far off the centre line: nothing can be learned there."""


class CarRacingWorld(World):
    """An episode is a pure function of its seed and the actions; steering is positive to the LEFT."""

    controls = {"steer": (-1.0, 1.0), "gas": (0.0, 1.0), "brake": (0.0, 1.0)}
    rate_hz = stock.FPS
    observation = Observation("picture", "uint8", (HEIGHT, WIDTH, 3))

    spec: CarRacing

    def __init__(self, spec: CarRacing, render: bool = True):
        super().__init__(spec)
        self.drawn, self.margin, self.max_steps = spec, spec.margin, spec.max_steps
        self.simulator = Simulator(render)
        self.blind_steps = np.zeros(spec.max_steps + 1, bool)

    def reset(self, seed: int) -> tuple[np.ndarray, Info]:
        self.drawn = drawn = self.spec.drawn(np.random.default_rng((seed, 3)))
        self.simulator.begin(seed, drawn.domain_randomize, drawn.friction)
        self.steps, self.score, self.lap = 0, 0.0, False
        self.blind_steps = blackout_schedule(np_random(seed)[0], drawn.blackouts, self.max_steps + 1)
        rng = np.random.default_rng((seed, 2))
        self.camera = Camera(drawn, rng, self.max_steps + 1)
        self.delay = Delay(drawn.latency, drawn.jitter, rng, self.max_steps, np.zeros(3, np.float32))
        self.course = Course(np.array(self.simulator.track)[:, 2:4])
        self.place = self.course.locate(self.position_m, 0)
        self.path_m: list[tuple[float, float]] = []
        self.left_road: list[dict[str, float]] = []
        self.was_off_road = False
        return self._picture(), self._info()

    def step(self, action: np.ndarray) -> Step:
        action = np.asarray(action, np.float32)
        steer, gas, brake = action if self.prompt else self.delay.arrived(self.steps, action)
        _, reward, terminated, _, info = self.simulator.step(np.array([-steer, gas, brake]))
        self.steps += 1
        self.score += float(reward)
        self.lap = info.get("lap_finished", False)
        self._trace()
        return self._picture(), float(reward), terminated, self.steps >= self.max_steps, self._info()

    def _trace(self) -> None:
        """Keeps where the car is, and where it leaves the road."""
        x_m, y_m = self.position_m.tolist()
        self.path_m.append((round(x_m, 2), round(y_m, 2)))
        off_road = self.simulator.off_road
        if off_road and not self.was_off_road:
            self.left_road.append({"time_s": self.time_s, "x_m": x_m, "y_m": y_m})
        self.was_off_road = off_road

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

    @property
    def done_well(self) -> bool:
        return self.lap

    def facts(self) -> dict[str, FactValue]:
        return {"speed_mps": self.speed_mps, "score": self.score, "lap": self.lap}

    def act(self, prediction: Mapping[str, float]) -> np.ndarray:
        """The action for `steer` and `pace`, by the expert's own law for gas and brake."""
        gas, brake = pedals(prediction["pace"])
        return np.array([min(max(prediction["steer"], -1.0), 1.0), gas, brake], np.float32)

    def done_by_model(self, prediction: Labels) -> Labels:
        """A model's `pace` with the margin of its own target speed taken off, where it predicts that speed."""
        slower = self.margin * max(prediction.get("target_speed_mps", 0.0), 0.0) / PACE_MPS
        return prediction | {"pace": prediction["pace"] - slower}

    def by_hand(self, held: Mapping[str, float]) -> np.ndarray:
        """A person's pedals go the way of the model's, so that what is driven is what can be learned.

        One at a time, and no more brake than the law for the pedals has.
        """
        return self.act({"steer": held["steer"], "pace": pace_of(held["gas"], held["brake"])})

    def labelled(self, action: np.ndarray) -> dict[str, float]:
        steer, gas, brake = np.asarray(action, np.float32).tolist()
        pace = pace_of(gas, brake)
        return {
            "steer": steer,
            "pace": pace,
            "gas": gas,
            "brake": brake,
            "target_speed_mps": self.speed_mps + PACE_MPS * pace,
            "speed_mps": self.speed_mps,
            "yaw_radps": self.yaw_radps,
        }

    def disturbance(self, rng: np.random.Generator, strength: float) -> "Disturbance":
        return Disturbance(rng, strength, self.max_steps)

    def lost(self) -> bool:
        return abs(self.place.offset_m) >= LOST_M

    def beside(self) -> dict[str, float]:
        return {"offset_m": self.place.offset_m, "blind": self.blind}

    def extras(self) -> JsonObject:
        """The road's centre line, the path driven, where the car left the road, and the mix that was drawn."""
        track_m = self.course.points_m.round(2).tolist()
        told = {"off_road": self.left_road, "path_m": self.path_m, "track_m": track_m}
        return told | ({"drawn": to_json(self.drawn)} if self.spec.mixed else {})

    def film(self, path: Path) -> "DriveVideo":
        from .film import DriveVideo

        return DriveVideo(path, self.rate_hz)

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
    def friction(self) -> float:
        """Factor of the stock road's friction."""
        return self.drawn.friction

    def arrival(self, step: int) -> int:
        return int(self.delay.arrivals[step])

    @property
    def blind(self) -> bool:
        return bool(self.blind_steps[self.steps])

    def _picture(self) -> np.ndarray:
        picture = self.camera.see(np.asarray(self.simulator.state), self.steps)
        return np.zeros_like(picture) if self.blind else picture

    @property
    def _progress(self) -> float:
        """Share of the road that was visited."""
        return self.simulator.tile_visited_count / len(self.simulator.track)

    def _info(self) -> Info:
        self.place = self.course.locate(self.position_m, self.place.tile)
        return {
            "speed_mps": self.speed_mps,
            "yaw_radps": self.yaw_radps,
            "offset_m": self.place.offset_m,
            "off_road": self.simulator.off_road,
            "progress": self._progress,
            "lap": self.lap,
            "blind": self.blind,
            "time_s": self.time_s,
        }


class Simulator(stock.CarRacing):
    """The stock environment; only the picture for the driver is made another way."""

    def __init__(self, render: bool):
        super().__init__()
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

    def begin(self, seed: int, new_colours: bool, friction: float) -> None:
        """Begins the episode of a seed, in the stock colours or in new ones, on a road of so much of its friction."""
        self.domain_randomize = new_colours
        if not new_colours:
            self._init_colors()
        self.reset(seed=seed)
        for tile in self.road or ():
            tile.road_friction = friction

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.painter = None
        return super().reset(seed=seed, options=options)

    def _render(self, mode: str) -> np.ndarray:
        if not self.render_pictures:
            return np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self.painter = self.painter or Painter(self)
        return self.painter.paint()


class Disturbance:
    """What is driven instead of the expert's wish, so that recoveries are in the recording.

    Coloured steering noise, steering kicks, spells of stuck pedals and of capped speed, all drawn beforehand.
    Stuck pedals part the speed from what the expert wants: a model with a memory learns else to count on the braking
    that an expert would have done, and believes in it when it drives (Ortega et al. 2021, arXiv 2110.10819).
    Blind steps are left alone, for no model could know of what is done to the car then.
    """

    def __init__(self, rng: np.random.Generator, strength: float, num_steps: int):
        self.noise = coloured_noise(rng, strength, num_steps)
        self.noise += spells(rng, num_steps, 1 / 100, (4, 14), lambda: rng.normal(0, 2 * strength), 0.0)
        self.stuck = spells(rng, num_steps, strength / 6, (5, 25), lambda: rng.uniform(-0.3, 0.5), np.nan)
        self.cap_mps = spells(rng, num_steps, 1 / 250, (20, 110), lambda: rng.uniform(10, 70), np.inf)

    def apply(self, labels: Mapping[str, float], world: CarRacingWorld) -> np.ndarray:
        """The action driven in place of the labelled one."""
        if world.blind:
            return world.act(labels)
        step = world.steps
        pace = min(labels["pace"], (self.cap_mps[step] - labels["speed_mps"]) / PACE_MPS)
        if not np.isnan(self.stuck[step]):
            pace = self.stuck[step]
        return world.act({"steer": labels["steer"] + self.noise[step], "pace": float(pace)})
