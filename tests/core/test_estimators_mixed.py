"""Mixes of score function and pathwise derivative: the parts, the weights, and what the tests of jumps find."""

import itertools
import math

import gymnasium as gym
import making
import numpy as np
import pytest
import scipy.stats
import torch
from making import close, flat, flat_gradient, linear
from tiers import slow

from scorepath.baselines import NoBaseline, TimeMean, Value
from scorepath.distributions import Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, AbstractDynamics, Pendulum
from scorepath.envs.dynamics.discontinuous import Heaviside
from scorepath.envs.dynamics.one_step import Quadratic
from scorepath.estimators import DDCG, IVWH, AlphaOrder, Pathwise, ScoreFunction, per_episode_gradients
from scorepath.estimators.action_gradients import action_gradients, mixed_loss, pack
from scorepath.estimators.alpha_order import confidence_radius, inverse_variance_weight, mixing_weight, total_variance
from scorepath.estimators.ddcg import is_smooth
from scorepath.policy import MLP, Policy
from scorepath.returns import reward_to_go
from scorepath.rollout import rollout_windows
from scorepath.update import surrogate_loss

ALPHA = 1e-6  # false-alarm rate of each statistical test here
SCORE = ScoreFunction(normalize_returns="none", discount_steps=True)
MIXES = [AlphaOrder(), AlphaOrder(tolerance=3.0), DDCG(), IVWH()]
every_mix = pytest.mark.parametrize(
    "estimator", MIXES, ids=lambda mix: f"{type(mix).__name__}-{vars(mix).get('tolerance')}"
)


class Slide(AbstractDynamics):
    """x' = x + a / 10 - 0.3 until x' < 0, with reward x² / (1 + a²): episodes of different lengths."""

    name = "slide"
    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    max_episode_steps = 20
    differentiable = True

    def initial(self, generator, number):
        return generator.uniform(0.5, 2.0, size=(number, 1))

    def transition(self, state, action):
        return state + 0.1 * action.tanh().sum(-1, keepdim=True) - 0.3

    def reward(self, state, action, next_state):
        return state.squeeze(-1).square() / (1.0 + action.square().sum(-1))

    def terminal(self, state):
        return state.squeeze(-1) < 0

    def observation(self, state):
        return state


def played(dynamics, number=8, seed=0, std="state_independent", estimator=Pathwise(window=None)):  # noqa: B008
    env = TorchEnvironment(dynamics, number, dtype=torch.float64)
    policy = linear(env, spread=0.3, std=std)
    (episodes,) = estimator.collect(env, policy, seed)
    return policy, episodes


def gradient(estimator, policy, episodes, gamma=0.9, baseline=None):
    """Of the return: the surrogate's sign is turned."""
    baseline = TimeMean() if baseline is None else baseline
    return -making.gradient(estimator, policy, episodes, baseline, gamma)


def parts(policy, episodes, gamma=0.9, baseline=None):
    """Score function and pathwise derivative of the same episodes, by the estimators of those names."""
    return (
        gradient(SCORE, policy, episodes.detach(), gamma, baseline),
        gradient(Pathwise(window=None), policy, episodes, gamma, NoBaseline()),
    )


PROBLEMS = [LQR(dim=2, horizon=6), Slide(), Pendulum()]
every_problem = pytest.mark.parametrize("dynamics", PROBLEMS, ids=lambda dynamics: dynamics.name)


# ------------------------------------------------------------------ gradients of each episode


def test_per_episode_gradients_are_those_of_one_loss_at_a_time():
    """And zero where a loss does not depend on a parameter; the graph is kept."""
    first, second, unused = torch.randn(3).double(), torch.randn(2, 2).double(), torch.randn(2).double()
    parameters = [tensor.requires_grad_() for tensor in (first, second, unused)]
    data = torch.randn(5, 3).double()
    losses = (data @ first).tanh() * second.sum() + torch.arange(5) * second[0, 1].square()
    table = per_episode_gradients(losses, parameters)
    assert table.shape == (5, 9)
    for row, loss in zip(table, losses, strict=True):
        close(row[:7], flat(torch.autograd.grad(loss, parameters[:2], retain_graph=True)))
        assert (row[7:] == 0).all()
    close(table.mean(0)[:7], flat(torch.autograd.grad(losses.mean(), parameters[:2])))


@every_problem
def test_per_episode_gradients_of_a_rollout_s_rewards(dynamics):
    """Through the environment's graph: each episode's is that of its own column."""
    policy, episodes = played(dynamics, 3)
    parameters = list(policy.parameters())
    table = per_episode_gradients(episodes.rewards.sum(0), parameters)
    for n in range(3):
        close(table[n], flat(torch.autograd.grad(episodes.rewards[:, n].sum(), parameters, retain_graph=True)), 1e-7)


# ------------------------------------------------------------------ the weight of the alpha-order estimator


@pytest.mark.parametrize("tolerance", [None, 0.0, 0.3, 0.6, 1.0, 10.0])
def test_the_weight_minimises_the_variance_within_the_bound(tolerance):
    """Against the best of 100,001 weights in [0, 1], for samples of several scales."""
    grid = torch.linspace(0.0, 1.0, 100_001).double()
    for zeroth_scale, first_scale, shift in itertools.product((0.3, 1.0), (0.1, 3.0), (0.0, 0.5)):
        zeroth, first = zeroth_scale * torch.randn(200, 4).double(), first_scale * torch.randn(200, 4).double() + shift
        v0, v1 = zeroth.numpy().var(axis=0, ddof=1).sum(), first.numpy().var(axis=0, ddof=1).sum()
        variance = grid.square() * v1 + (1.0 - grid).square() * v0
        if tolerance is not None:
            distance = np.linalg.norm(first.numpy().mean(0) - zeroth.numpy().mean(0))
            allowed = grid * distance + confidence_radius(zeroth, 0.05) <= tolerance
            allowed[0] = True  # the score function alone is what is left
            variance[~allowed] = torch.inf
        assert float(mixing_weight(zeroth, first, tolerance, 0.05)) == pytest.approx(
            float(grid[variance.argmin()]), abs=2e-5
        )


def test_the_radius_solves_bernstein_s_inequality():
    samples = torch.randn(40, 3).double()
    radius = 40 * float(confidence_radius(samples, 0.01))
    centred = samples.numpy() - samples.numpy().mean(0)
    largest = np.linalg.norm(centred, axis=1).max()
    variance = samples.numpy().var(axis=0, ddof=1).sum()
    bound = 2.0 * math.exp(-(radius**2) / 2.0 / (40 * variance + radius * largest / 3.0))
    assert bound == pytest.approx(0.01, rel=1e-9)


def test_the_radius_covers_the_mean_as_often_as_it_says():
    """At most delta of 2,000 means of 50 skewed samples lie outside, within the binomial's ALPHA."""
    outside = 0
    for _ in range(2000):
        samples = torch.rand(50, 5).double().log().neg() - 1.0  # exponential, of mean 0
        outside += int(samples.mean(0).norm() > confidence_radius(samples, 0.1))
    assert outside <= scipy.stats.binom.isf(ALPHA, 2000, 0.1)


def test_one_episode_has_no_variance():
    with pytest.raises(ValueError, match="needs two of them: raise episodes_per_update"):
        total_variance(torch.randn(1, 3))


def test_nothing_varies_means_the_score_function():
    zero = torch.zeros(3)
    assert (inverse_variance_weight(zero, torch.tensor([0.0, 1.0, 2.0])) == 0).all()
    assert (inverse_variance_weight(torch.ones(3), zero) == 1).all()


# ------------------------------------------------------------------ what the surrogates differentiate to


@pytest.mark.parametrize(
    ("dynamics", "tolerance"),
    [
        (slow if isinstance(dynamics, Pendulum) and tolerance is not None else pytest.param)(dynamics, tolerance)
        for dynamics, tolerance in itertools.product(PROBLEMS, (None, 0.0, 1e9, 5.0))
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_alpha_order_gradient_is_the_mix_of_its_parts(dynamics, tolerance):
    """α g₁ + (1 - α) g₀ of ScoreFunction and Pathwise themselves, α from the gradients of single episodes."""
    policy, episodes = played(dynamics)
    zeroth, first = parts(policy, episodes)
    estimator = AlphaOrder(tolerance)
    _, metrics, *_ = surrogate_loss(estimator, TimeMean(), policy, episodes, 0.9)
    alpha = metrics["gradient/alpha"]
    close(gradient(estimator, policy, episodes), alpha * first + (1 - alpha) * zeroth)
    rows = [parts(policy, episodes.select(slice(n, n + 1)), 0.9, NoBaseline())[1] for n in range(8)]
    v1 = torch.stack(rows).var(dim=0).sum()
    if tolerance == 0.0:
        assert alpha == 0
    elif tolerance != 5.0:
        advantages = surrogate_loss(SCORE, TimeMean(), policy, episodes.detach(), 0.9).weights
        rows = []
        for n in range(8):
            column = slice(n, n + 1)
            loss, _ = SCORE(policy, episodes.detach().select(column), advantages[:, column], 0.9)
            rows.append(flat_gradient(loss, policy))
        v0 = torch.stack(rows).var(dim=0).sum()
        close(alpha, v0 / (v0 + v1))
        assert 0 < alpha < 1


@every_problem
@pytest.mark.parametrize("std", ["state_independent", "state_dependent"])
def test_mixes_in_action_space_end_in_the_two_estimators(dynamics, std):
    """α = 1 is the pathwise derivative and α = 0 the score function, of all parameters, those of the std too."""
    policy, episodes = played(dynamics, std=std)
    zeroth, first = parts(policy, episodes)
    advantages = surrogate_loss(IVWH(), TimeMean(), policy, episodes, 0.9).advantages
    given = action_gradients(policy, episodes, advantages, 0.9)
    for alpha, expected in ((0.0, zeroth), (1.0, first), (0.3, 0.3 * first + 0.7 * zeroth)):
        weights = pack(torch.tensor(alpha, dtype=torch.float64), given.first, advantages, 0.9)
        loss, metrics = mixed_loss(policy, episodes, weights)
        close(-flat_gradient(loss, policy), expected)
        assert float(metrics["gradient/alpha"]) == pytest.approx(alpha)


def test_action_gradients_are_total_derivatives():
    """Of the return by central differences of one action, to which all later ones react; and of log π by hand."""
    dynamics = LQR(dim=2, horizon=5)
    env = TorchEnvironment(dynamics, 3, dtype=torch.float64)
    policy = linear(env, spread=0.3)

    def play(at=None, entry=None, change=0.0):
        torch.manual_seed(0)
        steps = itertools.count()

        def rule(head, dist):
            action = dist.rsample()
            if next(steps) == at:
                action = action + change * torch.eye(2, dtype=torch.float64)[entry]
            return action, action

        (episodes,) = rollout_windows(env, policy, 0, graph=True, rule=rule)
        return episodes

    episodes = play()
    advantages = reward_to_go(episodes.rewards, episodes.is_last, 0.9)
    given = action_gradients(policy, episodes, advantages, 0.9)
    powers = (0.9 ** torch.arange(5).double()).unsqueeze(1)
    for t, entry in itertools.product(range(5), range(2)):
        up, down = ((powers * play(t, entry, step).rewards).sum(0) for step in (1e-4, -1e-4))
        close(given.first[t, :, entry], (up - down).detach() / 2e-4, 1e-6)
    actions = episodes.actions.detach().requires_grad_()
    (slopes,) = torch.autograd.grad(policy(episodes.observations.detach()).log_prob(actions).sum(), actions)
    close(given.zeroth, -(powers * advantages.detach()).unsqueeze(-1) * slopes)


def test_action_gradients_need_the_stack_of_actions_and_a_graph():
    policy, episodes = played(LQR(horizon=3), 2)
    with pytest.raises(ValueError, match="as a rollout with a graph gave them"):
        action_gradients(policy, episodes.select(slice(0, 2)), torch.zeros(3, 2), 1.0)
    for estimator in MIXES:
        with pytest.raises(ValueError, match="needs rewards with a graph"):
            gradient(estimator, policy, episodes.detach())


@every_mix
def test_a_group_of_episodes_keeps_the_weights_of_the_batch(estimator):
    """Losses of groups, with the weights of the whole batch, average to the loss of the batch."""
    policy, episodes = played(Slide(), estimator=estimator)
    whole = gradient(estimator, policy, episodes)
    weights = surrogate_loss(estimator, TimeMean(), policy, episodes, 0.9).weights
    total = 0.0
    for columns in (slice(0, 4), slice(4, 8)):
        loss, _ = estimator(policy, episodes.select(columns), weights[:, columns], 0.9)
        total = total - 0.5 * flat_gradient(loss, policy)
    close(total, whole)


# ------------------------------------------------------------------ the weights of IVW-H and of DDCG


def test_ivw_h_weighs_every_step_and_entry_by_the_variances_of_its_running_episodes():
    """By loop, over episodes of different lengths; a step that one episode is left at is the score function's."""
    policy, episodes = played(Slide(), 6)
    assert len(set(episodes.lengths.tolist())) > 2
    surrogate = surrogate_loss(IVWH(), TimeMean(), policy, episodes, 0.9)
    given = action_gradients(policy, episodes, surrogate.advantages, 0.9)
    for t, row in enumerate(episodes.valid):
        for entry in range(2):
            v0, v1 = (
                np.var(part[t, row, entry].numpy(), ddof=1) if row.sum() > 1 else 0.0
                for part in (given.zeroth, given.first)
            )
            expected = v0 / (v0 + v1) if v0 > 0 else 0.0
            close(surrogate.weights[t, :, 0, entry], torch.full((6,), expected, dtype=torch.float64))
    assert surrogate.weights[:, :, 0].unique().numel() > 10


def smooth(dynamics, number, seed, c=0.3):
    """Whether the one-step problem at mean 0 passes the test, and the weight that DDCG gives."""
    torch.manual_seed(seed)
    env = TorchEnvironment(dynamics, number, dtype=torch.float64)
    policy = Policy(MLP(1, []), Normal(env.action_space, 1, initial_std=0.5)).double()
    with torch.no_grad():
        policy.head.mean.weight.zero_()
        policy.head.mean.bias.zero_()
    (episodes,) = rollout_windows(env, policy, seed, graph=True)
    surrogate = surrogate_loss(DDCG(c), NoBaseline(), policy, episodes, 1.0)
    return policy, episodes, float(surrogate.metrics["gradient/alpha"])


@pytest.mark.parametrize("number", [32, 1000])
@pytest.mark.parametrize("offset", [0.0, 0.2, -0.4])
def test_ddcg_finds_the_jump_of_the_heaviside_function_and_is_the_score_function_there(offset, number):
    """No derivative explains the variance of a step: α = 0 in each of 20 batches, whose pathwise gradient is 0."""
    for seed in range(20):
        policy, episodes, alpha = smooth(Heaviside(offset), number, seed)
        assert alpha == 0.0
        zeroth, first = parts(policy, episodes, 1.0, NoBaseline())
        assert (first == 0).all()
        close(gradient(DDCG(), policy, episodes, 1.0, NoBaseline()), zeroth)


@pytest.mark.parametrize(("k", "offset"), [(0.0, 0.0), (1.0, 0.0), (-3.0, 1.0)])
def test_ddcg_takes_a_quadratic_for_smooth(k, offset):
    """α = v₀ / (v₀ + v₁) > 0 in each of 20 batches of 1,000."""
    for seed in range(20):
        policy, episodes, alpha = smooth(Quadratic(k, offset), 1000, seed)
        first, zeroth = (part[0].var() for part in action_gradients(policy, episodes, episodes.rewards, 1.0)[:2])
        assert alpha == pytest.approx(float(zeroth / (zeroth + first)), rel=1e-9)
        assert alpha > 0.4


def test_without_slack_the_test_is_an_equality_for_quadratics():
    """v₁ = 2 (Var f / σ² - g₁²), the second line of the Hermite expansion: within 5 % at 200,000 samples."""
    policy, episodes, _ = smooth(Quadratic(1.0, 0.3), 200_000, 0)
    given = action_gradients(policy, episodes, episodes.rewards, 1.0)
    first, std = given.first[0, :, 0], given.std[0, 0, 0]
    explained = first.var() + 2.0 * first.mean().square()
    assert float(explained) == pytest.approx(float(2.0 * episodes.rewards.detach().var() / std.square()), rel=0.05)
    outcomes = episodes.rewards.detach()[0]
    assert is_smooth(given, outcomes, 0.1)
    assert not is_smooth(given, 1.2 * outcomes, 0.1)


@pytest.mark.parametrize("horizon", [1, 10])
def test_ddcg_does_not_take_the_variance_between_starts_for_a_jump(horizon):
    """The LQR is smooth, whatever its starts, which make most of its variance: α > 0 in each of 10 batches of 1,000
    (in about nine of ten batches of 64)."""
    env = TorchEnvironment(LQR(horizon=horizon, control_cost=1.0), 1000, dtype=torch.float64)
    policy = linear(env, spread=0.3)
    with torch.no_grad():
        policy.head.mean.bias.zero_()
    for seed in range(10):
        (episodes,) = DDCG().collect(env, policy, seed)
        assert torch.equal(episodes.observations[0, ::2], episodes.observations[0, 1::2])
        assert len(episodes.observations[0].unique(dim=0)) == 500
        assert not torch.equal(episodes.actions[:, ::2], episodes.actions[:, 1::2])
        surrogate = surrogate_loss(DDCG(), TimeMean(), policy, episodes, 1.0)
        assert surrogate.metrics["gradient/alpha"] > 0.1


def test_ddcg_refuses_episodes_that_are_no_pairs():
    policy, episodes = played(LQR(horizon=3), 4)
    with pytest.raises(ValueError, match="needs the pairs of episodes with one start"):
        gradient(DDCG(), policy, episodes)


@pytest.mark.parametrize("window", [None, 4])
def test_ivw_h_differentiates_the_window_s_objective(window):
    """Its first-order part is Pathwise's, with the value network's bootstrap at the end of a window and without it at
    the end of an episode."""
    env = TorchEnvironment(LQR(horizon=8), 5, dtype=torch.float64)
    policy = linear(env, spread=0.3)
    value = Value((2,), lambda parameters: torch.optim.SGD(parameters, 0.1), (8,)).double()
    for episodes in IVWH(window).collect(env, policy, 0):
        surrogate = surrogate_loss(IVWH(window), value, policy, episodes, 0.9)
        given = action_gradients(policy, episodes, surrogate.advantages, 0.9)
        weights = pack(torch.ones((), dtype=torch.float64), given.first, surrogate.advantages, 0.9)
        loss, _ = mixed_loss(policy, episodes, weights)
        actual = -flat_gradient(loss, policy)
        close(actual, gradient(Pathwise(window), policy, episodes, 0.9, value if window else NoBaseline()))


def test_alpha_order_bounds_what_it_misses_of_the_heaviside_function():
    """By variance alone it is the pathwise derivative, which is 0; with a tolerance it stays within that of the exact
    gradient φ(0) / σ = .798 at σ = .5 (10 batches of 1,000, each at delta = .05 or better)."""
    exact = scipy.stats.norm.pdf(0.0) / 0.5
    for seed in range(10):
        policy, episodes, _ = smooth(Heaviside(), 1000, seed)
        zeroth, _ = parts(policy, episodes, 1.0, NoBaseline())
        assert (gradient(AlphaOrder(), policy, episodes, 1.0, NoBaseline()) == 0).all()
        mixed = gradient(AlphaOrder(tolerance=0.3), policy, episodes, 1.0, NoBaseline())
        bias = next(i for i, (name, _) in enumerate(policy.named_parameters()) if name == "head.mean.bias")
        places = [parameter.numel() for parameter in policy.parameters()]
        at = sum(places[:bias])
        assert abs(float(mixed[at]) - exact) <= 0.3
        assert 0.0 < float(mixed[at]) < float(zeroth[at])


# ------------------------------------------------------------------ bias


def mean_of_small_batches(estimator, batches=1000, number=3):
    """Mean and standard error of the mean's gradient on (x - 1)², x ~ N(0, 1), from batches of three episodes."""
    env = TorchEnvironment(Quadratic(1.0, 0.0), number, dtype=torch.float64)
    policy = Policy(MLP(1, []), Normal(env.action_space, 1, initial_std=1.0)).double()
    with torch.no_grad():
        policy.head.mean.weight.zero_()
        policy.head.mean.bias.zero_()
    rows = []
    for seed in range(batches):
        (episodes,) = estimator.collect(env, policy, seed)
        loss = surrogate_loss(estimator, NoBaseline(), policy, episodes, 1.0).loss
        rows.append(-torch.autograd.grad(loss, policy.head.mean.bias)[0])
    table = torch.cat(rows)
    return float(table.mean()), float(table.std()) / batches**0.5


@pytest.mark.parametrize(
    "estimator",
    [*(pytest.param(mix, marks=pytest.mark.slow) for mix in (AlphaOrder(), DDCG(c=1.0))), IVWH()],
    ids=["AlphaOrder", "DDCG", "IVWH"],
)
def test_the_labels_of_the_mixes_are_earned(estimator):
    """Weights from the same samples: on a quadratic, where both parts are unbiased, 1,000 batches of 3 tell the mean
    gradient from the exact -2 by more than 5 standard errors."""
    assert estimator.bias(1.0)
    mean, error = mean_of_small_batches(estimator)
    assert abs(mean + 2.0) > 5.0 * error


@pytest.mark.parametrize(
    "estimator", [Pathwise(window=None), pytest.param(SCORE, marks=pytest.mark.slow)], ids=["Pathwise", "ScoreFunction"]
)
def test_their_parts_are_unbiased_there(estimator):
    mean, error = mean_of_small_batches(estimator)
    assert abs(mean + 2.0) < scipy.stats.norm.isf(ALPHA / 2) * error


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AlphaOrder(tolerance=-1.0), "tolerance=-1.0 must be at least 0"),
        (lambda: AlphaOrder(delta=0.0), "delta=0.0 must be between 0 and 1"),
        (lambda: AlphaOrder(delta=1.0), "delta=1.0 must be between 0 and 1"),
        (lambda: DDCG(c=1.5), "c=1.5 must be from 0 to 1"),
    ],
)
def test_other_options_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
