"""Pixels of a torch environment, from the renderer of the Gymnasium environment that it is the twin of."""

from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class Painter:
    """Draws states with a Gymnasium environment's own renderer.

    Args:
        dynamics: whose states are drawn; its `drawn_as` names the environment.
    """

    def __init__(self, dynamics: AbstractDynamics) -> None:
        assert dynamics.drawn_as is not None
        self._dynamics = dynamics
        self._env: Any = gym.make(dynamics.drawn_as, render_mode="rgb_array").unwrapped
        self._env.reset(seed=0)

    def draw(self, state: Tensor, action: Tensor | None) -> np.ndarray:
        """A state (S,) and the action (*A) that led to it, None at a start -> picture (height, width, 3) of uint8."""
        action = None if action is None else action.detach().cpu()
        vars(self._env).update(self._dynamics.drawing(state.detach().cpu().double(), action))
        return self._env.render()

    def close(self) -> None:
        self._env.close()
