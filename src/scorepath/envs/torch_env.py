"""Torch environments: batches of a functional dynamics, on any device, differentiable where the dynamics are."""

import copy

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils.seeding import np_random
from torch import Tensor

from scorepath.envs.base import AbstractEnvironment, Step
from scorepath.envs.drawing import Painter
from scorepath.envs.dynamics.base import AbstractDynamics, as_weights


class TorchEnvironment(AbstractEnvironment):
    """N environments as one tensor of states.

    Noise of the dynamics comes from torch's global generator, so that two copies of a `branch` that start from the same
    generator state meet the same noise, row by row.

    Args:
        dynamics: the functions that define the environment.
        num_episodes: N, as many lanes.
        device: where the states live.
        dtype: of states, observations and rewards.

    Raises:
        TypeError: if the dynamics leave open whether they ever end, or accept weights over no Discrete space.
    """

    can_branch = True
    can_narrow = True

    def __init__(
        self,
        dynamics: AbstractDynamics,
        num_episodes: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dynamics.accepts_weights and not isinstance(dynamics.action_space, gym.spaces.Discrete):
            raise TypeError(f"{type(dynamics).__name__} accepts weights: its action space must be Discrete.")
        if dynamics.terminates and type(dynamics).terminal is AbstractDynamics.terminal:
            raise TypeError(f"{type(dynamics).__name__} defines no `terminal`: add it, or set `terminates = False`.")
        self.dynamics = dynamics
        self.name = dynamics.name
        self.num_episodes = self.num_lanes = num_episodes
        self.observation_space = dynamics.observation_space
        self.action_space = dynamics.action_space
        self.max_episode_steps = dynamics.max_episode_steps
        self.may_end_early = dynamics.terminates
        self.reward_threshold = dynamics.reward_threshold
        self.original = dynamics.original
        self.reward_range = dynamics.reward_range
        self.render_fps = dynamics.render_fps
        self.differentiable = dynamics.differentiable
        self.discontinuities = dynamics.discontinuities
        self.accepts_weights = dynamics.accepts_weights
        self._device = torch.device(device)
        self._dtype = dtype
        self._seed = 0
        self._painter: Painter | None = None
        self._actions: Tensor | None = None  # the last ones, for a picture
        self._advance = self._play

    def reset(self, seed: int) -> Tensor:
        self._seed = seed
        self.steps = 0
        generator, _ = np_random(seed)  # numpy's, so that start states are those of Gymnasium's original
        initial = self.dynamics.initial(generator, self.num_episodes)
        self._actions = None
        self._state = self._start = torch.as_tensor(initial, dtype=self._dtype, device=self._device)
        return self.dynamics.observation(self._state)

    def step(self, actions: Tensor, playing: Tensor | None = None) -> Step:
        if self.accepts_weights:
            actions = as_weights(self.action_space, actions, self._dtype)
        self.steps += 1
        self._actions = actions
        self._state, observations, rewards, terminated = self._advance(self._state, self._start, actions)
        truncated = torch.full_like(terminated, self.steps >= self.max_episode_steps)
        return Step(observations, rewards, terminated, truncated)

    def _play(self, state: Tensor, start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Next states, what they show, rewards, and whether they end the episode."""
        following = self.dynamics.transition(state, actions)
        reward = self.dynamics.reward(state, actions, following)
        terminated = self.dynamics.terminal(following)
        observation = self.dynamics.observation(following)
        if self.dynamics.terminates:
            # An ended episode plays on from its start, where everything is finite: masked values then leave no NaN
            # in the gradient, which a zero would not undo
            following = torch.where(terminated.unsqueeze(-1), start, following)
        return following, observation, reward, terminated

    def compile(self) -> None:
        self._advance = torch.compile(self._play, dynamic=True)  # the number of lanes changes

    def branch(self, rows: Tensor) -> "TorchEnvironment":
        other = copy.copy(self)
        other.num_episodes = other.num_lanes = len(rows)
        vars(other).update(_state=self._state[rows], _start=self._start[rows], _actions=None)
        return other

    def keep(self, rows: Tensor) -> None:
        self._state, self._start = self._state[rows], self._start[rows]
        self._actions = None if self._actions is None else self._actions[rows]

    def detach(self) -> None:
        self._state = self._state.detach()

    def render(self) -> np.ndarray | None:
        if self.dynamics.drawn_as is None:
            return None
        if self._painter is None:
            self._painter = Painter(self.dynamics)
        return self._painter.draw(self._state[0], None if self._actions is None else self._actions[0])

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()

    def describe_episode(self, index: int) -> str:
        return f"episode {index} of the batch reset with seed {self._seed}"
