"""Environments: the only boundary between numpy and tensors."""

from scorepath.envs.base import AbstractEnvironment, Step
from scorepath.envs.gymnasium_env import GymnasiumEnvironment
from scorepath.envs.torch_env import TorchEnvironment

__all__ = ["AbstractEnvironment", "GymnasiumEnvironment", "Step", "TorchEnvironment"]
