"""Gymnasium's vector environments as lanes that can be left out once their episode has ended, in numpy arrays."""

from abc import ABC, abstractmethod
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space, iterate

from scorepath.envs.composite import nest
from scorepath.envs.player import Player, short
from scorepath.envs.reader import Answer, Reader, flatten_space
from scorepath.errors import ConfigError, ScorepathError
from scorepath.seeding import split_seed


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
    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
        """Actions (W, *A), those of composite spaces as flat rows. A lane that is not `playing` (W,) bool, for its
        episode has ended, may answer anything that fits the spaces.
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


class AbstractGymnasiumLanes(AbstractLanes):
    """What all vector environments of Gymnasium share."""

    def __init__(self, name: str, vector: gym.vector.VectorEnv) -> None:
        self._vector = vector
        self.observation_space = flatten_space(name, vector.single_observation_space)
        self.action_space = vector.single_action_space
        self._composite = isinstance(self.action_space, gym.spaces.Dict | gym.spaces.Tuple)

    def _nested(self, actions: np.ndarray) -> Any:
        return nest(self.action_space, actions) if self._composite else actions

    def render(self) -> np.ndarray | None:
        """Gymnasium's own picture."""
        if self._vector.render_mode is None:  # some implementations raise an error then
            return None
        frames = self._vector.render()
        return None if frames is None else np.asarray(frames[0])

    def close(self) -> None:
        """Closes the vector environment."""
        self._vector.close()


class VectorLanes(AbstractGymnasiumLanes):
    """A vector environment as it is: all lanes are stepped, those whose episode has ended by its own autoreset mode.

    `metadata["autoreset_mode"]` says which (farama.org/Vector-Autoreset-Mode). NEXT_STEP spends a step on the reset.
    SAME_STEP has begun the next episode when it says that one has ended, and puts the last observation in the infos.
    DISABLED begins others only on request, and none may be stepped beyond its end. No mode is assumed where it is
    missing: under a wrong one, values would be bootstrapped from another episode's start without a word.

    Raises:
        ConfigError: if the environment does not say its mode, or has another number of lanes than asked.
    """

    one_seed = True

    def __init__(self, name: str, vector: gym.vector.VectorEnv) -> None:
        super().__init__(name, vector)
        self._name = name
        self._reader = Reader(name, vector.num_envs, vector.single_observation_space)
        self._mode = _autoreset_mode(name, vector)
        self._seeds = 2**63

    def reset(self, seed: int) -> np.ndarray:
        self._ended = np.zeros(self._vector.num_envs, dtype=bool)
        self._shown = self._reader.reset(self._seed(seed))
        return self._shown

    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
        if self._mode is AutoresetMode.DISABLED and self._ended.any():
            self._begin_others()
        answer, infos = self._reader.step(self._vector.step(self._nested(actions)))
        self._ended = answer.terminated | answer.truncated
        if self._mode is AutoresetMode.SAME_STEP and self._ended.any():
            answer = answer._replace(observations=self._reader.put_last(answer.observations, self._ended, infos))
        self._shown = answer.observations
        return answer

    def _seed(self, seed: int) -> Any:
        try:
            return self._vector.reset(seed=seed % self._seeds)
        except (OverflowError, TypeError):
            # implementations in C++ take seeds of 32 bits, one for each environment counted from this on
            narrow = 2**31 - self._vector.num_envs
            if self._seeds == narrow:
                raise
            self._seeds = narrow
            return self._seed(seed)

    def _begin_others(self) -> None:
        """Another episode, which is not looked at, where one has ended; `Lanes` steps all lanes."""
        before = self._shown[~self._ended].copy()
        shown = self._reader.reset(self._vector.reset(options={"reset_mask": self._ended.copy()}))
        if not np.array_equal(shown[~self._ended], before, equal_nan=True):
            raise ScorepathError(
                f"{self._name} says that its caller begins the next episodes (autoreset_mode "
                'DISABLED), but reset(options={"reset_mask": ...}) has changed observations of running episodes: '
                "correct the environment, or use env.vectorization=sync."
            )


def _autoreset_mode(name: str, vector: gym.vector.VectorEnv) -> AutoresetMode:
    mode = vector.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        found = "does not say" if mode is None else f"says {short(mode)!r}"
        raise ConfigError(
            f"env.id={name} {found} in metadata['autoreset_mode'] when its next episodes begin, so that the last "
            "observation of an episode cannot be distinguished from the first of the next: have the vector environment "
            "set it to a gymnasium.vector.AutoresetMode, or use env.vectorization=sync."
        ) from error


class SerialLanes(AbstractGymnasiumLanes):
    """The environments of a SyncVectorEnv, each stepped by itself for as long as its episode runs.

    Its autoreset, in whatever mode, is not used.
    """

    can_narrow = True

    def __init__(self, name: str, vector: gym.vector.SyncVectorEnv) -> None:
        super().__init__(name, vector)
        self._players = [Player(env, self.observation_space) for env in vector.envs]

    def reset(self, seed: int) -> np.ndarray:
        number = len(self._players)
        self._rows = np.arange(number)
        self._observations = np.empty((number, *(self.observation_space.shape or ())), self.observation_space.dtype)
        for lane, (player, own_seed) in enumerate(zip(self._players, split_seed(seed, number), strict=True)):
            self._observations[lane] = player.reset(own_seed)
        return self._observations

    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
        number = len(self._rows)
        rewards = np.zeros(number)
        terminated, truncated = np.zeros(number, dtype=bool), np.zeros(number, dtype=bool)
        for lane, action in enumerate(iterate(self._vector.action_space, self._nested(actions))):
            if playing[lane]:
                player = self._players[self._rows[lane]]
                self._observations[lane], rewards[lane], terminated[lane], truncated[lane] = player.step(action)
        return Answer(self._observations, rewards, terminated, truncated)

    def keep(self, rows: np.ndarray) -> None:
        self._rows, self._observations = self._rows[rows], self._observations[rows]


class CartPoleLanes(AbstractGymnasiumLanes):
    """Gymnasium's vectorised CartPole. Its whole state is three arrays, of which lanes can be taken."""

    can_narrow = True
    one_seed = True

    def __init__(self, name: str, vector: CartPoleVectorEnv) -> None:
        super().__init__(name, vector)
        self._cartpole = vector
        self._num_envs = vector.num_envs

    def reset(self, seed: int) -> np.ndarray:
        self._resize(self._num_envs)
        return self._cartpole.reset(seed=seed)[0]

    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
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


def make_lanes(name: str, vector: gym.vector.VectorEnv) -> AbstractLanes:
    """The lanes that suit a vector environment.

    Raises:
        ConfigError: if its observations cannot be flattened, or it does not say its autoreset mode.
    """
    # by their very class: what wraps or extends one may answer otherwise than the parts that are used here
    if type(vector) is gym.vector.SyncVectorEnv:
        return SerialLanes(name, vector)
    return CartPoleLanes(name, vector) if type(vector) is CartPoleVectorEnv else VectorLanes(name, vector)
