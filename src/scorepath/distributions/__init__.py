"""Heads: from features to a torch Distribution over actions."""

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.bernoulli import Bernoulli
from scorepath.distributions.categorical import Categorical
from scorepath.distributions.normal import Normal

__all__ = ["AbstractHead", "Bernoulli", "Categorical", "Normal"]
