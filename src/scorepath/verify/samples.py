"""Gradients as training computes them: real rollouts, the real surrogate loss, autograd."""

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from scorepath.baselines import AbstractBaseline
from scorepath.estimators import AbstractEstimator
from scorepath.estimators.gradients import clip_gradients
from scorepath.policy import Policy
from scorepath.seeding import Stream, Streams, derive_seed
from scorepath.types import Episodes
from scorepath.update import play, surrogate_loss
from scorepath.verify.problem import AbstractProblem, LastValue, flatten, parameters_of

_STEPS = 200_000  # of one rollout that is cut into batches: enough to be fast, little enough to stay in the cache


def gradient_samples(
    problem: AbstractProblem,
    policy: Policy,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    *,
    gamma: float,
    batches: int,
    episodes: int,
    max_grad_norm: float | None = None,
    seed: int = 0,
) -> Tensor:
    """Estimates of +∇J from independent batches, (K, P) float64; policy, estimator and baseline stay as they are.

    An estimator that plays plain episodes without a graph gets its batches from one long rollout, split by columns;
    any other a rollout for each. The gradients of several windows of one batch are added up.

    Args:
        problem: gives the environment.
        policy: in float64.
        estimator: as configured.
        baseline: as fitted so far; it does not learn here, so that the batches stay independent.
        gamma: discount.
        batches: K.
        episodes: of each batch, N.
        max_grad_norm: clips the gradient that an optimizer step would be taken with, of each window; None does not.
        seed: of all streams.
    """
    estimator, baseline = copy.deepcopy(estimator), copy.deepcopy(baseline)
    parameters = parameters_of(policy)
    samples = []
    for windows in _batches(problem, policy, estimator, baseline, gamma, batches, episodes, seed):
        total = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
        for window in windows:
            loss = surrogate_loss(estimator, baseline, policy, window, gamma).loss
            if loss.requires_grad:  # a last window may hold no step that still counts
                gradient = flatten(torch.autograd.grad(loss, parameters, allow_unused=True), parameters)
                clip_gradients([gradient], max_grad_norm)
                total -= gradient
        samples.append(total)
    return torch.stack(samples)


def _batches(
    problem: AbstractProblem,
    policy: Policy,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    gamma: float,
    batches: int,
    episodes: int,
    seed: int,
) -> Iterator[Iterator[Episodes]]:
    """The windows of each batch."""
    splits = not (estimator.needs_graph or estimator.needs_branching) and estimator.window is None
    together = max(1, _STEPS // (episodes * problem.dynamics.max_episode_steps)) if splits else 1
    together = min(together, batches)
    env = problem.env(together * episodes)
    for number, first in enumerate(range(0, batches, together)):
        windows = play(env, policy, estimator, baseline, gamma, Streams(seed, update=number))
        if not splits:
            yield windows
            continue
        with torch.no_grad():  # one graph for all batches would be walked for each
            (played,) = windows
        played = replace(played, log_probs=None)  # which a `collect` may have recorded without its graph
        for index in range(min(together, batches - first)):
            yield iter([played.select(slice(index * episodes, (index + 1) * episodes))])


def warm_up(
    problem: AbstractProblem,
    policy: Policy,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    *,
    gamma: float,
    updates: int,
    episodes: int,
    seed: int = 0,
) -> None:
    """Lets baseline and estimator learn, in place, from as many updates of the policy as it is: training at rate 0.

    Nothing is played for those that keep nothing between updates.
    """
    if not (estimator.state_dict() or baseline.state_dict()):
        return
    optimizer = baseline.make_optimizer()
    env = problem.env(episodes)
    own_seed = derive_seed(seed, Stream.DIAGNOSTICS, index=1)
    for index in range(updates):
        for window in play(env, policy, estimator, baseline, gamma, Streams(own_seed, update=index)):
            surrogate = surrogate_loss(estimator, baseline, policy, window, gamma)
            baseline.fit(surrogate.everyone, surrogate.all_returns, optimizer)
            estimator.observe(surrogate.everyone, surrogate.all_returns)


def last_value(baseline: AbstractBaseline) -> LastValue | None:
    """V(o) as the baseline bootstraps truncated episodes with it, None if it does not."""

    def value(observations: Tensor) -> Tensor:
        number = len(observations)
        none = torch.zeros(number, dtype=torch.bool)
        cut = Episodes(
            observations=observations.unsqueeze(0),
            actions=torch.zeros(1, number),
            rewards=torch.zeros(1, number, dtype=observations.dtype),
            valid=~none.unsqueeze(0),
            terminated=none,
            truncated=~none,
            last_observations=observations,
        )
        values = baseline.last_values(cut)
        assert values is not None
        return values.detach()

    return value if baseline.predicts_values else None
