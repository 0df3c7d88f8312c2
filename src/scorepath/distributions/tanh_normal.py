"""Squashed Gaussian: the tanh of a Normal, scaled to a bounded Box."""

import math

import gymnasium as gym
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from scorepath.distributions.base import entries_of
from scorepath.distributions.box import AbstractBoundedDensity, is_bounded_box
from scorepath.distributions.location_scale import AbstractLocationScaleHead, Std


class TanhNormal(AbstractLocationScaleHead):
    """a = middle + half range · tanh(u), u ~ N(mean, std²), each entry by itself (Haarnoja et al. 2018,
    arXiv 1801.01290, appendix C).

    Actions lie in the Box, and `log_prob` is that of the action. The deterministic action is the median, tanh(mean).
    Entropy is estimated from one sample.

    Args:
        std: of u: `state_independent` learns one log std per entry, `state_dependent` a linear function of the
            features.
        initial_std: std of u at the start, in (0, 100].

    Raises:
        ValueError: if initial_std is out of range or std has another value.
    """

    needs = "a Box action space with finite bounds"
    has_rsample = True

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, std, initial_std, "unbounded", validate_args)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return is_bounded_box(action_space)

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std(features)
        density = TanhNormalDensity(mean, std, *self.box.bounds(mean), validate_args=self.validate_args)
        return self.independent(density)

    def deterministic(self, dist: Distribution) -> Tensor:
        density = entries_of(dist)
        assert isinstance(density, TanhNormalDensity)
        return density.median


class TanhNormalDensity(AbstractBoundedDensity):
    """The density of low + (high - low) · sigmoid(2u), u ~ N(loc, scale²), which is middle + half range · tanh(u).

    The cell at a bound is given all the probability of the u that tanh rounds into it: Φ((u_edge - loc) / scale),
    spread evenly. So `log_prob` is finite there and, however saturated the policy, its gradient is that of the policy
    that is sampled; with the atanh of a clamped sample it would not be.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch's own form)

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor, validate_args: bool = False) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(low, high, loc.shape, validate_args)

    @property
    def median(self) -> Tensor:
        """The tanh of u's mean."""
        return self.at((2.0 * self.loc).sigmoid(), (-2.0 * self.loc).sigmoid())

    def rsample_shares(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        u = self.loc + self.scale * noise
        return (2.0 * u).sigmoid(), (-2.0 * u).sigmoid()

    def log_density(self, lower: Tensor, upper: Tensor) -> Tensor:
        log_lower, log_upper = lower.log(), upper.log()
        u = 0.5 * (log_lower - log_upper)
        z = (u - self.loc) / self.scale
        normal = -0.5 * z.square() - self.scale.log() - 0.5 * math.log(2.0 * math.pi)
        inside = normal - math.log(2.0) - log_lower - log_upper  # d share / du = 2 lower upper
        low_cell = log_normal_cdf(z) - self.low_edge.log()
        high_cell = log_normal_cdf(-z) - self.high_edge.log()
        outermost = torch.where(upper <= self.high_edge, high_cell, inside)
        return torch.where(lower <= self.low_edge, low_cell, outermost)


def log_normal_cdf(z: Tensor) -> Tensor:
    """Logarithm of the Gaussian cdf, log Φ(z), with a gradient that is finite and right for any z.

    torch.special.log_ndtr divides its gradient by Φ as exp(log Φ), which in float32 is 6 times off at z = -1e4.
    """
    below, above = z.clamp(max=0.0), z.clamp(min=0.0)
    tail = (0.5 * torch.special.erfcx(below * -math.sqrt(0.5))).log() - 0.5 * below.square()
    return torch.where(z < 0, tail, torch.log1p(-0.5 * torch.special.erfc(above * math.sqrt(0.5))))
