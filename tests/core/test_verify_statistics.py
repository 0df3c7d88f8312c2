"""The test itself is tested: against scipy and hand-made cases, its calibration, and its power.

Statistical tests have fixed seeds and a false-alarm rate of 1e-6 each.
"""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from tiers import slow

from scorepath.verify import batches_needed, cosine, detectable_bias, hotelling, power
from scorepath.verify.check import judge
from scorepath.verify.statistics import is_seen, signal, z_scores

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
    found = hotelling(doubled, wrong)
    assert found.unseen and found.differs(ALPHA)
    assert found.p_value > 0.01  # of what varied


def test_without_any_variance_only_the_exact_value_passes():
    samples = torch.full((10, 2), 4.0, dtype=torch.float64)
    assert hotelling(samples, torch.tensor([4.0, 4.0 + 1e-9], dtype=torch.float64)).p_value == 1.0
    assert hotelling(samples, torch.tensor([4.0, 4.001], dtype=torch.float64)).unseen
    assert hotelling(0.0 * samples, torch.tensor([3.989, 0.0], dtype=torch.float64)).unseen
    assert not hotelling(0.0 * samples, torch.zeros(2, dtype=torch.float64)).unseen


def test_rounding_noise_is_no_variance():
    noise = 1e-16 * normal(50, 2)
    assert hotelling(4.0 + noise, torch.tensor([4.0, 4.0], dtype=torch.float64)).p_value == 1.0
    assert hotelling(4.0 + noise, torch.tensor([4.0, 4.001], dtype=torch.float64)).unseen


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
    [slow(30, 1, False), slow(30, 5, False), (30, 6, True), (20, 40, False)],
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


def test_the_signal_is_estimated_without_bias():
    """The mean of 3,000 estimates from 20 samples of 5 entries, whose raw mean would be 19 / 13 of it; 5 standard
    errors."""
    exact = torch.tensor([1.0, 2.0, -2.0, 0.0, 1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(3000, 20, 5, generator=generator, dtype=torch.float64)
    strengths = torch.tensor([signal(sample, exact)[0] for sample in samples])
    error = float(strengths.std()) / 3000**0.5
    assert float(strengths.mean()) == pytest.approx(10.0, abs=5 * error)
    assert error < 0.2


def test_a_pilot_that_saw_nothing_knows_no_number_of_batches():
    flat = torch.zeros(100, 2, dtype=torch.float64)
    exact = torch.tensor([4.0, 0.0], dtype=torch.float64)
    assert signal(flat, exact)[0] == 0.0
    assert batches_needed(flat, exact, bias=0.01, wanted=0.99, alpha=1e-6) > 10**9
    assert math.isinf(detectable_bias(flat, exact, wanted=0.99, alpha=1e-6))
    beside = torch.cat((normal(100, 1), flat), dim=1)
    assert batches_needed(beside, torch.tensor([1.0, 4.0, 0.0]).double(), bias=0.01, wanted=0.99, alpha=1e-6) > 10**9


# ------------------------------------------------------------------ rare events


def rare(q, noise, seed, factor=1.0):
    """Draws three entries that are 1000 with probability q, else 0, beside noise; and their mean."""
    generator = torch.Generator().manual_seed(seed)

    def draw(number, batches):
        events = torch.rand(batches, 3, generator=generator, dtype=torch.float64) < q
        return factor * 1000.0 * events + noise * torch.randn(batches, 3, generator=generator, dtype=torch.float64)

    return draw, torch.full((3,), 1000.0 * q, dtype=torch.float64)


def test_t2_alone_is_not_for_rare_events():
    """What its docstring says: three entries of 1000 at probability .003 and K = 100, seldom or never seen."""
    draw, mean = rare(0.003, 0.0, 0)
    found = [hotelling(draw(0, 100), mean) for _ in range(500)]
    assert sum(test.p_value < ALPHA for test in found) == 0
    assert sum(test.unseen for test in found) > 450
    draw, mean = rare(0.003, 1.0, 0)
    assert sum(hotelling(draw(0, 100), mean).p_value < ALPHA for _ in range(100)) > 90


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize(("q", "repeats"), [(1e-4, 50), (1e-3, 50), (3e-3, 50), (0.01, 50), (0.05, 100)])
def test_a_true_mean_of_rare_events_is_not_flagged(q, repeats, noise):
    """The second sample disputes it up to once in ten, three of them never (below 1e-8 each, 600 judgements)."""
    draw, mean = rare(q, noise, 1)
    control, _ = rare(q, 0.0, 2)
    for _ in range(repeats):
        assert not judge(draw, control, mean, batches=100, most=10_000, alpha=ALPHA).is_flagged


@pytest.mark.parametrize(("noise", "factor"), [(0.0, 0.0), (1.0, 0.0), (0.0, 2.0)])
def test_a_wrong_mean_of_rare_events_is_flagged_if_the_control_sees_them(noise, factor):
    draw, mean = rare(0.02, noise, 3, factor)
    control, _ = rare(0.02, 0.0, 4)
    assert judge(draw, control, mean, batches=2000, most=10_000, alpha=ALPHA).is_flagged
    few = judge(draw, control, mean, batches=100, most=300, alpha=ALPHA)
    assert not few.is_flagged


def test_a_constant_beside_what_is_structurally_zero_is_flagged():
    """Nothing rare can be missing where the control never varies and is exact."""
    zero = torch.zeros(2, dtype=torch.float64)
    found = judge(lambda _, k: torch.ones(k, 2).double(), lambda _, k: torch.zeros(k, 2).double(), zero,
                  batches=20, most=300, alpha=ALPHA)  # fmt: skip
    assert found.is_flagged


def test_the_effective_number_of_batches():
    """3 events among 100; K / 3 of normal ones."""
    events = torch.zeros(100, 1, dtype=torch.float64)
    events[:3] = 50.0
    mean, one = torch.full((1,), 1.5, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    assert is_seen(events, mean, one, 2.9) and not is_seen(events, mean, one, 3.5)
    assert is_seen(normal(10_000, 1), 0.0 * one, one, 3200.0) and not is_seen(normal(10_000, 1), 0.0 * one, one, 3450.0)
    assert not is_seen(0.0 * events, mean, one, 1.0)
    assert is_seen(0.0 * events, 0.0 * one, one, 1.0)


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
