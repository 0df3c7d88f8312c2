"""Estimators side by side: what all of them give, and score function and pathwise on one task, the LQR."""

import cases
import pytest
import scipy.stats
import torch
from making import close, exact_lqr, gradient, linear, surrogate
from tiers import slow

from scorepath.baselines import NoBaseline, TimeMean
from scorepath.distributions import Categorical, Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.estimators import Pathwise, ScoreFunction
from scorepath.rollout import rollout_windows

ALPHA = 1e-6  # false-alarm rate of each statistical test here

PLAIN = ScoreFunction(normalize_returns="none")


@pytest.mark.parametrize("case", cases.ESTIMATORS, ids=lambda case: f"{case[0]}-{case[2]}")
def test_every_estimator_gives_a_scalar_with_a_finite_gradient_and_the_entropy(case):
    _, make, kwargs = case
    estimator = make(**kwargs)
    dynamics = Pendulum(torques=4) if estimator.needs_weights else LQR(horizon=7)
    env = TorchEnvironment(dynamics, 5, dtype=torch.float64)
    policy = linear(env, Categorical if estimator.needs_weights else Normal)
    for episodes in estimator.collect(env, policy, 0):
        loss, metrics = surrogate(estimator, policy, episodes)
        assert loss.shape == ()
        for value in torch.autograd.grad(loss, list(policy.parameters())):
            assert value.isfinite().all()
            assert (value != 0).any()
        with torch.no_grad():
            expected = policy(episodes.observations[episodes.valid]).entropy().mean()
        close(metrics["train/entropy"], expected)
        assert not metrics["train/entropy"].requires_grad


# ------------------------------------------------------------------ both, against the exact gradient of the LQR

BATCHES, NUMBER, HORIZON = 80, 2000, 6


@pytest.mark.parametrize("dim", [1, slow(3)])
@pytest.mark.parametrize(
    ("estimator", "make_baseline"),
    [
        (Pathwise(window=None), NoBaseline),
        (PLAIN, NoBaseline),
        slow(ScoreFunction("total_return", "none"), NoBaseline),
        (PLAIN, TimeMean),
    ],
    ids=["pathwise", "score_function", "total_return", "time_mean"],
)
def test_the_mean_gradient_is_the_exact_gradient_of_the_lqr(estimator, make_baseline, dim):
    """z-test of every entry over 80 batches of 2,000 episodes; the surrogate's gradient is that of the cost."""
    lqr = LQR(dim=dim, horizon=HORIZON, dt=0.3)
    env = TorchEnvironment(lqr, NUMBER, dtype=torch.float64)
    policy = linear(env)
    with torch.no_grad():
        policy.head.mean.weight.copy_(torch.cat((-0.5 * torch.eye(dim), -0.8 * torch.eye(dim)), dim=1))
        policy.head.mean.weight.add_(0.1 * torch.randn(dim, 2 * dim))
        policy.head.mean.bias.zero_()
        policy.head.log_std.fill_(-0.3)
    exact = exact_lqr(lqr, policy)
    estimates = []
    for seed in range(BATCHES):
        (episodes,) = rollout_windows(env, policy, seed, graph=estimator.needs_graph)
        estimates.append(gradient(estimator, policy, episodes, make_baseline()))
    table = torch.stack(estimates)
    error = table.std(dim=0) / BATCHES**0.5
    assert float(error.norm() / exact.norm()) < 0.1  # the test has power
    z = (table.mean(dim=0) - exact) / error
    assert float(z.abs().max()) < scipy.stats.t.isf(ALPHA / 2, BATCHES - 1)


def test_pathwise_has_the_lower_variance_in_the_lqr():
    """Why one would use it: at least 10 times lower here, of the same gradient and from as many episodes."""
    lqr = LQR(horizon=HORIZON, dt=0.3)
    env = TorchEnvironment(lqr, NUMBER, dtype=torch.float64)
    policy = linear(env)
    variances = []
    for estimator in (Pathwise(window=None), PLAIN):
        table = [
            gradient(estimator, policy, next(rollout_windows(env, policy, seed, graph=estimator.needs_graph)))
            for seed in range(20)
        ]
        variances.append(float(torch.stack(table).var(dim=0).sum()))
    assert variances[1] > 10.0 * variances[0]
