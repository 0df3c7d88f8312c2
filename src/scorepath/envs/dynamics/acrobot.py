"""Acrobot, the twin of Gymnasium's Acrobot-v1."""

import math

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics

GRAVITY = 9.8
CENTRE = 0.5  # of mass, along each link of length and mass 1
INERTIA = 1.0  # of each link
TIME_STEP = 0.2  # s
MAX_SPINS = (4.0 * math.pi, 9.0 * math.pi)  # rad/s


def spins_and_accelerations(state: Tensor, torque: Tensor) -> Tensor:
    """Time derivative of two angles and their velocities, (N, 4), torque (N,) on the joint between the links.

    The equations of Sutton & Barto's book (2018, section 11.3 of the first edition), links of length and mass 1.
    """
    first, second, first_spin, second_spin = state.unbind(-1)
    cosine, sine = second.cos(), second.sin()
    d1 = CENTRE**2 + (1.0 + CENTRE**2 + 2.0 * CENTRE * cosine) + 2.0 * INERTIA
    d2 = CENTRE**2 + CENTRE * cosine + INERTIA
    phi2 = CENTRE * GRAVITY * (first + second).sin()  # the cosine of an angle less π/2
    swing = -CENTRE * second_spin.square() * sine - 2.0 * CENTRE * second_spin * first_spin * sine
    phi1 = swing + (CENTRE + 1.0) * GRAVITY * first.sin() + phi2
    drive = torque + d2 / d1 * phi1 - CENTRE * first_spin.square() * sine - phi2
    second_acceleration = drive / (CENTRE**2 + INERTIA - d2.square() / d1)
    first_acceleration = -(d2 * second_acceleration + phi1) / d1
    return torch.stack((first_spin, second_spin, first_acceleration, second_acceleration), dim=-1)


class Acrobot(AbstractDynamics):
    """Two links that hang from a pivot, to be swung above its height by torques of -1, 0 or 1 between them.

    Equal to Gymnasium's Acrobot-v1 step for step: one Runge-Kutta step of 0.2 s, reward -1 a step and 0 for the last.
    """

    name = "acrobot_torch"
    original = drawn_as = "Acrobot-v1"
    render_fps = 15.0
    max_episode_steps = 500
    reward_threshold = -100.0
    reward_range = (-1.0, 0.0)
    discontinuities = "the reward is -1 until the episode ends, whose time jumps"

    def __init__(self) -> None:
        high = np.array([1.0, 1.0, 1.0, 1.0, *MAX_SPINS], dtype=np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Discrete(3)

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -0.1, high: float = 0.1
    ) -> np.ndarray:
        return generator.uniform(low, high, size=(number, 4)).astype(np.float32)  # as the original rounds them

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        torque = action.to(state) - 1.0
        k1 = spins_and_accelerations(state, torque)
        k2 = spins_and_accelerations(state + 0.5 * TIME_STEP * k1, torque)
        k3 = spins_and_accelerations(state + 0.5 * TIME_STEP * k2, torque)
        k4 = spins_and_accelerations(state + TIME_STEP * k3, torque)
        following = state + TIME_STEP / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        angles = (following[:, :2] + math.pi) % (2.0 * math.pi) - math.pi
        spins = [following[:, 2 + index].clamp(-limit, limit) for index, limit in enumerate(MAX_SPINS)]
        return torch.cat((angles, torch.stack(spins, dim=-1)), dim=-1)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return self.terminal(next_state).to(next_state) - 1.0

    def terminal(self, state: Tensor) -> Tensor:
        return -state[:, 0].cos() - (state[:, 0] + state[:, 1]).cos() > 1.0

    def observation(self, state: Tensor) -> Tensor:
        angles = state[:, :2]
        pairs = torch.stack((angles.cos(), angles.sin()), dim=-1).flatten(1)
        return torch.cat((pairs, state[:, 2:]), dim=-1)
