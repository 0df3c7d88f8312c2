"""Episodes played for their returns alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorepath.envs.base import AbstractEnvironment
from scorepath.policy import Policy
from scorepath.rollout.episodes import rollout


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Episodes played for their returns alone."""

    returns: Tensor  # (episodes,) undiscounted
    lengths: Tensor  # (episodes,) int64
    return_range: tuple[float, float] | None = None  # that the environment can return, where known


def evaluate(
    env: AbstractEnvironment,
    policy: Policy,
    seeds: Iterator[int],
    episodes: int,
    *,
    deterministic: bool = False,
) -> Evaluation:
    """Plays `episodes` whole episodes, `env.num_episodes` at a time.

    Args:
        seeds: one for each round; the caller seeds torch.
        episodes: how many; of the last round only as many as are left count, chosen by index, not by length.
    """
    returns, lengths = [], []
    for _ in range(-(-episodes // env.num_episodes)):
        batch = rollout(env, policy, next(seeds), deterministic=deterministic)
        returns.append(batch.episode_returns)
        lengths.append(batch.lengths)
    played = torch.cat(returns)[:episodes].cpu(), torch.cat(lengths)[:episodes].cpu()
    return Evaluation(*played, env.return_range)
