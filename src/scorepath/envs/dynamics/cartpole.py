"""CartPole, the twin of Gymnasium's CartPole-v1."""

import math

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics

GRAVITY = 9.8  # m/s²
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
TOTAL_MASS = CART_MASS + POLE_MASS
HALF_LENGTH = 0.5  # m, of the pole
MOMENT = POLE_MASS * HALF_LENGTH  # kg m
TIME_STEP = 0.02  # s


def cartpole_step(state: Tensor, force: Tensor) -> Tensor:
    """One step of explicit Euler (Barto, Sutton & Anderson 1983, with Florian's corrected equations).

    Args:
        state: (N, 4): position of the cart in m, its velocity, angle of the pole from upright in rad, its velocity.
        force: (N,) on the cart, in N.

    Returns:
        (N, 4).
    """
    _, velocity, angle, spin = state.unbind(-1)
    cosine, sine = angle.cos(), angle.sin()
    push = (force + MOMENT * spin.square() * sine) / TOTAL_MASS
    inertia = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine.square() / TOTAL_MASS)
    angular = (GRAVITY * sine - cosine * push) / inertia
    linear = push - (MOMENT / TOTAL_MASS) * angular * cosine
    return torch.add(state, torch.stack((velocity, linear, spin, angular), dim=-1), alpha=TIME_STEP)


class CartPole(AbstractDynamics):
    """A pole to be balanced on a cart by pushes of 10 N to the left (0) or to the right (1); reward 1 a step.

    Equal to Gymnasium's CartPole-v1 step for step, and its start states are those of Gymnasium's vector environment for
    the same seed. An episode ends beyond 2.4 m or 12°, and after 500 steps.
    """

    name = "cartpole_torch"
    original = drawn_as = "CartPole-v1"
    render_fps = 50.0
    max_episode_steps = 500
    reward_threshold = 475.0
    reward_range = (1.0, 1.0)
    discontinuities = "the reward is 1 until the episode ends, whose time jumps"
    force = 10.0  # N
    position_limit = 2.4  # m
    angle_limit = 12 * math.pi / 180  # rad

    def __init__(self) -> None:
        high = np.array([2 * self.position_limit, np.inf, 2 * self.angle_limit, np.inf], dtype=np.float32)
        self.observation_space = gym.spaces.Box(-high, high)
        self.action_space = gym.spaces.Discrete(2)

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -0.05, high: float = 0.05
    ) -> np.ndarray:
        return generator.uniform(low, high, size=(4, number)).T

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return cartpole_step(state, action.to(state) * (2.0 * self.force) - self.force)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return torch.ones_like(state[:, 0])

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 0].abs() > self.position_limit) | (state[:, 2].abs() > self.angle_limit)

    def observation(self, state: Tensor) -> Tensor:
        return state
