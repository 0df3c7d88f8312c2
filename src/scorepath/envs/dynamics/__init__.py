"""One file per torch environment."""

from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.dynamics.cartpole import CartPole
from scorepath.envs.dynamics.discontinuous import BallWithWall, Heaviside
from scorepath.envs.dynamics.lqr import LQR
from scorepath.envs.dynamics.mixed import Hybrid, Mixed
from scorepath.envs.dynamics.one_step import AbstractOneStep, Bell, Choice, Cosine, Quadratic
from scorepath.envs.dynamics.pendulum import Pendulum
from scorepath.envs.dynamics.tabular import Tabular, bandit, random_mdp, time_limit

__all__ = [
    "LQR",
    "AbstractDynamics",
    "AbstractOneStep",
    "BallWithWall",
    "Bell",
    "CartPole",
    "Choice",
    "Cosine",
    "Heaviside",
    "Hybrid",
    "Mixed",
    "Pendulum",
    "Quadratic",
    "Tabular",
    "bandit",
    "random_mdp",
    "time_limit",
]
