"""What this machine can do at most with a given environment and policy.

A training step needs one step of the environment, one forward pass and one backward pass of the policy. Their rates are
measured by themselves, at their best batch sizes and with nothing around them; all three one after the other is the
limit that training is compared with.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from scorepath.envs import AbstractEnvironment, GymnasiumEnvironment
from scorepath.envs.lanes import AbstractLanes, SerialLanes
from scorepath.policy import Policy

_SECONDS = 0.1  # of each repetition
_REPETITIONS = 3
_STEPS = 50  # whose actions are taken in turn when an environment is stepped alone
_ROWS = (1024, 2048, 4096, 8192, 16384)  # of a backward pass


def rate(work: Callable[[], Any], amount: float) -> list[float]:
    """How much of `amount` a second, of each repetition, after one that does not count."""
    rates = []
    for _ in range(_REPETITIONS + 1):
        begin, calls = time.perf_counter(), 0
        while (seconds := time.perf_counter() - begin) < _SECONDS:
            work()
            calls += 1
        rates.append(calls * amount / seconds)
    return rates[1:]


def median(work: Callable[[], Any], amount: float) -> float:
    """The median of `rate`."""
    return statistics.median(rate(work, amount))


def machine() -> dict[str, float]:
    """Products of the policy's size, and activations, of 4,096 rows."""
    x, weight = torch.randn(4096, 64), torch.randn(64, 64)
    with torch.no_grad():
        return {
            "matrix_product_gflops": median(lambda: x @ weight, 2 * 4096 * 64 * 64) / 1e9,
            "tanh_per_second": median(lambda: torch.tanh(x), x.numel()),
            "sigmoid_per_second": median(lambda: torch.sigmoid(x), x.numel()),
        }


def policy_rates(policy: Policy, observation: torch.Tensor) -> dict[str, float]:
    """Rows a second of a forward pass as wide as the rollout's, and of forward and backward at the best width."""

    def forward() -> None:
        with torch.no_grad():
            policy.features(observation)

    def both(rows: torch.Tensor) -> float:
        return median(lambda: policy.features(rows).sum().backward(), len(rows))

    tiled = [observation.repeat(-(-rows // len(observation)), *[1] * (observation.dim() - 1))[:rows] for rows in _ROWS]
    return {
        "forward_per_second": median(forward, len(observation)),
        "forward_backward_per_second": max(both(rows) for rows in tiled),
    }


def stepping(env: AbstractEnvironment, played: list[torch.Tensor]) -> list[float]:
    """Env steps a second of the environment alone, as its own library is stepped.

    Args:
        played: actions (W, *A) of some steps, which are taken in turn.
    """
    env.reset(0)
    if isinstance(env, GymnasiumEnvironment):
        dtype = env.action_space.dtype
        return lane_rates(env.lanes, [actions.numpy().astype(dtype) for actions in played])
    turns = itertools.cycle(played)

    def step() -> None:
        with torch.no_grad():
            env.step(next(turns))

    return rate(step, len(played[0]))


def lane_rates(lanes: AbstractLanes, played: list[np.ndarray]) -> list[float]:
    """Env steps a second; of lanes that stand still after an episode's end, those of running episodes."""
    turns, number = itertools.cycle(played), len(played[0])
    if not isinstance(lanes, SerialLanes):
        everyone = np.ones(number, dtype=bool)
        return rate(lambda: lanes.step(next(turns), everyone), number)
    ended, stepped = np.zeros(number, dtype=bool), 0

    def step() -> None:
        nonlocal ended, stepped
        if ended.all():
            lanes.reset(0)
            ended = np.zeros(number, dtype=bool)
        stepped += int((~ended).sum())
        answer = lanes.step(next(turns), ~ended)
        ended |= answer.terminated | answer.truncated

    rates = []
    for _ in range(_REPETITIONS):
        begin, before = time.perf_counter(), stepped
        while (seconds := time.perf_counter() - begin) < _SECONDS:
            step()
        rates.append((stepped - before) / seconds)
    return rates


@torch.no_grad()
def play(env: AbstractEnvironment, policy: Policy) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The first observation (W, *O), and the actions (W, *A) of the first steps."""
    first = observation = env.reset(0)
    played = []
    for _ in range(_STEPS):
        played.append(policy.head.to_env(policy(observation).sample()))
        observation = env.step(played[-1]).observations
    return first, played


def measure(env: AbstractEnvironment, policy: Policy) -> dict[str, float]:
    """The rates of an environment and a policy, and what all of it allows.

    Args:
        env: at the width of the rollout; its episodes are lost.
        policy: its gradients are lost.
    """
    observation, played = play(env, policy)
    result = {**machine(), **policy_rates(policy, observation)}
    result["environment_per_second"] = statistics.median(stepping(env, played))
    both, forward = result["forward_backward_per_second"], result["forward_per_second"]
    result["limit_per_second"] = 1.0 / (1.0 / result["environment_per_second"] + 1.0 / both)
    # the forward pass of the rollout, as narrow as the batch, and the one before the backward pass, at its best
    result["limit_per_second_of_two_passes"] = 1.0 / (1.0 / result["limit_per_second"] + 1.0 / forward)
    return result
