"""What a policy is judged on: config -> the environments of evaluations and of pictures."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from omegaconf import DictConfig

from scorepath.build.environments import make_environment
from scorepath.envs import AbstractEnvironment, GymnasiumEnvironment
from scorepath.errors import ConfigError
from scorepath.run.recording import draw_without_display

_EVAL_ENVS = 100  # at most, stepped together; a batch implementation takes them in one sweep
_EVAL_ENVS_SYNC = 20  # at most, where each environment is a Python object of its own


class Judge(NamedTuple):
    """What a policy is judged on: Gymnasium's original of a twin, and of others the environment itself."""

    known: AbstractEnvironment  # one of them, closed: its spaces and its threshold
    make: Callable[..., AbstractEnvironment]  # num_episodes and device -> environment
    most: int  # stepped side by side
    draw: Callable[[], AbstractEnvironment]  # one that can be drawn, where it can

    def environment(self, episodes: int, device: torch.device | str = "cpu") -> AbstractEnvironment:
        """As many environments as play so many episodes side by side, or one after the other."""
        return self.make(num_episodes=min(episodes, self.most), device=device)

    def drawable(self) -> AbstractEnvironment:
        """One environment, which can be drawn where a policy for the others can act in one that is."""
        draw_without_display()
        return self.draw()


def make_judge(node: DictConfig, probe: AbstractEnvironment) -> Judge:
    """Builds one only where the probe does not show what it is like.

    Args:
        node: of `conf/env`.
        probe: an environment of it.
    """
    if probe.original is not None:
        make = partial(GymnasiumEnvironment, probe.original, reward_range=probe.reward_range)
        return _gymnasium_judge(make, {}, _ask(make))
    if not isinstance(probe, GymnasiumEnvironment):
        own = partial(make_environment, node)
        return Judge(probe, own, _EVAL_ENVS, partial(own, 1))
    kwargs = dict(node.kwargs or {})
    make = partial(
        GymnasiumEnvironment,
        node.id,
        vectorization=node.vectorization,
        kwargs=kwargs,
        max_episode_steps=probe.max_episode_steps,
        reward_threshold=node.reward_threshold,
        reward_range=probe.reward_range,
    )
    # training's own vectorization, for another may be another task (Atari's has other observations)
    if node.vectorization == "async":
        make = partial(make, vectorization="sync")  # the same environments, without their processes
        return _gymnasium_judge(make, kwargs, _ask(make))
    if node.vectorization == "envpool" and not kwargs and node.id in gym.registry:
        # Gymnasium's can be seeded again, where it is the same environment; EnvPool's arguments are its own
        with contextlib.suppress(ConfigError):  # a package may be missing
            other = partial(make, vectorization="auto")
            known = _ask(other)
            if _alike(probe, known):
                return _gymnasium_judge(other, kwargs, known)
    return _gymnasium_judge(make, kwargs, probe)


def _ask(make: Callable[..., GymnasiumEnvironment]) -> GymnasiumEnvironment:
    known = make(num_episodes=1)
    known.close()
    return known


def _gymnasium_judge(
    make: Callable[..., GymnasiumEnvironment], kwargs: dict[str, Any], known: GymnasiumEnvironment
) -> Judge:
    def draw() -> GymnasiumEnvironment:
        try:
            drawn = make(num_episodes=1, vectorization="sync", kwargs={**kwargs, "render_mode": "rgb_array"})
        except ConfigError:
            if not known.is_batch_implementation:
                raise
            return make(num_episodes=1)  # whose arguments are not those of a single environment
        if _alike(drawn, known):
            return drawn
        drawn.close()
        return make(num_episodes=1)

    return Judge(known, make, _EVAL_ENVS if known.is_batch_implementation else _EVAL_ENVS_SYNC, draw)


def _alike(one: AbstractEnvironment, other: AbstractEnvironment) -> bool:
    """Whether a policy for one can act in the other, whatever the types and the bounds of observations."""
    actions, others = one.action_space, other.action_space
    if isinstance(actions, gym.spaces.Box) and isinstance(others, gym.spaces.Box):
        same = actions.shape == others.shape and np.allclose((actions.low, actions.high), (others.low, others.high))
    else:
        same = actions == others
    return same and one.observation_space.shape == other.observation_space.shape
