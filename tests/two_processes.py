"""What each of two processes computes from its half of a batch, and one process from the whole; run by test_ranks.

    python two_processes.py FOLDER RANK

RANK is 0 or 1 of two that meet in FOLDER, or `alone` with the whole. The results go to FOLDER/RANK.pt.
"""

import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import cases
import torch
from torch import distributed

from scorepath.baselines import Value
from scorepath.distributions import Categorical, Normal
from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import LQR, random_mdp
from scorepath.estimators import ScoreFunction
from scorepath.estimators.gradients import finish_gradients
from scorepath.policy import MLP, ObservationNormalizer, Policy
from scorepath.rollout import rollout, windows_from
from scorepath.update import losses, weigh

EPISODES, GAMMA = 8, 0.9
STEPS = ((None, None), (0.01, 7))  # limit of the gradient's norm, and chunk of env steps
SETTINGS = {
    **{f"normalize_returns={name}": {"normalize_returns": name} for name in ("none", "episode", "batch", "running")},
    "total_return": {"credit": "total_return", "normalize_returns": "none"},
    "entropy_in_rewards": {"normalize_returns": "batch", "entropy_coefficient": 0.1, "entropy_in_rewards": True},
}
WITH_GRAPH = ("pathwise_episode", "alpha_order", "ddcg", "ivw_h")


def policy_for(env, head):
    torch.manual_seed(1)
    size = env.observation_space.shape[0]
    torso = MLP(size, [5])
    policy = Policy(torso, head(env.action_space, 5), normalizer=ObservationNormalizer(size)).double()
    policy.normalizer.update(torch.randn(50, size))
    return policy


def played(columns):
    """Episodes of a decision process that end at different steps; of these columns, and no longer than they must be."""
    env = TorchEnvironment(random_mdp(5, 3, 12, terminal_states=2, seed=4), EPISODES, dtype=torch.float64)
    policy = policy_for(env, Categorical)
    torch.manual_seed(5)
    greedy = torch.randn(7, EPISODES, dtype=torch.float64)
    own = rollout(env, policy, 3).select(columns)
    rows = slice(int(own.lengths.max()))
    own = replace(
        own,
        observations=own.observations[rows],
        actions=own.actions[rows],
        rewards=own.rewards[rows],
        valid=own.valid[rows],
        # greedy episodes have lengths of their own
        extras={"greedy_returns": greedy[: 5 if columns.start else 7, columns]},
    )
    return policy, own


def played_with_graph(columns):
    """Pairs of episodes from one start (as DDCG wants them), with the same noise for a column wherever it is played."""
    env = TorchEnvironment(LQR(dim=1, horizon=5, dt=0.3), EPISODES, dtype=torch.float64)
    policy = policy_for(env, Normal)
    noise = torch.randn(5, EPISODES, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    steps = count()

    def act(head, dist):
        action = dist.base_dist.loc + dist.base_dist.scale * noise[next(steps), columns]
        return action, head.to_env(action)

    starts = (torch.arange(EPISODES) // 2)[columns]
    observations = env.reset(3)[starts]
    (episodes,) = windows_from(env.branch(starts), policy, observations, window=None, graph=True, rule=act)
    return policy, episodes


def learn(estimator, baseline, policy, episodes):
    """Gradients, and all that is kept for the next update."""
    found = {}
    weighed = weigh(estimator, baseline, policy, episodes, GAMMA)
    for limit, chunk in STEPS:
        policy.zero_grad()
        for loss, _ in losses(estimator, policy, episodes, weighed.weights, GAMMA, chunk):
            loss.backward(retain_graph=estimator.needs_graph)
        found[f"norm, limit {limit}"] = finish_gradients(policy.parameters(), limit)
        for name, parameter in policy.named_parameters():
            found[f"{name}, limit {limit}"] = parameter.grad.clone()
    estimator.observe(weighed.everyone, weighed.all_returns)
    torch.manual_seed(7)  # as `PolicyGradient` has all processes fit by the same random numbers
    baseline.fit(weighed.everyone, weighed.all_returns, baseline.make_optimizer())
    policy.normalizer.update(weighed.everyone.observations.detach()[weighed.everyone.valid])
    for part in (estimator, baseline, policy.normalizer):
        found |= {f"{type(part).__name__}.{name}": value for name, value in part.state_dict().items()}
    return found


def everything(columns):
    """Result by (estimator's setting, baseline)."""
    found = {}
    policy, episodes = played(columns)
    for option, (name, _, make) in enumerate(cases.BASELINES):
        for setting, arguments in SETTINGS.items():
            torch.manual_seed(0)
            baseline = make((5,)).double()
            if setting == "total_return" and baseline.predicts_values:
                continue  # refused
            estimator = ScoreFunction(discount_steps=True, **arguments).double()
            found[f"{setting} {name}-{option}"] = learn(estimator, baseline, policy, episodes)
            policy.normalizer.load_state_dict(played_normalizer)
    policy, episodes = played_with_graph(columns)
    for name in WITH_GRAPH:
        kind, arguments = next((kind, arguments) for option, kind, arguments in cases.ESTIMATORS if option == name)
        arguments = {**arguments, "window": None} if "window" in arguments else arguments
        estimator, baseline = kind(**arguments).double(), cases.BASELINES[0][2]((2,))
        found[name] = learn(estimator, baseline, policy, episodes)
    torch.manual_seed(0)
    value = Value((2,), partial(torch.optim.SGD, lr=0.1), hidden_sizes=(5,), gradient_steps=3).double()
    # to episodes of its own, though all are given the same: what the processes share is the mean of their gradients
    value.fit(episodes.detach(), episodes.rewards.detach(), value.make_optimizer())
    found[name] |= {f"apart.{key}": weight for key, weight in value.state_dict().items()}
    return found


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), sys.argv[2]
    half = EPISODES // 2
    played_normalizer = played(slice(0, half))[0].normalizer.state_dict()
    played_normalizer = {name: value.clone() for name, value in played_normalizer.items()}
    if rank == "alone":
        torch.save(everything(slice(0, EPISODES)), folder / "alone.pt")
    else:
        distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=2)
        start = int(rank) * half
        torch.save(everything(slice(start, start + half)), folder / f"{rank}.pt")
        distributed.destroy_process_group()
