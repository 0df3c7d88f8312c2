"""Environments that break, and such that do not keep to Gymnasium's interface; `misbehaving:Id` registers them."""

import contextlib
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

BREAKING = "misbehaving:Breaking-v0"
FORGETFUL = "misbehaving:Forgetful-v0"
LYING = "misbehaving:Lying-v0"
LYING_VECTOR = "misbehaving:LyingVector-v0"


class UnpicklableError(Exception):
    """One whose parts cannot be sent to another process, and which is no ordinary exception there either."""

    def __init__(self, *, needed):
        super().__init__(threading.Lock())
        self.lock = threading.Lock()


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Breaking(CartPoleEnv):
    """CartPole that breaks in one of several workers; in the main process it is a sound one.

    Args:
        how: a method of this class.
        at: env step of the process's life; 0 is the reset, -1 the constructor.
        worker: which of them.
        lives: a file that counts them; only the first `breaks` break.
    """

    def __init__(self, how, at=3, worker=1, lives=None, breaks=1):
        super().__init__()
        self.how, self.at, self.steps = how, at, 0
        self.lives, self.breaks = lives, breaks
        self.mine = multiprocessing.current_process().name == f"environment {worker}"
        self.break_at(-1)

    def break_at(self, step):
        if self.mine and step == self.at and self.may_break():
            getattr(self, self.how)()

    def may_break(self):
        if self.lives is None:
            return True
        with open(self.lives, "a") as file:
            file.write("*")
        return os.path.getsize(self.lives) <= self.breaks

    def reset(self, **kwargs):
        self.break_at(0)
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        self.break_at(self.steps)
        return super().step(action)

    def raises(self):
        return 1 // 0

    def raises_unpicklable(self):
        raise UnpicklableError(needed=1)

    def raises_unprintable(self):
        raise UnprintableError

    def raises_end_of_file(self):
        raise EOFError("of the environment's own")

    def raises_interrupt(self):
        raise KeyboardInterrupt

    def exits(self):
        sys.exit(3)

    def leaves(self):
        os._exit(4)

    def sleeps(self):
        time.sleep(1e6)

    def closes_its_pipe(self):
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.close(int(name))

    def closes_its_pipe_and_sleeps(self):
        self.closes_its_pipe()
        time.sleep(1e6)

    def raises_beside_its_simulator(self):
        subprocess.Popen(["sleep", "1000"])
        return 1 // 0

    def sleeps_beside_its_simulator(self):
        subprocess.Popen(["sleep", "1000"])
        time.sleep(1e6)

    def leaves_a_child_with_its_pipe(self):
        if os.fork() == 0:
            time.sleep(3)
            os._exit(0)
        os._exit(4)


class Forgetful(Breaking):
    """Takes its start state from the clock, whatever the seed."""

    def reset(self, **kwargs):
        _, info = super().reset(**kwargs)
        self.state = self.state + (time.monotonic_ns() % 1000) * 1e-6
        return np.array(self.state, dtype=np.float32), info


class Lying(gym.Env):
    """Ten steps of (0.5, 0.5, 0.5), each paid with 1, until it does what `lie` says.

    Args:
        lie: a key of `LIES`, or of what `reset` and `__init__` know.
        at: step of the process's life at which it begins; a reset lies if it is 0.
        length: steps of an episode.
    """

    copies = 0

    def __init__(self, lie="none", at=1, length=10):
        Lying.copies += 1
        self.lie, self.at, self.length, self.total = lie, at, length, 0
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        if lie == "spaces differ":
            self.observation_space = spaces.Box(0.0, 1.0 + Lying.copies, (3,), np.float32)
        elif lie == "start":
            self.action_space = spaces.Discrete(3, start=-1)
        elif lie == "unbounded":
            self.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        elif lie == "half bounded":
            self.action_space = spaces.Box(0.0, np.inf, (2,), np.float32)
        elif lie.startswith("discrete"):
            self.observation_space = spaces.Discrete(3)
        elif lie.startswith("dict"):
            self.observation_space = spaces.Dict({"a": spaces.Box(0.0, 1.0, (3,)), "b": spaces.Discrete(2)})
        elif lie == "text":
            self.observation_space = spaces.Text(5)
        elif lie == "no space":
            del self.observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        if self.at:
            return self.observe(), {}
        return RESETS[self.lie]

    def observe(self):
        if self.lie.startswith("discrete"):
            return 1
        if self.lie.startswith("dict"):
            return {"a": np.full(3, 0.5, np.float32), "b": 1}
        return np.full(3, 0.5, np.float32)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.steps += 1
        self.total += 1
        honest = (self.observe(), 1.0, self.steps == self.length, False, {})
        if self.total < self.at or self.lie not in LIES:
            return honest
        return LIES[self.lie](*honest)


# what `step` answers instead
LIES = {
    "wrong shape": lambda o, r, d, t, i: (np.zeros(4, np.float32), r, d, t, i),
    "shape that broadcasts": lambda o, r, d, t, i: (np.zeros(1, np.float32), r, d, t, i),
    "scalar": lambda o, r, d, t, i: (0.5, r, d, t, i),
    "no observation": lambda o, r, d, t, i: (None, r, d, t, i),
    "list": lambda o, r, d, t, i: ([0.5, 0.5, 0.5], r, d, t, i),
    "ragged": lambda o, r, d, t, i: ([0.5, [0.5], 0.5], r, d, t, i),
    "float64": lambda o, r, d, t, i: (o.astype(np.float64), r, d, t, i),
    "int64": lambda o, r, d, t, i: (np.ones(3, np.int64), r, d, t, i),
    "strings": lambda o, r, d, t, i: (np.array(["a", "b", "c"]), r, d, t, i),
    "objects": lambda o, r, d, t, i: (np.array([0.5, None, 0.5]), r, d, t, i),
    "complex": lambda o, r, d, t, i: (o + 1j, r, d, t, i),
    "outside": lambda o, r, d, t, i: (o + 100.0, r, d, t, i),
    "nan observation": lambda o, r, d, t, i: (o * np.nan, r, d, t, i),
    "infinite observation": lambda o, r, d, t, i: (o * np.inf, r, d, t, i),
    "huge observation": lambda o, r, d, t, i: (o.astype(np.float64) * 1e300, r, d, t, i),
    "nothing": lambda o, r, d, t, i: None,
    "4 parts": lambda o, r, d, t, i: (o, r, d, i),
    "6 parts": lambda o, r, d, t, i: (o, r, d, t, i, i),
    "one array": lambda o, r, d, t, i: np.zeros(5),
    "no reward": lambda o, r, d, t, i: (o, None, d, t, i),
    "string reward": lambda o, r, d, t, i: (o, "1.0", d, t, i),
    "word reward": lambda o, r, d, t, i: (o, "much", d, t, i),
    "array reward": lambda o, r, d, t, i: (o, np.ones(1), d, t, i),
    "long array reward": lambda o, r, d, t, i: (o, np.ones(2), d, t, i),
    "list reward": lambda o, r, d, t, i: (o, [1.0], d, t, i),
    "numpy reward": lambda o, r, d, t, i: (o, np.float32(1.0), d, t, i),
    "array without dims": lambda o, r, d, t, i: (o, np.array(1.0), d, t, i),
    "whole reward": lambda o, r, d, t, i: (o, 1, d, t, i),
    "true reward": lambda o, r, d, t, i: (o, True, d, t, i),
    "nan reward": lambda o, r, d, t, i: (o, np.nan, d, t, i),
    "infinite reward": lambda o, r, d, t, i: (o, -np.inf, d, t, i),
    "huge reward": lambda o, r, d, t, i: (o, 1e300, d, t, i),
    "no flag": lambda o, r, d, t, i: (o, r, None, t, i),
    "string flag": lambda o, r, d, t, i: (o, r, "False", t, i),
    "array flag": lambda o, r, d, t, i: (o, r, d, np.array([False]), i),
    "numpy flags": lambda o, r, d, t, i: (o, r, np.bool_(d), np.bool_(t), i),
    "no info": lambda o, r, d, t, i: (o, r, d, t, None),
    "terminated at once": lambda o, r, d, t, i: (o, r, True, False, i),
    "truncated at once": lambda o, r, d, t, i: (o, r, False, True, i),
    "both at once": lambda o, r, d, t, i: (o, r, True, True, i),
    "discrete outside": lambda o, r, d, t, i: (7, r, d, t, i),
    "discrete none": lambda o, r, d, t, i: (None, r, d, t, i),
    "dict without a key": lambda o, r, d, t, i: ({"a": o["a"]}, r, d, t, i),
    "dict as an array": lambda o, r, d, t, i: (o["a"], r, d, t, i),
}
_SOUND = np.full(3, 0.5, np.float32)
# what `reset` answers instead
RESETS = {
    "no info": _SOUND,
    "info alone": ({},),
    "wrong shape": (np.zeros(4, np.float32), {}),
    "shape that broadcasts": (np.zeros(1, np.float32), {}),
    "no observation": (None, {}),
    "nothing": None,
    "strings": (np.array(["a", "b", "c"]), {}),
    "nan observation": (_SOUND * np.nan, {}),
    "infinite observation": (_SOUND * np.inf, {}),
    "info is none": (_SOUND, None),
}


class LyingVector(gym.vector.VectorEnv):
    """The same as a vector environment; `lie` is a key of `VECTOR_LIES`."""

    def __init__(self, num_envs=1, max_episode_steps=10, lie="none", at=1):
        self.metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}
        self.num_envs, self.length, self.lie, self.at = num_envs, max_episode_steps, lie, at
        self.single_action_space = spaces.Discrete(2)
        self.single_observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.MultiDiscrete([2] * num_envs)
        self.observation_space = spaces.Box(0.0, 1.0, (num_envs, 3), np.float32)
        self.total = 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        observations = np.full((self.num_envs, 3), 0.5, np.float32)
        return (observations, {}) if self.at else VECTOR_RESETS[self.lie](observations)

    def step(self, actions):
        self.steps += 1
        self.total += 1
        number = self.num_envs
        over = np.full(number, self.steps == self.length)
        honest = np.full((number, 3), 0.5, np.float32), np.ones(number), over, np.zeros(number, bool), {}
        if self.total < self.at or self.lie == "none":
            return honest
        return VECTOR_LIES[self.lie](*honest)


VECTOR_LIES = {
    "wrong shape": lambda o, r, d, t, i: (o[:, :2], r, d, t, i),
    "one lane": lambda o, r, d, t, i: (o[:1], r, d, t, i),
    "no observation": lambda o, r, d, t, i: (None, r, d, t, i),
    "lists": lambda o, r, d, t, i: (o.tolist(), r.tolist(), d.tolist(), t.tolist(), i),
    "strings": lambda o, r, d, t, i: (o.astype(str), r, d, t, i),
    "objects": lambda o, r, d, t, i: (o.astype(object), r, d, t, i),
    "float64": lambda o, r, d, t, i: (o.astype(np.float64), r, d, t, i),
    "nothing": lambda o, r, d, t, i: None,
    "4 parts": lambda o, r, d, t, i: (o, r, d, i),
    "one reward": lambda o, r, d, t, i: (o, 1.0, d, t, i),
    "no reward": lambda o, r, d, t, i: (o, None, d, t, i),
    "column of rewards": lambda o, r, d, t, i: (o, r[:, None], d, t, i),
    "nan reward": lambda o, r, d, t, i: (o, r * np.nan, d, t, i),
    "infinite reward": lambda o, r, d, t, i: (o, r * np.inf, d, t, i),
    "nan observation": lambda o, r, d, t, i: (o * np.nan, r, d, t, i),
    "infinite observation": lambda o, r, d, t, i: (o * np.inf, r, d, t, i),
    "whole flags": lambda o, r, d, t, i: (o, r, d.astype(int), t, i),
    "one flag": lambda o, r, d, t, i: (o, r, False, t, i),
    "terminated at once": lambda o, r, d, t, i: (o, r, ~t, t, i),
    "outside": lambda o, r, d, t, i: (o + 100.0, r, d, t, i),
}
VECTOR_RESETS = {
    "no info": lambda o: o,
    "wrong shape": lambda o: (o[:, :2], {}),
    "nothing": lambda o: None,
    "nan observation": lambda o: (o * np.nan, {}),
}

# without Gymnasium's own checker, which finds some of it first
gym.register("Breaking-v0", Breaking, max_episode_steps=60, disable_env_checker=True)
gym.register("Forgetful-v0", Forgetful, max_episode_steps=60, disable_env_checker=True)
gym.register("Lying-v0", Lying, max_episode_steps=20, disable_env_checker=True)
gym.register("CheckedLying-v0", Lying, max_episode_steps=20)
gym.register("LyingVector-v0", vector_entry_point=LyingVector, max_episode_steps=10)
