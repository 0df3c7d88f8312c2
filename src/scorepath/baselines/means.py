"""Baselines that are means of the batch's own returns."""

import torch
from torch import Tensor

from scorepath.baselines.base import AbstractBaseline
from scorepath.types import Episodes


class NoBaseline(AbstractBaseline):
    """b = 0."""

    def forward(self, episodes: Episodes, returns: Tensor) -> Tensor:
        return torch.zeros_like(returns)


class BatchMean(AbstractBaseline):
    """b = the mean return of all valid steps of the batch.

    Biased: it contains the sample itself, which shrinks the gradient by about 1 - 1/N; the direction stays.
    """

    bias = "the mean contains the sample itself"

    def forward(self, episodes: Episodes, returns: Tensor) -> Tensor:
        mean = (returns * episodes.valid).sum() / episodes.valid.sum()
        return mean.expand_as(returns)


class TimeMean(AbstractBaseline):
    """b_t of episode n = the mean return at time t of the other episodes that still run then, 0 if none does.

    Unbiased, for the other episodes know nothing of this one's actions (leave-one-out, Kool et al. 2019, for each time
    step). It takes out what all episodes have in common at a time: above all, that returns shrink towards a time limit,
    which a constant baseline mistakes for bad actions.

    Raises:
        ValueError: for a batch of one episode, which has no others.
    """

    min_episodes = 2

    def forward(self, episodes: Episodes, returns: Tensor) -> Tensor:
        if returns.shape[1] < 2:
            raise ValueError("The time_mean baseline needs at least two episodes: raise episodes_per_update.")
        dtype, returns = returns.dtype, (returns * episodes.valid).double()  # equal returns leave exactly 0
        others = episodes.valid.sum(dim=1, keepdim=True) - episodes.valid.long()
        return ((returns.sum(dim=1, keepdim=True) - returns) / others.clamp(min=1)).to(dtype)
