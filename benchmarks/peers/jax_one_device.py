"""The JAX peer as `jax.jit` alone runs it: one XLA device, whose thread pool divides each operation."""

from typing import Any

from benchmarks.peers.command import main
from benchmarks.peers.jax_reinforce import measure_on, solve_on


def measure(num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """Useful steps per second of training, from a policy that balances."""
    return measure_on(1, num_envs, seconds, threads) | {"peer": "jax_one_device"}


def solve(seed: int, threads: int) -> dict[str, Any]:
    """Trains until 100 fresh episodes of the policy, its actions sampled, return 475 in the mean."""
    return solve_on(1, seed, threads) | {"peer": "jax_one_device"}


if __name__ == "__main__":
    main(measure, solve, default_num_envs=4096)
