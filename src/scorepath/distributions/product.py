"""Product: Dict and Tuple action spaces, a head for each leaf."""

from collections.abc import Callable, Mapping, Sequence

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.bernoulli import Bernoulli
from scorepath.distributions.box import is_floating_box
from scorepath.distributions.categorical import Categorical
from scorepath.distributions.counts import Binomial
from scorepath.distributions.normal import Normal
from scorepath.envs.composite import leaves, width

_USUAL: dict[str, type[AbstractHead]] = {
    "binary": Bernoulli,
    "discrete": Categorical,
    "box": Normal,
    "count": Binomial,
}


class Product(AbstractHead):
    """p(a) = Π p(leaf): independent given the features. Nested Dict and Tuple spaces are trees of such leaves.

    A sample is one row of floats, (*B, A): the leaves' own samples, flattened, one after the other in the order of
    `leaves`. log_prob and entropy are sums over the leaves, and there is an rsample where all leaves have one.

    Args:
        heads: constructors, classes or partials of such, by any names; the first that accepts a leaf acts in it. None
            takes Bernoulli, Categorical, Normal and Binomial with their defaults.

    Raises:
        ValueError: if none of them accepts a leaf, or one acts by weights.
    """

    needs = "a Dict or Tuple action space of Discrete, MultiDiscrete, MultiBinary and Box spaces"
    has_rsample = False  # of the class; an instance knows its leaves

    def __init__(
        self,
        action_space: gym.Space,
        in_features: int,
        heads: Mapping[str, Callable[..., AbstractHead]] | None = None,
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        usual: Mapping[str, Callable[..., AbstractHead]] = _USUAL
        makers = list((usual if heads is None else heads).values())
        options = {"validate_args": True} if validate_args else {}
        chosen = []
        for leaf in leaves(action_space):
            make = next((make for make in makers if _kind(make).accepts(leaf)), None)
            if make is None:
                raise ValueError(f"none of its heads can act in {leaf}: choose one that can.")
            if _kind(make).acts_in_weights:
                raise ValueError(f"{_kind(make).__name__} acts by weights, which no Dict or Tuple space takes.")
            chosen.append(make(action_space=leaf, in_features=in_features, **options))
        self.heads = nn.ModuleList(chosen)
        self.has_rsample = all(head.has_rsample for head in chosen)
        self._widths = [width(leaf) for leaf in leaves(action_space)]
        self._is_exact = all(_fits_float32(leaf) for leaf in leaves(action_space))

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        tree = leaves(action_space)
        return (
            isinstance(action_space, gym.spaces.Dict | gym.spaces.Tuple)
            and len(tree) > 0
            and all(any(head.accepts(leaf) for head in _USUAL.values()) for leaf in tree)
        )

    def forward(self, features: Tensor) -> Distribution:
        dtype = torch.promote_types(features.dtype, torch.float32)  # bfloat16 knows whole numbers to 256
        return ProductDistribution([head(features) for head in self.heads], self._widths, dtype)

    def to_env(self, action: Tensor) -> Tensor:
        """Rows (*B, A) of what the leaves' heads send, for the environment's boundary to nest; in float64 where float32
        would round them out of their space.
        """
        sent = []
        for leaf, head, part in zip(leaves(self.action_space), self.heads, action.split(self._widths, -1), strict=True):
            own = part.reshape((*action.shape[:-1], *(leaf.shape or ())))
            whole = np.issubdtype(leaf.dtype, np.integer)
            sent.append(head.to_env(own.long() if whole else own))  # type: ignore[operator]
        return _join(sent, action.shape[:-1], action.dtype if self._is_exact else torch.float64)

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, ProductDistribution)
        pairs = zip(self.heads, dist.parts, strict=True)
        rows = [head.deterministic(part) for head, part in pairs]  # type: ignore[operator]
        return _join(rows, dist.batch_shape, dist.dtype)

    def entropy(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, ProductDistribution)
        pairs = zip(self.heads, dist.parts, strict=True)
        return torch.stack([head.entropy(part) for head, part in pairs]).sum(dim=0)  # type: ignore[operator]


class ProductDistribution(Distribution):
    """Independent distributions side by side, their events flattened into one row.

    Args:
        parts: with one batch_shape.
        widths: numbers in an event of each.
        dtype: of the rows.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)

    def __init__(self, parts: Sequence[Distribution], widths: Sequence[int], dtype: torch.dtype) -> None:
        self.parts, self.widths, self.dtype = list(parts), list(widths), dtype
        self.has_rsample = all(part.has_rsample for part in parts)
        super().__init__(self.parts[0].batch_shape, torch.Size([sum(widths)]), validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Rows (*sample_shape, *B, A)."""
        shape = torch.Size(sample_shape)
        return _join([part.sample(shape) for part in self.parts], shape + self.batch_shape, self.dtype)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Rows with their graph; NotImplementedError if a part has none."""
        if not self.has_rsample:
            raise NotImplementedError
        shape = torch.Size(sample_shape)
        return _join([part.rsample(shape) for part in self.parts], shape + self.batch_shape, self.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the parts."""
        split = zip(self.parts, value.split(self.widths, dim=-1), strict=True)
        terms = [part.log_prob(rows.reshape((*value.shape[:-1], *part.event_shape))) for part, rows in split]
        return torch.stack(terms).sum(dim=0)


def _join(rows: Sequence[Tensor], batch: torch.Size, dtype: torch.dtype) -> Tensor:
    """Events (*batch, ...) of several parts as one row (*batch, A)."""
    return torch.cat([part.reshape((*batch, -1)).to(dtype) for part in rows], dim=-1)


def _fits_float32(leaf: gym.Space) -> bool:
    """Whether float32 knows every number of a leaf, and its bounds."""
    if is_floating_box(leaf):
        return leaf.dtype.itemsize <= 4
    largest = leaf.high if isinstance(leaf, gym.spaces.Box) else getattr(leaf, "n", getattr(leaf, "nvec", 2))
    least = leaf.low if isinstance(leaf, gym.spaces.Box) else getattr(leaf, "start", 0)
    return bool(np.max(np.abs(least)) + np.max(np.abs(largest)) < 2**24)


def _kind(make: Callable[..., AbstractHead]) -> type[AbstractHead]:
    """The class that a partial of it, or it itself, makes."""
    kind = getattr(make, "func", make)
    assert isinstance(kind, type)
    return kind
