"""Gaussian truncated to a bounded Box."""

import math

import gymnasium as gym
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.special import erf, ndtr, ndtri

from scorepath.distributions.box import AbstractBoundedDensity, is_bounded_box
from scorepath.distributions.location_scale import AbstractLocationScaleHead, Std


class TruncatedNormal(AbstractLocationScaleHead):
    """a ~ N(mode, std²) given that a lies in the Box, each entry by itself; std is that of the untruncated Gaussian.

    The mode lies in the Box, by tanh, and is the deterministic action. A large std is the uniform distribution. Unlike
    under a clipped Normal, no probability gathers at the bounds.

    Args:
        std: `state_independent` learns one log std per entry, `state_dependent` a linear function of the features.
        initial_std: std at the start, in units of half the range, in (0, 100].

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
        super().__init__(action_space, in_features, std, initial_std, "bounded", validate_args)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return is_bounded_box(action_space)

    def forward(self, features: Tensor) -> Distribution:
        mode, std = self.mean_and_std(features)
        shares = 0.5 + 0.5 * mode, 0.5 * std
        return self.independent(
            TruncatedNormalDensity(*shares, *self.box.bounds(mode), validate_args=self.validate_args)
        )

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mode


class TruncatedNormalDensity(AbstractBoundedDensity):
    """N(loc, scale²) between low and high, with loc, of which the range is [0, 1], and scale in shares of the range.

    Samples are Φ⁻¹ of a uniform between Φ(below) and Φ(above), taken from the nearer tail; below ≤ 0 ≤ above are the
    bounds in units of the scale, so that their probability is a sum of two erf of one sign, without cancellation.
    """

    arg_constraints = {  # noqa: RUF012 (torch's own form)
        "loc": constraints.unit_interval,
        "scale": constraints.positive,
    }

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor, validate_args: bool = False) -> None:
        self.loc, self.scale = loc, scale
        self._below, self._above = -loc / scale, (1.0 - loc) / scale
        self._mass = 0.5 * (erf(self._above * math.sqrt(0.5)) + erf(-self._below * math.sqrt(0.5)))
        super().__init__(low, high, loc.shape, validate_args)

    @property
    def mode(self) -> Tensor:
        return self.at(self.loc, 1.0 - self.loc)

    def rsample_shares(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        uniform = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        before = ndtr(self._below) + uniform * self._mass
        after = ndtr(-self._above) + (1.0 - uniform) * self._mass
        tail = ndtri(torch.minimum(before, after).clamp(min=torch.finfo(uniform.dtype).tiny))
        share = self.loc + self.scale * torch.where(before < after, tail, -tail)
        share = share.clamp(0.0, 1.0)  # rounding
        return share, 1.0 - share

    def log_density(self, lower: Tensor, upper: Tensor) -> Tensor:
        # the sample's distance from the mode, by way of the nearer bound
        difference = torch.where(lower < upper, lower - self.loc, (1.0 - self.loc) - upper)
        normal = -0.5 * (difference / self.scale).square() - self.scale.log() - 0.5 * math.log(2.0 * math.pi)
        return normal - self._mass.log()

    def entropy(self) -> Tensor:
        """E[-log p] = ln(√(2πe) scale mass) + (below φ(below) - above φ(above)) / (2 mass), plus ln(high - low)."""
        edges = (_times_density(self._below) - _times_density(self._above)) / (2.0 * self._mass)
        spread = 0.5 * math.log(2.0 * math.pi * math.e) + self.scale.log() + self._mass.log()
        return spread + edges + self.width.log()


def _times_density(z: Tensor) -> Tensor:
    return z * (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi)
