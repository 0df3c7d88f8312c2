"""Discrete actions through a differentiable environment: the straight-through and the Gumbel-softmax estimator."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution
from torch.nn.functional import one_hot

from scorepath.distributions import AbstractHead
from scorepath.distributions.relaxed import checked_temperature
from scorepath.estimators.pathwise import AbstractPathwise, window_bias


class StraightThrough(AbstractPathwise):
    """Acts by a choice, a ~ π, and differentiates as if its weights had been soft: ∂ onehot(a) / ∂θ := ∂ w / ∂θ.

    Without a temperature w are the probabilities (Bengio et al. 2013, arXiv:1308.3432, section 4); with one, a is the
    largest entry of a Concrete sample w (Jang et al. 2017, arXiv:1611.01144, section 2.2). The environment meets the
    policy's own actions, so that the return is the policy's; the gradient is exact where rewards are linear in the
    weights (without a temperature, for one step), and biased elsewhere.

    Args:
        temperature: of the Concrete sample; None differentiates the probabilities.
        window: env steps of a window, as in `Pathwise`; None is the whole episode.
        accept_discontinuities: run also where the environment jumps between its choices' weights.

    Raises:
        ValueError: if an option is out of range; at a call, if the rewards carry no graph.
    """

    needs_weights = True
    dists = (Bernoulli, Categorical)

    def __init__(
        self, temperature: float | None = None, window: int | None = 20, accept_discontinuities: bool = False
    ) -> None:
        super().__init__(window, accept_discontinuities)
        self.temperature = None if temperature is None else checked_temperature(temperature)

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ("the derivative of hard choices is taken to be that of soft weights", *window_bias(self.window))

    def act(self, head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
        """The choice as the head samples it, and for the environment weights that are one-hot in value."""
        if self.temperature is None:
            choice = dist.sample()
            soft = probabilities(dist)
        else:
            soft = concrete_sample(dist, self.temperature)
            choice = (soft > 0.5).to(soft) if isinstance(dist, Bernoulli) else soft.argmax(dim=-1)
        hard = choice if isinstance(dist, Bernoulli) else one_hot(choice, soft.shape[-1]).to(soft)
        # in this order the value is `hard` to the bit
        return choice.detach(), hard + (soft - soft.detach())


class GumbelSoftmax(AbstractPathwise):
    """Acts by weights w ~ Concrete(logits, temperature) and differentiates through them (Jang et al. 2017,
    arXiv:1611.01144; Maddison et al. 2017, arXiv:1611.00712; for two choices the binary Concrete).

    The gradient is the exact one of a policy that acts by weights: biased for the policy that chooses, the less so the
    lower the temperature, at a variance that grows as it falls.

    Args:
        temperature: above 0; near 0 the weights are one-hot.
        window: env steps of a window, as in `Pathwise`; None is the whole episode.
        accept_discontinuities: run also where the environment jumps between its choices' weights.

    Raises:
        ValueError: if an option is out of range; at a call, if the rewards carry no graph.
    """

    needs_weights = True
    dists = (Bernoulli, Categorical)

    def __init__(self, temperature: float = 0.5, window: int | None = 20, accept_discontinuities: bool = False) -> None:
        super().__init__(window, accept_discontinuities)
        self.temperature = checked_temperature(temperature)

    def bias(self, gamma: float) -> tuple[str, ...]:
        return ("acts by relaxed weights, not by choices", *window_bias(self.window))

    def act(self, head: AbstractHead, dist: Distribution) -> tuple[Tensor, Tensor]:
        """Weights, recorded as they are given to the environment."""
        weights = concrete_sample(dist, self.temperature)
        return weights, weights


def probabilities(dist: Distribution) -> Tensor:
    """p(1) (N,) of a Bernoulli, all K of a Categorical (N, K), with their graph."""
    assert isinstance(dist, Bernoulli | Categorical)
    return dist.probs


def concrete_sample(dist: Distribution, temperature: float) -> Tensor:
    """Weights softmax((log p + g) / temperature), g Gumbel noise, (N, K) from a Categorical; of a Bernoulli the weight
    of 1, sigmoid((logit + l) / temperature), l logistic noise, (N,). Their graph leads to the logits.
    """
    assert isinstance(dist, Bernoulli | Categorical)
    logits = dist.logits
    # open at 0, where its logarithm is -inf; in float32 1 - uniform is as fine near 0 as it gets
    uniform = torch.rand_like(logits).clamp(min=torch.finfo(logits.dtype).tiny, max=1.0 - torch.finfo(logits.dtype).eps)
    if isinstance(dist, Bernoulli):
        return ((logits + uniform.log() - (-uniform).log1p()) / temperature).sigmoid()
    return ((logits - (-uniform.log()).log()) / temperature).softmax(dim=-1)
