"""tianshou's Reinforce: whole episodes of its collector, one Adam step on all of them."""

import time
from typing import Any

from benchmarks.peers.command import (
    GAMMA,
    HIDDEN,
    MISSING,
    keep_to_cores,
    main,
    seconds_since_process_start,
    versions,
)

try:
    import gymnasium
    import torch
    from tianshou.algorithm import Reinforce
    from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.utils.net.common import Net
    from tianshou.utils.net.discrete import DiscreteActor
    from tianshou.utils.torch_utils import policy_within_training_step
except ImportError:
    raise SystemExit(MISSING) from None

HORIZON = 500


def measure(num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """Steps per second of training, an episode of every environment per update."""
    keep_to_cores(threads)
    torch.set_num_threads(1)  # batches this small are no faster on more, and on a busy machine far slower
    torch.manual_seed(0)
    envs = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1")] * num_envs)
    net = Net(state_shape=4, hidden_sizes=HIDDEN, activation=torch.nn.Tanh)
    algorithm = Reinforce(
        policy=DiscreteActorPolicy(
            actor=DiscreteActor(preprocess_net=net, action_shape=2, softmax_output=False),
            dist_fn=lambda logits: torch.distributions.Categorical(logits=logits),
            action_space=gymnasium.spaces.Discrete(2),
        ),
        optim=AdamOptimizerFactory(lr=0.01),
        gamma=GAMMA,
        return_standardization=True,
    )
    collector = Collector(algorithm, envs, VectorReplayBuffer(HORIZON * num_envs, num_envs))
    collector.reset()

    def update() -> int:
        with policy_within_training_step(algorithm.policy):
            steps = collector.collect(n_episode=num_envs).n_collected_steps
            algorithm.update(buffer=collector.buffer, batch_size=None, repeat=1)
        collector.reset_buffer(keep_statistics=True)
        return steps

    update()
    startup = seconds_since_process_start()
    steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        steps += update()
    return {
        "peer": "tianshou_reinforce",
        "num_envs": num_envs,
        "threads": 1,
        "env_steps_per_second": steps / elapsed,
        "startup_seconds": startup,
        "versions": versions("tianshou", "torch", "gymnasium"),
    }


if __name__ == "__main__":
    main(measure, None, default_num_envs=64)
