"""When a setting is given up: its mean over all seeds will not be the best one any more, by what is known so far.

Every setting is run on the same seeds, one after the other. Let x_i be its values on the first k of n seeds, b_i those
of the best setting that has all n, d_i = x_i - b_i (larger is better). If the d_i come from one normal distribution,
the mean of all n of them, of which k are known, is above 0 with the probability that Student's t with the degrees of
freedom of s is above

    -mean(d_1..d_k) / (s sqrt((n - k) / (k n))),

the paired t test with the correction for a finite number of seeds. A setting is given up where this probability is
below 2.5 %. A few differences do not show their own spread, so that s² is taken from them and from the differences of
all earlier settings together, as far as these have been run: each about its own setting's mean.

The signed ranks of Wilcoxon (Optuna's WilcoxonPruner) ask for no normal distribution and use no spread. Three values
can then never be below 10 %, so that with five seeds a hopeless setting is run on four.
"""

import math
from collections.abc import Iterable, Sequence

from scorepath.intervals import t95

FIRST = 2  # seeds before which nothing is given up: one bad seed, as they happen, is no evidence


def is_hopeless(values: Sequence[float], best: Sequence[float], others: Iterable[Sequence[float]]) -> bool:
    """Whether a setting's mean over all seeds will hardly be above the best one's.

    Args:
        values: (k,) on the first seeds, larger is better.
        best: (n,) of the best setting on all seeds.
        others: (m,) of each earlier setting but the best on its first m seeds.
    """
    k, n = len(values), len(best)
    if k < FIRST or k >= n:
        return False
    differences = _differences(values, best)
    mean = sum(differences) / k
    rows = [differences, *(_differences(other, best) for other in others)]
    freedom = sum(len(row) - 1 for row in rows)
    spread = math.sqrt(sum(map(_squares, rows)) / freedom)
    return -mean > t95(freedom) * spread * math.sqrt((n - k) / (k * n))


def _differences(values: Sequence[float], best: Sequence[float]) -> list[float]:
    return [value - reference for value, reference in zip(values, best, strict=False)]


def _squares(row: Sequence[float]) -> float:
    """The sum of squares about the mean."""
    mean = sum(row) / len(row)
    return sum((value - mean) ** 2 for value in row)
