"""Rollouts: windows, masks and graphs against plain loops and gradients unrolled by hand."""

import itertools

import cases
import gymnasium as gym
import numpy as np
import pytest
import torch
from making import linear

from scorepath.distributions import Bernoulli
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, AbstractDynamics, Pendulum
from scorepath.errors import NonFiniteError
from scorepath.rollout import evaluate, rollout, rollout_windows
from scorepath.seeding import split_seed

SCRIPTED = "ScorepathTest/Scripted-v0"


def balancing(env):
    """Keeps CartPole's pole up for 500 steps: push to where it leans and falls."""
    policy = linear(env, Bernoulli, dtype=torch.float32)
    with torch.no_grad():
        policy.head.logits.weight.copy_(torch.tensor([[0.0, 0.0, 100.0, 100.0]]))
        policy.head.logits.bias.zero_()
    return policy


# ------------------------------------------------------------------ whole episodes


def test_a_rollout_is_the_plain_gymnasium_loop_of_its_seeds_and_actions(make):
    """Observations, rewards, lengths, terminations and last observations, for episodes of different lengths."""
    env = make("CartPole-v1", 8, "sync", max_episode_steps=25)
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 42)
    for n, seed in enumerate(split_seed(42, 8)):
        plain = gym.make("CartPole-v1", max_episode_steps=25)
        observation, _ = plain.reset(seed=seed)
        for t in itertools.count():
            assert episodes.valid[t, n]
            assert np.array_equal(episodes.observations[t, n].numpy(), observation)
            observation, reward, terminated, truncated, _ = plain.step(int(episodes.actions[t, n]))
            assert episodes.rewards[t, n] == reward
            if terminated or truncated:
                break
        assert episodes.lengths[n] == t + 1
        assert not episodes.valid[t + 1 :, n].any()
        assert (episodes.rewards[t + 1 :, n] == 0).all()
        assert bool(episodes.terminated[n]) == terminated
        assert bool(episodes.truncated[n]) == (truncated and not terminated)
        assert np.array_equal(episodes.last_observations[n].numpy(), observation)
        plain.close()
    assert len(episodes.rewards) == episodes.lengths.max()
    # both ends occur, or the test shows little
    assert episodes.terminated.any()
    assert episodes.truncated.any()


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_early_falls_are_terminations(make, vectorization):
    env = make("CartPole-v1", 8, vectorization)
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 0)
    assert episodes.terminated.all()
    assert not episodes.truncated.any()
    assert (episodes.lengths < 500).all()
    assert torch.equal(episodes.episode_returns, episodes.lengths.float())  # one a step; autoreset's step gives 0
    angle, position = episodes.last_observations[:, 2].abs(), episodes.last_observations[:, 0].abs()
    assert ((angle > 0.2095 - 1e-3) | (position > 2.4 - 1e-3)).all()


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_a_pole_kept_up_to_the_limit_is_truncated(make, vectorization):
    env = make("CartPole-v1", 3, vectorization)
    episodes = rollout(env, balancing(env), 0, deterministic=True)
    assert episodes.lengths.tolist() == [500, 500, 500]
    assert episodes.truncated.all()
    assert not episodes.terminated.any()
    assert (episodes.last_observations[:, 2].abs() < 0.2).all()


def test_pendulum_ends_by_its_time_limit(make):
    for env in (make("Pendulum-v1", 2), TorchEnvironment(Pendulum(), 2)):
        episodes = rollout(env, linear(env, dtype=torch.float32), 0)
        assert episodes.lengths.tolist() == [200, 200]
        assert episodes.truncated.all()
        assert not episodes.terminated.any()


def test_a_terminal_state_at_the_time_limit_is_terminated_not_truncated(make):
    """Gymnasium reports both; nothing follows, so the value of what follows is zero."""
    env = make(SCRIPTED, 2, kwargs={"length": 50})
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 0)
    assert episodes.lengths.tolist() == [50, 50]
    assert episodes.terminated.all()
    assert not episodes.truncated.any()


@pytest.mark.parametrize("truncates", [False, True, "first", "later"])
def test_lengths_and_ends_of_scripted_episodes(make, truncates):
    """The last observation holds the number of the step at which its episode ended, by the end of its first episode."""
    env = make(SCRIPTED, 20, kwargs={"length": None, "truncates": truncates})
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 1)
    assert len(set(episodes.lengths.tolist())) > 3
    assert torch.equal(episodes.last_observations[:, 0].long(), episodes.lengths)
    expected = truncates in (True, "first")
    assert episodes.truncated.tolist() == [expected] * 20
    assert episodes.terminated.tolist() == [not expected] * 20
    # rewards are the actions, and each episode's start marks all its observations
    valid = episodes.valid
    assert torch.equal(episodes.rewards[valid], episodes.actions[valid])
    starts = episodes.observations[0, :, 1]
    assert torch.equal(episodes.observations[..., 1][valid], starts.expand_as(valid)[valid])
    assert torch.equal(episodes.last_observations[:, 1], starts)


@pytest.mark.parametrize("truncates", ["first", "later"])
def test_the_end_of_an_episode_that_autoreset_began_is_not_that_of_the_first(make, truncates):
    """Of eight lanes some have played a second one to its end before the last first one has ended."""
    env = make(SCRIPTED, 8, "async", kwargs={"length": None, "truncates": truncates})
    env.can_narrow = False
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 0)
    assert len(set(episodes.lengths.tolist())) > 3
    assert episodes.truncated.tolist() == [truncates == "first"] * 8
    assert episodes.terminated.tolist() == [truncates == "later"] * 8


def test_a_rollout_carries_no_gradient(make):
    env = TorchEnvironment(LQR(horizon=3), 2)
    episodes = rollout(env, linear(env, dtype=torch.float32), 0)
    assert not any(value.requires_grad for value in (episodes.rewards, episodes.actions, episodes.last_observations))


def test_the_same_generator_state_and_seed_give_the_same_episodes(make):
    env = make("CartPole-v1", 4)
    policy = linear(env, Bernoulli, dtype=torch.float32)
    played = []
    for torch_seed, seed in ((0, 0), (0, 0), (1, 0), (0, 1)):
        torch.manual_seed(torch_seed)
        played.append(rollout(env, policy, seed))
    assert torch.equal(played[0].observations, played[1].observations)
    assert torch.equal(played[0].actions, played[1].actions)
    assert torch.equal(played[0].observations[0], played[2].observations[0])
    assert not torch.equal(played[0].actions[:8], played[2].actions[:8])
    assert not torch.equal(played[0].observations[0], played[3].observations[0])


def test_deterministic_rollouts_take_the_head_s_action():
    env = TorchEnvironment(LQR(horizon=4), 3)
    policy = linear(env, dtype=torch.float32)
    first = rollout(env, policy, 0, deterministic=True)
    assert torch.equal(rollout(env, policy, 0, deterministic=True).actions, first.actions)
    with torch.no_grad():
        torch.testing.assert_close(first.actions, policy(first.observations).mean)


def test_actions_are_recorded_before_they_are_mapped_to_the_space(make):
    env = make(SCRIPTED, 4, kwargs={"action_space": cases.SPACES["discrete_2_start"]})
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 0)
    assert set(episodes.actions.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(episodes.rewards, episodes.actions + 5)


# ------------------------------------------------------------------ windows


@pytest.mark.parametrize("window", [1, 7, 50, 1000])
@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_windows_end_to_end_are_the_whole_rollout(make, window, vectorization):
    env = make("CartPole-v1", 10, vectorization, max_episode_steps=20)
    policy = linear(env, Bernoulli, dtype=torch.float32)
    torch.manual_seed(1)
    whole = rollout(env, policy, 3)
    torch.manual_seed(1)
    windows = list(rollout_windows(env, policy, 3, window=window))
    assert whole.terminated.any()
    assert whole.truncated.any()
    assert torch.equal(torch.cat([part.valid for part in windows]), whole.valid)
    for name in ("observations", "actions", "rewards"):
        joined = torch.cat([getattr(part, name) for part in windows])
        assert torch.equal(joined[whole.valid], getattr(whole, name)[whole.valid]), name
    assert all(len(part.rewards) <= window for part in windows)
    assert all(part.valid.any() for part in windows)
    ended = torch.stack([part.terminated | part.truncated for part in windows])
    assert (ended.sum(dim=0) == 1).all()
    for name in ("terminated", "truncated"):
        assert torch.equal(torch.stack([getattr(part, name) for part in windows]).any(dim=0), getattr(whole, name))
    for n, part in enumerate(ended.int().argmax(dim=0)):
        # an episode ends in the last window that holds a step of it
        assert windows[part].valid[:, n].any()
        assert not any(later.valid[:, n].any() for later in windows[part + 1 :])
        assert torch.equal(windows[part].last_observations[n], whole.last_observations[n])


def test_the_last_observation_of_a_window_is_the_first_of_the_next():
    env = TorchEnvironment(LQR(horizon=10), 3)
    windows = list(rollout_windows(env, linear(env, dtype=torch.float32), 0, window=4))
    assert [len(part.rewards) for part in windows] == [4, 4, 2]
    for part, following in itertools.pairwise(windows):
        assert torch.equal(part.last_observations, following.observations[0])
        assert not part.truncated.any()
    assert windows[-1].truncated.all()


# ------------------------------------------------------------------ graphs


def unrolled(lqr, policy, state, steps):
    """Rewards of a linear Normal policy in the LQR, written out; draws its noise as rsample() does."""
    weight, bias, std = policy.head.mean.weight, policy.head.mean.bias, policy.head.log_std.exp()
    rewards = []
    for _ in range(steps):
        noise = torch.normal(torch.zeros(len(state), len(std), dtype=torch.float64), 1.0)
        force = state @ weight.T + bias + std * noise
        rewards.append(-((state @ lqr.Q) * state).sum(-1) - ((force @ lqr.R) * force).sum(-1))
        state = state @ lqr.A.T + force @ lqr.B.T
    return torch.stack(rewards), state


@pytest.mark.parametrize("dim", [1, 3])
def test_the_graph_of_a_rollout_is_that_of_the_unrolled_loop(dim):
    """Gradients of all rewards and of the last observations, in float64."""
    lqr = LQR(dim=dim, horizon=12)
    env = TorchEnvironment(lqr, 4, dtype=torch.float64)
    policy = linear(env)
    parameters = list(policy.parameters())
    torch.manual_seed(0)
    (episodes,) = rollout_windows(env, policy, 5, graph=True)
    torch.manual_seed(0)
    rewards, last = unrolled(lqr, policy, env.reset(5), 12)
    assert episodes.observations.dtype == torch.float64
    torch.testing.assert_close(episodes.rewards, rewards, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(episodes.last_observations, last, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(rewards)  # so that every single reward counts
    for given, expected in (((episodes.rewards * weights).sum(), (rewards * weights).sum()),
                            (episodes.last_observations.square().sum(), last.square().sum())):  # fmt: skip
        actual = torch.autograd.grad(given, parameters, retain_graph=True)
        wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
        for one, other in zip(actual, wanted, strict=True):
            assert (other != 0).all()
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_graph_is_cut_between_windows():
    """Each window's gradient is that of a loop from its first state, held fixed."""
    lqr = LQR(horizon=9)
    env = TorchEnvironment(lqr, 4, dtype=torch.float64)
    policy = linear(env)
    parameters = list(policy.parameters())
    torch.manual_seed(0)
    given = [(part.observations[0].detach(), torch.autograd.grad(part.rewards.sum(), parameters))
             for part in rollout_windows(env, policy, 5, window=4, graph=True)]  # fmt: skip
    assert len(given) == 3
    torch.manual_seed(0)
    for (state, gradients), steps in zip(given, (4, 4, 1), strict=True):
        rewards, _ = unrolled(lqr, policy, state, steps)
        for one, other in zip(gradients, torch.autograd.grad(rewards.sum(), parameters), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_policy_may_change_between_windows():
    """An update in between acts on what follows, and breaks no graph."""
    env = TorchEnvironment(LQR(horizon=6), 2, dtype=torch.float64)
    policy = linear(env)
    for part in rollout_windows(env, policy, 0, window=3, graph=True):
        (-part.rewards.sum()).backward()
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.sub_(0.01 * parameter.grad)
                parameter.grad = None


class Slide(AbstractDynamics):
    """x' = x + a / 10 - 0.3 until x' < 0, with reward √x: past its end it has no value, and no derivative."""

    name = "slide"
    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    max_episode_steps = 20
    differentiable = True

    def initial(self, generator, number):
        return generator.uniform(0.5, 2.0, size=(number, 1))

    def transition(self, state, action):
        return state + 0.1 * action.tanh() - 0.3

    def reward(self, state, action, next_state):
        return state.squeeze(-1).sqrt()

    def terminal(self, state):
        return state.squeeze(-1) < 0

    def observation(self, state):
        return state


@pytest.mark.parametrize("narrows", [False, True])
def test_rewards_after_an_episode_s_end_do_not_count(narrows):
    """Whatever the environment answers then, NaN too."""
    env = TorchEnvironment(Slide(), 6, dtype=torch.float64)
    env.can_narrow = narrows
    episodes = rollout(env, linear(env), 0)
    assert len(set(episodes.lengths.tolist())) > 1
    assert episodes.terminated.all()
    assert (episodes.last_observations < 0).all()
    expected = episodes.observations[..., 0].sqrt()
    assert expected.isnan().any() or narrows
    torch.testing.assert_close(episodes.rewards, torch.where(episodes.valid, expected, 0.0))


def test_what_happens_after_an_episode_s_end_does_not_reach_the_gradient():
    """The gradient of a batch of unequal lengths is that of each episode unrolled to its own end."""
    env = TorchEnvironment(Slide(), 6, dtype=torch.float64)
    policy = linear(env)
    parameters = list(policy.parameters())
    torch.manual_seed(0)
    (episodes,) = rollout_windows(env, policy, 0, graph=True)
    actual = torch.autograd.grad(episodes.rewards.sum(), parameters, allow_unused=True)
    torch.manual_seed(0)
    noise = [torch.normal(torch.zeros(6, 1, dtype=torch.float64), 1.0) for _ in range(len(episodes.rewards))]
    total = torch.zeros((), dtype=torch.float64)
    for n, length in enumerate(episodes.lengths.tolist()):
        state = episodes.observations[0, n].detach()
        for t in range(length):
            action = policy.head.mean(state) + policy.head.log_std.exp() * noise[t][n]
            total = total + state.sqrt().sum()
            state = state + 0.1 * action.tanh() - 0.3
    for one, other in zip(actual, torch.autograd.grad(total, parameters), strict=True):
        assert other.abs().sum() > 0
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------ faulty environments


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_gymnasium_fault_ends_the_rollout_by_name(make, what):
    env = make(SCRIPTED, 2, kwargs={f"bad_{what}": 3})
    with pytest.raises(NonFiniteError, match=rf"gave an? {what} .* step 3 after action .* seed {split_seed(9, 2)[0]}"):
        rollout(env, linear(env, Bernoulli, dtype=torch.float32), 9)


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize(("vectorization", "number", "length"), [("sync", 6, 2), ("sync", 6, None), ("async", 3, None)])
def test_an_environment_may_answer_nan_after_an_episode_s_end(make, vectorization, number, length, truncates):
    """Here every second episode, which autoreset begins while others still play their first."""
    kwargs = {"length": length, "truncates": truncates, "bad_after_first_episode": True}
    env = make(SCRIPTED, number, vectorization, kwargs=kwargs)
    env.can_narrow = False
    episodes = rollout(env, linear(env, Bernoulli, dtype=torch.float32), 0)
    assert episodes.rewards.isfinite().all()
    assert episodes.observations[episodes.valid].isfinite().all()
    assert episodes.last_observations.isfinite().all()


class Faulty(Slide):
    """Rewards are NaN, or infinite, once x < 1; or the observation is."""

    def __init__(self, what, bad):
        self.what, self.bad = what, bad

    def reward(self, state, action, next_state):
        reward = state.squeeze(-1).abs()
        return torch.where(reward < 1.0, self.bad, reward) if self.what == "reward" else reward

    def observation(self, state):
        return torch.where(state < 0.0, self.bad, state) if self.what == "observation" else state


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("window", [None, 2])
def test_a_torch_reward_that_is_not_finite_names_step_action_and_seed(bad, window, graph):
    env = TorchEnvironment(Faulty("reward", bad), 1, dtype=torch.float64)
    start = float(env.reset(1))
    assert start > 1.2
    policy = linear(env)
    with torch.no_grad():
        policy.head.mean.weight.zero_()
        policy.head.mean.bias.zero_()
    # without force x falls by 0.3 a step; the reward is paid for the state before
    step = next(t for t in itertools.count(1) if start - 0.3 * (t - 1) < 1.0)
    with pytest.raises(NonFiniteError, match=rf"slide gave a reward .* step {step} after action .* seed 1:"):
        for _ in rollout_windows(env, policy, 1, window=window, graph=graph, deterministic=True):
            pass


def test_a_torch_observation_that_is_not_finite_is_refused():
    env = TorchEnvironment(Faulty("observation", float("nan")), 2, dtype=torch.float64)
    with pytest.raises(NonFiniteError, match="slide gave an observation"):
        rollout(env, linear(env), 0)


# ------------------------------------------------------------------ evaluation


def test_evaluate_counts_exactly_as_many_episodes_as_asked(make):
    env = make(SCRIPTED, 4, kwargs={"length": None})
    policy = linear(env, Bernoulli, dtype=torch.float32)
    for number, rounds in ((1, 1), (4, 1), (5, 2), (10, 3)):
        seeds = iter(range(100, 200))
        evaluation = evaluate(env, policy, seeds, number)
        assert evaluation.returns.shape == evaluation.lengths.shape == (number,)
        assert next(seeds) == 100 + rounds  # one seed a round


def test_evaluate_takes_the_last_round_s_episodes_by_index(make):
    """Not the first to end, which would favour short episodes."""
    env = make(SCRIPTED, 4, kwargs={"length": None})
    policy = linear(env, Bernoulli, dtype=torch.float32)
    torch.manual_seed(0)
    evaluation = evaluate(env, policy, iter((7, 8, 9)), 10)
    torch.manual_seed(0)
    played = [rollout(env, policy, seed) for seed in (7, 8, 9)]
    assert evaluation.lengths.tolist() == torch.cat([episodes.lengths for episodes in played])[:10].tolist()
    assert evaluation.returns.tolist() == torch.cat([episodes.episode_returns for episodes in played])[:10].tolist()


def test_a_deterministic_evaluation_needs_no_noise():
    env = TorchEnvironment(LQR(horizon=5), 3)
    policy = linear(env, dtype=torch.float32)
    first = evaluate(env, policy, iter((1, 2)), 5, deterministic=True)
    assert torch.equal(evaluate(env, policy, iter((1, 2)), 5, deterministic=True).returns, first.returns)
    assert not torch.equal(evaluate(env, policy, iter((1, 2)), 5).returns, first.returns)
