"""Laplace and Student's t: independent entries whose samples stray further from the mean than a Gaussian's."""

import math

import gymnasium as gym
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions import Laplace as TorchLaplace
from torch.distributions import StudentT as TorchStudentT

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std


class Laplace(AbstractLocationScaleHead):
    """p(a) = exp(-|a - mean| / b) / 2b with b = std / √2, each entry by itself.

    Units, bounds and options as of `Normal`: `std` is the standard deviation here too.

    Args:
        std: `state_independent` learns one log std per entry, `state_dependent` a linear function of the features.
        initial_std: std at the start, in units of half the range, in (0, 100].
        mean: `bounded` to the Box by tanh (an entry without finite bounds stays unbounded), or `unbounded`.

    Raises:
        ValueError: if initial_std is out of range or an option has another value.
    """

    has_rsample = True

    def __init__(
        self,
        action_space: gym.spaces.Box,
        in_features: int,
        std: Std = "state_independent",
        initial_std: float = 0.6,
        mean: Mean = "bounded",
        validate_args: bool = False,
    ) -> None:
        super().__init__(action_space, in_features, std, initial_std, mean, validate_args)

    def forward(self, features: Tensor) -> Distribution:
        mean, std = self.mean_and_std_of_actions(features)
        laplace = TorchLaplace(mean, std / math.sqrt(2.0), validate_args=self.validate_args)
        return Independent(laplace, self._event_dims, validate_args=self.validate_args)


class StudentT(AbstractLocationScaleHead):
    """(a - mean) / s ~ Student's t with df degrees of freedom, s = std √((df - 2) / df), each entry by itself.

    Units, bounds and options as of `Normal`, which it becomes as df grows: `std` is the standard deviation here too,
    and so df must be above 2.

    Args:
        df: degrees of freedom, in (2, 1e6]; the tails fall like |a|^-(df + 1).
        std: `state_independent` learns one log std per entry, `state_dependent` a linear function of the features.
        initial_std: std at the start, in units of half the range, in (0, 100].
        mean: `bounded` to the Box by tanh (an entry without finite bounds stays unbounded), or `unbounded`.

    Raises:
        ValueError: if df or initial_std is out of range or an option has another value.
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
        student = TorchStudentT(self.df, mean, scale, validate_args=self.validate_args)
        return Independent(student, self._event_dims, validate_args=self.validate_args)
