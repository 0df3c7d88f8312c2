"""What heads with a location and a scale share: two outputs for each entry of a Box, in the Box's units."""

import math
from typing import Literal, get_args

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.box import BoxUnits, is_floating_box

Std = Literal["state_independent", "state_dependent"]
Mean = Literal["bounded", "unbounded"]


class AbstractLocationScaleHead(AbstractHead):
    """Mean and standard deviation of each entry of an action, in units of half the Box's range around its middle.

    Actions outside the Box are clipped on their way to the environment while `log_prob` is that of the unclipped
    sample, so that both gradient estimators stay exact for the clipped environment.

    Args:
        std: `state_independent` learns one log std per entry, `state_dependent` a linear function of the features.
        initial_std: std at the start, in units of half the range, in (0, 100].
        mean: `bounded` to the Box by tanh (an entry without finite bounds stays unbounded), or `unbounded`.

    Raises:
        ValueError: if initial_std is out of range or an option has another value.
    """

    needs = "a Box action space"
    _components: tuple[int, ...] = ()  # of a mixture, whose means and stds have this leading dim

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        if mean not in get_args(Mean):
            raise ValueError(f"mean={mean}: use one of {', '.join(get_args(Mean))}.")
        self.box = BoxUnits(action_space)
        self._shape = (*self._components, *action_space.shape)
        self._squashes = mean == "bounded" and bool(self.box.finite.any())
        size = math.prod(self._shape)
        self.mean = nn.Linear(in_features, size)
        self.log_std = log_parameter(size, "initial_std", initial_std)
        self.log_std_slope = slope(in_features, size, "std", std)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """A Box of real numbers."""
        return is_floating_box(action_space)

    def mean_and_std(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(*B, F) -> both (*B, *A) in the Box's units, with components before the entries."""
        shape = (*features.shape[:-1], *self._shape)
        mean = self.mean(features).reshape(shape)
        if self._squashes:
            mean = torch.where(self.box.finite, mean.tanh(), mean)
        log_std = at_features(features, self.log_std, self.log_std_slope)
        std = log_std.clamp(-20.0, 5.0).exp().reshape(self._shape if self.log_std_slope is None else shape)
        return mean, std.expand(shape)

    def mean_and_std_of_actions(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The same in units of the action."""
        mean, std = self.mean_and_std(features)
        return self.box.middle + self.box.half_range * mean, self.box.half_range * std

    def to_env(self, action: Tensor) -> Tensor:
        """The nearest element of the Box."""
        return self.box.clip(action)

    def deterministic(self, dist: Distribution) -> Tensor:
        """The mean, where a head says nothing else."""
        return dist.mean


def log_parameter(size: int, option: str, initial: float) -> nn.Parameter:
    """The logarithm of a positive parameter, (size,), each `initial` at the start.

    Raises:
        ValueError: naming the option, unless initial is in (0, 100].
    """
    if not 0 < initial <= 100:
        raise ValueError(f"{option} must be from above 0 to 100, but is {initial}.")
    return nn.Parameter(torch.full((size,), math.log(initial)))


def slope(in_features: int, size: int, option: str, value: Std) -> nn.Linear | None:
    """What the features (*B, F) add to a parameter (size,) that is `state_dependent`: (*B, size), 0 at the start.

    Raises:
        ValueError: naming the option, if it has another value than the two of `Std`.
    """
    if value not in get_args(Std):
        raise ValueError(f"{option}={value}: use one of {', '.join(get_args(Std))}.")
    if value == "state_independent" or size == 0:
        return None
    linear = nn.Linear(in_features, size, bias=False)
    nn.init.zeros_(linear.weight)
    return linear


def at_features(features: Tensor, parameter: Tensor, slope: nn.Linear | None) -> Tensor:
    """A parameter with what its slope adds, (*B, size), or (size,) without a slope."""
    return parameter if slope is None else parameter + slope(features)
