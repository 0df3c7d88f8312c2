"""The pole that hangs from its cart and is to be swung up: a smooth task, for derivatives of paths."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.dynamics.cartpole import cartpole_step


class CartPoleSwingUp(AbstractDynamics):
    """CartPole's cart and pole from the hanging position, with a force to choose and no end but the time limit.

    Reward (1 + cos θ) / 2 - 0.02 x² - 0.01 (force / 10 N)²: 1 where the pole stands still in the middle. Forces are
    kept within their bounds by a clamp, whose derivative is 0 beyond them; nothing else of it is not smooth.
    """

    name = "cartpole_swingup_torch"
    drawn_as = "CartPole-v1"
    render_fps = 50.0
    max_episode_steps = 200
    differentiable = True
    terminates = False
    force = 10.0  # N

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (5,), np.float32)
        self.action_space = gym.spaces.Box(-self.force, self.force, (1,), np.float32)

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -0.05, high: float = 0.05
    ) -> np.ndarray:
        return generator.uniform(low, high, size=(number, 4)) + np.array([0.0, 0.0, np.pi, 0.0])

    def _force(self, action: Tensor) -> Tensor:
        return action.squeeze(-1).clamp(-self.force, self.force)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return cartpole_step(state, self._force(action))

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        upright = 0.5 * (1.0 + next_state[:, 2].cos())
        return upright - 0.02 * next_state[:, 0].square() - 0.01 * (self._force(action) / self.force).square()

    def observation(self, state: Tensor) -> Tensor:
        position, velocity, angle, spin = state.unbind(-1)
        return torch.stack((position, velocity, angle.cos(), angle.sin(), spin), dim=-1)
