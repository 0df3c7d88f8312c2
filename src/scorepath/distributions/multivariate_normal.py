"""Gaussians whose entries are correlated: with a full covariance, or a diagonal one and a few directions more."""

import math

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, LowRankMultivariateNormal, constraints
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.types import _size

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std, at_features, slope

_MOST = 10.0  # of a loading: keeps the covariance's condition within what float32 can invert


class MultivariateNormal(AbstractLocationScaleHead):
    """a ~ N(mean, Σ), Σ = L Lᵀ, L = diag(std) C, where C is lower triangular and its rows have norm 1.

    A row of C is (c_1 .. c_{i-1}, 1) over its norm, so that std is each entry's own standard deviation whatever the
    correlations; c starts at 0.

    Args:
        std: of the covariance's shape too: `state_dependent` makes both linear functions of the features.
        initial_std, mean: as of `AbstractLocationScaleHead`.
    """

    has_rsample = True
    _rows: Tensor
    _columns: Tensor

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args)
        size = math.prod(self._shape)
        self.loadings = nn.Parameter(torch.zeros(size * (size - 1) // 2))
        self.loadings_slope = slope(in_features, len(self.loadings), "std", std)
        rows, columns = torch.tril_indices(size, size, offset=-1)
        self.register_buffer("_rows", rows, persistent=False)
        self.register_buffer("_columns", columns, persistent=False)

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std_of_actions(features)
        loadings = at_features(features, self.loadings, self.loadings_slope).clamp(-_MOST, _MOST)
        unit = torch.eye(math.prod(self._shape), dtype=std.dtype, device=std.device)
        triangle = unit.expand(*loadings.shape[:-1], *unit.shape).clone()
        triangle[..., self._rows, self._columns] = loadings
        triangle = triangle / triangle.norm(dim=-1, keepdim=True)
        vectors = TorchMultivariateNormal(
            triangle.new_zeros(unit.shape[-1:]), scale_tril=triangle, validate_args=self.validate_args
        )
        return ScaledVectors(vectors, mean, std, len(self._shape), self.validate_args)


class LowRankNormal(AbstractLocationScaleHead):
    """a ~ N(mean, Σ), Σ = diag(std) (W Wᵀ + D) diag(std), W (entries, rank), D diagonal, with ones on Σ's diagonal.

    A row of (W, √D) is (w_1 .. w_rank, 1) over its norm, so that std is each entry's own standard deviation. W starts
    at small random numbers, for at 0 its gradient is 0.

    Args:
        rank: columns of W, from 1 to 1000.
        std: of the covariance's shape too: `state_dependent` makes both linear functions of the features.
        initial_std, mean: as of `AbstractLocationScaleHead`.

    Raises:
        ValueError: if rank or another option is out of range.
    """

    has_rsample = True

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        rank: int = 1,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        if not 1 <= rank <= 1000:
            raise ValueError(f"rank must be from 1 to 1000, but is {rank}.")
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args)
        self.rank = rank
        self.loadings = nn.Parameter(0.1 * torch.randn(math.prod(self._shape) * rank))
        self.loadings_slope = slope(in_features, len(self.loadings), "std", std)

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std_of_actions(features)
        loadings = at_features(features, self.loadings, self.loadings_slope).clamp(-_MOST, _MOST)
        loadings = loadings.unflatten(-1, (-1, self.rank))
        share = 1.0 / (1.0 + loadings.square().sum(dim=-1))  # of the variance that is the entry's own
        vectors = LowRankMultivariateNormal(
            torch.zeros_like(share),
            cov_factor=share.sqrt().unsqueeze(-1) * loadings,
            cov_diag=share,
            validate_args=self.validate_args,
        )
        return ScaledVectors(vectors, mean, std, len(self._shape), self.validate_args)


class ScaledVectors(Distribution):
    """loc + scale x, entry by entry, as an array of any shape; x a vector of mean 0 and variances 1.

    With the scales apart, a covariance is one of correlations, which float32 can invert however small the scales are.
    torch's transforms would do it without a mean or an entropy.

    Args:
        vectors: of x, event_shape (D,).
        loc, scale: (*B, *A), where A has D entries.
        event_dims: dims of *A.
        validate_args: torch's checks of parameters.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch's own form)
    has_rsample = True

    def __init__(
        self, vectors: Distribution, loc: Tensor, scale: Tensor, event_dims: int, validate_args: bool = False
    ) -> None:
        self.loc, self.scale = loc, scale
        batch = loc.shape[: loc.dim() - event_dims]
        self.vectors = vectors.expand(batch)
        super().__init__(batch, loc.shape[len(batch) :], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self.loc

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        vectors = self.vectors.rsample(sample_shape)
        return self.loc + self.scale * vectors.reshape((*vectors.shape[:-1], *self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        arrays = (value - self.loc) / self.scale
        vectors = arrays.reshape((*arrays.shape[: arrays.dim() - len(self.event_shape)], -1))
        return self.vectors.log_prob(vectors) - self._log_volume()

    def entropy(self) -> Tensor:
        return self.vectors.entropy() + self._log_volume()

    def _log_volume(self) -> Tensor:
        return self.scale.log().reshape((*self.batch_shape, -1)).sum(dim=-1)
