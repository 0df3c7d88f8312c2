"""Normal: independent Gaussians over a Box."""

from torch import Tensor
from torch.distributions import Distribution
from torch.distributions import Normal as TorchNormal

from scorepath.distributions.location_scale import AbstractLocationScaleHead


class Normal(AbstractLocationScaleHead):
    """a ~ N(mean, std²), each entry by itself; std is in units of the action."""

    is_common = True
    has_rsample = True

    def forward(self, features: Tensor) -> Distribution:
        return self.independent(TorchNormal(*self.mean_and_std_of_actions(features), validate_args=self.validate_args))
