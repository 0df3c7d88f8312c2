"""One decision x on the real line, and a payoff f(x): the problems on which gradient estimators are compared."""

from abc import abstractmethod
from collections.abc import Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class AbstractOneStep(AbstractDynamics):
    """Reward f(x) for x = offset + action, and the end. The only observation is 1.

    Args:
        offset: where x is at action 0; it puts an expectation under N(offset, 1) at weights that are zero.
        bound: actions are from -bound to bound, for distributions on an interval; None is all of the line.
    """

    max_episode_steps = 1
    differentiable = True
    breaks: tuple[float, ...] = ()  # where f or its derivative jumps; quadrature must not integrate across

    def __init__(self, offset: float = 0.0, bound: float | None = None) -> None:
        self.offset = offset
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        limit = np.inf if bound is None else bound
        self.action_space: gym.Space = gym.spaces.Box(-limit, limit, (1,), np.float32)

    @abstractmethod
    def payoff(self, x: Tensor) -> Tensor:
        """f: (N,) -> (N,)."""

    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        """State 0, the time."""
        return np.zeros((number, 1))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        """State 1, the end."""
        return state + 1.0

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """f(offset + action)."""
        return self.payoff(self.offset + action.squeeze(-1).to(state))

    def terminal(self, state: Tensor) -> Tensor:
        """After the one step."""
        return state.squeeze(-1) > 0.5

    def observation(self, state: Tensor) -> Tensor:
        """(N, 1) of ones."""
        return torch.ones_like(state)


class Quadratic(AbstractOneStep):
    """f(x) = (x - k)² (Mohamed et al. 2020, JMLR 21:132, figure 2)."""

    def __init__(self, k: float = 0.0, offset: float = 1.0, bound: float | None = None) -> None:
        super().__init__(offset, bound)
        self.k = k
        self.name = f"(x - {k:g})^2"

    def payoff(self, x: Tensor) -> Tensor:
        return (x - self.k).square()


class Bell(AbstractOneStep):
    """f(x) = exp(-k x²) (Mohamed et al. 2020, figure 3)."""

    def __init__(self, k: float = 1.0, offset: float = 1.0, bound: float | None = None) -> None:
        super().__init__(offset, bound)
        self.k = k
        self.name = f"exp(-{k:g} x^2)"

    def payoff(self, x: Tensor) -> Tensor:
        return (-self.k * x.square()).exp()


class Cosine(AbstractOneStep):
    """f(x) = cos(k x) (Mohamed et al. 2020, figure 3)."""

    def __init__(self, k: float = 1.0, offset: float = 1.0, bound: float | None = None) -> None:
        super().__init__(offset, bound)
        self.k = k
        self.name = f"cos({k:g} x)"

    def payoff(self, x: Tensor) -> Tensor:
        return (self.k * x).cos()


class Choice(AbstractOneStep):
    """f(x) = -(x - k)² for one x of K; weights over the choices are read as the weighted mean of their x.

    Between the choices f is curved, so that an estimator which differentiates there meets a derivative that is not the
    difference between two choices.

    Args:
        points: the x of each choice, (K,).
        k: the best x.
    """

    name = "choice"
    accepts_weights = True

    def __init__(self, points: Sequence[float] = (-1.0, 0.5, 2.0), k: float = 1.0) -> None:
        super().__init__()
        self.points = torch.as_tensor(points, dtype=torch.float64)
        self.k = k
        self.action_space = gym.spaces.Discrete(len(points))

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.payoff(action.to(state) @ self.points.to(state))

    def payoff(self, x: Tensor) -> Tensor:
        return -(x - self.k).square()
