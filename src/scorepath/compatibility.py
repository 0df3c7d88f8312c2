"""Which environment, head, estimator and baseline work together; checked once, before any rollout."""

from collections.abc import Mapping

import gymnasium as gym

from scorepath.baselines import AbstractBaseline, NoBaseline
from scorepath.distributions import AbstractHead
from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError
from scorepath.estimators import AbstractEstimator


def check_head(
    option: str,
    head: type[AbstractHead],
    env: AbstractEnvironment,
    alternatives: Mapping[str, type[AbstractHead]],
) -> None:
    """Refuses a head that cannot act in the environment's action space.

    Args:
        option: the head's name in `conf/dist`.
        alternatives: every option of `conf/dist`, for the remedy.

    Raises:
        ConfigError: naming the options that would work.
    """
    if head.accepts(env.action_space):
        return
    working = [f"dist={name}" for name, other in alternatives.items() if other.accepts(env.action_space)]
    if working:
        remedy = "use " + " or ".join(working)
    else:
        remedy = "no distribution here can act in it; see README, 'Add a distribution'"
    raise ConfigError(
        f"dist={option} needs {head.needs}, but {env.name} has {describe_space(env.action_space)}: {remedy}."
    )


def check_baseline(option: str, baseline: AbstractBaseline, episodes_per_update: int) -> None:
    """Refuses a baseline that needs more episodes than a batch has.

    Raises:
        ConfigError: with the override that mends it.
    """
    if episodes_per_update < baseline.min_episodes:
        raise ConfigError(
            f"baseline={option} compares the episodes of a batch with each other, but episodes_per_update="
            f"{episodes_per_update}: use episodes_per_update={baseline.min_episodes} or more, or baseline=none."
        )


def check_estimator(
    names: Mapping[str, str],
    env: AbstractEnvironment,
    head: AbstractHead,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
) -> None:
    """Refuses an estimator that the environment, the head or the baseline cannot serve.

    Args:
        names: the options chosen for `env`, `dist`, `estimator` and `baseline`.

    Raises:
        ConfigError: with the override that mends it.
    """
    chosen = f"estimator={names['estimator']}"
    if not estimator.needs_graph:
        return
    if not head.has_rsample:
        raise ConfigError(
            f"{chosen} differentiates through rsample(), but dist={names['dist']} has none (its samples are discrete): "
            "use estimator=score_function."
        )
    if not env.differentiable:
        raise ConfigError(
            f"{chosen} differentiates through the environment, but env={names['env']} ({env.name}) gives no gradients: "
            "use estimator=score_function, or a differentiable environment such as env=pendulum_torch or env=lqr."
        )
    if not (baseline.predicts_values or isinstance(baseline, NoBaseline)):
        raise ConfigError(
            f"{chosen} gains nothing from baseline={names['baseline']}, whose gradient is zero: use baseline=value, "
            "which bootstraps the end of each window, or baseline=none."
        )


def describe_space(space: gym.Space) -> str:
    """A space in few words."""
    if isinstance(space, gym.spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, gym.spaces.Box):
        return f"Box{tuple(space.shape)} of {space.dtype}"
    return " ".join(str(space).split())
