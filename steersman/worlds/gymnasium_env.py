"""A world as a Gymnasium environment, for libraries that want one."""

from collections.abc import Mapping

import gymnasium
import numpy as np

from .world import Step, WorldSpec


class GymnasiumEnv(gymnasium.Env):
    """Observation, reward and ends are the world's; an action is its controls in their order."""

    def __init__(self, spec: WorldSpec, render: bool = True):
        self.world = spec.build(render)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.world.rate_hz}
        self.render_mode = "rgb_array"
        _, dtype, shape = self.world.observation
        ends = (0, 255) if dtype == "uint8" else (-np.inf, np.inf)
        self.observation_space = gymnasium.spaces.Box(*ends, shape, np.dtype(dtype).type)
        low, high = np.array(list(self.world.controls.values()), np.float32).T
        self.action_space = gymnasium.spaces.Box(low, high)

    def reset(self, *, seed: int | None = None, options: Mapping[str, object] | None = None):
        """Begins an episode; without a seed one is drawn from the last seed's generator."""
        super().reset(seed=seed)
        return self.world.reset(int(self.np_random.integers(2**31)) if seed is None else seed)

    def step(self, action: np.ndarray) -> Step:
        return self.world.step(action)

    def render(self) -> np.ndarray:
        return self.world.render()
