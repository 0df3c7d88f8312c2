"""Intervals of mean returns: against closed forms, by simulated coverage, and where the range of a return comes from.

Coverage is counted over fixed seeds. A method that covers 95 % would miss the thresholds below, 93 % over 2,000 samples
(91.5 % over 500), once in 20,000 (4,000) a count; 24 (18) of them are made.
"""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, Acrobot, CartPole, MountainCar, Pendulum
from scorepath.intervals import interval95, return_ci95
from scorepath.rollout import Evaluation

NUMBERS = (10, 30, 100)


def choose(generator, size, values, odds):
    return generator.choice(np.array(values, dtype=float), size=size, p=odds)


def near_solved(generator, size):
    return np.where(generator.random(size) < 0.97, 500.0, generator.integers(20, 501, size))


def swings(generator, size):
    """Like Pendulum's: from near the top, after one swing, two, three."""
    return choose(generator, size, (-2, -122, -240, -370), (0.12, 0.5, 0.33, 0.05)) * generator.uniform(0.9, 1.1, size)


# name -> (samples, mean, range)
SHAPES = {
    "normal": (lambda g, size: g.normal(size=size), 0.0, None),
    "uniform": (lambda g, size: g.random(size), 0.5, None),
    "uniform in [0, 1]": (lambda g, size: g.random(size), 0.5, (0.0, 1.0)),
    "exponential": (lambda g, size: g.exponential(size=size), 1.0, None),
    "lognormal(0, .5)": (lambda g, size: g.lognormal(0.0, 0.5, size), math.exp(0.125), None),
    "lognormal(0, 1.5)": (lambda g, size: g.lognormal(0.0, 1.5, size), math.exp(1.125), None),
    "near-solved, 3 % of 20..500": (near_solved, 0.97 * 500.0 + 0.03 * 260.0, (1.0, 500.0)),
    "near-solved, 1 % of 200": (lambda g, size: choose(g, size, (500, 200), (0.99, 0.01)), 497.0, (1.0, 500.0)),
    "near-solved, without its range": (near_solved, 0.97 * 500.0 + 0.03 * 260.0, None),
    "0 or 1, even odds": (lambda g, size: choose(g, size, (0, 1), (0.5, 0.5)), 0.5, (0.0, 1.0)),
    "0 or 1, without its range": (lambda g, size: choose(g, size, (0, 1), (0.5, 0.5)), 0.5, None),
    "as Pendulum's": (swings, -0.12 * 2 - 0.5 * 122 - 0.33 * 240 - 0.05 * 370, (-3254.73, 0.0)),
    "as Pendulum's, without its range": (swings, -0.12 * 2 - 0.5 * 122 - 0.33 * 240 - 0.05 * 370, None),
    "all equal": (lambda g, size: np.full(size, 500.0), 500.0, (1.0, 500.0)),
}
# what has 93 % at all of n = 10, 30, 100, and the two that have not
HOLDS = [name for name in SHAPES if name not in ("lognormal(0, 1.5)", "near-solved, without its range")]
FAST = [name for name in HOLDS if SHAPES[name][2] is None or name.startswith(("near", "0 or 1", "all"))]


def coverage(name, n, repeats):
    """Share of samples whose interval holds the mean; it is within the range in all."""
    draw, mean, bounds = SHAPES[name]
    samples = torch.from_numpy(draw(np.random.default_rng(n), (repeats, n)))
    held = 0
    for sample in samples:
        found = interval95(sample, bounds)
        if found is None:
            continue
        assert bounds is None or bounds[0] <= found[0] <= found[1] <= bounds[1]
        slack = 1e-9 * abs(mean)
        held += found[0] - slack <= mean <= found[1] + slack
    return held / repeats


@pytest.mark.parametrize("n", NUMBERS)
@pytest.mark.parametrize("name", FAST)
def test_coverage(name, n):
    if SHAPES[name][2] is None:
        assert coverage(name, n, 2000) >= 0.93
    else:
        assert coverage(name, n, 500) >= 0.915


@pytest.mark.slow
@pytest.mark.parametrize("n", NUMBERS)
@pytest.mark.parametrize("name", HOLDS)
def test_coverage_over_more_samples(name, n):
    """A method that covers 94 % would miss 93 % over 4,000 samples once in 250 counts; those with a range have 95 %."""
    assert coverage(name, n, 4000) >= 0.93


@pytest.mark.parametrize(("n", "low", "high"), [(10, 0.82, 0.90), (30, 0.86, 0.93), (100, 0.88, 0.94)])
def test_a_tail_that_is_too_heavy_is_not_covered(n, low, high):
    """What the docstring says of lognormal(0, 1.5): 86, 89.5 and 91 %, of which the t interval has 72, 78 and 85."""
    assert low < coverage("lognormal(0, 1.5)", n, 1000) < high


# ------------------------------------------------------------------ closed forms


@pytest.mark.parametrize(("n", "ones"), [(2, 0), (2, 1), (10, 3), (10, 10), (100, 97), (1000, 999), (10_000, 4000)])
def test_of_zeros_and_ones_it_is_clopper_and_pearsons(n, ones):
    values = torch.zeros(n, dtype=torch.float64)
    values[:ones] = 1.0
    expected = scipy.stats.binomtest(ones, n).proportion_ci(0.95, "exact")
    assert interval95(values, (0.0, 1.0)) == pytest.approx([expected.low, expected.high], abs=2e-5)


def test_weights_are_dirichlet():
    """Against 400,000 draws of weighted means: within five standard errors of a quantile's probability."""
    generator = np.random.default_rng(0)
    values = torch.tensor([1.0, 2.0, 2.0, 3.5, 7.0, 9.0], dtype=torch.float64)
    low, high = interval95(values, (0.0, 10.0))
    weights = generator.dirichlet(np.ones(7), 400_000)
    error = 5 * math.sqrt(0.025 * 0.975 / 400_000)
    assert (weights @ np.append(values, 0.0) < low).mean() == pytest.approx(0.025, abs=error)
    assert (weights @ np.append(values, 10.0) > high).mean() == pytest.approx(0.025, abs=error)


def test_of_many_values_it_is_that_of_t():
    generator = np.random.default_rng(0)
    values = torch.from_numpy(generator.uniform(-1.0, 1.0, 4000))
    expected = scipy.stats.t.interval(0.95, 3999, loc=values.mean(), scale=scipy.stats.sem(values))
    assert interval95(values, (-1.0, 1.0)) == pytest.approx(expected, abs=1e-3)
    assert interval95(values) == pytest.approx(expected, abs=1e-3)


def test_without_skewness_and_range_it_is_that_of_t():
    values = torch.tensor([1.0, 2.0, 3.0])
    half = 4.303 / math.sqrt(3)
    assert interval95(values) == pytest.approx([2 - half, 2 + half])


def test_skewness_moves_it_to_the_long_side():
    """Hall's cubic of the studentised mean is 1.96 (t's quantile) in absolute value at both ends."""
    values = torch.from_numpy(np.random.default_rng(0).exponential(size=50))
    low, high = interval95(values)
    x = values.numpy()
    assert high - x.mean() > x.mean() - low
    gamma, error = scipy.stats.skew(x) / math.sqrt(50), x.std() / math.sqrt(49)
    for end, sign in ((low, 1), (high, -1)):
        w = (x.mean() - end) / error
        cubic = w + gamma * w**2 / 3 + gamma**2 * w**3 / 27 + gamma / 6
        assert cubic == pytest.approx(sign * scipy.stats.t.ppf(0.975, 49), abs=2e-3)


def test_it_grows_with_the_range_and_moves_with_the_unit():
    values = torch.tensor([3.0, 4.0, 4.0, 6.0, 9.0], dtype=torch.float64)
    inner, outer = interval95(values, (0.0, 10.0)), interval95(values, (-10.0, 20.0))
    assert outer[0] < inner[0] < float(values.mean()) < inner[1] < outer[1]
    assert interval95(100.0 - 2.0 * values, (80.0, 100.0)) == pytest.approx(
        [100.0 - 2.0 * inner[1], 100.0 - 2.0 * inner[0]], abs=1e-4
    )


def test_where_nothing_can_be_said_there_is_none():
    assert interval95(torch.tensor([3.0])) is None
    assert interval95(torch.tensor([3.0]), (0.0, 5.0)) is None
    assert interval95(torch.full((100,), 500.0)) is None  # nothing tells how rare other returns are
    low, high = interval95(torch.full((100,), 500.0), (1.0, 500.0))
    assert high == 500.0
    assert low == pytest.approx(1.0 + 499.0 * 0.025 ** (1 / 100), abs=0.02)
    assert interval95(torch.full((5,), -7.0), (-7.0, -7.0)) == [-7.0, -7.0]


def test_it_is_deterministic_and_takes_ten_thousand():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=10_000)).clamp(-4.0, 4.0)
    assert interval95(values, (-4.0, 4.0)) == interval95(values.flip(0), (-4.0, 4.0))


# ------------------------------------------------------------------ the range of a return


class Paid(TorchEnvironment):
    """A torch environment with another range of one step's reward, time limit and end."""

    def __init__(self, reward_range, limit, early):
        super().__init__(LQR(), 1)
        self.reward_range, self.max_episode_steps, self.may_end_early = reward_range, limit, early


@pytest.mark.parametrize(
    ("reward_range", "limit", "early", "expected"),
    [
        (None, 10, True, None),
        ((1.0, 1.0), 500, True, (1.0, 500.0)),
        ((-1.0, 0.0), 500, True, (-500.0, 0.0)),
        ((-1.0, -1.0), 200, True, (-200.0, -1.0)),
        ((-2.0, 3.0), 10, True, (-20.0, 30.0)),
        ((0.5, 3.0), 10, True, (0.5, 30.0)),
        ((0.5, 3.0), 10, False, (5.0, 30.0)),
        ((-3.0, -0.5), 10, False, (-30.0, -5.0)),
    ],
)
def test_it_follows_from_that_of_a_reward_and_the_time_limit(reward_range, limit, early, expected):
    assert Paid(reward_range, limit, early).return_range == expected


@pytest.mark.parametrize(
    ("id", "dynamics"),
    [("CartPole-v1", CartPole), ("Acrobot-v1", Acrobot), ("MountainCar-v0", MountainCar), ("Pendulum-v1", Pendulum)],
)
def test_rewards_of_the_originals_keep_to_the_range_that_their_twins_declare(id, dynamics):
    """At random actions for 2,000 steps; Pendulum comes to within a tenth of its worst."""
    low, high = dynamics.reward_range
    env = GymnasiumEnvironment(id, 20, vectorization="sync")
    generator, rewards = np.random.default_rng(0), []
    for seed in range(2):
        env.reset(seed)
        playing = torch.ones(20, dtype=torch.bool)
        for _ in range(env.max_episode_steps if id == "Pendulum-v1" else 50):
            space = env.action_space
            if id == "Pendulum-v1":
                actions = torch.from_numpy(generator.uniform(-2.0, 2.0, (20, 1)))
            else:
                actions = torch.from_numpy(generator.integers(0, int(space.n), 20))
            step = env.step(actions, playing)
            rewards.append(step.rewards[playing])
            playing &= ~(step.terminated | step.truncated)
    env.close()
    rewards = torch.cat(rewards)
    assert low <= rewards.min() and rewards.max() <= high
    if id == "Pendulum-v1":
        assert rewards.min() < 0.5 * low


def test_a_return_outside_of_the_declared_range_is_told_and_the_range_is_left_out(caplog):
    returns = torch.tensor([10.0, 12.0, 17.0, 11.0])
    mean, interval = return_ci95(Evaluation(returns, returns.long(), (0.0, 15.0)))
    assert (mean, interval) == (12.5, interval95(returns))
    assert "outside of 0 to 15" in caplog.text and "Set env.reward_range" in caplog.text


def test_rounding_is_not_outside(caplog):
    returns = torch.tensor([0.0, 500.001, 499.0])
    _, (low, high) = return_ci95(Evaluation(returns, returns.long(), (0.0, 500.0)))
    assert 0.0 <= low < high <= 500.0
    assert not caplog.text
