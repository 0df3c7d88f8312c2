"""Counts: Binomial and Poisson over whole numbers."""

import math
from abc import abstractmethod

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Binomial as TorchBinomial
from torch.distributions import Distribution
from torch.distributions import Poisson as TorchPoisson

from scorepath.distributions.base import AbstractHead, entries_of

_LARGEST = 100_000  # numbers to count up to: float32 knows all whole numbers to 16 million
_ENUMERABLE = 1000  # counts that an entropy may be summed over, for each entry of each action of a batch


class AbstractCountHead(AbstractHead):
    """low + a count from 0: Discrete(n), or a Box of whole numbers with finite bounds, each entry by itself.

    Samples are counts as floats, in the space's shape.
    """

    needs = "a Discrete action space, or a Box of whole numbers with finite bounds"
    has_rsample = False
    _low: Tensor
    _range: Tensor

    def __init__(self, action_space: gym.Space, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        low, high = _bounds(action_space)
        self._shape = low.shape
        self.counts = nn.Linear(in_features, math.prod(self._shape))
        self.register_buffer("_low", torch.as_tensor(low), persistent=False)
        self.register_buffer("_range", torch.as_tensor(high - low), persistent=False)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """A number line that can be counted through."""
        if isinstance(action_space, gym.spaces.Discrete):
            return 1 < action_space.n <= _LARGEST
        if not isinstance(action_space, gym.spaces.Box) or not np.issubdtype(action_space.dtype, np.integer):
            return False
        width = action_space.high.astype(np.float64) - action_space.low.astype(np.float64)  # int64's would overflow
        return bool(((width > 0) & (width <= _LARGEST)).all())

    def forward(self, features: Tensor) -> Distribution:
        raw = self.counts(features).reshape((*features.shape[:-1], *self._shape))
        return self.independent(self.count(raw))

    @abstractmethod
    def count(self, raw: Tensor) -> Distribution:
        """Outputs of the network (*B, *A) -> a distribution of counts from 0, with batch_shape (*B, *A)."""

    def to_env(self, action: Tensor) -> Tensor:
        """Counts -> numbers of the space, those beyond its range clipped."""
        return self._low + action.long().clamp(min=0).minimum(self._range)


class Binomial(AbstractCountHead):
    """P(k) = (n over k) p^k (1-p)^(n-k), p = sigmoid(logit), n the range of the entry.

    The deterministic action is the mode, floor((n + 1) p). Entropy is exact where all entries have one range of at most
    1,000, else estimated from one sample.
    """

    def count(self, raw: Tensor) -> Distribution:
        return _Binomial(self._range.to(raw), logits=raw, validate_args=self.validate_args)

    def deterministic(self, dist: Distribution) -> Tensor:
        counts = entries_of(dist)
        assert isinstance(counts, TorchBinomial)
        return ((counts.total_count + 1) * counts.probs).floor().minimum(counts.total_count)


class Poisson(AbstractCountHead):
    """P(k) = λ^k e^-λ / k!, clipped to the range on its way to the environment.

    `log_prob` is that of the unclipped count, so that the score function stays exact for the clipped environment. λ is
    half the range times exp of the network's output. The deterministic action is the mode, floor(λ). Entropy is
    estimated from one sample.
    """

    def count(self, raw: Tensor) -> Distribution:
        rate = 0.5 * self._range.to(raw) * raw.clamp(-20.0, 5.0).exp()
        return TorchPoisson(rate, validate_args=self.validate_args)

    def deterministic(self, dist: Distribution) -> Tensor:
        return dist.mean.floor()


class _Binomial(TorchBinomial):
    """torch's entropy is a sum over all counts at once, which for 100,000 of them fills the memory."""

    def entropy(self) -> Tensor:
        if float(self.total_count.max()) > _ENUMERABLE:
            raise NotImplementedError
        return super().entropy()


def _bounds(space: gym.Space) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest number of each entry, int64."""
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(int(space.start)), np.asarray(int(space.start) + int(space.n) - 1)
    assert isinstance(space, gym.spaces.Box)
    return space.low.astype(np.int64), space.high.astype(np.int64)
