"""Heads: from features to a torch Distribution over actions."""

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.bernoulli import Bernoulli
from scorepath.distributions.beta import Beta, Kumaraswamy
from scorepath.distributions.categorical import Categorical
from scorepath.distributions.counts import Binomial, Poisson
from scorepath.distributions.dirichlet import Dirichlet
from scorepath.distributions.heavy_tails import Laplace, StudentT
from scorepath.distributions.mixture_normal import MixtureNormal
from scorepath.distributions.multivariate_normal import LowRankNormal, MultivariateNormal
from scorepath.distributions.normal import Normal
from scorepath.distributions.product import Product
from scorepath.distributions.relaxed import OneHotStraightThrough, RelaxedBernoulli, RelaxedCategorical
from scorepath.distributions.tanh_normal import TanhNormal
from scorepath.distributions.truncated_normal import TruncatedNormal
from scorepath.distributions.von_mises import VonMises

__all__ = [
    "AbstractHead",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Dirichlet",
    "Kumaraswamy",
    "Laplace",
    "LowRankNormal",
    "MixtureNormal",
    "MultivariateNormal",
    "Normal",
    "OneHotStraightThrough",
    "Poisson",
    "Product",
    "RelaxedBernoulli",
    "RelaxedCategorical",
    "StudentT",
    "TanhNormal",
    "TruncatedNormal",
    "VonMises",
]
