"""Von Mises: a circular Gaussian, for actions that are angles."""

import math

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions import VonMises as TorchVonMises
from torch.types import _size

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.box import BoxUnits, is_bounded_box
from scorepath.distributions.location_scale import Std, at_features, log_parameter, slope


class VonMises(AbstractHead):
    """p(θ) = exp(κ cos(θ - mean)) / 2π I_0(κ), each entry by itself, where low and high of the Box are the same angle.

    The range of a bounded entry is one turn: a = middle + half range · θ / π. An entry without bounds is the angle in
    radians, in [-π, π]. Without rsample, for samples are drawn by rejection.

    Args:
        concentration: κ, about 1 over the variance in radians: `state_independent` learns one log κ per entry,
            `state_dependent` a linear function of the features.
        initial_concentration: κ at the start, in (0, 100]; near 0 is the uniform distribution.

    Raises:
        ValueError: if initial_concentration is out of range or concentration has another value.
    """

    needs = "a Box action space of angles, each with two finite bounds or none"
    has_rsample = False
    _low: Tensor
    _high: Tensor

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        concentration: Std = "state_independent",
        initial_concentration: float = 1.0,
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.box = BoxUnits(action_space)
        self._shape = action_space.shape
        size = math.prod(self._shape)
        self.mean = nn.Linear(in_features, size)
        self.log_concentration = log_parameter(size, "initial_concentration", initial_concentration)
        self.log_concentration_slope = slope(in_features, size, "concentration", concentration)
        low = torch.where(self.box.finite, self.box.low, -math.pi)
        high = torch.where(self.box.finite, self.box.high, math.pi)
        self.register_buffer("_low", low, persistent=False)
        self.register_buffer("_high", high, persistent=False)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return is_bounded_box(action_space, or_unbounded=True)

    def forward(self, features: Tensor) -> Distribution:
        shape = (*features.shape[:-1], *self._shape)
        mean = math.pi * self.mean(features).reshape(shape)
        log_kappa = at_features(features, self.log_concentration, self.log_concentration_slope)
        kappa = log_kappa.clamp(-9.0, 9.0).exp().expand(*features.shape[:-1], -1).reshape(shape)
        low, high = self._low.to(mean), self._high.to(mean)
        return self.independent(VonMisesDensity(mean, kappa, low, high, validate_args=self.validate_args))

    def to_env(self, action: Tensor) -> Tensor:
        turns = torch.remainder(action - self._low, self._high - self._low)
        inside = (action >= self._low) & (action <= self._high)
        return torch.where(inside, action, self._low + turns).clamp(self._low, self._high)

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mean


class VonMisesDensity(Distribution):
    """Von Mises with low and high as -π and π; torch's is sampled, and the rest done again.

    torch's log I_0 is a polynomial that is 2e-7 off, its log_prob a difference of numbers as large as κ, its mean not
    within one turn, and it has no entropy.

    Args:
        loc: mean angle in radians, any real number.
        kappa: concentration.
        low, high: (*A).
    """

    arg_constraints = {"loc": constraints.real, "kappa": constraints.positive}  # noqa: RUF012 (torch's own form)
    has_rsample = False

    def __init__(self, loc: Tensor, kappa: Tensor, low: Tensor, high: Tensor, validate_args: bool = False) -> None:
        self.loc, self.kappa, self.low, self.high = loc, kappa, low, high
        super().__init__(loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """The circular mean, which is the mode."""
        return self._action(torch.remainder(self.loc + math.pi, 2.0 * math.pi) - math.pi)

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        return self._action(TorchVonMises(self.loc, self.kappa, validate_args=False).sample(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        angle = 2.0 * math.pi * ((value - self.low) / (self.high - self.low)) - math.pi
        # κ (cos x - 1) = -2 κ sin²(x / 2), which does not cancel
        exponent = -2.0 * self.kappa * (0.5 * (angle - self.loc)).sin().square()
        return exponent - torch.special.i0e(self.kappa).log() - (self.high - self.low).log()

    def entropy(self) -> Tensor:
        """ln(2π I_0(κ)) - κ I_1(κ) / I_0(κ), plus ln((high - low) / 2π)."""
        i0e, i1e = torch.special.i0e(self.kappa), torch.special.i1e(self.kappa)
        return i0e.log() + self.kappa * (1.0 - i1e / i0e) + (self.high - self.low).log()

    def _action(self, angle: Tensor) -> Tensor:
        share = (angle + math.pi) / (2.0 * math.pi)
        return (self.low + (self.high - self.low) * share).clamp(self.low, self.high)
