"""Returns and advantages: pure functions, differentiable in the rewards, over the valid steps of a batch."""

from functools import lru_cache

import torch
from torch import Tensor, nn

_BLOCK = 128  # rows of one triangular product: O(_BLOCK) work a step, and a matrix that stays in the cache


@lru_cache(maxsize=16)
def _discounts(discount: float, device: torch.device) -> Tensor:
    """Upper triangular (_BLOCK, _BLOCK) matrix of discount^(j - i), float64."""
    with torch.inference_mode(False):  # a cached inference tensor could never be used in a gradient again
        steps = torch.arange(_BLOCK, dtype=torch.float64, device=device)
        powers = (steps[None, :] - steps[:, None]).clamp(min=0)
        return torch.triu(discount**powers)


def discounts(steps: int, gamma: float) -> Tensor:
    """γ^t for t = 0 .. steps - 1, (steps, 1) float64."""
    return gamma ** torch.arange(steps, dtype=torch.float64).unsqueeze(1)


def discounted_sum(x: Tensor, discount: float) -> Tensor:
    """y_t = Σ_{k≥t} discount^{k-t} x_k.

    A product with a triangular matrix, block by block from the end: the recursion y_t = x_t + discount · y_{t+1} in
    T / 128 steps instead of T, with the same gradient.

    Args:
        x: (T, N).
        discount: in [0, 1].

    Returns:
        (T, N).
    """
    matrix = _discounts(discount, x.device)
    # In float64: episodes of equal rewards must have equal returns to the bit. A matrix product may sum two columns
    # in two orders, and whitening would blow the rounding errors up to a full-sized signal when nothing else differs.
    dtype, x = x.dtype, x.double()
    blocks: list[Tensor] = []
    following = x.new_zeros(x.shape[1:])
    for start in reversed(range(0, len(x), _BLOCK)):
        block = x[start : start + _BLOCK]
        rows = len(block)
        # discount^(rows - i) for row i: one more than the last column, which holds discount^(rows - 1 - i)
        carried = discount * matrix[:rows, rows - 1 : rows] * following
        blocks.append(matrix[:rows, :rows] @ block + carried)
        following = blocks[-1][0]
    return torch.cat(blocks[::-1]).to(dtype)


def reward_to_go(rewards: Tensor, is_last: Tensor, gamma: float, last_values: Tensor | None = None) -> Tensor:
    """G_t = Σ_{k≥t} γ^{k-t} r_k + γ^{L-t} V(o_L).

    Args:
        rewards: (T, N), zero where not valid.
        is_last: (T, N) bool, the last valid step of each column.
        gamma: discount in [0, 1].
        last_values: (N,), V(o_L), the value of what follows the last valid step: zero after a termination, a bootstrap
            after a truncation or at the end of a window (Pardo et al. 2018, arXiv:1712.00378). None is zero.

    Returns:
        (T, N); zero where not valid.
    """
    if last_values is not None:
        rewards = rewards + is_last * (gamma * last_values)
    return discounted_sum(rewards, gamma)


def total_return(
    rewards: Tensor, valid: Tensor, is_last: Tensor, gamma: float, last_values: Tensor | None = None
) -> Tensor:
    """G_0 at every valid step: R(τ), the factor of the plain REINFORCE estimator (Williams 1992).

    Args and shapes as in `reward_to_go`; `valid` is (T, N) bool.
    """
    return reward_to_go(rewards, is_last, gamma, last_values)[:1] * valid


def generalized_advantage(
    rewards: Tensor,
    values: Tensor,
    valid: Tensor,
    is_last: Tensor,
    gamma: float,
    gae_lambda: float,
    last_values: Tensor | None = None,
) -> Tensor:
    """A_t = Σ_{k≥t} (γλ)^{k-t} δ_k, δ_t = r_t + γ V(o_{t+1}) - V(o_t) (Schulman et al. 2016, arXiv:1506.02438, eq. 16).

    The sums stop at each episode's last valid step L, whose successor's value is V(o_L): λ = 1 gives
    `reward_to_go(..., last_values)` less the values.

    Args:
        rewards: (T, N), zero where not valid.
        values: (T, N), V(o_t); anything where not valid.
        valid, is_last: (T, N) bool.
        gamma, gae_lambda: γ and λ, in [0, 1].
        last_values: (N,), zero after a termination; None is zero.

    Returns:
        (T, N); zero where not valid.
    """
    values = torch.where(valid, values, 0.0)
    following = torch.cat((values[1:], torch.zeros_like(values[:1])))
    if last_values is not None:
        following = torch.where(is_last, last_values, following)
    return discounted_sum(torch.where(valid, rewards + gamma * following - values, 0.0), gamma * gae_lambda)


def whiten(x: Tensor, valid: Tensor, *, per_episode: bool = False) -> Tensor:
    """(x - mean) / standard deviation of the valid entries; zero where not valid, and zero if all are equal.

    Both moments contain the sample itself, so a policy gradient with whitened returns is biased. Moments of the batch
    keep its direction in the limit of many episodes, though not its length. Moments of each episode keep neither: they
    take out of its advantages how it compares with other episodes, and all there is of an episode of one step.

    Args:
        x: (T, N).
        valid: (T, N) bool.
        per_episode: moments of each column, instead of the batch.

    Returns:
        (T, N).
    """
    dims = (0,) if per_episode else (0, 1)
    number = valid.sum(dim=dims).clamp(min=1)
    x = torch.where(valid, x, 0.0)
    mean = x.sum(dim=dims) / number
    deviation = (((x - mean) * valid).square().sum(dim=dims) / number).sqrt()
    # a relative floor: rounding noise of a constant batch must not be blown up to unit variance
    floor = 1e-6 * (1.0 + mean.abs())
    return torch.where(valid & (deviation > floor), (x - mean) / deviation.clamp(min=floor), torch.zeros_like(x))


class RunningMoments(nn.Module):
    """Mean and standard deviation of all batches so far, the latest weighing most.

    Batch j of k weighs decay^(k-j), all of them divided by their sum: a plain average at first, an exponential one
    later (the correction of Kingma & Ba 2015, section 3). The sums are a buffer: they travel in checkpoints.

    Args:
        decay: in [0, 1); 0 remembers the latest batch alone.

    Raises:
        ValueError: for another decay.
    """

    sums: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay} must be at least 0 and below 1.")
        self.decay = decay
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64))  # of weights, weighed means and mean squares

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Takes in a batch x (B,)."""
        x = x.double()
        new = torch.stack((torch.ones_like(x[0]), x.mean(), x.square().mean()))
        self.sums.copy_(self.decay * self.sums + new)

    @property
    def mean(self) -> Tensor:
        """(), float64; 0 before the first batch."""
        return self.sums[1] / self.sums[0].clamp(min=1.0)

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, (), float64; 0 before the first batch and of batches that are all one number."""
        variance = self.sums[2] / self.sums[0].clamp(min=1.0) - self.mean.square()
        # below the floor it is the rounding error of a difference of squares
        floor = (1e-6 * (1.0 + self.mean.abs())).square()
        return torch.where(variance > floor, variance.clamp(min=0.0).sqrt(), 0.0)


def explained_variance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - Var(target - prediction) / Var(target), (); zero if the target does not vary.

    Args:
        prediction: (B,).
        target: (B,).
    """
    variance = target.var(correction=0)
    unexplained = (target - prediction).var(correction=0)
    # a constant target's variance is its rounding error
    varies = variance > (1e-6 * target.mean()).square()
    return torch.where(varies, 1.0 - unexplained / variance, torch.zeros_like(variance))
