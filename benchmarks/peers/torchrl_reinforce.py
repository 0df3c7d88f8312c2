"""TorchRL's ReinforceLoss on windows of its collector, with its reward-to-go, whitened; one Adam step per window.

The loss insists on a value network: a linear one that is never trained, as the advantages are given to it.
"""

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
    import torch
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.envs import GymEnv, SerialEnv
    from torchrl.modules import MLP, OneHotCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ReinforceLoss
    from torchrl.objectives.value.functional import reward2go
except ImportError:
    raise SystemExit(MISSING) from None

WINDOW = 100  # time steps


def measure(num_envs: int, seconds: float, threads: int) -> dict[str, Any]:
    """Steps per second of training; every step of a window counts, also those of episodes that it cuts."""
    keep_to_cores(threads)
    torch.set_num_threads(1)  # batches this small are no faster on more, and on a busy machine far slower
    torch.manual_seed(0)
    env = SerialEnv(num_envs, lambda: GymEnv("CartPole-v1"))
    net = MLP(in_features=4, out_features=2, num_cells=list(HIDDEN), activation_class=torch.nn.Tanh)
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )
    loss = ReinforceLoss(actor, ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"]))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    collector = Collector(
        env, actor, frames_per_batch=WINDOW * num_envs, total_frames=-1, auto_register_policy_transforms=False
    )

    startup, start, steps, elapsed = None, 0.0, 0, 0.0
    for window in collector:
        after = window["next"]
        returns = reward2go(after["reward"], after["done"], GAMMA)
        window["advantage"] = (returns - returns.mean()) / returns.std()
        window["value_target"] = returns
        loss(window)["loss_actor"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if startup is None:  # the first window is the warm-up
            startup, start = seconds_since_process_start(), time.perf_counter()
            continue
        steps += window.numel()
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            break
    collector.shutdown()
    return {
        "peer": "torchrl_reinforce",
        "num_envs": num_envs,
        "threads": 1,
        "env_steps_per_second": steps / elapsed,
        "startup_seconds": startup,
        "versions": versions("torchrl", "tensordict", "torch", "gymnasium"),
    }


if __name__ == "__main__":
    main(measure, None, default_num_envs=64)
