"""Gymnasium's Pendulum-v1 with its velocity hidden: what a single look can't tell, a memory can.

The expert pumps energy into the swing until the pendulum is near the top, and balances it there by its angle and
angular velocity (energy shaping, Åström and Furuta 2000).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from .world import FactValue, Info, Labels, Observation, Step, Words, World, WorldSpec, coloured_noise, spells

TORQUE_NM, GRAVITY, STEP_S = 2.0, 10.0, 0.05
"""Most torque, gravity in m/s2 and length of a step of Pendulum-v1; its rod has 1 m and 1 kg."""
UPRIGHT_RAD, HELD_S = 0.2, 1.0
"""Done well: within this angle of the top for this long at the end."""


@dataclass(frozen=True)
class SwingUp(WorldSpec):
    """Gymnasium's Pendulum-v1, which shows where the pendulum is, but not how fast it turns."""

    max_steps: int = 200
    """Steps of 1/20 s after which an episode ends."""

    BOUNDS = {"max_steps": (1, math.inf)}
    called = "pendulum"
    needs = ("torque_nm",)
    labels = ("torque_nm", "velocity_radps")
    words = Words(
        task="swing up and balance",
        episode="swing",
        seen="angle",
        chosen="The torque it chose",
        successes="upright",
        title="Upright at the end",
        succeeds="ends upright in",
        rule="a pendulum ends upright where it was within 0.2 rad of the top for the whole last second",
    )
    still_step = 100

    def build(self, render: bool = True) -> World:
        return PendulumWorld(self)


class PendulumWorld(World):
    """Angles are 0 at the top and positive counter-clockwise, as the torque is."""

    controls = {"torque_nm": (-TORQUE_NM, TORQUE_NM)}
    rate_hz = 1 / STEP_S
    observation = Observation("angle", "float32", (2,))
    scene_size = (400, 400)

    def __init__(self, spec: SwingUp):
        super().__init__(spec)
        try:
            from gymnasium.envs.classic_control.pendulum import PendulumEnv
        except ImportError as error:
            raise UserError(
                'Pendulum needs gymnasium, which is not installed; run `pip install "steersman[sim]"`'
            ) from error
        self.simulator = PendulumEnv("rgb_array")
        self.upright_steps = 0

    @property
    def angle_rad(self) -> float:
        """The angle from the top, within half a turn."""
        return (float(self.simulator.state[0]) + math.pi) % (2 * math.pi) - math.pi

    @property
    def velocity_radps(self) -> float:
        return float(self.simulator.state[1])

    def reset(self, seed: int) -> tuple[np.ndarray, Info]:
        observation, _ = self.simulator.reset(seed=seed)
        self.steps, self.score, self.upright_steps = 0, 0.0, 0
        return observation[:2], {}

    def step(self, action: np.ndarray) -> Step:
        observation, reward, *_ = self.simulator.step(np.asarray(action, np.float32))
        self.steps += 1
        self.score += float(reward)
        self.upright_steps = self.upright_steps + 1 if abs(self.angle_rad) < UPRIGHT_RAD else 0
        return observation[:2], float(reward), False, self.steps >= self.spec.max_steps, {}

    def scene(self, height: int, width: int) -> np.ndarray:
        """The stock picture."""
        from PIL import Image

        picture = Image.fromarray(np.asarray(self.simulator.render()))
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))

    @property
    def done_well(self) -> bool:
        return self.upright_steps >= round(HELD_S * self.rate_hz)

    def facts(self) -> dict[str, FactValue]:
        return {
            "score": self.score,
            "angle_rad": self.angle_rad,
            "velocity_radps": self.velocity_radps,
            "upright_s": self.upright_steps / self.rate_hz,
            "upright": self.done_well,
        }

    def expert(self) -> "Swinger":
        return Swinger()

    def disturbance(self, rng: np.random.Generator, strength: float) -> "Shoves":
        return Shoves(rng, strength, self.spec.max_steps)

    def labelled(self, action: np.ndarray) -> Labels:
        return super().labelled(action) | {"velocity_radps": self.velocity_radps}


@dataclass(frozen=True)
class Swinger:
    """Brings the pendulum up and keeps it there.

    Mean score of seeds 2000 to 2099: -161.0, upright at the end in all of them; random torques: -1228.5, in none.
    """

    pump: float = 0.15
    """Newton metres for each unit of energy that is missing and each radian a second."""
    near_rad: float = 0.6
    """Angle from the top below which it is balanced."""
    angle_gain: float = 10.0
    velocity_gain: float = 2.5

    def act(self, world: PendulumWorld) -> Labels:
        angle, velocity = world.angle_rad, world.velocity_radps
        if abs(angle) < self.near_rad:
            torque = -self.angle_gain * angle - self.velocity_gain * velocity
        else:
            missing = 1.5 * GRAVITY * (1 - math.cos(angle)) - velocity**2 / 2  # Of energy, to stand still at the top.
            torque = self.pump * missing * (velocity or 1.0)
        return {"torque_nm": min(max(torque, -TORQUE_NM), TORQUE_NM), "velocity_radps": velocity}


class Shoves:
    """What is done instead of the expert's wish: coloured noise, and spells of a torque held whatever it leads to.

    Without the spells a model hardly ever sees how to come back, and learns the velocity from its own torque.
    """

    def __init__(self, rng: np.random.Generator, strength: float, num_steps: int):
        self.noise_nm = coloured_noise(rng, 8 * TORQUE_NM * strength, num_steps)
        self.held_nm = spells(rng, num_steps, strength, (5, 20), lambda: rng.uniform(-TORQUE_NM, TORQUE_NM), math.nan)

    def apply(self, labels: Mapping[str, float], world: PendulumWorld) -> np.ndarray:
        held = float(self.held_nm[world.steps])
        torque = labels["torque_nm"] + self.noise_nm[world.steps] if math.isnan(held) else held
        return world.act({"torque_nm": float(torque)})
