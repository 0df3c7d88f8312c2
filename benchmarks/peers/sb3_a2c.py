"""Stable-Baselines3's A2C, the nearest that it has to REINFORCE: five steps of every environment per update.

Its defaults but for the optimizer: Adam instead of RMSprop, as all peers here. It learns a value network of the
policy's size besides, which is part of the algorithm.
"""

import time
from typing import Any

from benchmarks.peers.command import (
    EVALUATION_EPISODES,
    GAMMA,
    HIDDEN,
    MISSING,
    SOLVED,
    keep_to_cores,
    main,
    seconds_since_process_start,
    versions,
)

try:
    import torch
    from stable_baselines3 import A2C
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy
except ImportError:
    raise SystemExit(MISSING) from None

WITHOUT_END = 10**12


class Stopwatch(BaseCallback):
    """Ends the training after `seconds`, counted from the start of the first rollout."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.elapsed = 0.0
        self.start = 0.0

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        return self.elapsed < self.seconds

    def _on_rollout_start(self) -> None:
        self.elapsed = time.perf_counter() - self.start


class Solved(BaseCallback):
    """Evaluates whenever the last training episodes reach the mark, not more often than every 2,000 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_return = 0.0
        self.evaluated_at = 0

    def _on_step(self) -> bool:
        return self.mean_return < SOLVED

    def _on_rollout_start(self) -> None:
        returns = [episode["r"] for episode in self.model.ep_info_buffer]
        if not returns or sum(returns) / len(returns) < SOLVED or self.num_timesteps < self.evaluated_at + 2000:
            return
        self.evaluated_at = self.num_timesteps
        env = make_vec_env("CartPole-v1", n_envs=50, seed=1_000_000)
        self.mean_return, _ = evaluate_policy(self.model, env, EVALUATION_EPISODES, deterministic=False)


def agent(num_envs: int, seed: int, threads: int) -> A2C:
    """A2C with the policy and the optimizer of all peers."""
    keep_to_cores(threads)
    torch.set_num_threads(1)  # batches this small are no faster on more, and on a busy machine far slower
    return A2C(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=num_envs, seed=seed),
        gamma=GAMMA,
        use_rms_prop=False,
        policy_kwargs={"net_arch": {"pi": list(HIDDEN), "vf": list(HIDDEN)}, "activation_fn": torch.nn.Tanh},
        stats_window_size=20,
        seed=seed,
        device="cpu",
    )


def measure(num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """Steps per second of training; every step counts."""
    a2c = agent(num_envs, 0, threads)
    a2c.learn(10 * a2c.n_steps * num_envs)
    startup = seconds_since_process_start()
    before, stopwatch = a2c.num_timesteps, Stopwatch(seconds)
    a2c.learn(WITHOUT_END, stopwatch, reset_num_timesteps=False)
    # the rollout of which the first step stopped the training is not learned from
    steps = a2c.num_timesteps - before - num_envs
    return {
        "peer": "sb3_a2c",
        "num_envs": num_envs,
        "threads": 1,
        "env_steps_per_second": steps / stopwatch.elapsed,
        "startup_seconds": startup,
        "versions": versions("stable-baselines3", "torch", "gymnasium"),
    }


def solve(seed: int, threads: int) -> dict[str, Any]:
    """Trains with 8 environments until 100 evaluation episodes, actions sampled, return 475 in the mean."""
    a2c = agent(8, seed, threads)
    startup = seconds_since_process_start()
    solved = Solved()
    a2c.learn(WITHOUT_END, solved)
    return {
        "peer": "sb3_a2c",
        "seed": seed,
        "num_envs": 8,
        "env_steps": a2c.num_timesteps,
        "eval_return_mean": float(solved.mean_return),
        "startup_seconds": startup,
        "versions": versions("stable-baselines3", "torch", "gymnasium"),
    }


if __name__ == "__main__":
    main(measure, solve, default_num_envs=8)
