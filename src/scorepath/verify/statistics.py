"""Is the mean of K gradients the exact one? Hotelling's T², its power, and the usual figures of an estimator.

Samples are (K, P): K independent gradients of P entries, each the mean over a batch of episodes, so that the central
limit theorem has made them nearly normal. scipy comes with the extra `verify`.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_EXACT = 1e-6  # relative: how well what has no variance must agree
_FLAT = 1e-9  # a standard deviation below this share of the entry's own size is rounding
_ROUNDING = 1e-12  # and so is one below this share of the largest entry


@dataclass(frozen=True, slots=True)
class Hotelling:
    """T² of one test."""

    t2: float
    p_value: float  # of T², exact for normal samples; 0 if entries without variance disagree
    dimensions: int  # that were tested statistically, the rank of the covariance


def hotelling(samples: Tensor, expected: Tensor) -> Hotelling:
    """Tests E[samples] = expected: T² = K (m - e)ᵀ S⁻¹ (m - e), and T² (K - r) / (r (K - 1)) ~ F(r, K - r).

    Where the covariance S is singular (softmax logits may shift together; a path may have no noise), T² is that of its
    range, of rank r, and the directions without variance must agree to a relative 1e-6. If r is over K / 2, K / 2
    directions are tested instead, the expected gradient's and fixed random ones, for a test of too many has no power.

    Args:
        samples: (K, P).
        expected: (P,).

    Raises:
        ValueError: for less than four samples.
    """
    from scipy.stats import f  # noqa: PLC0415 (scipy is an extra)

    number = len(samples)
    if number < 4:
        raise ValueError(f"a test needs at least 4 batches, but there are {number}.")
    difference, disagrees = _whiten(samples, expected, samples.mean(dim=0) - expected)
    rank = len(difference)
    t2 = number * float(difference.square().sum())
    if disagrees:
        return Hotelling(math.inf, 0.0, rank)
    if rank == 0:
        return Hotelling(0.0, 1.0, 0)
    return Hotelling(t2, float(f.sf(t2 * (number - rank) / (rank * (number - 1)), rank, number - rank)), rank)


def varying(mean: Tensor, expected: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Which entries (P,) vary beyond rounding, and the scale (P,) that rounding is a fraction of."""
    size = torch.stack((mean.abs(), expected.abs(), std)).amax(dim=0)
    largest = size.max() if len(size) else size.sum()
    return (std > _FLAT * size) & (std > _ROUNDING * largest), torch.maximum(size, _FLAT * largest)


def z_scores(mean: Tensor, expected: Tensor, std: Tensor, number: int) -> Tensor:
    """(mean - expected) / standard error of each entry, (P,); of one without variance 0 if it agrees, else infinite."""
    varies, scale = varying(mean, expected, std)
    difference = mean - expected
    certain = torch.where(difference.abs() <= _EXACT * scale, 0.0, math.inf * difference.sign())
    return torch.where(varies, difference * number**0.5 / std, certain)


def _whiten(samples: Tensor, expected: Tensor, vector: Tensor) -> tuple[Tensor, bool]:
    """A vector (P,) in coordinates in which the samples have unit covariance, (r,); and whether it also has a part
    beyond rounding where they have no variance.

    Args:
        samples: (K, P).
        expected: (P,), of which rounding is a fraction.
        vector: (P,).
    """
    number = len(samples)
    if samples.shape[1] > number // 2:
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(samples.shape[1], number // 2, generator=generator, dtype=samples.dtype)
        if expected.norm() > 0:
            basis[:, 0] = expected / expected.norm()
        samples, expected, vector = samples @ basis, expected @ basis, vector @ basis
    mean, std = samples.mean(dim=0), samples.std(dim=0)
    varies, scale = varying(mean, expected, std)
    flat = bool((vector.abs() > _EXACT * scale)[~varies].any())
    std, scale = std[varies], scale[varies]
    scaled = (samples - mean)[:, varies] / std
    values, directions = torch.linalg.eigh(scaled.T @ scaled / (number - 1))
    kept = values > 1e-10 * max(1, len(values))
    coordinates = (vector[varies] / std) @ directions
    allowed = (_EXACT * (1.0 + scale / std)) @ directions.abs()
    flat = flat or bool((coordinates.abs() > allowed)[~kept].any())
    return coordinates[kept] / values[kept].sqrt(), flat


def power(noncentrality: float, dimensions: int, batches: int, alpha: float) -> float:
    """P(T² rejects at level alpha) when K (E - e)ᵀ Σ⁻¹ (E - e) = noncentrality, by the noncentral F distribution."""
    from scipy.special import ncfdtr  # noqa: PLC0415
    from scipy.stats import f  # noqa: PLC0415

    critical = f.isf(alpha, dimensions, batches - dimensions)
    return 1.0 - float(ncfdtr(dimensions, batches - dimensions, noncentrality, critical))


def signal(samples: Tensor, direction: Tensor) -> tuple[float, int]:
    """directionᵀ Σ⁻¹ direction, estimated without bias from (K, P) samples, and the rank of Σ.

    Infinite where the direction has a part without variance.
    """
    white, flat = _whiten(samples, direction, direction)
    number, rank = samples.shape[0], len(white)
    # E[S⁻¹] = Σ⁻¹ (K - 1) / (K - r - 2) for normal samples
    strength = float(white.square().sum()) * max(0.0, number - rank - 2) / (number - 1)
    return math.inf if flat else strength, rank


def batches_needed(samples: Tensor, exact: Tensor, *, bias: float, wanted: float, alpha: float) -> int:
    """The least number of batches with which a gradient of (1 + bias) times the exact one is flagged.

    Args:
        samples: (K, P), of a pilot; their covariance alone is used.
        exact: (P,).
        bias: relative.
        wanted: probability of the flag, the power.
        alpha: false-alarm rate.
    """
    strength, rank = signal(samples, bias * exact)
    if math.isinf(strength):
        return rank + 4
    if strength == 0.0:
        return 2**62  # no number of batches shows a bias of nothing

    def enough(batches: int) -> bool:
        return power(batches * strength, rank, batches, alpha) >= wanted

    high = rank + 4
    while not enough(high):
        high *= 2
    low = max(rank + 3, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable_bias(samples: Tensor, exact: Tensor, *, wanted: float, alpha: float) -> float:
    """The relative bias that K batches flag with probability `wanted`."""
    strength, rank = signal(samples, exact)
    number = len(samples)
    if math.isinf(strength):
        return _EXACT
    if strength == 0.0:
        return math.inf
    low, high = 0.0, 1.0  # noncentralities
    while power(high, rank, number, alpha) < wanted:
        low, high = high, 2.0 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, rank, number, alpha) >= wanted else (middle, high)
    return math.sqrt(high / (number * strength))


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the angle between two vectors; NaN if one of them is zero."""
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else math.nan
