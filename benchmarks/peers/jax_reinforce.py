"""REINFORCE on a CartPole of its own in JAX: rollouts, returns, gradients and Adam compiled into one program.

What makes it fast, each tried against the alternatives on two cores: the gradient by a second forward pass, one time
step at a time, so that activations stay in the cache (the gradient through the rollout's scan is a third slower); the
hardware's random bits instead of threefry; and environments dealt over one XLA device per core, which beats XLA's own
threading of operations this small. `jax_one_device.py` leaves the latter to XLA, as plain `jax.jit` does.

An update computes 500 steps of every environment and masks what follows an episode's end: of the steps computed, only
the valid ones are counted. The measurement starts from a policy that balances, where nearly all are.
"""

import functools
import itertools
import time
from typing import Any, NamedTuple

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
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.sharding import Mesh, PartitionSpec
except ImportError:
    raise SystemExit(MISSING) from None

HORIZON = 500
SIZES = (4, *HIDDEN, 2)

Array = Any  # jax.Array, or a tree of them
Program = Any  # (Learner, learning rate, episodes per device, updates) -> (Learner, lengths)


class Learner(NamedTuple):
    """All that an update changes."""

    weights: Array
    mean: Array  # Adam's
    square: Array
    updates: Array
    key: Array


def new_learner(seed: int) -> Learner:
    """Uniform in +-1/sqrt(inputs), torch's default for linear layers."""
    key, *keys = jax.random.split(jax.random.key(seed, impl="rbg"), 7)
    weights = []
    for i, (inputs, outputs) in enumerate(itertools.pairwise(SIZES)):
        bound = inputs**-0.5
        matrix = jax.random.uniform(keys[2 * i], (inputs, outputs), minval=-bound, maxval=bound)
        weights.append((matrix, jax.random.uniform(keys[2 * i + 1], (outputs,), minval=-bound, maxval=bound)))
    zeros = jax.tree.map(jnp.zeros_like, weights)
    return Learner(weights, zeros, zeros, jnp.zeros(()), key)


def logit(weights: Array, observations: Array) -> Array:
    """Log odds of pushing to the right, of two logits: (N, 4) -> (N,)."""
    features = observations
    for matrix, bias in weights[:-1]:
        features = jnp.tanh(features @ matrix + bias)
    logits = features @ weights[-1][0] + weights[-1][1]
    return logits[:, 1] - logits[:, 0]


def transition(states: Array, right: Array) -> tuple[Array, Array]:
    """CartPole-v1 after Gymnasium: states (N, 4) and pushes (N,) bool -> next states, and whether they still stand."""
    position, velocity, angle, spin = states.T
    force = jnp.where(right, 10.0, -10.0)
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    push = (force + 0.05 * spin**2 * sine) / 1.1
    angular = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    linear = push - 0.05 * angular * cosine / 1.1
    after = (position + 0.02 * velocity, velocity + 0.02 * linear, angle + 0.02 * spin, spin + 0.02 * angular)
    return jnp.stack(after, 1), (jnp.abs(after[0]) <= 2.4) & (jnp.abs(after[2]) <= 12 * 2 * jnp.pi / 360)


def rollout(weights: Array, key: Array, number: int) -> tuple[Array, Array, Array]:
    """Observations (T, N, 4), actions (T, N) bool and valid (T, N) bool of whole episodes."""
    start, noise = jax.random.split(key)
    states = jax.random.uniform(start, (number, 4), minval=-0.05, maxval=0.05)
    uniforms = jax.random.uniform(noise, (HORIZON, number))

    def step(carry: tuple[Array, Array], uniform: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        states, running = carry
        right = uniform < jax.nn.sigmoid(logit(weights, states))
        after, stands = transition(states, right)
        return (after, running & stands), (states, right, running)

    _, episodes = lax.scan(step, (states, jnp.ones(number, bool)), uniforms)
    return episodes


def whitened_returns(valid: Array) -> Array:
    """Reward-to-go (T, N) of one reward a step, with mean 0 and variance 1 over all valid steps of all devices."""
    rewards = valid.astype(jnp.float32)
    _, returns = lax.scan(
        lambda later, reward: ((reward + GAMMA * later),) * 2, jnp.zeros(valid.shape[1]), rewards, reverse=True
    )
    count, total = lax.psum((rewards.sum(), (returns * rewards).sum()), "cores")
    centred = (returns - total / count) * rewards
    return centred / (jnp.sqrt(lax.psum((centred**2).sum(), "cores") / count) + 1e-8)


def negative_log_likelihood(weights: Array, observations: Array, right: Array, advantages: Array) -> Array:
    """Sum over the environments of one time step."""
    odds = logit(weights, observations)
    return -(jax.nn.log_sigmoid(jnp.where(right, odds, -odds)) * advantages).sum()


def update(learner: Learner, learning_rate: Array, number: int) -> tuple[Learner, Array]:
    """One Adam step on `number` episodes per device; also the mean length of all episodes."""
    key, own = jax.random.split(learner.key)
    observations, right, valid = rollout(learner.weights, jax.random.fold_in(own, lax.axis_index("cores")), number)

    def add(gradient: Array, step: tuple[Array, Array, Array]) -> tuple[Array, None]:
        return jax.tree.map(jnp.add, gradient, jax.grad(negative_log_likelihood)(learner.weights, *step)), None

    zeros = jax.tree.map(jnp.zeros_like, learner.weights)
    gradient, _ = lax.scan(add, zeros, (observations, right, whitened_returns(valid)))
    gradient = jax.tree.map(lambda part: part / number, lax.pmean(gradient, "cores"))

    count = learner.updates + 1
    mean = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, learner.mean, gradient)
    square = jax.tree.map(lambda old, new: 0.999 * old + 0.001 * new**2, learner.square, gradient)
    weights = jax.tree.map(
        lambda w, m, s: w - learning_rate * (m / (1 - 0.9**count)) / (jnp.sqrt(s / (1 - 0.999**count)) + 1e-8),
        learner.weights,
        mean,
        square,
    )
    return Learner(weights, mean, square, count, key), lax.pmean(valid.sum() / number, "cores")


def make_program(devices: int) -> Program:
    """Compiled updates, the environments dealt over so many devices."""
    mesh = Mesh(jax.devices()[:devices], ("cores",))

    @functools.partial(jax.jit, static_argnums=(2, 3))
    def program(learner: Learner, learning_rate: float, number: int, updates: int) -> tuple[Learner, Array]:
        def run(learner: Learner, learning_rate: Array) -> tuple[Learner, Array]:
            return lax.scan(lambda old, _: update(old, learning_rate, number), learner, length=updates)

        whole = PartitionSpec()
        sharded = jax.shard_map(run, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
        return sharded(learner, learning_rate)

    return program


def set_devices(devices: int, threads: int) -> int:
    """Holds JAX to so many cores; the number of XLA devices to deal the environments over, on CUDA those there are."""
    keep_to_cores(threads)
    jax.config.update("jax_num_cpu_devices", devices)
    return min(devices, len(jax.devices()))


def measure_on(devices: int, num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """Useful steps per second of training, from a policy that balances."""
    devices = set_devices(devices, threads)
    program = make_program(devices)
    learner = new_learner(0)
    for _ in range(300):
        learner, lengths = program(learner, 0.01, 256 // devices, 1)
        if lengths[-1] >= 495:
            break

    number, updates = num_envs // devices, max(1, 8192 // num_envs)
    start = time.perf_counter()
    # A small learning rate keeps the policy where every step computed is useful: the best case of masking
    compiled = program.lower(learner, 0.001, number, updates).compile()
    compile_seconds = time.perf_counter() - start
    learner, _ = jax.block_until_ready(compiled(learner, 0.001))

    useful, computed, start = 0.0, 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        learner, lengths = jax.block_until_ready(compiled(learner, 0.001))
        useful += float(lengths.sum()) * number * devices
        computed += updates * HORIZON * number * devices
    return {
        "peer": "jax_reinforce",
        "num_envs": number * devices,
        "devices": devices,
        "threads": threads,
        "env_steps_per_second": useful / elapsed,
        "useful_share": useful / computed,
        "compile_seconds": compile_seconds,
        "versions": versions("jax", "jaxlib"),
    }


def solve_on(devices: int, seed: int, threads: int) -> dict[str, Any]:
    """Trains until 100 fresh episodes of the policy, its actions sampled, return 475 in the mean."""
    devices = set_devices(devices, threads)
    program = make_program(devices)
    number = -(-EVALUATION_EPISODES // devices)
    learner, env_steps, mean_return, updates = new_learner(seed), 0.0, 0.0, 0
    startup = seconds_since_process_start()
    while mean_return < SOLVED:
        learner, lengths = program(learner, 0.02, number, 1)
        updates += 1
        env_steps += float(lengths[0]) * number * devices
        if lengths[0] >= SOLVED:
            # The same program on other noise evaluates the new weights; what it learns from that is thrown away
            fresh = learner._replace(key=jax.random.fold_in(learner.key, 1))
            mean_return = float(program(fresh, 0.02, number, 1)[1][0])
    return {
        "peer": "jax_reinforce",
        "seed": seed,
        "num_envs": number * devices,
        "env_steps": int(env_steps),
        "updates": updates,
        "eval_return_mean": mean_return,
        "startup_seconds": startup,
        "versions": versions("jax", "jaxlib"),
    }


def measure(num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """One device per core."""
    return measure_on(threads, num_envs, seconds, threads)


def solve(seed: int, threads: int) -> dict[str, Any]:
    """One device per core."""
    return solve_on(threads, seed, threads)


if __name__ == "__main__":
    main(measure, solve, default_num_envs=4096)
