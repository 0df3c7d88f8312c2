"""Environment x policy x seed -> Episodes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from scorepath.distributions import AbstractHead
from scorepath.envs.base import AbstractEnvironment
from scorepath.errors import NonFiniteError
from scorepath.policy import Policy
from scorepath.types import Episodes

# How to act: (head, dist) -> the action (*B, *A) to record, and what the environment is given for it.
ActingRule = Callable[[AbstractHead, Distribution], tuple[Tensor, Tensor]]


def rollout(env: AbstractEnvironment, policy: Policy, seed: int, *, deterministic: bool = False) -> Episodes:
    """One whole episode in each environment from fresh resets, without gradients.

    Args:
        env: N environments.
        policy: acts by `sample()`, or by the head's deterministic action.
        seed: of the environments' resets; the caller seeds torch, which draws the actions.

    Returns:
        Episodes with T the length of the longest.

    Raises:
        NonFiniteError: on a reward or observation that is NaN or infinite.
    """
    (episodes,) = rollout_windows(env, policy, seed, deterministic=deterministic)
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
        whose episode goes on is neither terminated nor truncated.
    """
    rule = _rule(graph, deterministic) if rule is None else rule
    return windows_from(env, policy, env.reset(seed), window=window, graph=graph, rule=rule)


def windows_from(
    env: AbstractEnvironment, policy: Policy, observation: Tensor, *, window: int | None, graph: bool, rule: ActingRule
) -> Iterator[Episodes]:
    """The windows of `rollout_windows` from where the environment is: after a reset, or branched there.

    Args:
        observation: (N, *O), what it shows.
    """
    # Lengths cannot be foreseen, so each step's tensors go into lists that are stacked once a window.
    alive = torch.ones(env.num_envs, dtype=torch.bool, device=observation.device)
    steps = 0
    while alive.any():
        limit = env.max_episode_steps - steps if window is None else window
        episodes, observation, alive = _collect(env, policy, observation, alive, limit, graph, rule)
        steps += len(episodes.rewards)
        check_finite(env, episodes, steps)
        yield episodes
        if graph:
            env.detach()
            observation = observation.detach()
        if window is None and alive.any():
            raise RuntimeError(f"{env.name} goes on after its max_episode_steps={env.max_episode_steps}.")


def _collect(
    env: AbstractEnvironment,
    policy: Policy,
    observation: Tensor,
    alive: Tensor,
    limit: int,
    graph: bool,
    rule: ActingRule,
) -> tuple[Episodes, Tensor, Tensor]:
    head = policy.head
    observations, actions, rewards, valid = [], [], [], []
    terminated, truncated = torch.zeros_like(alive), torch.zeros_like(alive)
    whole = bool(alive.all())  # no episode has ended yet
    with torch.set_grad_enabled(graph):
        for _ in range(limit):
            dist = policy(observation)
            action, given = rule(head, dist)
            step = env.step(given)
            observations.append(observation)
            actions.append(action)
            rewards.append(step.rewards)
            valid.append(alive)
            # An ended episode keeps its last observation: what an environment answers later may be anything
            observation = step.observations if whole else choose(alive, step.observations, observation)
            ended = step.terminated | step.truncated
            if ended.any():
                terminated = terminated | (alive & step.terminated)
                truncated = truncated | (alive & step.truncated & ~step.terminated)
                alive = alive & ~ended
                whole = False
                if not alive.any():
                    break
        mask = torch.stack(valid)
        episodes = Episodes(
            observations=torch.stack(observations),
            actions=torch.stack(actions),
            # `where`, not a product: an environment may answer anything after its episode's end, NaN too
            rewards=torch.where(mask, torch.stack(rewards), 0.0),
            valid=mask,
            terminated=terminated,
            truncated=truncated,
            last_observations=observation,
            action_nodes=tuple(actions) if graph else None,
        )
    return episodes, observation, alive


def choose(mask: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Rows (N, *O) of `one` where mask (N,), else of `other`."""
    return torch.where(mask.view(-1, *[1] * (one.dim() - 1)), one, other)


def act(head: AbstractHead, dist: Distribution, graph: bool = False, deterministic: bool = False) -> Tensor:
    """An action (*B, *A): the head's deterministic one, or a sample, with its graph if asked for."""
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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Episodes played for their returns alone."""

    returns: Tensor  # (episodes,) undiscounted
    lengths: Tensor  # (episodes,) int64


def evaluate(
    env: AbstractEnvironment,
    policy: Policy,
    seeds: Iterator[int],
    episodes: int,
    *,
    deterministic: bool = False,
) -> Evaluation:
    """Plays `episodes` whole episodes, `env.num_envs` at a time.

    Args:
        seeds: one for each round; the caller seeds torch.
        episodes: how many; of the last round only as many as are left count, chosen by index, not by length.
    """
    returns, lengths = [], []
    for _ in range(-(-episodes // env.num_envs)):
        batch = rollout(env, policy, next(seeds), deterministic=deterministic)
        returns.append(batch.episode_returns)
        lengths.append(batch.lengths)
    return Evaluation(torch.cat(returns)[:episodes].cpu(), torch.cat(lengths)[:episodes].cpu())
