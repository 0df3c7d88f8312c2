"""One Gymnasium environment, whose answers are checked against its spaces and refused in one sentence."""

import os
import sys
import traceback
from typing import Any, final

import gymnasium as gym
import numpy as np

from scorepath.errors import ScorepathError

NUMBERS, _FLAGS = "biuf", "biu"  # numpy's kinds of dtypes


@final
class Player:
    """One environment, its observations flattened to those of a Box.

    What an environment raises in code of its own is let through, for its author wants to see where.

    Args:
        env: with any space of observations that can be flattened.
        space: the Box.
    """

    def __init__(self, env: gym.Env, space: gym.Space) -> None:
        self.env = env
        self._space = env.observation_space
        self._flattens = not isinstance(self._space, gym.spaces.Box)
        self._shape = space.shape
        self._is_new = True  # nothing of its kind has been looked at closely

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Starts an episode. Returns an observation (*O,).

        Raises:
            ScorepathError: if the answer is none of Gymnasium's.
        """
        try:
            observation, _ = self.env.reset(seed=seed)
            return self._read(observation)
        except Exception as error:
            if _raised_by_itself(error):
                raise
            raise self._misfit("reset", error) from error

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool]:
        """Returns an observation (*O,), the reward, and whether the episode is terminated or truncated.

        Raises:
            ScorepathError: if the answer is none of Gymnasium's.
        """
        try:
            observation, reward, terminated, truncated, _ = self.env.step(action)
            if self._is_new:
                self._is_new = False
                _check_scalar("reward", reward, NUMBERS)
                _check_scalar("terminated", terminated, _FLAGS)
                _check_scalar("truncated", truncated, _FLAGS)
            return self._read(observation), float(reward), bool(terminated), bool(truncated)
        except Exception as error:
            if _raised_by_itself(error):
                raise
            raise self._misfit("step", error) from error

    def _read(self, observation: Any) -> np.ndarray:
        if self._flattens:
            observation = gym.spaces.flatten(self._space, observation)
        array = observation if isinstance(observation, np.ndarray) else np.asarray(observation)
        if array.shape != self._shape or array.dtype.kind not in NUMBERS:
            raise ValueError(f"the observation {short(observation)} is no array of numbers of shape {self._shape}")
        return array

    def _misfit(self, method: str, error: Exception) -> ScorepathError:
        parts = "(observation, info)" if method == "reset" else "(observation, reward, terminated, truncated, info)"
        name = self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__
        return ScorepathError(
            f"{name} does not keep to Gymnasium's interface in {method}(), which returns {parts}: {short(error)}. "
            "Correct the environment, with the help of gymnasium.utils.env_checker.check_env, or wrap it under an id "
            "of its own."
        )


def short(value: object) -> str:
    """A value on one line of at most 200 characters, without a full stop; of an error without words, its place."""
    try:
        text = " ".join(str(value).split()).rstrip(".")
    except Exception:  # what an environment raises may do so again here
        text = ""
    if isinstance(value, Exception) and not text:
        frames = traceback.extract_tb(value.__traceback__)[-1:]
        text = type(value).__name__ + "".join(f" in {os.path.basename(at.filename)}, line {at.lineno}" for at in frames)
    elif isinstance(value, Exception) and type(value) is not ValueError:
        text = f"{type(value).__name__}: {text}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check_scalar(what: str, value: Any, kinds: str) -> None:
    array = np.asarray(value)
    if array.shape or array.dtype.kind not in kinds:
        wanted = "a number" if kinds == NUMBERS else "True or False"
        raise ValueError(f"{what} is not {wanted} but {type(value).__name__} {short(value)}")


def _raised_by_itself(error: Exception) -> bool:
    """Whether code of the environment is part of the traceback, and not only this module's and Gymnasium's own."""
    frame = error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_globals.get("__name__", "")
        package = name.split(".")[0]
        known = name == __name__ or package in ("numpy", "gymnasium") or package in sys.stdlib_module_names
        if not known or name.startswith("gymnasium.envs."):
            return True
        frame = frame.tb_next
    return False
