"""Which environment, head, estimator and baseline work together; checked once, before any rollout."""

from collections.abc import Callable, Mapping

import gymnasium as gym
from torch.distributions import Distribution

from scorepath.baselines import AbstractBaseline
from scorepath.distributions import AbstractHead
from scorepath.distributions.base import entries_of
from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError
from scorepath.estimators import AbstractEstimator

Heads = Mapping[str, type[AbstractHead]]  # options of `conf/dist`


def check_head(
    option: str,
    head: type[AbstractHead],
    env: AbstractEnvironment,
    alternatives: Callable[[], Heads],
    elsewhere: Callable[[], Mapping[str, AbstractEnvironment]] = dict,
) -> None:
    """Refuses a head that cannot act in the environment's action space.

    Args:
        option: the head's name in `conf/dist`.
        alternatives: gives every option of `conf/dist`, for the remedy.
        elsewhere: override -> environment, for those that may take the environment's place and so keep the head.

    Raises:
        ConfigError: naming the options that would work.
    """
    if _can_act(head, env):
        return
    working = _common_first(alternatives(), lambda other: _can_act(other, env))
    places = [override for override, other in elsewhere().items() if _can_act(head, other)]
    if places:
        remedy = f"use {' or '.join(places[:4])}, where it can act" + (f", or {working[0]} here" if working else "")
    elif working:
        remedy = "use " + " or ".join(working[:4])
    else:
        remedy = "no distribution here can act in it; see README, 'Add a distribution'"
    if head.accepts(env.action_space):
        raise ConfigError(
            f"dist={option} acts by weights over the choices of {describe_space(env.action_space)}, but {env.name} "
            f"takes choices alone: {remedy}."
        )
    raise ConfigError(
        f"dist={option} needs {head.needs}, but {env.name} has {describe_space(env.action_space)}: {remedy}."
    )


def _common_first(heads: Heads, works: Callable[[type[AbstractHead]], bool]) -> list[str]:
    """The overrides of the common heads that work, or of all that do if none of those does."""
    working = [(f"dist={name}", head) for name, head in heads.items() if works(head)]
    return [name for name, head in working if head.is_common] or [name for name, _ in working]


def _can_act(head: type[AbstractHead], env: AbstractEnvironment) -> bool:
    return head.accepts(env.action_space) and (env.accepts_weights or not head.acts_in_weights)


def check_baseline(option: str, baseline: AbstractBaseline, env: AbstractEnvironment, episodes_per_update: int) -> None:
    """Refuses a baseline that needs more episodes than a batch has, or resets that the environment cannot repeat.

    Raises:
        ConfigError: with the override that fixes it.
    """
    if episodes_per_update < baseline.min_episodes:
        raise ConfigError(
            f"baseline={option} compares the episodes of a batch with each other, but episodes_per_update="
            f"{episodes_per_update}: use episodes_per_update={baseline.min_episodes} or more, or baseline=none."
        )
    if baseline.needs_same_starts and env.repeatable_starts < episodes_per_update:
        few = int(env.repeatable_starts)
        found, remedy = (
            (f"starts only {few} of episodes_per_update={episodes_per_update} from the seed", "use env.workers=null")
            if few
            else ("cannot be set back to a seed", "use env.vectorization=auto, sync or async")
        )
        raise ConfigError(
            f"baseline={option} plays a batch twice from the same starts, but {env.name} as it is stepped here {found}:"
            f" {remedy}, or baseline=leave_one_out."
        )


def check_batch(option: str, estimator: AbstractEstimator, episodes_per_update: int) -> None:
    """Refuses an estimator that needs more episodes than a batch has.

    Raises:
        ConfigError: with the override that fixes it.
    """
    if episodes_per_update < estimator.min_episodes:
        raise ConfigError(
            f"estimator={option} takes variances over the episodes of a batch, but episodes_per_update="
            f"{episodes_per_update}: use episodes_per_update={estimator.min_episodes} or more."
        )


def check_windows(estimator: AbstractEstimator, env: AbstractEnvironment, processes: int) -> None:
    """Refuses windows of which processes may play different numbers: they wait for each other after each window.

    Raises:
        ConfigError: with the override that fixes it.
    """
    if processes > 1 and estimator.window is not None and env.may_end_early:
        raise ConfigError(
            f"The episodes of {env.name} may end before their {env.max_episode_steps} steps, so that several "
            f"processes may play different numbers of windows of estimator.window={estimator.window} steps: "
            "use estimator.window=null, or trainer.devices=1."
        )


def check_estimator(
    names: Mapping[str, str],
    env: AbstractEnvironment,
    head: AbstractHead,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    alternatives: Callable[[], Heads] = dict,
) -> None:
    """Refuses an estimator that the environment, the head or the baseline cannot serve: the table of what is legal.

    Args:
        names: the options chosen for `env` (or, to check a gradient, `problem`), `dist`, `estimator` and `baseline`.
        alternatives: every option of `conf/dist`, for the remedy.

    Raises:
        ConfigError: with the override that fixes it.
    """
    group = "problem" if "problem" in names else "env"
    own_env, own_dist = f"{group}={names[group]} ({env.name})", f"dist={names['dist']}"
    known = _knows(estimator, head)
    working = [] if known else _working_dists(estimator, env, alternatives())
    table = (
        (
            estimator.needs_rsample and not head.has_rsample,
            f"differentiates through rsample(), but {own_dist} has none",
            "use estimator=score_function",
        ),
        (
            estimator.needs_graph and not env.differentiable,
            f"differentiates through the environment, but {own_env} gives no gradients",
            "use estimator=score_function, or a differentiable environment such as env=pendulum_torch or env=lqr",
        ),
        (
            estimator.needs_weights and not env.accepts_weights,
            f"acts by weights over the choices of a Discrete space, but {own_env} takes none",
            "use estimator=score_function, or an environment that does, such as env=pendulum_discrete_torch",
        ),
        (
            not known,
            f"knows the derivatives of {_listed(estimator.dists)} alone, but {own_dist} is something else",
            " or ".join(("use estimator=score_function", *working)),
        ),
        (
            estimator.needs_branching and not env.can_branch,
            f"branches episodes, but the state of {own_env} cannot be copied",
            "use estimator=score_function, or a torch environment such as env=pendulum_torch",
        ),
        (
            estimator.needs_graph and env.discontinuities is not None and not estimator.accept_discontinuities,
            f"differentiates single paths, which miss jumps, but in {own_env} {env.discontinuities}",
            f"use estimator=score_function, which sees them, or {estimator.remedy_for_discontinuities}",
        ),
        (
            estimator.baselines == "none" and not baseline.is_zero,
            f"gains nothing from baseline={names['baseline']}, which drops out of its differences",
            "use baseline=none",
        ),
        (
            estimator.baselines == "value" and not (baseline.predicts_values or baseline.is_zero),
            f"gains nothing from baseline={names['baseline']}, whose gradient is zero",
            "use baseline=value, which bootstraps the end of each window, or baseline=none",
        ),
        (
            estimator.whole_returns and baseline.predicts_values,
            f"weighs actions with whole returns, but baseline={names['baseline']} is fitted to what follows a step",
            "use estimator.credit=reward_to_go, or baseline=leave_one_out",
        ),
    )
    for refused, reason, remedy in table:
        if refused:
            raise ConfigError(f"estimator={names['estimator']} {reason}: {remedy}.")


def _knows(estimator: AbstractEstimator, head: AbstractHead) -> bool:
    if not estimator.dists:
        return True
    weight = next(head.parameters())
    return isinstance(entries_of(head(weight.new_zeros(1, head.in_features))), estimator.dists)


def _listed(kinds: tuple[type[Distribution], ...]) -> str:
    return " and ".join(kind.__name__ for kind in kinds)


def _working_dists(estimator: AbstractEstimator, env: AbstractEnvironment, alternatives: Heads) -> list[str]:
    def works(head: type[AbstractHead]) -> bool:
        if not _can_act(head, env):
            return False
        try:
            return _knows(estimator, head(env.action_space, 1))
        except Exception:  # somebody's head that takes more arguments
            return False

    return _common_first(alternatives, works)


def describe_space(space: gym.Space) -> str:
    """A space in few words."""
    if isinstance(space, gym.spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, gym.spaces.Box):
        return f"Box{tuple(space.shape)} of {space.dtype}"
    return " ".join(str(space).split())
