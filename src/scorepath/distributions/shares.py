"""Concentrations of Beta and Dirichlet, and samples with the exact derivative to them."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

_MOST = 1e3  # of a concentration: beyond, differences of float32's lgamma are noise
_DROP = 28.0  # of the integrand's logarithm, beyond which it counts as zero
_NEWTON_STEPS = 3  # to that point; any within a few per cent does
_NODES, _WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(24))


def concentrations(raw: Tensor) -> Tensor:
    """1 + softplus of outputs of a network, of any shape, in [1, 1001]: one mode, and no infinite density."""
    return 1.0 + softplus(raw).clamp(max=_MOST)


def sample_dirichlet(concentrations: Tensor) -> Tensor:
    """Draws x ~ Dirichlet(α), both (*B, d), torch's own draws, with dx/dα by implicit reparameterisation.

    dx_i/dα_i = -(∂F/∂α_i) / p, F and p of x_i ~ Beta(α_i, Σα - α_i), and the rest of x shrinks in proportion (Figurnov
    et al. 2018, arXiv:1805.08498, equation 6). For α ≥ 1; exact to 1e-9, where torch's is off by up to 0.16 %.
    """
    sample: Tensor = _Dirichlet.apply(concentrations)
    return sample


class _Dirichlet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, concentrations: Tensor) -> Tensor:
        x = torch._sample_dirichlet(concentrations)  # noqa: SLF001 (the draw of torch.distributions)
        ctx.save_for_backward(x, concentrations)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, concentrations = (tensor.double() for tensor in ctx.saved_tensors)
        rest = _sum_of_others(x)
        derivative = beta_derivative(x, rest, concentrations, _sum_of_others(concentrations))
        return (derivative / rest.clamp(min=torch.finfo(x.dtype).tiny)).to(grad) * (
            grad - (ctx.saved_tensors[0] * grad).sum(dim=-1, keepdim=True)
        )


def _sum_of_others(x: Tensor) -> Tensor:
    """Σ_j x_j - x_i for each i, (*B, d), without a difference."""
    none = torch.zeros_like(x[..., :1])
    before = torch.cat((none, x[..., :-1].cumsum(dim=-1)), dim=-1)
    after = torch.cat((x[..., 1:].flip(-1).cumsum(dim=-1).flip(-1), none), dim=-1)
    return before + after


def beta_derivative(lower: Tensor, upper: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """dx/dα of x ~ Beta(α, β) at a fixed value of its distribution function, α, β ≥ 1, all (*B,) float64.

    -(∂F/∂α) / p(x) = -∫_0^x p(s)/p(x) (ln s - E ln S) ds = ∫_x^1 the same: the side on which ln s - E ln S keeps its
    sign, so that nothing cancels. With z the distance from that side's bound and s's distance z e^-u, the integrand
    is log-concave and falls from u = 0 on: Gauss-Legendre up to where it has vanished.

    Args:
        lower: x.
        upper: 1 - x, for x near 1.
    """
    tiny = torch.finfo(lower.dtype).tiny
    log_mean = torch.digamma(alpha) - torch.digamma(alpha + beta)
    log_x = torch.where(lower < upper, lower.clamp(min=tiny).log(), torch.log1p(-upper.clamp(max=0.5)))
    from_below = log_x < log_mean
    z = torch.where(from_below, lower, upper).clamp(min=tiny)
    odds = z / torch.where(from_below, upper, lower).clamp(min=tiny)
    near = torch.where(from_below, alpha, beta)
    far = torch.where(from_below, beta, alpha) - 1.0
    end = _vanishing_point(odds, near, far).unsqueeze(-1)
    t = 0.5 + 0.5 * _NODES.to(end)
    u = end * t.square()  # closer together where the integrand is large
    ratio = torch.exp(far.unsqueeze(-1) * torch.log1p(-odds.unsqueeze(-1) * torch.expm1(-u)) - near.unsqueeze(-1) * u)
    log_s = torch.where(
        from_below.unsqueeze(-1), log_x.unsqueeze(-1) - u, torch.log1p(-z.unsqueeze(-1) * torch.exp(-u))
    )
    integrand = ratio * (log_s - log_mean.unsqueeze(-1)).abs()
    return z * end.squeeze(-1) * (integrand * (t * _WEIGHTS.to(end))).sum(dim=-1)


def _vanishing_point(odds: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Where g(u) = near u - far ln(1 + odds (1 - e^-u)) has risen by _DROP, (*B,), by Newton's steps: g is convex."""
    slope = (near - far * odds).clamp(min=0.0)  # at u = 0
    curvature = far * odds * (1.0 + odds)  # there, the greatest: u is at least what a parabola says
    u = 2.0 * _DROP / (slope + (slope.square() + 2.0 * _DROP * curvature).sqrt())
    for _ in range(_NEWTON_STEPS):
        rise = near * u - far * torch.log1p(-odds * torch.expm1(-u))
        slope = near - far * odds * torch.exp(-u) / (1.0 - odds * torch.expm1(-u))
        u = u - (rise - _DROP) / slope
    return u
