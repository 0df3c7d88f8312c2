"""One file per torch environment."""

from scorepath.envs.dynamics.acrobot import Acrobot
from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.dynamics.cartpole import CartPole
from scorepath.envs.dynamics.cartpole_swingup import CartPoleSwingUp
from scorepath.envs.dynamics.discontinuous import BallWithWall, Heaviside
from scorepath.envs.dynamics.lqr import LQR
from scorepath.envs.dynamics.mixed import Hybrid, Mixed
from scorepath.envs.dynamics.mountain_car import MountainCar, MountainCarContinuous
from scorepath.envs.dynamics.one_step import AbstractOneStep, Bell, Choice, Cosine, Quadratic
from scorepath.envs.dynamics.pendulum import Pendulum
from scorepath.envs.dynamics.tabular import Tabular, bandit, random_mdp, time_limit

__all__ = [
    "LQR",
    "AbstractDynamics",
    "AbstractOneStep",
    "Acrobot",
    "BallWithWall",
    "Bell",
    "CartPole",
    "CartPoleSwingUp",
    "Choice",
    "Cosine",
    "Heaviside",
    "Hybrid",
    "Mixed",
    "MountainCar",
    "MountainCarContinuous",
    "Pendulum",
    "Quadratic",
    "Tabular",
    "bandit",
    "random_mdp",
    "time_limit",
]
