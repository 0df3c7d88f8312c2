"""The torch environments for others: as Gymnasium environments, batched and single."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from scorepath.envs.drawing import Painter
from scorepath.envs.dynamics.base import AbstractDynamics

_METADATA = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}


def _make(dynamics: str | Callable[..., AbstractDynamics], arguments: Mapping[str, Any] | None) -> AbstractDynamics:
    """From a class, or from `module:Class`, as Gymnasium's registry writes it."""
    create: Any = load_env_creator(dynamics) if isinstance(dynamics, str) else dynamics
    return create(**(arguments or {}))


def _painter(dynamics: AbstractDynamics, render_mode: str | None) -> Painter | None:
    """Whoever draws, or None where nobody asked.

    Raises:
        ValueError: if the render mode is unknown, or nothing draws these states.
    """
    if render_mode is None:
        return None
    if render_mode != "rgb_array":
        raise ValueError(f"render_mode={render_mode!r} must be None or 'rgb_array'.")
    if dynamics.drawn_as is None:
        raise ValueError(f"{dynamics.name} has no renderer: leave out render_mode.")
    return Painter(dynamics.drawn_as)


class TorchVectorEnv(gym.vector.VectorEnv):
    """N environments of one dynamics, by Gymnasium's next-step autoreset.

    Start states come from Gymnasium's generator, drawn as its own CartPole vector environment draws them. The state is
    a tensor; with `tensors=True` so are actions and all answers, and a reward can be differentiated with respect to the
    actions before it (where the dynamics are differentiable; `detach` cuts).

    Args:
        dynamics: what defines the environment, or `module:Class`.
        num_envs: N.
        max_episode_steps: truncates an episode; the dynamics' own limit if None.
        render_mode: None or "rgb_array".
        device: where the states live.
        dtype: of states, by torch's name for it. Observations are of the space's type.
        tensors: answer in tensors on `device`, instead of numpy's arrays.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn.
    """

    metadata = _METADATA

    def __init__(
        self,
        dynamics: str | Callable[..., AbstractDynamics],
        num_envs: int = 1,
        *,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        tensors: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = _make(dynamics, arguments)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps or self.dynamics.max_episode_steps
        self.single_observation_space = self.dynamics.observation_space
        self.single_action_space = self.dynamics.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        self._painter = _painter(self.dynamics, render_mode)
        self.metadata = {**_METADATA, "render_fps": self.dynamics.render_fps}
        self._tensors = tensors
        self._to: dict[str, Any] = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
        self._state: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self._start(self.num_envs)
        self._steps = torch.zeros(self.num_envs, dtype=torch.int64, device=self._to["device"])
        self._ended = torch.zeros(self.num_envs, dtype=torch.bool, device=self._to["device"])
        return self._give(self.dynamics.observation(self._state).float()), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Plays a step, or for an episode that ended with the step before begins the next (reward 0)."""
        state = self._begun()
        actions = torch.as_tensor(actions, device=self._to["device"])
        following = self.dynamics.transition(state, actions)
        rewards = self.dynamics.reward(state, actions, following)
        terminated = self.dynamics.terminal(following)
        self._steps += 1
        truncated = self._steps >= self.max_episode_steps
        if self._ended.any():
            rows = self._ended.nonzero().squeeze(-1)
            following = following.index_put((rows,), self._start(len(rows)))
            rewards = rewards.masked_fill(self._ended, 0.0)
            terminated, truncated = terminated & ~self._ended, truncated & ~self._ended
            self._steps[rows] = 0
        self._state, self._ended = following, terminated | truncated
        observations = self.dynamics.observation(following).float()
        return self._give(observations), self._give(rewards), self._give(terminated), self._give(truncated), {}

    def detach(self) -> None:
        """Cuts the gradient at the present states."""
        self._state = self._begun().detach()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture (height, width, 3) of each environment."""
        if self._painter is None:
            return None
        return tuple(self._painter.draw(state) for state in self._begun().detach().cpu().double().numpy())

    def close_extras(self, **kwargs: Any) -> None:
        if self._painter is not None:
            self._painter.close()

    def _start(self, number: int) -> Tensor:
        return torch.as_tensor(self.dynamics.initial(self.np_random, number)).to(**self._to)

    def _give(self, tensor: Tensor) -> Any:
        return tensor if self._tensors else tensor.detach().cpu().numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state


class TorchEnv(gym.Env):
    """One environment of a dynamics; its time limit is Gymnasium's wrapper's.

    Args:
        dynamics: what defines the environment, or `module:Class`.
        render_mode: None or "rgb_array".
        dtype: of the state, by torch's name for it.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn.
    """

    metadata = _METADATA

    def __init__(
        self,
        dynamics: str | Callable[..., AbstractDynamics],
        *,
        render_mode: str | None = None,
        dtype: str = "float32",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = _make(dynamics, arguments)
        self.observation_space = self.dynamics.observation_space
        self.action_space = self.dynamics.action_space
        self.render_mode = render_mode
        self.metadata = {**_METADATA, "render_fps": self.dynamics.render_fps}
        self._painter = _painter(self.dynamics, render_mode)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._state: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = torch.as_tensor(self.dynamics.initial(self.np_random, 1)).to(self._dtype)
        return self._observation(self._state), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        state = self._begun()
        actions = torch.as_tensor(np.asarray(action)[None])
        self._state = self.dynamics.transition(state, actions)
        reward = self.dynamics.reward(state, actions, self._state)
        return self._observation(self._state), float(reward), bool(self.dynamics.terminal(self._state)), False, {}

    def render(self) -> Any:
        """A picture (height, width, 3), or None without a render mode."""
        return None if self._painter is None else self._painter.draw(self._begun()[0].double().numpy())

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()

    def _observation(self, state: Tensor) -> np.ndarray:
        return self.dynamics.observation(state)[0].float().numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state
