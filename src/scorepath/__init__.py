"""scorepath: policy gradients on torch.distributions, score function and pathwise, with Hydra and Lightning."""

__version__ = "0.1.0"

from scorepath.registration import register_environments

register_environments()
