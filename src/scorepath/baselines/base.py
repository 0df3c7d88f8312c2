"""The baseline interface: Episodes -> b(o_t), subtracted from the returns to lower the gradient's variance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from scorepath.envs import AbstractEnvironment
from scorepath.policy import Policy
from scorepath.types import Episodes

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class AbstractBaseline(nn.Module, ABC):
    """b(o_t) for every step of a batch, detached from the policy where it is subtracted.

    Of the score function, the expected gradient stays what it is if b does not depend on the action it is subtracted
    from, for E[∇ log π(a | o)] = 0. What a baseline keeps between updates is a parameter or a buffer, and saved.
    """

    is_zero: ClassVar[bool] = False  # subtracts nothing
    predicts_values: ClassVar[bool] = False  # V(o): can bootstrap, and is fitted
    needs_same_starts: ClassVar[bool] = False  # plays the batch's episodes from their starts another time

    min_episodes: int = 1  # of a batch
    # all that makes subtracting it change the expected gradient, in a few words each; that a V(o) replaces what
    # follows a truncation is not named here, since that is so for every V(o)
    bias: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        """Episodes and their returns (T, N), as played by `policy` -> b (T, N)."""

    def advantages(self, episodes: Episodes, returns: Tensor, gamma: float, policy: Policy) -> Tensor:
        """How much better than expected each action was, (T, N), detached from the baseline's own parameters."""
        return returns - self(episodes, returns, policy).detach()

    def play(self, env: AbstractEnvironment, policy: Policy, seed: int, gamma: float) -> Mapping[str, Tensor]:
        """Plays what the baseline has to see before a batch is collected from resets with the same `seed`.

        Returns:
            what is added to `Episodes.extras` of that batch, (any, N, ...) each. The caller seeds torch for it, apart
            from the batch: a baseline that shares the noise of the sampled actions depends on them.
        """
        return {}

    def last_values(self, episodes: Episodes) -> Tensor | None:
        """V(o_L) of what follows each column's last step, (N,), zero where terminated; None without a value."""
        return None

    def make_optimizer(self) -> torch.optim.Optimizer | None:
        """The optimizer of the baseline's own parameters, if it has some."""
        return None

    def fit(self, episodes: Episodes, returns: Tensor, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
        """Learns from a batch after the advantages were taken from it. Returns metrics.

        Processes that learn together are all given the episodes of all and the same random numbers; they stay alike to
        the last bit if `ranks.average_gradients` is called before each step.
        """
        return {}
