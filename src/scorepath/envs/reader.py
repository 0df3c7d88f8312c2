"""What vector environments answer, as arrays of the shapes that they must have, and observations as flat vectors."""

from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector.utils import batch_space, iterate

from scorepath.envs.player import NUMBERS, short
from scorepath.errors import ConfigError, ScorepathError


class Answer(NamedTuple):
    """What W lanes answer to W actions."""

    observations: np.ndarray  # (W, *O)
    rewards: np.ndarray  # (W,)
    terminated: np.ndarray  # (W,) bool
    truncated: np.ndarray  # (W,) bool


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


class Reader:
    """Reads the answers of a vector environment: arrays of the shapes that they must have, observations flattened.

    Args:
        name: of the environment, for messages.
        number: environments, W.
        space: of one environment's observations.

    Raises:
        ConfigError: if such observations cannot be flattened.
    """

    def __init__(self, name: str, number: int, space: gym.Space) -> None:
        self.flat = flatten_space(name, space)  # *O
        self._name, self._number, self._space = name, number, space
        self._batch = batch_space(space, number)
        self._flattens = not isinstance(space, gym.spaces.Box)

    def reset(self, answer: Any) -> np.ndarray:
        """Observations (W, *O).

        Raises:
            ScorepathError: if the answer is none of Gymnasium's.
        """
        return self._read(answer, 2)[0][0]

    def step(self, answer: Any) -> tuple[Answer, Any]:
        """The answer, and its infos.

        Raises:
            ScorepathError: if the answer is none of Gymnasium's.
        """
        arrays, infos = self._read(answer, 5)
        return Answer(*arrays), infos

    def put_last(self, observations: np.ndarray, ended: np.ndarray, infos: Any) -> np.ndarray:
        """Observations (W, *O), where an episode has ended that of its end, which same-step autoreset puts aside.

        Args:
            ended: (W,) bool.
            infos: of the step.

        Raises:
            ScorepathError: if they lack it.
        """
        observations = observations.copy()
        try:
            last, known = infos["final_obs"], infos.get("_final_obs", ended)
            if not known[ended].all():
                raise KeyError
            # an array of single observations, or one batch of the space
            rows = last if isinstance(last, np.ndarray | list) else list(iterate(self._batch, last))
            for lane in np.flatnonzero(ended):
                row = np.asarray(gym.spaces.flatten(self._space, rows[lane]) if self._flattens else rows[lane])
                if row.shape != self.flat.shape or row.dtype.kind not in NUMBERS:
                    raise ValueError
                observations[lane] = row
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ScorepathError(
                f"{self._name} says that it begins the next episode in the step that ends one (autoreset_mode "
                "SAME_STEP), but its infos do not have each ended episode's last observation under final_obs: correct "
                "the environment, or use env.vectorization=sync."
            ) from error
        return observations

    def _read(self, answer: Any, number: int) -> tuple[list[np.ndarray], Any]:
        """The arrays of an answer, and the infos at its end."""
        lanes = self._number
        shapes = [(lanes, *self.flat.shape), (lanes,), (lanes,), (lanes,)]
        infos: Any = None
        try:
            observations, *parts, infos = answer
            arrays = [self._flatten(observations), *(np.asarray(part) for part in parts)]
        except (IndexError, KeyError, TypeError, ValueError):  # no tuple, ragged, or outside the space
            arrays = []
        kinds = (NUMBERS, NUMBERS, "b", "b")
        if len(arrays) != number - 1 or any(
            array.shape != shape or array.dtype.kind not in kind
            for array, shape, kind in zip(arrays, shapes, kinds, strict=False)
        ):
            found = ", ".join(f"{array.dtype}{list(array.shape)}" for array in arrays) or short(answer)
            raise ScorepathError(
                f"{self._name} does not keep to the interface of Gymnasium's vector environments: with {lanes} "
                f"environments, reset() and step() return observations that flatten to shape {shapes[0]}, and step() "
                f"also rewards, terminations and truncations (bool) of shape {shapes[1]}, but it returned {found}: "
                "correct the environment, or use env.vectorization=sync."
            )
        return arrays, infos

    def _flatten(self, observations: Any) -> np.ndarray:
        if not self._flattens:
            return np.asarray(observations)
        # one-hot for Discrete, concatenation for Dict and Tuple
        rows: list[Any] = [gym.spaces.flatten(self._space, row) for row in iterate(self._batch, observations)]
        return np.stack(rows)
