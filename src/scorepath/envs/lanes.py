"""Gymnasium's vector environments as lanes that can be left out once their episode has ended, in numpy arrays."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector.utils import batch_space, iterate

from scorepath.envs.composite import nest
from scorepath.seeding import split_seed


class Answer(NamedTuple):
    """What W lanes answer to W actions."""

    observations: np.ndarray  # (W, *O)
    rewards: np.ndarray  # (W,)
    terminated: np.ndarray  # (W,) bool
    truncated: np.ndarray  # (W,) bool


class AbstractLanes(ABC):
    """Environments that are stepped side by side. An array that `step` returns may be written over by the next."""

    can_narrow: bool = False  # `keep` is there
    one_seed: bool = False  # all start states come from one generator

    @abstractmethod
    def reset(self, seed: int) -> np.ndarray:
        """Starts a fresh episode in every lane, also in those left out so far. Returns observations (W, *O)."""

    @abstractmethod
    def step(self, actions: np.ndarray) -> Answer:
        """Actions (W, *A), those of composite spaces as flat rows. A lane whose episode has ended may answer anything
        that fits the spaces.
        """

    def keep(self, rows: np.ndarray) -> None:
        """Leaves all other lanes out of what follows, until the next reset."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Releases what the environments hold."""


class VectorLanes(AbstractLanes):
    """A vector environment as it is: all lanes are stepped, those whose episode has ended by autoreset."""

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        self._vector = vector
        self.one_seed = not isinstance(vector.unwrapped, gym.vector.AsyncVectorEnv)
        self._composite = isinstance(vector.single_action_space, gym.spaces.Dict | gym.spaces.Tuple)

    def reset(self, seed: int) -> np.ndarray:
        seeds: Any = seed if self.one_seed else split_seed(seed, self._vector.num_envs)  # Gymnasium types lists away
        return self._vector.reset(seed=seeds)[0]

    def step(self, actions: np.ndarray) -> Answer:
        nested = nest(self._vector.single_action_space, actions) if self._composite else actions
        return Answer(*self._vector.step(nested)[:4])

    def close(self) -> None:
        self._vector.close()


class SerialLanes(AbstractLanes):
    """The environments of a SyncVectorEnv, each stepped by itself for as long as its episode runs."""

    can_narrow = True

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        assert isinstance(vector.unwrapped, gym.vector.SyncVectorEnv)
        self._vector = vector
        self._envs = vector.unwrapped.envs
        self._flattens = vector is not vector.unwrapped  # FlattenObservation is the only wrapper
        self._batched_actions = vector.action_space
        self._composite = isinstance(vector.single_action_space, gym.spaces.Dict | gym.spaces.Tuple)

    def reset(self, seed: int) -> np.ndarray:
        observations, _ = self._vector.reset(seed=split_seed(seed, self._vector.num_envs))  # type: ignore[arg-type]
        self._rows = np.arange(self._vector.num_envs)
        self._observations = observations.copy()
        self._ended = np.zeros(len(self._rows), dtype=bool)
        return self._observations

    def step(self, actions: np.ndarray) -> Answer:
        nested = nest(self._vector.single_action_space, actions) if self._composite else actions
        number = len(self._rows)
        rewards = np.zeros(number)
        terminated, truncated = np.zeros(number, dtype=bool), np.zeros(number, dtype=bool)
        for lane, action in enumerate(iterate(self._batched_actions, nested)):
            if not self._ended[lane]:
                env = self._envs[self._rows[lane]]
                observation, rewards[lane], terminated[lane], truncated[lane], _ = env.step(action)
                if self._flattens:
                    observation = gym.spaces.flatten(env.observation_space, observation)
                self._observations[lane] = observation
        self._ended |= terminated | truncated
        return Answer(self._observations, rewards, terminated, truncated)

    def keep(self, rows: np.ndarray) -> None:
        self._rows, self._ended = self._rows[rows], self._ended[rows]
        self._observations = self._observations[rows]

    def close(self) -> None:
        self._vector.close()


class CartPoleLanes(AbstractLanes):
    """Gymnasium's vectorised CartPole. Its whole state is three arrays, of which lanes can be taken."""

    can_narrow = True
    one_seed = True

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        assert isinstance(vector.unwrapped, CartPoleVectorEnv)
        self._vector = vector.unwrapped
        self._num_envs = vector.num_envs

    def reset(self, seed: int) -> np.ndarray:
        self._resize(self._num_envs)
        return self._vector.reset(seed=seed)[0]

    def step(self, actions: np.ndarray) -> Answer:
        return Answer(*self._vector.step(actions)[:4])

    def keep(self, rows: np.ndarray) -> None:
        vector = self._vector
        assert vector.state is not None
        vector.state = vector.state[:, rows]
        vector.steps, vector.prev_done = vector.steps[rows], vector.prev_done[rows]
        self._resize(len(rows))

    def _resize(self, number: int) -> None:
        if number != self._vector.num_envs:
            self._vector.num_envs = number
            self._vector.action_space = batch_space(self._vector.single_action_space, number)

    def close(self) -> None:
        self._vector.close()


def make_lanes(vector: gym.vector.VectorEnv) -> AbstractLanes:
    """The lanes that suit a vector environment."""
    if isinstance(vector.unwrapped, gym.vector.SyncVectorEnv):
        return SerialLanes(vector)
    return CartPoleLanes(vector) if isinstance(vector.unwrapped, CartPoleVectorEnv) else VectorLanes(vector)
