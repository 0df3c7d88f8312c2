"""The environment interface of the rollout: Gymnasium's vector environment, in tensors."""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from torch import Tensor


class Step(NamedTuple):
    """What W environments answer to W actions. Entries of episodes that have ended are meaningless."""

    observations: Tensor  # (W, *O)
    rewards: Tensor  # (W,)
    terminated: Tensor  # (W,) bool
    truncated: Tensor  # (W,) bool


class AbstractEnvironment(ABC):
    """W lanes stepped together, which play N episodes after a `reset`: one each, or some more than one.

    A rollout calls `reset` and then `step` until every episode has ended. It keeps which of them have; what a lane
    answers after its episode's end is not looked at. `describe_episode` goes by the rows of the reset, all else by
    those that are still played.
    """

    name: str  # what messages call it, e.g. CartPole-v1
    num_episodes: int  # N, of a batch
    num_lanes: int  # W, environments stepped side by side after a reset; where W < N, lanes begin other episodes
    observation_space: gym.Space  # of one environment, always a Box
    action_space: gym.Space  # of one environment
    max_episode_steps: int  # every episode ends by then
    may_end_early: bool = True  # or before
    reward_threshold: float | None = None  # mean episode return that counts as solved
    reward_range: tuple[float, float] | None = None  # least and most that one step can pay, where known
    original: str | None = None  # Gymnasium id of the environment this is a twin of, on which policies are judged
    render_fps: float = 30.0  # of what `render` draws, so that a video runs in real time
    differentiable: bool = False  # rewards and observations carry gradients with respect to actions
    discontinuities: str | None = None  # where reward or transition jump, in words; pathwise derivatives miss jumps
    accepts_weights: bool = False  # also takes weights (N, K) for Discrete(K), or p(1) (N,) for Discrete(2)
    can_branch: bool = False  # `branch` is there
    can_narrow: bool = False  # `keep` is there
    steps: int = 0  # since the last reset
    repeatable_starts: float = math.inf  # episodes of a batch that `reset` starts alike for a seed, whatever is done
    irreproducible: str | None = None  # why `reset` does not give the same episodes for the same seed again

    @property
    def return_range(self) -> tuple[float, float] | None:
        """Least and most that an episode can return, by `reward_range` and the number of its steps; None if unknown."""
        if self.reward_range is None:
            return None
        low, high = self.reward_range
        fewest, most = 1 if self.may_end_early else self.max_episode_steps, self.max_episode_steps
        return min(low * fewest, low * most), max(high * fewest, high * most)

    @abstractmethod
    def reset(self, seed: int) -> Tensor:
        """Starts fresh episodes, a pure function of `seed` (63 bits).

        Returns:
            observations (W, *O). Where W < N, a lane begins another episode after each, by Gymnasium's next-step
            autoreset, until N have been begun.
        """

    @abstractmethod
    def step(self, actions: Tensor, playing: Tensor | None = None) -> Step:
        """Applies actions (W, *A) of the action space.

        Args:
            playing: (W,) bool, whose answers are looked at: the others' episodes have ended, and need not be stepped.
                None is all.
        """

    def detach(self) -> None:
        """Cuts the gradient at the present state: the start of a new window. Only for differentiable environments."""

    def keep(self, rows: Tensor) -> None:
        """Leaves out all other lanes: until the next reset, `step` takes and answers these alone. Only where
        `can_narrow`.

        Args:
            rows: (M,) int64, ascending, of those that were played so far.
        """
        raise NotImplementedError(f"{self.name} steps all of its environments.")

    def branch(self, rows: Tensor) -> "AbstractEnvironment":
        """Copies of episodes in their present state, to be played on apart from these. Only where `can_branch`.

        Args:
            rows: (M,) int64, the episodes to copy, in any order and number.

        Returns:
            an environment of M episodes.
        """
        raise NotImplementedError(f"{self.name} cannot copy its state.")

    def compile(self) -> None:
        """Has torch compile the steps from now on, where they are torch's."""

    def describe_episode(self, index: int) -> str:
        """How to start episode `index` of the last reset again, for error messages."""
        return f"environment {index}"

    def render(self) -> np.ndarray | None:
        """The first environment as a picture (height, width, 3) of uint8, or None where it cannot be drawn."""
        return None

    def close(self) -> None:
        """Releases what the environments hold."""
