"""The torch environments for others: as a Gymnasium environment."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.interface import METADATA, make_dynamics, make_painter, metadata_of, read_actions, read_options

_SCALAR: dict[Any, Callable[[Any], Any]] = {
    torch.Tensor.sin: np.sin,
    torch.Tensor.cos: np.cos,
    torch.Tensor.square: lambda value: value**2,
}


class _AsNumpy(TorchFunctionMode):
    """Computes sines, cosines and squares by numpy's scalars, whose last bit differs from torch's once in a thousand.

    For rewards equal to the original's to the bit, as `gymnasium.utils.env_match` compares them; a step takes twice
    as long.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        scalar = _SCALAR.get(func)
        if scalar is None:
            return func(*args, **(kwargs or {}))
        array = args[0].numpy()
        return torch.from_numpy(np.array([scalar(value) for value in array.flat], array.dtype).reshape(array.shape))


class TorchEnv(gym.Env):
    """One environment of a dynamics; its time limit is Gymnasium's wrapper's.

    A reset takes the options of the original.

    Args:
        dynamics: what defines the environment, or `module:Class`.
        render_mode: None or "rgb_array".
        dtype: of the state, by torch's name for it; Gymnasium's environments compute in float64.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn.
    """

    metadata = METADATA

    def __init__(
        self,
        dynamics: str | Callable[..., AbstractDynamics],
        *,
        render_mode: str | None = None,
        dtype: str = "float64",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = make_dynamics(dynamics, arguments)
        self.observation_space = self.dynamics.observation_space
        self.action_space = self.dynamics.action_space
        self.render_mode = render_mode
        self.metadata = metadata_of(self.dynamics)
        self._painter = make_painter(self.dynamics, render_mode)
        self._to: dict[str, Any] = {"device": torch.device("cpu"), "dtype": getattr(torch, dtype)}
        self._state: Tensor | None = None
        self._action: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        start = self.dynamics.initial(self.np_random, 1, **read_options(self.dynamics, options))
        self._state, self._action = torch.as_tensor(start).to(**self._to), None
        return self._observation(self._state), {}

    @torch.no_grad()
    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Plays a step.

        Raises:
            AssertionError: if the action is not of the action space.
            ResetNeeded: before the first reset.
        """
        state = self._begun()
        self._action = taken = read_actions(self.dynamics, action, (), self._to)
        actions = taken.unsqueeze(0)
        with _AsNumpy() if self.dynamics.numpy_scalars else nullcontext():
            self._state = self.dynamics.transition(state, actions)
            reward = self.dynamics.reward(state, actions, self._state)
            terminated = self.dynamics.terminal(self._state)
            observation = self._observation(self._state)
        paid = np.float64(reward.item()) if self.dynamics.numpy_scalars else reward.item()
        return observation, paid, bool(terminated), False, {}

    def render(self) -> Any:
        """A picture (height, width, 3), or None without a render mode."""
        return None if self._painter is None else self._painter.draw(self._begun()[0], self._action)

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()

    def _observation(self, state: Tensor) -> np.ndarray:
        return self.dynamics.observation(state)[0].to(torch.float32, copy=True).numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state
