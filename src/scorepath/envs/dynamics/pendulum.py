"""The torch twin of Gymnasium's Pendulum-v1."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics


class Pendulum(AbstractDynamics):
    """Swing a pendulum up and hold it; state (angle, angular velocity) in rad and rad/s, action a torque in N m.

    Differentiable but for the clips of speed and torque and the wrap of the angle, whose gradients are those of the
    branch taken.
    """

    name = "pendulum_torch"
    original = "Pendulum-v1"
    differentiable = True
    terminates = False
    max_episode_steps = 200
    max_speed = 8.0
    max_torque = 2.0
    dt = 0.05
    gravity = 10.0

    def __init__(self) -> None:
        high = np.array([1.0, 1.0, self.max_speed], dtype=np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Box(-self.max_torque, self.max_torque, (1,), np.float32)

    def initial(self, generator: np.random.Generator, number: int) -> np.ndarray:
        high = np.array([np.pi, 1.0])
        return generator.uniform(-high, high, size=(number, 2))

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        torque = action.squeeze(-1).clamp(-self.max_torque, self.max_torque)
        # 3g/2l and 3/ml² for unit mass and length
        velocity = velocity + (1.5 * self.gravity * angle.sin() + 3.0 * torque) * self.dt
        velocity = velocity.clamp(-self.max_speed, self.max_speed)
        return torch.stack((angle + velocity * self.dt, velocity), dim=-1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        torque = action.squeeze(-1).clamp(-self.max_torque, self.max_torque)
        wrapped = (angle + torch.pi) % (2 * torch.pi) - torch.pi
        return -(wrapped.square() + 0.1 * velocity.square() + 0.001 * torque.square())

    def observation(self, state: Tensor) -> Tensor:
        angle, velocity = state.unbind(-1)
        return torch.stack((angle.cos(), angle.sin(), velocity), dim=-1)
