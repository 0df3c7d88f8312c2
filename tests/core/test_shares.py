"""Derivatives of Beta's and Dirichlet's samples against the distribution function in 40 digits, and exact means."""

import itertools

import mpmath
import numpy as np
import pytest
import torch
from torch.distributions import Dirichlet

from scorepath.distributions.shares import beta_derivative, sample_dirichlet

CONCENTRATIONS = (1.0, 1.01, 1.5, 4.0, 30.0, 1001.0)


def truth(x, alpha, beta):
    """-(∂F/∂α) / p at x, by a central difference in 40 digits."""
    with mpmath.workdps(40):
        x, alpha, beta, h = mpmath.mpf(x), mpmath.mpf(alpha), mpmath.mpf(beta), mpmath.mpf("1e-13")
        low, high = (mpmath.betainc(alpha + d, beta, 0, x, regularized=True) for d in (-h, h))
        density = x ** (alpha - 1) * (1 - x) ** (beta - 1) / mpmath.beta(alpha, beta)
        return float((low - high) / (2 * h) / density)


def points():
    """(x, α, β): around the mean, in both tails, and beside the point where the two formulas meet."""
    for alpha, beta in itertools.product(CONCENTRATIONS, repeat=2):
        mean = alpha / (alpha + beta)
        std = (mean * (1 - mean) / (alpha + beta + 1)) ** 0.5
        switch = float(mpmath.exp(mpmath.digamma(alpha) - mpmath.digamma(alpha + beta)))
        places = (mean / 1000, mean - 2 * std, switch * (1 - 1e-7), switch * (1 + 1e-7), mean + std, mean + 4 * std)
        yield from ((x, alpha, beta) for x in places if 0 < x < 1)


def test_derivative_is_exact():
    """torch's is off by up to 1.6e-3 here."""
    cases = list(points())
    x, alpha, beta = torch.tensor(cases, dtype=torch.float64).unbind(-1)
    expected = torch.tensor([truth(*case) for case in cases], dtype=torch.float64)
    torch.testing.assert_close(beta_derivative(x, 1 - x, alpha, beta), expected, rtol=2e-9, atol=0.0)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 2e-9), (torch.float32, 1e-5)])
def test_gradient_of_a_sample(dtype, rtol):
    """dx_j/dα_i = (δ_ij - x_j) / (1 - x_i) dx_i/dα_i, for two shares and for four."""
    torch.manual_seed(0)
    for row in ((1.2, 3.0), (40.0, 7.0), (600.0, 900.0), (1.0, 2.5, 9.0, 300.0)):
        alpha = torch.tensor(row, dtype=dtype, requires_grad=True)
        x = sample_dirichlet(alpha)
        for j in range(len(row)):
            (gradient,) = torch.autograd.grad(x[j], alpha, retain_graph=True)
            share, concentration = x.tolist(), alpha.tolist()
            expected = [
                ((i == j) - share[j]) / (1 - share[i]) * truth(share[i], concentration[i], sum(concentration) - a)
                for i, a in enumerate(concentration)
            ]
            torch.testing.assert_close(gradient, torch.tensor(expected, dtype=dtype), rtol=rtol, atol=0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 3.0), (5.0, 1.0), (30.0, 4.0), (60.0, 90.0), (300.0, 200.0)])
def test_mean_derivatives_are_those_of_exact_means(alpha, beta):
    """∫ p(x) f'(x) dx/dα dx = d/dα E f(x), for f(x) = x, x² and ln x."""
    nodes, weights = np.polynomial.legendre.leggauss(600)
    x, w = torch.from_numpy(0.5 + 0.5 * nodes), torch.from_numpy(0.5 * weights)
    a = torch.tensor(alpha, dtype=torch.float64, requires_grad=True)
    density = torch.distributions.Beta(a.detach(), torch.tensor(beta, dtype=torch.float64)).log_prob(x).exp()
    derivative = beta_derivative(x, 1 - x, a.detach().expand(600), torch.full((600,), beta, dtype=torch.float64))
    total = a + beta
    means = (a / total, a * (a + 1) / (total * (total + 1)), torch.digamma(a) - torch.digamma(total))
    for slope, mean in zip((torch.ones_like(x), 2 * x, 1 / x), means, strict=True):
        (exact,) = torch.autograd.grad(mean, a, retain_graph=True)
        torch.testing.assert_close((w * density * slope * derivative).sum(), exact, rtol=1e-6, atol=0.0)


def test_samples_are_those_of_torch():
    alpha = 1.0 + 50.0 * torch.rand(100, 3)
    torch.manual_seed(1)
    ours = sample_dirichlet(alpha)
    torch.manual_seed(1)
    assert torch.equal(ours, Dirichlet(alpha).rsample())


def test_derivative_at_the_bounds_is_finite():
    """Where rounding has put a sample on a bound."""
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([0.0, 1.0, torch.finfo(dtype).tiny, 1e-30, 0.5], dtype=dtype).double()
        derivative = beta_derivative(x, 1 - x, torch.full_like(x, 1.0), torch.full_like(x, 1001.0))
        assert derivative.isfinite().all()
        assert (derivative >= 0).all()


def test_many_gradients_at_once():
    """As diagnostics take them, with a dimension for each of several losses."""
    alpha = torch.full((3, 2), 2.0, dtype=torch.float64, requires_grad=True)
    x = sample_dirichlet(alpha)[:, 0]
    (batched,) = torch.autograd.grad(x, alpha, torch.eye(3, dtype=x.dtype), is_grads_batched=True, retain_graph=True)
    for row, loss in zip(batched, x, strict=True):
        torch.testing.assert_close(row, torch.autograd.grad(loss, alpha, retain_graph=True)[0])
