"""The pathwise derivative, and what it has in common with its relatives for choices."""

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from scorepath.distributions import AbstractHead
from scorepath.envs import AbstractEnvironment
from scorepath.estimators.base import AbstractEstimator
from scorepath.policy import Policy
from scorepath.returns import reward_to_go
from scorepath.rollout import act_by_rsample, rollout_windows
from scorepath.types import Episodes


class AbstractPathwise(AbstractEstimator):
    """∇ Σ_t γ^t r_t of single paths, through actions that a rule makes of the policy's distribution.

    Args:
        window: env steps of a window; None is the whole episode.
        accept_discontinuities: run also where the environment jumps, which biases the estimate.

    Raises:
        ValueError: if window is below 1; at a call, if the rewards carry no graph.
    """

    needs_graph = True
    baselines = "value"

    def __init__(self, window: int | None, accept_discontinuities: bool) -> None:
        super().__init__()
        self.window = checked_window(window)
        self.accept_discontinuities = accept_discontinuities

    @abstractmethod
    def act(self, head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
        """The action (*B, *A) to record, and what the environment is given for it, with a graph to the policy."""

    def collect(self, env: AbstractEnvironment, policy: Policy, seed: int) -> Iterator[Episodes]:
        """The windows of episodes played by the rule, each with its graph."""
        return rollout_windows(env, policy, seed, window=self.window, graph=True, rule=self.act)

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        """Reward-to-go, with its graph: of a window's first row, the window's objective."""
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the mean of what the first row's returns are, differentiable through the environment.

        A baseline of the first observation is a constant in it.
        """
        require_graph(episodes)
        return -advantages[0].mean(), {"train/entropy": entropy(policy, episodes)}


class Pathwise(AbstractPathwise):
    """The pathwise derivative: ∇J = E[∇ Σ_t γ^t r_t] through rsample()d actions and the environment's own graph.

    Episodes are cut into windows: at the end of each the policy takes an optimizer step, and a value network, where
    the baseline has one, estimates what follows (short-horizon actor-critic, Xu et al. 2022, arXiv:2204.07137). A
    whole episode's product of Jacobians explodes in all but the tamest environments; a window's stays small, at the
    price of a bias that shrinks with the value network's error.

    Args:
        window: env steps of a window; None is the whole episode, unbiased.
        accept_discontinuities: run also where the environment jumps, which biases the estimate.

    Raises:
        ValueError: if window is below 1; at a call, if the rewards carry no graph.
    """

    needs_rsample = True

    def __init__(self, window: int | None = 20, accept_discontinuities: bool = False) -> None:
        super().__init__(window, accept_discontinuities)

    def bias(self, gamma: float) -> tuple[str, ...]:
        return window_bias(self.window)

    def act(self, head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
        """A sample with its graph, and the element of the action space that it represents."""
        return act_by_rsample(head, dist)


def checked_window(window: int | None) -> int | None:
    """The window, refused by ValueError below 1."""
    if window is not None and window < 1:
        raise ValueError(f"window={window} must be at least 1, or null for whole episodes.")
    return window


def window_bias(window: int | None) -> tuple[str, ...]:
    """Why windows are biased, in a few words; () for whole episodes."""
    return () if window is None else ("windows are cut, and every one starts at gamma^0",)


def require_graph(episodes: Episodes) -> None:
    """Raises ValueError if the rewards carry no graph."""
    if not episodes.rewards.requires_grad:
        raise ValueError(
            "The pathwise derivative needs rewards with a graph: roll out with rsample() in a differentiable "
            "environment, and do not detach."
        )


@torch.no_grad()
def entropy(policy: Policy, episodes: Episodes) -> Tensor:
    """Mean entropy of the policy over the valid steps, ()."""
    return policy.head.entropy(policy(episodes.observations[episodes.valid])).mean()
