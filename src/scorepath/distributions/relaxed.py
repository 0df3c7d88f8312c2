"""Relaxed choices: heads whose actions are weights over the choices, for environments that take weights."""

import math

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, OneHotCategoricalStraightThrough, constraints
from torch.nn.functional import one_hot, softplus
from torch.types import _size

from scorepath.distributions.base import AbstractHead

_FAR = 1e4  # a logarithm so far from 0 that exp and sigmoid round to weights of exactly 0 and 1


class RelaxedBernoulli(AbstractHead):
    """The binary Concrete: w = sigmoid((logit + logistic noise) / temperature), the weight of the second choice.

    Maddison et al. 2017, arXiv:1611.00712. Samples are logits of weights, (*B,), any real number; the environment gets
    the weights, and there both estimators are exact for the policy that acts by weights. The deterministic action is
    the more probable choice. Entropy is that of the weight, estimated from one sample.

    Args:
        temperature: in (0, 100]; towards 0 the weights become choices.

    Raises:
        ValueError: for another temperature.
    """

    needs = "a Discrete(2) action space"
    has_rsample = True
    acts_in_weights = True

    def __init__(
        self, action_space: gym.Space, in_features: int, temperature: float = 0.5, validate_args: bool = False
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.temperature = checked_temperature(temperature)
        self.logits = nn.Linear(in_features, 1)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) == 2

    def forward(self, features: Tensor) -> Distribution:
        return BinaryConcreteDensity(self.logits(features).squeeze(-1), self.temperature, self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        """The weight of the second choice, (*B,) in [0, 1]."""
        return action.sigmoid()

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, BinaryConcreteDensity)
        return (2.0 * (dist.logits > 0.0).to(dist.logits) - 1.0) * _FAR

    def entropy(self, dist: Distribution) -> Tensor:
        """H(logit w) + E[ln dw / d logit w]: that of the logit is the same for all policies."""
        logit = dist.rsample()
        return dist.entropy() - softplus(logit) - softplus(-logit)


class RelaxedCategorical(AbstractHead):
    """The Concrete, or Gumbel-softmax: w = softmax((logits + Gumbel noise) / temperature), K weights over K choices.

    Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144. Samples are logarithms of weights,
    (*B, K); the environment gets the weights, and there both estimators are exact for the policy that acts by weights.
    The deterministic action is the most probable choice. Entropy is that of the weights, estimated from one sample.

    Args:
        temperature: in (0, 100]; towards 0 the weights become choices.

    Raises:
        ValueError: for another temperature.
    """

    needs = "a Discrete action space of two or more choices"
    has_rsample = True
    acts_in_weights = True

    def __init__(
        self, action_space: gym.spaces.Discrete, in_features: int, temperature: float = 0.5, validate_args: bool = False
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.temperature = checked_temperature(temperature)
        self.logits = nn.Linear(in_features, int(action_space.n))

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) > 1

    def forward(self, features: Tensor) -> Distribution:
        return ConcreteDensity(self.logits(features), self.temperature, self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        """The weights, (*B, K) on the simplex."""
        return action.exp()

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, ConcreteDensity)
        return (_most_probable(dist.logits) - 1.0) * _FAR

    def entropy(self, dist: Distribution) -> Tensor:
        """H(log ratios of w) + E[Σ_k ln w_k]: that of the log ratios is the same for all policies."""
        return dist.entropy() + dist.rsample().sum(dim=-1)


class OneHotStraightThrough(AbstractHead):
    """A choice as one-hot weights, (*B, K), whose rsample() has the derivative of the probabilities.

    Bengio et al. 2013, arXiv:1308.3432, section 4. The score function is exact; pathwise is biased wherever rewards are
    not linear in the weights. The deterministic action is the most probable choice.
    """

    needs = "a Discrete action space of two or more choices"
    has_rsample = True
    acts_in_weights = True
    rsample_bias = "the derivative of a hard choice is taken to be that of its probabilities"

    def __init__(self, action_space: gym.spaces.Discrete, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.logits = nn.Linear(in_features, int(action_space.n))

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) > 1

    def forward(self, features: Tensor) -> Distribution:
        return OneHotCategoricalStraightThrough(logits=self.logits(features), validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, OneHotCategoricalStraightThrough)
        return _most_probable(dist.logits)


class BinaryConcreteDensity(Distribution):
    """Density of y = (logit + l) / temperature, the logit of a weight, l logistic noise.

    Not of the weight itself, as torch's RelaxedBernoulli: float32 knows no weight between 1 - 6e-8 and 1, and the mean
    score of weights rounded there is not 0 but, at temperature 0.5 and a logit of 10, 0.8 of its bound.

    Args:
        logits: (*B).
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012 (torch's own form)
    support = constraints.real
    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool = False) -> None:
        self.logits, self.temperature = logits, temperature
        super().__init__(logits.shape, validate_args=validate_args)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Logits of weights, (*sample_shape, *B)."""
        shape = self._extended_shape(sample_shape)
        return (self.logits + _gumbel(self.logits, shape) - _gumbel(self.logits, shape)) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        noise = self.temperature * value - self.logits
        return math.log(self.temperature) - softplus(noise) - softplus(-noise)

    def entropy(self) -> Tensor:
        """2 - ln temperature."""
        return torch.full_like(self.logits, 2.0 - math.log(self.temperature))


class ConcreteDensity(Distribution):
    """Density of log w, w = softmax((logits + g) / temperature), g Gumbel noise, in the K - 1 log ratios ln(w_k / w_K).

    (K-1)! temperature^(K-1) Π_k u_k / (Σ_k u_k)^K, u_k = exp(logits_k) w_k^-temperature. Logarithms, for at low
    temperatures float32 rounds weights to 0, and what is lost there biases the score.

    Args:
        logits: (*B, K).
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012 (torch's own form)
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, logits: Tensor, temperature: float, validate_args: bool = False) -> None:
        self.logits, self.temperature = logits, temperature
        super().__init__(logits.shape[:-1], logits.shape[-1:], validate_args=validate_args)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Logarithms of weights, (*sample_shape, *B, K)."""
        noise = _gumbel(self.logits, self._extended_shape(sample_shape))
        return ((self.logits + noise) / self.temperature).log_softmax(dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        choices = self.logits.shape[-1]
        log_u = self.logits - self.temperature * value
        constant = math.lgamma(choices) + (choices - 1) * math.log(self.temperature)
        return constant + log_u.log_softmax(dim=-1).sum(dim=-1)

    def entropy(self) -> Tensor:
        """K ψ(K) + K γ - ln (K-1)! - (K-1) ln temperature, γ Euler's constant."""
        choices = self.logits.shape[-1]
        harmonic = float(torch.digamma(torch.tensor(float(choices), dtype=torch.float64))) + np.euler_gamma
        constant = choices * harmonic - math.lgamma(choices) - (choices - 1) * math.log(self.temperature)
        return torch.full_like(self.logits[..., 0], constant)


def _gumbel(like: Tensor, shape: torch.Size) -> Tensor:
    exponential = torch.empty(shape, dtype=like.dtype, device=like.device).exponential_()
    return -exponential.clamp(min=torch.finfo(like.dtype).tiny).log()


def checked_temperature(temperature: float | None) -> float:
    """The temperature, refused by ValueError outside (0, 100]."""
    if temperature is None or not 0.0 < temperature <= 100.0:
        raise ValueError(f"temperature={temperature} must be above 0 and at most 100.")
    return temperature


def _most_probable(logits: Tensor) -> Tensor:
    return one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
