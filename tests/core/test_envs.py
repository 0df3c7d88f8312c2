"""Environments: the torch ones against Gymnasium and closed forms, Gymnasium's against a plain loop."""

import multiprocessing

import cases
import gymnasium as gym
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from gymnasium import spaces

from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.dynamics import LQR, AbstractDynamics, Pendulum
from scorepath.envs.gymnasium_env import missing_package
from scorepath.errors import ConfigError, NonFiniteError, ScorepathError
from scorepath.seeding import split_seed

ALPHA = 1e-6  # false-alarm rate of each statistical test here
SCRIPTED = "ScorepathTest/Scripted-v0"


def close(actual, expected, tolerance=1e-9):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------ torch environments


def test_every_original_has_a_line_in_twins():
    dynamics = {case.dynamics for case in cases.DYNAMICS if case.dynamics.original is not None}
    listed = {(twin, id) for twin, id in cases.TWINS}
    missing = {(twin, twin.original) for twin in dynamics} - listed
    assert not missing, f"append to tests/cases.py TWINS: {missing}"


@pytest.mark.parametrize(("dynamics", "id"), cases.TWINS, ids=lambda value: getattr(value, "name", value))
def test_a_twin_equals_the_original_over_1000_random_steps(dynamics, id):
    """In float64 and to 1e-9, with start states of the same seed; the original's observations are float32."""
    twin = TorchEnvironment(dynamics(), 1, dtype=torch.float64)
    original = gym.make(id, disable_env_checker=True)
    generator = np.random.default_rng(0)
    state = torch.zeros(0)
    steps, resets = 0, 0
    rounded = id in cases.ROUNDED_ORIGINALS
    while steps < 1000:
        observation = twin.reset(resets)
        given, _ = original.reset(seed=resets)
        state = torch.as_tensor(original.unwrapped.state, dtype=torch.float64)[None]
        close(twin.dynamics.observation(state), observation)
        close(observation[0], given, 1e-6)
        resets, over = resets + 1, False
        while not over:
            action = random_action(twin.action_space, generator)
            step = twin.step(torch.as_tensor(action)[None])
            given, reward, terminated, truncated, _ = original.step(action)
            state = torch.as_tensor(original.unwrapped.state, dtype=torch.float64)[None]
            close(step.observations, twin.dynamics.observation(state), 1e-7 if rounded else 1e-9)
            if rounded:
                twin._state = state
            close(step.observations[0], given, 1e-6)
            close(step.rewards, [reward])
            assert (bool(step.terminated), bool(step.truncated)) == (terminated, truncated)
            over = terminated or truncated
            steps += 1
    assert resets > 1
    original.close()


def random_action(space, generator):
    if isinstance(space, spaces.Discrete):
        return int(generator.integers(space.n))
    # beyond the bounds too, where the original clips; float64, for float32 would round inside the original
    return 1.5 * generator.uniform(space.low, space.high).astype(np.float64)


@pytest.mark.parametrize(("dynamics", "id"), cases.TWINS, ids=lambda value: getattr(value, "name", value))
def test_a_twin_equals_the_original_from_random_states(dynamics, id):
    """One step from 1,000 states all over the observation space, to 1e-9: rewards, terminations and next states."""
    twin, original = dynamics(), gym.make(id, disable_env_checker=True)
    generator = np.random.default_rng(1)
    width = twin.initial(generator, 1).shape[1]
    ended = 0
    for _ in range(1000):
        original.reset(seed=0)
        state = cases.TWIN_STATES.get(id, np.full(width, 3.0)) * generator.uniform(-1.0, 1.0, size=width)
        action = random_action(twin.action_space, generator)
        set_state(original, state)
        _, reward, terminated, _, _ = original.step(action)
        before, given = torch.as_tensor(state)[None], torch.as_tensor(action)[None]
        after = twin.transition(before, given)
        tolerance = 1e-7 if id in cases.ROUNDED_ORIGINALS else 1e-9
        close(after[0], np.asarray(original.unwrapped.state, dtype=np.float64), tolerance)
        close(twin.reward(before, given, after), [reward])
        over = bool(twin.terminal(after)) if twin.terminates else False
        assert over == terminated
        ended += terminated
    assert ended > 10 or not twin.terminates
    original.close()


def set_state(env, state):
    env.unwrapped.state = np.array(state, dtype=np.float64)


@pytest.mark.parametrize(("dynamics", "id"), cases.TWINS, ids=lambda value: getattr(value, "name", value))
def test_a_twin_has_the_spaces_and_limits_of_the_original(dynamics, id):
    twin, original = dynamics(), gym.make(id)
    assert twin.action_space == original.action_space
    assert twin.observation_space == original.observation_space
    assert twin.max_episode_steps == original.spec.max_episode_steps
    assert twin.reward_threshold == original.spec.reward_threshold
    original.close()


@pytest.mark.parametrize("case", cases.DYNAMICS, ids=lambda case: f"{case.option}-{case.kwargs}")
def test_torch_environments_keep_the_interface(case):
    """Shapes, dtypes, spaces, the time limit, purity of the reset, and what `differentiable` promises."""
    dynamics = case.dynamics(**case.kwargs)
    assert isinstance(dynamics, AbstractDynamics)
    env = TorchEnvironment(dynamics, 5, dtype=torch.float64)
    first = env.reset(3)
    assert torch.equal(env.reset(3), first)
    assert not torch.equal(env.reset(4), first)
    assert len({tuple(row.tolist()) for row in first}) == 5
    assert first.shape == (5, *env.observation_space.shape)
    env.reset(3)
    shape = (env.action_space.n,) if env.accepts_weights else env.action_space.shape
    actions = torch.zeros(5, *shape, dtype=torch.float64, requires_grad=True)
    total = torch.zeros(5, dtype=torch.float64)
    for number in range(1, env.max_episode_steps + 1):
        step = env.step(actions)
        assert step.observations.shape == first.shape
        assert step.observations.dtype == step.rewards.dtype == torch.float64
        assert step.rewards.shape == step.terminated.shape == step.truncated.shape == (5,)
        assert step.terminated.dtype == step.truncated.dtype == torch.bool
        assert step.truncated.all() == (number == env.max_episode_steps)
        if number <= 3:
            total = total + step.rewards
        for observation in step.observations.detach().float().numpy():
            assert env.observation_space.contains(observation)
    assert total.requires_grad or not env.differentiable
    if env.differentiable:
        (gradient,) = torch.autograd.grad(total.sum(), actions)
        assert (gradient != 0).all()
    assert "3" in env.describe_episode(1)


def test_detach_cuts_the_gradient_at_the_present_state():
    env = TorchEnvironment(LQR(), 2, dtype=torch.float64)
    env.reset(0)
    force = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    env.step(force)
    env.detach()
    assert not env.step(torch.zeros(2, 1, dtype=torch.float64)).rewards.requires_grad


def test_reset_of_another_number_of_environments_starts_alike():
    """Pendulum of one environment starts as Gymnasium's; of more, the first row is the same state."""
    one = TorchEnvironment(Pendulum(), 1, dtype=torch.float64).reset(11)
    many = TorchEnvironment(Pendulum(), 6, dtype=torch.float64).reset(11)
    assert torch.equal(many[:1], one)


# ------------------------------------------------------------------ LQR


def lqr_cost(lqr, state, gains):
    """Cost from one start state by a plain loop in numpy."""
    a, b, q, r = (matrix.numpy() for matrix in (lqr.A, lqr.B, lqr.Q, lqr.R))
    state, cost = np.asarray(state), 0.0
    for gain in gains:
        force = -np.asarray(gain) @ state
        cost += state @ q @ state + force @ r @ force
        state = a @ state + b @ force
    return cost


@pytest.mark.parametrize("dim", [1, 3])
def test_riccati_cost_is_what_its_gains_cost(dim):
    lqr = LQR(dim=dim, horizon=25)
    gains, cost = lqr.riccati()
    assert len(gains) == 25
    for state in np.random.default_rng(0).uniform(-1, 1, (5, 2 * dim)):
        expected = float(state @ cost.numpy() @ state)
        assert lqr_cost(lqr, state, gains) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dim", [1, 3])
def test_riccati_gains_beat_perturbed_gains(dim):
    lqr = LQR(dim=dim, horizon=25)
    gains, cost = lqr.riccati()
    generator = np.random.default_rng(1)
    for _ in range(50):
        state = generator.uniform(-1, 1, 2 * dim)
        others = [gain.numpy() + 0.1 * generator.normal(size=gain.shape) for gain in gains]
        assert lqr_cost(lqr, state, others) > float(state @ cost.numpy() @ state)
    # each step by itself is at a minimum: one gain moved either way costs more
    state = generator.uniform(-1, 1, 2 * dim)
    for t in (0, 12, 23):
        for sign in (-1e-3, 1e-3):
            others = [gain.numpy().copy() for gain in gains]
            others[t] += sign
            assert lqr_cost(lqr, state, others) > lqr_cost(lqr, state, gains)


@pytest.mark.parametrize("dim", [1, 3])
def test_riccati_of_a_long_horizon_is_the_fixed_point_of_scipy(dim):
    lqr = LQR(dim=dim, horizon=1000)
    _, cost = lqr.riccati()
    close(cost, scipy.linalg.solve_discrete_are(lqr.A.numpy(), lqr.B.numpy(), lqr.Q.numpy(), lqr.R.numpy()))


def stabilising(dim, seed=0):
    """A gain near the long-run optimum, so that costs are moderate, but not at it, so that gradients are not zero."""
    gains, _ = LQR(dim=dim, horizon=200).riccati()
    return 0.6 * gains[0] + 0.05 * torch.from_numpy(np.random.default_rng(seed).normal(size=gains[0].shape))


@pytest.mark.parametrize("dim", [1, 3])
def test_policy_cost_equals_the_environment_s_mean_return(dim):
    """z-test over 20,000 episodes played in the environment itself."""
    lqr, number = LQR(dim=dim, horizon=15), 20_000
    gain, std = stabilising(dim), torch.linspace(0.2, 0.5, dim, dtype=torch.float64)
    env = TorchEnvironment(lqr, number, dtype=torch.float64)
    state, total = env.reset(0), torch.zeros(number, dtype=torch.float64)
    for _ in range(15):
        state, rewards, *_ = env.step(-state @ gain.T + std * torch.randn(number, dim, dtype=torch.float64))
        total += rewards
    error = total.std() / number**0.5
    expected = lqr.policy_cost(gain, std)
    assert float(error) < 0.02 * float(expected)  # the test has power
    z = float((-total.mean() - expected) / error)
    assert abs(z) < scipy.stats.norm.isf(ALPHA / 2)


@pytest.mark.parametrize("dim", [1, 3])
def test_policy_cost_without_noise_is_the_average_over_start_states(dim):
    """Exactly: E[xᵀ P x] for x uniform in the cube is tr(P) / 3, with P read off a plain loop."""
    lqr, gain = LQR(dim=dim, horizon=15), stabilising(dim)
    trace = sum(lqr_cost(lqr, unit, [gain.numpy()] * 15) for unit in np.eye(2 * dim))
    close(lqr.policy_cost(gain), trace / 3.0)
    close(lqr.policy_cost(gain, torch.zeros(dim, dtype=torch.float64)), trace / 3.0)


@pytest.mark.parametrize("dim", [1, 3])
def test_policy_cost_has_the_gradient_of_finite_differences(dim):
    gain = stabilising(dim).requires_grad_()
    std = torch.full((dim,), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LQR(dim=dim, horizon=15).policy_cost, (gain, std))


@pytest.mark.parametrize("dim", [1, 3])
def test_lqr_axes_are_double_integrators(dim):
    """By hand: positions move by dt times velocity, velocities by dt times (force - coupling times the chain)."""
    env = TorchEnvironment(LQR(dim=dim, dt=0.1, coupling=0.5, control_cost=0.1), 1, dtype=torch.float64)
    state = env.reset(0)[0]
    position, velocity = state[:dim], state[dim:]
    force = torch.linspace(1.0, 2.0, dim, dtype=torch.float64)
    step = env.step(force[None])
    pull = torch.zeros(dim, dtype=torch.float64)
    if dim == 3:
        pull = 0.5 * torch.stack((
            2 * position[0] - position[1],
            2 * position[1] - position[0] - position[2],
            2 * position[2] - position[1],
        ))  # fmt: skip
    close(step.observations[0], torch.cat((position + 0.1 * velocity, velocity + 0.1 * (force - pull))))
    close(step.rewards[0], -(state.square().sum() + 0.1 * force.square().sum()))


# ------------------------------------------------------------------ Gymnasium environments


@pytest.mark.parametrize("vectorization", ["auto", "vector_entry_point", "sync"])
def test_whole_batch_and_sync_give_the_same_shapes_and_dtypes(make, vectorization):
    env = make("CartPole-v1", 4, vectorization)
    assert env.is_batch_implementation == (vectorization != "sync")
    observation = env.reset(0)
    assert (observation.shape, observation.dtype) == ((4, 4), torch.float32)
    step = env.step(torch.tensor([0, 1, 0, 1]))
    assert (step.observations.shape, step.observations.dtype) == ((4, 4), torch.float32)
    assert (step.rewards.shape, step.rewards.dtype) == ((4,), torch.float32)
    assert step.terminated.dtype == step.truncated.dtype == torch.bool
    assert step.terminated.shape == step.truncated.shape == (4,)
    assert (env.name, env.max_episode_steps, env.reward_threshold) == ("CartPole-v1", 500, 475.0)
    assert not env.differentiable


def play(env, seed, actions):
    """Observations and rewards of a fixed sequence of actions (T, N)."""
    observations, rewards = [env.reset(seed)], []
    playing = torch.ones(len(observations[0]), dtype=torch.bool)
    for action in actions:
        step = env.step(action, playing)
        playing &= ~(step.terminated | step.truncated)
        observations.append(step.observations)
        rewards.append(step.rewards)
    return torch.stack(observations), torch.stack(rewards)


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_the_same_seed_gives_the_same_episodes_and_rows_differ(make, vectorization):
    """Also on an environment that was left in the middle of others, past their ends."""
    env = make("CartPole-v1", 3, vectorization)
    actions = torch.randint(0, 2, (60, 3))
    first = play(env, 5, actions)
    again = play(env, 5, actions)
    other = play(make("CartPole-v1", 3, vectorization), 5, actions)
    for one, two, three in zip(first, again, other, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert not torch.equal(play(env, 6, actions)[0], first[0])
    assert len({tuple(row.tolist()) for row in first[0][0]}) == 3


def test_sync_rows_are_the_plain_gymnasium_episodes_of_their_seeds(make):
    """Step for step up to each episode's end, so that the step which autoreset spends is never an episode's."""
    number, seed = 6, 123
    env = make("CartPole-v1", number, "sync")
    actions = torch.randint(0, 2, (120, number))
    observations, rewards = play(env, seed, actions)
    lengths = []
    for n, own_seed in enumerate(split_seed(seed, number)):
        plain = gym.make("CartPole-v1")
        observation, _ = plain.reset(seed=own_seed)
        assert np.array_equal(observations[0, n].numpy(), observation)
        for t in range(len(actions)):
            observation, reward, terminated, truncated, _ = plain.step(int(actions[t, n]))
            assert np.array_equal(observations[t + 1, n].numpy(), observation)
            assert float(rewards[t, n]) == reward
            if terminated or truncated:
                lengths.append(t + 1)
                break
        plain.close()
    assert len(set(lengths)) > 1  # the case that autoreset could spoil


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_the_time_limit_can_be_replaced(make, vectorization):
    env = make("CartPole-v1", 2, vectorization, max_episode_steps=4, reward_threshold=1.5)
    assert (env.max_episode_steps, env.reward_threshold) == (4, 1.5)
    env.reset(0)
    steps = [env.step(torch.tensor([t % 2, t % 2])) for t in range(4)]
    assert [step.truncated.tolist() for step in steps] == [[False] * 2] * 3 + [[True] * 2]
    assert not any(step.terminated.any() for step in steps)


def test_a_longer_time_limit_replaces_the_registered_one(make):
    env = make(SCRIPTED, 1, kwargs={"length": 60}, max_episode_steps=70)
    env.reset(0)
    ends = [bool(step.terminated) for step in (env.step(torch.tensor([0])) for _ in range(60))]
    assert ends == [False] * 59 + [True]


def test_zero_is_a_threshold_too(make):
    assert make("CartPole-v1", 1, reward_threshold=0.0).reward_threshold == 0.0


@pytest.mark.parametrize(
    ("id", "near"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("Pendulum-v7", "Pendulum-v1"),
        ("MountainCarContinous-v0", "MountainCarContinuous-v0"),
    ],
)
def test_an_unknown_id_is_refused_with_the_nearest(id, near):
    with pytest.raises(ConfigError, match=rf"^env\.id={id} .*did you mean {near}, or name .*package:{id}\?$"):
        GymnasiumEnvironment(id, 1)


@pytest.mark.parametrize("id", ["xyzzy-qwerty-v0", "no_such_module:Thing-v0", "not an id"])
def test_an_id_like_no_other_is_refused_without_a_guess(id):
    with pytest.raises(ConfigError, match=rf"^env\.id={id} is not a registered"):
        GymnasiumEnvironment(id, 1)


def test_an_id_may_name_the_module_that_registers_it(make):
    assert make("gymnasium:CartPole-v1", 1).name == "CartPole-v1"


def test_no_time_limit_is_refused_and_the_remedy_works(make):
    with pytest.raises(ConfigError, match=r"no time limit.*env\.max_episode_steps="):
        GymnasiumEnvironment("ScorepathTest/NoTimeLimit-v0", 1)
    env = make("ScorepathTest/NoTimeLimit-v0", 1, max_episode_steps=3, kwargs={"length": 100})
    env.reset(0)
    assert [bool(env.step(torch.tensor([0])).truncated) for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kwargs": {"no_such_argument": 1}}, "no_such_argument"),
        ({"vectorization": "vector_entry_point"}, "vectorization=vector_entry_point"),
        ({"vectorization": "threads"}, "vectorization=threads"),
    ],
)
def test_what_the_environment_refuses_is_a_config_error(arguments, words):
    with pytest.raises(ConfigError, match=words):
        GymnasiumEnvironment(SCRIPTED, 1, **arguments)


def test_a_missing_package_is_named_by_its_extra():
    message = missing_package("Ant-v5", ImportError("mujoco is not installed"))
    assert 'pip install "gymnasium[mujoco]"' in message
    assert message.startswith("env.id=Ant-v5 ")


@pytest.mark.parametrize("actions", [torch.zeros(2), torch.zeros(2, 1, 1), torch.zeros(3, 1), torch.zeros(2, 2)])
def test_actions_of_a_wrong_shape_are_refused(make, actions):
    """Several environments would broadcast them without a word."""
    env = make("Pendulum-v1", 2)
    env.reset(0)
    with pytest.raises(ScorepathError, match=r"takes actions of shape \(2, 1\), but got"):
        env.step(actions)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", ["reward", "observation"])
def test_a_value_that_is_not_finite_names_seed_step_and_action(make, what, bad):
    env = make(SCRIPTED, 3, kwargs={f"bad_{what}": 3, "bad": bad})
    env.reset(77)
    actions = torch.tensor([1, 0, 1])
    for _ in range(2):
        env.step(actions)
    seed = split_seed(77, 3)[0]
    with pytest.raises(NonFiniteError, match=rf"gave an? {what} .* at step 3 after action 1 of .*seed {seed}:"):
        env.step(actions)


def test_the_episode_named_is_the_bad_one(make):
    """Rows end after 1..12 steps; only those that live to step 9 can go bad."""
    env = make(SCRIPTED, 8, kwargs={"length": None, "bad_reward": 9})
    env.reset(0)
    playing = torch.ones(8, dtype=torch.bool)
    with pytest.raises(NonFiniteError, match="step 9") as error:
        for _ in range(9):
            playing &= ~env.step(torch.zeros(8, dtype=torch.long), playing).terminated
    survivor = int(playing.nonzero()[0])
    assert survivor > 0
    assert str(split_seed(0, 8)[survivor]) in str(error.value)


def test_the_episode_named_is_the_bad_one_after_others_were_left_out(make):
    """By its row of the reset, not by that of the lanes that are left."""
    env = make(SCRIPTED, 3, "sync", kwargs={"bad_reward": 2})
    env.reset(0)
    env.step(torch.tensor([0, 0, 0]))
    env.keep(torch.tensor([2]))
    with pytest.raises(NonFiniteError, match=f"seed {split_seed(0, 3)[2]}:"):
        env.step(torch.tensor([0]))


def test_opposite_infinities_do_not_cancel(make):
    env = make(SCRIPTED, 1, kwargs={"bad_observation": 1, "bad": (float("inf"), float("-inf"))})
    env.reset(0)
    with pytest.raises(NonFiniteError, match="observation"):
        env.step(torch.tensor([0]))


def test_a_bad_first_observation_is_found_at_the_reset(make):
    env = make(SCRIPTED, 1, kwargs={"bad_observation": 0})
    with pytest.raises(NonFiniteError, match="step 0 of"):
        env.reset(0)


@pytest.mark.parametrize("truncates", [False, True])
def test_bad_values_after_an_episode_s_end_are_not_looked_at(make, truncates):
    """However it ended."""
    env = make(SCRIPTED, 2, "async", kwargs={"length": 2, "truncates": truncates, "bad_after_first_episode": True})
    env.reset(0)
    playing = torch.ones(2, dtype=torch.bool)
    for _ in range(6):
        step = env.step(torch.tensor([0, 1]), playing)
        playing &= ~(step.terminated | step.truncated)
    assert step.observations.isnan().any()


def test_an_environment_whose_episode_has_ended_is_not_stepped_by_sync(make):
    env = make(SCRIPTED, 2, "sync", kwargs={"length": 2, "bad_after_first_episode": True})
    env.reset(0)
    for playing in (True, True, False, False):
        last = env.step(torch.tensor([0, 1]), torch.tensor([playing, playing]))
    assert last.observations[:, 0].tolist() == [2, 2]
    assert last.rewards.tolist() == [0, 0]
    assert not (last.terminated | last.truncated).any()


def test_discrete_observations_become_one_hot(make):
    env = make(SCRIPTED, 2, kwargs={"observations": "discrete"})
    assert isinstance(env.observation_space, spaces.Box)
    assert env.observation_space.shape == (20,)
    assert env.reset(0).tolist() == [[1.0] + [0.0] * 19] * 2
    observations = env.step(torch.tensor([0, 0])).observations
    assert observations.dtype == torch.float32
    assert observations.tolist() == [[0.0, 1.0] + [0.0] * 18] * 2


def test_dict_observations_are_concatenated(make):
    env = make(SCRIPTED, 2, kwargs={"observations": "dict"})
    assert env.observation_space.shape == (21,)
    observation = env.reset(0)
    assert observation.shape == (2, 21)
    assert observation[:, 1:].tolist() == [[1.0] + [0.0] * 19] * 2
    assert ((observation[:, 0] > 0) & (observation[:, 0] < 1)).all()


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (cases.SPACES["discrete_2_start"], [5, 6]),
        (cases.SPACES["discrete_start"], [-3, 0]),
        (cases.SPACES["multi_discrete_uneven"], [[2, 4, 1], [0, 0, 0]]),
        (cases.SPACES["multi_binary"], [[1, 0, 1, 1], [0, 0, 0, 0]]),
        (cases.SPACES["box_2d"], [[[0.5] * 3] * 2, [[-1.0] * 3] * 2]),
    ],
)
def test_actions_arrive_as_they_were_given(make, space, actions):
    """The environment insists on its space and answers with the sum of the action's entries."""
    env = make(SCRIPTED, 2, kwargs={"action_space": space})
    env.reset(0)
    tensor = torch.tensor(actions)
    assert env.step(tensor).rewards.tolist() == tensor.reshape(2, -1).sum(dim=1).tolist()


def test_async_gives_the_episodes_of_sync_and_ends_its_processes(make):
    others = set(multiprocessing.active_children())
    env = GymnasiumEnvironment(SCRIPTED, 2, "async", kwargs={"length": None})
    actions = torch.tensor([[0, 1], [1, 1], [0, 0]])
    assert len(set(multiprocessing.active_children()) - others) == 2
    given = play(env, 4, actions)
    env.close()
    assert not set(multiprocessing.active_children()) - others
    for one, two in zip(given, play(make(SCRIPTED, 2, "sync", kwargs={"length": None}), 4, actions), strict=True):
        assert torch.equal(one, two)


def test_observations_are_copies(make):
    """A vector environment may write into its buffers again and again."""
    env = make("ScorepathTest/OneBuffer-v0", 2)
    first = env.reset(0)
    steps = [env.step(torch.tensor([0, 0])) for _ in range(5)]
    assert first.tolist() == [[0.0], [0.0]]
    assert [step.observations.tolist() for step in steps] == [[[t], [t]] for t in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert [step.rewards.tolist() for step in steps] == [[t, t] for t in (1.0, 2.0, 3.0, 4.0, 5.0)]
    assert [step.truncated.tolist() for step in steps] == [[False, False]] * 4 + [[True, True]]


def test_render_gives_a_picture_of_the_first_environment(make):
    env = make("CartPole-v1", 1, "sync", kwargs={"render_mode": "rgb_array"})
    env.reset(0)
    frame = env.render()
    assert (frame.ndim, frame.shape[-1], frame.dtype) == (3, 3, np.uint8)
    assert frame.min() < frame.max()
