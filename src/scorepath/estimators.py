"""Gradient estimators: Episodes and advantages -> the surrogate loss, whose gradient is the estimate.

The normaliser is that of the policy gradient theorem's Monte Carlo form: the mean over episodes of the sum over valid
steps, grad J ≈ 1/N Σ_n Σ_t A_t ∇ log π(a_t | o_t).
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from scorepath.policy import Policy
from scorepath.returns import reward_to_go, total_return, whiten
from scorepath.types import Episodes


class AbstractEstimator(ABC):
    """How the gradient of the expected return is estimated from a batch of episodes."""

    needs_graph: ClassVar[bool]  # act by rsample() and differentiate through the environment
    window: int | None = None  # env steps between optimizer steps; None is the whole episode

    @abstractmethod
    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        """The returns (T, N) that the baseline is subtracted from and fitted to."""

    @abstractmethod
    def __call__(self, policy: Policy, episodes: Episodes, advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Advantages (T, N) = returns - baseline -> (surrogate loss (), metrics)."""


class ScoreFunction(AbstractEstimator):
    """REINFORCE: ∇J = E[Σ_t A_t ∇ log π(a_t | o_t)] (Williams 1992), with the state distribution undiscounted.

    Args:
        credit: `reward_to_go` weighs each action with what follows it, `total_return` with the whole episode's
            return. Both are unbiased; the first has the lower variance.
        normalize_returns: `none`, or `batch`: advantages whitened over the batch, which is biased in length (it
            divides by a standard deviation of the same samples) but makes one learning rate fit many reward scales.
        entropy_coefficient: weight of the entropy, summed over an episode's steps like the rewards, in the objective;
            not 0 changes the optimum.

    Raises:
        ValueError: for another option.
    """

    needs_graph = False

    def __init__(
        self,
        credit: Literal["reward_to_go", "total_return"] = "reward_to_go",
        normalize_returns: Literal["none", "batch"] = "batch",
        entropy_coefficient: float = 0.0,
    ) -> None:
        if credit not in ("reward_to_go", "total_return"):
            raise ValueError(f"credit={credit}: use reward_to_go or total_return.")
        if normalize_returns not in ("none", "batch"):
            raise ValueError(f"normalize_returns={normalize_returns}: use none or batch.")
        self.credit = credit
        self.normalize_returns = normalize_returns
        self.entropy_coefficient = entropy_coefficient

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        last_values = None if last_values is None else last_values.detach()
        if self.credit == "total_return":
            return total_return(episodes.rewards, episodes.valid, episodes.is_last, gamma, last_values)
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def __call__(self, policy: Policy, episodes: Episodes, advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        valid = episodes.valid
        advantages = advantages.detach()
        if self.normalize_returns == "batch":
            advantages = whiten(advantages, valid)
        dist = policy(episodes.observations[valid])  # batch_shape (B,), B valid steps
        log_prob = dist.log_prob(episodes.actions[valid])
        loss = -(log_prob * advantages[valid]).sum() / valid.shape[1]
        if self.entropy_coefficient == 0.0:
            with torch.no_grad():
                entropy = policy.head.entropy(dist).mean()
        else:
            entropy = policy.head.entropy(dist).mean()
            loss = loss - self.entropy_coefficient * entropy * valid.sum() / valid.shape[1]
        return loss, {"train/entropy": entropy.detach()}


class Pathwise(AbstractEstimator):
    """The pathwise derivative: ∇J = E[∇ Σ_t γ^t r_t] through rsample()d actions and the environment's own graph.

    Episodes are cut into windows: at the end of each the policy takes an optimizer step, and a value network, where
    the baseline has one, stands for what follows (short-horizon actor-critic, Xu et al. 2022, arXiv:2204.07137). A
    whole episode's product of Jacobians explodes in all but the tamest environments; a window's stays small, at the
    price of a bias that shrinks with the value network's error.

    Args:
        window: env steps of a window; None is the whole episode, unbiased.

    Raises:
        ValueError: if window is below 1; at a call, if the rewards carry no graph.
    """

    needs_graph = True

    def __init__(self, window: int | None = 20) -> None:
        if window is not None and window < 1:
            raise ValueError(f"window={window} must be at least 1, or null for whole episodes.")
        self.window = window

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def __call__(self, policy: Policy, episodes: Episodes, advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if not episodes.rewards.requires_grad:
            raise ValueError(
                "The pathwise derivative needs rewards with a graph: roll out with rsample() in a differentiable "
                "environment, and do not detach."
            )
        # The first row's return is the window's objective; a baseline of the first observation is a constant in it.
        loss = -advantages[0].mean()
        with torch.no_grad():
            entropy = policy.head.entropy(policy(episodes.observations[episodes.valid])).mean()
        return loss, {"train/entropy": entropy}
