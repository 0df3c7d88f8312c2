"""The two mountain cars, twins of Gymnasium's MountainCar-v0 and MountainCarContinuous-v0."""

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from scorepath.envs.dynamics.base import AbstractDynamics

LOW, HIGH = -1.2, 0.6  # position
MAX_SPEED = 0.07
SLOPE = 0.0025  # of gravity


def roll(state: Tensor, push: Tensor) -> Tensor:
    """One step of a car in a valley sin(3x), with an inelastic wall on its left (Moore 1990).

    Args:
        state: (N, 2), position and velocity.
        push: (N,), added to the velocity.

    Returns:
        (N, 2).
    """
    position, velocity = state.unbind(-1)
    velocity = (velocity + push - SLOPE * (3.0 * position).cos()).clamp(-MAX_SPEED, MAX_SPEED)
    position = (position + velocity).clamp(LOW, HIGH)
    stopped = (position == LOW) & (velocity < 0)
    return torch.stack((position, torch.where(stopped, 0.0, velocity)), dim=-1)


def initial_states(generator: np.random.Generator, number: int, low: float, high: float) -> np.ndarray:
    """Standing still between `low` and `high`, (N, 2)."""
    positions = generator.uniform(low, high, size=number)
    return np.stack((positions, np.zeros(number)), axis=1)


def observation_space() -> gym.spaces.Box:
    """Position and velocity."""
    return gym.spaces.Box(np.array([LOW, -MAX_SPEED], np.float32), np.array([HIGH, MAX_SPEED], np.float32))


class MountainCar(AbstractDynamics):
    """A car too weak for its hill, pushed to the left, not at all or to the right; reward -1 a step until the goal.

    Equal to Gymnasium's MountainCar-v0 step for step.
    """

    name = "mountain_car_torch"
    original = drawn_as = "MountainCar-v0"
    max_episode_steps = 200
    reward_threshold = -110.0
    reward_range = (-1.0, -1.0)
    discontinuities = "the reward is -1 until the episode ends, whose time jumps"
    goal = 0.5
    force = 0.001

    def __init__(self) -> None:
        self.observation_space = observation_space()
        self.action_space = gym.spaces.Discrete(3)

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -0.6, high: float = -0.4
    ) -> np.ndarray:
        return initial_states(generator, number, low, high)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return roll(state, (action.to(state) - 1.0) * self.force)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return -torch.ones_like(state[:, 0])

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 0] >= self.goal) & (state[:, 1] >= 0.0)

    def observation(self, state: Tensor) -> Tensor:
        return state


class MountainCarContinuous(AbstractDynamics):
    """The same car with a force to choose; reward 100 at the goal, and -0.1 times the square of the action a step.

    Equal to Gymnasium's MountainCarContinuous-v0 step for step, also in that an action beyond its bounds pushes as if
    it were within, and costs what it is.
    """

    name = "mountain_car_continuous_torch"
    original = drawn_as = "MountainCarContinuous-v0"
    max_episode_steps = 999
    reward_threshold = 90.0
    # not differentiable: the cost of actions is, but its derivative says to stand still; all to be gained is a jump
    discontinuities = "the goal's reward and the episode's end jump, and the wall stops the car"
    goal = 0.45
    power = 0.0015

    def __init__(self) -> None:
        self.observation_space = observation_space()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def initial(
        self, generator: np.random.Generator, number: int, *, low: float = -0.6, high: float = -0.4
    ) -> np.ndarray:
        return initial_states(generator, number, low, high)

    def transition(self, state: Tensor, action: Tensor) -> Tensor:
        return roll(state, action.squeeze(-1).clamp(-1.0, 1.0) * self.power)

    def reward(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        return 100.0 * self.terminal(next_state).to(state) - 0.1 * action.squeeze(-1).to(state).square()

    def terminal(self, state: Tensor) -> Tensor:
        return (state[:, 0] >= self.goal) & (state[:, 1] >= 0.0)

    def observation(self, state: Tensor) -> Tensor:
        return state
