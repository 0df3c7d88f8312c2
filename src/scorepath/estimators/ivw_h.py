"""Inverse-variance weighting at every step of the horizon."""

import torch
from torch import Tensor
from torch.distributions import Normal

from scorepath.estimators.action_gradients import action_gradients, mixed_loss, pack
from scorepath.estimators.alpha_order import inverse_variance_weight
from scorepath.estimators.base import AbstractEstimator
from scorepath.estimators.pathwise import checked_window, window_bias
from scorepath.policy import Policy
from scorepath.ranks import gather_columns
from scorepath.returns import reward_to_go
from scorepath.types import Episodes


class IVWH(AbstractEstimator):
    """IVW-H (Onoda et al. 2026, arXiv:2604.18161): at each step t, and for each entry of the action, the derivative of
    the return α g₁ + (1 - α) g₀ with α = v₀ / (v₀ + v₁), the variances taken over the episodes that still run at t.

    Near the end the pathwise derivative is the better one, far from it its variance explodes, and the weights follow.
    g₁ is the total derivative of the discounted return with respect to a_t, g₀ = -γ^t A_t ∂ log π/∂a_t. Windows are
    those of `Pathwise`: a value network estimates what follows each, for both estimates.

    Of the paper, per-step weights by inverse variance are from its abstract and introduction; the mix in action space,
    its variances over the batch and the reparameterisation through which it reaches the policy follow a description of
    it by others. One thing differs: the scale of the policy has its own score function here, in place of g₀ ε, which is
    off by E[A]/scale; so α = 0 is exactly the score function.

    Args:
        window: env steps of a window; None is the whole episode, at whose end nothing follows.

    Raises:
        ValueError: if window is below 1; at a call, if the rewards carry no graph.
    """

    needs_graph = True
    needs_rsample = True
    dists = (Normal,)
    min_episodes = 2
    accept_discontinuities = True  # they show in no variance; the estimate is labelled biased anyway

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = checked_window(window)
        self.bootstraps = window is not None

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ("mixed by variances of the same episodes, which show no jumps", *window_bias(self.window))

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards, episodes.is_last, gamma, last_values)

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        """(T, N, 3, *A), see `pack`."""
        given = action_gradients(policy, episodes, advantages, gamma)
        valid = gather_columns(episodes.valid)
        zeroth, first = (_variance(gather_columns(part), valid) for part in (given.zeroth, given.first))
        alpha = inverse_variance_weight(zeroth, first)[: len(advantages)]
        return pack(alpha.unsqueeze(1), given.first, advantages, gamma)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return mixed_loss(policy, episodes, advantages)


def _variance(samples: Tensor, valid: Tensor) -> Tensor:
    """Variance over the valid episodes of each step, (T, N, *A) -> (T, *A); zero of less than two."""
    mask = valid.view(*valid.shape, *[1] * (samples.dim() - 2))
    number = mask.sum(dim=1)
    mean = torch.where(mask, samples, 0.0).sum(dim=1) / number.clamp(min=1)
    deviations = torch.where(mask, samples - mean.unsqueeze(1), 0.0)
    return deviations.square().sum(dim=1) / (number - 1).clamp(min=1)
