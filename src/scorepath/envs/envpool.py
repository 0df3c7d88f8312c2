"""EnvPool: environments stepped by C++ threads, fast for MuJoCo and Atari."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from scorepath.config import nearest
from scorepath.envs.lanes import AbstractLanes
from scorepath.envs.player import short
from scorepath.envs.reader import Answer, Reader
from scorepath.errors import ConfigError


class EnvPoolLanes(AbstractLanes):
    """A pool of one of EnvPool's environments (Weng et al. 2022, arXiv:2206.10558).

    Its generators are seeded once, when it is made, which is at the first reset here: the same command plays the same
    episodes, but a resumed run cannot continue with those of the run that was not stopped. An episode's end is
    followed by Gymnasium's next-step autoreset.

    Args:
        id: of EnvPool's list, which has most of Gymnasium's.
        number: environments, W.
        options: of the environment, as `envpool.make` takes them.

    Raises:
        ConfigError: if EnvPool is not installed, or knows no such environment or option.
    """

    one_seed = True
    irreproducible = "EnvPool seeds its environments once, so a resumed run plays other episodes"

    def __init__(self, id: str, number: int, options: dict[str, Any]) -> None:
        try:
            import envpool  # noqa: PLC0415 (an extra)
        except ImportError as error:
            raise ConfigError('env.vectorization=envpool needs a package: pip install "scorepath[envpool]".') from error
        known = envpool.list_all_envs()
        if id not in known:
            near = nearest(id, known)
            hint = f"did you mean {near}? Or u" if near else "u"
            raise ConfigError(f"env.id={id} is not one of EnvPool's environments: {hint}se env.vectorization=auto.")
        self._make = envpool.make
        self._id, self._number, self._options = id, number, options
        with self._making():
            spec = envpool.make_spec(id, **options)
            space: gym.Space = spec.gymnasium_observation_space
            self.action_space: gym.Space = spec.gymnasium_action_space
        if spec.config.max_num_players != 1:
            raise ConfigError(f"env.id={id} is a game of several players, and env.vectorization=envpool plays for one.")
        self._reader = Reader(id, number, space)
        self.observation_space = self._reader.flat
        self.max_episode_steps = int(spec.config.max_episode_steps)
        self.reward_threshold: float | None = getattr(spec.config, "reward_threshold", None)  # most have none
        self._pool: Any = None

    def reset(self, seed: int) -> np.ndarray:
        with self._making():
            if self._pool is None:
                self._pool = self._make(
                    self._id, env_type="gymnasium", num_envs=self._number, seed=seed % 2**31, **self._options
                )
            answer = self._pool.reset()
        return self._reader.reset(answer)

    def step(self, actions: np.ndarray, playing: np.ndarray) -> Answer:
        return self._reader.step(self._pool.step(actions))[0]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    @contextlib.contextmanager
    def _making(self) -> Iterator[None]:
        """What EnvPool raises, which depends on the environment, as one sentence."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bounds that lose digits as float32
            try:
                yield
            except Exception as error:
                raise ConfigError(
                    f"env.id={self._id} cannot be made with vectorization=envpool: {short(error)}. Check env.kwargs, "
                    "or use env.vectorization=auto."
                ) from error
