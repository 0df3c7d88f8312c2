"""The policy gradient as `update.py` computes it, against the formulas written out: where a newcomer may begin.

Each test plays real episodes of a small environment, and works the same gradient out by hand.
"""

from functools import partial

import making
import pytest
import torch
from making import flat_gradient

from scorepath.baselines import LeaveOneOut, NoBaseline, SelfCritical
from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR
from scorepath.estimators import Pathwise, ScoreFunction
from scorepath.policy import MLP, Policy
from scorepath.seeding import Streams
from scorepath.update import losses, play, surrogate_loss, weigh

pytestmark = pytest.mark.core
GAMMA = 0.9
close = partial(making.close, tolerance=1e-5)
REINFORCE = ScoreFunction(credit="reward_to_go", normalize_returns="none")


@pytest.fixture
def cartpole():
    """Six episodes of CartPole-v1, which end after different numbers of steps, and who plays them."""
    env = GymnasiumEnvironment("CartPole-v1", 6)
    policy = Policy(MLP(4, []), Bernoulli(env.action_space, 4))
    yield env, policy
    env.close()


def play_one(env, policy, estimator=REINFORCE, baseline=None, seed=0, update=0):
    (episodes,) = play(env, policy, estimator, baseline or NoBaseline(), GAMMA, Streams(seed, update=update))
    return episodes


def test_the_score_function_is_minus_log_prob_times_return(cartpole):
    """-1/N Σ_n Σ_t log π(a_t | o_t) G_t, with G_t = Σ_{k >= t} γ^(k - t) r_k."""
    env, policy = cartpole
    episodes = play_one(env, policy)
    expected = 0.0
    for n, length in enumerate(episodes.lengths.tolist()):
        for t in range(length):
            log_prob = policy(episodes.observations[t, n]).log_prob(episodes.actions[t, n])
            G = sum(GAMMA ** (k - t) * float(episodes.rewards[k, n]) for k in range(t, length))
            expected = expected - log_prob * G / 6
    loss = surrogate_loss(REINFORCE, NoBaseline(), policy, episodes, GAMMA).loss
    close(loss.detach(), expected.detach())
    close(flat_gradient(loss, policy), flat_gradient(expected, policy))


def test_a_baseline_is_subtracted_from_the_returns(cartpole):
    """Of each episode the mean G_0 of the five others."""
    env, policy = cartpole
    episodes = play_one(env, policy)
    weighed = weigh(REINFORCE, LeaveOneOut(), policy, episodes, GAMMA)
    first = weighed.returns[0]
    close(weighed.advantages[0], first - (first.sum() - first) / 5)
    close(weighed.weights[episodes.valid], weighed.advantages[episodes.valid])  # nothing is normalised here


def test_the_pathwise_derivative_goes_through_the_environment():
    """-1/N Σ_n Σ_t γ^t r_t: its gradient is that of the rewards, by way of the rsample()d actions."""
    env = TorchEnvironment(LQR(horizon=5), 4)
    policy = Policy(MLP(env.observation_space.shape[0], []), Normal(env.action_space, env.observation_space.shape[0]))
    estimator = Pathwise(window=None)
    episodes = play_one(env, policy, estimator)
    discounts = GAMMA ** torch.arange(5.0).unsqueeze(1)
    expected = -(discounts * episodes.rewards).sum() / 4
    loss = surrogate_loss(estimator, NoBaseline(), policy, episodes, GAMMA).loss
    close(loss.detach(), expected.detach())
    (one,) = torch.autograd.grad(loss, [policy.head.mean.weight], retain_graph=True)
    (other,) = torch.autograd.grad(expected, [policy.head.mean.weight])
    close(one, other)
    assert one.abs().max() > 0.1


def test_the_parts_of_a_loss_add_up_to_it(cartpole):
    """Whose activations are in memory one after another."""
    env, policy = cartpole
    episodes = play_one(env, policy)
    whole = surrogate_loss(REINFORCE, NoBaseline(), policy, episodes, GAMMA)
    parts = [loss for loss, _ in losses(REINFORCE, policy, episodes, whole.weights, GAMMA, chunk=1)]
    assert len(parts) == 6
    close(sum(parts), whole.loss)
    close(sum(flat_gradient(part, policy) for part in parts), flat_gradient(whole.loss, policy))


def test_an_update_is_a_function_of_seed_rank_and_number(cartpole):
    """Whatever was drawn before: so a resumed run needs no state of a generator."""
    env, policy = cartpole
    first = play_one(env, policy, seed=1, update=7)
    torch.rand(100)
    play_one(env, policy, seed=1, update=8)
    again = play_one(env, policy, seed=1, update=7)
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.observations, again.observations)
    for other in (Streams(1, update=8), Streams(2, update=7), Streams(1, rank=1, update=7)):
        (episodes,) = play(env, policy, REINFORCE, NoBaseline(), GAMMA, other)
        assert not torch.equal(episodes.observations[0], first.observations[0])


def test_what_a_baseline_plays_leaves_the_episodes_as_they_are(cartpole):
    """The greedy episodes of self_critical start from the same resets, and draw from a stream of their own."""
    env, policy = cartpole
    plain, beside = play_one(env, policy), play_one(env, policy, baseline=SelfCritical())
    assert torch.equal(plain.actions, beside.actions)
    assert not plain.extras
    assert beside.extras["greedy_returns"].shape[1] == 6
