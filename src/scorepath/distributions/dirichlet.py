"""Dirichlet: shares of a whole."""

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Dirichlet as TorchDirichlet
from torch.distributions import Distribution
from torch.types import _size

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.box import is_floating_box
from scorepath.distributions.shares import concentrations, sample_dirichlet


class Dirichlet(AbstractHead):
    """p(a) ∝ Π_i a_i^(α_i - 1) over a_i ≥ 0, Σ_i a_i = 1: a Box of [0, 1]^d is read as d shares.

    α = 1 + softplus, in [1, 1001]: one mode, and no infinite density. The deterministic action is the mean. Samples
    are torch's, their derivatives exact to rounding.
    """

    needs = "a Box of [0, 1]^d action space with d >= 2"
    has_rsample = True

    def __init__(self, action_space: gym.spaces.Box, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.concentrations = nn.Linear(in_features, action_space.shape[0])

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return (
            is_floating_box(action_space)
            and len(action_space.shape) == 1
            and action_space.shape[0] >= 2
            and bool((action_space.low == 0.0).all() and (action_space.high == 1.0).all())
        )

    def forward(self, features: Tensor) -> Distribution:
        return _Interior(concentrations(self.concentrations(features)), validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action.clamp(0.0, 1.0)

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mean


class _Interior(TorchDirichlet):
    """A share that rounding made 0 counts as the least float there is, for its log is -inf; derivatives are exact."""

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        return sample_dirichlet(self.concentration.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.clamp(min=torch.finfo(value.dtype).tiny))
