"""The 95 % interval of a mean return over evaluation episodes, which are often alike but for a few.

A t interval takes the mean for normal. Where nearly all episodes return the most there is, a hundred of them hold too
few of the others for that: the interval misses the mean far more often than one time in twenty, or goes beyond what can
be returned. So where the range of a return is known, its bounds are used for the episodes that were not seen.

How often the interval holds the mean, in %, and in brackets its mean width over that of t (4,000 samples of n each):

| returns                           | range      | n = 10       | n = 30       | n = 100      | t alone       |
|-----------------------------------|------------|--------------|--------------|--------------|---------------|
| normal                            | unknown    | 94.8 (1.07)  | 95.3 (1.00)  | 94.6 (1.00)  | 95, 95, 95    |
| uniform                           | unknown    | 97.2 (1.04)  | 96.2 (1.00)  | 95.7 (1.00)  | 95, 95, 95    |
| uniform in [0, 1]                 | 0 to 1     | 99.7 (1.04)  | 97.8 (1.09)  | 97.0 (1.07)  | 95, 95, 95    |
| exponential                       | unknown    | 93.2 (1.52)  | 94.5 (1.20)  | 95.0 (1.04)  | 89, 93, 94    |
| lognormal(0, .5)                  | unknown    | 93.2 (1.36)  | 95.0 (1.13)  | 94.0 (1.03)  | 92, 94, 94    |
| lognormal(0, 1.5)                 | unknown    | 85.8 (1.93)  | 90.5 (1.94)  | 91.1 (1.80)  | 71, 79, 85    |
| near-solved, 3 % of 20..500       | 1 to 500   | 99.0 (5.23)  | 99.0 (2.73)  | 98.7 (1.57)  | 25, 54, 83    |
| near-solved, 1 % of 200           | 1 to 500   | 99.7 (11.90) | 99.7 (5.61)  | 98.2 (2.40)  | 10, 25, 63    |
| near-solved, without its range    | unknown    | 25.9 (1.95)  | 57.3 (2.03)  | 91.0 (2.15)  | 25, 54, 83    |
| 0 or 1, even odds                 | 0 to 1     | 98.1 (0.84)  | 96.0 (0.99)  | 96.5 (1.02)  | 98, 96, 94    |
| 0 or 1, without its range         | unknown    | 99.9 (1.15)  | 98.6 (1.00)  | 96.5 (1.00)  | 98, 96, 94    |
| as Pendulum's                     | -3255 to 0 | 99.9 (8.14)  | 99.1 (5.91)  | 98.4 (3.70)  | 95, 95, 95    |
| as Pendulum's, without its range  | unknown    | 96.0 (1.10)  | 94.9 (1.01)  | 95.2 (1.00)  | 95, 95, 95    |
| all equal                         | 1 to 500   | 100          | 100          | 100          | 100, 100, 100 |

With a range, all shapes tried have 95 %. It costs width: the interval leaves room for what n episodes cannot exclude,
a share of about 3.7 / n of them at the far bound, and is wide where that is far. Without a range, nothing can hold what
it has never seen: near-solved tasks have no interval of 95 % then, at n = 10 not even of 30 %, and a tail as heavy as
that of lognormal(0, 1.5) has 86 to 91 %.
"""

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from scorepath.rollout import Evaluation

log = logging.getLogger("scorepath")

_TAIL = 0.025  # on each side
_ROUNDING = 1e-5  # relative: a sum of float32 rewards may miss its bound by so much
_STEP = 0.1  # of the trapezoidal rule in log u, whose error falls exponentially with 1 / step
_NODES = np.exp(np.arange(-12.0, 20.0, _STEP))
_BLOCK = 64
# two-sided 95 % quantiles of Student's t for 1..30 degrees of freedom (scipy would cost a second to import)
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t95(degrees_of_freedom: int) -> float:
    """Quantile of Student's t for a two-sided 95 % interval (three digits; a series beyond 30 degrees)."""
    if degrees_of_freedom < 1:
        return math.nan
    if degrees_of_freedom <= len(_T95):
        return _T95[degrees_of_freedom - 1]
    z = 1.959964
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees_of_freedom + second / degrees_of_freedom**2  # Abramowitz & Stegun 26.7.5


def mean_ci95(values: Tensor) -> tuple[float, list[float] | None]:
    """Mean and its 95 % t interval [low, high] over independent values (n,); no interval for n = 1."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None
    half = t95(len(values) - 1) * float(values.std()) / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def return_ci95(evaluation: "Evaluation", warn: bool = True) -> tuple[float, list[float] | None]:
    """Mean return of an evaluation and its 95 % interval [low, high]; no interval where nothing can be said.

    The range that the environment declares is not used if returns are outside of it.

    Args:
        evaluation: its episodes.
        warn: of such returns.
    """
    returns = evaluation.returns.double()
    bounds = evaluation.return_range
    if bounds is not None:
        low, high = bounds
        slack = _ROUNDING * max(abs(low), abs(high))
        if float(returns.min()) < low - slack or float(returns.max()) > high + slack:
            if warn:
                log.warning(
                    "Returns from %g to %g are outside of %g to %g, which is what the declared reward_range leaves for "
                    "an episode: the 95 %% interval is computed without it. Set env.reward_range to what one step can "
                    "pay.",
                    *(float(returns.min()), float(returns.max()), low, high),
                )
            bounds = None
    return float(returns.mean()), interval95(returns, bounds)


def evaluation_metrics(evaluation: "Evaluation") -> dict[str, float]:
    """What is logged of an evaluation; NaN where nothing can be said."""
    returns = evaluation.returns
    low, high = return_ci95(evaluation, warn=False)[1] or (math.nan, math.nan)
    return {
        "eval/return_mean": float(returns.mean()),
        "eval/return_low": low,
        "eval/return_high": high,
        "eval/return_std": float(returns.std()) if len(returns) > 1 else math.nan,
        "eval/episode_length_mean": float(evaluation.lengths.float().mean()),
    }


def interval95(values: Tensor, bounds: tuple[float, float] | None = None) -> list[float] | None:
    """95 % interval [low, high] of the mean of independent values (n,), which need not be normal.

    With bounds, by Gaffke (2005; Learned-Miller & Thomas 2019, arXiv:1905.06208): with weights U ~ Dirichlet(1, ..., 1)
    over the n values and the lower bound, low is the 2.5 % quantile of their weighted mean; high likewise with the
    upper bound. Of values at the bounds alone it is Clopper and Pearson's interval; of many values that fill the range
    it is that of t. That it always holds is a conjecture to which no counterexample is known.

    Without, by Hall (1992, JRSS B 54:221): the t interval, with a cubic of the studentised mean that takes out its
    skewness; none if all values are equal, since they do not show how rare others are.

    Args:
        values: (n,).
        bounds: the least and the most that a value can be.

    Returns:
        None for one value too.
    """
    x = values.detach().cpu().double().numpy()
    if len(x) < 2:
        return None
    if bounds is None:
        return _hall(x)
    low, high = bounds
    x = np.clip(x, low, high)
    return [_weighted_quantile(np.append(x, low), _TAIL), _weighted_quantile(np.append(x, high), 1.0 - _TAIL)]


def _hall(x: np.ndarray) -> list[float] | None:
    n, mean = len(x), x.mean()
    deviations = x - mean
    deviation = math.sqrt(np.square(deviations).mean())
    if deviation <= 1e-12 * np.abs(x).max():
        return None
    skewness = float((deviations**3).mean()) / deviation**3 / math.sqrt(n)
    error, quantile = deviation / math.sqrt(n - 1), t95(n - 1)

    def unskewed(y: float) -> float:
        """The w with w + γ w² / 3 + γ² w³ / 27 + γ / 6 = y, γ the skewness of a mean of n."""
        if abs(skewness) < 1e-6:
            return y
        return 3.0 / skewness * (float(np.cbrt(1.0 + skewness * (y - skewness / 6.0))) - 1.0)

    return [float(mean - error * unskewed(quantile)), float(mean - error * unskewed(-quantile))]


def _weighted_quantile(x: np.ndarray, probability: float) -> float:
    """Quantile of Σ U_i x_i for U ~ Dirichlet(1, ..., 1), by regula falsi (Illinois)."""
    points, counts = np.unique(x, return_counts=True)
    mean = float(points @ counts) / len(x)
    deviation = math.sqrt(float(np.square(points - mean) @ counts) / (len(x) * (len(x) + 1)))
    # the one-sided Chebyshev inequality; farther out the integrand would swing faster than the nodes
    reach = deviation * math.sqrt((1.0 - _TAIL) / _TAIL)
    low, high = max(float(points[0]), mean - reach), min(float(points[-1]), mean + reach)
    below, above, kept = -probability, 1.0 - probability, 0
    tolerance = 1e-7 * (high - low)
    middle = mean + (1.96 if probability > 0.5 else -1.96) * deviation
    while high - low > tolerance:
        if not low < middle < high:
            middle = (low + high) / 2.0
        value = 1.0 - _probability_above(points, counts, middle) - probability
        if abs(value) < 1e-6:
            return middle
        if value < 0.0:
            low, below, above = middle, value, above / 2.0 if kept < 0 else above
            kept = -1
        else:
            high, above, below = middle, value, below / 2.0 if kept > 0 else below
            kept = 1
        middle = (low * above - high * below) / (above - below)
    return (low + high) / 2.0


def _probability_above(points: np.ndarray, counts: np.ndarray, threshold: float) -> float:
    """P(Σ U_i x_i > t) = P(Σ E_i (x_i - t) > 0), E_i exponential with mean 1, from the characteristic function:

    1/2 + 1/π ∫_0^∞ sin(Σ_i arctan(u λ_i)) Π_i (1 + u² λ_i²)^(-1/2) du / u, λ_i = x_i - t (Gil-Pelaez 1951; Imhof 1961).
    """
    rates = points - threshold
    rates = rates / math.sqrt(float(counts @ np.square(rates)))
    total = 0.0
    for start in range(0, len(_NODES), _BLOCK):
        products = np.outer(_NODES[start : start + _BLOCK], rates)
        sizes = np.exp(-0.5 * (np.log1p(np.square(products)) @ counts))
        total += float(np.sin(np.arctan(products) @ counts) @ sizes)
        if sizes[-1] < 1e-12:
            break
    return 0.5 + _STEP / math.pi * total
