"""Pixels of a torch environment, from the renderer of the Gymnasium environment that it is the twin of."""

from typing import Any

import gymnasium as gym
import numpy as np


class Painter:
    """Draws states with a Gymnasium environment's own renderer.

    Args:
        id: a classic-control environment, whose state of `env.unwrapped.state` decides the picture.
    """

    def __init__(self, id: str) -> None:
        self._env: Any = gym.make(id, render_mode="rgb_array").unwrapped
        self._env.reset(seed=0)

    def draw(self, state: np.ndarray) -> np.ndarray:
        """State (S,) -> picture (height, width, 3) of uint8."""
        self._env.state = state
        return self._env.render()

    def close(self) -> None:
        self._env.close()
