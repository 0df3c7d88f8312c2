"""The torch environments as others find them: in Gymnasium's registry, batched and single, with its pixels."""

import subprocess
import sys
import warnings

import gymnasium as gym
import hydra
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import scorepath  # noqa: F401
from scorepath.build import CONF, make_evaluation_environment
from scorepath.envs import GymnasiumEnvironment, TorchEnvironment
from scorepath.envs.vector import TorchVectorEnv
from scorepath.registration import ENVIRONMENTS, register_environments

IDS = [f"scorepath/{name}" for name in ENVIRONMENTS]
DRAWN = [id for id in IDS if "Integrator" not in id]


def close(actual, expected, tolerance=1e-6):
    torch.testing.assert_close(
        torch.as_tensor(actual), torch.as_tensor(expected), rtol=tolerance, atol=tolerance, check_dtype=False
    )


def train_config(*overrides: str):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


every = pytest.mark.parametrize("id", IDS)


@pytest.mark.parametrize("first", ["scorepath, gymnasium", "gymnasium, scorepath"])
def test_importing_the_package_registers_in_any_order(first):
    """Without importing Gymnasium itself, which `--help` would wait for."""
    code = f"import {first}; print(gymnasium.make_vec('scorepath/CartPole-v1', num_envs=4096).reset(seed=0)[0].shape)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout == "(4096, 4)\n", run.stderr
    alone = "import scorepath, sys; print('gymnasium' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, timeout=60)
    assert run.stdout == "False False\n"


def test_registering_twice_changes_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_environments()


@every
def test_registered_limits_are_those_of_the_dynamics(id):
    env = gym.make_vec(id, num_envs=2)
    assert env.max_episode_steps == env.dynamics.max_episode_steps == gym.spec(id).max_episode_steps
    assert env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP


@every
def test_single_environments_pass_gymnasiums_checker(id):
    env = gym.make(id, render_mode="rgb_array" if id in DRAWN else None)
    with warnings.catch_warnings():
        # the checker's own advice: infinite bounds, and spaces of actions that are not of [-1, 1]
        warnings.simplefilter("ignore")
        check_env(env.unwrapped, skip_render_check=id not in DRAWN)
    env.close()


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


def test_training_environments_draw():
    """The swing-up by CartPole's renderer: the pole hangs at first; an LQR has no picture."""
    drawn = make_evaluation_environment(train_config("env=cartpole_swingup_torch").env, 1, render=True)
    drawn.reset(0)
    hanging = drawn.render()
    drawn._state = torch.zeros(1, 4)
    assert hanging.shape == (400, 600, 3) and not np.array_equal(hanging, drawn.render())
    assert drawn.render_fps == 50
    drawn.close()
    plain = make_evaluation_environment(train_config("env=lqr").env, 1, render=True)
    plain.reset(0)
    assert plain.render() is None


def test_a_registered_environment_is_one_for_our_own_env_gym():
    env = GymnasiumEnvironment("scorepath/CartPole-v1", num_envs=6)
    assert env.is_batch_implementation
    assert env.reset(1).shape == (6, 4)
    env.close()
