"""Product: Dict and Tuple action spaces, a head for each leaf."""

from collections.abc import Callable, Sequence

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.types import _size

from scorepath.distributions.base import AbstractHead
from scorepath.distributions.bernoulli import Bernoulli
from scorepath.distributions.categorical import Categorical
from scorepath.distributions.normal import Normal
from scorepath.envs.composite import leaves, width

USUAL: tuple[type[AbstractHead], ...] = (Bernoulli, Categorical, Normal)


class Product(AbstractHead):
    """p(a) = Π p(leaf): independent given the features. Nested Dict and Tuple spaces are trees of such leaves.

    A sample is one row of floats (A,), the leaves' own samples one after the other, in the order of `leaves`.

    Args:
        heads: constructors (action_space, in_features) -> head, as partials; the first that accepts a leaf acts in it.
            None takes Bernoulli, Categorical and Normal with their defaults.

    Raises:
        ValueError: if none of them accepts a leaf, or one acts in weights.
    """

    needs = "a Dict or Tuple action space of Discrete, MultiDiscrete, MultiBinary and floating Box spaces"
    has_rsample = False  # of an instance: whether all leaves have it

    def __init__(
        self,
        action_space: gym.Space,
        in_features: int,
        heads: Sequence[Callable[..., AbstractHead]] | None = None,
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, validate_args)
        chosen = []
        for leaf in leaves(action_space):
            make = next((make for make in heads or USUAL if _kind(make).accepts(leaf)), None)
            if make is None or _kind(make).acts_in_weights:
                raise ValueError(f"none of heads acts in {leaf}: add one that does.")
            chosen.append(make(action_space=leaf, in_features=in_features, validate_args=validate_args))
        self.heads = nn.ModuleList(chosen)
        self.has_rsample = all(head.has_rsample for head in chosen)
        self._widths = [width(leaf) for leaf in leaves(action_space)]

    @classmethod
    def accepts(cls, action_space: gym.Space) -> bool:
        """A tree whose leaves the usual heads can act in."""
        return isinstance(action_space, gym.spaces.Dict | gym.spaces.Tuple) and all(
            any(head.accepts(leaf) for head in USUAL) for leaf in leaves(action_space)
        )

    def forward(self, features: Tensor) -> Distribution:
        return ProductDistribution([head(features) for head in self.heads], self._widths)

    def to_env(self, action: Tensor) -> Tensor:
        """Rows (*B, A) of what the leaves' heads send, to be nested at the environment's boundary."""
        parts = self._parts(action)
        sent = [head.to_env(part) for head, part in zip(self.heads, parts, strict=True)]  # type: ignore[operator]
        return _join(sent, action.shape[:-1], action.dtype)

    def deterministic(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, ProductDistribution)
        pairs = zip(self.heads, dist.parts, strict=True)
        rows = [head.deterministic(part) for head, part in pairs]  # type: ignore[operator]
        return _join(rows, dist.batch_shape)

    def entropy(self, dist: Distribution) -> Tensor:
        assert isinstance(dist, ProductDistribution)
        pairs = zip(self.heads, dist.parts, strict=True)
        return torch.stack([head.entropy(part) for head, part in pairs]).sum(dim=0)  # type: ignore[operator]

    def _parts(self, action: Tensor) -> list[Tensor]:
        split = action.split(self._widths, dim=-1)
        shapes = [leaf.shape or () for leaf in leaves(self.action_space)]
        return [part.reshape((*action.shape[:-1], *shape)) for part, shape in zip(split, shapes, strict=True)]


class ProductDistribution(Distribution):
    """Independent distributions side by side, their events flattened into one row.

    Args:
        parts: with one batch_shape.
        widths: numbers in an event of each.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own form)

    def __init__(self, parts: Sequence[Distribution], widths: Sequence[int]) -> None:
        self.parts, self.widths = list(parts), list(widths)
        self.has_rsample = all(part.has_rsample for part in parts)
        super().__init__(self.parts[0].batch_shape, torch.Size([sum(widths)]), validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Rows (*sample_shape, *B, A)."""
        shape = torch.Size(sample_shape)
        return _join([part.sample(shape) for part in self.parts], shape + self.batch_shape)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Rows with their graph; NotImplementedError if a part has none."""
        if not self.has_rsample:
            raise NotImplementedError
        shape = torch.Size(sample_shape)
        return _join([part.rsample(shape) for part in self.parts], shape + self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The sum over the parts."""
        split = zip(self.parts, value.split(self.widths, dim=-1), strict=True)
        terms = [part.log_prob(rows.reshape((*value.shape[:-1], *part.event_shape))) for part, rows in split]
        return torch.stack(torch.broadcast_tensors(*terms)).sum(dim=0)


def _join(rows: Sequence[Tensor], batch: torch.Size, dtype: torch.dtype | None = None) -> Tensor:
    """Events of several parts as one row of floats."""
    floating = dtype or next((part.dtype for part in rows if part.is_floating_point()), torch.get_default_dtype())
    return torch.cat([part.reshape((*batch, -1)).to(floating) for part in rows], dim=-1)


def _kind(make: Callable[..., AbstractHead]) -> type[AbstractHead]:
    """The class that a partial, or a class itself, makes."""
    kind = getattr(make, "func", make)
    assert isinstance(kind, type)
    return kind
