"""The test itself is tested: against scipy and hand-made cases, its calibration, and its power.

Statistical tests have fixed seeds and a false-alarm rate of 1e-6 each.
"""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from scorepath.verify import batches_needed, cosine, detectable_bias, hotelling, power
from scorepath.verify.statistics import z_scores

ALPHA = 1e-6
MIX = torch.tensor([[1.0, 0.3, -2.0], [0.0, 1e-3, 5.0], [0.4, 0.0, 100.0]], dtype=torch.float64)


def normal(number, dimensions=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, dimensions, generator=generator, dtype=torch.float64)


# ------------------------------------------------------------------ T²


def test_in_one_dimension_it_is_the_t_test():
    samples = normal(20, 1)
    found = hotelling(samples, torch.tensor([0.3], dtype=torch.float64))
    expected = scipy.stats.ttest_1samp(samples.numpy().ravel(), 0.3)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.t2 == pytest.approx(expected.statistic**2, rel=1e-9)


def test_t2_is_the_quadratic_form():
    samples, mean = normal(30) @ MIX, torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    found = hotelling(samples, mean)
    difference = (samples.mean(dim=0) - mean).numpy()
    t2 = 30 * difference @ np.linalg.inv(np.cov(samples.numpy().T)) @ difference
    assert found.t2 == pytest.approx(t2, rel=1e-8)
    assert found.p_value == pytest.approx(scipy.stats.f.sf(t2 * 27 / (3 * 29), 3, 27), rel=1e-7)


def test_no_linear_map_of_the_entries_changes_it():
    samples, mean = normal(30), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    assert hotelling(samples @ MIX, mean @ MIX).p_value == pytest.approx(hotelling(samples, mean).p_value, rel=1e-6)


def test_a_singular_covariance_is_tested_in_its_range():
    """An entry that repeats others adds nothing to the test, if it agrees with them."""
    samples, mean = normal(30), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    doubled = torch.cat((samples, samples.sum(1, keepdim=True), torch.full((30, 1), 7.0)), dim=1)
    agreed = hotelling(doubled, torch.cat((mean, mean.sum(0, keepdim=True), torch.tensor([7.0]))))
    assert agreed.dimensions == 3
    assert agreed.p_value == pytest.approx(hotelling(samples, mean).p_value, rel=1e-6)


@pytest.mark.parametrize("entry", [3, 4])
def test_what_has_no_variance_must_agree(entry):
    samples, mean = normal(30), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    doubled = torch.cat((samples, samples.sum(1, keepdim=True), torch.full((30, 1), 7.0)), dim=1)
    wrong = torch.cat((mean, mean.sum(0, keepdim=True), torch.tensor([7.0])))
    wrong[entry] += 1e-3
    assert hotelling(doubled, wrong).p_value == 0.0


def test_without_any_variance_only_the_exact_value_passes():
    samples = torch.full((10, 2), 4.0, dtype=torch.float64)
    assert hotelling(samples, torch.tensor([4.0, 4.0 + 1e-9], dtype=torch.float64)).p_value == 1.0
    assert hotelling(samples, torch.tensor([4.0, 4.001], dtype=torch.float64)).p_value == 0.0
    assert hotelling(0.0 * samples, torch.tensor([3.989, 0.0], dtype=torch.float64)).p_value == 0.0
    assert hotelling(0.0 * samples, torch.zeros(2, dtype=torch.float64)).p_value == 1.0


def test_rounding_noise_is_no_variance():
    noise = 1e-16 * normal(50, 2)
    assert hotelling(4.0 + noise, torch.tensor([4.0, 4.0], dtype=torch.float64)).p_value == 1.0
    assert hotelling(4.0 + noise, torch.tensor([4.0, 4.001], dtype=torch.float64)).p_value == 0.0


def test_rounding_noise_beside_entries_of_ordinary_size_is_no_variance():
    samples = normal(50)
    samples[:, 1] = 1e-17 + 1e-18 * samples[:, 1]
    found = hotelling(samples, torch.zeros(3, dtype=torch.float64))
    assert found.dimensions == 2
    assert found.p_value > ALPHA


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 4 batches, but there are 3"):
        hotelling(normal(3), torch.zeros(3, dtype=torch.float64))


# ------------------------------------------------------------------ calibration


@pytest.mark.parametrize(
    ("number", "dimensions", "singular"),
    [(30, 1, False), (30, 5, False), (30, 6, True), (20, 40, False)],
    ids=["1", "5", "singular", "more_than_batches"],
)
def test_p_values_are_uniform_if_the_mean_is_right(number, dimensions, singular):
    """Kolmogorov-Smirnov over 2,000 tests; also where the covariance is singular and where directions are left out."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(dimensions, dimensions, generator=generator, dtype=torch.float64)
    if singular:
        mix[:, -1] = mix[:, 0] - 2.0 * mix[:, 1]
    mean = torch.randn(dimensions, generator=generator, dtype=torch.float64) @ mix
    values = [
        hotelling(torch.randn(number, dimensions, generator=generator, dtype=torch.float64) @ mix + mean, mean).p_value
        for _ in range(2000)
    ]
    assert scipy.stats.kstest(values, "uniform").pvalue > ALPHA


def test_power_is_that_of_the_noncentral_f():
    """Against the share of 4,000 tests that reject at 5 %."""
    number, repeats = 25, 4000
    shift = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64)
    rejected = sum(hotelling(normal(number, 3, seed) + shift, 0.0 * shift).p_value < 0.05 for seed in range(repeats))
    expected = power(number * float(shift.square().sum()), 3, number, 0.05)
    assert 0.3 < expected < 0.9
    assert scipy.stats.binomtest(rejected, repeats, expected).pvalue > ALPHA


def test_power_without_a_difference_is_the_false_alarm_rate():
    for alpha in (0.05, 1e-6):
        assert power(0.0, 4, 50, alpha) == pytest.approx(alpha, rel=1e-6)


# ------------------------------------------------------------------ how many batches


def test_batches_needed_is_the_least_number_with_that_power():
    """For a known covariance: 1/4 of the identity, as far as 20,000 samples of a pilot tell."""
    pilot = 0.5 * normal(20_000, 3)
    exact = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    needed = batches_needed(pilot, exact, bias=0.01, wanted=0.99, alpha=1e-6)
    strength = float((0.01 * exact).square().sum()) / 0.25
    assert power(needed * strength, 3, needed, 1e-6) == pytest.approx(0.99, abs=0.003)
    assert batches_needed(pilot, 2.0 * exact, bias=0.01, wanted=0.99, alpha=1e-6) == pytest.approx(needed / 4, rel=0.05)
    small = batches_needed(pilot[:50], exact, bias=0.01, wanted=0.99, alpha=1e-6)
    assert small == pytest.approx(needed, rel=0.9)  # a small pilot is noisy, not blind


@pytest.mark.parametrize("exact", [[1.0, 0.5], [0.2, -0.1]])
def test_detectable_bias_is_the_inverse_of_batches_needed(exact):
    exact = torch.tensor(exact, dtype=torch.float64)
    pilot = normal(3000, 2)
    needed = batches_needed(
        pilot, exact, bias=detectable_bias(pilot, exact, wanted=0.9, alpha=1e-4), wanted=0.9, alpha=1e-4
    )
    assert needed == pytest.approx(3000, abs=2)


def test_without_variance_the_fewest_batches_do():
    constant = torch.full((20, 2), 3.0, dtype=torch.float64)
    assert batches_needed(constant, constant[0], bias=0.01, wanted=0.99, alpha=1e-6) == 4
    assert detectable_bias(constant, constant[0], wanted=0.99, alpha=1e-6) <= 1e-6


def test_no_number_of_batches_finds_a_bias_of_nothing():
    assert batches_needed(normal(50), torch.zeros(3).double(), bias=0.01, wanted=0.99, alpha=1e-6) > 10**9
    assert math.isinf(detectable_bias(normal(50), torch.zeros(3).double(), wanted=0.99, alpha=1e-6))


def test_z_scores_by_hand():
    """(mean - expected) / (std / √K), K = 16; of entries that do not vary 0 or infinite."""
    mean, expected, std = torch.tensor([[3.0, 1.0, 2.0, 2.0], [1.0, 1.5, 2.0, 3.0], [4.0, 1.0, 0.0, 0.0]]).double()
    assert z_scores(mean, expected, std, 16).tolist() == [2.0, -2.0, 0.0, -math.inf]


def test_cosine():
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])
    assert cosine(one, other) == pytest.approx(24 / 25)
    assert cosine(one, -one) == pytest.approx(-1.0)
    assert math.isnan(cosine(one, 0.0 * one))
