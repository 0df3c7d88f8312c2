"""The head interface: features in, a `torch.distributions.Distribution` over actions out."""

from abc import ABC, abstractmethod
from typing import ClassVar

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent


class AbstractHead(nn.Module, ABC):
    """Maps features (*B, F) to a distribution with `batch_shape == B`, so that `log_prob` is (*B,).

    A head keeps nothing between calls. To add a distribution, write one subclass here, one YAML in `conf/dist`, and
    one line in `tests/cases.py`.

    Args:
        action_space: of one environment; one that `accepts` allows.
        in_features: F.
        validate_args: of the distributions, per instance: torch's checks of parameters and samples, at a cost.
    """

    needs: ClassVar[str]  # the action spaces it accepts, in words, e.g. "a Box"
    has_rsample: bool  # samples carry gradients: the pathwise estimator may use it
    rsample_bias: ClassVar[str | None] = None  # why the derivative of its samples is not exact, in a few words
    is_common: ClassVar[bool] = False  # named first, where a message lists the heads that would do
    acts_in_weights: ClassVar[bool] = False  # to_env gives weights over the choices of a Discrete space

    def __init__(self, action_space: gym.Space, in_features: int, validate_args: bool = False) -> None:
        super().__init__()
        self.action_space = action_space
        self.in_features = in_features
        self.validate_args = validate_args

    @classmethod
    @abstractmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """Whether the head can act in this space."""

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Features (*B, F) -> the distribution of actions."""

    @abstractmethod
    def to_env(self, action: Tensor) -> Tensor:
        """A sample (*B, *A) -> an element of the action space, keeping the gradient where there is one."""

    @abstractmethod
    def deterministic(self, dist: Distribution) -> Tensor:
        """The action to take without sampling, (*B, *A): finite, and shaped like a sample."""

    def independent(self, entries: Distribution) -> Distribution:
        """Distributions of the entries of an action, (*B, *A), as the distribution of the action, (*B,)."""
        dims = len(self.action_space.shape or ())
        return Independent(entries, dims, validate_args=self.validate_args) if dims else entries

    def entropy(self, dist: Distribution) -> Tensor:
        """Entropy in nats, (*B,): torch's where it has one, else an unbiased estimate from one sample.

        The estimate is -log p(x), and its gradient -log p(x) ∇ log p(x), for E[∇ log p] is 0.
        """
        try:
            return dist.entropy()
        except NotImplementedError:
            with torch.no_grad():
                sample = dist.sample()
            log_prob = dist.log_prob(sample)
            value = log_prob.detach()
            return -value - value * (log_prob - value)


def entries_of(dist: Distribution) -> Distribution:
    """The distributions of the entries of an action, which `independent` made into one of the action."""
    while isinstance(dist, Independent):
        dist = dist.base_dist
    return dist
