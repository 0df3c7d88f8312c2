"""Gradients as training computes them, against the exact ones: real rollouts, the real surrogate loss, autograd.

Every check is one Hotelling T² test with a fixed seed, at level 1e-6 or, where it is slow, 1e-7. All statistical tests
of test_verify*.py and test_check_gradient.py together have a false-alarm rate below 1e-4: see
`test_the_suite_s_false_alarm_rate`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import scipy.stats
import torch
from making import make_policy
from torch import nn

from scorepath.baselines import AbstractBaseline, BatchMean, NoBaseline, TimeMean, Value
from scorepath.distributions import Bernoulli, Categorical, Product
from scorepath.envs.dynamics import (
    LQR,
    BallWithWall,
    Bell,
    Cosine,
    Heaviside,
    Quadratic,
    Tabular,
    bandit,
    random_mdp,
    time_limit,
)
from scorepath.estimators import AbstractEstimator, Pathwise, ScoreFunction
from scorepath.policy import MLP, Policy
from scorepath.seeding import Stream, derive_seed, seed_torch
from scorepath.update import surrogate_loss
from scorepath.verify import (
    HybridProblem,
    LQRProblem,
    MixedProblem,
    OneStepProblem,
    TabularProblem,
    batches_needed,
    check,
    gradient_samples,
    hotelling,
    warm_up,
)
from scorepath.verify.problem import AbstractProblem, flatten, parameters_of
from scorepath.verify.samples import last_value

ALPHA = 1e-6

REWARD_TO_GO = ScoreFunction("reward_to_go", "none", discount_steps=True)
TOTAL_RETURN = ScoreFunction("total_return", "none")
PATHWISE = Pathwise(window=None)


def make_value(problem):
    torch.manual_seed(0)
    shape = problem.env(1).observation_space.shape
    return Value(shape, lambda parameters: torch.optim.Adam(parameters, 0.01), (16,), gradient_steps=5).double()


MDP = TabularProblem(random_mdp(4, 3, 6, terminal_states=1, seed=0))
ENDLESS = TabularProblem(random_mdp(5, 2, 4, terminal_states=0, seed=1))
SPARSE = TabularProblem(random_mdp(6, 4, 5, terminal_states=2, zero_rewards=0.7, seed=2))
BANDIT = TabularProblem(bandit((1.0, 3.0)))
LIMIT = TabularProblem(time_limit(8))
REGULATOR = LQRProblem(LQR(dim=1, horizon=5, dt=0.3))


@dataclass(frozen=True)
class Case:
    """One check of something that calls itself unbiased."""

    name: str
    problem: AbstractProblem
    estimator: AbstractEstimator
    baseline: Any = NoBaseline
    gamma: float = 0.9
    head: Any = None
    episodes: int = 256  # N
    batches: int = 300  # K


CASES = [
    Case("mdp-reward_to_go", MDP, REWARD_TO_GO),
    Case("mdp-total_return", MDP, TOTAL_RETURN),
    Case("mdp-gamma_1", MDP, ScoreFunction("reward_to_go", "none"), gamma=1.0),
    Case("mdp-gamma_0", MDP, REWARD_TO_GO, gamma=0.0),
    Case("mdp-time_mean", MDP, REWARD_TO_GO, TimeMean, episodes=16, batches=3000),
    Case("endless-reward_to_go", ENDLESS, REWARD_TO_GO),
    Case("endless-total_return", ENDLESS, TOTAL_RETURN, TimeMean),
    Case("endless-bernoulli", ENDLESS, REWARD_TO_GO, head=Bernoulli),
    Case("endless-value", ENDLESS, REWARD_TO_GO, make_value),
    Case("sparse-reward_to_go", SPARSE, REWARD_TO_GO),
    Case("sparse-value", SPARSE, REWARD_TO_GO, make_value),
    Case("bandit-none", BANDIT, REWARD_TO_GO, head=Bernoulli),
    Case("bandit-time_mean", BANDIT, REWARD_TO_GO, TimeMean, head=Bernoulli, episodes=4, batches=4000),
    Case("arms-categorical", TabularProblem(bandit((1.0, -2.0, 0.0, 0.5))), REWARD_TO_GO),
    Case("time_limit-value", LIMIT, REWARD_TO_GO, make_value),
    Case("time_limit-none", LIMIT, TOTAL_RETURN, episodes=1024),
    Case("quadratic-score", OneStepProblem(Quadratic(3.0)), REWARD_TO_GO),
    Case("quadratic-pathwise", OneStepProblem(Quadratic(3.0)), PATHWISE),
    Case("bell-score", OneStepProblem(Bell(1.0)), REWARD_TO_GO, TimeMean),
    Case("bell-pathwise", OneStepProblem(Bell(1.0)), PATHWISE),
    Case("cosine-score", OneStepProblem(Cosine(1.0, bound=1.5)), REWARD_TO_GO),
    Case("cosine-pathwise", OneStepProblem(Cosine(1.0, bound=1.5)), PATHWISE),
    Case("heaviside-score", OneStepProblem(Heaviside(0.1)), REWARD_TO_GO),
    Case("ball_with_wall-score", OneStepProblem(BallWithWall()), REWARD_TO_GO),
    Case("lqr-score", REGULATOR, REWARD_TO_GO, TimeMean),
    Case("lqr-pathwise", REGULATOR, PATHWISE),
    Case("mixed-score", MixedProblem(), REWARD_TO_GO),
    Case("mixed-total_return", MixedProblem(), TOTAL_RETURN, TimeMean),
    Case("hybrid-score", HybridProblem(), REWARD_TO_GO, TimeMean, head=Product),
]


# one of each kind of problem and estimator; the others are slow, and all of them to one percent
FAST = (
    *("mdp-reward_to_go", "mdp-total_return", "endless-value", "bandit-none", "quadratic-pathwise"),
    *("heaviside-score", "lqr-score", "lqr-pathwise", "mixed-score", "hybrid-score"),
)


def run(case, **kwargs):
    baseline = case.baseline(case.problem) if case.baseline is make_value else case.baseline()
    settings = {"gamma": case.gamma, "episodes": case.episodes, "batches": case.batches, **kwargs}
    return check(case.problem, make_policy(case.problem, case.head), case.estimator, baseline, **settings)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=() if case.name in FAST else pytest.mark.slow) for case in CASES]
)
def test_the_mean_gradient_is_the_exact_one(case):
    """And the check would have seen a bias of 10 %, of most of them of 5 %."""
    report = run(case)
    assert not report.is_flagged, report
    assert report.passed
    assert report.detectable < 0.1
    assert report.cosine > 0.99


def test_the_suite_s_false_alarm_rate():
    """What a sound program could fail at, by the number of tests and their levels."""
    at_1e_6 = {
        "mean gradients above": len(CASES),
        "uniform p-values, a user's baseline, a hidden layer, the power of .99": 3 + 1 + 1 + 2,
        "test_verify_problems.py, mean returns and transitions": 12 + 12,
        "test_verify_statistics.py; its judgements of rare events, and those here, are below 1e-8": 5 + 1,
        "test_check_gradient.py, the fast ones": 6,
    }
    at_1e_7 = {
        "mean gradients to one percent": len(CASES),
        "test_verify_targets.py": 33 + 3,
        "test_labels.py": 3,
        "test_verify_mutants.py, the sound gradients": 10 + 7,
        "test_check_gradient.py, one for each option": 100,
    }
    assert 1e-6 * sum(at_1e_6.values()) + 1e-7 * sum(at_1e_7.values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_mean_gradient_is_the_exact_one_to_one_percent(case):
    """With as many batches as a power of .99 at a bias of 1 % and level 1e-7 takes, and other seeds than above."""
    report = run(case, batches=None, max_batches=200_000, max_env_steps=10**9, seed=1, alpha=1e-7)
    assert not report.is_flagged, report
    assert report.detectable < 0.012  # the pilot's covariance is an estimate


# ------------------------------------------------------------------ what calls itself biased, and is


@pytest.mark.parametrize(
    ("problem", "estimator", "baseline", "batches", "label"),
    [
        (MDP, ScoreFunction(), NoBaseline(), 500, "whitened by the mean and the standard deviation"),
        (MDP, ScoreFunction("reward_to_go", "none"), NoBaseline(), 500, "not weighed by gamma"),
        pytest.param(BANDIT, REWARD_TO_GO, BatchMean(), 2000, "contains the sample itself", marks=pytest.mark.slow),
        (OneStepProblem(Heaviside(0.1)), PATHWISE, NoBaseline(), 50, "the reward jumps at x = 0"),
        pytest.param(
            *(OneStepProblem(BallWithWall()), PATHWISE, NoBaseline(), 2000, "just clears the wall"),
            marks=pytest.mark.slow,
        ),
        pytest.param(MixedProblem(), PATHWISE, NoBaseline(), 300, "the odds of a coin", marks=pytest.mark.slow),
        pytest.param(REGULATOR, Pathwise(window=2), NoBaseline(), 300, "windows are cut", marks=pytest.mark.slow),
    ],
    ids=["whitened", "undiscounted", "own_mean", "heaviside", "ball_with_wall", "mixed", "windows"],
)
def test_a_biased_estimator_is_flagged_and_passes_by_its_label(problem, estimator, baseline, batches, label):
    report = check(problem, make_policy(problem), estimator, baseline, gamma=0.9, episodes=16, batches=batches)
    assert report.is_flagged, report
    assert any(label in text for text in report.labels)
    assert report.passed


def test_the_pathwise_derivative_of_a_step_is_zero_without_variance():
    problem = OneStepProblem(Heaviside(0.0))
    report = check(problem, make_policy(problem), PATHWISE, NoBaseline(), episodes=16, batches=20)
    assert float(report.mean.abs().max()) == 0.0
    assert report.variance == 0.0
    assert report.test.unseen and report.is_flagged
    assert "no bias can be said" in str(report)


# ------------------------------------------------------------------ the check itself


def test_a_batch_of_a_long_rollout_is_a_batch_of_its_own():
    """Splitting a rollout gives what the surrogate loss of an update gives, and as many batches as were asked for."""
    policy, settings = make_policy(MDP), {"gamma": 0.9, "episodes": 8, "seed": 3}
    together = gradient_samples(MDP, policy, REWARD_TO_GO, TimeMean(), batches=5, **settings)
    assert together.shape == (5, 15)
    env_seed = derive_seed(3, Stream.ENVIRONMENT)
    seed_torch(3, Stream.ACTION)
    (episodes,) = REWARD_TO_GO.collect(MDP.env(40), policy, env_seed)
    for index in range(5):
        part = episodes.select(slice(8 * index, 8 * index + 8))
        loss = surrogate_loss(REWARD_TO_GO, TimeMean(), policy, part, 0.9).loss
        expected = -flatten(torch.autograd.grad(loss, parameters_of(policy)), parameters_of(policy))
        torch.testing.assert_close(together[index], expected)


def test_same_seed_same_samples_and_nothing_is_changed():
    policy = make_policy(LIMIT)
    value = make_value(LIMIT)
    before = [parameter.clone() for parameter in [*policy.parameters(), *value.parameters()]]
    settings = {"gamma": 0.9, "episodes": 4, "batches": 6}
    first, again, other = (gradient_samples(LIMIT, policy, REWARD_TO_GO, value, seed=s, **settings) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(*pair) for pair in zip(before, [*policy.parameters(), *value.parameters()], strict=True))
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_samples_of_an_estimator_that_keeps_the_rollout_s_graph_are_those_of_a_second_pass():
    samples = [
        gradient_samples(BANDIT, make_policy(BANDIT), estimator, NoBaseline(), gamma=1.0, batches=3, episodes=2)
        for estimator in (ScoreFunction("reward_to_go", "none", log_probs=kept) for kept in ("rollout", "again"))
    ]
    assert torch.equal(*samples)
    assert samples[0].abs().sum() > 0


class Watching(AbstractBaseline):
    """Notes the start states of what it is asked about."""

    starts: ClassVar[set[float]] = set()  # of the class: samples are drawn with a copy

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))  # what is kept between updates

    def forward(self, episodes, returns, policy):
        self.starts.update(episodes.observations[0].flatten().tolist())
        return torch.zeros_like(returns)

    def fit(self, episodes, returns, optimizer):
        return {}


def test_warming_up_plays_other_episodes_than_are_sampled():
    """Or a baseline would have learned from the very actions that it is subtracted from."""
    problem = LQRProblem(LQR(dim=1, horizon=2))
    policy, baseline, settings = make_policy(problem), Watching(), {"gamma": 1.0, "episodes": 4, "seed": 5}
    warm_up(problem, policy, REWARD_TO_GO, baseline, updates=3, **settings)
    learned = set(baseline.starts)
    baseline.starts.clear()
    gradient_samples(problem, policy, REWARD_TO_GO, baseline, batches=3, **settings)
    assert len(learned) == len(baseline.starts) == 3 * 4 * 2
    assert not learned & baseline.starts


def test_windows_of_one_batch_are_added_up():
    """With gamma = 1 and nothing but rewards of the action, cut windows lose nothing."""
    problem = OneStepProblem(Quadratic(3.0))
    policy, settings = make_policy(problem), {"gamma": 1.0, "episodes": 4, "batches": 3}
    whole = gradient_samples(problem, policy, PATHWISE, NoBaseline(), **settings)
    torch.testing.assert_close(gradient_samples(problem, policy, Pathwise(window=1), NoBaseline(), **settings), whole)


def test_each_window_of_a_batch_adds_its_gradient():
    """As training meets them one after another; three windows of episodes of five steps."""
    problem, estimator = LQRProblem(LQR(dim=1, horizon=5)), Pathwise(window=2)
    policy, settings = make_policy(problem), {"gamma": 0.9, "episodes": 4, "seed": 3}
    (found,) = gradient_samples(problem, policy, estimator, NoBaseline(), batches=1, **settings)
    seed_torch(3, Stream.ACTION)
    gradients = []
    for window in estimator.collect(problem.env(4), policy, derive_seed(3, Stream.ENVIRONMENT)):
        loss = surrogate_loss(estimator, NoBaseline(), policy, window, 0.9).loss
        gradients.append(-flatten(torch.autograd.grad(loss, parameters_of(policy)), parameters_of(policy)))
    assert len(gradients) == 3
    torch.testing.assert_close(found, sum(gradients))


def test_warming_up_teaches_a_value_network_what_a_time_limit_cuts_off():
    """With its own predictions as bootstrap it learns 1 / (1 - γ) = 5, within 2 %; without, it would learn
    less at every step, (1 - .8^4) 5 = 2.95 at the first."""
    problem = TabularProblem(time_limit(4, risk=0.0))
    value = make_value(problem)
    warm_up(problem, make_policy(problem), REWARD_TO_GO, value, gamma=0.8, updates=300, episodes=4)
    alive = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert float(value.value(alive).detach()) == pytest.approx(5.0, rel=0.02)


def test_the_exact_side_bootstraps_with_the_same_values():
    value, observations = make_value(LIMIT), torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(last_value(value)(observations), value.value(observations).detach())
    assert last_value(TimeMean()) is None


def test_a_report_in_words():
    report = check(BANDIT, make_policy(BANDIT, Bernoulli), REWARD_TO_GO, NoBaseline(), episodes=64, batches=50)
    text = str(report)
    assert report.names == ("head.logits.weight[0, 0]", "head.logits.weight[0, 1]", "head.logits.bias[0]")
    for words in ("50 of 64 episodes", "label      unbiased", "no bias found", "head.logits.bias[0]", "SNR", "cosine"):
        assert words in text
    assert report.z_scores[1] == 0.0  # the weight of the end, which no policy acts in
    assert report.passed
    assert replace(report, labels=("why",)).passed  # a label that no test sees is no lie
    flagged = replace(report, is_flagged=True)
    assert not flagged.passed
    assert replace(flagged, labels=("why",)).passed
    torch.testing.assert_close(50 * report.standard_error.square(), report.covariance.diagonal())
    bias = report.mean - report.exact
    torch.testing.assert_close(report.z_scores[[0, 2]] * report.standard_error[[0, 2]], bias[[0, 2]])


def test_an_entry_that_is_wrong_without_variance_has_an_infinite_z_score():
    problem = OneStepProblem(Heaviside(0.0))
    policy = make_policy(problem)
    report = check(problem, policy, PATHWISE, NoBaseline(), episodes=4, batches=5, max_batches=300)
    assert report.z_scores.abs().max() == math.inf


# ------------------------------------------------------------------ calibration and power, of real gradients


@pytest.mark.parametrize(
    ("problem", "estimator", "baseline"),
    [
        pytest.param(BANDIT, REWARD_TO_GO, TimeMean(), id="bandit", marks=pytest.mark.slow),
        pytest.param(MDP, REWARD_TO_GO, NoBaseline(), id="mdp", marks=pytest.mark.slow),
        pytest.param(REGULATOR, PATHWISE, NoBaseline(), id="lqr", marks=pytest.mark.slow),
    ],
)
def test_p_values_of_real_gradients_are_uniform(problem, estimator, baseline):
    """Kolmogorov-Smirnov over 120 checks of 30 batches of 32 episodes."""
    policy = make_policy(problem)
    samples = gradient_samples(problem, policy, estimator, baseline, gamma=0.9, batches=120 * 30, episodes=32)
    exact = problem.exact_gradient(policy, 0.9)
    values = [hotelling(part, exact).p_value for part in samples.split(30)]
    assert scipy.stats.kstest(values, "uniform").pvalue > ALPHA


class Scaled(AbstractEstimator):
    """REINFORCE, its gradient too long by a factor, and not saying so."""

    needs_graph = False

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def bias(self, gamma):
        return ()

    def returns(self, episodes, gamma, last_values):
        return REWARD_TO_GO.returns(episodes, gamma, last_values)

    def weigh(self, policy, episodes, advantages, gamma):
        return REWARD_TO_GO.weigh(policy, episodes, advantages, gamma)

    def forward(self, policy, episodes, advantages, gamma):
        loss, metrics = REWARD_TO_GO(policy, episodes, advantages, gamma)
        return self.factor * loss, metrics


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_a_bias_of_one_percent_is_flagged(factor):
    """By the number of batches that the pilot asks for, whose power is .99."""
    report = check(BANDIT, make_policy(BANDIT), Scaled(factor), TimeMean(), episodes=2000, gamma=1.0)
    assert report.detectable < 0.012
    assert report.is_flagged
    assert not report.passed


@pytest.mark.slow
def test_a_bias_of_one_percent_is_flagged_as_often_as_the_noncentral_f_says():
    """100 checks, each of as many batches as have power .99: at least 90 flag it, but for one run in 10^6, and at most
    one flags the unscaled gradient, but for one in 10^8."""
    policy, baseline = make_policy(BANDIT), TimeMean()
    exact = BANDIT.exact_gradient(policy, 1.0)
    settings = {"gamma": 1.0, "episodes": 4000}
    pilot = gradient_samples(BANDIT, policy, REWARD_TO_GO, baseline, batches=1000, seed=1, **settings)
    needed = batches_needed(pilot, exact, bias=0.01, wanted=0.99, alpha=ALPHA)
    samples = gradient_samples(BANDIT, policy, Scaled(1.01), baseline, batches=100 * needed, **settings)
    flagged = sum(hotelling(part, exact).p_value < ALPHA for part in samples.split(needed))
    false_alarms = sum(hotelling(part / 1.01, exact).p_value < ALPHA for part in samples.split(needed))
    assert flagged >= 90
    assert false_alarms <= 1


# ------------------------------------------------------------------ sparse rewards


def lottery(prize=1000.0, odds=(1e-4, 3e-4)):
    """One decision between two tickets that win the same prize with another probability, once in thousands."""
    transitions = torch.zeros(3, 2, 3, dtype=torch.float64)
    transitions[:, :, 1] = 1.0 - torch.tensor(odds, dtype=torch.float64)
    transitions[:, :, 2] = torch.tensor(odds, dtype=torch.float64)
    rewards = torch.zeros(3, 2, 3, dtype=torch.float64)
    rewards[:, :, 2] = prize
    return Tabular(transitions, rewards, (1.0, 0.0, 0.0), horizon=1, terminal=(1, 2), name="lottery")


LOTTERY = TabularProblem(lottery())


def test_the_exact_gradient_of_a_lottery_is_known():
    policy = make_policy(LOTTERY, Bernoulli)
    p = policy(torch.eye(3, dtype=torch.float64)[:1]).probs.item()
    exact = LOTTERY.exact_gradient(policy, 1.0)
    assert exact[-1].item() == pytest.approx(1000.0 * 2e-4 * p * (1.0 - p))


@pytest.mark.parametrize(
    "baseline",
    [NoBaseline, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (TimeMean, make_value))],
    ids=["none", "time_mean", "value"],
)
@pytest.mark.parametrize(
    ("seeds", "most"), [(range(8), 300), pytest.param(range(8, 60), 1200, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_true_estimators_pass_where_rewards_are_rare(baseline, seeds, most):
    """Seeds of 100 batches that see one or two prizes or none: below 1e-8 each."""
    policy, undecided = make_policy(LOTTERY, Bernoulli), 0
    for seed in seeds:
        fitted = make_value(LOTTERY) if baseline is make_value else baseline()
        settings = {"episodes": 64, "batches": 100, "max_batches": most, "seed": seed, "warm_up_updates": 3}
        report = check(LOTTERY, policy, REWARD_TO_GO, fitted, gamma=1.0, **settings)
        assert report.passed and not report.is_flagged, report
        undecided += report.is_undecided
        assert report.is_undecided == ("undecided" in report.verdict)
    if baseline is NoBaseline:
        assert 0 < undecided < len(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, 3.0], ids=["blind", "tripled"])
def test_a_planted_fault_is_flagged_where_rewards_are_rare_once_they_are_seen(factor):
    policy = make_policy(LOTTERY, Bernoulli)
    few = check(LOTTERY, policy, Scaled(factor), NoBaseline(), gamma=1.0, episodes=64, batches=100, max_batches=300)
    assert not few.is_flagged
    assert few.passed
    many = check(LOTTERY, policy, Scaled(factor), NoBaseline(), gamma=1.0, episodes=2000, batches=2000)
    assert many.is_flagged, many
    assert not many.passed


# ------------------------------------------------------------------ a user's own


class Doubled(AbstractBaseline):
    """Adds what it should subtract: harmless to the mean, for it does not know the action."""

    def forward(self, episodes, returns, policy):
        return -3.0 * torch.ones_like(returns)


class OwnMean(AbstractBaseline):
    """The mean of the batch's returns, the sample itself among them, and not saying so."""

    def forward(self, episodes, returns, policy):
        return returns.mean(dim=1, keepdim=True).expand_as(returns)


def test_a_baseline_of_ones_own_is_judged_by_what_it_does():
    policy = make_policy(BANDIT)
    assert check(BANDIT, policy, REWARD_TO_GO, Doubled(), episodes=64, batches=300).passed
    assert not check(BANDIT, policy, REWARD_TO_GO, OwnMean(), episodes=4, batches=800).passed


@pytest.mark.slow
def test_a_policy_with_a_hidden_layer_is_tested_in_a_subspace():
    """More parameters than batches: p-values are of fixed directions, the exact gradient's among them."""
    env = MDP.env(1)
    torch.manual_seed(0)
    torso = MLP(4, [20])
    policy = Policy(torso, Categorical(env.action_space, 20)).double()
    nn.init.normal_(policy.head.logits.weight, std=0.5)
    settings = {"gamma": 0.9, "episodes": 128, "batches": 100}
    right = check(MDP, policy, REWARD_TO_GO, NoBaseline(), **settings)
    assert len(right.exact) > 100
    assert not right.is_flagged
    assert check(MDP, policy, Scaled(1.3), NoBaseline(), **settings).is_flagged
