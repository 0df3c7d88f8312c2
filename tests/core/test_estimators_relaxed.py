"""Discrete actions through a differentiable environment: exact values of what is estimated, and of its bias."""

import gymnasium as gym
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import torch
from making import flat_gradient, linear
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Categorical as TorchCategorical

from scorepath.baselines import NoBaseline, Value
from scorepath.distributions import Bernoulli, Categorical
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import AbstractDynamics, Pendulum
from scorepath.estimators import GumbelSoftmax, StraightThrough
from scorepath.estimators.relaxed import concrete_sample
from scorepath.update import surrogate_loss

ALPHA = 1e-6  # false-alarm rate of each statistical test here


class Choice(AbstractDynamics):
    """One choice of K with payoff f(Σ_k w_k v_k): known for weights, and for choices."""

    name = "choice"
    observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
    max_episode_steps = 1
    terminates = False
    differentiable = True
    accepts_weights = True

    def __init__(self, values, payoff):
        self.values = torch.tensor(values, dtype=torch.float64)
        self.payoff = payoff
        self.action_space = gym.spaces.Discrete(len(values), start=3)

    def initial(self, generator, number):
        return np.ones((number, 1))

    def transition(self, state, action):
        return state

    def reward(self, state, action, next_state):
        return self.payoff(action @ self.values.to(action))

    def observation(self, state):
        return state


def square(x):
    return x.square() + x


def straight(x):
    return 2.0 * x - 1.0


# ------------------------------------------------------------------ the discrete pendulum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [2, 3, 5, 8])
def test_chosen_torques_are_those_of_the_continuous_pendulum(number, dtype):
    """Equal to the bit for 200 steps, by index and by one-hot weights."""
    envs = [TorchEnvironment(dynamics, 6, dtype=dtype) for dynamics in (Pendulum(), Pendulum(number), Pendulum(number))]
    assert envs[1].action_space == gym.spaces.Discrete(number)
    starts = [env.reset(3) for env in envs]
    assert torch.equal(starts[0], starts[1])
    torques = torch.linspace(-2.0, 2.0, number, dtype=torch.float64).to(dtype)
    for _ in range(200):
        choice = torch.randint(number, (6,))
        steps = [
            env.step(action)
            for env, action in zip(
                envs,
                (torques[choice, None], choice, torch.nn.functional.one_hot(choice, number).to(dtype)),
                strict=True,
            )
        ]
        for step in steps[1:]:
            assert torch.equal(step.observations, steps[0].observations)
            assert torch.equal(step.rewards, steps[0].rewards)
    assert steps[1].truncated.all()


def test_weights_push_with_the_mean_torque():
    """And p(1) of two choices stands for (1 - p, p)."""
    continuous, four, two = (TorchEnvironment(dynamics, 3) for dynamics in (Pendulum(), Pendulum(4), Pendulum(2)))
    for env in (continuous, four, two):
        env.reset(0)
    p = torch.tensor([0.25, 0.5, 1.0])
    expected = continuous.step((4.0 * p - 2.0).unsqueeze(-1))
    ends = torch.stack((1 - p, torch.zeros(3), torch.zeros(3), p), dim=-1)
    for step in (four.step(ends), two.step(p)):
        torch.testing.assert_close(step.observations, expected.observations)
        torch.testing.assert_close(step.rewards, expected.rewards)


def test_choices_count_from_the_start_of_the_space():
    env, shifted = (TorchEnvironment(dynamics, 3) for dynamics in (Pendulum(3), Pendulum(3)))
    shifted.action_space = gym.spaces.Discrete(3, start=5)
    assert torch.equal(env.reset(0), shifted.reset(0))
    choices = torch.arange(3)
    assert torch.equal(env.step(choices).observations, shifted.step(5 + choices).observations)


def test_one_torque_is_no_choice_and_the_original_takes_none():
    with pytest.raises(ValueError, match="torques=1 must be at least 2"):
        Pendulum(1)
    assert Pendulum(3).original is None
    assert Pendulum().original == "Pendulum-v1"


def test_weights_are_over_a_discrete_space():
    class Wrong(Choice):
        def __init__(self):
            self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    with pytest.raises(TypeError, match="its action space must be Discrete"):
        TorchEnvironment(Wrong(), 1)


# ------------------------------------------------------------------ how they act


@pytest.mark.parametrize("temperature", [None, 0.3, 2.0])
@pytest.mark.parametrize("head", [Bernoulli, Categorical])
def test_straight_through_acts_by_the_policy_s_own_choices(head, temperature):
    """One-hot weights to the bit, whose frequencies are the policy's (chi-square test, 20,000 draws)."""
    number = 2 if head is Bernoulli else 4
    choices = head(gym.spaces.Discrete(number), 1)
    logits = torch.randn(number if head is Categorical else 1).requires_grad_()
    dist = TorchCategorical(logits=logits.expand(20_000, 4)) if head is Categorical else None
    dist = TorchBernoulli(logits=logits.expand(20_000, 1).squeeze(-1)) if dist is None else dist
    choice, weights = StraightThrough(temperature).act(choices, dist)
    assert not choice.requires_grad
    assert weights.requires_grad
    if head is Categorical:
        assert torch.equal(weights, torch.nn.functional.one_hot(choice, 4).float())
        probs = dist.probs[0].detach().double()
    else:
        assert torch.equal(weights, choice)
        probs = torch.stack((1 - dist.probs[0], dist.probs[0])).detach().double()
    counts = np.bincount(choice.long().numpy(), minlength=number)
    assert scipy.stats.chisquare(counts, (20_000 * probs / probs.sum()).numpy()).pvalue > ALPHA


def logistic_cdf_within(x, end=2.5):
    """Of the standard logistic distribution, cut at ±end."""
    cdf = scipy.stats.logistic.cdf
    return (cdf(x) - cdf(-end)) / (cdf(end) - cdf(-end))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_concrete_samples_have_their_distribution(temperature):
    """Kolmogorov-Smirnov test against the logistic distribution, of one weight and of the log-ratio of two."""
    logit = 0.7
    one = concrete_sample(TorchBernoulli(logits=torch.full((20_000,), logit).double()), temperature)
    two = concrete_sample(TorchCategorical(logits=torch.tensor([0.0, logit]).double().expand(20_000, 2)), temperature)
    assert two.sum(-1).allclose(torch.ones(20_000).double())
    for log_ratio in (one.logit(), two[:, 1].log() - two[:, 0].log()):
        noise = temperature * log_ratio - logit
        finite = noise.isfinite()  # beyond ±37 / temperature a weight is 1 to the bit
        assert finite.float().mean() > 0.9
        inside = noise[finite & (noise.abs() < 2.5)]
        assert scipy.stats.kstest(inside.numpy(), logistic_cdf_within).pvalue > ALPHA


def test_extreme_logits_leave_finite_weights_and_gradients():
    for logits in ([1e4, -1e4, 0.0], [0.0, 0.0, -1e30]):
        given = torch.tensor(logits).expand(1000, 3).requires_grad_()
        weights = concrete_sample(TorchCategorical(logits=given), 0.1)
        (gradient,) = torch.autograd.grad((weights * torch.tensor([1.0, 2.0, 3.0])).sum(), given)
        assert weights.isfinite().all()
        assert gradient.isfinite().all()


# ------------------------------------------------------------------ what they estimate, in one step

NUMBER, BATCHES = 2000, 50


def estimates(estimator, env, policy):
    """Gradients of 50 batches of 2,000 episodes; of the return, so the surrogate's sign is turned."""
    rows = []
    for seed in range(BATCHES):
        for episodes in estimator.collect(env, policy, seed):
            loss = surrogate_loss(estimator, NoBaseline(), policy, episodes, 1.0).loss
            rows.append(-flat_gradient(loss, policy))
    return torch.stack(rows)


def largest_z(table, expected):
    error = table.std(dim=0) / len(table) ** 0.5
    return float(((table.mean(dim=0) - expected) / error).abs().max())


def threshold(table):
    return scipy.stats.t.isf(ALPHA / 2 / table.shape[1], len(table) - 1)


def objective(env, policy, payoff):
    """E f of the choosing policy, by enumeration."""
    probs = policy(torch.ones(1, dtype=torch.float64)).probs.reshape(-1)
    probs = torch.cat((1 - probs, probs)) if len(probs) == 1 else probs
    return probs @ payoff(env.dynamics.values)


def biased_objective(env, policy, payoff):
    """Whose gradient is Σ_k p_k f'(v_k) Σ_j v_j ∇p_j, the expectation of the straight-through estimate."""
    probs = policy(torch.ones(1, dtype=torch.float64)).probs.reshape(-1)
    probs = torch.cat((1 - probs, probs)) if len(probs) == 1 else probs
    values = env.dynamics.values.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(payoff(values).sum(), values)
    return (probs.detach() @ slopes) * (probs @ env.dynamics.values)


def by_policy(value, policy):
    return flat_gradient(value, policy)


@pytest.mark.parametrize(("head", "values"), [(Bernoulli, [-0.5, 1.5]), (Categorical, [-1.0, 0.3, 2.0])])
def test_straight_through_is_exact_for_linear_payoffs_and_biased_for_others(head, values):
    """The expectation is known in both cases, and the label is earned: a z-test tells it from the exact gradient."""
    for payoff in (straight, square):
        env = TorchEnvironment(Choice(values, payoff), NUMBER, dtype=torch.float64)
        policy = linear(env, head, spread=0.5)
        exact, expected = (by_policy(f(env, policy, payoff), policy) for f in (objective, biased_objective))
        table = estimates(StraightThrough(), env, policy)
        if payoff is straight:
            torch.testing.assert_close(exact, expected)
            torch.testing.assert_close(table, exact.expand_as(table))  # no variance: every sample has one slope
        else:
            assert largest_z(table, expected) < threshold(table)
            assert largest_z(table, exact) > 2.0 * threshold(table)
    assert StraightThrough(window=None).bias(1.0) == (
        "the derivative of hard choices is taken to be that of soft weights",
    )
    assert len(StraightThrough(window=20).bias(1.0)) == 2


def concrete_objective(logit, payoff, values, temperature):
    """E f of the binary Concrete policy, by quadrature."""

    def integrand(noise):
        weight = scipy.special.expit((logit + noise) / temperature)
        x = torch.tensor(values[0] + weight * (values[1] - values[0]), dtype=torch.float64)
        return float(payoff(x)) * scipy.stats.logistic.pdf(noise)

    return scipy.integrate.quad(integrand, -40, 40, limit=400, points=[-logit])[0]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_gumbel_softmax_is_exact_for_the_relaxed_policy_and_biased_for_the_other(temperature):
    values = [-0.5, 1.5]
    env = TorchEnvironment(Choice(values, square), NUMBER, dtype=torch.float64)
    policy = linear(env, Bernoulli, spread=0.5)
    logit = policy(torch.ones(1, dtype=torch.float64)).logits.item()
    around = [concrete_objective(logit + step, square, values, temperature) for step in (1e-4, -1e-4)]
    slope = (around[0] - around[1]) / 2e-4  # by the logit, and so by its weight and by its bias
    table = estimates(GumbelSoftmax(temperature), env, policy)
    assert largest_z(table, torch.full((2,), slope, dtype=torch.float64)) < threshold(table)
    exact = by_policy(objective(env, policy, square), policy)
    assert largest_z(table, exact) > 2.0 * threshold(table)
    assert GumbelSoftmax(temperature, window=None).bias(1.0) == ("acts by relaxed weights, not by choices",)
    assert len(GumbelSoftmax(temperature, window=20).bias(1.0)) == 2


@pytest.mark.parametrize("choices", [2, 3])
def test_straight_through_with_a_temperature_is_known_by_quadrature(choices):
    """E[f'(v_a) ∂ soft / ∂ logit], for two choices by a Bernoulli, or by a Categorical whose third never comes."""
    values, temperature = [-0.5, 1.5, 9.0][:choices], 0.8
    env = TorchEnvironment(Choice(values, square), NUMBER, dtype=torch.float64)
    policy = linear(env, Bernoulli if choices == 2 else Categorical, spread=0.5)
    with torch.no_grad():
        if choices == 3:
            policy.head.logits.bias[2] = -200.0
    logits = policy.head.logits(torch.ones(1, dtype=torch.float64)).detach()
    logit = float(logits[0]) if choices == 2 else float(logits[1] - logits[0])

    def integrand(noise):
        soft = scipy.special.expit((logit + noise) / temperature)
        hard = values[1] if logit + noise > 0 else values[0]
        slope = (2 * hard + 1) * (values[1] - values[0])
        return slope * soft * (1 - soft) / temperature * scipy.stats.logistic.pdf(noise)

    parts = [scipy.integrate.quad(integrand, *part, limit=400)[0] for part in ((-40, -logit), (-logit, 40))]
    expected = torch.tensor([-sum(parts), sum(parts)], dtype=torch.float64)
    table = estimates(StraightThrough(temperature), env, policy)
    table = table[:, :2] if choices == 3 else torch.stack((-table[:, 0], table[:, 0]), dim=1)
    assert largest_z(table, expected) < threshold(table)


# ------------------------------------------------------------------ over several steps


@pytest.mark.parametrize(("head", "torques"), [(Bernoulli, 2), (Categorical, 3)])
@pytest.mark.parametrize("bootstrap", [False, True])
def test_gumbel_softmax_has_the_gradient_of_finite_differences_at_fixed_noise(head, torques, bootstrap):
    """Of the first window's loss through the pendulum, with the value network at its end or without."""
    env = TorchEnvironment(Pendulum(torques), 4, dtype=torch.float64)
    policy = linear(env, head, spread=0.5)
    baseline = NoBaseline()
    if bootstrap:
        baseline = Value((3,), lambda parameters: torch.optim.SGD(parameters, 0.1), (8,)).double()
    estimator = GumbelSoftmax(temperature=0.7, window=5)

    def loss():
        torch.manual_seed(0)
        window = next(estimator.collect(env, policy, 3))
        return surrogate_loss(estimator, baseline, policy, window, 0.95).loss

    for parameter in policy.parameters():
        (analytic,) = torch.autograd.grad(loss(), parameter)
        assert (analytic != 0).any()
        for index in range(parameter.numel()):
            around = []
            for step in (1e-5, -1e-5):
                parameter.data.view(-1)[index] += step
                around.append(loss().item())
                parameter.data.view(-1)[index] -= step
            assert float(analytic.view(-1)[index]) == pytest.approx((around[0] - around[1]) / 2e-5, rel=1e-5, abs=1e-7)


def test_straight_through_is_the_chain_of_slopes_at_the_chosen_torques():
    """The gradient of a pendulum's window, by hand: each torque's slope is that of the policy's mean torque."""
    env = TorchEnvironment(Pendulum(3), 4, dtype=torch.float64)
    policy = linear(env, Categorical, spread=0.5)
    estimator = StraightThrough(window=6)
    episodes = next(estimator.collect(env, policy, 1))
    loss = surrogate_loss(estimator, NoBaseline(), policy, episodes, 0.9).loss
    actual = flat_gradient(loss, policy)
    torques = torch.tensor([-2.0, 0.0, 2.0], dtype=torch.float64)
    pendulum = TorchEnvironment(Pendulum(), 4, dtype=torch.float64)
    observation, total = pendulum.reset(1), 0.0
    for t in range(6):
        mean = policy(observation).probs @ torques
        step = pendulum.step((torques[episodes.actions[t]] + mean - mean.detach()).unsqueeze(-1))
        total, observation = total + 0.9**t * step.rewards.mean(), step.observations
    torch.testing.assert_close(actual, flat_gradient(-total, policy))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: StraightThrough(temperature=0.0), "temperature=0.0 must be above 0"),
        (lambda: StraightThrough(window=0), "window=0 must be at least 1"),
        (lambda: GumbelSoftmax(temperature=None), "temperature=None must be above 0"),
        (lambda: GumbelSoftmax(temperature=1e3), "at most 100"),
        (lambda: GumbelSoftmax(window=-1), "window=-1 must be at least 1"),
    ],
)
def test_other_options_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
