"""Gymnasium's vector environments as lanes that can be left out once their episode has ended, in numpy arrays."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector.utils import batch_space, iterate

from scorepath.envs.composite import nest
from scorepath.envs.player import Player, short
from scorepath.errors import ConfigError, ScorepathError
from scorepath.seeding import split_seed


class Answer(NamedTuple):
    """What W lanes answer to W actions."""

    observations: np.ndarray  # (W, *O)
    rewards: np.ndarray  # (W,)
    terminated: np.ndarray  # (W,) bool
    truncated: np.ndarray  # (W,) bool


class AbstractLanes(ABC):
    """Environments that are stepped side by side. An array that `step` returns may be written over by the next."""

    observation_space: gym.Space  # of one environment
    action_space: gym.Space
    can_narrow: bool = False  # `keep` is there
    one_seed: bool = False  # all start states come from one generator
    irreproducible: str | None = None  # why `reset` does not give the same episodes for the same seed again

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

    def render(self) -> np.ndarray | None:
        """The first environment as a picture, or None where it cannot be drawn."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Releases what the environments hold."""


def flatten_space(name: str, space: gym.Space) -> gym.spaces.Box:
    """The Box that observations of a space are flattened to.

    Raises:
        ConfigError: if they cannot be.
    """
    try:
        flat = space if isinstance(space, gym.spaces.Box) else gym.spaces.flatten_space(space)
        if isinstance(flat, gym.spaces.Box):
            return flat
    except (NotImplementedError, ValueError, TypeError):
        pass
    raise ConfigError(
        f"env.id={name} has observations {space}, which cannot be flattened into one vector: wrap the environment and "
        "register it under an id of its own."
    )


class AbstractGymnasiumLanes(AbstractLanes):
    """What all vector environments of Gymnasium share."""

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        self._vector = vector
        self.observation_space, self.action_space = vector.single_observation_space, vector.single_action_space
        self._composite = isinstance(self.action_space, gym.spaces.Dict | gym.spaces.Tuple)

    def _nested(self, actions: np.ndarray) -> Any:
        return nest(self.action_space, actions) if self._composite else actions

    def render(self) -> np.ndarray | None:
        """Gymnasium's own picture."""
        frames = self._vector.render()
        return None if frames is None else np.asarray(frames[0])

    def close(self) -> None:
        """Closes the vector environment."""
        self._vector.close()


class VectorLanes(AbstractGymnasiumLanes):
    """A vector environment as it is: all lanes are stepped, those whose episode has ended by autoreset."""

    one_seed = True

    def reset(self, seed: int) -> np.ndarray:
        return self._read(self._vector.reset(seed=seed), 2)[0]

    def step(self, actions: np.ndarray) -> Answer:
        return Answer(*self._read(self._vector.step(self._nested(actions)), 5))

    def _read(self, answer: Any, number: int) -> list[np.ndarray]:
        """The arrays of an answer, without the infos at its end."""
        lanes = self._vector.num_envs
        shapes = [(lanes, *(self.observation_space.shape or ())), (lanes,), (lanes,), (lanes,)]
        try:
            *parts, _ = answer
            arrays = [np.asarray(part) for part in parts]
        except (TypeError, ValueError):  # no tuple, or ragged
            arrays = []
        kinds = ("biuf", "biuf", "b", "b")
        if len(arrays) != number - 1 or any(
            array.shape != shape or array.dtype.kind not in kind
            for array, shape, kind in zip(arrays, shapes, kinds, strict=False)
        ):
            found = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays) or short(answer)
            vector = self._vector.unwrapped
            name = vector.spec.id if vector.spec else type(vector).__name__
            raise ScorepathError(
                f"{name} does not keep to the interface of Gymnasium's vector environments: with {lanes} environments, "
                f"reset() and step() return observations of shape {shapes[0]}, and step() also rewards, terminations "
                f"and truncations (bool) of shape {shapes[1]}, but it returned {found}: mend the environment, or use "
                "env.vectorization=sync."
            )
        return arrays


class SerialLanes(AbstractGymnasiumLanes):
    """The environments of a SyncVectorEnv, each stepped by itself for as long as its episode runs."""

    can_narrow = True

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        assert isinstance(vector.unwrapped, gym.vector.SyncVectorEnv)
        super().__init__(vector)
        self._players = [Player(env, self.observation_space) for env in vector.unwrapped.envs]

    def reset(self, seed: int) -> np.ndarray:
        number = len(self._players)
        self._rows = np.arange(number)
        self._observations = np.empty((number, *(self.observation_space.shape or ())), self.observation_space.dtype)
        for lane, (player, own_seed) in enumerate(zip(self._players, split_seed(seed, number), strict=True)):
            self._observations[lane] = player.reset(own_seed)
        self._ended = np.zeros(number, dtype=bool)
        return self._observations

    def step(self, actions: np.ndarray) -> Answer:
        number = len(self._rows)
        rewards = np.zeros(number)
        terminated, truncated = np.zeros(number, dtype=bool), np.zeros(number, dtype=bool)
        for lane, action in enumerate(iterate(self._vector.action_space, self._nested(actions))):
            if not self._ended[lane]:
                player = self._players[self._rows[lane]]
                self._observations[lane], rewards[lane], terminated[lane], truncated[lane] = player.step(action)
        self._ended |= terminated | truncated
        return Answer(self._observations, rewards, terminated, truncated)

    def keep(self, rows: np.ndarray) -> None:
        self._rows, self._ended = self._rows[rows], self._ended[rows]
        self._observations = self._observations[rows]


class CartPoleLanes(AbstractGymnasiumLanes):
    """Gymnasium's vectorised CartPole. Its whole state is three arrays, of which lanes can be taken."""

    can_narrow = True
    one_seed = True

    def __init__(self, vector: gym.vector.VectorEnv) -> None:
        assert isinstance(vector.unwrapped, CartPoleVectorEnv)
        super().__init__(vector)
        self._cartpole = vector.unwrapped
        self._num_envs = vector.num_envs

    def reset(self, seed: int) -> np.ndarray:
        self._resize(self._num_envs)
        return self._cartpole.reset(seed=seed)[0]

    def step(self, actions: np.ndarray) -> Answer:
        return Answer(*self._cartpole.step(actions)[:4])

    def keep(self, rows: np.ndarray) -> None:
        vector = self._cartpole
        assert vector.state is not None
        vector.state = vector.state[:, rows]
        vector.steps, vector.prev_done = vector.steps[rows], vector.prev_done[rows]
        self._resize(len(rows))

    def _resize(self, number: int) -> None:
        if number != self._cartpole.num_envs:
            self._cartpole.num_envs = number
            self._cartpole.action_space = batch_space(self.action_space, number)


def make_lanes(vector: gym.vector.VectorEnv) -> AbstractLanes:
    """The lanes that suit a vector environment."""
    if isinstance(vector.unwrapped, gym.vector.SyncVectorEnv):
        return SerialLanes(vector)
    return CartPoleLanes(vector) if isinstance(vector.unwrapped, CartPoleVectorEnv) else VectorLanes(vector)
