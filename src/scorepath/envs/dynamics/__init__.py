"""One file per torch environment."""

from scorepath.envs.dynamics.base import AbstractDynamics
from scorepath.envs.dynamics.lqr import LQR
from scorepath.envs.dynamics.pendulum import Pendulum

__all__ = ["LQR", "AbstractDynamics", "Pendulum"]
