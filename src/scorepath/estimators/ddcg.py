"""The composite gradient with a test of discontinuities."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.distributions import Normal

from scorepath.envs import AbstractEnvironment
from scorepath.estimators.action_gradients import ActionGradients, action_gradients, mixed_loss, pack
from scorepath.estimators.alpha_order import inverse_variance_weight, total_variance
from scorepath.estimators.base import AbstractEstimator
from scorepath.policy import Policy
from scorepath.ranks import gather, gather_columns
from scorepath.returns import discounts, reward_to_go
from scorepath.rollout import act_by_rsample, windows_from
from scorepath.types import Episodes


class DDCG(AbstractEstimator):
    """DDCG (Onoda et al. 2026, arXiv:2604.18161): the inverse-variance mix of score function and pathwise derivative
    where the return passes a test of smoothness, and the score function alone where it does not.

    Their equation 14, for x = θ + σ ε with ε ~ N(0, I): f counts as smooth if v₁ >= 2 (1 - c) Var[f] / σ² - 2 ‖g₁‖²,
    with g₁ the mean and v₁ the summed variance of the samples ∇f(x). Expanded in Hermite polynomials of ε, a smooth f
    has v₁ - 2 (Var[f] / σ² - ‖g₁‖²) = Σ_{k>=3} (k - 2)/k! · σ^{2k-2} ‖E ∇ᵏf‖² >= 0, with equality for a quadratic; a
    jump adds to Var[f] and to no derivative. c is room for the noise of the samples, with which some batches of a
    smooth f still fail: of a linear-quadratic problem about one in ten of 64 episodes, one in fifty of 256.

    For an episode, θ is the sequence of the policy's means, ε the noise of all its actions, and f the discounted
    return: with h = std · dR/da, the derivative with respect to ε, the test is
    Σ Var[h] >= 2 (1 - c) Var[f] - 2 ‖E h‖², sums over steps and entries: equation 14 for one std, and its natural form
    for several. It holds for each start by itself, and says nothing of the variance between starts. So every two
    episodes share theirs, and the moments given the start are estimated without bias from such pairs; noise of the
    environment itself makes the test stricter, and so the estimate more of a score function. Test and weights
    α = v₀ / (v₀ + v₁) are in action space. The equation is the paper's; its form for episodes, and the pairs, are ours.

    Args:
        c: slack of the test, in [0, 1]; the paper's 0.3.

    Raises:
        ValueError: if c is out of range; at a call, if the rewards carry no graph or the episodes are no pairs.
    """

    needs_graph = True
    needs_rsample = True
    needs_branching = True
    bootstraps = False
    dists = (Normal,)
    min_episodes = 2
    accept_discontinuities = True  # what it is for

    def __init__(self, c: float = 0.3) -> None:
        super().__init__()
        if not 0.0 <= c <= 1.0:
            raise ValueError(f"c={c} must be from 0 to 1.")
        self.c = c

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ("mixed by variances of the same episodes, where a test of the same episodes finds no jump",)

    def collect(self, env: AbstractEnvironment, policy: Policy, seed: int) -> Iterator[Episodes]:
        observation = env.reset(seed)
        starts = torch.arange(env.num_episodes, device=observation.device) // 2
        pairs = env.branch(starts)
        return windows_from(pairs, policy, observation[starts], window=None, graph=True, rule=act_by_rsample)

    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        return reward_to_go(episodes.rewards, episodes.is_last, gamma)

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        """(T, N, 3, *A), see `pack`."""
        given = action_gradients(policy, episodes, advantages, gamma)
        zeroth, first = (total_variance(_by_episode(gather_columns(part))) for part in (given.zeroth, given.first))
        starts = episodes.observations.detach()[0]
        paired = len(starts) // 2 * 2
        if paired == 0 or not torch.equal(starts[0:paired:2], starts[1:paired:2]):
            raise ValueError(
                "The test of DDCG needs the pairs of episodes with one start that its own `collect` plays."
            )
        outcomes = (discounts(len(advantages), gamma).to(advantages) * episodes.rewards.detach()).sum(dim=0)
        pairs = ActionGradients(*(gather_columns(part[:, :paired]) for part in given))
        alpha = inverse_variance_weight(zeroth, first) * is_smooth(pairs, gather(outcomes[:paired]), self.c)
        return pack(alpha, given.first, advantages, gamma)

    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return mixed_loss(policy, episodes, advantages)


def is_smooth(gradients: ActionGradients, outcomes: Tensor, c: float) -> Tensor:
    """Whether derivatives explain the variance of the outcomes, () bool: the test of `DDCG`.

    Of two independent episodes with one start, (x - y)²/2 has the mean Var[x], and x y the mean (E x)². Where nothing
    varies there is nothing to be explained, and the answer is no.

    Args:
        gradients: of N episodes, of which 2n and 2n + 1 have one start.
        outcomes: (N,), their returns.
        c: slack.
    """
    by_noise = _by_episode(gradients.std * gradients.first)
    even, odd = (by_noise[index : len(by_noise) // 2 * 2 : 2] for index in (0, 1))
    explained = 0.5 * (even - odd).square().sum(dim=1).mean() + 2.0 * (even * odd).sum(dim=1).mean()
    differences = outcomes[0 : len(outcomes) // 2 * 2 : 2] - outcomes[1::2]
    return explained > (1.0 - c) * differences.square().mean()


def _by_episode(samples: Tensor) -> Tensor:
    """(T, N, *A) -> (N, T · A)."""
    return torch.movedim(samples, 1, 0).flatten(1)
