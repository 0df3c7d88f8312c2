"""Mixture of Gaussians over a Box: several modes, for the score function alone."""

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std


class MixtureNormal(AbstractLocationScaleHead):
    """p(a) = Σ_k w_k N(a; mean_k, diag(std_k²)), w = softmax(logits): all entries of an action from one component.

    Which component was drawn has no derivative, so there is no rsample. The deterministic action is the component mean
    of the highest density: the mode, where components lie apart. Entropy is estimated from one sample.

    Args:
        components: from 1 to 1000.
        std, initial_std, mean: as of `AbstractLocationScaleHead`, for each component.

    Raises:
        ValueError: if components or another option is out of range.
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
        self._components = (components,)  # before the parameters are made
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args)
        self.logits = nn.Linear(in_features, components)

    def forward(self, features: Tensor) -> Distribution:
        normal = Normal(*self.mean_and_std_of_actions(features), validate_args=self.validate_args)
        weights = Categorical(logits=self.logits(features), validate_args=self.validate_args)
        return MixtureSameFamily(weights, self.independent(normal), validate_args=self.validate_args)

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, MixtureSameFamily)
        means = dist.component_distribution.mean.movedim(len(dist.batch_shape), 0)  # (K, *B, *A)
        best = dist.log_prob(means).argmax(dim=0)
        rows = best.reshape(1, *best.shape, *[1] * len(dist.event_shape)).expand(1, *means.shape[1:])
        return torch.gather(means, 0, rows).squeeze(0)
