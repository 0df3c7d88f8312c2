"""The torch twin of Gymnasium's Pendulum-v1."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class Pendulum(AbstractDynamics):
    """Swing a pendulum up and hold it; state (angle, angular velocity) in rad and rad/s, action a torque in N m.

    Differentiable but for the clips of speed and torque and the wrap of the angle, whose gradients are those of the
    branch taken; none of them is a jump of the reward.

    Args:
        torques: None for continuous torques, as Gymnasium's Pendulum-v1 has them; or a number K of torques from
            -max_torque to max_torque in equal steps, of which an action chooses one. Weights over the K choices push
            with the weighted mean of their torques.

    Raises:
        ValueError: for less than two torques.
    """

    name = "pendulum_torch"
    original: str | None = "Pendulum-v1"
    drawn_as = "Pendulum-v1"
    differentiable = True
    terminates = False
    max_episode_steps = 200
    numpy_scalars = True
    max_speed = 8.0
    max_torque = 2.0
    reward_range = (-(np.pi**2 + 0.1 * max_speed**2 + 0.001 * max_torque**2), 0.0)
    dt = 0.05
    gravity = 10.0

    def __init__(self, torques: int | None = None) -> None:
        if torques is not None and torques < 2:
            raise ValueError(f"torques={torques} must be at least 2, or null for continuous torques.")
        high = np.array([1.0, 1.0, self.max_speed], dtype=np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.accepts_weights = torques is not None
        self.action_space: gym.Space
        if torques is None:
            self.action_space = gym.spaces.Box(-self.max_torque, self.max_torque, (1,), np.float32)
        else:
            self.name = f"pendulum_discrete_torch (torques={torques})"
            self.original = None  # Gymnasium's takes no choices
            self.action_space = gym.spaces.Discrete(torques)
            self._torques = torch.linspace(-self.max_torque, self.max_torque, torques, dtype=torch.float64)

    def initial(
        self, generator: np.random.Generator, number: int, *, x_init: float = np.pi, y_init: float = 1.0
    ) -> np.ndarray:
        high = np.array([x_init, y_init])
        return generator.uniform(-high, high, size=(number, 2))

    def _torque(self, action: Tensor) -> Tensor:
        """A torque (N, 1), or weights (N, K) -> torques (N,) within the limits."""
        torque = action @ self._torques.to(action) if self.accepts_weights else action.squeeze(-1)
        return torque.clamp(-self.max_torque, self.max_torque)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        torque = self._torque(action)
        # 3g/2l and 3/ml² for unit mass and length
        velocity = velocity + (1.5 * self.gravity * angle.sin() + 3.0 * torque) * self.dt
        velocity = velocity.clamp(-self.max_speed, self.max_speed)
        return torch.stack((angle + velocity * self.dt, velocity), dim=-1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        torque = self._torque(action)
        wrapped = (angle + torch.pi) % (2 * torch.pi) - torch.pi
        return -(wrapped.square() + 0.1 * velocity.square() + 0.001 * torque.square())

    def observation(self, state: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), velocity), dim=-1)

    def drawing(self, state: Tensor, action: Tensor | None) -> dict[str, Any]:
        torque = None if action is None else self._torque(action.unsqueeze(0)).squeeze(0).numpy()
        return {**super().drawing(state, action), "last_u": torque}  # an arrow
