"""The greedy policy's own return as baseline."""

from collections.abc import Mapping

import torch
from torch import Tensor

from scorepath.baselines.base import AbstractBaseline
from scorepath.envs import AbstractEnvironment
from scorepath.policy import Policy
from scorepath.returns import reward_to_go
from scorepath.rollout import rollout
from scorepath.types import Episodes


class SelfCritical(AbstractBaseline):
    """b_t = what the deterministic policy is paid from time t on, started from the same reset (Rennie et al. 2017).

    Unbiased: given the reset, and the environment's own noise where the reset seeds it, the greedy return is a number
    that no sampled action changes. An environment that draws its noise from torch's generator must not draw, for the
    greedy episode, what the sampled actions are drawn from; training seeds the two apart.

    Every update plays its episodes once more, greedily; `env_steps` does not count these.

    Args:
        per_step: b_t is the greedy return from time t on, 0 after its end, as suits credit=reward_to_go. False: its
            whole return G_0 at all steps, as suits credit=total_return; the paper's, whose reward comes at the end.

    Raises:
        ValueError: at a call, for episodes without the greedy ones that `play` adds to them.
    """

    needs_same_starts = True

    def __init__(self, per_step: bool = True) -> None:
        super().__init__()
        self.per_step = per_step

    def play(self, env: AbstractEnvironment, policy: Policy, seed: int, gamma: float) -> Mapping[str, Tensor]:
        greedy = rollout(env, policy, seed, deterministic=True)
        return {"greedy_returns": reward_to_go(greedy.rewards, greedy.is_last, gamma)}

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        greedy = episodes.extras.get("greedy_returns")
        if greedy is None:
            raise ValueError("The self_critical baseline needs what its play() adds to Episodes.extras.")
        if not self.per_step:
            return greedy[:1].to(returns.dtype).expand_as(returns)
        baseline = torch.zeros_like(returns)
        steps = min(len(greedy), len(returns))
        baseline[:steps] = greedy[:steps]
        return baseline
