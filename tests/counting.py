"""Environments that count, as vector environments of every autoreset mode; `counting:Id` registers them."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

LENGTHS = (2, 5, 3, 4)  # of lane 0, 1, ...; odd lanes end by a time limit of their own
VECTOR = "counting:CountingVector-v0"
UNLIMITED = "counting:UnlimitedVector-v0"


class Counting(gym.Env):
    """An episode of `LENGTHS[lane]` steps: observes (step, episode of its life, lane), is paid the step's number."""

    def __init__(self, lane, observations="box"):
        self.lane, self.observations, self.episode = lane, observations, 0
        self.action_space = spaces.Discrete(2)
        box = spaces.Box(0.0, np.inf, (3,), np.float32)
        self.observation_space = {
            "box": box,
            "discrete": spaces.Discrete(10, start=1),
            "dict": spaces.Dict({"all": box, "step": spaces.Discrete(10)}),
            "tuple": spaces.Tuple((spaces.Discrete(10), box)),
        }[observations]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 0 if seed is not None else self.episode + 1
        self.steps = 0
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == LENGTHS[self.lane]
        assert self.steps <= LENGTHS[self.lane], "stepped after its end"
        return self.observe(), float(self.steps), over and self.lane % 2 == 0, over and self.lane % 2 == 1, {}

    def observe(self):
        box = np.array([self.steps, self.episode, self.lane], np.float32)
        return {
            "box": box,
            "discrete": self.steps + 1,
            "dict": {"all": box, "step": self.steps},
            "tuple": (self.steps, box),
        }[self.observations]


class CountingVector(SyncVectorEnv):
    """Gymnasium's own autoreset, and what other implementations make of it.

    Args:
        mode: what it does, by the value of an AutoresetMode.
        says: what its metadata say; None says nothing.
        last: form of `final_obs` in the infos: Gymnasium's `objects`, or `list`, `batch`, `batch without mask`, `none`,
            `masked`, `column`.
        resets_all: whatever the mask says.
        seeds: smallest seed that is refused, as from C++.
    """

    def __init__(
        self,
        num_envs=1,
        max_episode_steps=None,
        mode="NextStep",
        says="mode",
        observations="box",
        last="objects",
        resets_all=False,
        seeds=2**64,
    ):
        makes = [lambda lane=lane: Counting(lane, observations) for lane in range(num_envs)]
        super().__init__(makes, autoreset_mode=mode)
        self.metadata["autoreset_mode"] = self.autoreset_mode if says == "mode" else says
        if says is None:
            del self.metadata["autoreset_mode"]
        self.last, self.resets_all, self.seeds = last, resets_all, seeds

    def reset(self, *, seed=None, options=None):
        if seed is not None and seed + self.num_envs > self.seeds:
            raise TypeError("incompatible function arguments")
        return super().reset(seed=seed, options=None if self.resets_all else options)

    def step(self, actions):
        *answer, infos = super().step(actions)
        if "final_obs" in infos:
            infos = self.reform(infos, np.asarray(infos["_final_obs"]))
        return *answer, infos

    def reform(self, infos, ended):
        some = infos["final_obs"][np.flatnonzero(ended)[0]]
        each = [row if row is not None else some for row in infos["final_obs"]]
        if self.last == "list":
            return {"final_obs": list(infos["final_obs"]), "_final_obs": ended}
        if self.last.startswith("batch"):
            empty = gym.vector.utils.create_empty_array(self.single_observation_space, self.num_envs)
            batch = gym.vector.utils.concatenate(self.single_observation_space, each, empty)
            return {"final_obs": batch} | ({"_final_obs": ended} if self.last == "batch" else {})
        if self.last == "none":
            return {}
        if self.last == "masked":
            return infos | {"_final_obs": np.zeros_like(ended)}
        return {"final_obs": np.ones((self.num_envs, 1))} if self.last == "column" else infos


class Doubling(gym.vector.VectorRewardWrapper):
    def __init__(self, num_envs=1, max_episode_steps=None, mode="NextStep"):
        inner = SyncVectorEnv([lambda lane=lane: Counting(lane) for lane in range(num_envs)], autoreset_mode=mode)
        super().__init__(inner)

    def rewards(self, reward):
        return 2 * reward


class UnlimitedVector(CountingVector):
    """Takes no time limit, as Atari's; only single environments have another space, as Atari's do."""

    def __init__(self, num_envs=1, *, mode="NextStep"):
        super().__init__(num_envs, mode=mode)


def lonely(**kwargs):
    return Counting(0, "discrete")


gym.register("CountingVector-v0", vector_entry_point=CountingVector, max_episode_steps=10)
gym.register("Doubling-v0", vector_entry_point=Doubling, max_episode_steps=10)
gym.register("UnlimitedVector-v0", lonely, vector_entry_point=UnlimitedVector)
gym.register("ManyVector-v0", vector_entry_point=CountingVector, max_episode_steps=10, kwargs={"num_envs": 3})
MODES = [mode.value for mode in AutoresetMode]
