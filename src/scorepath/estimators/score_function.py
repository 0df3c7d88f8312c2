"""The score function estimator, REINFORCE."""

from typing import Literal

import torch
from torch import Tensor

from scorepath.estimators.base import AbstractEstimator
from scorepath.policy import Policy
from scorepath.returns import discounts, reward_to_go, total_return, whiten
from scorepath.types import Episodes


class ScoreFunction(AbstractEstimator):
    """REINFORCE: ∇J = E[Σ_t A_t ∇ log π(a_t | o_t)] (Williams 1992), with the state distribution undiscounted.

    Args:
        credit: `reward_to_go` weighs each action with what follows it, `total_return` with the whole episode's
            return. Both are unbiased; the first has the lower variance.
        normalize_returns: `none`, or `batch`: advantages whitened over the batch, which is biased in length (it
            divides by a standard deviation of the same samples) but makes one learning rate fit many reward scales.
        discount_steps: weigh step t by γ^t, as the gradient of the discounted return has it. Nearly all
            implementations leave it out, for it takes the signal from late steps; what is left then is the gradient of
            no objective (Nota & Thomas 2020, arXiv:1906.07073), unless γ = 1.
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
        discount_steps: bool = False,
        entropy_coefficient: float = 0.0,
    ) -> None:
        super().__init__()
        if credit not in ("reward_to_go", "total_return"):
            raise ValueError(f"credit={credit}: use reward_to_go or total_return.")
        if normalize_returns not in ("none", "batch"):
            raise ValueError(f"normalize_returns={normalize_returns}: use none or batch.")
        self.credit = credit
        self.normalize_returns = normalize_returns
        self.discount_steps = discount_steps
        self.entropy_coefficient = entropy_coefficient

    def bias(self, gamma: float) -> str | None:
        if self.entropy_coefficient != 0.0:
            return "the entropy bonus is part of the objective"
        if self.normalize_returns != "none":
            return "advantages are divided by a standard deviation of the same samples"
        if not self.discount_steps and gamma < 1.0:
            return "steps are not weighed by gamma^t"
        return None

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        last_values = None if last_values is None else last_values.detach()
        if self.credit == "total_return":
            return total_return(episodes.rewards, episodes.valid, episodes.is_last, gamma, last_values)
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def weigh(self, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        advantages = advantages.detach()
        if self.normalize_returns == "batch":
            advantages = whiten(advantages, episodes.valid)
        if self.discount_steps:
            advantages = advantages * discounts(len(advantages), gamma).to(advantages)
        return advantages

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        valid = episodes.valid
        dist = policy(episodes.observations[valid])  # batch_shape (B,), B valid steps
        log_prob = dist.log_prob(episodes.actions[valid])
        loss = -(log_prob * advantages.detach()[valid]).sum() / valid.shape[1]
        if self.entropy_coefficient == 0.0:
            with torch.no_grad():
                entropy = policy.head.entropy(dist).mean()
        else:
            entropy = policy.head.entropy(dist).mean()
            loss = loss - self.entropy_coefficient * entropy * valid.sum() / valid.shape[1]
        return loss, {"train/entropy": entropy.detach()}
