"""Environment x policy x seed -> Episodes."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from scorepath.distributions import AbstractHead
from scorepath.envs.base import AbstractEnvironment
from scorepath.errors import NonFiniteError, ScorepathError
from scorepath.policy import Policy
from scorepath.rollout.lanes import Lanes, lay_out
from scorepath.types import Episodes

# How to act: (head, dist) -> the action (*B, *A) to record, and what the environment is given for it.
ActingRule = Callable[[AbstractHead, Distribution], tuple[Tensor, Tensor]]


def rollout(
    env: AbstractEnvironment, policy: Policy, seed: int, *, log_probs: bool = False, deterministic: bool = False
) -> Episodes:
    """One whole episode in each environment from fresh resets, without gradients of the environment.

    Args:
        env: N environments.
        policy: acts by `sample()`, or by the head's deterministic action.
        seed: of the environments' resets; the caller seeds torch, which draws the actions.
        log_probs: record log π(a_t | o_t) with the graph to the policy's parameters, which saves a second forward pass
            and costs the memory of all activations.

    Returns:
        Episodes with T the length of the longest.

    Raises:
        NonFiniteError: on a reward or observation that is NaN or infinite.
    """
    rule = _rule(False, deterministic)
    (episodes,) = windows_from(env, policy, env.reset(seed), window=None, graph=False, rule=rule, log_probs=log_probs)
    return episodes


def rollout_windows(
    env: AbstractEnvironment,
    policy: Policy,
    seed: int,
    *,
    window: int | None = None,
    graph: bool = False,
    deterministic: bool = False,
    rule: ActingRule | None = None,
) -> Iterator[Episodes]:
    """The same episodes, window by window; the policy may be updated between two of them.

    Args:
        window: steps of a window; None is the whole episode.
        graph: act by `rsample()` and keep the graph from actions to rewards and last observations. It is cut
            between windows.
        deterministic: act by the head's deterministic action.
        rule: act by this instead.

    Yields:
        Episodes of at most `window` rows. A column whose episode ended in an earlier window has no valid step. One
        whose episode continues is neither terminated nor truncated.
    """
    rule = _rule(graph, deterministic) if rule is None else rule
    return windows_from(env, policy, env.reset(seed), window=window, graph=graph, rule=rule)


def windows_from(
    env: AbstractEnvironment,
    policy: Policy,
    observation: Tensor,
    *,
    window: int | None,
    graph: bool,
    rule: ActingRule,
    log_probs: bool = False,
) -> Iterator[Episodes]:
    """The windows of `rollout_windows` from where the environment is: after a reset, or branched there.

    Args:
        observation: (W, *O), what it shows.
    """
    lanes = Lanes(env, observation, narrows=env.can_narrow and not graph)
    # at worst, one lane plays all but a few episodes
    rounds = env.num_episodes if env.num_lanes < env.num_episodes else 1
    steps = 0
    while lanes.any_plays():
        limit = (env.max_episode_steps + 1) * rounds - steps if window is None else window
        episodes = _collect(policy, lanes, limit, graph, rule, log_probs)
        steps += len(episodes.rewards)
        check_finite(env, episodes, steps)
        yield episodes
        if graph:
            env.detach()
            lanes.observation = lanes.observation.detach()
        if window is None and lanes.any_plays():
            raise ScorepathError(
                f"{env.name} continues after its max_episode_steps={env.max_episode_steps}: correct the environment, "
                "or use env.workers=null, where the limit is applied for it."
            )


def _collect(policy: Policy, lanes: Lanes, limit: int, graph: bool, rule: ActingRule, log_probs: bool) -> Episodes:
    head = policy.head
    lanes.begin_window()
    played: list[tuple[Tensor, ...]] = []  # observations, actions, log_probs (or none)
    rewards, alive, columns, starts = [], [], [], []
    with torch.set_grad_enabled(graph):
        for _ in range(limit):
            observation = lanes.observation
            alive.append(lanes.alive)
            columns.append(lanes.columns)
            starts.append(lanes.starts)
            with torch.set_grad_enabled(graph or log_probs):
                dist = policy(observation)
                action, given = rule(head, dist)
                recorded = (dist.log_prob(action),) if log_probs else ()
            paid, go_on = lanes.step(given)
            played.append((observation, action, *recorded))
            rewards.append(paid)
            if not go_on:
                break
    with torch.set_grad_enabled(graph or log_probs):
        valid, place = lay_out(alive, columns, starts, lanes.env.num_episodes)
        observations, actions, *recorded_values = (place(list(values)) for values in zip(*played, strict=True))
        terminated, truncated = lanes.ends()
        return Episodes(
            observations=observations,
            actions=actions,
            # `where`, not a product: an environment may answer anything after its episode's end, NaN too
            rewards=torch.where(valid, place(rewards), 0.0),
            valid=valid,
            terminated=terminated,
            truncated=truncated,
            last_observations=lanes.last_observations(),
            log_probs=recorded_values[0] if recorded_values else None,
        )


def act(head: AbstractHead, dist: Distribution, graph: bool = False, deterministic: bool = False) -> Tensor:
    """An action (*B, *A): the head's deterministic one, or a sample, with its graph if `graph`."""
    if deterministic:
        return head.deterministic(dist)
    return dist.rsample() if graph else dist.sample()


def act_by_rsample(head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
    """The rule of a rollout with graph."""
    action = dist.rsample()
    return action, head.to_env(action)


def _rule(graph: bool, deterministic: bool) -> ActingRule:
    def rule(head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
        action = act(head, dist, graph, deterministic)
        return action, head.to_env(action)

    return rule


def check_finite(env: AbstractEnvironment, episodes: Episodes, steps: int) -> None:
    """Raises NonFiniteError, naming episode, step and action, if a reward or last observation is not finite.

    Args:
        steps: env steps of each running episode up to the end of `episodes`.
    """
    if torch.isfinite(episodes.rewards).all() and torch.isfinite(episodes.last_observations).all():
        return
    rows, columns = torch.nonzero(~torch.isfinite(episodes.rewards), as_tuple=True)
    if len(rows):
        row, column = int(rows[0]), int(columns[0])
        raise NonFiniteError(
            f"{env.name} gave a reward that is not finite ({float(episodes.rewards[row, column].detach())}) at step "
            f"{steps - len(episodes.rewards) + row + 1} after action {episodes.actions[row, column].tolist()} of "
            f"{env.describe_episode(column)}: the optimizer step was not taken."
        )
    raise NonFiniteError(f"{env.name} gave an observation that is not finite: the optimizer step was not taken.")
