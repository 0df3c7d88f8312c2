"""A stochastic computation graph of continuous and discrete nodes (Schulman et al. 2015, arXiv:1506.05254)."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class Mixed(AbstractDynamics):
    """Two decisions on the line with a coin between them: x sets the coin's odds, and its side what y is paid.

    x ~ π(· | start), k ~ Bernoulli(sigmoid(x)), y ~ π(· | k); rewards -x² / 10 for x and c_k - (y - m_k)² for y, with c
    and m of each side. The derivative along a path sees x² and (y - m_k)², but not that x moves the coin. The
    coin is drawn from torch's global generator, which the caller seeds, as it does for actions.
    """

    name = "mixed"
    max_episode_steps = 2
    differentiable = True
    discontinuities = "the action sets the odds of a coin"

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (3,), np.float32)  # one-hot: start, tails, heads
        self.action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.prizes = torch.tensor([0.5, 2.0], dtype=torch.float64)  # c
        self.targets = torch.tensor([1.0, -0.5], dtype=torch.float64)  # m

    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        return np.zeros((number, 1))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        """From the start (0) to a side (1, 2), from there to the end (3)."""
        heads = torch.rand(len(state), 1, dtype=state.dtype, device=state.device) < action.detach().sigmoid()
        return torch.where(state == 0, 1.0 + heads.to(state), torch.full_like(state, 3.0))

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        x, place = action.squeeze(-1), state.squeeze(-1).long()
        side = (place - 1).clamp(min=0)
        second = self.prizes.to(state)[side] - (x - self.targets.to(state)[side]).square()
        return torch.where(place == 0, -x.square() / 10.0, second)

    def terminal(self, state: Tensor) -> Tensor:
        return state.squeeze(-1) > 2.5

    def observation(self, state: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(state.squeeze(-1).long(), 4)[:, :3].to(state)


class Hybrid(AbstractDynamics):
    """One decision with a discrete and a continuous node: a side k and a number x, paid c_k - (x - m_k)², and the end.

    Actions are rows (k, x), the leaves of a Tuple space side by side.
    """

    name = "hybrid"
    max_episode_steps = 1

    def __init__(self) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        line = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gym.spaces.Tuple((gym.spaces.Discrete(3), line))
        self.prizes = torch.tensor([0.5, 2.0, 0.0], dtype=torch.float64)  # c
        self.targets = torch.tensor([1.0, -0.5, 0.3], dtype=torch.float64)  # m

    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        return np.zeros((number, 1))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return state + 1.0

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        side, x = action[..., 0].long(), action[..., 1]
        return self.prizes.to(state)[side] - (x - self.targets.to(state)[side]).square()

    def terminal(self, state: Tensor) -> Tensor:
        return state.squeeze(-1) > 0.5

    def observation(self, state: Tensor) -> Tensor:
        return torch.ones_like(state)
