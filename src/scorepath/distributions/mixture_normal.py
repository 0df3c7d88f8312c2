"""Mixture of Gaussians over a Box: several modes, for the score function alone."""

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std


class MixtureNormal(AbstractLocationScaleHead):
    """p(a) = Σ_k w_k N(a; mean_k, diag(std_k²)), w = softmax(logits): all entries of an action from one component.

    Which component was drawn has no derivative, so there is no rsample. The deterministic action is the component mean
    of the highest density: the mode, where components lie apart. Entropy is estimated from one sample. Units, bounds
    and options as of `Normal`.

    Args:
        components: from 1 to 1000.
        std: `state_independent` learns one log std per entry and component, `state_dependent` a linear function of the
            features.
        initial_std: std at the start, in units of half the range, in (0, 100].
        mean: `bounded` to the Box by tanh (an entry without finite bounds stays unbounded), or `unbounded`.

    Raises:
        ValueError: if components or initial_std is out of range or an option has another value.
    """

    has_rsample = False

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        components: int = 3,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        if not 1 <= components <= 1000:
            raise ValueError(f"components must be from 1 to 1000, but is {components}.")
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args, components)
        self.logits = nn.Linear(in_features, components)

    def forward(self, features: Tensor) -> Distribution:
        normal = Normal(*self.mean_and_std_of_actions(features), validate_args=self.validate_args)
        weights = Categorical(logits=self.logits(features), validate_args=self.validate_args)
        components = Independent(normal, self._event_dims, validate_args=self.validate_args)
        return MixtureSameFamily(weights, components, validate_args=self.validate_args)

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, MixtureSameFamily)
        means = dist.component_distribution.mean.movedim(len(dist.batch_shape), 0)  # (K, *B, *A)
        best = dist.log_prob(means).argmax(dim=0)
        rows = best.reshape(1, *best.shape, *[1] * self._event_dims).expand(1, *means.shape[1:])
        return torch.gather(means, 0, rows).squeeze(0)
