"""Normal: independent Gaussians over a Box."""

import math
from typing import Literal

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from scorepath.distributions.base import AbstractHead

_UNBOUNDED = 1e18  # a Box as wide as float32 goes is meant to have no bounds


class Normal(AbstractHead):
    """a ~ N(mean, std²), each entry by itself; std is in units of the action.

    The network works in units of half the Box's range around its middle (1 around 0 where the Box is unbounded).
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
    has_rsample = True
    _squashed: Tensor | None
    _low: Tensor
    _high: Tensor
    _middle: Tensor
    _half_range: Tensor

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Literal["state_independent", "state_dependent"] = "state_independent",
        initial_std: float = 0.6,
        mean: Literal["bounded", "unbounded"] = "bounded",
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        if not 0 < initial_std <= 100:
            raise ValueError(f"initial_std must be from above 0 to 100, but is {initial_std}.")
        if std not in ("state_independent", "state_dependent") or mean not in (
            "unbounded",
            "bounded",
        ):
            raise ValueError(f"std={std}, mean={mean}: use state_independent or state_dependent, unbounded or bounded.")
        self._shape = action_space.shape
        size = math.prod(self._shape)
        self.mean = nn.Linear(in_features, size)
        self.log_std = nn.Parameter(torch.full((size,), math.log(initial_std)))
        self.log_std_slope = nn.Linear(in_features, size, bias=False) if std == "state_dependent" else None
        if self.log_std_slope is not None:
            nn.init.zeros_(self.log_std_slope.weight)
        # the Box's own dtype: float32's nearest to a float64 bound may lie outside the Box
        low, high = torch.as_tensor(action_space.low), torch.as_tensor(action_space.high)
        finite = (high - low).float() < _UNBOUNDED
        squashed = finite if mean == "bounded" and bool(finite.any()) else None
        self.register_buffer("_squashed", squashed, persistent=False)
        self.register_buffer("_low", low, persistent=False)
        self.register_buffer("_high", high, persistent=False)
        self.register_buffer("_middle", torch.where(finite, (low + high) / 2, 0.0).float(), persistent=False)
        self.register_buffer("_half_range", torch.where(finite, (high - low) / 2, 1.0).float(), persistent=False)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return isinstance(action_space, gym.spaces.Box) and np.issubdtype(action_space.dtype, np.floating)

    def forward(self, features: Tensor) -> Distribution:
        shape = (*features.shape[:-1], *self._shape)
        mean = self.mean(features).reshape(shape)
        if self._squashed is not None:
            mean = torch.where(self._squashed, mean.tanh(), mean)
        log_std = self.log_std if self.log_std_slope is None else self.log_std + self.log_std_slope(features)
        std = log_std.clamp(-20.0, 5.0).exp().reshape(self._shape if self.log_std_slope is None else shape)
        mean = self._middle + self._half_range * mean
        normal = TorchNormal(mean, (self._half_range * std).expand(shape), validate_args=self.validate_args)
        return Independent(normal, len(self._shape), validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action.clamp(self._low, self._high)

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mean
