"""Log densities of the continuous heads by scipy, from a head's weights: (head, features (F,), action) -> one number.

They rebuild each density from its docstring with numpy alone, entry by entry.
"""

from typing import Any

import numpy as np
import scipy.special
import scipy.stats


def linear(layer: Any, features: np.ndarray) -> np.ndarray:
    bias = 0.0 if layer.bias is None else layer.bias.detach().numpy()
    return layer.weight.detach().numpy() @ features + bias


def bounds(head: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low and high of each entry, (D,), -1 and 1 where it lacks one of them, and where it has both."""
    low, high = (bound.astype(float).ravel() for bound in (head.action_space.low, head.action_space.high))
    finite = np.isfinite(low) & np.isfinite(high)
    return np.where(finite, low, -1.0), np.where(finite, high, 1.0), finite


def mean_and_std(
    head: Any, features: np.ndarray, *, squash: bool, components: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """In units of half the range, (components, D) each."""
    _, _, finite = bounds(head)
    mean, log_std = linear(head.mean, features), head.log_std.detach().numpy()
    if head.log_std_slope is not None:
        log_std = log_std + linear(head.log_std_slope, features)
    mean = mean.reshape(components, -1)
    if squash:
        mean = np.where(finite, np.tanh(mean), mean)
    return mean, np.exp(log_std).reshape(components, -1)


def of_actions(
    head: Any, features: np.ndarray, *, squash: bool = True, components: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std in units of the action, (components, D) each; `squash` unless the head has mean=unbounded."""
    low, high, _ = bounds(head)
    mean, std = mean_and_std(head, features, squash=squash, components=components)
    return (low + high) / 2 + (high - low) / 2 * mean, (high - low) / 2 * std


def normal(head: Any, features: np.ndarray, action: np.ndarray, *, squash: bool = True) -> float:
    mean, std = of_actions(head, features, squash=squash)
    return float(scipy.stats.norm.logpdf(action.reshape(1, -1), mean, std).sum())


def laplace(head: Any, features: np.ndarray, action: np.ndarray, *, squash: bool = True) -> float:
    mean, std = of_actions(head, features, squash=squash)
    return float(scipy.stats.laplace.logpdf(action.reshape(1, -1), mean, std / np.sqrt(2)).sum())


def student_t(head: Any, features: np.ndarray, action: np.ndarray, *, squash: bool = True) -> float:
    mean, std = of_actions(head, features, squash=squash)
    scale = std / np.sqrt(head.df / (head.df - 2))
    return float(scipy.stats.t.logpdf(action.reshape(1, -1), head.df, mean, scale).sum())


def _loadings(head: Any, features: np.ndarray) -> np.ndarray:
    loadings = head.loadings.detach().numpy()
    return loadings if head.loadings_slope is None else loadings + linear(head.loadings_slope, features)


def multivariate_normal(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    mean, std = (part.ravel() for part in of_actions(head, features))
    triangle = np.eye(len(std))
    given = iter(_loadings(head, features))
    for row in range(len(std)):
        for column in range(row):
            triangle[row, column] = next(given)
        triangle[row] *= std[row] / np.linalg.norm(triangle[row])
    return float(scipy.stats.multivariate_normal.logpdf(action.ravel(), mean, triangle @ triangle.T))


def low_rank_normal(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    mean, std = (part.ravel() for part in of_actions(head, features))
    factor = _loadings(head, features).reshape(len(std), head.rank)
    covariance = factor @ factor.T + np.eye(len(std))
    ratio = std / np.sqrt(np.diag(covariance))
    return float(scipy.stats.multivariate_normal.logpdf(action.ravel(), mean, np.outer(ratio, ratio) * covariance))


def mixture_normal(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    logits = linear(head.logits, features)
    means, stds = of_actions(head, features, components=len(logits))
    each = scipy.stats.norm.logpdf(action.reshape(1, -1), means, stds).sum(axis=1)
    return float(scipy.special.logsumexp(each + scipy.special.log_softmax(logits)))


def tanh_normal(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    """By the change of variables u = atanh(y)."""
    low, high, _ = bounds(head)
    mean, std = mean_and_std(head, features, squash=False)
    y = (action.ravel() - (low + high) / 2) / ((high - low) / 2)
    jacobian = np.log((high - low) / 2) + np.log1p(-(y**2))
    return float((scipy.stats.norm.logpdf(np.arctanh(y), mean[0], std[0]) - jacobian).sum())


def truncated_normal(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    low, high, _ = bounds(head)
    mean, std = mean_and_std(head, features, squash=True)
    mode, scale = (low + high) / 2 + (high - low) / 2 * mean[0], (high - low) / 2 * std[0]
    ends = (low - mode) / scale, (high - mode) / scale
    return float(scipy.stats.truncnorm.logpdf(action.ravel(), *ends, mode, scale).sum())


def _concentrations(head: Any, features: np.ndarray) -> np.ndarray:
    return 1.0 + np.logaddexp(0.0, linear(head.concentrations, features)).reshape(2, -1)


def beta(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    low, high, _ = bounds(head)
    alpha, beta = _concentrations(head, features)
    return float(scipy.stats.beta.logpdf(action.ravel(), alpha, beta, low, high - low).sum())


def kumaraswamy(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    """By the change of variables v = s^α ~ Beta(1, β)."""
    low, high, _ = bounds(head)
    alpha, beta = _concentrations(head, features)
    share = (action.ravel() - low) / (high - low)
    jacobian = np.log(alpha) + (alpha - 1) * np.log(share) - np.log(high - low)
    return float((scipy.stats.beta.logpdf(share**alpha, 1.0, beta) + jacobian).sum())


def von_mises(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    low, high, finite = bounds(head)
    turn = float(np.float32(np.pi))  # an unbounded entry's bounds, in float32 like the space
    low, high = np.where(finite, low, -turn), np.where(finite, high, turn)
    log_kappa = head.log_concentration.detach().numpy()
    if head.log_concentration_slope is not None:
        log_kappa = log_kappa + linear(head.log_concentration_slope, features)
    angle = (action.ravel() - (low + high) / 2) / ((high - low) / 2) * np.pi
    mean = np.pi * linear(head.mean, features)
    density = scipy.stats.vonmises.logpdf(angle, np.exp(log_kappa), mean)
    return float((density - np.log((high - low) / 2 / np.pi)).sum())


def binomial_log_prob(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    probability = scipy.special.expit(linear(head.counts, features))
    return float(scipy.stats.binom.logpmf(action.ravel(), _ranges(head), probability).sum())


def poisson_log_prob(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    rate = _ranges(head) / 2 * np.exp(linear(head.counts, features))
    return float(scipy.stats.poisson.logpmf(action.ravel(), rate).sum())


def _ranges(head: Any) -> np.ndarray:
    space = head.action_space
    return np.atleast_1d(space.n - 1 if hasattr(space, "n") else (space.high - space.low).ravel())


def dirichlet_log_prob(head: Any, features: np.ndarray, action: np.ndarray) -> float:
    concentrations = 1.0 + np.logaddexp(0.0, linear(head.concentrations, features))
    return float(scipy.stats.dirichlet.logpdf(action / action.sum(), concentrations))
