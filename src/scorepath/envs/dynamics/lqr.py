"""The linear-quadratic regulator: the control problem whose optimum and gradient are known in closed form."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class LQR(AbstractDynamics):
    """x' = A x + B u, reward -(xᵀ Q x + uᵀ R u), start states uniform in [-1, 1]^dim, no noise.

    A chain of double integrators: for each of `dim` axes a position and a velocity, coupled to its neighbour's
    position by `coupling`, pushed by one force. Q is the identity and R is `control_cost` times it.

    Args:
        dim: axes, so that a state has 2 · dim entries and an action dim.
        horizon: steps of an episode, T.
        dt: seconds a step.
        coupling: stiffness between neighbouring axes in 1/s²; 0 separates them.
        control_cost: weight of uᵀu.
        max_force: bound of each force, to which it is clipped. The optimum is known where it keeps within.
    """

    differentiable = True
    terminates = False

    def __init__(
        self,
        dim: int = 1,
        horizon: int = 100,
        dt: float = 0.1,
        coupling: float = 0.5,
        control_cost: float = 0.1,
        max_force: float = np.inf,
    ) -> None:
        self.name = f"lqr (dim={dim})"
        self.max_episode_steps = horizon
        states = 2 * dim
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (states,), np.float32)
        self.action_space = gym.spaces.Box(-max_force, max_force, (dim,), np.float32)
        self.max_force = max_force
        chain = 2.0 * torch.eye(dim) - torch.diag(torch.ones(dim - 1), 1) - torch.diag(torch.ones(dim - 1), -1)
        identity = torch.eye(dim, dtype=torch.float64)
        self.A = torch.eye(states, dtype=torch.float64)
        self.A[:dim, dim:] = dt * identity
        self.A[dim:, :dim] = -dt * coupling * chain.double() * (dim > 1)
        self.B = torch.cat((torch.zeros_like(identity), dt * identity))
        self.Q = torch.eye(states, dtype=torch.float64)
        self.R = control_cost * identity

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -1.0, high: float = 1.0
    ) -> np.ndarray:
        return generator.uniform(low, high, size=(number, len(self.A)))

    def _force(self, state: Tensor, action: Tensor) -> Tensor:
        return action.to(state).clamp(-self.max_force, self.max_force)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return state @ self.A.T.to(state) + self._force(state, action) @ self.B.T.to(state)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        state_cost = ((state @ self.Q.to(state)) * state).sum(-1)
        force = self._force(state, action)
        return -state_cost - ((force @ self.R.to(state)) * force).sum(-1)

    def observation(self, state: Tensor) -> Tensor:
        return state

    def riccati(self) -> tuple[list[Tensor], Tensor]:
        """The optimum of the finite horizon by the Riccati recursion (Bertsekas, Dynamic Programming, 4.1).

        Returns:
            gains: K_0 .. K_{T-1}, each (dim, 2 dim): u_t = -K_t x_t.
            cost: P_0 (2 dim, 2 dim): the cost from x is xᵀ P_0 x.
        """
        gains: list[Tensor] = []
        cost = torch.zeros_like(self.Q)
        for _ in range(self.max_episode_steps):
            gain = torch.linalg.solve(self.R + self.B.T @ cost @ self.B, self.B.T @ cost @ self.A)
            cost = self.Q + self.A.T @ cost @ (self.A - self.B @ gain)
            gains.append(gain)
        return gains[::-1], cost

    def policy_cost(self, gain: Tensor, noise_std: Tensor | None = None) -> Tensor:
        """Expected cost J(K, σ) of u = -K x + σ ε over uniform start states, (), differentiable in both.

        The sum over t of E[xᵀ (Q + Kᵀ R K) x] + σᵀ R σ, by the recursion of the second moment
        Σ' = (A - BK) Σ (A - BK)ᵀ + B diag(σ²) Bᵀ, Σ_0 = I / 3: the exact gradient for the estimators to be compared
        with.

        Args:
            gain: (dim, 2 dim), float64.
            noise_std: (dim,), float64; None is zero.
        """
        closed = self.A - self.B @ gain
        weight = self.Q + gain.T @ self.R @ gain
        noise = torch.zeros(len(self.R), dtype=torch.float64) if noise_std is None else noise_std
        moment = torch.eye(len(self.A), dtype=torch.float64) / 3.0
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(self.max_episode_steps):
            total = total + (weight * moment).sum() + (self.R.diagonal() * noise.square()).sum()
            moment = closed @ moment @ closed.T + self.B @ torch.diag(noise.square()) @ self.B.T
        return total
