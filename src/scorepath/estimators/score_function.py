"""The score function estimator, REINFORCE."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor

from scorepath.envs import AbstractEnvironment
from scorepath.estimators.base import AbstractEstimator
from scorepath.policy import Policy
from scorepath.returns import RunningMoments, discounts, reward_to_go, total_return, whiten
from scorepath.rollout import rollout
from scorepath.types import Episodes

Credit = Literal["reward_to_go", "total_return"]
Normalization = Literal["none", "episode", "batch", "running"]
LogProbs = Literal["auto", "again", "rollout"]
_WIDE = 2048  # episodes from which keeping a rollout's graph is faster on a CPU than a second pass
_MOST_KEPT = 4 * 2**30  # bytes of activations
_ENTROPIES = 65_536  # steps whose entropies are computed at a time, for their activations
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
            there is no σ, in the first update or while all returns were equal, by the batch's own standard deviation,
            which biases the direction too.
        discount_steps: weigh step t by γ^t, as the gradient of the discounted return has it under reward_to_go. Nearly
            all implementations leave it out, for it takes the signal from late steps; what is left then is the gradient
            of no objective (Nota & Thomas 2020, arXiv:1906.07073), unless γ = 1. A total return needs no such weights.
        entropy_coefficient: weight c of an entropy bonus; not 0 changes the optimum.
        entropy_in_rewards: False adds c Σ_t ∇H(π(·|o_t)) to the gradient, as most implementations do (Williams & Peng
            1991). That is the direct term alone of the gradient of E[Σ_t H(π(·|o_t))]: what an action does to the
            entropies of later observations is left out, so that the sum is the gradient of no objective. True adds
            c H(π(·|o_t)) to the reward at t as well (maximum entropy, Levine 2018, arXiv:1805.00909): with the factors
            γ^t of a total return or of discount_steps, the gradient of E[Σ_t γ^t (r_t + c H(π(·|o_t)))] exactly.
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
        entropy_in_rewards: bool = False,
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
        self.whole_returns = credit == "total_return"
        self.normalize_returns = normalize_returns
        self.discount_steps = discount_steps
        self.entropy_coefficient = entropy_coefficient
        self.entropy_in_rewards = entropy_in_rewards
        self.moments = RunningMoments(_DECAY) if normalize_returns == "running" else None

    def bias(self, gamma: float) -> tuple[str, ...]:
        discounted, to_go, scaled = gamma < 1.0, self.credit == "reward_to_go", self.normalize_returns
        has_bonus = self.entropy_coefficient != 0.0
        reasons = {
            "steps are not weighed by gamma^t": discounted and to_go and not self.discount_steps,
            "total returns are discounted already, and here weighed by gamma^t again": (
                discounted and not to_go and self.discount_steps
            ),
            "advantages are whitened by the mean and the standard deviation of the same samples": scaled == "batch",
            "advantages are whitened over the steps of their own episode": scaled == "episode",
            "advantages are divided by a running standard deviation of earlier returns, which changes the length": (
                scaled == "running"
            ),
            "in the first update, advantages are divided by the standard deviation of the same samples": (
                scaled == "running"
            ),
            "an entropy bonus adds sum_t grad H(pi(.|o_t)), which leaves out what actions do to later entropies": (
                has_bonus and not self.entropy_in_rewards
            ),
            "the objective has the entropy of each step in its reward": has_bonus and self.entropy_in_rewards,
        }
        return tuple(reason for reason, holds in reasons.items() if holds)

    def collect(self, env: AbstractEnvironment, policy: Policy, seed: int) -> Iterator[Episodes]:
        if self._keeps_graph(env, policy):
            return iter((rollout(env, policy, seed, log_probs=True),))
        return super().collect(env, policy, seed)

    def _keeps_graph(self, env: AbstractEnvironment, policy: Policy) -> bool:
        """Whether the rollout records log π with its graph, which is of use only to who differentiates it."""
        if not torch.is_grad_enabled():
            return False
        if self.log_probs != "auto":
            return self.log_probs == "rollout"
        weights = [parameter for parameter in policy.parameters() if parameter.dim() > 1]
        # of each layer's output, autograd and the allocator hold about two copies of four bytes an entry
        bytes_per_step = 8 * sum(len(weight) for weight in weights)
        fits = env.num_episodes * env.max_episode_steps * bytes_per_step <= _MOST_KEPT
        return fits and env.num_episodes >= _WIDE and all(weight.device.type == "cpu" for weight in weights)

    @torch.no_grad()
    def add_bonus(self, policy: Policy, episodes: Episodes) -> Episodes:
        if not self.entropy_in_rewards or self.entropy_coefficient == 0.0:
            return episodes
        steps = episodes.observations[episodes.valid].split(_ENTROPIES)
        entropies = torch.cat([policy.head.entropy(policy(part)) for part in steps]).to(episodes.rewards)
        bonus = torch.zeros_like(episodes.rewards).masked_scatter(episodes.valid, self.entropy_coefficient * entropies)
        return replace(episodes, rewards=episodes.rewards + bonus)

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
        number = episodes.valid.shape[1]
        advantage = episodes.steps_of(advantages.detach())  # (B,), B valid steps
        log_prob, entropies = self._log_prob(policy, episodes)
        loss = -(log_prob * advantage).sum() / number
        if self.entropy_coefficient != 0.0:
            loss = loss - self.entropy_coefficient * self._sum_of_entropies(entropies, episodes, gamma) / number
        return loss, {"train/entropy": entropies.detach().mean()}

    def _log_prob(self, policy: Policy, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Log π(a_t | o_t) of the valid steps, (B,): the rollout's own, or a second time; and entropies (B,)."""
        if episodes.log_probs is not None:
            log_prob = episodes.steps_of(episodes.log_probs)
            return log_prob, -log_prob.detach()
        dist = policy(episodes.steps_of(episodes.observations))  # batch_shape (B,)
        log_prob = dist.log_prob(episodes.steps_of(episodes.actions))
        with torch.set_grad_enabled(self.entropy_coefficient != 0.0):
            return log_prob, policy.head.entropy(dist)

    def _sum_of_entropies(self, entropies: Tensor, episodes: Episodes, gamma: float) -> Tensor:
        """What the coefficient weighs, (): the direct term of the bonus, with the factors that its rewards have."""
        if self.entropy_in_rewards and (self.discount_steps or self.credit == "total_return"):
            factors = discounts(len(episodes.valid), gamma).to(entropies).expand(episodes.valid.shape)
            return (entropies * episodes.steps_of(factors)).sum()
        return entropies.mean() * episodes.valid.sum()
