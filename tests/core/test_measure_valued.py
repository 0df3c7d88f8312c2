"""Weak derivatives: their densities by quadrature, their samplers, and whole episodes against exact gradients."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from gymnasium import spaces
from making import exact_lqr, flat_gradient, linear
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Independent
from torch.distributions import Normal as TorchNormal

from scorepath.baselines import NoBaseline
from scorepath.distributions import Bernoulli, Categorical, Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, Pendulum
from scorepath.envs.dynamics.tabular import Tabular, bandit, random_mdp
from scorepath.estimators import MeasureValued, ScoreFunction
from scorepath.estimators.measure_valued import branched_episodes
from scorepath.estimators.weak_derivatives import branches, distribution_parameters
from scorepath.rollout import rollout
from scorepath.update import surrogate_loss

ALPHA = 1e-6  # false-alarm rate of each statistical test here


def estimate(env, policy, seed, gamma=1.0, estimator=None):
    estimator = MeasureValued() if estimator is None else estimator
    (episodes,) = estimator.collect(env, policy, seed)
    loss = surrogate_loss(estimator, NoBaseline(), policy, episodes, gamma).loss
    return -flat_gradient(loss, policy)


# ------------------------------------------------------------------ weak derivatives of one distribution

MEAN, STD = 0.4, 0.7
FUNCTIONS = {
    "cube": lambda x: x**3 + x,
    "bell": lambda x: math.exp(-3.0 * x * x),
    "step": lambda x: 1.0 if x >= 0.3 else 0.0,  # no derivative of f is asked for
}


def quadrature(f, density):
    parts = [(-12.0, 0.3), (0.3, 12.0)]
    return sum(scipy.integrate.quad(lambda x: f(x) * density(x), *part, limit=200)[0] for part in parts)


def expectation(f, mean, std):
    return quadrature(f, lambda x: scipy.stats.norm.pdf(x, mean, std))


def maxwell(x):
    """Double-sided: x² φ(x)."""
    return x * x * scipy.stats.norm.pdf(x)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_densities_of_the_normal_s_weak_derivatives(name):
    """c (E⁺ f - E⁻ f), by quadrature, is the derivative of E f by central differences of the quadrature."""
    f, h = FUNCTIONS[name], 1e-4
    up = quadrature(f, lambda x: scipy.stats.rayleigh.pdf((x - MEAN) / STD) / STD)
    down = quadrature(f, lambda x: scipy.stats.rayleigh.pdf((MEAN - x) / STD) / STD)
    by_mean = (expectation(f, MEAN + h, STD) - expectation(f, MEAN - h, STD)) / (2 * h)
    assert (up - down) / (STD * math.sqrt(2 * math.pi)) == pytest.approx(by_mean, rel=1e-5)
    wide = quadrature(f, lambda x: maxwell((x - MEAN) / STD) / STD)
    by_std = (expectation(f, MEAN, STD + h) - expectation(f, MEAN, STD - h)) / (2 * h)
    assert (wide - expectation(f, MEAN, STD)) / STD == pytest.approx(by_std, rel=1e-5)


def test_the_samplers_of_the_normal_s_branches():
    """Kolmogorov-Smirnov tests of 20,000 draws of each of the four, and the constants."""
    normal = Independent(TorchNormal(torch.full((20_000, 1), MEAN).double(), STD), 1)
    action = normal.sample()
    two = branches(normal, action)
    assert two.positive.shape == two.negative.shape == (20_000, 2, 1)
    assert torch.allclose(two.constants, torch.tensor([1 / (STD * math.sqrt(2 * math.pi)), 1 / STD]).double())
    positive, negative = ((part.squeeze(-1) - MEAN) / STD for part in (two.positive, two.negative))

    def maxwell_cdf(x):
        return scipy.stats.norm.cdf(x) - x * scipy.stats.norm.pdf(x)

    for sample, cdf in (
        (positive[:, 0], scipy.stats.rayleigh.cdf),
        (-negative[:, 0], scipy.stats.rayleigh.cdf),
        (positive[:, 1], maxwell_cdf),
        (negative[:, 1], scipy.stats.norm.cdf),
    ):
        assert scipy.stats.kstest(sample.numpy(), cdf).pvalue > ALPHA
    assert torch.allclose(positive[:, 0], -negative[:, 0])  # shared random numbers
    assert float(torch.corrcoef(torch.stack((positive[:, 1], negative[:, 1])))[0, 1]) > 0.5


def test_only_the_entry_of_the_parameter_changes():
    normal = Independent(TorchNormal(torch.zeros(4, 2, 3).double(), torch.ones(4, 2, 3).double()), 2)
    action = normal.sample()
    two = branches(normal, action)
    assert two.positive.shape == (4, 12, 2, 3)
    for part in (two.positive, two.negative):
        changed = part != action.unsqueeze(1)
        for parameter in range(12):
            assert changed[:, parameter].flatten(1).nonzero()[:, 1].unique().tolist() == [parameter // 2]


def test_the_branches_of_choices():
    """A Bernoulli's are 1 and 0; a Categorical's each choice and the sampled one, never a choice that is missing."""
    coins = Independent(TorchBernoulli(torch.tensor([[0.2, 0.9]])), 1)
    two = branches(coins, torch.tensor([[1.0, 0.0]]))
    assert two.positive.tolist() == [[[1.0, 0.0], [1.0, 1.0]]]
    assert two.negative.tolist() == [[[0.0, 0.0], [1.0, 0.0]]]
    probs = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]])
    two = branches(Independent(TorchCategorical(probs), 1), torch.tensor([[1, 2]]))
    assert two.positive.tolist() == [[[0, 2], [1, 2], [1, 2], [1, 0], [1, 1], [1, 2]]]
    assert two.negative.tolist() == [[[1, 2]] * 6]
    assert (two.constants == 1).all()


@pytest.mark.parametrize(
    ("head", "space"),
    [
        (Bernoulli, spaces.MultiBinary([2, 2])),
        (Categorical, spaces.MultiDiscrete([3, 2])),
        (Normal, spaces.Box(-1.0, 1.0, (2, 3))),
    ],
)
def test_as_many_parameters_as_branches(head, space):
    dist = head(space, 3)(torch.randn(5, 3))
    parameters = distribution_parameters(dist)
    two = branches(dist, dist.sample())
    assert parameters.shape == two.constants.shape == two.positive.shape[:2]
    assert parameters.requires_grad


# ------------------------------------------------------------------ branching


def test_a_branch_is_a_copy_that_goes_its_own_way():
    env = TorchEnvironment(Pendulum(), 3, dtype=torch.float64)
    env.reset(5)
    env.step(torch.ones(3, 1).double())
    rows = torch.tensor([2, 0, 2, 1])
    other = env.branch(rows)
    assert (other.num_episodes, env.num_episodes) == (4, 3)
    force = torch.randn(4, 1).double()
    for number in range(2, 201):
        step, own = other.step(force), env.step(force[[1, 3, 0]])
        assert torch.equal(step.observations[:2], own.observations[[2, 0]])
        assert torch.equal(step.rewards[[1, 3]], own.rewards[[0, 1]])
        assert step.truncated.all() == own.truncated.all() == (number == 200)  # the time limit is that of the original


def test_nothing_differs_between_branches_where_actions_do_not_matter():
    """Policy and environment draw the same random numbers in both: every difference is exactly zero."""
    chain = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]], dtype=torch.float64)
    mdp = Tabular(
        chain[:, None, :].expand(3, 2, 3), torch.randn(3).double()[:, None].expand(3, 2), (0.5, 0.5, 0.0), 8, (2,)
    )
    env = TorchEnvironment(mdp, 50, dtype=torch.float64)
    for head in (Bernoulli, Categorical):
        episodes = branched_episodes(env, linear(env, head, spread=0.5), 0)
        assert len(set(episodes.lengths.tolist())) > 3
        assert (episodes.extras["branch_rewards"] == 0).all()


def test_branched_episodes_are_a_rollout():
    """Of the same environments by the same policy: lengths, ends and rewards have one distribution; shapes agree."""
    env = TorchEnvironment(random_mdp(seed=3, horizon=5), 4000, dtype=torch.float64)
    policy = linear(env, Categorical, spread=0.5)
    one, other = branched_episodes(env, policy, 0), rollout(env, policy, 1)
    assert one.terminated.any()
    assert one.truncated.any()
    assert torch.equal(one.terminated, ~one.truncated)
    assert one.extras["branch_rewards"].shape == (5, 4000, 3, 5)
    for value in (lambda x: x.episode_returns, lambda x: x.lengths.double(), lambda x: x.terminated.double()):
        assert scipy.stats.ttest_ind(value(one).numpy(), value(other).numpy()).pvalue > ALPHA
    # what a transition pays in the table, read off the observations
    states = torch.cat((one.observations, one.last_observations.unsqueeze(0))).argmax(-1)
    following = torch.where(one.is_last, one.last_observations.argmax(-1), states[1:])
    table = env.dynamics.R[states[:-1], one.actions, following]
    assert torch.equal(one.rewards[one.valid], table[one.valid])
    assert (one.rewards[~one.valid] == 0).all()


def test_an_episode_without_branches_is_refused():
    env = TorchEnvironment(bandit(), 2)
    policy = linear(env, Bernoulli, spread=0.5).float()
    with pytest.raises(ValueError, match="needs the branches"):
        surrogate_loss(MeasureValued(), NoBaseline(), policy, rollout(env, policy, 0), 1.0)


# ------------------------------------------------------------------ whole gradients


@pytest.mark.parametrize("head", [Bernoulli, Categorical])
def test_a_bandit_s_gradient_is_exact_without_any_variance(head):
    """All actions are tried at every step: ∇ Σ_a p_a r_a to rounding, whatever was sampled."""
    rewards = torch.tensor([1.0, 3.0] if head is Bernoulli else [1.0, -2.0, 0.5]).double()
    env = TorchEnvironment(bandit(rewards.tolist()), 3, dtype=torch.float64)
    policy = linear(env, head, spread=0.5)
    probs = policy(env.reset(0)[:1]).probs.flatten()
    probs = torch.stack((1 - probs[0], probs[0])) if head is Bernoulli else probs
    exact = flat_gradient(probs @ rewards, policy)
    for seed in range(3):
        torch.testing.assert_close(estimate(env, policy, seed), exact, rtol=1e-10, atol=1e-12)


def exact_tabular(mdp, policy, gamma):
    """∇ of the expected discounted return, by backward recursion over time."""
    states = torch.eye(len(mdp.start), dtype=torch.float64)
    probs = policy(states).probs
    probs = torch.stack((1 - probs, probs), dim=-1) if probs.dim() == 1 else probs
    value = torch.zeros(len(states), dtype=torch.float64)
    for _ in range(mdp.max_episode_steps):
        following = mdp.R + gamma * (~mdp.is_terminal * value)
        value = (probs * (mdp.P * following).sum(-1)).sum(-1)
    return flat_gradient(mdp.start @ value, policy)


def check_mean(table, exact):
    """z-test of every entry of estimates (batches, P) at ALPHA in all, and that an error of a tenth would show."""
    error = table.std(dim=0) / len(table) ** 0.5
    known = error > 1e-12  # entries that do not vary
    assert float(error.norm() / exact.norm()) < 0.1
    z = ((table.mean(dim=0) - exact) / error)[known]
    assert float(z.abs().max()) < scipy.stats.t.isf(ALPHA / 2 / len(z), len(table) - 1)
    torch.testing.assert_close(table.mean(dim=0)[~known], exact[~known], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("gamma", [0.0, 0.8, 1.0])
@pytest.mark.parametrize(("head", "actions"), [(Bernoulli, 2), (Categorical, 3)])
def test_the_mean_gradient_is_the_exact_gradient_of_a_random_mdp(head, actions, gamma):
    """40 batches of 300 episodes, with terminal states, a time limit, and rewards of both signs."""
    mdp = random_mdp(actions=actions, horizon=4, seed=1)
    env = TorchEnvironment(mdp, 300, dtype=torch.float64)
    policy = linear(env, head, spread=0.5)
    table = torch.stack([estimate(env, policy, seed, gamma) for seed in range(40)])
    check_mean(table, exact_tabular(mdp, policy, gamma))


@pytest.mark.parametrize("dim", [1, 2])
def test_the_mean_gradient_is_the_exact_gradient_of_the_lqr(dim):
    """40 batches of 500 episodes; mean, weight and standard deviation of a Normal policy."""
    lqr = LQR(dim=dim, horizon=5, dt=0.3)
    env = TorchEnvironment(lqr, 500, dtype=torch.float64)
    policy = linear(env, Normal, spread=0.5)
    with torch.no_grad():
        policy.head.mean.bias.zero_()
    table = torch.stack([estimate(env, policy, seed) for seed in range(40)])
    check_mean(table, -exact_lqr(lqr, policy))


def test_it_has_a_lower_variance_than_the_score_function():
    """Why one would pay for branches: at least 2 times lower in a random MDP, of as many episodes."""
    env = TorchEnvironment(random_mdp(horizon=4, seed=1), 300, dtype=torch.float64)
    policy = linear(env, Categorical, spread=0.5)
    score = ScoreFunction(normalize_returns="none")
    variances = [
        torch.stack([estimate(env, policy, seed, 1.0, estimator) for seed in range(20)]).var(dim=0).sum()
        for estimator in (MeasureValued(), score)
    ]
    assert float(variances[1]) > 2.0 * float(variances[0])


def test_it_calls_itself_unbiased():
    assert MeasureValued().bias(0.9) == ()
