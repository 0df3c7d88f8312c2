"""Relaxed choices: heads whose actions are weights over the choices, for environments that take weights."""

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    OneHotCategoricalStraightThrough,
    RelaxedOneHotCategorical,
)
from torch.distributions import RelaxedBernoulli as TorchRelaxedBernoulli

from scorepath.distributions.base import AbstractHead


class RelaxedBernoulli(AbstractHead):
    """The binary Concrete: w = sigmoid((logit + logistic noise) / temperature), the weight of the second choice.

    Maddison et al. 2017, arXiv:1611.00712. Samples are scalars in [0, 1]; the environment is the relaxed one, in which
    both estimators are exact.

    Args:
        temperature: above 0; towards 0 the weights become choices.

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
        self.temperature = _checked(temperature)
        self.logits = nn.Linear(in_features, 1)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """Two choices."""
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) == 2

    def forward(self, features: Tensor) -> Distribution:
        logits = self.logits(features).squeeze(-1)
        temperature = logits.new_tensor(self.temperature)
        return _BinaryConcrete(temperature, logits=logits, validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action

    def deterministic(self, dist: Distribution) -> Tensor:
        """The more probable choice."""
        assert isinstance(dist, TorchRelaxedBernoulli)
        return (dist.logits > 0.0).to(dist.logits.dtype)


class RelaxedCategorical(AbstractHead):
    """The Concrete: w = softmax((logits + Gumbel noise) / temperature), weights (K,) over K choices.

    Maddison et al. 2017, arXiv:1611.00712; Jang et al. 2017, arXiv:1611.01144. The environment is the relaxed one, in
    which both estimators are exact.

    Args:
        temperature: above 0; towards 0 the weights become choices.

    Raises:
        ValueError: for another temperature.
    """

    needs = "a Discrete action space"
    has_rsample = True
    acts_in_weights = True

    def __init__(
        self, action_space: gym.Space, in_features: int, temperature: float = 0.5, validate_args: bool = False
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.temperature = _checked(temperature)
        self.logits = nn.Linear(in_features, int(action_space.n))  # type: ignore[attr-defined] # Discrete

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """At least two choices."""
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) > 1

    def forward(self, features: Tensor) -> Distribution:
        logits = self.logits(features)
        return _Concrete(logits.new_tensor(self.temperature), logits=logits, validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action

    def deterministic(self, dist: Distribution) -> Tensor:
        """The most probable choice."""
        assert isinstance(dist, RelaxedOneHotCategorical)
        return _one_hot(dist.logits)


class OneHotStraightThrough(AbstractHead):
    """A choice as a one-hot weight, whose rsample() has the gradient of the probabilities (Bengio et al. 2013).

    So the score function is exact, and pathwise is biased.
    """

    needs = "a Discrete action space"
    has_rsample = True
    acts_in_weights = True
    rsample_bias = "the derivative of a hard choice is taken to be that of its probabilities"

    def __init__(self, action_space: gym.Space, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        self.logits = nn.Linear(in_features, int(action_space.n))  # type: ignore[attr-defined] # Discrete

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """At least two choices."""
        return isinstance(action_space, gym.spaces.Discrete) and int(action_space.n) > 1

    def forward(self, features: Tensor) -> Distribution:
        return OneHotCategoricalStraightThrough(logits=self.logits(features), validate_args=self.validate_args)

    def to_env(self, action: Tensor) -> Tensor:
        return action

    def deterministic(self, dist: Distribution) -> Tensor:
        """The most probable choice."""
        assert isinstance(dist, OneHotCategoricalStraightThrough)
        return _one_hot(dist.logits)


class _BinaryConcrete(TorchRelaxedBernoulli):
    """log_prob in softplus, where torch's overflows; weights that rounding made 0 or 1 count as the next number."""

    def log_prob(self, value: Tensor) -> Tensor:
        limits = torch.finfo(value.dtype)
        value = value.clamp(limits.tiny, 1.0 - limits.eps)
        log, log_rest = value.log(), (-value).log1p()
        noise = self.logits - self.temperature * (log - log_rest)  # minus the logistic noise of the sample
        return self.temperature.log() + noise - 2.0 * nn.functional.softplus(noise) - log - log_rest


class _Concrete(RelaxedOneHotCategorical):
    """A weight that rounding made 0 counts as the least float there is, for its log is -inf."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.clamp(min=torch.finfo(value.dtype).tiny))


def _checked(temperature: float) -> float:
    if not 0.0 < temperature <= 100.0:
        raise ValueError(f"temperature={temperature} must be from above 0 to 100.")
    return temperature


def _one_hot(logits: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
