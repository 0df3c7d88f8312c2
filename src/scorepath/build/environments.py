"""Config -> environments: those that train, those that judge, those of problems."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from scorepath.envs import AbstractEnvironment, GymnasiumEnvironment
from scorepath.errors import ConfigError, ScorepathError
from scorepath.run.recording import draw_without_display
from scorepath.sources import Sources

_EVAL_ENVS = 100  # at most, stepped together; a batch implementation takes them in one sweep
_EVAL_ENVS_SYNC = 20  # at most, where each environment is a Python object of its own


def construct(node: Any, what: str, **arguments: Any) -> Any:
    """Instantiates a config node; what its constructor refuses reaches the user as one sentence.

    Raises:
        ConfigError: with the constructor's words and the group it belongs to.
    """
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ScorepathError):
            raise cause from None
        words = str(cause or error) or repr(cause)  # an AssertionError has none
        reason = " ".join(words.split("\nfull_key", 1)[0].split())
        raise ConfigError(f"{what} was refused: {reason}") from error


def make_environment(
    node: DictConfig, num_episodes: int, device: torch.device | str = "cpu", **arguments: Any
) -> AbstractEnvironment:
    """The training environment of `conf/env`."""
    return construct(node, "env", num_episodes=num_episodes, device=device, **arguments)


def make_evaluation_environment(
    node: DictConfig, episodes: int, device: torch.device | str = "cpu", render: bool = False
) -> AbstractEnvironment:
    """What the policy is judged on: Gymnasium's original of a twin, and the environment itself of others.

    Args:
        episodes: wanted in all; decides how many environments play side by side.
        render: one environment that can be drawn, instead.
    """
    if render:
        draw_without_display()
    probe = make_environment(node, 1)
    probe.close()
    original = getattr(getattr(probe, "dynamics", None), "original", None)
    kwargs: dict[str, Any] = {}
    if original is not None:
        make = partial(GymnasiumEnvironment, original, reward_range=probe.reward_range, device=device)
    elif isinstance(probe, GymnasiumEnvironment):
        kwargs = dict(node.kwargs or {})
        make = partial(
            GymnasiumEnvironment,
            node.id,
            vectorization=_evaluated_by(node, probe),
            kwargs=kwargs,
            max_episode_steps=probe.max_episode_steps,
            reward_threshold=node.reward_threshold,
            reward_range=probe.reward_range,
            device=device,
        )
    else:
        return make_environment(node, 1 if render else min(episodes, _EVAL_ENVS), device)
    single = make(num_episodes=1)
    if render:
        return _drawable(make, kwargs, single)
    single.close()
    return make(num_episodes=min(episodes, _EVAL_ENVS if single.is_batch_implementation else _EVAL_ENVS_SYNC))


def _evaluated_by(node: DictConfig, probe: GymnasiumEnvironment) -> Any:
    """The vectorization: training's own, for another may be another task (Atari's has other observations)."""
    if node.vectorization == "async":
        return "sync"  # the same environments, without their processes
    if node.vectorization == "envpool" and not node.kwargs and node.id in gym.registry:
        # Gymnasium's can be seeded again, where it is the same environment; EnvPool's arguments are its own
        with contextlib.suppress(ConfigError):  # a package may be missing
            other = GymnasiumEnvironment(node.id, 1, max_episode_steps=probe.max_episode_steps)
            other.close()
            if _alike(probe, other):
                return "auto"
    return node.vectorization


def _alike(one: AbstractEnvironment, other: AbstractEnvironment) -> bool:
    """Whether a policy for one can act in the other, whatever the types and the bounds of observations."""
    actions, others = one.action_space, other.action_space
    if isinstance(actions, gym.spaces.Box) and isinstance(others, gym.spaces.Box):
        same = actions.shape == others.shape and np.allclose((actions.low, actions.high), (others.low, others.high))
    else:
        same = actions == others
    return same and one.observation_space.shape == other.observation_space.shape


def _drawable(
    make: Callable[..., GymnasiumEnvironment], kwargs: dict[str, Any], single: GymnasiumEnvironment
) -> GymnasiumEnvironment:
    """One environment that can be drawn, or `single` as it is where the policy could not act in that one."""
    try:
        drawn = make(num_episodes=1, vectorization="sync", kwargs={**kwargs, "render_mode": "rgb_array"})
    except ConfigError:
        if not single.is_batch_implementation:
            raise
        return single  # its arguments are not those of a single environment
    kept, other = (drawn, single) if _alike(drawn, single) else (single, drawn)
    other.close()
    return kept


def problem_environments() -> dict[str, AbstractEnvironment]:
    """Every option of `problem`, ours and the user's, as an override, and its environment; without those that cannot be
    built.
    """
    sources, found = Sources.of_job(), {}
    for option in sources.options("problem"):
        with contextlib.suppress(Exception):
            override = f"problem={option}"
            found[override] = construct(sources.compose([override])["problem"], override).env(1)
    return found
