"""Is the mean of K gradients the exact one? Hotelling's T², its power, and the usual figures of an estimator.

Samples are (K, P): K independent gradients of P entries, each the mean over a batch of episodes, so that the central
limit theorem has made them nearly normal. scipy comes with the extra `verify`.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_EXACT = 1e-6  # relative: how well what has no variance must agree
_FLAT = 1e-9  # a standard deviation below this share of the entry's own size is rounding
_ROUNDING = 1e-12  # and so is one below this share of the largest entry


@dataclass(frozen=True, slots=True)
class Hotelling:
    """T² of one test."""

    t2: float
    p_value: float  # of T², exact for normal samples
    dimensions: int  # that were tested, the rank of the covariance
    unseen: bool = False  # entries, or combinations of them, did not vary and are not as expected

    def differs(self, alpha: float) -> bool:
        """Whether the mean is not the expected one, at level alpha or where nothing varied."""
        return self.p_value < alpha or self.unseen


def hotelling(samples: Tensor, expected: Tensor) -> Hotelling:
    """Tests E[samples] = expected: T² = K (m - e)ᵀ S⁻¹ (m - e), and T² (K - r) / (r (K - 1)) ~ F(r, K - r).

    Where the covariance S is singular (softmax logits may shift together; a path may have no noise), T² is that of its
    range, of rank r. The directions without variance are not in p: where they disagree by more than a relative 1e-6,
    they are `unseen`. K equal samples show only that others are rarer than about log(1/alpha) / K, and no mean is
    refuted without a bound on how large those are. If r is over K / 2, K / 2 directions are tested instead, the
    expected gradient's and fixed random ones, for a test of too many has no power.

    The false-alarm rate is alpha for normal samples. It is not where events are rare: of three entries that are m with
    probability q, else 0, at alpha = 1e-6, it is up to 0.02 where K q is 5 to 20 and one or two events came instead
    (simulated, K = 100 and 1,000). With a noise of 1e-3 m beside them it is up to 1, for then no event is a precise
    mean. `check` therefore asks for more than one sample before it fails anything: `judge`.

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
    white = _whiten(samples, expected, samples.mean(dim=0) - expected)
    rank, unseen = len(white.coordinates), bool(white.unseen.any())
    if rank == 0:
        return Hotelling(0.0, 1.0, 0, unseen)
    t2 = number * float(white.coordinates.square().sum())
    return Hotelling(t2, float(f.sf(t2 * (number - rank) / (rank * (number - 1)), rank, number - rank)), rank, unseen)


def disputed(samples: Tensor, expected: Tensor) -> Tensor:
    """The combination of entries (P,) that `hotelling` rests on: the unseen one if there is one, else S⁻¹ (m - e).

    Args:
        samples: (K, P).
        expected: (P,).
    """
    white = _whiten(samples, expected, samples.mean(dim=0) - expected)
    return white.unseen if bool(white.unseen.any()) else white.axes @ white.coordinates


def is_seen(control: Tensor, expected: Tensor, direction: Tensor, fewest: float) -> bool:
    """Whether the samples of an estimator known to be unbiased show what a combination of entries depends on.

    They do if it varies in enough of them, by the effective number (Σ d²)² / Σ d⁴ of its deviations d from the mean:
    K / 3 for normal samples, c for c events in K. And they do if it never varies and is exact: then nothing is missing.

    Args:
        control: (K, P).
        expected: (P,), the exact mean.
        direction: (P,), the combination.
        fewest: samples that are enough.
    """
    values = control @ direction
    scale = float((control.abs() @ direction.abs()).mean() + expected.abs() @ direction.abs())
    squares = (values - values.mean()).square()
    if float(squares.mean().sqrt()) <= _FLAT * scale:
        return abs(float(values.mean() - expected @ direction)) <= _EXACT * scale
    return float(squares.sum().square() / squares.square().sum()) >= fewest


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


class _White(NamedTuple):
    """A vector in coordinates in which the samples have unit covariance."""

    coordinates: Tensor  # (r,), the vector's
    axes: Tensor  # (P, r), samples @ axes are the samples'
    unseen: Tensor  # (P,), the combination of entries that never varies, but in which the vector is not 0; else 0


def _whiten(samples: Tensor, expected: Tensor, vector: Tensor) -> _White:
    """Coordinates of a vector.

    Args:
        samples: (K, P).
        expected: (P,), of which rounding is a fraction.
        vector: (P,).
    """
    number, entries = samples.shape
    basis = None
    if entries > number // 2:
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(entries, number // 2, generator=generator, dtype=samples.dtype)
        if expected.norm() > 0:
            basis[:, 0] = expected / expected.norm()
        samples, expected, vector = samples @ basis, expected @ basis, vector @ basis
    mean, std = samples.mean(dim=0), samples.std(dim=0)
    varies, scale = varying(mean, expected, std)
    unseen = torch.where(~varies & (vector.abs() > _EXACT * scale), vector, 0.0)
    std, scale = std[varies], scale[varies]
    scaled = (samples - mean)[:, varies] / std
    values, directions = torch.linalg.eigh(scaled.T @ scaled / (number - 1))
    kept = values > 1e-10 * max(1, len(values))
    coordinates = (vector[varies] / std) @ directions
    allowed = (_EXACT * (1.0 + scale / std)) @ directions.abs()
    missed = torch.where(~kept & (coordinates.abs() > allowed), coordinates, 0.0)
    unseen[varies] = (directions @ missed) / std
    axes = torch.zeros(len(vector), int(kept.sum()), dtype=samples.dtype)
    axes[varies] = directions[:, kept] / values[kept].sqrt() / std.unsqueeze(1)
    if basis is not None:
        axes, unseen = basis @ axes, basis @ unseen
    return _White(coordinates[kept] / values[kept].sqrt(), axes, unseen)


def power(noncentrality: float, dimensions: int, batches: int, alpha: float) -> float:
    """P(T² rejects at level alpha) when K (E - e)ᵀ Σ⁻¹ (E - e) = noncentrality, by the noncentral F distribution."""
    from scipy.special import ncfdtr  # noqa: PLC0415
    from scipy.stats import f  # noqa: PLC0415

    critical = f.isf(alpha, dimensions, batches - dimensions)
    return 1.0 - float(ncfdtr(dimensions, batches - dimensions, noncentrality, critical))


def signal(samples: Tensor, exact: Tensor) -> tuple[float, int]:
    """exactᵀ Σ⁻¹ exact, estimated without bias from (K, P) samples, and the rank of Σ.

    Infinite where the exact gradient has a part without variance, if the samples are exact there. If they are not, what
    they lack is too rare for them to show its variance, and the answer is 0.
    """
    white = _whiten(samples, exact, exact)
    number, rank = samples.shape[0], len(white.coordinates)
    if bool(white.unseen.any()):
        unseen = bool(_whiten(samples, exact, samples.mean(dim=0) - exact).unseen.any())
        return 0.0 if unseen else math.inf, rank
    # E[S⁻¹] = Σ⁻¹ (K - 1) / (K - r - 2) for normal samples
    return float(white.coordinates.square().sum()) * max(0.0, number - rank - 2) / (number - 1), rank


def batches_needed(samples: Tensor, exact: Tensor, *, bias: float, wanted: float, alpha: float) -> int:
    """The least number of batches with which a gradient of (1 + bias) times the exact one is flagged.

    Args:
        samples: (K, P), of a pilot.
        exact: (P,).
        bias: relative.
        wanted: probability of the flag, the power.
        alpha: false-alarm rate.
    """
    strength, rank = signal(samples, exact)
    strength *= bias**2
    if math.isinf(strength):
        return rank + 4
    if strength == 0.0:
        return 2**62  # no number of batches shows a bias of nothing, and none is known where the pilot saw nothing

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
