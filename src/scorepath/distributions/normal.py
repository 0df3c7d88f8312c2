"""Normal: independent Gaussians over a Box."""

import gymnasium as gym
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from scorepath.distributions.location_scale import AbstractLocationScaleHead, Mean, Std


class Normal(AbstractLocationScaleHead):
    """a ~ N(mean, std²), each entry by itself; std is in units of the action.

    The network works in units of half the Box's range around its middle (1 around 0 where the Box is unbounded).
    Actions outside the Box are clipped on their way to the environment while `log_prob` is that of the unclipped
    sample, so that both gradient estimators stay exact for the clipped environment.

    Args:
        std: `state_independent` learns one log std per entry, `state_dependent` a linear function of the features.
        initial_std: std at the start, in units of half the range, in (0, 100].
        mean: `bounded` to the Box by tanh (an entry without finite bounds stays unbounded), or `unbounded`.

    Raises:
        ValueError: if initial_std is out of range or an option has another value.
    """

    is_common = True
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
        normal = TorchNormal(*self.mean_and_std_of_actions(features), validate_args=self.validate_args)
        return Independent(normal, self._event_dims, validate_args=self.validate_args)
