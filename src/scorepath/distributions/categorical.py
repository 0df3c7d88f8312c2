"""Categorical: one choice of K, or several independent ones."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution

from scorepath.distributions.base import AbstractHead, entries_of


class Categorical(AbstractHead):
    """p(a=k) = softmax(logits)_k: Discrete(K), or MultiDiscrete with independent components.

    Samples are int64 from 0: scalars for Discrete, the space's shape for MultiDiscrete. Components with fewer choices
    than the largest have the missing ones at probability zero.
    """

    needs = "a Discrete or MultiDiscrete action space"
    is_common = True
    has_rsample = False
    _missing: Tensor | None
    _start: Tensor

    def __init__(self, action_space: gym.Space, in_features: int, validate_args: bool = False) -> None:
        super().__init__(action_space, in_features, validate_args)
        choices = np.asarray(getattr(action_space, "nvec", getattr(action_space, "n", None)))
        largest = int(choices.max())
        self.logits = nn.Linear(in_features, choices.size * largest)
        missing = torch.arange(largest) >= torch.as_tensor(choices).unsqueeze(-1)
        self.register_buffer("_missing", missing if bool(missing.any()) else None, persistent=False)
        self.register_buffer("_start", torch.as_tensor(getattr(action_space, "start", 0)), persistent=False)
        self._event = (*(action_space.shape or ()), largest)

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        return isinstance(action_space, gym.spaces.Discrete | gym.spaces.MultiDiscrete)

    def forward(self, features: Tensor) -> Distribution:
        logits = self.logits(features).reshape((*features.shape[:-1], *self._event))
        if self._missing is not None:
            # probability 0, but finite: the entropy's gradient multiplies it with that 0
            logits = logits.masked_fill(self._missing, max(-1e30, torch.finfo(logits.dtype).min / 2))
        return self.independent(TorchCategorical(logits=logits, validate_args=self.validate_args))

    def to_env(self, action: Tensor) -> Tensor:
        return action + self._start

    def deterministic(self, dist: Distribution) -> Tensor:
        choice = entries_of(dist)
        assert isinstance(choice, TorchCategorical)
        return choice.logits.argmax(dim=-1)
