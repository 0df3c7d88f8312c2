"""Value networks as baselines."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorepath.baselines.base import AbstractBaseline, MakeOptimizer
from scorepath.policy import MLP, ObservationNormalizer, Policy
from scorepath.ranks import average_gradients
from scorepath.returns import explained_variance, generalized_advantage
from scorepath.types import Episodes


class AbstractValueBaseline(AbstractBaseline):
    """V(o), a network fitted to the returns by least squares, after its predictions were used.

    It bootstraps: it estimates what follows a time limit, and what follows a pathwise window.

    Args:
        observation_shape: *O.
        hidden_sizes, activation: of the network.
        make_optimizer: parameters -> optimizer.
        gradient_steps: per batch (for pathwise: per window).
        minibatch_size: valid steps of each gradient step, drawn without replacement.
        normalizer: shared with the policy, or None.

    Raises:
        ValueError: for counts below 1.
    """

    predicts_values = True

    def __init__(
        self,
        observation_shape: Sequence[int],
        make_optimizer: MakeOptimizer,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        gradient_steps: int = 10,
        minibatch_size: int = 1024,
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        super().__init__()
        if gradient_steps < 1 or minibatch_size < 1:
            raise ValueError(f"{gradient_steps=}, {minibatch_size=}: both must be at least 1.")
        self._dims = len(observation_shape)
        self._make_optimizer = make_optimizer
        self.gradient_steps = gradient_steps
        self.minibatch_size = minibatch_size
        # what it does, and not the module itself: that is the policy's, which saves it
        self._normalize = None if normalizer is None else normalizer.forward
        torso = MLP(torch.Size(observation_shape).numel(), hidden_sizes, activation)
        self.network = nn.Sequential(torso, nn.Linear(torso.out_features, 1))

    def value(self, observations: Tensor) -> Tensor:
        """(*B, *O) -> V (*B,)."""
        inputs = observations.unsqueeze(-1) if self._dims == 0 else observations.flatten(-self._dims)
        if self._normalize is not None:
            inputs = self._normalize(inputs)
        return self.network(inputs).squeeze(-1)

    def forward(self, episodes: Episodes, returns: Tensor, policy: Policy) -> Tensor:
        with torch.no_grad():
            return self.value(episodes.observations.detach())

    def last_values(self, episodes: Episodes) -> Tensor:
        """V(o_L), (N,), zero where terminated.

        The graph runs on through the observation; gradients that reach the network's own weights are dropped by the
        caller, who zeroes them before each fit.
        """
        return self.value(episodes.last_observations) * ~episodes.terminated

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Of the network."""
        return self._make_optimizer(self.network.parameters())

    def fit(self, episodes: Episodes, returns: Tensor, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
        """`gradient_steps` of least squares; the metrics are of the predictions before, and of the last step."""
        assert optimizer is not None
        observations = episodes.observations.detach()[episodes.valid]  # (B, *O)
        targets = returns.detach()[episodes.valid]  # (B,)
        with torch.no_grad():
            before = explained_variance(self.value(observations), targets)
        number = len(targets)
        size = min(self.minibatch_size, number)
        with torch.enable_grad():
            for _ in range(self.gradient_steps):
                rows = torch.randperm(number, device=targets.device)[:size]
                loss = (self.value(observations[rows]) - targets[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                average_gradients(self.network.parameters())
                optimizer.step()
        return {"baseline/explained_variance": before, "baseline/loss": loss.detach()}


class Value(AbstractValueBaseline):
    """b = V(o_t) (Sutton et al. 1999, section 2).

    As a baseline it is unbiased for the score function, whatever it predicts. What biases the gradient is that it also
    estimates what follows a truncation: the expected gradient is that of the rewards plus γ^L V(o_L), with V as it is.
    """


class GAE(AbstractValueBaseline):
    """A_t = Σ_{k≥t} (γλ)^{k-t} δ_k instead of returns less a baseline (Schulman et al. 2016, arXiv:1506.02438).

    λ = 1 is `Value`, and biased by no more. Below, V(o) as it was fitted estimates what follows each step: less
    variance, and unbiased only where it is the policy's true value. The sums stop where episodes end; a truncation is
    followed by V(o_L), a termination by nothing. Made for credit=reward_to_go, whose returns the network is fitted to.

    A pathwise window gets its gradient through the λ-weighted sum, the predictions within it included.

    Args:
        gae_lambda: λ in [0, 1].
        observation_shape, make_optimizer, hidden_sizes, activation, gradient_steps, minibatch_size, normalizer: as in
            `AbstractValueBaseline`.

    Raises:
        ValueError: for λ out of range, and as in `AbstractValueBaseline`.
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        make_optimizer: MakeOptimizer,
        gae_lambda: float = 0.95,
        hidden_sizes: Sequence[int] = (64, 64),
        activation: str = "tanh",
        gradient_steps: int = 10,
        minibatch_size: int = 1024,
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        super().__init__(
            observation_shape, make_optimizer, hidden_sizes, activation, gradient_steps, minibatch_size, normalizer
        )
        if not 0.0 <= gae_lambda <= 1.0:
            raise ValueError(f"gae_lambda={gae_lambda} must be from 0 to 1.")
        self.gae_lambda = gae_lambda
        if gae_lambda < 1.0:
            self.bias = ("a learned V(o) replaces what follows each step",)

    def advantages(self, episodes: Episodes, returns: Tensor, gamma: float, policy: Policy) -> Tensor:
        # with a graph where rewards have one; as with `last_values`, what reaches the network is dropped
        with torch.set_grad_enabled(episodes.rewards.requires_grad):
            values, last_values = self.value(episodes.observations), self.last_values(episodes)
        return generalized_advantage(
            episodes.rewards, values, episodes.valid, episodes.is_last, gamma, self.gae_lambda, last_values
        )
