"""Shared fixtures, and the Gymnasium environments that the tests play: small, scripted, real."""

import gc
import os
from typing import ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one for each of xdist's workers: more wait for each other

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from scorepath.envs import GymnasiumEnvironment
from scorepath.envs.composite import width


class Scripted(gym.Env):
    """An environment whose every answer can be foreseen.

    Observation: (step, start, reward), where start ~ U(0, 1) is drawn at the reset and tells whose seed it was.
    Reward: the sum of the action's entries, so that what arrives in the environment can be read off it.

    Args:
        action_space: what `step` insists on.
        length: steps of an episode; None draws 1..12 at the reset, which makes batches of unequal lengths.
        truncates: end by truncation instead of termination: True, False, or only the `first` episode after a seeded
            reset, or only the `later` ones, which autoreset begins.
        observations: `box`, or `dict` or `discrete`, which have to be flattened.
        bad_reward, bad_observation: step of each episode that gives the bad value.
        bad: that value.
        bad_after_first_episode: every reward and observation after the first episode is bad.
    """

    def __init__(
        self,
        action_space=None,
        length=5,
        truncates=False,
        observations="box",
        bad_reward=None,
        bad_observation=None,
        bad=float("nan"),
        bad_after_first_episode=False,
    ):
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.observation_space = {
            "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
            "dict": spaces.Dict({"start": spaces.Box(0, 1, (1,), np.float32), "step": spaces.Discrete(20)}),
            "discrete": spaces.Discrete(20),
        }[observations]
        self.length = length
        self.truncates = truncates
        self.observations = observations
        self.bad_reward = bad_reward
        self.bad_observation = bad_observation
        self.bad = bad
        self.bad_after_first_episode = bad_after_first_episode
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.episodes = 0
        self.episodes += 1
        self.steps = 0
        self.start = self.np_random.uniform()
        self.end = self.length or int(self.np_random.integers(1, 13))
        return self.observe(0.0), {}

    def step(self, action):
        # SyncVectorEnv hands over the actions of a Box without dims as numpy scalars, which `contains` warns of
        inside = self.action_space.contains(np.asarray(action) if isinstance(self.action_space, spaces.Box) else action)
        assert inside, f"{action!r} is not in {self.action_space}"
        self.steps += 1
        reward = float(np.sum(action))
        over = self.steps >= self.end
        truncates = {"first": self.episodes == 1, "later": self.episodes > 1}.get(self.truncates, self.truncates)
        observation = self.observe(reward)
        if self.steps == self.bad_reward or (self.bad_after_first_episode and self.episodes > 1):
            reward = self.bad
        return observation, reward, over and not truncates, over and truncates, {}

    def observe(self, reward):
        if self.observations == "discrete":
            return self.steps
        if self.observations == "dict":
            return {"start": np.array([self.start], dtype=np.float32), "step": self.steps}
        observation = np.array([self.steps, self.start, reward], dtype=np.float32)
        if self.steps == self.bad_observation or (self.bad_after_first_episode and self.episodes > 1):
            observation[:2] = self.bad
        return observation


class OneBuffer(gym.vector.VectorEnv):
    """A vector environment that hands out one array again and again; it holds the number of the step."""

    metadata: ClassVar = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs=1, max_episode_steps=5):
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.single_action_space = spaces.Discrete(2)
        self.single_observation_space = spaces.Box(0, np.inf, (1,), np.float32)
        self.buffers = np.zeros((num_envs, 1), np.float32), np.zeros(num_envs, np.float32)
        self.flags = np.zeros((2, num_envs), bool)

    def reset(self, *, seed=None, options=None):
        self.flags[:] = False
        self.buffers[0][:] = 0
        return self.buffers[0], {}

    def step(self, actions):
        observations, rewards = self.buffers
        observations += 1
        rewards[:] = observations[:, 0]
        self.flags[1] = observations[:, 0] == self.max_episode_steps
        return observations, rewards, *self.flags, {}


class Tree(gym.Env):
    """Five steps; observes the numbers of its last action, leaf by leaf, and insists on its action space."""

    def __init__(self, action_space):
        self.action_space = action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (width(action_space),), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        numbers = self.numbers(self.action_space, action)
        self.steps += 1
        return np.array(numbers, np.float32), float(numbers[0]), self.steps == 5, False, {}

    def numbers(self, space, action):
        if isinstance(space, spaces.Dict):
            assert set(action) == set(space)
            return [number for key in space for number in self.numbers(space[key], action[key])]
        if isinstance(space, spaces.Tuple):
            assert isinstance(action, tuple)
            return [number for pair in zip(space, action, strict=True) for number in self.numbers(*pair)]
        # a Box without dims gets a scalar of numpy's, of which `contains` warns
        assert space.contains(np.asarray(action) if isinstance(space, spaces.Box) else action), action
        return np.ravel(action).tolist()


# without Gymnasium's environment checker, which warns of the very faults that the tests are about
gym.register("ScorepathTest/Scripted-v0", Scripted, max_episode_steps=50, disable_env_checker=True)
gym.register("ScorepathTest/NoTimeLimit-v0", Scripted, disable_env_checker=True)
gym.register("ScorepathTest/Tree-v0", Tree, max_episode_steps=50, disable_env_checker=True)
gym.register("ScorepathTest/OneBuffer-v0", vector_entry_point=OneBuffer, max_episode_steps=5)


def pytest_ignore_collect(collection_path, config):
    """`pytest -m core` is a newcomer's door: it does not wait for what the other tests import."""
    if config.option.markexpr == "core" and collection_path.suffix == ".py":
        return "pytest.mark.core" not in collection_path.read_text() or None
    return None


gc.disable()  # collecting the tests makes no garbage worth a search of all that torch's import has made


def pytest_collection_finish():
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker plays a whole file, so that runs and results which its tests share are made once.

    Slow tests share little, and one of them may take as long as a file here: those are dealt out singly.
    """
    if config.option.dist == "load" and "not slow" in config.option.markexpr:
        from xdist.scheduler import LoadFileScheduling

        # the app's files first, which have few tests and take long; by their numbers they would come last, one by one
        config.option.loadscopereorder = False
        return LoadFileScheduling(config, log)
    return None


torch.set_warn_always(True)  # or a warning of torch's fails only the test that happens to run first


@pytest.fixture(autouse=True)
def _torch_state():
    """Every test starts from the same generator, default dtype and threads, and leaves them as they were."""
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(20240607)  # torch's own also asks for accelerators, a stack trace for each
        yield
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    gc.unfreeze()  # the scripts freeze what there is, and a process is not meant to run hundreds of them
    gc.enable()


@pytest.fixture
def make():
    """GymnasiumEnvironment(...), closed at the end of the test."""
    made = []

    def build(*args, **kwargs):
        made.append(GymnasiumEnvironment(*args, **kwargs))
        return made[-1]

    yield build
    for env in made:
        env.close()
