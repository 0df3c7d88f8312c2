"""Laplace and Student's t: independent entries whose samples stray further from the mean than a Gaussian's."""

import math

import gymnasium as gym
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import StudentT as TorchStudentT

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std


class Laplace(AbstractLocationScaleHead):
    """p(a) = exp(-|a - mean| / b) / 2b with b = std / √2, each entry by itself.

    `std` is the standard deviation here too.
    """

    has_rsample = True

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std_of_actions(features)
        return self.independent(TorchLaplace(mean, std / math.sqrt(2.0), validate_args=self.validate_args))


class StudentT(AbstractLocationScaleHead):
    """(a - mean) / s ~ Student's t with df degrees of freedom, s = std √((df - 2) / df), each entry by itself.

    A Normal as df grows: `std` is the standard deviation here too, and so df must be above 2.

    Args:
        df: degrees of freedom, in (2, 1e6]; the tails fall like |a|^-(df + 1).
        std, initial_std, mean: as of `AbstractLocationScaleHead`.

    Raises:
        ValueError: if df or another option is out of range.
    """

    has_rsample = True

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        df: float = 5.0,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        if not 2 < df <= 1e6:
            raise ValueError(f"df must be from above 2, where the std exists, to 1e6, but is {df}.")
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args)
        self.df = df

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std_of_actions(features)
        scale = std * math.sqrt((self.df - 2.0) / self.df)
        return self.independent(TorchStudentT(self.df, mean, scale, validate_args=self.validate_args))
