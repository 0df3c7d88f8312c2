"""Weak derivatives: ∂/∂φ E[f(a)] = c (E⁺[f(a)] - E⁻[f(a)]), a difference of expectations under two other densities.

P is the number of parameters of one distribution over actions: for each entry of an action, p(1) of a Bernoulli, the K
probabilities of a Categorical, or mean and standard deviation of a Normal.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal

from scorepath.distributions.base import entries_of

WITH_WEAK_DERIVATIVE: tuple[type[Distribution], ...] = (Bernoulli, Categorical, Normal)


class Branches(NamedTuple):
    """Two actions for each parameter, and the constant of their difference."""

    positive: Tensor  # (N, P, *A)
    negative: Tensor  # (N, P, *A)
    constants: Tensor  # (N, P)


def distribution_parameters(dist: Distribution) -> Tensor:
    """The parameters that `branches` are for, with their graph, (N, P)."""
    base = entries_of(dist)
    if isinstance(base, Bernoulli):
        return base.probs.reshape(dist.batch_shape[0], -1)
    if isinstance(base, Categorical):
        return base.probs.reshape(dist.batch_shape[0], -1)
    assert isinstance(base, Normal)
    return torch.stack((base.loc, base.scale), dim=-1).reshape(dist.batch_shape[0], -1)


@torch.no_grad()
def branches(dist: Distribution, action: Tensor) -> Branches:
    """Draws the two actions of each parameter's weak derivative; the entries it is not about are those of `action`.

    Bernoulli:   ∂_p E f = f(1) - f(0).
    Categorical: ∂_{p_k} E f = f(k), less f of the sampled choice: the derivatives of probabilities sum to 0, so that
                 whatever is the same for all k drops out.
    Normal:      ∂_μ E f = (E f(μ + σW) - E f(μ - σW)) / (σ √(2π)), W ~ Weibull(√2, 2), a Rayleigh;
                 ∂_σ E f = (E f(μ + σM) - E f(μ + σZ)) / σ, M ~ double-sided Maxwell, Z ~ N(0, 1),
                 (Mohamed et al. 2020, JMLR 21:132, section 6 and table 1). Positive and negative action share their
                 random numbers: the same W, and Z = U M with U uniform, which is N(0, 1).

    Args:
        dist: over actions, batch_shape (N,).
        action: (N, *A), a sample of it.
    """
    base = entries_of(dist)
    number, shape = len(action), action.shape[1:]
    entries = action.reshape(number, -1)  # (N, D)
    if isinstance(base, Bernoulli):
        one = torch.ones_like(entries).unsqueeze(-1)
        positive, negative, constants = one, 0.0 * one, one
    elif isinstance(base, Categorical):
        probs = base.probs.reshape(*entries.shape, -1)  # (N, D, K)
        negative = entries.unsqueeze(-1).expand(probs.shape)
        # a choice that is missing has probability 0, whatever its parameters: it must not be tried
        positive = torch.where(probs > 0, torch.arange(probs.shape[-1], device=probs.device), negative)
        constants = torch.ones_like(probs)
    else:
        assert isinstance(base, Normal)
        mean, std = base.loc.reshape(entries.shape), base.scale.reshape(entries.shape)
        weibull = torch.empty_like(std).exponential_().mul(2.0).sqrt()
        sign = torch.randint_like(std, 2).mul(2.0).sub(1.0)
        maxwell = sign * torch.randn((3, *std.shape), dtype=std.dtype, device=std.device).norm(dim=0)
        uniform = torch.rand_like(std)
        positive = torch.stack((mean + std * weibull, mean + std * maxwell), dim=-1)
        negative = torch.stack((mean - std * weibull, mean + std * maxwell * uniform), dim=-1)
        constants = torch.stack((1.0 / (std * math.sqrt(2.0 * math.pi)), 1.0 / std), dim=-1)
    parameters = constants.flatten(1).shape[1]

    def actions(values: Tensor) -> Tensor:
        return _replace_one(entries, values).reshape(number, parameters, *shape)

    return Branches(actions(positive), actions(negative), constants.flatten(1))


def _replace_one(entries: Tensor, values: Tensor) -> Tensor:
    """Entries (N, D) with the d-th replaced by each of its values (N, D, M) -> (N, D, M, D)."""
    own = torch.eye(entries.shape[1], dtype=torch.bool, device=entries.device)[:, None, :]
    return torch.where(own, values.unsqueeze(-1), entries[:, None, None, :])
