"""The functional form of a torch environment, after Gymnasium's functional-environment convention."""

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor


class AbstractDynamics(ABC):
    """Pure functions of batched states; S is the width of a state.

    To add an environment, write one subclass in a file of its own here and one YAML in `conf/env`.
    """

    name: str
    observation_space: gym.spaces.Box
    action_space: gym.Space
    max_episode_steps: int
    reward_threshold: float | None = None
    reward_range: tuple[float, float] | None = None  # least and most that one step can pay, where known
    original: str | None = None  # Gymnasium id of the environment this is the twin of; policies are evaluated on it
    drawn_as: str | None = None  # Gymnasium id of a classic-control environment whose renderer draws these states
    render_fps: float = 30.0  # pictures a second of that renderer
    # the original computes with numpy's scalars and pays in them: so does a single environment, to the last bit
    numpy_scalars: bool = False
    terminates: bool = True  # False: `terminal` is never true, and need not be asked
    differentiable: bool = False  # rewards have useful gradients with respect to actions
    # where reward or transition jump, in words: there a derivative of one path knows nothing of the jump
    discontinuities: str | None = None
    # reads an action of Discrete(K) as weights over the K choices, (N, K) floats that sum to 1, one-hot for a choice
    accepts_weights: bool = False

    @abstractmethod
    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        """Start states (N, S), float64. What it takes by keyword beside these are the options of a Gymnasium reset."""

    @abstractmethod
    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        """(N, S), (N, *A) -> the next states (N, S)."""

    @abstractmethod
    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """(N, S), (N, *A), (N, S) -> rewards (N,)."""

    def terminal(self, state: Tensor) -> Tensor:
        """(N, S) -> whether the state ends the episode, (N,) bool. To be given unless `terminates` is False."""
        return torch.zeros(len(state), dtype=torch.bool, device=state.device)

    @abstractmethod
    def observation(self, state: Tensor) -> Tensor:
        """(N, S) -> observations (N, *O)."""

    def drawing(self, state: Tensor, action: Tensor | None) -> dict[str, Any]:
        """What `drawn_as` keeps of a state (S,) and the action (*A) before it, by the names its renderer reads."""
        return {"state": state.numpy()}


def as_weights(space: gym.Space, actions: Tensor, dtype: torch.dtype) -> Tensor:
    """Choices (N,) int64, p(1) (N,) or weights (N, K) of a Discrete space -> weights (N, K)."""
    assert isinstance(space, gym.spaces.Discrete)
    if not actions.is_floating_point():
        return torch.nn.functional.one_hot(actions - int(space.start), int(space.n)).to(dtype)
    if actions.dim() == 1:
        return torch.stack((1.0 - actions, actions), dim=-1)
    return actions
