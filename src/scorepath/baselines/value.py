"""A value network as baseline."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scorepath.baselines.base import AbstractBaseline, MakeOptimizer
from scorepath.policy import MLP, ObservationNormalizer
from scorepath.returns import explained_variance
from scorepath.types import Episodes


class Value(AbstractBaseline):
    """b = V(o_t), a network fitted to the returns by least squares (Sutton et al. 1999, section 2).

    Unbiased for the score function, for it is fitted after its predictions were used. It also bootstraps: the value
    of what follows a time limit, and of what follows a pathwise window.

    Args:
        observation_shape: *O.
        hidden_sizes, activation: of the network.
        make_optimizer: parameters -> optimizer.
        gradient_steps: per batch (for pathwise: per window).
        minibatch_size: valid steps of each gradient step, drawn without replacement.
        normalizer: shared with the policy, or None.
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
        self._normalizer = [normalizer]  # in a list: the policy owns it, and saves it
        torso = MLP(torch.Size(observation_shape).numel(), hidden_sizes, activation)
        self.network = nn.Sequential(torso, nn.Linear(torso.out_features, 1))

    def value(self, observations: Tensor) -> Tensor:
        """(*B, *O) -> V (*B,)."""
        inputs = observations.unsqueeze(-1) if self._dims == 0 else observations.flatten(-self._dims)
        (normalizer,) = self._normalizer
        if normalizer is not None:
            inputs = normalizer(inputs)
        return self.network(inputs).squeeze(-1)

    def forward(self, episodes: Episodes, returns: Tensor) -> Tensor:
        with torch.no_grad():
            return self.value(episodes.observations.detach())

    def last_values(self, episodes: Episodes) -> Tensor:
        # The graph runs on through the observation; gradients that reach the network's own weights are dropped by
        # the caller, who zeroes them before each fit.
        return self.value(episodes.last_observations) * ~episodes.terminated

    def make_optimizer(self) -> torch.optim.Optimizer:
        return self._make_optimizer(self.network.parameters())

    def fit(self, episodes: Episodes, returns: Tensor, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
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
                optimizer.step()
        return {"baseline/explained_variance": before, "baseline/loss": loss.detach()}
