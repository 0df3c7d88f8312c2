"""Bernoulli: one coin for a two-way choice, or one for each bit."""

import math

import gymnasium as gym
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution

from scorepath.distributions.base import AbstractHead


class Bernoulli(AbstractHead):
    """p(a=1) = sigmoid(logit): Discrete(2), or MultiBinary with independent bits.

    Samples are 0.0 or 1.0: scalars for Discrete(2), the space's shape for MultiBinary.
    """

    needs = "a Discrete(2) or MultiBinary action space"
    is_common = True
    has_rsample = False

    def __init__(self, action_space: gym.Space, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        self._shape = action_space.shape or ()
        self._start = int(getattr(action_space, "start", 0))
        self.logits = nn.Linear(in_features, math.prod(self._shape))

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        if isinstance(action_space, gym.spaces.Discrete):
            return int(action_space.n) == 2
        return isinstance(action_space, gym.spaces.MultiBinary)

    def forward(self, features: Tensor) -> Distribution:
        logits = self.logits(features).reshape((*features.shape[:-1], *self._shape))
        return self.independent(TorchBernoulli(logits=logits, validate_args=self.validate_args))

    def to_env(self, action: Tensor) -> Tensor:
        choice = action.long()
        return choice + self._start if self._start else choice

    def deterministic(self, dist: Distribution) -> Tensor:
        return (dist.mean > 0.5).to(dist.mean.dtype)
