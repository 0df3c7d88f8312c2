"""The torch environments as others find them: in Gymnasium's registry, batched and single, with its pixels."""

import copy
import functools
import pickle
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import scorepath  # noqa: F401
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.single import TorchEnv
from scorepath.envs.vector import TorchVectorEnv
from scorepath.registration import ENVIRONMENTS, register_environments

IDS = [f"scorepath/{name}" for name in ENVIRONMENTS]
DRAWN = [id for id in IDS if "Integrator" not in id]


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected), rtol=tolerance, atol=tolerance, check_dtype=False
    )


every = pytest.mark.parametrize("id", IDS)


@pytest.mark.parametrize(
    "imports",
    [
        "import scorepath, importlib.util as util; util.find_spec('gymnasium'); import gymnasium",  # as TorchRL does
        "import gymnasium, scorepath",
    ],
)
def test_importing_the_package_registers_in_any_order(imports):
    code = f"{imports}; print(gymnasium.spec('scorepath/CartPole-v1').id)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "scorepath/CartPole-v1\n", run.stderr


def test_importing_the_package_does_not_wait_for_torch():
    alone = "import scorepath, sys; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, timeout=60)
    assert run.stdout == "False\n"


def test_registering_twice_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_environments()


@every
def test_registered_limits_are_those_of_the_dynamics(id):
    env = gym.make_vec(id, num_envs=2)
    assert env.max_episode_steps == env.dynamics.max_episode_steps == gym.spec(id).max_episode_steps
    assert env.metadata["autoreset_mode"] is env.autoreset_mode is gym.vector.AutoresetMode.NEXT_STEP


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name in gym.registry])
def test_registered_limits_are_those_of_the_original(name):
    ours, original = gym.spec(f"scorepath/{name}"), gym.spec(name)
    assert ours.reward_threshold == original.reward_threshold
    assert ours.max_episode_steps == original.max_episode_steps
    assert gym.make(ours).spec.to_json()


@every
def test_only_what_has_a_renderer_says_so(id):
    for env in (gym.make(id), gym.make_vec(id, num_envs=2)):
        assert env.metadata["render_modes"] == (["rgb_array"] if id in DRAWN else [])
    assert "autoreset_mode" not in gym.make(id).metadata


@every
def test_actions_are_bounded(id):
    space = gym.make(id).action_space
    assert isinstance(space, gym.spaces.Discrete) or space.is_bounded()


def test_the_bound_of_forces_does_not_touch_the_optimum():
    """The best forces from the corners of the start states keep within it; beyond it, forces are clipped."""
    dynamics = gym.make("scorepath/DoubleIntegrator-v0").unwrapped.dynamics
    gains, _ = dynamics.riccati()
    state = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    forces = []
    for gain in gains:
        forces.append(-state @ gain.T)
        state = dynamics.transition(state, forces[-1])
    assert 5.0 < torch.cat(forces).abs().max() < dynamics.max_force == 10.0
    for far in (torch.full((2, 1), 30.0), torch.full((2, 1), 10.0)):
        close(dynamics.transition(state, far), state @ dynamics.A.T + 10.0 * dynamics.B.T)
        close(dynamics.reward(state, far, state), -state.square().sum(-1) - 10.0)


def test_batch_equals_gymnasiums_cartpole_step_for_step():
    """Autoresets, truncations and the starts of later episodes included, from one seed."""
    ours = gym.make_vec("scorepath/CartPole-v1", num_envs=7, dtype="float64", max_episode_steps=30)
    theirs = gym.make_vec("CartPole-v1", num_envs=7, vectorization_mode="vector_entry_point", max_episode_steps=30)
    generator = np.random.default_rng(0)
    close(ours.reset(seed=5)[0], theirs.reset(seed=5)[0])
    ended = np.zeros(3, dtype=int)
    for number in range(400):
        # balanced for a while, so that some episodes last until they are truncated
        actions = generator.integers(2, size=7) if number % 100 < 50 else (theirs.state[2] > 0).astype(np.int64)
        mine, given = ours.step(actions), theirs.step(actions)
        for one, other in zip(mine[:4], given[:4], strict=True):
            assert isinstance(one, np.ndarray) and one.shape == other.shape
            close(one, other)
        assert mine[0].dtype == np.float32
        ended += [mine[2].sum(), mine[3].sum(), 1]
    assert ended[0] > 20 and ended[1] > 3


@every
def test_batch_equals_the_training_environment(id):
    """Until the first end: what is registered is what is trained on."""
    vector = gym.make_vec(id, num_envs=5)
    lanes = TorchEnvironment(vector.dynamics, 5)
    observation, _ = vector.reset(seed=3)
    close(observation, lanes.reset(3))
    vector.action_space.seed(0)
    for _ in range(10):
        actions = vector.action_space.sample()
        observation, rewards, terminated, truncated, _ = vector.step(actions)
        step = lanes.step(torch.as_tensor(actions))
        for one, other in zip((observation, rewards, terminated, truncated), step, strict=True):
            close(one, other)


def test_rewards_of_tensors_carry_gradients_across_an_autoreset():
    env = gym.make_vec("scorepath/Pendulum-v1", num_envs=3, tensors=True, max_episode_steps=4)
    env.reset(seed=0)
    actions = torch.zeros(3, 1, requires_grad=True)
    rewards = [env.step(actions)[1] for _ in range(7)]
    assert not rewards[4].any()  # of the step that begins the next episodes
    (gradient,) = torch.autograd.grad(rewards[6].sum(), actions, retain_graph=True)
    (before,) = torch.autograd.grad(rewards[3].sum(), actions)
    assert gradient.any() and before.any()
    env.detach()
    assert not env.step(torch.zeros(3, 1))[1].requires_grad


NO_CHOICES = [17, -1, 0.5, [0], np.array([0]), "left", None, torch.tensor(3), torch.tensor([0, 1])]
NO_NUMBERS = [0.5, np.zeros(2), np.zeros((1, 1)), "left", torch.zeros(2)]


@every
def test_an_action_outside_the_space_is_refused_and_changes_nothing(id):
    env, other = gym.make(id).unwrapped, gym.make(id).unwrapped
    for each in (env, other):
        each.reset(seed=1)
    for action in NO_CHOICES if isinstance(env.action_space, gym.spaces.Discrete) else NO_NUMBERS:
        with pytest.raises(AssertionError, match=r"invalid: .* takes actions of shape"):
            env.step(action)
    action = env.action_space.sample()
    assert data_equivalence(env.step(action), other.step(action), exact=True)


@every
@pytest.mark.parametrize("tensors", [False, True])
def test_a_batch_of_actions_outside_the_space_is_refused_and_changes_nothing(id, tensors):
    env, other = (gym.make_vec(id, num_envs=4, tensors=tensors) for _ in range(2))
    env.reset(seed=1), other.reset(seed=1)
    if isinstance(env.single_action_space, gym.spaces.Discrete):
        wrong = [
            0,
            np.zeros(3, int),
            np.zeros((4, 1), int),
            [0, 1, 0, 17],
            [0, -1, 0, 0],
            np.full(4, 0.5),
            [[0], [1, 2]],
        ]
    else:
        wrong = [0.0, np.zeros(4), np.zeros((1, 1)), np.zeros((4, 2)), np.zeros((4, 1, 1)), ["left"] * 4]
    for actions in wrong:
        with pytest.raises(AssertionError, match=r"invalid: .* takes actions of shape \(4,"):
            env.step(actions)
        if isinstance(actions, np.ndarray):
            with pytest.raises(AssertionError, match="invalid"):
                env.step(torch.from_numpy(actions))
    env.action_space.seed(0)
    actions = env.action_space.sample()
    for one, two in zip(env.step(actions)[:4], other.step(torch.as_tensor(actions))[:4], strict=True):
        close(one, two)


def test_the_originals_refuse_the_same_choices():
    for name, error in (
        ("CartPole-v1", AssertionError),
        ("MountainCar-v0", AssertionError),
        ("Acrobot-v1", IndexError),
    ):
        original = gym.make(name).unwrapped
        original.reset(seed=0)
        with pytest.raises(error):
            original.step(17)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CartPole-v1", {"low": -0.1, "high": 0.02}),
        ("CartPole-v1", {"high": 0.2}),
        ("Acrobot-v1", {"low": -0.3, "high": 0}),
        ("MountainCar-v0", {"low": -1.0, "high": 0.3}),
        ("MountainCarContinuous-v0", {"low": -1.0}),
        ("Pendulum-v1", {"x_init": 0.3, "y_init": 2}),
        ("Pendulum-v1", {"y_init": 0.0}),
    ],
)
def test_a_reset_takes_the_options_of_the_original(name, options):
    ours, theirs = gym.make(f"scorepath/{name}"), gym.make(name)
    assert data_equivalence(ours.reset(seed=3, options=options), theirs.reset(seed=3, options=options))
    assert not data_equivalence(ours.reset(seed=3), ours.reset(seed=3, options=options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("CartPole-v1", {"low": "much"}),
        ("CartPole-v1", {"low": 1.0, "high": 0.0}),
        ("Acrobot-v1", {"high": None}),
        ("MountainCar-v0", {"low": 1.0}),
        ("MountainCarContinuous-v0", {"low": [0.0, 1.0]}),
        ("Pendulum-v1", {"x_init": "much"}),
        ("Pendulum-v1", {"y_init": -1.0}),
    ],
)
def test_a_reset_refuses_the_options_that_the_original_refuses(name, options):
    for env in (gym.make(f"scorepath/{name}"), gym.make(name)):
        with pytest.raises(ValueError):
            env.reset(options=options)


def test_a_misspelt_reset_option_is_refused_with_those_there_are():
    for env in (gym.make("scorepath/CartPole-v1"), gym.make_vec("scorepath/CartPole-v1", num_envs=2)):
        with pytest.raises(ValueError, match=r"no reset option hihg; it has low, high\."):
            env.reset(options={"hihg": 0.1})


def test_the_options_of_a_reset_hold_for_later_episodes_as_in_gymnasiums_batch():
    ours = gym.make_vec("scorepath/CartPole-v1", num_envs=3, dtype="float64", max_episode_steps=5)
    theirs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point", max_episode_steps=5)
    for options in ({"low": 0.1, "high": 0.11}, None):
        close(ours.reset(seed=2, options=options)[0], theirs.reset(seed=2, options=options)[0])
        for _ in range(13):
            close(ours.step(np.array([0, 1, 0]))[0], theirs.step(np.array([0, 1, 0]))[0])


@pytest.mark.parametrize("mask", [[True, False], np.zeros(3, bool), np.ones(3, int)])
def test_a_wrong_reset_mask_is_refused(mask):
    env = gym.make_vec("scorepath/CartPole-v1", num_envs=3)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reset_mask'\] must be \(3,\) bool"):
        env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("tensors", [False, True])
def test_observations_belong_to_whoever_got_them(tensors):
    """CartPole's are its state: what is done to them must not move the cart."""
    env, other = (gym.make_vec("scorepath/CartPole-v1", num_envs=2, tensors=tensors) for _ in range(2))
    first, _ = env.reset(seed=0)
    other.reset(seed=0)
    for _ in range(2):
        first += 100.0
        first, expected = env.step([0, 1])[0], other.step([0, 1])[0]
        close(first, expected)


def test_choices_and_weights_are_taken_where_the_dynamics_take_weights():
    made = {"dynamics": "scorepath.envs.dynamics:Pendulum", "arguments": {"torques": 3}}
    env, single = TorchVectorEnv(num_envs=2, **made), TorchEnv(**made)
    lanes = TorchEnvironment(env.dynamics, 2)
    close(env.reset(seed=0)[0], lanes.reset(0))
    choices = lanes.branch(torch.arange(2)).step(torch.tensor([0, 2])).rewards
    for actions in (torch.tensor([0, 2]), torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.5, 0.5]])):
        close(env.step(actions)[1], lanes.step(actions).rewards)
    for action in (0, [1.0, 0.0, 0.0]):
        single.reset(seed=0)
        close(single.step(action)[1], float(choices[0]), 1e-5)


@pytest.mark.parametrize("mode", ["sync", "async", "vector_entry_point"])
def test_every_vectorization_takes_gymnasiums_wrappers(mode):
    envs = gym.make_vec("scorepath/CartPole-v1", num_envs=3, vectorization_mode=mode, max_episode_steps=6)
    envs = RecordEpisodeStatistics(envs)
    envs.reset(seed=0)
    infos = [envs.step(np.array([0, 1, 0]))[4] for _ in range(7)]
    assert [info["episode"]["l"].tolist() for info in infos if "episode" in info] == [[6, 6, 6]]
    envs.close()


def test_a_batch_takes_gymnasiums_wrapper_to_tensors():
    pytest.importorskip("array_api_compat", reason="of Gymnasium's extra torch")
    from gymnasium.wrappers.vector import NumpyToTorch

    envs = NumpyToTorch(gym.make_vec("scorepath/Pendulum-v1", num_envs=3))
    assert isinstance(envs.reset(seed=0)[0], torch.Tensor)
    assert envs.step(torch.zeros(3, 1))[1].shape == (3,)


def test_workers_that_are_spawned_find_them():
    """They import what the id names, and nothing else."""
    envs = AsyncVectorEnv([functools.partial(gym.make, "scorepath:scorepath/Pendulum-v1")], context="spawn")
    assert envs.reset(seed=0)[0].shape == (1, 3)
    envs.close()


@every
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_play_on_alike(id, duplicate):
    for env in (gym.make(id), gym.make_vec(id, num_envs=2)):
        env.reset(seed=0)
        action = env.action_space.sample()
        env.step(action)
        other = duplicate(env)
        for _ in range(2):
            assert data_equivalence(env.step(action), other.step(action), exact=True)
            assert data_equivalence(env.reset(), other.reset(), exact=True)  # of generators of their own


def test_a_step_before_the_reset_is_refused():
    for env in (gym.make_vec("scorepath/CartPole-v1", num_envs=2), gym.make("scorepath/CartPole-v1").unwrapped):
        with pytest.raises(gym.error.ResetNeeded, match="Call reset"):
            env.step(np.zeros(2, dtype=int))


@pytest.mark.parametrize(("mode", "match"), [("human", "must be None or 'rgb_array'"), ("rgb_array", "no renderer")])
def test_what_cannot_be_drawn_is_refused(mode, match):
    with pytest.raises(ValueError, match=match):
        TorchVectorEnv("scorepath.envs.dynamics:LQR", 2, render_mode=mode)


@pytest.mark.parametrize("id", [id for id in DRAWN if "SwingUp" not in id])
def test_pixels_are_those_of_gymnasiums_original(id):
    original = gym.make(id.removeprefix("scorepath/"), render_mode="rgb_array")
    original.reset(seed=4)
    env = gym.make(id, render_mode="rgb_array")
    env.reset(seed=4)
    frame = env.render()
    assert frame.dtype == np.uint8 and frame.ndim == 3
    assert np.array_equal(frame, original.render())
    assert env.metadata["render_fps"] == original.metadata["render_fps"]
    vector = gym.make_vec(id, num_envs=2, render_mode="rgb_array")
    vector.reset(seed=4)
    first, second = vector.render()
    assert first.shape == frame.shape and not np.array_equal(first, second)
    for each in (original, env, vector):
        each.close()


def test_pictures_of_a_batch_show_the_torque_and_none_at_a_start():
    """Pendulum's arrow, across an autoreset."""
    original = gym.make("Pendulum-v1", render_mode="rgb_array", max_episode_steps=2)
    env = gym.make_vec(
        "scorepath/Pendulum-v1", num_envs=1, dtype="float64", render_mode="rgb_array", max_episode_steps=2
    )
    lanes = TorchEnvironment(env.dynamics, 1, dtype=torch.float64)
    original.reset(seed=4), env.reset(seed=4), lanes.reset(4)
    for torque in (1.5, -5.0, None):
        action = np.full(1, torque or 0.0, np.float32)
        env.step(action[None])
        if torque is None:
            original.reset()
        else:
            original.step(action)
            lanes.step(torch.as_tensor(action)[None])
            assert np.array_equal(lanes.render(), original.render())
        assert np.array_equal(env.render()[0], original.render())
    for each in (original, env, lanes):
        each.close()


def test_a_registered_environment_is_one_for_our_own_env_gym():
    env = GymnasiumEnvironment("scorepath/CartPole-v1", num_episodes=6)
    assert env.is_batch_implementation
    assert env.reset(1).shape == (6, 4)
    env.close()
