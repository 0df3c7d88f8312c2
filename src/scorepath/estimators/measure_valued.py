"""The measure-valued derivative, by branches of the episodes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from scorepath.envs import AbstractEnvironment
from scorepath.estimators.base import AbstractEstimator
from scorepath.estimators.pathwise import entropy
from scorepath.estimators.weak_derivatives import WITH_WEAK_DERIVATIVE, branches, distribution_parameters
from scorepath.policy import Policy
from scorepath.returns import discounts, reward_to_go
from scorepath.rollout import Lanes, check_finite
from scorepath.types import Episodes


class MeasureValued(AbstractEstimator):
    """∇J = E[Σ_t γ^t Σ_φ c_φ (G⁺_t - G⁻_t) ∇φ(o_t)], φ the parameters of π(· | o_t): for each of them the episode is
    branched at t into two that take the two actions of its weak derivative, follow the policy to their end, and return
    G⁺ and G⁻ (Heidergott & Vázquez-Abad 2008, Journal of Optimization Theory and Applications 136; Mohamed et al. 2020,
    JMLR 21:132, section 6).

    Unbiased, without asking rewards for a derivative, and of low variance, for both branches meet the same random
    numbers. It costs 2 P episodes at every step, P the number of parameters: T² P steps for each episode of length T,
    which do not count as env steps. A baseline would drop out of the difference.
    """

    needs_graph = False
    needs_branching = True
    bootstraps = False
    dists = WITH_WEAK_DERIVATIVE
    baselines = "none"

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ()

    def collect(self, env: AbstractEnvironment, policy: Policy, seed: int) -> Iterator[Episodes]:
        yield branched_episodes(env, policy, seed)

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards, episodes.is_last, gamma)

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        """The factor of each parameter's gradient, (T, N, P)."""
        rewards = episodes.extras.get("branch_rewards")
        if rewards is None:
            raise ValueError("The measure-valued derivative needs the branches of its own `collect`.")
        later = discounts(rewards.shape[-1], gamma).squeeze(-1).to(rewards)
        start = discounts(len(rewards), gamma).to(rewards).unsqueeze(-1)
        return start * (rewards @ later)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        valid = episodes.valid
        parameters = distribution_parameters(policy(episodes.observations[valid]))  # (B, P)
        loss = -(parameters * advantages[valid]).sum() / valid.shape[1]
        return loss, {"train/entropy": entropy(policy, episodes)}


@torch.no_grad()
def branched_episodes(env: AbstractEnvironment, policy: Policy, seed: int) -> Episodes:
    """One whole episode in each environment, with the rewards of all its branches.

    Two worlds are played side by side with the same random numbers, each of the same rows: the N episodes themselves,
    the same in both, and for every step so far N · P branches, which took the positive action in the one world and the
    negative in the other.

    Args:
        env: N environments that can branch.
        seed: of their resets; the caller seeds torch.
    """
    head, number = policy.head, env.num_episodes
    observation = env.reset(seed)
    own = torch.arange(number, device=observation.device)  # rows of the episodes themselves
    positive, negative = (Lanes(env.branch(own), observation, narrows=False) for _ in range(2))
    observations, actions, rewards, valid, constants, differences = [], [], [], [], [], []
    while positive.any_plays() or negative.any_plays():
        with torch.random.fork_rng():
            first = policy(positive.observation).sample()
        second = policy(negative.observation).sample()
        alive = positive.alive[:number]
        if running := bool(alive.any()):
            observation, action = positive.observation[:number], first[:number]
            new = branches(policy(observation), action)
            parents = own.repeat_interleave(new.constants.shape[1])
            rows = torch.cat((torch.arange(len(first), device=own.device), parents))
            positive, negative = positive.branch(rows), negative.branch(rows)
            first = torch.cat((first, new.positive.flatten(0, 1)))
            second = torch.cat((second, new.negative.flatten(0, 1)))
            constants.append(new.constants)
        with torch.random.fork_rng():
            paid = _paid(positive, head.to_env(first))
        differences.append((paid - _paid(negative, head.to_env(second)))[number:])
        if running:
            observations.append(observation)
            actions.append(action)
            rewards.append(paid[:number])
            valid.append(alive)
    terminated, truncated = positive.ends()
    episodes = Episodes(
        observations=torch.stack(observations),
        actions=torch.stack(actions),
        rewards=torch.stack(rewards),
        valid=torch.stack(valid),
        terminated=terminated[:number],
        truncated=truncated[:number],
        last_observations=positive.observation[:number],
        extras={"branch_rewards": _by_start(torch.stack(constants), differences)},
    )
    check_finite(env, episodes, len(rewards))
    return episodes


def _paid(lanes: Lanes, given: Tensor) -> Tensor:
    """Rewards (W,) of a step, zero where the episode has ended before."""
    alive = lanes.alive
    return torch.where(alive, lanes.step(given)[0], 0.0)


def _by_start(constants: Tensor, differences: list[Tensor]) -> Tensor:
    """Differences of rewards at each time, one row for each branch so far -> (T, N, P, H), by start and delay.

    Args:
        constants: (T, N, P), the factors of the branches.
        differences: H tensors of (min(t + 1, T) · N · P,).
    """
    table = constants.new_zeros((*constants.shape, len(differences)))
    for time, difference in enumerate(differences):
        for start, row in enumerate(difference.reshape(-1, *constants.shape[1:])):
            table[start, ..., time - start] = row
    return table * constants.unsqueeze(-1)
