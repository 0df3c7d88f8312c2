"""What heads with a location and a scale share: two outputs for each entry of a Box, in the Box's units."""

import math
from typing import Literal

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
        components: how many means and stds for each entry, on a leading dim; None is one without that dim.

    Raises:
        ValueError: if initial_std is out of range or an option has another value.
    """

    needs = "a Box action space"

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Std,
        initial_std: float,
        mean: Mean,
        validate_args: bool,
        components: int | None = None,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        if not 0 < initial_std <= 100:
            raise ValueError(f"initial_std must be from above 0 to 100, but is {initial_std}.")
        if std not in ("state_independent", "state_dependent") or mean not in ("unbounded", "bounded"):
            raise ValueError(f"std={std}, mean={mean}: use state_independent or state_dependent, unbounded or bounded.")
        self.box = BoxUnits(action_space)
        self._event_dims = len(action_space.shape)
        self._shape = action_space.shape if components is None else (components, *action_space.shape)
        self._squashes = mean == "bounded" and bool(self.box.finite.any())
        size = math.prod(self._shape)
        self.mean = nn.Linear(in_features, size)
        self.log_std = nn.Parameter(torch.full((size,), math.log(initial_std)))
        self.log_std_slope = nn.Linear(in_features, size, bias=False) if std == "state_dependent" else None
        if self.log_std_slope is not None:
            nn.init.zeros_(self.log_std_slope.weight)

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
        log_std = self.log_std if self.log_std_slope is None else self.log_std + self.log_std_slope(features)
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
