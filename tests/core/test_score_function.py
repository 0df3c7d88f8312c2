"""The score function: against the textbook's loop, and the enumeration of every episode. Formulas written out."""

import itertools
from dataclasses import replace
from functools import cache

import pytest
import torch
from gymnasium import spaces
from making import close, flat, flat_gradient, gradient, linear
from torch import nn

from scorepath.baselines import BatchMean, TimeMean, Value
from scorepath.distributions import Bernoulli, Categorical
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR
from scorepath.estimators import ScoreFunction
from scorepath.policy import MLP, Policy
from scorepath.rollout import rollout
from scorepath.types import Episodes
from scorepath.update import losses, surrogate_loss

pytestmark = pytest.mark.core

PLAIN = ScoreFunction(normalize_returns="none")


@cache
def scripted():
    """Six episodes of CartPole, of different lengths, and the policy that played them."""
    env = GymnasiumEnvironment("CartPole-v1", 6, "sync", max_episode_steps=15)
    policy = linear(env, Categorical, dtype=torch.float32)
    episodes = rollout(env, policy, 0)
    env.close()
    rewards = torch.randn(episodes.valid.shape, dtype=torch.float64) * episodes.valid  # 1 a step would hide much
    return replace(to_double(episodes), rewards=rewards, actions=episodes.actions), policy.double()


# ------------------------------------------------------------------ by loop


@pytest.mark.parametrize("credit", ["reward_to_go", "total_return"])
@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_the_score_function_is_the_textbook_s_loop(credit, gamma):
    """1/N Σ_n Σ_t G_t ∇ log π(a_t | o_t), one autograd call a step, over episodes of different lengths."""
    episodes, policy = scripted()
    assert len(set(episodes.lengths.tolist())) > 2
    parameters = list(policy.parameters())
    expected = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for n, length in enumerate(episodes.lengths.tolist()):
        rewards = episodes.rewards[:length, n].tolist()
        for t in range(length):
            start = t if credit == "reward_to_go" else 0
            factor = sum(gamma ** (k - start) * rewards[k] for k in range(start, length))
            log_prob = policy(episodes.observations[t, n]).log_prob(episodes.actions[t, n])
            expected += factor * flat(torch.autograd.grad(log_prob, parameters)) / len(episodes.lengths)
    close(gradient(ScoreFunction(credit, "none"), policy, episodes, gamma=gamma), -expected)


def test_last_values_bootstrap_the_score_function_s_returns():
    """After a truncation the value of what follows is part of the return; it carries no gradient."""
    episodes, _ = scripted()
    values = torch.arange(1.0, 7.0, dtype=torch.float64, requires_grad=True)
    for credit in ("reward_to_go", "total_return"):
        returns = ScoreFunction(credit).returns(episodes, 0.9, values)
        assert not returns.requires_grad
        for n, length in enumerate(episodes.lengths.tolist()):
            total = sum(0.9**k * float(episodes.rewards[k, n]) for k in range(length))
            assert float(returns[0, n]) == pytest.approx(total + 0.9**length * (n + 1.0), rel=1e-12)


def test_batch_normalisation_whitens_the_advantages_over_valid_steps():
    episodes, policy = scripted()
    returns = PLAIN.returns(episodes, 0.99, None)
    chosen = returns[episodes.valid].numpy()
    factor = torch.zeros_like(returns)
    factor[episodes.valid] = torch.from_numpy((chosen - chosen.mean()) / chosen.std())
    log_prob = policy(episodes.observations).log_prob(episodes.actions)
    expected = torch.autograd.grad(-(log_prob * factor).sum() / returns.shape[1], list(policy.parameters()))
    close(gradient(ScoreFunction(), policy, episodes, gamma=0.99), flat(expected))


def test_running_normalisation_divides_by_the_deviation_of_earlier_returns_else_by_its_own():
    """Earlier ones that were all equal have none; nor is there one of advantages that are all equal."""
    episodes, policy = scripted()
    estimator = ScoreFunction(normalize_returns="running")
    advantages = torch.randn_like(episodes.rewards)
    own = advantages / advantages[episodes.valid].std(correction=0)
    close(estimator.weigh(policy, episodes, advantages, 1.0), own)
    assert (estimator.weigh(policy, episodes, torch.full_like(advantages, 3.0), 1.0) == 3.0).all()
    estimator.observe(episodes, torch.full_like(advantages, 7.0))
    close(estimator.weigh(policy, episodes, advantages, 1.0), own)
    assert list(estimator.state_dict()) == ["moments.sums"]
    fresh = ScoreFunction(normalize_returns="running")
    returns = torch.where(episodes.valid, 5.0 + 2.0 * torch.randn_like(advantages), float("nan"))
    fresh.observe(episodes, returns)
    close(fresh.weigh(policy, episodes, advantages, 1.0), advantages / returns[episodes.valid].std(correction=0))
    fresh.double()(policy, episodes, advantages, 1.0)


@pytest.mark.parametrize("normalize", ["none", "episode", "batch"])
def test_other_normalisations_keep_nothing_between_updates(normalize):
    episodes, _ = scripted()
    estimator = ScoreFunction(normalize_returns=normalize)
    estimator.observe(episodes, episodes.rewards)
    assert not estimator.state_dict()


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_discounted_steps_weigh_step_t_by_gamma_to_the_t(gamma):
    episodes, policy = scripted()
    estimator = ScoreFunction(normalize_returns="none", discount_steps=True)
    returns = estimator.returns(episodes, gamma, None)
    factor = torch.stack([gamma**t * row for t, row in enumerate(returns)])
    log_prob = policy(episodes.observations).log_prob(episodes.actions)
    expected = torch.autograd.grad(-(log_prob * factor).sum() / returns.shape[1], list(policy.parameters()))
    close(gradient(estimator, policy, episodes, gamma=gamma), flat(expected))


def test_the_score_function_detaches_the_advantages():
    episodes, policy = scripted()
    advantages = torch.randn_like(episodes.rewards).requires_grad_()
    for normalize in ("none", "episode", "batch", "running"):
        loss, _ = ScoreFunction(normalize_returns=normalize)(policy, episodes, advantages, 1.0)
        loss.backward()
        assert advantages.grad is None


@pytest.mark.parametrize("normalize", ["none", "episode", "batch", "running"])
def test_nothing_beyond_an_episode_s_end_counts(normalize):
    """Observations, actions and advantages may be anything there."""
    episodes, policy = scripted()
    estimator = ScoreFunction(normalize_returns=normalize, entropy_coefficient=0.3)
    valid = episodes.valid
    advantages = torch.randn_like(episodes.rewards)
    loss, metrics = estimator(policy, episodes, advantages, 1.0)
    fields = {name: getattr(episodes, name) for name in Episodes.__dataclass_fields__}
    fields["observations"] = torch.where(valid[..., None], fields["observations"], float("nan"))
    fields["actions"] = torch.where(valid, fields["actions"], -7)
    other, other_metrics = estimator(policy, Episodes(**fields), torch.where(valid, advantages, float("nan")), 1.0)
    close(other, loss)
    close(other_metrics["train/entropy"], metrics["train/entropy"])


def test_the_entropy_bonus_is_the_mean_over_episodes_of_the_sum_over_valid_steps():
    """The same normaliser as the rest of the surrogate."""
    episodes, policy = scripted()
    without = gradient(PLAIN, policy, episodes)
    with_bonus = gradient(ScoreFunction("reward_to_go", "none", entropy_coefficient=0.7), policy, episodes)
    entropy = policy(episodes.observations).entropy()
    bonus = (entropy * episodes.valid).sum() / episodes.valid.shape[1]
    close(with_bonus - without, -0.7 * flat_gradient(bonus, policy))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScoreFunction(credit="gae"), "credit=gae: use one of reward_to_go, total_return"),
        (lambda: ScoreFunction(normalize_returns="std"), "=std: use one of none, episode, batch, running"),
        (lambda: ScoreFunction("total_return", "episode"), "episode leaves nothing of a total return.*: use credit="),
    ],
)
def test_other_options_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ------------------------------------------------------------------ by enumeration

REWARDS = {(0,): [1.5], (1, 0): [-0.5, 2.0], (1, 1): [-0.5, 7.0]}  # action 0 at the start ends the episode
OBSERVATIONS = torch.tensor([[1.0, 0.3], [-0.4, 1.0]], dtype=torch.float64)


def coin(in_features=2):
    policy = Policy(MLP(in_features, []), Bernoulli(spaces.Discrete(2), in_features)).double()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.normal_(0.0, 0.7)
    return policy


def batch_of(trajectories):
    """Episodes of given actions in the tree above."""
    time, number = max(map(len, trajectories)), len(trajectories)
    actions, rewards = torch.zeros(2, time, number, dtype=torch.float64)
    for n, trajectory in enumerate(trajectories):
        actions[: len(trajectory), n] = torch.tensor(trajectory, dtype=torch.float64)
        rewards[: len(trajectory), n] = torch.tensor(REWARDS[trajectory], dtype=torch.float64)
    ended = torch.ones(number, dtype=torch.bool)
    return Episodes(
        observations=OBSERVATIONS[:time, None].expand(time, number, 2),
        actions=actions,
        rewards=rewards,
        valid=torch.arange(time)[:, None] < torch.tensor([len(trajectory) for trajectory in trajectories]),
        terminated=ended,
        truncated=~ended,
        last_observations=torch.zeros(number, 2, dtype=torch.float64),
    )


def probability(policy, trajectory):
    steps = enumerate(trajectory)
    one = policy(OBSERVATIONS).probs
    return torch.stack([one[t] if action else 1.0 - one[t] for t, action in steps]).prod()


def expected_gradient(estimator, policy, number, baseline=None, gamma=1.0, trajectories=tuple(REWARDS)):
    """E[estimate], by enumeration of every batch of `number` episodes; the surrogate's sign is turned."""
    total = 0.0
    for batch in itertools.product(trajectories, repeat=number):
        weight = torch.stack([probability(policy, trajectory) for trajectory in batch]).prod().detach()
        total = total - weight * gradient(estimator, policy, batch_of(batch), baseline, gamma)
    return total


def exact_gradient(policy, gamma=1.0, trajectories=tuple(REWARDS)):
    """∇ of the expected discounted return, by enumeration of every episode."""
    objective = torch.zeros((), dtype=torch.float64)
    for trajectory in trajectories:
        value = sum(gamma**t * reward for t, reward in enumerate(REWARDS[trajectory]))
        objective = objective + value * probability(policy, trajectory)
    return flat_gradient(objective, policy)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("credit", ["reward_to_go", "total_return"])
def test_the_score_function_is_unbiased_for_any_number_of_episodes(credit, number):
    policy = coin()
    exact = exact_gradient(policy)
    assert (exact.abs() > 1e-3).all()
    close(expected_gradient(ScoreFunction(credit, "none"), policy, number), exact)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
def test_total_return_is_unbiased_for_the_discounted_objective(gamma):
    policy = coin()
    estimator = ScoreFunction("total_return", "none")
    close(expected_gradient(estimator, policy, 2, gamma=gamma), exact_gradient(policy, gamma))


def constant_value():
    """A value network that knows nothing, but is far from zero."""
    network = Value((2,), lambda parameters: torch.optim.SGD(parameters, 0.1), hidden_sizes=(4,)).double()
    nn.init.constant_(network.network[-1].bias, 5.0)
    return network


@pytest.mark.parametrize("make", [TimeMean, constant_value], ids=["time_mean", "value"])
@pytest.mark.parametrize("credit", ["reward_to_go", "total_return"])
def test_a_baseline_leaves_the_expected_gradient_of_episodes_that_terminate(make, credit):
    """Though they move every single batch's gradient."""
    policy, baseline = coin(), make()
    estimator = ScoreFunction(credit, "none")
    close(expected_gradient(estimator, policy, 2, baseline), exact_gradient(policy))
    batch = batch_of([(1, 0), (1, 1)])
    assert not torch.allclose(gradient(estimator, policy, batch, baseline), gradient(estimator, policy, batch))


@pytest.mark.parametrize("number", [2, 3])
def test_batch_mean_shrinks_the_gradient_by_1_minus_1_over_n(number):
    """Exactly so for episodes of one step: b contains the sample itself; the direction stays."""
    policy = coin()
    lotteries = {(0,): [1.0], (1,): [4.0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(REWARDS, (1,), lotteries[(1,)])
        exact = exact_gradient(policy, trajectories=tuple(lotteries))
        shrunk = expected_gradient(PLAIN, policy, number, BatchMean(), trajectories=tuple(lotteries))
    assert (exact.abs() > 1e-3).all()
    close(shrunk, (1.0 - 1.0 / number) * exact)


# ------------------------------------------------------------------ ways to compute one gradient


def score_function_case(**options):
    """CartPole episodes of different lengths, with their log-probabilities from the rollout."""
    env = GymnasiumEnvironment("CartPole-v1", 10, "sync")
    policy = Policy(MLP(4, [16]), Bernoulli(env.action_space, 16))
    torch.manual_seed(3)
    episodes = rollout(env, policy, 5, log_probs=True)
    env.close()
    return ScoreFunction(**options), policy, episodes


def test_log_probs_of_the_rollout_are_those_of_a_second_pass():
    estimator, policy, episodes = score_function_case()
    assert len(set(episodes.lengths.tolist())) > 3
    expected = policy(episodes.observations[episodes.valid]).log_prob(episodes.actions[episodes.valid])
    torch.testing.assert_close(episodes.log_probs[episodes.valid], expected, rtol=1e-5, atol=1e-6)
    gradients = []
    for played in (episodes, replace(episodes, log_probs=None)):
        loss, metrics = surrogate_loss(estimator, TimeMean(), policy, played, 0.9)[:2]
        gradients.append([*torch.autograd.grad(loss, list(policy.parameters())), metrics["train/entropy"]])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-2 if one.dim() == 0 else 1e-5)


@pytest.mark.parametrize(
    ("option", "number", "horizon", "kept"),
    [
        ("again", 8, 2, False),
        ("rollout", 8, 2, True),
        ("auto", 8, 2, False),  # narrow
        ("auto", 2048, 2, True),
        ("auto", 2048, 10**6, False),  # 16 GB, were no episode to end before its time limit
    ],
)
def test_log_probs_are_kept_if_told_or_if_that_is_fast_and_fits(option, number, horizon, kept):
    env = TorchEnvironment(Quitting(horizon), number)
    (episodes,) = ScoreFunction(log_probs=option).collect(env, linear(env, dtype=torch.float32), 0)
    assert (episodes.log_probs is not None) == kept


class Quitting(LQR):
    """Ends after a step."""

    terminates = True

    def __init__(self, horizon):
        super().__init__()
        self.max_episode_steps = horizon

    def terminal(self, state):
        return torch.ones(len(state), dtype=torch.bool)


def test_an_entropy_bonus_leaves_it_to_a_second_pass():
    assert ScoreFunction(entropy_coefficient=0.1).log_probs == "again"


def test_an_entropy_bonus_needs_a_second_pass():
    with pytest.raises(ValueError, match="log_probs=rollout keeps no entropies"):
        ScoreFunction(entropy_coefficient=0.1, log_probs="rollout")


@pytest.mark.parametrize("entropy_coefficient", [0.0, 0.3])
@pytest.mark.parametrize("chunk", [1, 100, 10**9, None])
def test_the_parts_of_a_loss_add_up_to_it(chunk, entropy_coefficient):
    estimator, policy, episodes = score_function_case(entropy_coefficient=entropy_coefficient)
    policy, episodes = policy.double(), to_double(replace(episodes, log_probs=None))
    whole = surrogate_loss(estimator, TimeMean(), policy, episodes, 0.9)
    parameters = list(policy.parameters())
    expected = torch.autograd.grad(whole.loss, parameters)
    parts = list(losses(estimator, policy, episodes, whole.weights, 0.9, chunk))
    time = len(episodes.rewards)
    assert len(parts) == {1: 10, 100: -(-10 // max(1, 100 // time)), 10**9: 1, None: 1}[chunk]
    torch.testing.assert_close(sum(loss for loss, _ in parts), whole.loss)
    torch.testing.assert_close(sum(metrics["train/entropy"] for _, metrics in parts), whole.metrics["train/entropy"])
    for loss, _ in parts:
        loss.backward()
    for parameter, whole_gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, whole_gradient, rtol=1e-10, atol=1e-12)


def to_double(episodes):
    changed = {name: getattr(episodes, name).double() for name in ("observations", "actions", "rewards")}
    return replace(episodes, **changed, last_observations=episodes.last_observations.double())
