"""Both gradient estimates in the space of actions, and the way from there to the weights of the policy.

The pathwise derivative of a return is Σ_t (dR/da_t) ∂a_t/∂θ, with dR/da_t the total derivative, through the environment
and through all later actions, and ∂a_t/∂θ that of a = loc(o_t) + scale(o_t) ε at fixed o_t and ε. The score function is
Σ_t A_t ∂ log π(a_t | o_t)/∂θ, whose part through loc is A_t (a_t - loc)/scale² ∂loc/∂θ. So the two can be compared, and
mixed, at each step and for each entry of an action.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.distributions import Normal

from scorepath.distributions.base import entries_of
from scorepath.estimators.pathwise import entropy, require_graph
from scorepath.policy import Policy
from scorepath.returns import discounts
from scorepath.types import Episodes


class ActionGradients(NamedTuple):
    """Estimates of dE[G_0]/d mean_t, one of each kind from each episode; zero where not valid."""

    first: Tensor  # (T, N, *A), dG_0/da_t
    zeroth: Tensor  # (T, N, *A), γ^t A_t (a_t - mean_t) / std_t²
    std: Tensor  # (T, N, *A), of the policy


def action_gradients(policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> ActionGradients:
    """Both estimates at every action of a batch. The graph is kept.

    Args:
        advantages: (T, N), with the graph of the returns that they were made from.

    Raises:
        ValueError: if the episodes carry no graph, or their actions are not as the rollout stacked them.
    """
    require_graph(episodes)
    # a baseline of the first observation is a constant in the first return
    found = torch.autograd.grad(advantages[0].sum(), _single(episodes.actions), retain_graph=True, allow_unused=True)
    first = [
        torch.zeros_like(action) if gradient is None else gradient
        for action, gradient in zip(episodes.actions.detach(), found, strict=True)
    ]
    with torch.no_grad():
        powers = discounts(len(advantages), gamma).to(advantages)
        loc, scale = _location_and_scale(policy, episodes.observations)
        weights = (powers * advantages * episodes.valid).view(*advantages.shape, *[1] * (loc.dim() - 2))
        zeroth = weights * (episodes.actions - loc) / scale.square()
    return ActionGradients(torch.stack(first), zeroth, scale)


def _single(actions: Tensor) -> list[GradientEdge]:
    """Of actions (T, N, *A) the T from which a rollout stacked them: rewards depend on these, and not on the stack."""
    stack = actions.grad_fn
    if stack is None or stack.name() != "StackBackward0":
        raise ValueError("Gradients of single actions need the episodes as a rollout with a graph gave them.")
    return [GradientEdge(node, output) for node, output in stack.next_functions if node is not None]


def pack(alpha: Tensor, first: Tensor, advantages: Tensor, gamma: float) -> Tensor:
    """What `mixed_loss` is computed from, in one tensor (T, N, 3, *A).

    Args:
        alpha: the weight of the first-order estimate, broadcast to (T, N, *A).
        first: (T, N, *A).
        advantages: (T, N).
    """
    scores = discounts(len(advantages), gamma).to(advantages) * advantages.detach()
    scores = scores.view(*scores.shape, *[1] * (first.dim() - 2))
    return torch.stack([part.expand_as(first) for part in (alpha, first, scores)], dim=2)


def mixed_loss(policy: Policy, episodes: Episodes, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """-1/N Σ_n Σ_t Σ_i α g₁ a_i(θ) + (1 - α) γ^t A log π_i(a_i | o), α and g₁ of each entry i of each action.

    Its gradient is the mix of the two estimates: α = 1 is the pathwise derivative, α = 0 the score function, both to
    the bit of rounding, and with their own derivative of the scale.

    Args:
        weights: as `pack` made them.
    """
    valid = episodes.valid
    alpha, first, scores = weights[valid].unbind(dim=1)
    actions = episodes.actions.detach()[valid]
    observations = episodes.observations.detach()[valid]
    loc, scale = _location_and_scale(policy, observations)
    noise = ((actions - loc) / scale).detach()
    log_prob = Normal(loc, scale, validate_args=False).log_prob(actions)
    mixed = alpha * first * (loc + scale * noise) + (1.0 - alpha) * scores * log_prob
    return -mixed.sum() / valid.shape[1], {"train/entropy": entropy(policy, episodes), "gradient/alpha": alpha.mean()}


def _location_and_scale(policy: Policy, observations: Tensor) -> tuple[Tensor, Tensor]:
    normal = entries_of(policy(observations))
    assert isinstance(normal, Normal)
    return normal.loc, normal.scale
