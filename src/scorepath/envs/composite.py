"""Dict and Tuple spaces as flat rows of numbers: the leaves of the tree, one after the other."""

from typing import Any

import gymnasium as gym
import numpy as np


def leaves(space: gym.Space) -> list[gym.Space]:
    """The spaces of a tree that are neither Dict nor Tuple, in the order of their keys or places."""
    if isinstance(space, gym.spaces.Dict):
        return [leaf for child in space.spaces.values() for leaf in leaves(child)]
    if isinstance(space, gym.spaces.Tuple):
        return [leaf for child in space.spaces for leaf in leaves(child)]
    return [space]


def width(space: gym.Space) -> int:
    """Numbers in one flat row of a space."""
    return sum(int(np.prod(leaf.shape or ())) for leaf in leaves(space))


def nest(space: gym.Space, rows: np.ndarray) -> Any:
    """Flat rows (N, width) -> the tree of batched arrays that Gymnasium's vector environments take."""
    if isinstance(space, gym.spaces.Dict):
        return dict(zip(space.spaces, _split(list(space.spaces.values()), rows), strict=True))
    if isinstance(space, gym.spaces.Tuple):
        return tuple(_split(list(space.spaces), rows))
    return rows.reshape(len(rows), *(space.shape or ())).astype(space.dtype)


def _split(children: list[gym.Space], rows: np.ndarray) -> list[Any]:
    ends = np.cumsum([width(child) for child in children])
    return [nest(child, rows[:, end - width(child) : end]) for child, end in zip(children, ends, strict=True)]
