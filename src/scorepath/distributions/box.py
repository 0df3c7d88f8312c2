"""The Box as a place for densities: its units, its bounds, and densities that end at its bounds."""

from abc import abstractmethod
from typing import TypeGuard

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.types import _size

_UNBOUNDED = 1e18  # a Box as wide as float32 goes is meant to have no bounds
_CELL = 16  # how many of the numbers next to a bound count as the bound itself


def is_floating_box(space: gym.Space) -> TypeGuard[gym.spaces.Box]:
    """A Box of real numbers, bounded or not."""
    return isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)


def is_bounded_box(space: gym.Space, or_unbounded: bool = False) -> bool:
    """A Box of real numbers that each have two finite bounds; or none, where `or_unbounded`."""
    if not is_floating_box(space):
        return False
    width = space.high.astype(np.float64) - space.low.astype(np.float64)
    bounded = (width > 0) & (width < _UNBOUNDED)
    unbounded = np.isneginf(space.low) & np.isposinf(space.high)
    return bool((bounded | (unbounded & or_unbounded)).all())


class BoxUnits(nn.Module):
    """The units that heads work in: half the Box's range around its middle, or 1 around 0 where it has no two bounds.

    Args:
        space: of one environment, `is_floating_box`.
    """

    low: Tensor
    high: Tensor
    finite: Tensor
    middle: Tensor
    half_range: Tensor

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__()
        # the Box's own dtype: float32's nearest to a float64 bound may lie outside the Box
        low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
        finite = (high - low).float() < _UNBOUNDED
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("high", high, persistent=False)
        self.register_buffer("finite", finite, persistent=False)
        self.register_buffer("middle", torch.where(finite, (low + high) / 2, 0.0).float(), persistent=False)
        self.register_buffer("half_range", torch.where(finite, (high - low) / 2, 1.0).float(), persistent=False)

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Low and high, (*A) each, with the type of another tensor."""
        return self.low.to(like), self.high.to(like)

    def clip(self, action: Tensor) -> Tensor:
        """The nearest element of the Box, (*B, *A); gradients pass inside and at the bounds."""
        return action.clamp(self.low, self.high)


class AbstractBoundedDensity(Distribution):
    """A density between two bounds, written in shares of the way from one to the other.

    Near a bound the share of the way to it is known far better than one minus the share of the way back, so that both
    are carried. At the bounds themselves, densities are zero or infinite, while rounding puts samples there: the few
    numbers next to a bound, which rounding blurs, count as one cell, and `log_prob` is finite in it.

    torch.distributions' own transforms go through 1 - share, or through the atanh of a sample: -inf, inf or NaN there.

    Args:
        low, high: bounds, (*A) or anything that broadcasts with `shape`.
        shape: batch_shape, (*B, *A): an Independent around it makes the last dims events.
        validate_args: torch's checks of parameters and samples.
    """

    has_rsample = True

    def __init__(self, low: Tensor, high: Tensor, shape: torch.Size, validate_args: bool) -> None:
        self.low, self.high, self.width = low, high, high - low
        limits = torch.finfo(low.dtype)
        low_edge, high_edge = (
            (_CELL * limits.eps * bound.abs() / self.width).clamp(limits.tiny, 0.25) for bound in (low, high)
        )
        self.low_edge, self.high_edge = low_edge, high_edge  # widths of the outermost cells, in shares
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From low to high."""
        return constraints.interval(self.low, self.high)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of points; those outside the bounds count as the nearer one unless arguments are validated."""
        if self._validate_args:
            self._validate_sample(value)
        lower = ((value - self.low) / self.width).clamp(max=1.0).maximum(self.low_edge)
        upper = ((self.high - value) / self.width).clamp(max=1.0).maximum(self.high_edge)
        return self.log_density(lower, upper) - self.width.log()

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Points with the graph to the parameters, none outside the bounds."""
        return self.at(*self.rsample_shares(self._extended_shape(sample_shape)))

    def at(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The point that is both these shares of the range away from its bounds."""
        return torch.where(lower < upper, self.low + self.width * lower, self.high - self.width * upper)

    @abstractmethod
    def log_density(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Log density in shares, at a point whose distances from the bounds are at least the edges."""

    @abstractmethod
    def rsample_shares(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Samples as distances from both bounds, which add up to 1, with the graph to the parameters."""
