"""Lanes: episodes that ended are left out or followed by others, and nothing of the batch shows it."""

import gymnasium as gym
import numpy as np
import pytest
import scipy.stats
import torch
from tiers import slow

from scorepath.distributions import Bernoulli, Normal
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import AbstractDynamics
from scorepath.errors import ConfigError, NonFiniteError
from scorepath.policy import MLP, Policy
from scorepath.rollout import lanes, rollout
from scorepath.types import Episodes

ALPHA = 1e-6  # of each statistical test, whose seeds are fixed
SCRIPTED = "ScorepathTest/Scripted-v0"  # lengths are uniform on 1 .. 12


class Coin(AbstractDynamics):
    """Each step ends the episode if the action is above 1: with probability 0.1587 for a standard normal."""

    name = "coin"
    max_episode_steps = 30
    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def initial(self, generator, number):
        return np.stack((generator.uniform(size=number), np.zeros(number)), axis=1)

    def transition(self, state, action):
        return torch.stack((state[:, 0], (action[:, 0] > 1.0).to(state)), dim=1)

    def reward(self, state, action, next_state):
        return action[:, 0]

    def terminal(self, state):
        return state[:, 1] > 0.5

    def observation(self, state):
        return state


def standard_normal(env):
    policy = Policy(MLP(2, []), Normal(env.action_space, 2))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    return policy


def leaning(env):
    """A Bernoulli policy that keeps CartPole up for a while, or flips coins elsewhere."""
    size = env.observation_space.shape[0]
    policy = Policy(MLP(size, []), Bernoulli(env.action_space, size))
    with torch.no_grad():
        policy.head.logits.weight.zero_()
        policy.head.logits.bias.zero_()
        if size == 4:
            policy.head.logits.weight[0, 2:] = 3.0
    return policy


def played(env, policy, seed=0, **options) -> tuple[Episodes, int]:
    """Episodes, and how many env steps were computed for them."""
    computed = 0
    step = env.step

    def counted(actions, playing=None):
        nonlocal computed
        computed += len(actions)
        return step(actions, playing)

    env.step = counted
    try:
        return rollout(env, policy, seed, **options), computed
    finally:
        env.step = step


# ------------------------------------------------------------------ left out


@pytest.mark.parametrize("number", [3, 8, 64])
@pytest.mark.parametrize("vectorization", ["auto", "sync", "torch"])
def test_nine_tenths_of_the_steps_computed_are_steps_of_episodes(make, vectorization, number):
    if vectorization == "torch":
        env = TorchEnvironment(Coin(), number)
        policy = standard_normal(env)
    else:
        env = make("CartPole-v1", number, vectorization)
        policy = leaning(env)
    for seed in range(3):
        episodes, computed = played(env, policy, seed)
        assert len(set(episodes.lengths.tolist())) > 1
        assert episodes.env_steps >= 0.9 * computed


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
@pytest.mark.parametrize("seed", [0, 1])
def test_leaving_lanes_out_changes_no_episode(make, vectorization, seed):
    """Of a policy without noise, for noise is drawn for the lanes that are left."""
    env = make("CartPole-v1", 16, vectorization)
    policy = leaning(env)
    with torch.no_grad():
        policy.head.logits.weight.copy_(torch.tensor([[0.5, 1.0, 2.0, 0.1]]))
    some, computed = played(env, policy, seed, deterministic=True)
    env.can_narrow = False
    every, all_computed = played(env, policy, seed, deterministic=True)
    assert computed < all_computed
    same_episodes(some, every)


def test_leaving_lanes_out_changes_no_episode_of_a_torch_environment():
    env = TorchEnvironment(Coin(), 50, dtype=torch.float64)
    policy = standard_normal(env).double()
    with torch.no_grad():
        policy.head.mean.weight[0, 0] = 1.3  # an episode ends at once if its state says so, else never
    some, computed = played(env, policy, deterministic=True)
    env.can_narrow = False
    every, all_computed = played(env, policy, deterministic=True)
    assert computed < all_computed
    assert some.terminated.any()
    assert some.truncated.any()
    same_episodes(some, every)


def same_episodes(one, other):
    for name in ("valid", "terminated", "truncated", "last_observations", "rewards"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("observations", "actions"):
        assert torch.equal(getattr(one, name)[one.valid], getattr(other, name)[one.valid]), name


@pytest.mark.parametrize("number", [1, 2, 40])
def test_looking_seldom_changes_no_episode(monkeypatch, number):
    """As on a device, where a look makes the host wait."""
    env = TorchEnvironment(Coin(), number, dtype=torch.float64)
    policy = standard_normal(env).double()
    with torch.no_grad():
        policy.head.mean.weight[0, 0] = 1.3
    expected, _ = played(env, policy, deterministic=True)
    begin = lanes.Lanes.__init__

    def begin_without_looking(self, *args, **kwargs):
        begin(self, *args, **kwargs)
        self._looks = False

    monkeypatch.setattr(lanes.Lanes, "__init__", begin_without_looking)
    monkeypatch.setattr(lanes, "_GLANCE", 7)
    actual, _ = played(env, policy, deterministic=True)
    rows = len(expected.rewards)
    assert not actual.valid[rows:].any()
    for name in ("valid", "observations", "actions", "rewards"):
        trimmed = getattr(actual, name)[:rows]
        assert torch.equal(trimmed[expected.valid], getattr(expected, name)[expected.valid]), name
    for name in ("terminated", "truncated", "last_observations"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name


def test_a_reset_brings_all_lanes_back(make):
    for env in (make("CartPole-v1", 8), make("CartPole-v1", 8, "sync"), TorchEnvironment(Coin(), 8)):
        policy = standard_normal(env) if isinstance(env, TorchEnvironment) else leaning(env)
        first = [played(env, policy, 3)[0] for _ in range(2) if torch.manual_seed(0)]
        same_episodes(*first)
        assert first[0].rewards.shape[1] == 8


# ------------------------------------------------------------------ followed by others


@pytest.mark.parametrize(("number", "workers"), [(5, 1), (6, 4), (23, 2), (4, 4)])
def test_each_worker_begins_another_episode_until_all_were_begun(make, number, workers):
    """Every column is one whole episode: steps count up from its start, and its mark does not change."""
    env = make(SCRIPTED, number, "async", workers=workers, kwargs={"length": None})
    for seed in (0, 1):
        episodes, _ = played(env, leaning(env), seed)
        assert episodes.rewards.shape[1] == number
        assert episodes.terminated.all()
        assert not episodes.truncated.any()
        assert torch.equal(episodes.last_observations[:, 0].long(), episodes.lengths)
        assert len(episodes.rewards) == episodes.lengths.max()
        valid = episodes.valid
        counts = torch.arange(len(valid)).unsqueeze(1).expand_as(valid)
        assert torch.equal(episodes.observations[..., 0][valid].long(), counts[valid])
        starts = episodes.observations[0, :, 1]
        assert len(set(starts.tolist())) == number
        assert torch.equal(episodes.observations[..., 1][valid], starts.expand_as(valid)[valid])
        assert torch.equal(episodes.last_observations[:, 1], starts)
        assert torch.equal(episodes.rewards[valid], episodes.actions[valid])


def test_workers_play_the_same_episodes_for_the_same_seeds(make):
    env = make(SCRIPTED, 9, "async", workers=2, kwargs={"length": None})
    some = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        some.append(played(env, leaning(env), seed)[0])
    same_episodes(*some[:2])
    assert not torch.equal(some[0].lengths, some[2].lengths)


def test_workers_that_end_are_few(make):
    """At the end of a batch, workers wait for the last; the more episodes each plays, the less that is."""
    env = make(SCRIPTED, 200, "async", workers=4, kwargs={"length": None})
    episodes, computed = played(env, leaning(env))
    resets = 200 - 4
    assert episodes.env_steps + resets >= 0.95 * computed


def test_an_environment_whose_episode_has_ended_stands_still(make):
    """Of so many that the first to end are not left out yet; Python environments need not bear a step after the end."""
    env = make(SCRIPTED, 40, "sync", kwargs={"length": None})
    lengths = rollout(env, leaning(env), 0).lengths
    assert [player.env.unwrapped.steps for player in env.lanes._players] == lengths.tolist()


def test_a_bad_first_observation_of_a_later_episode_is_refused(make):
    """The answer to the step that begins it, while another lane plays on."""
    env = make(SCRIPTED, 9, "async", workers=2, kwargs={"length": None, "bad_after_first_episode": True})
    with pytest.raises(NonFiniteError, match="gave an observation that is not finite"):
        rollout(env, leaning(env), 0)


@pytest.mark.parametrize(
    ("vectorization", "options"), [("sync", {}), ("async", {"workers": 4}), slow("async", {"workers": 1})]
)
def test_lengths_have_their_exact_distribution(make, vectorization, options):
    """Neither what is left out nor what follows counts short episodes first: uniform on 1 .. 12 by chi-square."""
    env = make(SCRIPTED, 150, vectorization, kwargs={"length": None}, **options)
    policy = leaning(env)
    counts = torch.zeros(13)
    for seed in range(4):
        counts += torch.bincount(rollout(env, policy, seed).lengths, minlength=13)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:].numpy()).pvalue > ALPHA


def test_lengths_of_a_torch_environment_are_geometric():
    env = TorchEnvironment(Coin(), 4000)
    lengths = rollout(env, standard_normal(env), 0).lengths.numpy()
    p = scipy.stats.norm.sf(1.0)
    probability = scipy.stats.geom.pmf(np.arange(1, 30), p)
    expected = 4000 * np.append(probability, 1.0 - probability.sum())
    kept = np.append(expected[:25], expected[25:].sum())  # few are longer
    counts = np.bincount(lengths, minlength=31)[1:]
    actual = np.append(counts[:25], counts[25:].sum())
    assert scipy.stats.chisquare(actual, kept).pvalue > ALPHA


def test_counting_the_first_episodes_to_end_would_be_found_out(make):
    """The test above has the power to: of 4 workers' episodes, those that end first are short."""
    env = make(SCRIPTED, 150, "sync", kwargs={"length": None})
    lengths = rollout(env, leaning(env), 0).lengths.sort().values[:75]
    counts = torch.bincount(lengths, minlength=13)[1:]
    assert scipy.stats.chisquare(counts.numpy()).pvalue < ALPHA


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_workers_are_refused_where_lanes_are_left_out(vectorization):
    with pytest.raises(ConfigError, match=f"workers=2 has no meaning for env.vectorization={vectorization}"):
        GymnasiumEnvironment("CartPole-v1", 4, vectorization, workers=2)


# ------------------------------------------------------------------ EnvPool


@pytest.fixture
def pool(make):
    pytest.importorskip("envpool")

    def build(*args, **kwargs):
        return make(*args, vectorization="envpool", **kwargs)

    return build


@pytest.mark.parametrize("workers", [1, 3, None])
def test_envpool_plays_whole_episodes_up_to_the_time_limit(pool, workers):
    env = pool("CartPole-v1", 40, workers=workers, max_episode_steps=25)
    policy = leaning(env)
    torch.nn.init.zeros_(policy.head.logits.weight)
    episodes, _ = played(env, policy)
    assert env.reward_threshold == 475.0
    assert episodes.truncated.any()
    assert episodes.terminated.any()
    assert (episodes.lengths[episodes.truncated] == 25).all()
    assert torch.equal(episodes.episode_returns, episodes.lengths.float())
    assert (episodes.observations[0].abs() <= 0.05).all()
    fallen = episodes.last_observations[episodes.terminated]
    assert ((fallen[:, 2].abs() > 0.2095 - 1e-3) | (fallen[:, 0].abs() > 2.4 - 1e-3)).all()


def test_envpool_starts_from_its_seed_and_cannot_be_set_back(pool):
    def observations(seed):
        env = pool("CartPole-v1", 6, workers=3)
        torch.manual_seed(0)
        return [rollout(env, leaning(env), number).observations[0] for number in (seed, seed)], env.irreproducible

    (first, second), reason = observations(5)
    (again, _), _ = observations(5)
    (other, _), _ = observations(6)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)
    assert "resumed" in reason


def test_envpool_s_refusals(pool):
    with pytest.raises(ConfigError, match=r"env.id=CartPole-v7 is not one of EnvPool's environments: did you mean"):
        pool("CartPole-v7", 2)
    with pytest.raises(ConfigError, match=r"env.id=CartPole-v1 cannot be made .*gravity_of_the_moon.*env.kwargs"):
        pool("CartPole-v1", 2, kwargs={"gravity_of_the_moon": 1})
