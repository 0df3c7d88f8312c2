"""Baselines that are numbers, or means of returns."""

import math

import torch
from torch import Tensor

from scorepath.baselines.base import AbstractBaseline
from scorepath.policy import Policy
from scorepath.returns import RunningMoments
from scorepath.types import Episodes


class NoBaseline(AbstractBaseline):
    """b = 0."""

    is_zero = True

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        return torch.zeros_like(returns)


class Constant(AbstractBaseline):
    """b = a number (Williams 1992). Unbiased, whatever the number.

    Args:
        value: the number, in units of the returns.

    Raises:
        ValueError: if it is not finite.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        if not math.isfinite(value):
            raise ValueError(f"value={value} must be a finite number.")
        self.value = value

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        return torch.full_like(returns, self.value)


class BatchMean(AbstractBaseline):
    """b = the mean return of all valid steps of the batch.

    Biased, for it contains the sample itself. Where all N episodes are equally long and each has one return (those of
    one step; or credit=total_return), the expected gradient is exactly 1 - 1/N of the true one. Elsewhere what is
    missing is no fixed share: under reward-to-go, 1/N of the gradient of the mean of an episode's returns; with lengths
    that depend on the actions, that of a ratio, and then the direction changes too.

    Args:
        correction: multiply the advantages by N / (N - 1). It makes the first case exact, for the advantages then are
            those of `LeaveOneOut`; the others stay biased.

    Raises:
        ValueError: at a call, for a correction of one episode.
    """

    def __init__(self, correction: bool = False) -> None:
        super().__init__()
        self.correction = correction
        own = "the mean contains the sample itself"
        self.bias = (f"{own}, corrected only for equally long episodes with one return each" if correction else own,)
        if correction:
            self.min_episodes = 2

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        mean = (returns * episodes.valid).sum() / episodes.valid.sum()
        return mean.expand_as(returns)

    def advantages(self, episodes: Episodes, returns: Tensor, gamma: float, policy: Policy) -> Tensor:
        advantages = super().advantages(episodes, returns, gamma, policy)
        if self.correction:
            number = _several(episodes, "corrected batch_mean")
            advantages = advantages * (number / (number - 1))
        return advantages


class LeaveOneOut(AbstractBaseline):
    """b of episode n = the mean return G_0 of the other episodes, at all its steps (Kool et al. 2019, section 3).

    Unbiased, for the other episodes know nothing of this one's actions. Made for credit=total_return: returns that
    shrink towards the end of an episode are better served by `TimeMean`.

    Raises:
        ValueError: for a batch of one episode, which has no others.
    """

    min_episodes = 2

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        _several(episodes, "leave_one_out")
        return _mean_of_others(returns[:1], episodes.valid[:1]).expand_as(returns)


class TimeMean(AbstractBaseline):
    """b_t of episode n = the mean return at time t of the other episodes that still run then, 0 if none does.

    Unbiased, for the other episodes know nothing of this one's actions (leave-one-out, Kool et al. 2019, for each time
    step). It takes out what all episodes have in common at a time: above all, that returns shrink towards a time limit,
    which a constant baseline mistakes for bad actions.

    Raises:
        ValueError: for a batch of one episode, which has no others.
    """

    min_episodes = 2

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        _several(episodes, "time_mean")
        return _mean_of_others(returns, episodes.valid)


class MovingAverage(AbstractBaseline):
    """b = the mean return of the valid steps of earlier batches, a batch k updates ago weighing decay^k; 0 at first.

    Unbiased, for it knows only batches that are not this one.

    Args:
        decay: in [0, 1).

    Raises:
        ValueError: for another decay.
    """

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.moments = RunningMoments(decay)

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        return self.moments.mean.to(returns).expand_as(returns)

    def fit(self, episodes: Episodes, returns: Tensor, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
        self.moments.update(returns.detach()[episodes.valid])
        return {}


def _several(episodes: Episodes, option: str) -> int:
    """N; refused by ValueError below 2."""
    number = episodes.valid.shape[1]
    if number < 2:
        raise ValueError(f"The {option} baseline needs at least two episodes: raise episodes_per_update.")
    return number


def _mean_of_others(x: Tensor, valid: Tensor) -> Tensor:
    """Each row's mean over the valid entries of the other columns, (T, N) -> (T, N); 0 where there are none."""
    dtype, x = x.dtype, (x * valid).double()  # equal returns leave exactly 0
    others = valid.sum(dim=1, keepdim=True) - valid.long()
    return ((x.sum(dim=1, keepdim=True) - x) / others.clamp(min=1)).to(dtype)
