"""The pathwise derivative."""

import torch
from torch import Tensor

from scorepath.estimators.base import AbstractEstimator
from scorepath.policy import Policy
from scorepath.returns import reward_to_go
from scorepath.types import Episodes


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
        super().__init__()
        if window is not None and window < 1:
            raise ValueError(f"window={window} must be at least 1, or null for whole episodes.")
        self.window = window

    def bias(self, gamma: float) -> str | None:
        return None if self.window is None else "windows are cut, and every one starts at gamma^0"

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
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
