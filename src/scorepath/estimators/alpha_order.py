"""The alpha-order estimator: score function and pathwise derivative mixed, with a bound on what the mix may miss."""

import math

import torch
from torch import Tensor

from scorepath.estimators.base import AbstractEstimator
from scorepath.estimators.gradients import per_episode_gradients
from scorepath.estimators.pathwise import entropy, require_graph
from scorepath.policy import Policy
from scorepath.ranks import gather
from scorepath.returns import discounts, reward_to_go
from scorepath.types import Episodes


class AlphaOrder(AbstractEstimator):
    """α g₁ + (1 - α) g₀, g₁ the pathwise derivative and g₀ the score function of the same episodes (Suh et al. 2022,
    arXiv:2202.00817, section 5): α minimises the empirical variance among those whose mix stays within `tolerance` of
    the true gradient, as far as g₀ and its confidence interval show. See `mixing_weight`.

    Both are estimates of ∇E[Σ_t γ^t r_t] over whole episodes: step t of the score function is weighed by γ^t, and no
    value estimates what follows a time limit. The paper's bound assumes that g₀'s samples are bounded by a known
    constant; here their largest deviation is used, so that `delta` is nominal. The variances need the gradient of
    every single episode, which costs N backward passes.

    Args:
        tolerance: the paper's γ, in units of the gradient; None mixes by variance alone, which is refused where the
            environment jumps.
        delta: probability with which g₀'s confidence interval may fail, in (0, 1).

    Raises:
        ValueError: if an option is out of range; at a call, if the rewards carry no graph or there is but one episode.
    """

    needs_graph = True
    needs_rsample = True
    bootstraps = False
    min_episodes = 2
    remedy_for_discontinuities = "bound what the estimate may miss with estimator.tolerance, in units of the gradient"

    def __init__(self, tolerance: float | None = None, delta: float = 0.05) -> None:
        super().__init__()
        if tolerance is not None and tolerance < 0.0:
            raise ValueError(f"tolerance={tolerance} must be at least 0, or null for none.")
        if not 0.0 < delta < 1.0:
            raise ValueError(f"delta={delta} must be between 0 and 1.")
        self.tolerance = tolerance
        self.accept_discontinuities = tolerance is not None  # variances alone do not show a jump
        self.delta = delta

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ("mixed by variances of the same episodes, with pathwise derivatives that may miss jumps",)

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards.detach(), episodes.is_last, gamma)

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        """What rewards and log_probs are multiplied with, (T, N, 2)."""
        require_graph(episodes)
        powers = discounts(len(advantages), gamma).to(advantages).expand_as(advantages)
        of_log_probs = powers * advantages.detach()
        parameters = list(policy.parameters())
        first = gather(per_episode_gradients((powers * episodes.rewards).sum(dim=0), parameters))
        zeroth = gather(per_episode_gradients((of_log_probs * log_probs(policy, episodes)).sum(dim=0), parameters))
        alpha = mixing_weight(zeroth, first, self.tolerance, self.delta)
        return torch.stack((alpha * powers, (1.0 - alpha) * of_log_probs), dim=-1)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        of_rewards, of_log_probs = advantages.unbind(dim=-1)
        mixed = of_rewards * episodes.rewards + of_log_probs * log_probs(policy, episodes)
        metrics = {"train/entropy": entropy(policy, episodes), "gradient/alpha": advantages[0, 0, 0]}
        return -mixed.sum(dim=0).mean(), metrics


def log_probs(policy: Policy, episodes: Episodes) -> Tensor:
    """Log π(a_t | o_t) (T, N) with actions and observations held fixed, zero where not valid."""
    valid = episodes.valid
    chosen = policy(episodes.observations.detach()[valid]).log_prob(episodes.actions.detach()[valid])
    return torch.zeros_like(episodes.rewards.detach()).masked_scatter(valid, chosen)


def total_variance(samples: Tensor) -> Tensor:
    """Tr Cov of the rows of (N, P), ().

    Raises:
        ValueError: for a single row.
    """
    if len(samples) < 2:
        raise ValueError("A variance over episodes needs two of them: raise episodes_per_update.")
    return samples.var(dim=0).sum()


def inverse_variance_weight(zeroth: Tensor, first: Tensor) -> Tensor:
    """α = v₀ / (v₀ + v₁), which minimises α² v₁ + (1 - α)² v₀; 0 if nothing varies.

    Args:
        zeroth, first: the variances v₀ and v₁, of any shape.
    """
    return torch.where(zeroth > 0, zeroth / (zeroth + first).clamp(min=torch.finfo(zeroth.dtype).tiny), 0.0)


def mixing_weight(zeroth: Tensor, first: Tensor, tolerance: float | None, delta: float) -> Tensor:
    """argmin_α α² v₁ + (1 - α)² v₀ subject to α ‖g₁ - g₀‖ + ε <= tolerance (Suh et al. 2022, section 5), ().

    The solution is α_∞ = v₀ / (v₀ + v₁) where the bound allows it, else (tolerance - ε) / ‖g₁ - g₀‖, and 0 where ε
    alone is beyond the tolerance. ε is `confidence_radius` of g₀.

    Args:
        zeroth, first: the gradients of each episode by the score function and by the pathwise derivative, (N, P).
        tolerance: None for no bound.
        delta: of ε.
    """
    alpha = inverse_variance_weight(total_variance(zeroth), total_variance(first))
    if tolerance is None:
        return alpha
    distance = (first.mean(dim=0) - zeroth.mean(dim=0)).norm()
    room = (tolerance - confidence_radius(zeroth, delta)).clamp(min=0.0)
    return torch.where(alpha * distance <= room, alpha, room / distance.clamp(min=torch.finfo(distance.dtype).tiny))


def confidence_radius(samples: Tensor, delta: float) -> Tensor:
    """ε with P(‖mean - E‖ >= ε) <= delta, by Bernstein's inequality for vectors, ().

    P(‖Σ x_n‖ >= r) <= 2 exp(-r² / 2(N v + r L / 3)) for independent x_n of mean zero, E‖x‖² = v and ‖x‖ <= L, whatever
    the dimension (Pinelis & Sakhanenko 1986, Theory of Probability and its Applications 30), solved for r = N ε. The
    empirical v and L replace the true ones.

    Args:
        samples: (N, P).
        delta: in (0, 1).
    """
    number = len(samples)
    scale = math.log(2.0 / delta)
    largest = (samples - samples.mean(dim=0)).norm(dim=1).max()
    linear = scale * largest / 3.0
    return (linear + (linear.square() + 2.0 * scale * number * total_variance(samples)).sqrt()) / number
