"""Beta and Kumaraswamy: unimodal densities on a bounded Box with two concentrations for each entry."""

import math

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Beta as TorchBeta
from torch.distributions import Distribution, constraints

from scorepath.distributions.base import AbstractHead, entries_of
from scorepath.distributions.box import AbstractBoundedDensity, BoxUnits, is_bounded_box
from scorepath.distributions.shares import concentrations, sample_dirichlet


class AbstractConcentrationsHead(AbstractHead):
    """Two concentrations 1 + softplus for each entry of a Box, in [1, 1001]: one mode, and no infinite density.

    Args:
        action_space: a Box with finite bounds.
    """

    needs = "a Box action space with finite bounds"

    def __init__(self, action_space: gym.spaces.Box, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.box = BoxUnits(action_space)
        self._shape = action_space.shape
        self.concentrations = nn.Linear(in_features, 2 * math.prod(self._shape))

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """A Box of real numbers with finite bounds."""
        return is_bounded_box(action_space)

    def parameters_of_density(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(*B, F) -> both concentrations, (*B, *A) each, and low and high, (*A)."""
        raw = self.concentrations(features).unflatten(-1, (2, -1)).movedim(-2, 0)
        first, second = concentrations(raw).reshape(2, *features.shape[:-1], *self._shape).unbind()
        return first, second, *self.box.bounds(first)

    def to_env(self, action: Tensor) -> Tensor:
        """The same action: it lies in the Box but for the rounding of a cast."""
        return self.box.clip(action)


class Beta(AbstractConcentrationsHead):
    """(a - low) / (high - low) ~ Beta(α, β), each entry by itself, with α, β > 1 (Chou et al. 2017, ICML, PMLR 70).

    The deterministic action is the mean. Samples are torch's, their derivatives exact to rounding.
    """

    has_rsample = True

    def forward(self, features: Tensor) -> Distribution:
        return self.independent(BetaDensity(*self.parameters_of_density(features), validate_args=self.validate_args))

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mean


class BetaDensity(AbstractBoundedDensity):
    """p(s) = s^(α-1) (1-s)^(β-1) / B(α, β) in the share s of the way from low to high; α, β ≥ 1."""

    arg_constraints = {  # noqa: RUF012 (torch's own form)
        "alpha": constraints.greater_than_eq(1.0),
        "beta": constraints.greater_than_eq(1.0),
    }

    def __init__(self, alpha: Tensor, beta: Tensor, low: Tensor, high: Tensor, validate_args: bool = False) -> None:
        self.alpha, self.beta = alpha, beta
        super().__init__(low, high, alpha.shape, validate_args)

    @property
    def mean(self) -> Tensor:
        total = self.alpha + self.beta
        return self.at(self.alpha / total, self.beta / total)

    def rsample_shares(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        pair = torch.stack((self.alpha, self.beta), dim=-1).expand(*shape, 2)
        lower, upper = sample_dirichlet(pair).unbind(dim=-1)
        return lower, upper

    def log_density(self, lower: Tensor, upper: Tensor) -> Tensor:
        log_normalizer = torch.lgamma(self.alpha) + torch.lgamma(self.beta) - torch.lgamma(self.alpha + self.beta)
        return (self.alpha - 1.0) * lower.log() + (self.beta - 1.0) * upper.log() - log_normalizer

    def entropy(self) -> Tensor:
        return TorchBeta(self.alpha, self.beta, validate_args=False).entropy() + self.width.log()


class Kumaraswamy(AbstractConcentrationsHead):
    """P((a - low) / (high - low) ≤ s) = 1 - (1 - s^α)^β, each entry by itself, with α, β > 1.

    Much like a Beta, with an exact derivative of its samples. The deterministic action is the median, which is finite
    where the mode is 0 / 0.
    """

    has_rsample = True

    def forward(self, features: Tensor) -> Distribution:
        density = KumaraswamyDensity(*self.parameters_of_density(features), validate_args=self.validate_args)
        return self.independent(density)

    def deterministic(self, dist: Distribution) -> Tensor:
        density = entries_of(dist)
        assert isinstance(density, KumaraswamyDensity)
        return density.median


class KumaraswamyDensity(AbstractBoundedDensity):
    """p(s) = α β s^(α-1) (1 - s^α)^(β-1) in the share s of the way from low to high; α, β ≥ 1.

    In logarithms throughout: torch's own raises rounded powers to powers, and of s = 1 - 1e-9 float32 knows nothing.
    """

    arg_constraints = {  # noqa: RUF012 (torch's own form)
        "alpha": constraints.greater_than_eq(1.0),
        "beta": constraints.greater_than_eq(1.0),
    }

    def __init__(self, alpha: Tensor, beta: Tensor, low: Tensor, high: Tensor, validate_args: bool = False) -> None:
        self.alpha, self.beta = alpha, beta
        super().__init__(low, high, alpha.shape, validate_args)

    @property
    def median(self) -> Tensor:
        return self.at(*self._shares(torch.full_like(self.alpha, math.log(2.0))))

    def rsample_shares(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        surprise = torch.empty(shape, dtype=self.alpha.dtype, device=self.alpha.device).exponential_()
        return self._shares(surprise)

    def _shares(self, surprise: Tensor) -> tuple[Tensor, Tensor]:
        """Where P(S > s) = exp(-surprise): s = (1 - exp(-surprise / β))^(1/α)."""
        log_lower = _log_1_minus_exp(-surprise / self.beta) / self.alpha
        return log_lower.exp(), -torch.expm1(log_lower)

    def log_density(self, lower: Tensor, upper: Tensor) -> Tensor:
        log_lower = torch.where(lower < upper, lower.log(), torch.log1p(-upper.clamp(max=0.5)))
        log_rest = _log_1_minus_exp(self.alpha * log_lower)
        return self.alpha.log() + self.beta.log() + (self.alpha - 1.0) * log_lower + (self.beta - 1.0) * log_rest

    def entropy(self) -> Tensor:
        """(1 - 1/β) + (1 - 1/α) (ψ(β + 1) + γ) - ln(α β), γ Euler's constant, plus ln(high - low)."""
        harmonic = torch.digamma(self.beta + 1.0) + np.euler_gamma
        shape = (1.0 - 1.0 / self.beta) + (1.0 - 1.0 / self.alpha) * harmonic
        return shape - self.alpha.log() - self.beta.log() + self.width.log()


def _log_1_minus_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, by the one of two formulas that does not cancel."""
    middle = -math.log(2.0)
    near = (-torch.expm1(x.clamp(min=middle, max=-torch.finfo(x.dtype).tiny))).log()
    far = torch.log1p(-x.clamp(max=middle).exp())
    return torch.where(x > middle, near, far)
