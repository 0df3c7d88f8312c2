"""What this machine can do at most: `python -m scorepath.benchmark.limit OVERRIDES...` prints one JSON line.

A training step needs one step of the environment, one forward pass and one backward pass of the policy. Their rates are
measured by themselves, at their best batch sizes and with nothing around them; all three one after the other is the
limit that training is compared with.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra

from scorepath.build import CONF, make_environment, make_policy
from scorepath.envs import AbstractEnvironment, GymnasiumEnvironment
from scorepath.envs.lanes import AbstractLanes, SerialLanes
from scorepath.policy import Policy
from scorepath.run.allocator import keep_freed_memory

_SECONDS = 0.4  # of each repetition
_REPETITIONS = 5
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


def stepping(env: AbstractEnvironment, actions: torch.Tensor) -> list[float]:
    """Env steps a second of the environment alone, as its own library is stepped."""
    env.reset(0)
    if isinstance(env, GymnasiumEnvironment):
        return lane_rates(env.lanes, actions.numpy().astype(env.action_space.dtype))

    def step() -> None:
        with torch.no_grad():
            env.step(actions)

    return rate(step, len(actions))


def lane_rates(lanes: AbstractLanes, actions: np.ndarray) -> list[float]:
    """Env steps a second; of lanes that stand still after an episode's end, those of running episodes."""
    if not isinstance(lanes, SerialLanes):
        return rate(lambda: lanes.step(actions), len(actions))
    ended, stepped = np.zeros(len(actions), dtype=bool), 0

    def step() -> None:
        nonlocal ended, stepped
        if ended.all():
            lanes.reset(0)
            ended = np.zeros(len(actions), dtype=bool)
        stepped += int((~ended).sum())
        answer = lanes.step(actions)
        ended |= answer.terminated | answer.truncated

    rates = []
    for _ in range(_REPETITIONS):
        begin, before = time.perf_counter(), stepped
        while (seconds := time.perf_counter() - begin) < _SECONDS:
            step()
        rates.append((stepped - before) / seconds)
    return rates


def main(overrides: list[str]) -> dict[str, Any]:
    """Measures the environment and the policy of a training config."""
    keep_freed_memory()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
        names = {key: str(option) for key, option in cfg.hydra.runtime.choices.items()}
    GlobalHydra.instance().clear()
    env = make_environment(cfg.env, cfg.episodes_per_update)
    policy = make_policy(cfg, env, names["dist"])
    observation = env.reset(0)
    with torch.no_grad():
        actions = policy.head.to_env(policy(observation).sample())
    result: dict[str, Any] = {**machine(), **policy_rates(policy, observation)}
    rates = stepping(env, actions)
    env.close()
    result["environment_per_second"], result["environment_rates"] = statistics.median(rates), rates
    both, forward = result["forward_backward_per_second"], result["forward_per_second"]
    # the rollout's forward pass is as narrow as the batch, the one before the backward pass at its best: one of them
    # is needed, and the faster one is counted
    best_forward = max(forward, both)
    result["limit_per_second"] = 1.0 / (1.0 / result["environment_per_second"] + 1.0 / both)
    result["limit_per_second_of_two_passes"] = 1.0 / (1.0 / result["limit_per_second"] + 1.0 / best_forward)
    return result


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
