"""The torch environments for others: as a Gymnasium vector environment."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.interface import METADATA, make_dynamics, make_painter, metadata_of, read_actions, read_options


class TorchVectorEnv(gym.vector.VectorEnv):
    """N environments of one dynamics, started again by any of Gymnasium's autoreset modes.

    Start states come from Gymnasium's generator, drawn as its own CartPole vector environment draws them. The state is
    a tensor; with `tensors=True` so are actions and all answers, and a reward can be differentiated with respect to the
    actions before it (where the dynamics are differentiable; `detach` cuts). A reset takes the options of the original
    (`low` and `high`, for example), which hold until the next one, and `reset_mask`, (N,) bool, of those to reset.

    Args:
        dynamics: what defines the environment, or `module:Class`.
        num_envs: N.
        max_episode_steps: truncates an episode; the dynamics' own limit if None.
        render_mode: None or "rgb_array".
        device: where the states live.
        dtype: of states and rewards, by torch's name for it. Observations are of the space's type.
        tensors: answer in tensors on `device`, instead of numpy's arrays.
        autoreset_mode: NEXT_STEP spends a step of reward 0 on it; SAME_STEP gives the last observation in
            `infos["final_obs"]`; DISABLED leaves it to `reset_mask`.
        arguments: of the dynamics.

    Raises:
        ValueError: if it cannot be drawn, or the autoreset mode is unknown.
    """

    metadata = METADATA

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
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.dynamics = make_dynamics(dynamics, arguments)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps or self.dynamics.max_episode_steps
        self.single_observation_space = self.dynamics.observation_space
        self.single_action_space = self.dynamics.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        self._painter = make_painter(self.dynamics, render_mode)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**metadata_of(self.dynamics), "autoreset_mode": self.autoreset_mode}
        self._tensors = tensors
        self._to: dict[str, Any] = {"device": torch.device(device), "dtype": getattr(torch, dtype)}
        self._state: Tensor | None = None
        self._actions: Tensor | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        options = dict(options or {})
        rows = self._rows(options.pop("reset_mask")) if "reset_mask" in options else None
        self._start_options = read_options(self.dynamics, options)
        if rows is None:
            self._state = self._start(self.num_envs)
            self._steps = torch.zeros(self.num_envs, dtype=torch.int64, device=self._to["device"])
            self._ended = torch.zeros(self.num_envs, dtype=torch.bool, device=self._to["device"])
        else:
            self._state = self._restart(self._begun(), rows)
            self._ended = self._ended.index_fill(0, rows, False)
        return self._observations(self._state), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Plays a step, and begins the next episode of those that ended as the autoreset mode has it.

        Raises:
            AssertionError: if an action is not of the action space.
            ResetNeeded: before the first reset, and after an end where the autoreset mode is DISABLED.
        """
        state = self._begun()
        actions = read_actions(self.dynamics, actions, (self.num_envs,), self._to)
        over = bool(self._ended.any())
        if over and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gym.error.ResetNeeded("An episode has ended: call reset with its reset_mask before the next step.")
        following = self.dynamics.transition(state, actions)
        rewards = self.dynamics.reward(state, actions, following)
        terminated = self.dynamics.terminal(following)
        self._steps += 1
        truncated = self._steps >= self.max_episode_steps
        if over:
            following = self._restart(following, self._ended.nonzero().squeeze(-1))
            rewards = rewards.masked_fill(self._ended, 0.0)
            terminated, truncated = terminated & ~self._ended, truncated & ~self._ended
        self._ended = terminated | truncated
        infos = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            rows = self._ended.nonzero().squeeze(-1)
            infos = self._final(self._observations(following), rows)
            following = self._restart(following, rows)
            self._ended = torch.zeros_like(self._ended)
        self._state, self._actions = following, actions
        observations = self._observations(following)
        return observations, self._give(rewards), self._give(terminated), self._give(truncated), infos

    def detach(self) -> None:
        """Cuts the gradient at the present states."""
        self._state = self._begun().detach()

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture (height, width, 3) of each environment."""
        if self._painter is None:
            return None
        begun = (self._steps == 0).tolist()
        return tuple(
            self._painter.draw(state, None if begun[row] or self._actions is None else self._actions[row])
            for row, state in enumerate(self._begun())
        )

    def close_extras(self, **kwargs: Any) -> None:
        if self._painter is not None:
            self._painter.close()

    def _start(self, number: int) -> Tensor:
        return torch.as_tensor(self.dynamics.initial(self.np_random, number, **self._start_options)).to(**self._to)

    def _restart(self, states: Tensor, rows: Tensor) -> Tensor:
        """The states with these rows at a start."""
        self._steps[rows] = 0
        return states.index_put((rows,), self._start(len(rows)))

    def _rows(self, mask: Any) -> Tensor:
        """Of `reset_mask`."""
        mask = torch.as_tensor(mask, device=self._to["device"])
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"options['reset_mask'] must be ({self.num_envs},) bool, with one to reset at least.")
        return mask.nonzero().squeeze(-1)

    def _final(self, observations: Any, rows: Tensor) -> dict[str, Any]:
        """Infos with the last observations of episodes, as Gymnasium's vector environments write them."""
        final = np.full(self.num_envs, None, dtype=object)
        for row in rows.tolist():
            final[row] = observations[row]
        ended = self._ended.cpu().numpy()
        return {"final_obs": final, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}

    def _observations(self, states: Tensor) -> Any:
        """A copy, for an observation may be the state itself."""
        return self._give(self.dynamics.observation(states).to(torch.float32, copy=True))

    def _give(self, tensor: Tensor) -> Any:
        return tensor if self._tensors else tensor.detach().cpu().numpy()

    def _begun(self) -> Tensor:
        if self._state is None:
            raise gym.error.ResetNeeded("Call reset before step and render.")
        return self._state
