"""The policy gradient in one screen: play the episodes of an update, weigh them, and give the surrogate loss.

    for episodes in play(env, policy, estimator, baseline, gamma, streams):      # one window, or several
        weighed = weigh(estimator, baseline, policy, episodes, gamma)            # returns - baseline, normalised
        for loss, _ in losses(estimator, policy, episodes, weighed.weights, gamma):
            loss.backward()                                                      # REINFORCE: -log_prob(a) * weight

Training, verification and diagnostics all compute their gradients here, so that what is checked is what trains.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from scorepath.baselines import AbstractBaseline
from scorepath.envs import AbstractEnvironment
from scorepath.estimators import AbstractEstimator
from scorepath.policy import Policy
from scorepath.ranks import gather_episodes
from scorepath.seeding import Stream, Streams
from scorepath.types import Episodes


def play(
    env: AbstractEnvironment,
    policy: Policy,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    gamma: float,
    streams: Streams,
) -> Iterator[Episodes]:
    """One whole episode in each environment, window by window; the caller may learn between two of them.

    Args:
        streams: of the update; everything random in its episodes follows from them.
    """
    resets = streams.seed_of(Stream.ENVIRONMENT)
    streams.seed_torch(Stream.BASELINE)
    extras = baseline.play(env, policy, resets, gamma)
    streams.seed_torch(Stream.ACTION)
    for episodes in estimator.collect(env, policy, resets):
        yield replace(episodes, extras={**episodes.extras, **extras})


class Weighed(NamedTuple):
    """What a loss is made with, and what is learned from beside it."""

    advantages: Tensor  # (T, N), as the baseline left them
    weights: Tensor  # (T, N, ...), as the estimator's normalisation made them
    returns: Tensor  # (T, N)
    everyone: Episodes  # the episodes of all processes that learn together, with whatever the objective adds to rewards
    all_returns: Tensor  # of these, (T', P N), which the baseline is fitted to


def weigh(
    estimator: AbstractEstimator, baseline: AbstractBaseline, policy: Policy, episodes: Episodes, gamma: float
) -> Weighed:
    """Everything that couples the episodes of a batch, those of other processes included: returns, baseline and
    normalisation.
    """
    everyone, columns = gather_episodes(episodes)
    everyone = estimator.add_bonus(policy, everyone)
    last_values = baseline.last_values(everyone) if estimator.bootstraps else None
    all_returns = estimator.returns(everyone, gamma, last_values)
    all_advantages = baseline.advantages(everyone, all_returns, gamma, policy)
    rows = slice(len(episodes.rewards))  # other processes may have played more
    advantages, returns = all_advantages[rows, columns], all_returns[rows, columns]
    if estimator.needs_graph:
        weights = estimator.weigh(policy, estimator.add_bonus(policy, episodes), advantages, gamma)
    else:
        weights = estimator.weigh(policy, everyone, all_advantages, gamma)[rows, columns]
    return Weighed(advantages, weights, returns, everyone, all_returns)


def losses(
    estimator: AbstractEstimator,
    policy: Policy,
    episodes: Episodes,
    weights: Tensor,
    gamma: float,
    chunk: int | None = None,
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The surrogate loss in parts whose sum it is, to be differentiated one by one.

    A part is the share of some episodes; its activations are gone before the next part begins, and stay in the
    processor's cache. A loss with a graph through the rollout is one part.

    Args:
        weights: (T, N, ...), of `weigh`.
        chunk: env steps of a part, though at least one episode; None is the whole batch.

    Yields:
        loss () and metrics of each part, the metrics weighed by the part's share of valid steps.
    """
    time, number = episodes.rewards.shape
    whole = chunk is None or estimator.needs_graph or episodes.log_probs is not None
    size = number if whole or chunk is None else max(1, chunk // time)
    valid_steps = episodes.valid.sum()
    for start in range(0, number, size):
        columns = slice(start, start + size)
        part = episodes if size >= number else episodes.select(columns)
        loss, metrics = estimator(policy, part, weights[:, columns], gamma)
        share = part.valid.sum() / valid_steps
        yield loss * (part.valid.shape[1] / number), {key: value * share for key, value in metrics.items()}


class Surrogate(NamedTuple):
    """What an update is computed from."""

    loss: Tensor  # (); its gradient is the estimate of -∇J, its value nothing in particular
    metrics: dict[str, Tensor]
    advantages: Tensor  # these as in `Weighed`
    weights: Tensor
    returns: Tensor
    everyone: Episodes
    all_returns: Tensor


def surrogate_loss(
    estimator: AbstractEstimator, baseline: AbstractBaseline, policy: Policy, episodes: Episodes, gamma: float
) -> Surrogate:
    """The surrogate loss of a batch, or of a window, in one part."""
    weighed = weigh(estimator, baseline, policy, episodes, gamma)
    ((loss, metrics),) = losses(estimator, policy, episodes, weighed.weights, gamma)
    return Surrogate(loss, metrics, *weighed)
