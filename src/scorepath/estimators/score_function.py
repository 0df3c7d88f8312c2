"""The score function estimator, REINFORCE."""

from typing import Literal, get_args

import torch
from torch import Tensor

from scorepath.estimators.base import AbstractEstimator, LogProbs
from scorepath.policy import Policy
from scorepath.returns import RunningMoments, discounts, reward_to_go, total_return, whiten
from scorepath.types import Episodes

Credit = Literal["reward_to_go", "total_return"]
Normalization = Literal["none", "episode", "batch", "running"]
_DECAY = 0.9  # of the running moments, an update: the scale follows a policy that learns in ten


class ScoreFunction(AbstractEstimator):
    """REINFORCE: ∇J = E[Σ_t A_t ∇ log π(a_t | o_t)] (Williams 1992), with the state distribution undiscounted.

    Args:
        credit: `reward_to_go` weighs each action with what follows it, `total_return` with the whole episode's
            return. Both are unbiased; the first has the lower variance.
        normalize_returns: what the advantages are scaled by, so that one learning rate fits many scales of rewards.
            `none`: nothing, unbiased.
            `batch`: whitened over all valid steps of the batch. The moments are of the same samples: biased, in
            direction too, though in direction by ever less the larger the batch. A baseline that is one number for the
            batch is taken out again.
            `episode`: whitened over each episode's own steps, as in many implementations. Biased in batches of any
            size: that one episode went better than another is lost, and an episode of one step teaches nothing.
            `running`: divided by a running standard deviation σ of the returns of earlier updates, whose weights fall
            by 0.9 an update. The expected gradient is the exact one divided by σ: its direction is unbiased. Where
            there is no σ, in the first update or while all returns were equal, by the batch's own standard deviation.
        discount_steps: weigh step t by γ^t, as the gradient of the discounted return has it under reward_to_go. Nearly
            all implementations leave it out, for it takes the signal from late steps; what is left then is the gradient
            of no objective (Nota & Thomas 2020, arXiv:1906.07073), unless γ = 1. A total return needs no such weights.
        entropy_coefficient: weight of the entropy, summed over an episode's steps like the rewards, in the objective;
            not 0 changes the optimum.
        log_probs: `again` computes log π a second time when the episodes are known, in chunks that stay in the caches;
            `rollout` keeps its graph from when the actions were sampled, which for a 64-64 policy takes 1 kB a step;
            `auto` does so where that is faster and fits: on a CPU, from 2,048 episodes, up to about 4 GB. The gradient
            is the same but for rounding. A kept graph has no entropies: the metric is then the mean of -log π, an
            unbiased estimate, and with an entropy bonus `auto` is `again`.

    Raises:
        ValueError: for another option, whitening over an episode whose steps all have one return, or an entropy bonus
            on a kept graph.
    """

    needs_graph = False

    def __init__(
        self,
        credit: Credit = "reward_to_go",
        normalize_returns: Normalization = "batch",
        discount_steps: bool = False,
        entropy_coefficient: float = 0.0,
        log_probs: LogProbs = "auto",
    ) -> None:
        super().__init__()
        if credit not in get_args(Credit):
            raise ValueError(f"credit={credit}: use one of {', '.join(get_args(Credit))}.")
        if normalize_returns not in get_args(Normalization):
            raise ValueError(f"normalize_returns={normalize_returns}: use one of {', '.join(get_args(Normalization))}.")
        if normalize_returns == "episode" and credit == "total_return":
            raise ValueError(
                "normalize_returns=episode leaves nothing of a total return, which is the same at every step of its "
                "episode: use credit=reward_to_go or normalize_returns=batch."
            )
        if log_probs not in get_args(LogProbs):
            raise ValueError(f"log_probs={log_probs}: use one of {', '.join(get_args(LogProbs))}.")
        if log_probs == "rollout" and entropy_coefficient != 0.0:
            raise ValueError("log_probs=rollout keeps no entropies for entropy_coefficient: use log_probs=again.")
        self.log_probs = "again" if log_probs == "auto" and entropy_coefficient != 0.0 else log_probs
        self.credit = credit
        self.normalize_returns = normalize_returns
        self.discount_steps = discount_steps
        self.entropy_coefficient = entropy_coefficient
        self.moments = RunningMoments(_DECAY) if normalize_returns == "running" else None

    def bias(self, gamma: float) -> str | None:
        if self.entropy_coefficient != 0.0:
            return "the entropy bonus is part of the objective"
        if self.normalize_returns == "batch":
            return "advantages are divided by a standard deviation of the same samples"
        if self.normalize_returns == "episode":
            return "advantages are whitened over the steps of their own episode"
        if self.credit == "reward_to_go" and not self.discount_steps and gamma < 1.0:
            return "steps are not weighed by gamma^t"
        if self.credit == "total_return" and self.discount_steps and gamma < 1.0:
            return "total returns are discounted already, and here weighed by gamma^t again"
        if self.normalize_returns == "running":
            return "divided by a running standard deviation of earlier returns; the direction is exact"
        return None

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        last_values = None if last_values is None else last_values.detach()
        if self.credit == "total_return":
            return total_return(episodes.rewards, episodes.valid, episodes.is_last, gamma, last_values)
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        advantages = advantages.detach()
        if self.moments is not None:
            advantages = advantages / self._scale(advantages[episodes.valid]).to(advantages)
        elif self.normalize_returns != "none":
            advantages = whiten(advantages, episodes.valid, per_episode=self.normalize_returns == "episode")
        if self.discount_steps:
            advantages = advantages * discounts(len(advantages), gamma).to(advantages)
        return advantages

    def observe(self, episodes: Episodes, returns: Tensor) -> None:
        if self.moments is not None:
            self.moments.update(returns.detach()[episodes.valid])

    def _scale(self, advantages: Tensor) -> Tensor:
        """σ of earlier returns, else of these advantages (B,), else 1; ()."""
        assert self.moments is not None
        own = RunningMoments(0.0).to(advantages.device)
        own.update(advantages)
        for moments in (self.moments, own):
            if moments.deviation > 0.0:
                return moments.deviation
        return torch.ones_like(own.deviation)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        valid = episodes.valid
        if episodes.log_probs is not None:
            log_prob = episodes.steps_of(episodes.log_probs)
            loss = -(log_prob * episodes.steps_of(advantages.detach())).sum() / valid.shape[1]
            return loss, {"train/entropy": -log_prob.detach().mean()}
        dist = policy(episodes.steps_of(episodes.observations))  # batch_shape (B,), B valid steps
        log_prob = dist.log_prob(episodes.steps_of(episodes.actions))
        loss = -(log_prob * episodes.steps_of(advantages.detach())).sum() / valid.shape[1]
        if self.entropy_coefficient == 0.0:
            with torch.no_grad():
                entropy = policy.head.entropy(dist).mean()
        else:
            entropy = policy.head.entropy(dist).mean()
            loss = loss - self.entropy_coefficient * entropy * valid.sum() / valid.shape[1]
        return loss, {"train/entropy": entropy.detach()}
