"""Estimators side by side: where variances cross, that they are the known ones, and the files that are written."""

import csv
import math

import pytest
from helpers import compare

from scorepath.jobs.compare_estimators import Point, crossings

SMALL = ("parts=[variance]", "folder=out", "batches=200", "episodes_per_update=16", "~sweeps.bell", "~sweeps.cosine")


def test_curves_cross_on_straight_lines_between_logarithms():
    """e^0, e^2 and e^1, e^1 cross half way, at e^1; curves that touch nowhere, or are zero, do not cross."""
    rising = [Point(1.0, 0.0), Point(math.exp(2.0), 0.0)]
    level = [Point(math.exp(1.0), 0.0)] * 2
    ((first, second, x, y),) = crossings([4.0, 6.0], {"rising": rising, "level": level})
    assert (first, second) == ("rising", "level")
    assert x == pytest.approx(5.0)
    assert y == pytest.approx(math.exp(1.0))
    assert crossings([4.0, 6.0], {"level": level, "far": [Point(9.0, 0.0)] * 2}) == []
    assert crossings([4.0, 6.0], {"rising": rising, "blind": [Point(0.0, 0.0), Point(9.0, 0.0)]}) == []


def rows(folder):
    with (folder / "out" / "variance.csv").open() as file:
        return list(csv.DictReader(file))


def test_variances_are_the_known_ones(tmp_path):
    """Pathwise through (x - k)², x ~ N(1, 1): the variance of 2 (x - k) is 4, whatever k; score function: 15 at k = 1.

    Mohamed et al. 2020, figure 2; within three half widths of the 95 % interval that is written beside them.
    """
    outcome = compare(tmp_path, *SMALL, "sweeps.quadratic.values=[1,3]")
    assert outcome.code == 0, outcome.err
    table = rows(tmp_path)
    assert [row["value"] for row in table] == ["1", "3"] * 3
    known = {
        ("score function", "1"): 15.0,
        ("score function", "3"): 87.0,
        ("pathwise", "1"): 4.0,
        ("pathwise", "3"): 4.0,
    }
    for row in table:
        expected = known.get((row["combination"], row["value"]))
        if expected is not None:
            assert abs(float(row["variance"]) - expected) < 3 * float(row["95 % +-"])
    assert (tmp_path / "out" / "variance.png").stat().st_size > 10_000


@pytest.mark.slow
def test_any_combination_on_an_environment(tmp_path):
    """Where no exact gradient is known, over all entries of the gradient."""
    small = (
        "comparison=pendulum",
        "folder=out",
        "batches=4",
        "episodes_per_update=4",
        "sweeps.pendulum.values=[0.1,1]",
    )
    outcome = compare(tmp_path, *small)
    assert outcome.code == 0, outcome.err
    table = rows(tmp_path)
    assert [row["value"] for row in table] == ["0.1", "1"] * 4
    assert all(float(row["variance"]) > 0 for row in table)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("parts=[variances]", "choose of variance and learning"),
        ("gradient_of=head.nothing", "use null, or one of head.log_std"),
        ("combinations.pathwise.estimator=straight_through", "estimator=straight_through"),
        ("combinations.pathwise.estimator=nothing", "estimator/nothing"),
        ("sweeps.quadratic.problem=nothing", "problem/nothing"),
        ("sweeps.quadratic.parameter=nothing", "nothing"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, change, words):
    outcome = compare(tmp_path, *SMALL, "batches=4", change)
    assert outcome.code == 2
    assert words in outcome.sentence


@pytest.mark.slow
def test_learning_curves_are_a_sweep_that_is_drawn(tmp_path):
    overrides = "learning.overrides=['estimator.credit=reward_to_go,total_return','seed=0,1','max_env_steps=2000']"
    options = ("parts=[learning]", "folder=out", overrides, "learning.threshold=null")
    outcome = compare(tmp_path, *options)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "learning.png").stat().st_size > 10_000
    assert len(list((tmp_path / "outputs" / "sweeps" / "estimators").iterdir())) >= 4
