"""The problem interface: an environment whose expected return is known exactly."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from scorepath.envs import TorchEnvironment
from scorepath.envs.dynamics import AbstractDynamics
from scorepath.policy import Policy

LastValue = Callable[[Tensor], Tensor]  # observations (B, *O) -> V (B,): what a time limit cuts off is held to be worth


class AbstractProblem(ABC):
    """A torch environment, and J(π) = E[Σ_t γ^t r_t] as a differentiable function of the policy, in float64.

    The exact side knows nothing of estimators: it sums or integrates over the policy's own distribution, so that every
    head that acts in the environment can be checked. To add a problem, write one subclass and one YAML in
    `conf/problem`.
    """

    dynamics: AbstractDynamics

    def env(self, num_episodes: int) -> TorchEnvironment:
        """N copies of the environment, for real rollouts."""
        return TorchEnvironment(self.dynamics, num_episodes, dtype=torch.float64)

    @abstractmethod
    def objective(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        """J, () with the graph to the policy's parameters.

        Args:
            policy: in float64.
            gamma: discount in [0, 1].
            last_value: bootstraps an episode that its time limit cuts: then J = E[Σ_{t<L} γ^t r_t + γ^L V(o_L)], V
                held fixed. None is zero.
        """

    def exact_gradient(self, policy: Policy, gamma: float, last_value: LastValue | None = None) -> Tensor:
        """∇J with respect to `parameters_of(policy)`, flat (P,)."""
        parameters = parameters_of(policy)
        return flatten(
            torch.autograd.grad(self.objective(policy, gamma, last_value), parameters, allow_unused=True), parameters
        )


def parameters_of(policy: Policy) -> list[Tensor]:
    """The parameters that a gradient is taken of, in the order of its entries."""
    return [parameter for parameter in policy.parameters() if parameter.requires_grad]


def flatten(gradients: tuple[Tensor | None, ...], parameters: list[Tensor]) -> Tensor:
    """Gradients as one vector (P,) float64; None is zero."""
    pairs = zip(gradients, parameters, strict=True)
    filled = [torch.zeros_like(parameter) if value is None else value for value, parameter in pairs]
    return torch.cat([value.detach().double().reshape(-1) for value in filled])
