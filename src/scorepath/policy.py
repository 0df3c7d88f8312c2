"""The policy: a torso that turns observations into features, and a head that turns these into a distribution."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from scorepath.distributions.base import AbstractHead

_WIDEST = 65_536  # of a hidden layer: a slip of a digit or two should not fill the memory
_VECTORISED = 2048  # entries from which three operations cost less than one torch.tanh
_MINUS_ONE = torch.tensor(-1.0)  # to make it costs as much as an operation; adding it to double gives double


class _TanhBySigmoid(torch.autograd.Function):
    """tanh(x) = 2 σ(2x) - 1 in place of x, with the derivative of torch.tanh."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.add(_MINUS_ONE, x.add_(x).sigmoid_(), alpha=2.0, out=x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.mark_dirty(output)
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(gradient, out)


class _Tanh(nn.Module):
    """tanh in place, on a CPU by way of the sigmoid, which torch computes several times faster.

    The two agree to 2e-7 in float32. With torch's own, the activations take two thirds of the forward pass of a small
    policy. In place, because freed pre-activations between kept activations leave holes that glibc does not use again.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(*B, F) -> (*B, F), of a layer whose backward pass does not need its own output."""
        if torch.compiler.is_compiling():
            return torch.tanh(x)  # which a compiler makes one with what surrounds it
        if x.numel() < _VECTORISED or x.device.type != "cpu":
            return torch.tanh_(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return _TanhBySigmoid.apply(x)
        return _TanhBySigmoid.forward(x)


_ACTIVATIONS = {"tanh": _Tanh, "relu": nn.ReLU, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU}


class ObservationNormalizer(nn.Module):
    """(o - mean) / std of all observations so far, clipped to ±10 (Welford's update, batch form, Chan et al. 1983).

    The statistics are buffers: they travel in checkpoints and change only between updates.
    """

    count: Tensor
    mean: Tensor
    squares: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("squares", torch.zeros(size, dtype=torch.float64))

    @torch.no_grad()
    def update(self, observations: Tensor) -> None:
        """Takes in observations (B, O)."""
        new = observations.double()
        number = len(new)
        mean = new.mean(dim=0)
        total = self.count + number
        delta = mean - self.mean
        self.squares += (new - mean).square().sum(dim=0) + delta.square() * self.count * number / total
        self.mean += delta * number / total
        self.count.copy_(total)

    def forward(self, observations: Tensor) -> Tensor:
        """(*B, O) -> (*B, O)."""
        std = (self.squares / self.count.clamp(min=1.0)).sqrt().where(self.count > 0, torch.ones_like(self.mean))
        scaled = (observations - self.mean.to(observations)) / std.clamp(min=1e-4).to(observations)
        return scaled.clamp(-10.0, 10.0)


class MLP(nn.Module):
    """Hidden layers with one activation; none of them makes it the identity, for linear policies.

    Args:
        in_features: O.
        hidden_sizes: widths of the hidden layers.
        activation: tanh, relu, elu, gelu or silu.

    Raises:
        ValueError: for another activation, or a width that is no whole number from 1 to 65,536.
    """

    def __init__(self, in_features: int, hidden_sizes: Sequence[int], activation: str = "tanh") -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation} is unknown: use one of {', '.join(_ACTIVATIONS)}.")
        if not all(isinstance(size, int | np.integer) and 1 <= size <= _WIDEST for size in hidden_sizes):
            raise ValueError(f"hidden_sizes={list(hidden_sizes)} must be whole numbers from 1 to {_WIDEST:,}.")
        layers: list[nn.Module] = []
        self.out_features = in_features
        for size in hidden_sizes:
            layers += [_linear(self.out_features, size), _ACTIVATIONS[activation]()]
            self.out_features = size
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """(*B, O) -> (*B, F)."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs


def _linear(in_features: int, out_features: int) -> nn.Linear:
    """A Linear layer; where it widens, with its weight stored column by column.

    Autograd gives a weight's gradient the weight's own layout, and the product that it takes for rows costs up to six
    times as much as the one for columns where there are few inputs.
    """
    layer = nn.Linear(in_features, out_features)
    if in_features < out_features:
        layer.weight = nn.Parameter(layer.weight.detach().T.contiguous().T)
    return layer


class Policy(nn.Module):
    """π(a | o): observations (*B, *O) -> a distribution over actions with `batch_shape == B`.

    Args:
        torso: (*B, O) -> (*B, F).
        head: (*B, F) -> Distribution.
        observation_dims: dims of *O, flattened before the torso.
        normalizer: of the flattened observations, or None.
    """

    def __init__(
        self,
        torso: nn.Module,
        head: AbstractHead,
        observation_dims: int = 1,
        normalizer: ObservationNormalizer | None = None,
    ) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.torso = torso
        self.head = head
        self._observation_dims = observation_dims

    def features(self, observations: Tensor) -> Tensor:
        """(*B, *O) -> (*B, F)."""
        inputs = observations
        if self._observation_dims != 1:
            inputs = inputs.flatten(-self._observation_dims) if self._observation_dims else inputs.unsqueeze(-1)
        if self.normalizer is not None:
            inputs = self.normalizer(inputs)
        return self.torso(inputs)

    def forward(self, observations: Tensor) -> Distribution:
        features = self.features(observations)
        if features.dtype in (torch.bfloat16, torch.float16):
            # mixed precision is the torso's: samplers of several distributions know no half
            with torch.autocast(features.device.type, enabled=False):
                return self.head(features.float())
        return self.head(features)


def initialize(policy: Policy, init: Literal["torch", "orthogonal"], output_scale: float = 1.0) -> None:
    """Sets the weights of a policy in place.

    Args:
        policy: its torso and head.
        init: of the torso: `torch` keeps torch's default; `orthogonal` draws weights of gain √2 and zero biases.
        output_scale: factor on the head's Linear layers; small ones start the policy near-uniform.
    """
    with torch.no_grad():
        if init == "orthogonal":
            for layer in policy.torso.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.orthogonal_(layer.weight, math.sqrt(2.0))
                    nn.init.zeros_(layer.bias)
        for layer in policy.head.modules():
            if isinstance(layer, nn.Linear):
                for parameter in layer.parameters():
                    parameter.mul_(output_scale)
