"""The estimator interface: episodes and advantages in, a surrogate loss out whose gradient is the estimate.

The normaliser is that of the policy gradient theorem's Monte Carlo form: the mean over episodes of the sum over valid
steps, grad J ≈ 1/N Σ_n Σ_t A_t ∇ log π(a_t | o_t).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.distributions import Distribution

from scorepath.baselines import AbstractBaseline
from scorepath.distributions import AbstractHead
from scorepath.envs import AbstractEnvironment
from scorepath.errors import ConfigError
from scorepath.policy import Policy
from scorepath.rollout import rollout_windows
from scorepath.types import Episodes


class AbstractEstimator(nn.Module, ABC):
    """How the gradient of the expected return is estimated: how episodes are gathered, and what is made of them.

    A module, so that what an estimator keeps between updates (running statistics) is a buffer, and saved. What it asks
    of the other slots is declared here and checked in `compatibility.py`.
    """

    needs_graph: ClassVar[bool]  # differentiate through the environment
    needs_rsample: ClassVar[bool] = False  # act by rsample()
    needs_weights: ClassVar[bool] = False  # act by weights over the choices of a Discrete space
    needs_branching: ClassVar[bool] = False  # copy the state of an environment
    dists: ClassVar[tuple[type[Distribution], ...]] = ()  # of the head, without Independent; () is any
    baselines: ClassVar[Literal["any", "value", "none"]] = "any"  # `value`: none, or a V(o) to bootstrap with
    min_episodes: ClassVar[int] = 1  # of a batch
    whole_returns: bool = False  # weighs each action with its whole episode's return
    bootstraps: bool = True  # a V(o) of the baseline replaces what follows a truncation
    accept_discontinuities: bool = False  # run also where a derivative of one path misses jumps
    remedy_for_discontinuities: ClassVar[str] = "accept the bias with estimator.accept_discontinuities=true"
    window: int | None = None  # env steps between optimizer steps; None is the whole episode

    @abstractmethod
    def bias(self, gamma: float) -> tuple[str, ...]:
        """All that makes the expected estimate another than the gradient of E[Σ_t γ^t r_t], in a few words each; ()
        if nothing does.

        Of the estimator alone: that of a baseline or a value network is theirs to say. Each reason is one that would
        do it alone.
        """

    def collect(self, env: AbstractEnvironment, policy: Policy, seed: int) -> Iterator[Episodes]:
        """Plays one episode in each environment, window by window; the caller may learn between two of them."""
        return rollout_windows(env, policy, seed, window=self.window, graph=self.needs_graph)

    def add_bonus(self, policy: Policy, episodes: Episodes) -> Episodes:
        """The episodes with rewards that hold whatever the objective adds to the environment's; as they are, if nothing
        is added.
        """
        return episodes

    @abstractmethod
    def returns(self, episodes: Episodes, gamma: float, last_values: Tensor | None) -> Tensor:
        """The returns (T, N) that the baseline is subtracted from and fitted to."""

    def weigh(self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float) -> Tensor:
        """What the advantages (T, N) become before the loss, (T, N, ...), which is a mean over episodes: here is the
        place for all that couples the episodes of a batch, such as a normalisation over it.

        Where several processes learn together, the episodes are those of all of them. With `needs_graph` they are this
        process's own, for a graph does not travel; `ranks.gather` brings together what is made of it.
        """
        return advantages

    @abstractmethod
    def forward(
        self, policy: Policy, episodes: Episodes, advantages: Tensor, gamma: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighed advantages (T, N, ...) -> (surrogate loss (), a mean over episodes; metrics)."""

    def observe(self, episodes: Episodes, returns: Tensor) -> None:
        """Takes a batch and its returns (T, N) into what is kept between updates, after its gradient was used."""


def gradient_bias(
    env: AbstractEnvironment,
    estimator: AbstractEstimator,
    baseline: AbstractBaseline,
    gamma: float,
    head: AbstractHead | None = None,
    max_grad_norm: float | None = None,
) -> list[str]:
    """All that makes the expected gradient of an update another than that of E[Σ_t γ^t r_t], in a few words each;
    empty if it is that gradient.

    Raises:
        ConfigError: if an estimator or a baseline gives its reasons in another form than a tuple.
    """
    gamma = 1.0 if env.max_episode_steps == 1 else gamma  # which weighs nothing but later steps
    labels = _reasons(estimator, estimator.bias(gamma))
    if estimator.baselines != "none":
        labels += _reasons(baseline, baseline.bias)
    if estimator.bootstraps and baseline.predicts_values:
        labels.append("a learned V(o) replaces what follows a truncation")
    if estimator.needs_rsample and head is not None and head.rsample_bias is not None:
        labels.append(head.rsample_bias)
    if estimator.needs_graph and env.discontinuities is not None:
        labels.append(f"derivatives miss that {env.discontinuities}")
    if max_grad_norm is not None:
        labels.append(
            f"gradients are clipped at a norm of {max_grad_norm:g}, which changes the mean of those that vary"
        )
    return labels


def _reasons(slot: nn.Module, found: object) -> list[str]:
    if not isinstance(found, tuple):
        name = type(slot).__name__
        raise ConfigError(f"{name}.bias gives {found!r}: it must be a tuple of reasons, (...,), or () for none.")
    return list(found)
