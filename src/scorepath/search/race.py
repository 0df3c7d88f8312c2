"""When a setting is given up: its mean over all seeds will not be the best one any more, by what is known so far.

Every setting is run on the same seeds, one after the other. Let x_i be its values on the first k of n seeds, b_i those
of the best setting, which has all n (larger is better), B their mean, and bars means over the first k. A seed may be
an easy one for all settings, or mean nothing but chance, so that b_i is a covariate of x_i with a slope c that is
estimated, by least squares within settings, from the values of all settings so far. Expected is then

    X = x̄ + c (B - b̄),

and if what is left over is normal with the spread s, the mean over all n seeds, of which k are known, is above B with
the probability that Student's t with the degrees of freedom of s is above

    (B - X) / (s sqrt((n - k) / (k n) + (B - b̄)² / Q)),

where Q is the sum of the squares of b about its mean in each setting: what c is uncertain by. A setting is given up
where this probability is below 2.5 %. With c = 1 known, it would be the paired t test with the correction for a finite
number of seeds; where the best setting's values say nothing about others', c is near 0, and their noise is left out.
One value does not show its own spread, so that s² and c are those of all settings so far together.

The signed ranks of Wilcoxon (Optuna's WilcoxonPruner) ask for no normal distribution and use no spread. Three values
can then never be below 10 %, so that with five seeds a hopeless setting is run on four.
"""

import math
from collections.abc import Iterable, Sequence

from scorepath.intervals import t95


def is_hopeless(values: Sequence[float], best: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
    """Whether a setting's mean over all seeds will hardly be above the best one's.

    Args:
        values: (k,) on the first seeds, larger is better.
        best: (n,) of the best setting on all seeds.
        others: (m,) of each earlier setting but the best on its first m seeds.
    """
    k, n = len(values), len(best)
    rows = [values, *others]
    freedom = sum(len(row) - 1 for row in rows) - 1  # one is the slope's
    if k >= n or freedom < 1:
        return False
    squares = sum(_product(row, row) for row in rows)
    shared = sum(_product(row, best[: len(row)]) for row in rows)
    of_best = sum(_product(best[: len(row)], best[: len(row)]) for row in rows)
    ahead = _mean(best) - _mean(best[:k])
    slope, uncertain = (shared / of_best, ahead**2 / of_best) if of_best > 0 else (0.0, 0.0)
    spread = math.sqrt(max(squares - slope * shared, 0.0) / freedom)
    expected = _mean(values) + slope * ahead
    return _mean(best) - expected > t95(freedom) * spread * math.sqrt((n - k) / (k * n) + uncertain)


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    """The sum of products about the means."""
    first, second = _mean(one), _mean(other)
    return sum((x - first) * (y - second) for x, y in zip(one, other, strict=True))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
